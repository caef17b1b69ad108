//! Bulk retries, as they are stored.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::{Error, keys};
use super::attempt::StoredOrigin;
use super::{from_json, to_json};
use crate::domain::{BatchId, JobId, JobMember, JobState, MemberOutcome, MemberResult, Millis, RetryJob};

/// A bulk retry, without its batches.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct StoredJob {
    id: Uuid,
    by: String,
    phase: u8,
    only_failed: bool,
    reason: String,
    per_second: u32,
    #[serde(with = "super::text::option")]
    filter: Option<Vec<u8>>,
    origin: StoredOrigin,
    total: u32,
    created_at: u64,
    state: StoredJobState,
}

#[derive(Serialize, Deserialize)]
enum StoredJobState {
    Running,
    Finished { at: u64 },
    Stopped { at: u64 },
}

impl StoredJob {
    pub(in crate::store) fn of(job: &RetryJob) -> Result<Self, Error> {
        Ok(Self {
            id: job.id.0,
            by: job.by.clone(),
            phase: keys::phase_byte(job.phase),
            only_failed: job.only_failed,
            reason: job.reason.clone(),
            per_second: job.per_second,
            filter: to_json(Some(&job.filter))?,
            origin: StoredOrigin::of(&job.origin),
            total: job.total,
            created_at: job.created_at.0,
            state: match job.state {
                JobState::Running => StoredJobState::Running,
                JobState::Finished { at } => StoredJobState::Finished { at: at.0 },
                JobState::Stopped { at } => StoredJobState::Stopped { at: at.0 },
            },
        })
    }

    pub(in crate::store) fn into_job(self) -> Result<RetryJob, Error> {
        Ok(RetryJob {
            id: JobId(self.id),
            by: self.by,
            phase: keys::phase_of(self.phase)?,
            only_failed: self.only_failed,
            reason: self.reason,
            per_second: self.per_second,
            filter: from_json(self.filter)?.unwrap_or_default(),
            origin: self.origin.into_origin(),
            total: self.total,
            created_at: Millis(self.created_at),
            state: match self.state {
                StoredJobState::Running => JobState::Running,
                StoredJobState::Finished { at } => JobState::Finished { at: Millis(at) },
                StoredJobState::Stopped { at } => JobState::Stopped { at: Millis(at) },
            },
        })
    }
}

/// A batch of a bulk retry.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct StoredMember {
    batch: Uuid,
    version: u64,
    outcome: Option<(u64, StoredResult)>,
}

#[derive(Serialize, Deserialize)]
enum StoredResult {
    Retried { attempt: u32 },
    Moved,
    Refused { error: String },
}

impl StoredMember {
    pub(in crate::store) fn of(member: &JobMember) -> Self {
        let outcome = member.outcome.as_ref().map(|MemberOutcome { at, what }| {
            let what = match what {
                MemberResult::Retried { attempt } => StoredResult::Retried { attempt: *attempt },
                MemberResult::Moved => StoredResult::Moved,
                MemberResult::Refused { error } => StoredResult::Refused { error: error.clone() },
            };
            (at.0, what)
        });
        Self { batch: member.batch.0, version: member.version, outcome }
    }

    pub(in crate::store) fn into_member(self) -> JobMember {
        let outcome = self.outcome.map(|(at, what)| {
            let what = match what {
                StoredResult::Retried { attempt } => MemberResult::Retried { attempt },
                StoredResult::Moved => MemberResult::Moved,
                StoredResult::Refused { error } => MemberResult::Refused { error },
            };
            MemberOutcome { at: Millis(at), what }
        });
        JobMember { batch: BatchId(self.batch), version: self.version, outcome }
    }
}
