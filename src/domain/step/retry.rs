//! A retry of one phase: a pipeline of one phase, sent by the batch's owner.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Draft;
use crate::contract::PipelineExecutionStatus;
use crate::domain::batch::Slot;
use crate::domain::phase::{Attempt, EssayResult, Phase, PhaseRecord, PhaseState, Scope, Trigger};
use crate::domain::pipeline::{dependencies, dependents};
use crate::domain::rejection::Rejected;

/// A user's wish to run one phase again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryRequest {
    /// Who asks; only the batch's owner may.
    pub by: String,
    /// The phase.
    pub phase: Phase,
    /// The essays; none for the whole phase.
    pub essay_ids: Option<Vec<String>>,
    /// Whether a phase that succeeded, or essays named that came out well, shall run again.
    pub force: bool,
    /// Why.
    pub reason: String,
}

impl Draft<'_> {
    pub(super) fn retry_phase(&mut self, request: RetryRequest) -> Result<(), Rejected> {
        let RetryRequest { by, phase, essay_ids, force, reason } = request;
        self.require_owner(&by)?;
        if essay_ids.is_some() && phase.is_whole_batch_only() {
            return Err(Rejected::WholeBatchOnly { phase });
        }
        let scope = self.scope_of(essay_ids)?;
        if self.batch.requested_phases().next().is_none() {
            return Err(Rejected::NoPipelineState);
        }
        self.require_ready()?;
        let record = self.batch.phase(phase).ok_or(Rejected::PhaseNeverRequested { phase })?;
        require_ended(phase, record)?;
        self.require_dependencies(phase)?;
        self.require_essays_through(phase, &scope)?;
        if !force && is_done(record, &scope) {
            return Err(Rejected::AlreadyCompleted { phase });
        }

        let attempt = self.user_attempt(phase, &by, scope, reason);
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

    fn scope_of(&self, essay_ids: Option<Vec<String>>) -> Result<Scope, Rejected> {
        let Some(essay_ids) = essay_ids else { return Ok(Scope::Whole) };
        if essay_ids.is_empty() {
            return Err(Rejected::NoEssays);
        }
        let by_id = self.batch.slots_by_id();
        let slots = essay_ids
            .iter()
            .map(|essay_id| {
                by_id
                    .get(essay_id.as_str())
                    .copied()
                    .ok_or_else(|| Rejected::UnknownEssay { essay_id: essay_id.chars().take(100).collect() })
            })
            .collect::<Result<BTreeSet<Slot>, _>>()?;
        Ok(Scope::Essays(slots.into_iter().collect()))
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

    fn require_essays_through(&self, phase: Phase, scope: &Scope) -> Result<(), Rejected> {
        let Scope::Essays(slots) = scope else { return Ok(()) };
        match slots.iter().find(|&&slot| self.batch.input_of(phase, slot).is_none()) {
            Some(&slot) => Err(Rejected::EssayNotThrough { phase, slot }),
            None => Ok(()),
        }
    }

    fn user_attempt(&mut self, phase: Phase, by: &str, scope: Scope, reason: String) -> Arc<Attempt> {
        self.new_attempt(phase, Trigger::User, by.to_owned(), Some(reason), scope, self.context.now)
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
                self.set_state(dependent, PhaseState::PendingDependencies);
                coming.push(dependent);
            }
        }
        coming.split_off(1)
    }
}

/// A phase that waits, is on its way or runs cannot be retried.
fn require_ended(phase: Phase, record: &PhaseRecord) -> Result<(), Rejected> {
    match &record.state {
        PhaseState::PendingDependencies
        | PhaseState::Requested { .. }
        | PhaseState::Dispatched { .. }
        | PhaseState::InProgress { .. } => Err(Rejected::PhaseRunning { phase, status: record.state.status() }),
        PhaseState::Succeeded { .. }
        | PhaseState::PartiallySucceeded { .. }
        | PhaseState::Failed { .. }
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
