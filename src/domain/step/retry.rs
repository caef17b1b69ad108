//! A retry of one phase: a pipeline of one phase, sent by the batch's owner.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Draft, Effect, Timer, TimerKind};
use crate::contract::PipelineExecutionStatus;
use crate::domain::attempt::{Attempt, Scope, Trigger};
use crate::domain::batch::{Batch, Slot};
use crate::domain::phase::{EssayResult, Phase, PhaseRecord, PhaseState};
use crate::domain::pipeline::{dependencies, dependents};
use crate::domain::rejection::Rejected;

/// A user's wish to run one phase again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryRequest {
    /// Who asks; only the batch's owner may.
    pub by: String,
    /// The phase.
    pub phase: Phase,
    /// Which essays.
    pub selection: Selection,
    /// Whether a phase that succeeded, or essays named that came out well, shall run again.
    pub force: bool,
    /// Whether the phases below that had completed shall run again too, after it succeeds.
    pub downstream: bool,
    /// Why.
    pub reason: String,
}

impl RetryRequest {
    /// The whole phase, as `is_retry` of a pipeline request means it.
    #[must_use]
    pub const fn whole(by: String, phase: Phase, reason: String) -> Self {
        Self { by, phase, selection: Selection::Whole, force: false, downstream: false, reason }
    }
}

/// Which essays of a phase shall run again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All that come through the phases before.
    Whole,
    /// These, by their ids.
    Essays(Vec<String>),
    /// Those that failed, or that the phase never got, as far as they come through the phases before.
    Failed,
}

