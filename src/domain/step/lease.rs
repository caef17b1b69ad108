//! Workers of somebody else's: each has an attempt by a lease, which ends unless it gives signs of life.
//!
//! The token fences: whatever a worker says is refused once its lease is over, whoever has the attempt then.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Data, Draft, Effect, Outgoing, PhaseOutcome};
use crate::contract::events::BatchPhaseOutcome;
use crate::contract::{BatchStatus, EssayRef, metadata};
use crate::domain::attempt::{Attempt, Lease};
use crate::domain::errors::PhaseError;
use crate::domain::phase::{Phase, PhaseState};
use crate::domain::rejection::Rejected;
use crate::domain::time::Millis;

/// What a worker asks for an attempt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLease {
    /// How the worker names itself.
    pub worker_id: String,
    /// What it is going to show; no two leases have the same.
    pub token: Uuid,
    /// How long after a sign of life the lease ends, in milliseconds.
    pub lease_ms: u64,
}

/// How far a worker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// So many essays of its task.
    Count(u32),
    /// These, by their ids.
    Essays(Vec<String>),
}

/// What a worker brings.
#[derive(Debug, Clone, PartialEq)]
pub enum ReturnedWork {
    /// Each essay of the task, once.
    Essays(Vec<ReturnedEssay>),
    /// Nothing: the whole attempt failed.
    Failure {
        /// Why.
        error: PhaseError,
        /// How long to wait at least before it is tried again by itself, in milliseconds.
        retry_after_ms: Option<u64>,
    },
}

/// An essay that a worker brings.
#[derive(Debug, Clone, PartialEq)]
pub struct ReturnedEssay {
    /// Its id.
    pub essay_id: String,
    /// How it came out.
    pub result: Result<ReturnedText, PhaseError>,
}

/// What an essay came out with; what is absent is as it went in.
#[derive(Debug, Clone, PartialEq)]
pub struct ReturnedText {
    /// Where its text lies now.
    pub text_storage_id: Option<String>,
    /// What the spellcheck measured.
    pub metrics: Option<Value>,
}

