//! A bulk retry: one phase of many batches, one after the other.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::attempt::Origin;
use super::batch::{Batch, BatchId};
use super::phase::Phase;
use super::rejection::Rejected;
use super::step::{Input, RetryRequest, Selection};
use super::time::Millis;

/// The id of a retry job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub Uuid);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::try_parse(text).map(Self)
    }
}

/// A bulk retry. Its batches are fixed when it is made.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryJob {
    /// Its id.
    pub id: JobId,
    /// Who asked for it, and owns its batches.
    pub by: String,
    /// The phase to retry.
    pub phase: Phase,
    /// Whether only the essays that failed, or never arrived, run again.
    pub only_failed: bool,
    /// Why.
    pub reason: String,
    /// How many batches are retried in a second.
    pub per_second: u32,
    /// The filter that chose the batches, as it was written.
    pub filter: Value,
    /// How the request named itself; its retries are recorded with the same.
    pub origin: Arc<Origin>,
    /// How many batches there are.
    pub total: u32,
    /// When it was made.
    pub created_at: Millis,
    /// Where it stands.
    pub state: JobState,
}

/// Where a bulk retry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// It goes through its batches.
    Running,
    /// It has come to their end.
    Finished {
        /// When.
        at: Millis,
    },
    /// Its owner stopped it; the batches behind are left alone.
    Stopped {
        /// When.
        at: Millis,
    },
}

impl JobState {
    /// As clients read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished { .. } => "finished",
            Self::Stopped { .. } => "stopped",
        }
    }

    /// When it ended, if it has.
    #[must_use]
    pub const fn ended_at(self) -> Option<Millis> {
        match self {
            Self::Running => None,
            Self::Finished { at } | Self::Stopped { at } => Some(at),
        }
    }
}

/// A batch of a bulk retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobMember {
    /// The batch.
    pub batch: BatchId,
    /// The version in which it was chosen. In another one it is left alone.
    pub version: u64,
    /// What became of it; none while it waits for its turn.
    pub outcome: Option<MemberOutcome>,
}

/// What became of a batch of a bulk retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberOutcome {
    /// When.
    pub at: Millis,
    /// What.
    pub what: MemberResult,
}

/// What a bulk retry did with a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberResult {
    /// The retry was accepted.
    Retried {
        /// As this attempt.
        attempt: u32,
    },
    /// The batch had changed since it was chosen, and was left alone.
    Moved,
    /// The batch did not allow it.
    Refused {
        /// Why.
        error: String,
    },
}

impl MemberResult {
    /// As clients read it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Retried { .. } => "retried",
            Self::Moved => "moved",
            Self::Refused { .. } => "refused",
        }
    }

    /// What a step's answer to the retry of `phase` means.
    #[must_use]
    pub fn of(phase: Phase, answer: Result<&Batch, &Rejected>) -> Self {
        match answer {
            Ok(batch) => Self::Retried { attempt: batch.phase(phase).map_or(0, |record| record.attempts) },
            Err(Rejected::Moved { .. }) => Self::Moved,
            Err(rejected) => Self::Refused { error: rejected.to_string() },
        }
    }
}

impl RetryJob {
    /// What the job asks of each of its batches.
    #[must_use]
    pub fn input(&self) -> Input {
        let selection = if self.only_failed { Selection::Failed } else { Selection::Whole };
        let (by, reason) = (self.by.clone(), self.reason.clone());
        Input::RetryPhase(RetryRequest { by, phase: self.phase, selection, force: false, downstream: false, reason })
    }

    /// What connects everything that the job causes in `batch`.
    #[must_use]
    pub fn correlation_id(&self, batch: BatchId) -> Uuid {
        Uuid::new_v5(&self.id.0, batch.0.as_bytes())
    }
}