impl Draft<'_> {
    pub(super) fn retry_phase(&mut self, request: RetryRequest) -> Result<(), Rejected> {
        let RetryRequest { by, phase, selection, force, downstream, reason } = request;
        self.require_owner(&by)?;
        if selection != Selection::Whole && phase.is_whole_batch_only() {
            return Err(Rejected::WholeBatchOnly { phase });
        }
        let named = self.slots_named(&selection)?;
        if self.batch.requested_phases().next().is_none() {
            return Err(Rejected::NoPipelineState);
        }
        self.require_ready()?;
        let record = self.batch.phase(phase).ok_or(Rejected::PhaseNeverRequested { phase })?;
        require_ended(phase, record)?;
        self.require_dependencies(phase)?;
        let scope = match selection {
            Selection::Whole => Scope::Whole,
            Selection::Essays(_) => Scope::Essays(self.require_through(phase, named)?),
            Selection::Failed => Scope::Essays(self.slots_to_mend(phase, record)?),
        };
        if !force && is_done(record, &scope) {
            return Err(Rejected::AlreadyCompleted { phase });
        }
        self.require_within_limits(phase, record)?;

        if let Some(PhaseState::BackingOff { attempt, again_at, .. }) = self.batch.phase_state(phase) {
            let (due, attempt) = (*again_at, attempt.number);
            self.effects.push(Effect::DisarmTimer(Timer { kind: TimerKind::Retry, due, phase, attempt }));
        }
        let attempt = self.user_attempt(phase, &by, scope, downstream, reason);
        self.set_state(phase, PhaseState::Requested { attempt });
        let mut queue = vec![phase];
        queue.extend(self.waiting_again(phase));
        match &mut self.batch.run {
            Some(run) => {
                run.queue.extend(queue);
                run.queue.sort_unstable();
            }
            None => self.start_run(&by, queue),
        }
        self.advance();
        Ok(())
    }

    /// The slots of the essays that are named, each once and in order.
    fn slots_named(&self, selection: &Selection) -> Result<BTreeSet<Slot>, Rejected> {
        let Selection::Essays(essay_ids) = selection else { return Ok(BTreeSet::new()) };
        if essay_ids.is_empty() {
            return Err(Rejected::NoEssays);
        }
        let by_id = self.batch.slots_by_id();
        let unknown = |essay_id: &String| Rejected::UnknownEssay { essay_id: essay_id.chars().take(100).collect() };
        essay_ids
            .iter()
            .map(|essay_id| by_id.get(essay_id.as_str()).copied().ok_or_else(|| unknown(essay_id)))
            .collect()
    }

    fn require_dependencies(&self, phase: Phase) -> Result<(), Rejected> {
        for &dependency in dependencies(phase) {
            let state = self.batch.phase_state(dependency);
            if !state.is_some_and(PhaseState::is_completed) {
                // A dependency that nobody asked for yet would be pending if somebody did.
                let status = state.map_or(PipelineExecutionStatus::PendingDependencies, PhaseState::status);
                return Err(Rejected::DependencyMissing { phase, dependency, status });
            }
        }
        Ok(())
    }

    /// The named essays, which must all have come through the phases before.
    fn require_through(&self, phase: Phase, named: BTreeSet<Slot>) -> Result<Vec<Slot>, Rejected> {
        match named.iter().find(|&&slot| self.batch.input_of(phase, slot).is_none()) {
            Some(&slot) => Err(Rejected::EssayNotThrough { phase, slot }),
            None => Ok(named.into_iter().collect()),
        }
    }

    /// The essays that failed in `phase` or never got there, and that it could get now.
    fn slots_to_mend(&self, phase: Phase, record: &PhaseRecord) -> Result<Vec<Slot>, Rejected> {
        let is_unmended = |slot: &Slot| !matches!(record.results[usize::from(*slot)], EssayResult::Succeeded(_));
        let unmended: Vec<_> = self.batch.slots().filter(is_unmended).collect();
        let first = *unmended.first().ok_or(Rejected::NothingFailed { phase })?;
        let mendable = self.batch.slots_through(phase, &Scope::Essays(unmended));
        if mendable.is_empty() { Err(Rejected::EssayNotThrough { phase, slot: first }) } else { Ok(mendable) }
    }

    fn require_within_limits(&self, phase: Phase, record: &PhaseRecord) -> Result<(), Rejected> {
        let rules = self.context.rules;
        if record.user_retries >= rules.max_user_retries {
            return Err(Rejected::TooManyRetries { phase, limit: rules.max_user_retries });
        }
        let now = self.context.now;
        // How long ago it was cannot be said where the clock has been set back since.
        let last = record.retried_at.filter(|at| *at <= now);
        match last.map(|at| at.plus(rules.retry_cooldown_ms).since(now)).filter(|wait_ms| *wait_ms > 0) {
            Some(wait_ms) => Err(Rejected::RetriedJustNow { phase, wait_ms, limit: rules.max_user_retries }),
            None => Ok(()),
        }
    }

    fn user_attempt(&mut self, phase: Phase, by: &str, scope: Scope, downstream: bool, reason: String) -> Arc<Attempt> {
        let now = self.context.now;
        let slots = self.batch.slots_through(phase, &scope);
        let mut attempt = self.new_attempt(phase, Trigger::User, by.to_owned(), Some(reason), scope, now);
        let asked = Arc::make_mut(&mut attempt);
        asked.downstream = downstream;
        asked.slots = slots;
        if let Some(record) = &mut self.batch.phases[phase.index()] {
            record.user_retries += 1;
            record.retried_at = Some(now);
        }
        attempt
    }

    /// The phases that were skipped because of `phase` and can go on once it has completed: each with all that it
    /// depends on there, or about to be. They become pending again.
    fn waiting_again(&mut self, phase: Phase) -> Vec<Phase> {
        let mut coming = vec![phase];
        for dependent in dependents(phase) {
            let was_skipped = matches!(self.batch.phase_state(dependent), Some(PhaseState::SkippedDependency { .. }));
            let can_go_on = dependencies(dependent)
                .iter()
                .all(|dependency| coming.contains(dependency) || self.batch.has_completed(*dependency));
            if was_skipped && can_go_on {
                self.set_state(dependent, PhaseState::PendingDependencies { scope: Scope::Whole, before: None });
                coming.push(dependent);
            }
        }
        coming.split_off(1)
    }
}

/// What a retry that was accepted is about to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPlan {
    /// The number of the attempt.
    pub attempt: u32,
    /// The essays it runs on.
    pub essay_ids: Vec<String>,
    /// Whether it waits for another phase of the batch that is running.
    pub waits: bool,
    /// The phases that waited for this one and go on after its success.
    pub goes_on: Vec<Phase>,
    /// The phases that had completed and run again after its success.
    pub runs_again: Vec<Phase>,
    /// The completed phases that are older than their input after its success.
    pub stale: Vec<Phase>,
}

