//! A pipeline goes on: the next phase is dispatched, or skipped, or there is none left.

use std::sync::Arc;

use super::{Draft, Effect, Timer, TimerKind};
use crate::contract::BatchStatus;
use crate::domain::attempt::{Attempt, Scope, Trigger};
use crate::domain::phase::{Phase, PhaseRecord, PhaseState};
use crate::domain::pipeline::dependencies;
use crate::domain::time::Millis;

impl Draft<'_> {
    /// Dispatches the next phase that can run, unless one is running; announces the end where none is left.
    pub(super) fn advance(&mut self) {
        while let Some(run) = &mut self.batch.run {
            let is_running = self.batch.phases.iter().flatten().any(|record| record.state.is_running());
            if is_running {
                return;
            }
            if run.queue.is_empty() {
                self.complete_run();
                return;
            }
            let phase = run.queue.remove(0);
            self.launch(phase);
        }
    }

    /// Dispatches `phase`, or skips it where what it depends on is not there.
    fn launch(&mut self, phase: Phase) {
        let requested = self.batch.phase_state(phase).and_then(PhaseState::open_attempt).cloned();
        let scope = match self.batch.phase_state(phase) {
            Some(PhaseState::PendingDependencies { scope, .. }) => scope.clone(),
            Some(state) => state.open_attempt().map_or(Scope::Whole, |attempt| attempt.scope.clone()),
            None => Scope::Whole,
        };
        if let Some(&because) = dependencies(phase).iter().find(|&&dependency| !self.batch.has_completed(dependency)) {
            self.set_state(phase, PhaseState::SkippedDependency { because });
            return;
        }
        // A phase that was to run again on some essays keeps what it has where none of them came through to it.
        if let Some(PhaseState::PendingDependencies { before: Some(before), .. }) = self.batch.phase_state(phase)
            && self.batch.slots_through(phase, &scope).is_empty()
            && let Some(completed) = self.completed_state(phase, before)
        {
            self.set_state(phase, completed);
            return;
        }
        self.dispatch(phase, requested, scope);
    }

    pub(super) fn dispatch(&mut self, phase: Phase, requested: Option<Arc<Attempt>>, scope: Scope) {
        let slots = self.batch.slots_through(phase, &scope);
        let mut attempt = requested.unwrap_or_else(|| self.pipeline_attempt(phase, scope));
        let now = self.context.now;
        let deadline = now.plus(self.context.rules.phase_deadline_ms[phase.index()]);
        let dispatched = Arc::make_mut(&mut attempt);
        dispatched.dispatched_at = Some(now);
        dispatched.slots = slots;
        dispatched.dispatched_in = self.batch.version + 1;
        self.effects.push(Effect::ArmTimer(Timer {
            kind: TimerKind::Deadline,
            due: deadline,
            phase,
            attempt: attempt.number,
        }));
        self.announce_command(phase, &attempt);
        self.set_state(phase, PhaseState::Dispatched { attempt, deadline });
    }

    fn pipeline_attempt(&mut self, phase: Phase, scope: Scope) -> Arc<Attempt> {
        let (by, enqueued_at) = match &self.batch.run {
            Some(run) => (run.requested_by.clone(), run.started_at),
            None => (self.batch.details.user_id.clone(), self.context.now),
        };
        self.new_attempt(phase, Trigger::Pipeline, by, None, scope, enqueued_at)
    }

    /// The next attempt at `phase`, counted.
    pub(super) fn new_attempt(
        &mut self,
        phase: Phase,
        trigger: Trigger,
        requested_by: String,
        reason: Option<String>,
        scope: Scope,
        enqueued_at: Millis,
    ) -> Arc<Attempt> {
        let correlation_id = match trigger {
            Trigger::Pipeline => self.batch.run.as_ref().map(|run| run.correlation_id),
            // Taken already, so the attempt gets one that is derived from it.
            Trigger::Automatic => {
                self.batch.phase_state(phase).and_then(PhaseState::attempt).map(|attempt| attempt.correlation_id)
            }
            Trigger::User => None,
        }
        .unwrap_or(self.context.correlation_id);
        let origin = match trigger {
            Trigger::Pipeline => self.batch.run.as_ref().map(|run| Arc::clone(&run.origin)),
            Trigger::Automatic | Trigger::User => None,
        };
        let origin = origin.unwrap_or_else(|| Arc::clone(self.context.origin));
        let essays = self.batch.essays.len();
        let record = self.batch.phases[phase.index()].get_or_insert_with(|| PhaseRecord::untried(essays));
        let (number, correlation_id) = record.count_attempt(phase, correlation_id);
        Arc::new(Attempt {
            number,
            trigger,
            in_a_row: 1,
            requested_by,
            origin,
            reason,
            correlation_id,
            scope,
            slots: Vec::new(),
            downstream: false,
            dispatched_in: 0,
            enqueued_at,
            dispatched_at: None,
            started_at: None,
            lease: None,
            end: None,
        })
    }

    fn complete_run(&mut self) {
        let Some(run) = self.batch.run.take() else { return };
        self.batch.status = self.completed_status();
        self.changed = true;
        self.announce_completion(&run, self.batch.essay_counts());
    }

    /// What a batch is once nothing of it is left to run.
    pub(super) fn completed_status(&self) -> BatchStatus {
        let all_succeeded =
            self.batch.requested_phases().all(|(_, record)| matches!(record.state, PhaseState::Succeeded { .. }));
        if all_succeeded && self.batch.essay_counts().failed == 0 {
            BatchStatus::CompletedSuccessfully
        } else {
            BatchStatus::CompletedWithFailures
        }
    }
}
