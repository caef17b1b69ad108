//! A user stops what is running: everything that waits or runs becomes cancelled, and what is complete stays.

use std::sync::Arc;

use super::{Draft, Effect, Timer, TimerKind};
use crate::contract::BatchStatus;
use crate::domain::attempt::{Attempt, AttemptEnd, AttemptOutcome};
use crate::domain::phase::{Phase, PhaseState};
use crate::domain::rejection::Rejected;

impl Draft<'_> {
    pub(super) fn cancel(&mut self, by: &str, reason: &str) -> Result<(), Rejected> {
        self.require_owner(by)?;
        let run = self.batch.run.take().ok_or(Rejected::NothingToCancel)?;
        let mut any_cancelled = false;
        for phase in Phase::ALL {
            any_cancelled |= self.cancel_phase(phase, &format!("cancelled by {by}: {reason}"));
        }
        // Where only another try at what had completed was cancelled, the batch is what it was.
        self.batch.status = if any_cancelled { BatchStatus::Cancelled } else { self.completed_status() };
        self.changed = true;
        self.announce_completion(&run, self.batch.essay_counts());
        Ok(())
    }

    /// Stops a phase that waits or runs, and says whether it is cancelled now.
    fn cancel_phase(&mut self, phase: Phase, note: &str) -> bool {
        let attempt = match self.batch.phase_state(phase) {
            None
            | Some(
                PhaseState::Succeeded { .. }
                | PhaseState::PartiallySucceeded { .. }
                | PhaseState::Failed { .. }
                | PhaseState::SkippedDependency { .. }
                | PhaseState::Cancelled { .. },
            ) => return false,
            Some(PhaseState::PendingDependencies { before, .. }) => before.clone(),
            Some(PhaseState::Requested { attempt }) => Some(self.end_cancelled(phase, Arc::clone(attempt), note)),
            Some(PhaseState::Dispatched { attempt, deadline } | PhaseState::InProgress { attempt, deadline }) => {
                let (attempt, due) = (Arc::clone(attempt), *deadline);
                let timer = Timer { kind: TimerKind::Deadline, due, phase, attempt: attempt.number };
                self.effects.push(Effect::DisarmTimer(timer));
                let attempt = self.end_cancelled(phase, attempt, note);
                self.effects.push(Effect::Recall { phase, attempt: attempt.number });
                Some(attempt)
            }
            Some(PhaseState::BackingOff { attempt, again_at, .. }) => {
                let (attempt, due) = (Arc::clone(attempt), *again_at);
                let timer = Timer { kind: TimerKind::Retry, due, phase, attempt: attempt.number };
                self.effects.push(Effect::DisarmTimer(timer));
                Some(attempt)
            }
        };
        // What came out before is not taken away: only the attempt is cancelled then.
        let completed = attempt.as_ref().and_then(|attempt| self.completed_state(phase, attempt));
        let is_cancelled = completed.is_none();
        self.set_state(phase, completed.unwrap_or(PhaseState::Cancelled { attempt }));
        is_cancelled
    }

    fn end_cancelled(&mut self, phase: Phase, attempt: Arc<Attempt>, note: &str) -> Arc<Attempt> {
        let end = AttemptEnd {
            at: self.context.now,
            outcome: AttemptOutcome::Cancelled,
            successful: 0,
            failed: 0,
            failed_slots: Vec::new(),
            error: None,
            note: Some(note.to_owned()),
        };
        self.record_end(phase, attempt, end)
    }
}
