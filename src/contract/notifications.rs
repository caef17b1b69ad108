//! What a user's browser is told (contract, Notifications).

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Envelope;
use super::enums::{BatchStatus, PhaseName};
use super::events::{PipelineDenied, TeacherNotificationRequested};

/// How many connections one user can have (contract, HTTP).
pub const CONNECTIONS_A_USER: usize = 5;

/// The payloads of the notifications that are sent from here. Each is a type of notification of its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Payload {
    /// A pipeline was accepted.
    BatchProcessingStarted {
        /// The batch.
        batch_id: String,
        /// The last phase, as the user asked for it.
        requested_pipeline: PhaseName,
        /// The phases that run, in order.
        resolved_pipeline: Vec<PhaseName>,
        /// The first of them.
        first_phase: PhaseName,
        /// How many there are.
        total_phases: usize,
        /// What a person reads.
        message: String,
    },
    /// No phase is left to run.
    PipelineCompleted {
        /// The batch.
        batch_id: String,
        /// How it came out.
        final_status: BatchStatus,
        /// The phases that are complete, in the order they run.
        completed_phases: Vec<PhaseName>,
        /// Essays that came out of every phase asked for.
        successful_essays: u32,
        /// The others.
        failed_essays: u32,
        /// From the request to the end, in seconds.
        duration_seconds: f64,
        /// What a person reads.
        message: String,
    },
    /// A pipeline was denied.
    PipelineDenied {
        /// Whether because too many were asked for; else because it costs more than there is.
        #[serde(skip)]
        is_rate_limit: bool,
        /// The denial.
        #[serde(flatten)]
        denial: Box<PipelineDenied>,
        /// How many credits are missing.
        credit_deficit: u64,
        /// What the user can do.
        next_steps: Vec<String>,
        /// What a person reads.
        message: String,
    },
}

impl Payload {
    /// The type of the notification, as it is spelled on the wire.
    #[must_use]
    pub const fn notification_type(&self) -> &'static str {
        match self {
            Self::BatchProcessingStarted { .. } => "batch_processing_started",
            Self::PipelineCompleted { .. } => "pipeline_completed",
            Self::PipelineDenied { is_rate_limit: false, .. } => "pipeline_denied_insufficient_credits",
            Self::PipelineDenied { is_rate_limit: true, .. } => "pipeline_denied_rate_limit",
        }
    }
}

/// `batch_phase_concluded`: a phase has ended. It goes to the user alone, and is no message of the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PhaseConcluded {
    /// The batch.
    pub batch_id: Uuid,
    /// The phase.
    pub phase: PhaseName,
    /// How it ended, as an `ELSBatchPhaseOutcomeV1` says it.
    pub status: BatchStatus,
    /// When.
    pub timestamp: Timestamp,
    /// What connects it with the request that caused it.
    pub correlation_id: Uuid,
}

/// Something for one user, as it was made. What the user reads is made of it by whoever has a connection of theirs.
#[derive(Debug, Clone)]
pub enum Notice {
    /// The body of a `TeacherNotificationRequestedV1` message.
    Requested(Bytes),
    /// A phase has ended.
    PhaseConcluded(PhaseConcluded),
}

/// What a user reads: `{"event": TYPE, "data": {…}}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UserEvent {
    /// The type of the notification.
    pub event: String,
    /// What it says.
    pub data: Value,
}

impl Notice {
    /// What the user reads.
    ///
    /// # Errors
    /// Where the message is none that fits its type.
    pub fn event(&self) -> serde_json::Result<UserEvent> {
        match self {
            Self::Requested(body) => requested(body),
            Self::PhaseConcluded(concluded) => {
                let data = serde_json::to_value(concluded)?;
                Ok(UserEvent { event: "batch_phase_concluded".to_owned(), data })
            }
        }
    }
}

fn requested(body: &[u8]) -> serde_json::Result<UserEvent> {
    let envelope: Envelope<TeacherNotificationRequested> = serde_json::from_slice(body)?;
    let TeacherNotificationRequested {
        teacher_id: _,
        notification_type,
        category,
        priority,
        payload,
        action_required,
        deadline_timestamp,
        correlation_id,
        batch_id,
        class_id,
        timestamp,
    } = envelope.data;
    let timestamp = timestamp.or(envelope.event_timestamp);
    let mut data: Map<String, Value> = payload;
    // Where the payload has a member of the same name, the notification's own counts.
    data.extend([
        ("category".to_owned(), category.as_str().into()),
        ("priority".to_owned(), priority.as_str().into()),
        ("action_required".to_owned(), action_required.into()),
        ("deadline".to_owned(), deadline_timestamp.map(|deadline| deadline.to_string()).into()),
        ("batch_id".to_owned(), batch_id.into()),
        ("class_id".to_owned(), class_id.into()),
        ("correlation_id".to_owned(), correlation_id.into()),
        ("timestamp".to_owned(), timestamp.map(|timestamp| timestamp.to_string()).into()),
    ]);
    Ok(UserEvent { event: notification_type, data: data.into() })
}