impl Draft<'_> {
    /// A worker gets the attempt; its deadline counts from here, and so does its lease. What somebody has already is
    /// nobody else's, unless it was had before a restart and its command came again.
    pub(super) fn phase_leased(&mut self, phase: Phase, number: u32, new: NewLease) -> Result<(), Rejected> {
        let is_free = |attempt: &Attempt| {
            let has_begun = attempt.started_at.is_some_and(|started_at| started_at >= self.context.up_since);
            attempt.number == number && attempt.lease.is_none() && !has_begun
        };
        let mut attempt = self.open_attempt(phase, is_free)?;
        let NewLease { worker_id, token, lease_ms } = new;
        let until = self.context.now.plus(self.context.rules.phase_deadline_ms[phase.index()]);
        let leased = Arc::make_mut(&mut attempt);
        leased.started_at = Some(self.context.now);
        leased.lease = Some(Arc::new(Lease { worker_id, token, lease_ms, until, essays_done: 0 }));
        self.due_at(phase, attempt, self.context.now.plus(lease_ms).min(until));
        Ok(())
    }

    pub(super) fn lease_extended(
        &mut self,
        phase: Phase,
        number: u32,
        token: Uuid,
        done: Option<Done>,
    ) -> Result<(), Rejected> {
        let (mut attempt, lease) = self.leased(phase, number, token)?;
        let essays_done = match done {
            None => lease.essays_done,
            Some(Done::Count(count)) if usize::try_from(count).is_ok_and(|count| count <= attempt.slots.len()) => count,
            Some(Done::Count(_)) => return Err(Rejected::TooMuchDone { essays: attempt.slots.len() }),
            Some(Done::Essays(essay_ids)) => {
                let named = self.each_once(&attempt, essay_ids.iter().map(String::as_str))?;
                u32::try_from(named.len()).unwrap_or(u32::MAX)
            }
        };
        let due = self.context.now.plus(lease.lease_ms).min(lease.until);
        Arc::make_mut(&mut attempt).lease = Some(Arc::new(Lease { essays_done, ..Lease::clone(&lease) }));
        self.due_at(phase, attempt, due);
        Ok(())
    }

    /// What a worker brings ends its attempt here and now, and nobody else is asked: so the token is compared, the attempt
    /// ended and the answer decided by one step. Whoever watches sees the outcome as if it had come by the bus.
    pub(super) fn lease_returned(
        &mut self,
        phase: Phase,
        number: u32,
        token: Uuid,
        work: ReturnedWork,
    ) -> Result<(), Rejected> {
        let (attempt, _) = self.leased(phase, number, token)?;
        let outcome = match work {
            ReturnedWork::Essays(essays) => self.outcome_of_essays(phase, &attempt, essays)?,
            ReturnedWork::Failure { error, retry_after_ms } => PhaseOutcome {
                phase,
                status: BatchStatus::FailedCritically,
                processed: Vec::new(),
                attempt: Some(number),
                correlation_id: Some(attempt.correlation_id),
                error: Some(error),
                retry_after_ms,
                essay_errors: BTreeMap::new(),
            },
        };
        self.show_outcome(&attempt, &outcome);
        self.phase_outcome(outcome)
    }

    fn outcome_of_essays(
        &self,
        phase: Phase,
        attempt: &Attempt,
        essays: Vec<ReturnedEssay>,
    ) -> Result<PhaseOutcome, Rejected> {
        let slots = self.each_once(attempt, essays.iter().map(|essay| essay.essay_id.as_str()))?;
        if let Some(missing) = attempt.slots.iter().find(|slot| !slots.contains(slot)) {
            let essay_id = self.batch.essays.get(usize::from(*missing)).map(|essay| essay.id.clone());
            return Err(not_the_task(&essay_id.unwrap_or_default(), "is missing"));
        }
        let by_id = self.batch.slots_by_id();
        let (mut processed, mut essay_errors) = (Vec::new(), BTreeMap::new());
        for ReturnedEssay { essay_id, result } in essays {
            let went_in = by_id.get(essay_id.as_str()).and_then(|&slot| self.batch.input_of(phase, slot));
            match (result, went_in) {
                (Ok(text), Some(went_in)) => processed.push(EssayRef {
                    essay_id,
                    text_storage_id: text.text_storage_id.unwrap_or(went_in.text_storage_id),
                    spellcheck_metrics: text.metrics.or(went_in.spellcheck_metrics),
                }),
                (Ok(_), None) => return Err(not_the_task(&essay_id, "is not an essay of the task")),
                (Err(error), _) => drop(essay_errors.insert(essay_id, error)),
            }
        }
        let status = match (processed.is_empty(), essay_errors.is_empty()) {
            (_, true) => BatchStatus::CompletedSuccessfully,
            (true, false) => BatchStatus::FailedCritically,
            (false, false) => BatchStatus::CompletedWithFailures,
        };
        Ok(PhaseOutcome {
            phase,
            status,
            processed,
            attempt: Some(attempt.number),
            correlation_id: Some(attempt.correlation_id),
            error: None,
            retry_after_ms: None,
            essay_errors,
        })
    }

    fn show_outcome(&mut self, attempt: &Attempt, outcome: &PhaseOutcome) {
        let came_out: HashSet<&str> = outcome.processed.iter().map(|essay| essay.essay_id.as_str()).collect();
        let ids = attempt.slots.iter().filter_map(|&slot| self.batch.essays.get(usize::from(slot)));
        let failed = ids.filter(|essay| !came_out.contains(essay.id.as_str())).map(|essay| essay.id.clone());
        let data = Data::PhaseOutcome(BatchPhaseOutcome {
            batch_id: self.batch.id.to_string(),
            phase_name: outcome.phase.name(),
            phase_status: outcome.status,
            failed_essay_ids: failed.collect(),
            processed_essays: outcome.processed.clone(),
            correlation_id: outcome.correlation_id,
        });
        let correlation_id = attempt.correlation_id;
        let mut said = said_of(outcome);
        attempt.origin.trace(&mut said);
        self.effects.push(Effect::Show(Box::new(Outgoing { correlation_id, metadata: Some(said), data })));
    }

    /// The lease ended while nobody was there to hear of its worker, who gets it once more.
    pub(super) fn lease_anew(&mut self, phase: Phase, mut attempt: Arc<Attempt>, lease: &Lease) {
        let (lease, deadline) = self.once_more(phase, lease);
        Arc::make_mut(&mut attempt).lease = Some(Arc::new(lease));
        self.due_at(phase, attempt, deadline);
    }

    /// The lease from the program's start on, and when it ends.
    fn once_more(&self, phase: Phase, lease: &Lease) -> (Lease, Millis) {
        let since = self.context.up_since;
        let until = since.plus(self.context.rules.phase_deadline_ms[phase.index()]);
        (Lease { until, ..lease.clone() }, since.plus(lease.lease_ms).min(until))
    }

    /// The attempt in flight, if it is had by this lease and that is not over.
    fn leased(&self, phase: Phase, number: u32, token: Uuid) -> Result<(Arc<Attempt>, Arc<Lease>), Rejected> {
        let over = Rejected::LeaseOver { phase };
        let Some((attempt, deadline)) = self.batch.phase_state(phase).and_then(PhaseState::in_flight) else {
            return Err(over);
        };
        match &attempt.lease {
            Some(lease) if attempt.number == number && lease.token == token => {
                let (lease, deadline) = if deadline <= self.context.up_since {
                    let (lease, deadline) = self.once_more(phase, lease);
                    (Arc::new(lease), deadline)
                } else {
                    (Arc::clone(lease), deadline)
                };
                if self.context.now < deadline { Ok((Arc::clone(attempt), lease)) } else { Err(over) }
            }
            Some(_) | None => Err(over),
        }
    }

    /// The slots of the named essays, which all have to be of the attempt, none of them twice.
    fn each_once<'b>(
        &self,
        attempt: &Attempt,
        essay_ids: impl Iterator<Item = &'b str>,
    ) -> Result<HashSet<u16>, Rejected> {
        let of_task: HashMap<&str, u16> = attempt
            .slots
            .iter()
            .filter_map(|&slot| Some((self.batch.essays.get(usize::from(slot))?.id.as_str(), slot)))
            .collect();
        let mut found = HashSet::new();
        for essay_id in essay_ids {
            let slot = of_task.get(essay_id).ok_or_else(|| not_the_task(essay_id, "is not an essay of the task"))?;
            if !found.insert(*slot) {
                return Err(not_the_task(essay_id, "is there twice"));
            }
        }
        Ok(found)
    }
}

fn not_the_task(essay_id: &str, reason: &'static str) -> Rejected {
    Rejected::NotTheTask { essay_id: essay_id.chars().take(100).collect(), reason }
}

/// What the envelope of an outcome says besides.
fn said_of(outcome: &PhaseOutcome) -> Map<String, Value> {
    let shown = |error: &PhaseError| json!({ "error_code": error.error_code, "category": error.category, "message": error.message });
    let mut said = Map::new();
    said.insert(metadata::ATTEMPT.to_owned(), outcome.attempt.into());
    if let Some(error) = &outcome.error {
        said.insert(metadata::ERROR.to_owned(), shown(error));
        said.insert(metadata::RETRY_AFTER_MS.to_owned(), outcome.retry_after_ms.into());
    }
    if !outcome.essay_errors.is_empty() {
        let errors = outcome.essay_errors.iter().map(|(essay_id, error)| (essay_id.clone(), shown(error)));
        said.insert(metadata::ESSAY_ERRORS.to_owned(), errors.collect::<Map<_, _>>().into());
    }
    said
}
