//! A message as it lies on the bus: a body and the headers that make parsing it unnecessary for a duplicate.

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::{Envelope, Topic, services};

/// A consumer group: one service that gets each message of its topics once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// The orchestrator.
    Orchestrator,
    /// Whoever runs the spellcheck.
    Spellcheck,
    /// Whoever runs the comparative judgement.
    CjAssessment,
    /// Whoever runs the analysis.
    Nlp,
    /// Whoever writes the feedback.
    AiFeedback,
    /// Whoever knows whose an essay is.
    StudentMatching,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Orchestrator, Self::Spellcheck, Self::CjAssessment, Self::Nlp, Self::AiFeedback, Self::StudentMatching];

    /// Its name, for people and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orchestrator => "orchestrator",
            Self::Spellcheck => "spellcheck",
            Self::CjAssessment => "cj_assessment",
            Self::Nlp => "nlp",
            Self::AiFeedback => "ai_feedback",
            Self::StudentMatching => "student_matching",
        }
    }

    /// The name of its service inside idempotency keys.
    #[must_use]
    pub const fn service(self) -> &'static str {
        match self {
            Self::Orchestrator => services::REGISTRATION,
            Self::Spellcheck | Self::CjAssessment | Self::Nlp | Self::AiFeedback | Self::StudentMatching => {
                services::LIFECYCLE
            }
        }
    }

    /// The groups that get the messages of `topic`. A topic without one is only ever watched.
    #[must_use]
    pub const fn of(topic: Topic) -> &'static [Self] {
        match topic {
            Topic::ClientBatchPipelineRequest
            | Topic::ElsBatchPhaseOutcome
            | Topic::BatchContentProvisioningCompleted
            | Topic::StudentAssociationsConfirmed
            | Topic::BatchEssaysReady => &[Self::Orchestrator],
            Topic::BatchSpellcheckInitiateCommand => &[Self::Spellcheck],
            Topic::BatchCjAssessmentInitiateCommand => &[Self::CjAssessment],
            Topic::BatchNlpInitiateCommandV2 => &[Self::Nlp],
            Topic::BatchAiFeedbackInitiateCommand => &[Self::AiFeedback],
            Topic::BatchStudentMatchingInitiateCommand => &[Self::StudentMatching],
            Topic::BatchEssaysRegistered
            | Topic::BatchPhaseSkipped
            | Topic::BatchPipelineCompleted
            | Topic::BatchValidationErrors
            | Topic::EssayContentProvisioned
            | Topic::PipelineDenied
            | Topic::TeacherNotificationRequested => &[],
        }
    }
}

/// The headers of a message (contract, Envelope).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// The envelope's `event_id`.
    pub event_id: Uuid,
    /// The envelope's `correlation_id`, named `trace_id` among the headers.
    pub trace_id: Uuid,
}

/// One message of one topic. Its clones share the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic it is for; also its `event_type` header.
    pub topic: Topic,
    /// The batch it is about. Messages with the same key keep their order.
    pub key: String,
    /// The headers, where the sender wrote them.
    pub headers: Option<Headers>,
    /// The envelope, as JSON.
    pub body: Bytes,
}

/// How many bytes most bodies fit into: a command for three essays has some 1,200.
const USUAL_BYTES: usize = 1_536;

impl Message {
    /// Writes `envelope` as the body of a message, with the headers that repeat it where it names itself and its cause.
    ///
    /// # Errors
    /// Where `data` has a map whose keys are not strings, which no type of the contract has.
    pub fn new<T: Serialize>(topic: Topic, key: String, envelope: &Envelope<T>) -> serde_json::Result<Self> {
        let headers = envelope.event_id.zip(envelope.correlation_id);
        let headers = headers.map(|(event_id, trace_id)| Headers { event_id, trace_id });
        let mut body = Vec::with_capacity(USUAL_BYTES);
        serde_json::to_writer(&mut body, envelope)?;
        Ok(Self { topic, key, headers, body: body.into() })
    }
}
