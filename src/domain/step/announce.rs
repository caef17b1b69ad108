//! What the batch tells others: the messages of the contract, made from the record.

use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Draft, Effect};
use crate::contract::commands::{
    AiFeedbackInitiate, CjAssessmentInitiate, CommandBase, NlpInitiate, SpellcheckInitiate, StudentMatchingInitiate,
};
use crate::contract::enums::ValidationMethod;
use crate::contract::events::{
    BatchContentProvisioningCompleted, BatchEssaysReady, BatchEssaysRegistered, BatchPhaseOutcome,
    BatchPipelineCompleted, PhaseSkipped, PipelineDenied, StudentAssociation, StudentAssociationsConfirmed,
    TeacherNotificationRequested,
};
use crate::contract::notifications::Payload;
use crate::contract::{EssayRef, EventName, SystemMetadata, Text, Topic, metadata, services};
use crate::domain::attempt::{Attempt, Origin};
use crate::domain::batch::Run;
use crate::domain::essays::EssayCounts;
use crate::domain::phase::Phase;

/// A message to publish; the engine puts it into an envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// What connects it with the request that caused it.
    pub correlation_id: Uuid,
    /// The envelope's `metadata`.
    pub metadata: Option<Map<String, Value>>,
    /// The message.
    pub data: Data,
}

/// The messages that a batch sends.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Data {
    /// The batch exists.
    Registered(BatchEssaysRegistered),
    /// All slots are filled.
    ContentProvisioned(BatchContentProvisioningCompleted),
    /// A phase was left out.
    PhaseSkipped(PhaseSkipped),
    /// No phase is left to run.
    PipelineCompleted(BatchPipelineCompleted),
    /// A pipeline was denied.
    PipelineDenied(PipelineDenied),
    /// One line for the owner.
    Notification(TeacherNotificationRequested<Payload>),
    /// Run the spellcheck.
    Spellcheck(SpellcheckInitiate),
    /// Run the comparative judgement.
    CjAssessment(CjAssessmentInitiate),
    /// Run the analysis.
    Nlp(NlpInitiate),
    /// Write the feedback.
    AiFeedback(AiFeedbackInitiate),
    /// Find out whose the essays are.
    StudentMatching(StudentMatchingInitiate),
    /// Nobody confirmed whose the essays are.
    AssociationsConfirmed(StudentAssociationsConfirmed),
    /// The essays of a regular batch are stored, with their students.
    EssaysReady(BatchEssaysReady),
    /// A worker of somebody else's is through with a phase.
    PhaseOutcome(BatchPhaseOutcome),
}

impl Data {
    /// The topic it travels on.
    #[must_use]
    pub const fn topic(&self) -> Topic {
        match self {
            Self::Registered(_) => Topic::BatchEssaysRegistered,
            Self::ContentProvisioned(_) => Topic::BatchContentProvisioningCompleted,
            Self::PhaseSkipped(_) => Topic::BatchPhaseSkipped,
            Self::PipelineCompleted(_) => Topic::BatchPipelineCompleted,
            Self::PipelineDenied(_) => Topic::PipelineDenied,
            Self::Notification(_) => Topic::TeacherNotificationRequested,
            Self::Spellcheck(_) => Topic::BatchSpellcheckInitiateCommand,
            Self::CjAssessment(_) => Topic::BatchCjAssessmentInitiateCommand,
            Self::Nlp(_) => Topic::BatchNlpInitiateCommandV2,
            Self::AiFeedback(_) => Topic::BatchAiFeedbackInitiateCommand,
            Self::StudentMatching(_) => Topic::BatchStudentMatchingInitiateCommand,
            Self::AssociationsConfirmed(_) => Topic::StudentAssociationsConfirmed,
            Self::EssaysReady(_) => Topic::BatchEssaysReady,
            Self::PhaseOutcome(_) => Topic::ElsBatchPhaseOutcome,
        }
    }

    /// Who sends it in the full stack (contract, Who sends what).
    #[must_use]
    pub const fn source_service(&self) -> &'static str {
        match self {
            Self::Registered(_) => services::REGISTRATION,
            Self::ContentProvisioned(_) | Self::PhaseOutcome(_) | Self::EssaysReady(_) => services::LIFECYCLE,
            Self::AssociationsConfirmed(_) => services::CLASSES,
            Self::PhaseSkipped(_) => services::CONDUCTOR,
            Self::PipelineCompleted(_) | Self::PipelineDenied(_) | Self::Notification(_) => services::ORCHESTRATOR,
            Self::Spellcheck(_)
            | Self::CjAssessment(_)
            | Self::Nlp(_)
            | Self::AiFeedback(_)
            | Self::StudentMatching(_) => services::COMMANDS,
        }
    }
}

