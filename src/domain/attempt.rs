//! One try at a phase: what caused it, what it ran on, how it ended.

use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::batch::Slot;
use super::errors::PhaseError;
use super::time::Millis;
use crate::contract::{PipelineExecutionStatus, metadata};

/// What caused an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A pipeline reached the phase.
    Pipeline,
    /// The attempt before failed for a transient reason.
    Automatic,
    /// A user asked for the phase again.
    User,
}

impl Trigger {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pipeline, Self::Automatic, Self::User];

    /// As clients read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Automatic => "automatic",
            Self::User => "user",
        }
    }
}

/// Which essays an attempt was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All that come through the phases before.
    Whole,
    /// These, in order.
    Essays(Vec<Slot>),
}

/// What a request says of itself, besides its correlation id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Its `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// Its W3C `traceparent`.
    pub traceparent: Option<String>,
}

impl Origin {
    /// The `metadata` of a message that has nothing else to say there: the trace it belongs to, where there is one.
    pub(super) fn metadata(&self) -> Option<Map<String, Value>> {
        let traceparent = self.traceparent.as_deref()?;
        Some([(metadata::TRACEPARENT.to_owned(), traceparent.into())].into_iter().collect())
    }

    /// Says the trace in `members`, where there is one.
    pub(super) fn trace(&self, members: &mut Map<String, Value>) {
        members.extend(self.metadata().into_iter().flatten());
    }
}

/// One try at a phase.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Counts from 1.
    pub number: u32,
    /// What caused it.
    pub trigger: Trigger,
    /// How many there have been in a row, this one included: automatic ones go on counting, others begin anew.
    pub in_a_row: u32,
    /// The user who asked.
    pub requested_by: String,
    /// Why, where the user said so.
    pub reason: Option<String>,
    /// What connects it with the request; unique among the attempts of one phase, so that an outcome names its attempt.
    pub correlation_id: Uuid,
    /// How the request that caused it named itself.
    pub origin: Arc<Origin>,
    /// What was asked for.
    pub scope: Scope,
    /// The slots it runs on, in order; decided anew when it is dispatched.
    pub slots: Vec<Slot>,
    /// Whether the phases below that had completed run again after it succeeds.
    pub downstream: bool,
    /// The version of the batch that it was dispatched with.
    pub dispatched_in: u64,
    /// When it was asked for.
    pub enqueued_at: Millis,
    /// When its command was sent.
    pub dispatched_at: Option<Millis>,
    /// When a worker took it.
    pub started_at: Option<Millis>,
    /// Who took it, where that is a worker of somebody else's.
    pub lease: Option<Arc<Lease>>,
    /// How it ended, once it has.
    pub end: Option<AttemptEnd>,
}

/// What a worker of somebody else's has an attempt by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// How the worker names itself.
    pub worker_id: String,
    /// What the worker shows to be the one; no two leases have the same.
    pub token: Uuid,
    /// How long after a sign of life it ends, in milliseconds.
    pub lease_ms: u64,
    /// When it ends whatever its worker says: the attempt's own deadline.
    pub until: Millis,
    /// How many essays the worker said are done.
    pub essays_done: u32,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptEnd {
    /// When.
    pub at: Millis,
    /// In short.
    pub outcome: AttemptOutcome,
    /// Essays of this attempt that succeeded.
    pub successful: u32,
    /// Essays of this attempt that failed.
    pub failed: u32,
    /// Their slots, in order.
    pub failed_slots: Vec<Slot>,
    /// Why, where something failed and the worker said so.
    pub error: Option<PhaseError>,
    /// What else is to say.
    pub note: Option<String>,
}

/// How an attempt ended, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// All of its essays succeeded.
    Succeeded,
    /// Some of its essays succeeded.
    PartiallySucceeded,
    /// None did.
    Failed,
    /// A user stopped it.
    Cancelled,
}

impl AttemptOutcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Succeeded, Self::PartiallySucceeded, Self::Failed, Self::Cancelled];

    /// As clients read it: the status the phase has after such an attempt at all of its essays.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => PipelineExecutionStatus::CompletedSuccessfully.as_str(),
            Self::PartiallySucceeded => PipelineExecutionStatus::CompletedWithPartialSuccess.as_str(),
            Self::Failed => PipelineExecutionStatus::Failed.as_str(),
            Self::Cancelled => PipelineExecutionStatus::Cancelled.as_str(),
        }
    }
}
