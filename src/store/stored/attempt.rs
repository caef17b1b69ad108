//! Attempts, as they are stored.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::Error;
use super::super::codec::Versioned;
use super::start::StoredStart;
use super::{corrupt, parse};
use crate::domain::{
    Attempt, AttemptEnd, AttemptOutcome, Category, LateOutcome, MAX_ESSAYS, Millis, Origin, PhaseError, Scope, Slot,
    Trigger,
};

/// An attempt, inside the record and in the ledger.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct StoredAttempt {
    number: u32,
    trigger: StoredTrigger,
    in_a_row: u32,
    requested_by: String,
    reason: Option<String>,
    correlation_id: Uuid,
    origin: StoredOrigin,
    /// None for the whole phase.
    scope: Option<Runs>,
    slots: Runs,
    downstream: bool,
    dispatched_in: u64,
    enqueued_at: u64,
    dispatched_at: Option<u64>,
    #[serde(with = "super::start", rename = "started_at")]
    start: StoredStart,
    end: Option<StoredEnd>,
}

/// Attempts of one phase, by number. What is one attempt reads as a list of one.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct StoredAttempts(pub(in crate::store) Vec<StoredAttempt>);

impl Versioned for StoredAttempts {
    const VERSION: u8 = 2;
    type Before = StoredAttempt;
}

impl From<StoredAttempt> for StoredAttempts {
    fn from(attempt: StoredAttempt) -> Self {
        Self(vec![attempt])
    }
}

#[derive(Serialize, Deserialize)]
enum StoredTrigger {
    Pipeline,
    Automatic,
    User,
}

#[derive(Serialize, Deserialize)]
struct StoredEnd {
    at: u64,
    outcome: StoredOutcome,
    successful: u32,
    failed: u32,
    failed_slots: Runs,
    error: Option<StoredError>,
    note: Option<String>,
}

#[derive(Serialize, Deserialize)]
enum StoredOutcome {
    Succeeded,
    PartiallySucceeded,
    Failed,
    Cancelled,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredError {
    error_code: String,
    is_transient: bool,
    message: String,
}

/// Slots in order, as runs of neighbours: (first, how many). A whole batch is one run, however large.
#[derive(Serialize, Deserialize)]
pub(super) struct Runs(Vec<(Slot, Slot)>);

impl Runs {
    pub(super) fn of(slots: &[Slot]) -> Self {
        let mut runs: Vec<(Slot, Slot)> = Vec::new();
        for &slot in slots {
            match runs.last_mut() {
                Some((first, length)) if first.checked_add(*length) == Some(slot) => *length += 1,
                Some(_) | None => runs.push((slot, 1)),
            }
        }
        Self(runs)
    }

    /// None for the whole phase.
    pub(super) fn of_scope(scope: &Scope) -> Option<Self> {
        match scope {
            Scope::Whole => None,
            Scope::Essays(slots) => Some(Self::of(slots)),
        }
    }

    pub(super) fn into_scope(stored: Option<Self>) -> Result<Scope, Error> {
        Ok(stored.map(|slots| slots.slots()).transpose()?.map_or(Scope::Whole, Scope::Essays))
    }

    /// Each run is a few bytes and can name very many slots, so a damaged list of them could fill any memory.
    fn slots(&self) -> Result<Vec<Slot>, Error> {
        let mut slots = Vec::new();
        for &(first, length) in &self.0 {
            let end = first.checked_add(length).ok_or_else(|| corrupt("a slot that no batch has"))?;
            if slots.len() + usize::from(length) > MAX_ESSAYS {
                return Err(corrupt("more slots than a batch has"));
            }
            slots.extend(first..end);
        }
        Ok(slots)
    }
}

impl StoredAttempt {
    pub(in crate::store) fn of(attempt: &Attempt) -> Self {
        Self {
            number: attempt.number,
            trigger: match attempt.trigger {
                Trigger::Pipeline => StoredTrigger::Pipeline,
                Trigger::Automatic => StoredTrigger::Automatic,
                Trigger::User => StoredTrigger::User,
            },
            in_a_row: attempt.in_a_row,
            requested_by: attempt.requested_by.clone(),
            reason: attempt.reason.clone(),
            correlation_id: attempt.correlation_id,
            origin: StoredOrigin::of(&attempt.origin),
            scope: Runs::of_scope(&attempt.scope),
            downstream: attempt.downstream,
            dispatched_in: attempt.dispatched_in,
            slots: Runs::of(&attempt.slots),
            enqueued_at: attempt.enqueued_at.0,
            dispatched_at: attempt.dispatched_at.map(|at| at.0),
            start: StoredStart::of(attempt),
            end: attempt.end.as_ref().map(StoredEnd::of),
        }
    }

