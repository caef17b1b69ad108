//! The topics: one for each event name that travels on the bus.

use super::enums::wire_enum;
use super::names::EventName;

wire_enum! {
    /// A topic of the bus, by the name it has on the wire. It is also the `event_type` of each message on it.
    Topic {
        BatchAiFeedbackInitiateCommand = "huleedu.batch.ai_feedback.initiate.command.v1",
        BatchCjAssessmentInitiateCommand = "huleedu.batch.cj_assessment.initiate.command.v1",
        BatchContentProvisioningCompleted = "huleedu.batch.content.provisioning.completed.v1",
        BatchEssaysReady = "huleedu.els.batch.essays.ready.v1",
        BatchEssaysRegistered = "huleedu.batch.essays.registered.v1",
        BatchNlpInitiateCommandV2 = "huleedu.batch.nlp.initiate.command.v2",
        BatchPhaseSkipped = "huleedu.batch.phase.skipped.v1",
        BatchPipelineCompleted = "huleedu.batch.pipeline.completed.v1",
        BatchSpellcheckInitiateCommand = "huleedu.els.spellcheck.initiate.command.v1",
        BatchStudentMatchingInitiateCommand = "huleedu.batch.student.matching.initiate.command.v1",
        BatchValidationErrors = "huleedu.els.batch.validation.errors.v1",
        ClientBatchPipelineRequest = "huleedu.commands.batch.pipeline.v1",
        ElsBatchPhaseOutcome = "huleedu.els.batch.phase.outcome.v1",
        EssayContentProvisioned = "huleedu.file.essay.content.provisioned.v1",
        PipelineDenied = "huleedu.pipeline.denied.v1",
        StudentAssociationsConfirmed = "huleedu.class.student.associations.confirmed.v1",
        TeacherNotificationRequested = "huleedu.notification.teacher.requested.v1",
    }
}

impl Topic {
    /// The name of the event that this topic carries.
    #[must_use]
    pub const fn event_name(self) -> EventName {
        match self {
            Self::BatchAiFeedbackInitiateCommand => EventName::BatchAiFeedbackInitiateCommand,
            Self::BatchCjAssessmentInitiateCommand => EventName::BatchCjAssessmentInitiateCommand,
            Self::BatchContentProvisioningCompleted => EventName::BatchContentProvisioningCompleted,
            Self::BatchEssaysReady => EventName::BatchEssaysReady,
            Self::BatchEssaysRegistered => EventName::BatchEssaysRegistered,
            Self::BatchNlpInitiateCommandV2 => EventName::BatchNlpInitiateCommandV2,
            Self::BatchPhaseSkipped => EventName::BatchPhaseSkipped,
            Self::BatchPipelineCompleted => EventName::BatchPipelineCompleted,
            Self::BatchSpellcheckInitiateCommand => EventName::BatchSpellcheckInitiateCommand,
            Self::BatchStudentMatchingInitiateCommand => EventName::BatchStudentMatchingInitiateCommand,
            Self::BatchValidationErrors => EventName::BatchValidationErrors,
            Self::ClientBatchPipelineRequest => EventName::ClientBatchPipelineRequest,
            Self::ElsBatchPhaseOutcome => EventName::ElsBatchPhaseOutcome,
            Self::EssayContentProvisioned => EventName::EssayContentProvisioned,
            Self::PipelineDenied => EventName::PipelineDenied,
            Self::StudentAssociationsConfirmed => EventName::StudentAssociationsConfirmed,
            Self::TeacherNotificationRequested => EventName::TeacherNotificationRequested,
        }
    }
}