impl Draft<'_> {
    /// Publishes what `origin`, where it is not this very input, has caused.
    pub(super) fn publish(&mut self, data: Data, correlation_id: Uuid, origin: Option<&Origin>) {
        let metadata = origin.unwrap_or(self.context.origin).metadata();
        self.effects.push(Effect::Publish(Box::new(Outgoing { correlation_id, metadata, data })));
    }

    fn system_metadata(&self, event: EventName) -> SystemMetadata {
        SystemMetadata::of_batch(self.batch.id.to_string(), event, self.context.now.to_timestamp())
    }

    pub(super) fn announce_registration(&mut self) {
        let details = &self.batch.details;
        let data = Data::Registered(BatchEssaysRegistered {
            event: EventName::BatchEssaysRegistered.as_str().to_owned(),
            entity_id: self.batch.id.to_string(),
            expected_essay_count: u32::try_from(self.batch.essays.len()).unwrap_or(u32::MAX),
            essay_ids: self.batch.essays.iter().map(|essay| essay.id.clone()).collect(),
            metadata: self.system_metadata(EventName::BatchEssaysRegistered),
            course_code: details.course_code,
            student_prompt_ref: details.student_prompt_ref.clone(),
            user_id: details.user_id.clone(),
            org_id: details.org_id.clone(),
            class_id: details.class.as_ref().map(|class| class.id.clone()),
        });
        self.publish(data, self.context.correlation_id, None);
    }

    pub(super) fn announce_skip(&mut self, phase: Phase) {
        let correlation_id = self.context.correlation_id;
        let data = Data::PhaseSkipped(PhaseSkipped {
            event: EventName::BatchPhaseSkipped.as_str().to_owned(),
            batch_id: self.batch.id.to_string(),
            phase_name: phase.to_string(),
            skip_reason: "already_completed".to_owned(),
            storage_id: None,
            correlation_id,
            metadata: self.system_metadata(EventName::BatchPhaseSkipped),
        });
        self.publish(data, correlation_id, None);
    }

    pub(super) fn announce_completion(&mut self, run: &Run, counts: EssayCounts) {
        let duration_ms = self.context.now.since(run.started_at);
        let completed = self.batch.requested_phases().filter(|(_, record)| record.state.is_completed());
        let data = Data::PipelineCompleted(BatchPipelineCompleted {
            event: EventName::BatchPipelineCompleted.as_str().to_owned(),
            batch_id: self.batch.id.to_string(),
            completed_phases: completed.map(|(phase, _)| phase.to_string()).collect(),
            final_status: self.batch.status,
            processing_duration_seconds: std::time::Duration::from_millis(duration_ms).as_secs_f64(),
            successful_essay_count: counts.successful,
            failed_essay_count: counts.failed,
            correlation_id: run.correlation_id,
            metadata: self.system_metadata(EventName::BatchPipelineCompleted),
        });
        self.publish(data, run.correlation_id, Some(&run.origin));
        self.notify_completion(run, counts);
    }

    fn command_base(&self, event_name: EventName, essays_to_process: Vec<EssayRef>) -> CommandBase {
        CommandBase {
            event_name,
            entity_id: Some(self.batch.id.to_string()),
            entity_type: Some("batch".to_owned()),
            parent_id: None,
            timestamp: Some(self.context.now.to_timestamp()),
            essays_to_process,
        }
    }

    /// What every command says of the owner (contract, Envelope).
    fn command_metadata(&self) -> Map<String, Value> {
        let details = &self.batch.details;
        let mut members = Map::new();
        members.insert(metadata::USER_ID.to_owned(), details.user_id.clone().into());
        members.insert(metadata::ORG_ID.to_owned(), details.org_id.clone().into());
        members
    }

    pub(super) fn original_essays(&self) -> Vec<EssayRef> {
        self.batch.slots().filter_map(|slot| self.batch.original_essay(slot)).collect()
    }

    fn class_id(&self) -> String {
        self.batch.details.class.as_ref().map_or_else(String::new, |class| class.id.clone())
    }

    /// Asks whose the essays are.
    pub(super) fn announce_student_matching(&mut self) {
        let data = Data::StudentMatching(StudentMatchingInitiate {
            base: self.command_base(EventName::BatchStudentMatchingInitiateCommand, self.original_essays()),
            class_id: self.class_id(),
            course_code: self.batch.details.course_code,
        });
        let (correlation_id, mut members) = (self.context.correlation_id, self.command_metadata());
        self.context.origin.trace(&mut members);
        let metadata = Some(members);
        self.effects.push(Effect::Publish(Box::new(Outgoing { correlation_id, metadata, data })));
    }

    /// Says in the place of those who know the class that nobody confirmed in time whose the essays are.
    pub(super) fn announce_unconfirmed_students(&mut self) {
        let now = self.context.now.to_timestamp();
        let of_nobody = |essay: EssayRef| StudentAssociation {
            essay_id: essay.essay_id,
            student_id: None,
            confidence_score: 0.0,
            validation_method: ValidationMethod::Timeout,
            validated_by: None,
            validated_at: Some(now),
        };
        let associations: Vec<_> = self.original_essays().into_iter().map(of_nobody).collect();
        let count = i64::try_from(associations.len()).unwrap_or(i64::MAX);
        let data = Data::AssociationsConfirmed(StudentAssociationsConfirmed {
            event_name: EventName::StudentAssociationsConfirmed,
            entity_id: Some(self.batch.id.to_string()),
            entity_type: Some("batch".to_owned()),
            parent_id: None,
            timestamp: Some(now),
            batch_id: self.batch.id.to_string(),
            class_id: self.class_id(),
            course_code: self.batch.details.course_code,
            associations,
            timeout_triggered: true,
            validation_summary: [(ValidationMethod::Timeout.as_str().to_owned(), count)].into(),
        });
        self.publish(data, self.context.correlation_id, None);
    }

    pub(super) fn announce_essays_ready(&mut self) {
        let details = &self.batch.details;
        let data = Data::EssaysReady(BatchEssaysReady {
            event: EventName::BatchEssaysReady.as_str().to_owned(),
            batch_id: self.batch.id.to_string(),
            ready_essays: self.original_essays(),
            metadata: self.system_metadata(EventName::BatchEssaysReady),
            course_code: details.course_code,
            course_language: details.course_code.language().to_string(),
            student_prompt_ref: details.student_prompt_ref.clone(),
            class_type: details.class_type().to_owned(),
        });
        self.publish(data, self.context.correlation_id, None);
    }

    /// Tells the worker of `phase` to run `attempt`.
    pub(super) fn announce_command(&mut self, phase: Phase, attempt: &Attempt) {
        let details = &self.batch.details;
        let essays = attempt.slots.iter().filter_map(|&slot| self.batch.input_of(phase, slot)).collect();
        let base = |event_name| self.command_base(event_name, essays);
        let language = details.course_code.language().to_string();
        let student_prompt_ref = details.student_prompt_ref.clone();
        let course_code = details.course_code;
        let class_type = details.class_type().to_owned();
        let data = match phase {
            Phase::Spellcheck => {
                Data::Spellcheck(SpellcheckInitiate { base: base(EventName::BatchSpellcheckInitiateCommand), language })
            }
            Phase::CjAssessment => Data::CjAssessment(CjAssessmentInitiate {
                base: base(EventName::BatchCjAssessmentInitiateCommand),
                language,
                course_code,
                student_prompt_ref,
                class_type,
                assignment_id: details.assignment_id.as_deref().and_then(|id| Text::new(id).ok()),
            }),
            Phase::Nlp => Data::Nlp(NlpInitiate {
                base: base(EventName::BatchNlpInitiateCommandV2),
                language,
                student_prompt_ref,
            }),
            Phase::AiFeedback => Data::AiFeedback(AiFeedbackInitiate {
                base: base(EventName::BatchAiFeedbackInitiateCommand),
                language,
                course_code,
                student_prompt_ref,
                class_type,
                owner_user_id: details.user_id.clone(),
            }),
        };
        let mut members = self.command_metadata();
        members.insert(metadata::ATTEMPT.to_owned(), attempt.number.into());
        if attempt.slots.len() < self.batch.essays.len() {
            members.insert(metadata::SLOTS.to_owned(), attempt.slots.clone().into());
        }
        attempt.origin.trace(&mut members);
        let correlation_id = attempt.correlation_id;
        self.effects.push(Effect::Publish(Box::new(Outgoing { correlation_id, metadata: Some(members), data })));
    }
}
