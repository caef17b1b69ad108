//! What becomes of an attempt: started, over, or too late.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{Draft, Effect, PhaseOutcome, Timer, TimerKind};
use crate::contract::{BatchStatus, ErrorCode, EssayRef};
use crate::domain::attempt::{Attempt, AttemptEnd, AttemptOutcome, Scope, Trigger};
use crate::domain::batch::Slot;
use crate::domain::errors::{Category, PhaseError};
use crate::domain::phase::{EssayOutput, EssayResult, Phase, PhaseState};
use crate::domain::pipeline::dependencies;
use crate::domain::rejection::Rejected;
use crate::domain::time::Millis;

/// The longest that a worker can ask to wait, in milliseconds: an hour.
const MAX_RETRY_AFTER_MS: u64 = 3_600_000;

impl Draft<'_> {
    /// A worker has taken the command. The deadline counts from here; waiting for a worker is not the worker's time. A
    /// command that comes again after a restart begins anew.
    pub(super) fn phase_started(&mut self, phase: Phase, number: u32) -> Result<(), Rejected> {
        let mut attempt = self.open_attempt(phase, |attempt| attempt.number == number && attempt.lease.is_none())?;
        if attempt.started_at.is_some_and(|started_at| started_at >= self.context.up_since) {
            return Ok(());
        }
        Arc::make_mut(&mut attempt).started_at = Some(self.context.now);
        self.count_anew(phase, attempt, self.context.now);
        Ok(())
    }

    /// Counts the deadline of an attempt in flight from `since`.
    fn count_anew(&mut self, phase: Phase, attempt: Arc<Attempt>, since: Millis) {
        let deadline = since.plus(self.context.rules.phase_deadline_ms[phase.index()]);
        self.due_at(phase, attempt, deadline);
    }

    /// The attempt in flight goes on as `attempt`, and counts as failed at `deadline`.
    pub(super) fn due_at(&mut self, phase: Phase, attempt: Arc<Attempt>, deadline: Millis) {
        if let Some((_, due)) = self.batch.phase_state(phase).and_then(PhaseState::in_flight) {
            self.effects.push(Effect::DisarmTimer(Timer {
                kind: TimerKind::Deadline,
                due,
                phase,
                attempt: attempt.number,
            }));
        }
        self.effects.push(Effect::ArmTimer(Timer {
            kind: TimerKind::Deadline,
            due: deadline,
            phase,
            attempt: attempt.number,
        }));
        self.set_state(phase, PhaseState::InProgress { attempt, deadline });
    }

    pub(super) fn phase_outcome(&mut self, outcome: PhaseOutcome) -> Result<(), Rejected> {
        let phase = outcome.phase;
        let attempt = self.open_attempt(phase, |attempt| {
            outcome.attempt.is_none_or(|number| number == attempt.number)
                && outcome.correlation_id.is_none_or(|correlation_id| correlation_id == attempt.correlation_id)
        })?;
        let by_id = self.batch.slots_by_id();
        let mut processed: HashMap<&str, &EssayRef> = HashMap::new();
        for essay in &outcome.processed {
            if !by_id.contains_key(essay.essay_id.as_str()) {
                return Err(Rejected::Inconsistent { reason: "it has an essay that the batch does not have" });
            }
            processed.insert(&essay.essay_id, essay);
        }
        match outcome.status {
            BatchStatus::CompletedSuccessfully | BatchStatus::CompletedWithFailures => {}
            BatchStatus::AwaitingContentValidation
            | BatchStatus::ContentIngestionFailed
            | BatchStatus::AwaitingPipelineConfiguration
            | BatchStatus::ReadyForPipelineExecution
            | BatchStatus::ProcessingPipelines
            | BatchStatus::AwaitingStudentValidation
            | BatchStatus::StudentValidationCompleted
            | BatchStatus::ValidationTimeoutProcessed
            | BatchStatus::FailedCritically
            | BatchStatus::Cancelled => processed.clear(),
        }
        let (made_at, made_from) = (self.next_version(), attempt.dispatched_in);
        let results = attempt.slots.iter().map(|&slot| {
            let essay_id = self.batch.essays[usize::from(slot)].id.as_str();
            let result = match processed.get(essay_id) {
                Some(essay) => EssayResult::Succeeded(EssayOutput {
                    made_at,
                    made_from,
                    text_storage_id: essay.text_storage_id.clone(),
                    spellcheck_metrics: essay.spellcheck_metrics.clone(),
                }),
                None => EssayResult::Failed { made_from, error: outcome.essay_errors.get(essay_id).cloned() },
            };
            (slot, result)
        });
        let results: Vec<_> = results.collect();
        let any_failed = results.iter().any(|(_, result)| matches!(result, EssayResult::Failed { .. }));
        let error = any_failed.then(|| {
            let of_essay = results.iter().find_map(|(_, result)| match result {
                EssayResult::Failed { error, .. } => error.clone(),
                EssayResult::NotRun | EssayResult::Succeeded(_) => None,
            });
            outcome.error.or(of_essay).unwrap_or_else(|| {
                let message = format!("{phase} reported {} and did not say why", outcome.status);
                PhaseError::new(ErrorCode::UnknownError, Category::Transient, &message)
            })
        });
        self.end_attempt(phase, attempt, results, error, outcome.retry_after_ms);
        Ok(())
    }

    pub(super) fn deadline_expired(&mut self, phase: Phase, number: u32) -> Result<(), Rejected> {
        let now = self.context.now;
        let mut attempt = self.open_attempt(phase, |attempt| attempt.number == number)?;
        let deadline = self.batch.phase_state(phase).and_then(PhaseState::in_flight).map(|(_, deadline)| deadline);
        if deadline.is_some_and(|deadline| now < deadline) {
            return Err(Rejected::StaleAttempt { phase });
        }
        if deadline.is_some_and(|deadline| deadline <= self.context.up_since) {
            if let Some(lease) = attempt.lease.clone() {
                self.lease_anew(phase, attempt, &lease);
                return Ok(());
            }
            // It passed while nobody was there to hear of an outcome. The command is on its way again since then, and the
            // worker that gets it has yet to begin.
            let sent_again = Arc::make_mut(&mut attempt);
            (sent_again.dispatched_at, sent_again.started_at) = (Some(self.context.up_since), None);
            self.count_anew(phase, attempt, self.context.up_since);
            return Ok(());
        }
        let waited_ms = attempt.started_at.or(attempt.dispatched_at).map_or(0, |since| now.since(since));
        let message = match attempt.lease.as_deref() {
            Some(lease) if now < lease.until => {
                format!("worker {} gave no sign of life for {} ms", lease.worker_id, lease.lease_ms)
            }
            Some(_) | None => format!("no outcome of {phase} came within {} s", waited_ms / 1_000),
        };
        let error = PhaseError::new(ErrorCode::Timeout, Category::Transient, &message);
        let made_from = attempt.dispatched_in;
        let results =
            attempt.slots.iter().map(|&slot| (slot, EssayResult::Failed { made_from, error: None })).collect();
        self.end_attempt(phase, attempt, results, Some(error), None);
        Ok(())
    }

    /// The attempt of `phase` that is in flight, if it is the one meant.
    pub(super) fn open_attempt(
        &self,
        phase: Phase,
        is_meant: impl Fn(&Attempt) -> bool,
    ) -> Result<Arc<Attempt>, Rejected> {
        match self.batch.phase_state(phase).and_then(PhaseState::in_flight) {
            Some((attempt, _)) if is_meant(attempt) => Ok(Arc::clone(attempt)),
            Some(_) | None => Err(Rejected::StaleAttempt { phase }),
        }
    }

    /// Merges what the attempt came to into the phase, records it, and lets the pipeline go on.
    fn end_attempt(
        &mut self,
        phase: Phase,
        attempt: Arc<Attempt>,
        results: Vec<(Slot, EssayResult)>,
        error: Option<PhaseError>,
        retry_after_ms: Option<u64>,
    ) {
        let Some(record) = &mut self.batch.phases[phase.index()] else { return };
        if let Some((_, due)) = record.state.in_flight() {
            self.effects.push(Effect::DisarmTimer(Timer {
                kind: TimerKind::Deadline,
                due,
                phase,
                attempt: attempt.number,
            }));
        }
        // Before the merge, after which an essay that keeps an earlier result does not tell any more why it failed now.
        let is_transient = |result: &EssayResult| match result {
            EssayResult::Failed { error: own, .. } => {
                own.as_ref().or(error.as_ref()).is_some_and(|error| error.category == Category::Transient)
            }
            EssayResult::NotRun | EssayResult::Succeeded(_) => false,
        };
        let transient = results.iter().filter(|(_, result)| is_transient(result)).map(|(slot, _)| *slot).collect();
        let (mut successful, mut failed) = (0, 0);
        let mut failed_slots = Vec::new();
        let merged = Arc::make_mut(&mut record.results);
        for (slot, result) in results {
            let kept = &mut merged[usize::from(slot)];
            match (&result, &kept) {
                (EssayResult::Succeeded(_), _) => {
                    successful += 1;
                    *kept = result;
                }
                (EssayResult::Failed { .. } | EssayResult::NotRun, earlier) => {
                    failed += 1;
                    failed_slots.push(slot);
                    // What came out well once is not taken away by another try.
                    if !matches!(earlier, EssayResult::Succeeded(_)) {
                        *kept = result;
                    }
                }
            }
        }
        let outcome = outcome_of(successful, failed);
        let end = AttemptEnd { at: self.context.now, outcome, successful, failed, failed_slots, error, note: None };
        let attempt = self.record_end(phase, attempt, end);
        if let Some(scope) = self.scope_to_try_again(phase, &attempt, transient) {
            self.back_off(phase, attempt, scope, retry_after_ms);
            return;
        }
        let downstream = attempt.downstream;

        let state = match self.completed_state(phase, &attempt) {
            Some(completed) => completed,
            None => PhaseState::Failed { attempt },
        };
        self.set_state(phase, state);
        if downstream {
            self.run_downstream(phase);
        }
        self.advance();
    }

    /// What the next attempt by itself runs on, where there is one: `transient`, what failed for a transient reason.
    fn scope_to_try_again(&self, phase: Phase, attempt: &Attempt, transient: Vec<Slot>) -> Option<Scope> {
        let is_last = attempt.in_a_row >= self.context.rules.retry[phase.index()].max_attempts;
        if is_last || transient.is_empty() {
            None
        } else if phase.is_whole_batch_only() || transient.len() == attempt.slots.len() {
            Some(attempt.scope.clone())
        } else {
            Some(Scope::Essays(transient))
        }
    }

    fn back_off(&mut self, phase: Phase, attempt: Arc<Attempt>, scope: Scope, retry_after_ms: Option<u64>) {
        let policy = &self.context.rules.retry[phase.index()];
        let wait_ms = policy.wait_ms(self.batch.id, phase, attempt.number, attempt.in_a_row);
        let asked_ms = retry_after_ms.unwrap_or(0).min(MAX_RETRY_AFTER_MS);
        let again_at = self.context.now.plus(wait_ms.max(asked_ms));
        let timer = Timer { kind: TimerKind::Retry, due: again_at, phase, attempt: attempt.number };
        self.effects.push(Effect::ArmTimer(timer));
        self.set_state(phase, PhaseState::BackingOff { attempt, scope, again_at });
    }

    /// The wait after a transient failure is over.
    pub(super) fn retry_due(&mut self, phase: Phase, number: u32) -> Result<(), Rejected> {
        let (failed, scope, due) = match self.batch.phase_state(phase) {
            Some(PhaseState::BackingOff { attempt, scope, again_at })
                if attempt.number == number && *again_at <= self.context.now =>
            {
                (Arc::clone(attempt), scope.clone(), *again_at)
            }
            Some(_) | None => return Err(Rejected::StaleAttempt { phase }),
        };
        self.effects.push(Effect::DisarmTimer(Timer { kind: TimerKind::Retry, due, phase, attempt: number }));
        let by = failed.requested_by.clone();
        let now = self.context.now;
        let mut next = self.new_attempt(phase, Trigger::Automatic, by, failed.reason.clone(), scope.clone(), now);
        let attempt = Arc::make_mut(&mut next);
        attempt.in_a_row = failed.in_a_row + 1;
        attempt.downstream = failed.downstream;
        attempt.origin = Arc::clone(&failed.origin);
        self.dispatch(phase, Some(next), scope);
        Ok(())
    }

    /// The state of a phase by all of its essays, `attempt` being its last, if any of them came out.
    pub(super) fn completed_state(&self, phase: Phase, attempt: &Arc<Attempt>) -> Option<PhaseState> {
        let (mut successful, mut failed) = (0, 0);
        for result in self.batch.phase(phase)?.results.iter() {
            match result {
                EssayResult::Succeeded(_) => successful += 1,
                EssayResult::Failed { .. } => failed += 1,
                EssayResult::NotRun => {}
            }
        }
        let attempt = Arc::clone(attempt);
        match outcome_of(successful, failed) {
            AttemptOutcome::Succeeded => Some(PhaseState::Succeeded { attempt }),
            AttemptOutcome::PartiallySucceeded => Some(PhaseState::PartiallySucceeded { attempt }),
            AttemptOutcome::Failed | AttemptOutcome::Cancelled => None,
        }
    }

    /// Lets the phases below that had completed run again, on the essays that have come anew since they ran.
    fn run_downstream(&mut self, phase: Phase) {
        let mut coming: [BTreeSet<Slot>; 4] = Default::default();
        for dependent in self.batch.completed_dependents(phase) {
            let mut anew: BTreeSet<Slot> = self.batch.stale_slots(dependent).into_iter().collect();
            // What a phase that it needs is about to make anew, this one has not seen either.
            for &dependency in dependencies(dependent) {
                anew.extend(&coming[dependency.index()]);
            }
            if anew.is_empty() {
                continue;
            }
            let is_whole = dependent.is_whole_batch_only() || anew.len() == self.batch.essays.len();
            let scope = if is_whole { Scope::Whole } else { Scope::Essays(anew.iter().copied().collect()) };
            let before = self.batch.phase_state(dependent).and_then(PhaseState::attempt).cloned();
            coming[dependent.index()] = anew;
            self.set_state(dependent, PhaseState::PendingDependencies { scope, before });
            if let Some(run) = &mut self.batch.run {
                run.queue.push(dependent);
                run.queue.sort_unstable();
            }
        }
    }

    /// Adds an attempt that has ended to the ledger.
    pub(super) fn record_end(&mut self, phase: Phase, mut attempt: Arc<Attempt>, end: AttemptEnd) -> Arc<Attempt> {
        Arc::make_mut(&mut attempt).end = Some(end);
        self.effects.push(Effect::RecordAttempt { phase, attempt: Arc::clone(&attempt) });
        attempt
    }
}

/// All, some or none.
const fn outcome_of(successful: u32, failed: u32) -> AttemptOutcome {
    match (successful, failed) {
        (0, _) => AttemptOutcome::Failed,
        (_, 0) => AttemptOutcome::Succeeded,
        (_, _) => AttemptOutcome::PartiallySucceeded,
    }
}