    pub(in crate::store) const fn number(&self) -> u32 {
        self.number
    }

    pub(in crate::store) fn into_attempt(self) -> Result<Attempt, Error> {
        Ok(Attempt {
            number: self.number,
            trigger: match self.trigger {
                StoredTrigger::Pipeline => Trigger::Pipeline,
                StoredTrigger::Automatic => Trigger::Automatic,
                StoredTrigger::User => Trigger::User,
            },
            in_a_row: self.in_a_row,
            requested_by: self.requested_by,
            reason: self.reason,
            correlation_id: self.correlation_id,
            origin: self.origin.into_origin(),
            scope: Runs::into_scope(self.scope)?,
            downstream: self.downstream,
            dispatched_in: self.dispatched_in,
            slots: self.slots.slots()?,
            enqueued_at: Millis(self.enqueued_at),
            dispatched_at: self.dispatched_at.map(Millis),
            started_at: self.start.at(),
            lease: self.start.into_lease(),
            end: self.end.map(StoredEnd::into_end).transpose()?,
        })
    }
}

impl StoredEnd {
    pub(super) fn of(end: &AttemptEnd) -> Self {
        Self {
            at: end.at.0,
            outcome: match end.outcome {
                AttemptOutcome::Succeeded => StoredOutcome::Succeeded,
                AttemptOutcome::PartiallySucceeded => StoredOutcome::PartiallySucceeded,
                AttemptOutcome::Failed => StoredOutcome::Failed,
                AttemptOutcome::Cancelled => StoredOutcome::Cancelled,
            },
            successful: end.successful,
            failed: end.failed,
            failed_slots: Runs::of(&end.failed_slots),
            error: end.error.as_ref().map(StoredError::of),
            note: end.note.clone(),
        }
    }

    fn into_end(self) -> Result<AttemptEnd, Error> {
        Ok(AttemptEnd {
            at: Millis(self.at),
            outcome: match self.outcome {
                StoredOutcome::Succeeded => AttemptOutcome::Succeeded,
                StoredOutcome::PartiallySucceeded => AttemptOutcome::PartiallySucceeded,
                StoredOutcome::Failed => AttemptOutcome::Failed,
                StoredOutcome::Cancelled => AttemptOutcome::Cancelled,
            },
            successful: self.successful,
            failed: self.failed,
            failed_slots: self.failed_slots.slots()?,
            error: self.error.map(StoredError::into_error).transpose()?,
            note: self.note,
        })
    }
}

impl StoredError {
    pub(super) fn of(error: &PhaseError) -> Self {
        Self {
            error_code: error.error_code.as_str().to_owned(),
            is_transient: match error.category {
                Category::Transient => true,
                Category::Permanent => false,
            },
            message: error.message.clone(),
        }
    }

    pub(super) fn into_error(self) -> Result<PhaseError, Error> {
        let category = if self.is_transient { Category::Transient } else { Category::Permanent };
        Ok(PhaseError { error_code: parse(&self.error_code)?, category, message: self.message })
    }
}

/// An outcome of an attempt that was not in flight.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct StoredLate {
    at: u64,
    attempt: Option<u32>,
    correlation_id: Option<Uuid>,
    status: String,
}

impl StoredLate {
    pub(in crate::store) fn of(late: &LateOutcome) -> Self {
        Self {
            at: late.at.0,
            attempt: late.attempt,
            correlation_id: late.correlation_id,
            status: late.status.as_str().to_owned(),
        }
    }

    pub(in crate::store) fn into_late(self) -> Result<LateOutcome, Error> {
        Ok(LateOutcome {
            at: Millis(self.at),
            attempt: self.attempt,
            correlation_id: self.correlation_id,
            status: parse(&self.status)?,
        })
    }
}

/// What a request says of itself.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredOrigin {
    idempotency_key: Option<String>,
    traceparent: Option<String>,
}

impl StoredOrigin {
    pub(super) fn of(origin: &Origin) -> Self {
        Self { idempotency_key: origin.idempotency_key.clone(), traceparent: origin.traceparent.clone() }
    }

    pub(super) fn into_origin(self) -> Arc<Origin> {
        Arc::new(Origin { idempotency_key: self.idempotency_key, traceparent: self.traceparent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_no_batch_can_have_are_corrupt() {
        for runs in [vec![(Slot::MAX, 1)], vec![(1, Slot::MAX)], vec![(0, 600), (0, 600)], vec![(0, 60_000); 100_000]] {
            assert!(matches!(Runs(runs).slots(), Err(Error::Corrupt(_))));
        }
        let slots: Vec<Slot> = (0..1_000).filter(|slot| slot % 3 != 0).collect();
        assert_eq!(Runs::of(&slots).slots().expect("legal"), slots);
    }
}