impl Batch {
    /// What the retry of `phase` that this batch has just accepted is about to do.
    #[must_use]
    pub fn retry_plan(&self, phase: Phase) -> RetryPlan {
        let attempt = self.phase_state(phase).and_then(PhaseState::open_attempt);
        let waits = attempt.is_some_and(|attempt| attempt.dispatched_at.is_none());
        let slots = attempt.map_or(&[][..], |attempt| &attempt.slots);
        // One that is running will have completed by the time this phase has.
        let will_have_completed = |dependent: &Phase| {
            self.phase_state(*dependent).is_some_and(|state| state.is_completed() || state.is_running())
        };
        let completed: Vec<_> = dependents(phase).into_iter().filter(will_have_completed).collect();
        let is_pending =
            |dependent: &Phase| matches!(self.phase_state(*dependent), Some(PhaseState::PendingDependencies { .. }));
        let (runs_again, older) = if attempt.is_some_and(|attempt| attempt.downstream) {
            (completed, Vec::new())
        } else {
            (Vec::new(), completed)
        };
        let mut stale: BTreeSet<Phase> = self.stale_phases().into_iter().chain(older).collect();
        stale.retain(|phase| !runs_again.contains(phase));
        RetryPlan {
            attempt: self.phase(phase).map_or(0, |record| record.attempts),
            essay_ids: slots.iter().map(|&slot| self.essays[usize::from(slot)].id.clone()).collect(),
            waits,
            goes_on: dependents(phase).into_iter().filter(is_pending).collect(),
            runs_again,
            stale: stale.into_iter().collect(),
        }
    }

    /// The phases below `phase` that have completed: what it makes anew, they have not seen.
    #[must_use]
    pub fn completed_dependents(&self, phase: Phase) -> Vec<Phase> {
        dependents(phase).into_iter().filter(|dependent| self.has_completed(*dependent)).collect()
    }

    /// The completed phases that are older than their input: one of their essays has come anew out of a phase before,
    /// or has come out for the first time.
    #[must_use]
    pub fn stale_phases(&self) -> Vec<Phase> {
        let is_stale = |phase: &Phase| self.has_completed(*phase) && !self.stale_slots(*phase).is_empty();
        Phase::ALL.into_iter().filter(is_stale).collect()
    }

    /// The essays that have come out of the phases before `phase` since it ran on them, or for the first time.
    #[must_use]
    pub fn stale_slots(&self, phase: Phase) -> Vec<Slot> {
        let Some(record) = self.phase(phase) else { return Vec::new() };
        let is_stale = |slot: &Slot| match (&record.results[usize::from(*slot)], self.input_made_at(phase, *slot)) {
            (EssayResult::Succeeded(output), Some(made_at)) => made_at > output.made_from,
            (EssayResult::Failed { made_from, .. }, Some(made_at)) => made_at > *made_from,
            (EssayResult::NotRun, Some(made_at)) => made_at > 0,
            (_, None) => false,
        };
        self.slots().filter(is_stale).collect()
    }

    /// The version in which the essay came out of the last of the phases before `phase`, if it came out of all of them.
    fn input_made_at(&self, phase: Phase, slot: Slot) -> Option<u64> {
        let mut newest = 0;
        for &dependency in dependencies(phase) {
            match self.phase(dependency)?.results.get(usize::from(slot))? {
                EssayResult::Succeeded(output) => newest = newest.max(output.made_at),
                EssayResult::NotRun | EssayResult::Failed { .. } => return None,
            }
        }
        Some(newest)
    }
}

/// A phase that waits, is on its way or runs cannot be retried.
fn require_ended(phase: Phase, record: &PhaseRecord) -> Result<(), Rejected> {
    match &record.state {
        PhaseState::PendingDependencies { .. }
        | PhaseState::Requested { .. }
        | PhaseState::Dispatched { .. }
        | PhaseState::InProgress { .. } => Err(Rejected::PhaseRunning { phase, status: record.state.status() }),
        // Its user need not wait for the next attempt.
        PhaseState::BackingOff { .. }
        | PhaseState::Succeeded { .. }
        | PhaseState::PartiallySucceeded { .. }
        | PhaseState::Failed { .. }
        | PhaseState::Cancelled { .. }
        | PhaseState::SkippedDependency { .. } => Ok(()),
    }
}

/// Whether what was asked for includes what needs no mending: the phase that succeeded, or an essay that did.
fn is_done(record: &PhaseRecord, scope: &Scope) -> bool {
    match (&record.state, scope) {
        (PhaseState::Succeeded { .. }, Scope::Whole) => true,
        (_, Scope::Whole) => false,
        // A phase that succeeded may never have got an essay that came through the phases before it only later.
        (_, Scope::Essays(slots)) => {
            slots.iter().any(|&slot| matches!(record.results[usize::from(slot)], EssayResult::Succeeded(_)))
        }
    }
}
