//! What is true of every record, however it came about. A checker of stores asks here, and so do the tests of every
//! step.

use super::attempt::{Attempt, AttemptOutcome, Trigger};
use super::batch::{Batch, Run, Slot};
use super::phase::{EssayResult, Phase, PhaseRecord, PhaseState};
use super::step::{Timer, TimerKind};
use super::time::Millis;
use crate::contract::BatchStatus;

impl Batch {
    /// The timers that have to be armed for this record, and no others: the deadline of what is in flight, the end of
    /// the wait of what is tried again, and of the wait for the students.
    #[must_use]
    pub fn timers(&self) -> Vec<Timer> {
        let timer = |(phase, record): (Phase, &PhaseRecord)| match &record.state {
            PhaseState::Dispatched { attempt, deadline } | PhaseState::InProgress { attempt, deadline } => {
                Some(Timer { kind: TimerKind::Deadline, due: *deadline, phase, attempt: attempt.number })
            }
            PhaseState::BackingOff { attempt, again_at, .. } => {
                Some(Timer { kind: TimerKind::Retry, due: *again_at, phase, attempt: attempt.number })
            }
            PhaseState::PendingDependencies { .. }
            | PhaseState::Requested { .. }
            | PhaseState::Succeeded { .. }
            | PhaseState::PartiallySucceeded { .. }
            | PhaseState::Failed { .. }
            | PhaseState::Cancelled { .. }
            | PhaseState::SkippedDependency { .. } => None,
        };
        self.awaits_students_until()
            .map(Timer::student_validation)
            .into_iter()
            .chain(self.requested_phases().filter_map(timer))
            .collect()
    }

    /// Until when somebody has to confirm whose the essays are, if that is what it waits for.
    fn awaits_students_until(&self) -> Option<Millis> {
        let class = self.details.class.as_ref().filter(|_| self.status == BatchStatus::AwaitingStudentValidation);
        class.and_then(|class| class.confirm_by)
    }

    /// What is wrong with this record, in words; nothing where no legal path leads past it.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut found = Findings(Vec::new());
        found.require(self.version > 0, "its version is 0");
        found.require(!self.essays.is_empty(), "it has no essays");
        let received = usize::from(self.essays_received);
        let filled = self.essays.iter().take_while(|essay| essay.content.is_some()).count();
        let contents = self.essays.iter().filter(|essay| essay.content.is_some()).count();
        found.require(received == filled && filled == contents, "the essays received are not those of the first slots");
        let is_processing = self.status == BatchStatus::ProcessingPipelines;
        found.require(self.run.is_some() == is_processing, "its status does not say whether a pipeline runs");
        found.require(
            self.is_provisioned() || self.requested_phases().next().is_none(),
            "a phase was asked for before the essays were there",
        );
        let is_about_students = matches!(
            self.status,
            BatchStatus::AwaitingStudentValidation
                | BatchStatus::StudentValidationCompleted
                | BatchStatus::ValidationTimeoutProcessed
        );
        let confirm_by = self.details.class.as_ref().and_then(|class| class.confirm_by);
        found.require(!is_about_students || confirm_by.is_some(), "it waits for students of no class");
        found.require(confirm_by.is_none() || self.is_provisioned(), "it looked for students before it had essays");
        let running = self.requested_phases().filter(|(_, record)| record.state.is_running()).count();
        found.require(running == usize::from(self.run.is_some()), "a pipeline does not have exactly one phase running");
        for (phase, record) in self.requested_phases() {
            record.audit(self, phase, &mut found);
        }
        if let Some(run) = &self.run {
            self.audit_queue(run, &mut found);
        }
        found.0
    }

    fn audit_queue(&self, run: &Run, found: &mut Findings) {
        found.require(run.queue.is_sorted_by(|a, b| a < b), "its queue is out of order");
        for &phase in &run.queue {
            let waits = self.phase_state(phase).is_some_and(PhaseState::is_waiting);
            found.require(waits, &format!("{phase} is in the queue and does not wait"));
        }
    }

    /// What is wrong with the ended attempts of `phase`, given all of them from the oldest on.
    #[must_use]
    pub fn ledger_violations(&self, phase: Phase, ledger: &[Attempt]) -> Vec<String> {
        let mut found = Findings(Vec::new());
        let Some(record) = self.phase(phase) else {
            found.require(ledger.is_empty(), &format!("{phase} has attempts and was never asked for"));
            return found.0;
        };
        let mut before: Option<&Attempt> = None;
        for (number, attempt) in (1..).zip(ledger) {
            found.require(attempt.number == number, &format!("{phase} has no attempt {number}, or twice"));
            found.require(attempt.end.is_some(), &format!("attempt {number} at {phase} has not ended"));
            audit_attempt(phase, before, attempt, &mut found);
            before = Some(attempt);
        }
        let open = record.state.open_attempt();
        if let Some(open) = open {
            audit_attempt(phase, before, open, &mut found);
        }
        let count = ledger.len() + usize::from(open.is_some());
        found.require(
            usize::try_from(record.attempts) == Ok(count),
            &format!("{phase} counts {} attempts, and there are {count}", record.attempts),
        );
        let by_user = ledger.iter().chain(open.map(AsRef::as_ref)).filter(|attempt| attempt.trigger == Trigger::User);
        found.require(
            u32::try_from(by_user.count()) == Ok(record.user_retries),
            &format!("{phase} counts {} retries by its user, and there are others", record.user_retries),
        );
        let last = record.state.attempt().filter(|attempt| attempt.end.is_some());
        found.require(
            last.is_none_or(|last| ledger.last() == Some(last)),
            &format!("the last attempt of {phase} is not that of its state"),
        );
        found.0
    }
}

struct Findings(Vec<String>);

impl Findings {
    fn require(&mut self, is_true: bool, otherwise: &str) {
        if !is_true {
            self.0.push(otherwise.to_owned());
        }
    }
}

impl PhaseRecord {
    fn audit(&self, batch: &Batch, phase: Phase, found: &mut Findings) {
        let mut is = |is_true: bool, otherwise: &str| found.require(is_true, &format!("{phase} {otherwise}"));
        is(self.results.len() == batch.essays.len(), "has not one result for each essay");
        let count = |wanted: fn(&EssayResult) -> bool| self.results.iter().filter(|result| wanted(result)).count();
        let successful = count(|result| matches!(result, EssayResult::Succeeded(_)));
        let failed = count(|result| matches!(result, EssayResult::Failed { .. }));
        is(self.user_retries <= self.attempts, "was retried by its user more often than there are attempts");
        let is_queued = batch.run.as_ref().is_some_and(|run| run.queue.contains(&phase));
        is(is_queued == self.state.is_waiting(), "waits without being in the queue");
        match &self.state {
            PhaseState::PendingDependencies { .. } | PhaseState::SkippedDependency { .. } => {}
            PhaseState::Requested { attempt } => is(attempt.end.is_none(), "is to run an attempt that has ended"),
            PhaseState::Dispatched { attempt, deadline } | PhaseState::InProgress { attempt, deadline } => {
                let is_begun = matches!(self.state, PhaseState::InProgress { .. });
                let lease = attempt.lease.as_deref();
                is(lease.is_none() || is_begun, "is leased before anybody began");
                is(lease.is_none_or(|lease| *deadline <= lease.until), "is leased for longer than it may run");
                is(attempt.end.is_none(), "runs an attempt that has ended");
                is(attempt.number == self.attempts, "runs another attempt than the last");
                is(attempt.dispatched_at.is_some(), "runs an attempt that was never sent");
                let slots = &attempt.slots;
                is(!slots.is_empty() && slots.is_sorted_by(|a, b| a < b), "runs on no essays, or on one twice");
                let is_essay = |slot: &Slot| usize::from(*slot) < batch.essays.len();
                is(slots.iter().all(is_essay), "runs on an essay that the batch does not have");
            }
            PhaseState::BackingOff { attempt, .. } => {
                let error = attempt.end.as_ref().and_then(|end| end.error.as_ref());
                is(error.is_some(), "waits for its next attempt after one that did not fail");
            }
            PhaseState::Succeeded { .. } => is(successful > 0 && failed == 0, "succeeded and its essays did not"),
            PhaseState::PartiallySucceeded { .. } => {
                is(successful > 0 && failed > 0, "succeeded in part and its essays did not");
            }
            PhaseState::Failed { .. } => is(successful == 0, "failed and some of its essays did not"),
            PhaseState::Cancelled { .. } => is(successful == 0, "was cancelled and some of its essays came out"),
        }
    }
}

fn audit_attempt(phase: Phase, before: Option<&Attempt>, attempt: &Attempt, found: &mut Findings) {
    let number = attempt.number;
    let mut is = |is_true: bool, otherwise: &str| {
        found.require(is_true, &format!("attempt {number} at {phase} {otherwise}"));
    };
    match attempt.trigger {
        Trigger::Pipeline | Trigger::User => is(attempt.in_a_row == 1, "begins anew and counts others"),
        Trigger::Automatic => {
            is(before.is_some_and(|before| attempt.in_a_row == before.in_a_row + 1), "does not go on counting");
            let end = before.and_then(|before| before.end.as_ref());
            is(end.is_some_and(|end| end.failed > 0 && end.error.is_some()), "follows one that did not fail");
        }
    }
    is(attempt.lease.is_none() || attempt.started_at.is_some(), "was leased and never began");
    is(before.is_none_or(|before| before.correlation_id != attempt.correlation_id), "has the id of the one before");
    let Some(end) = &attempt.end else { return };
    let fits = match end.outcome {
        AttemptOutcome::Succeeded => end.successful > 0 && end.failed == 0,
        AttemptOutcome::PartiallySucceeded => end.successful > 0 && end.failed > 0,
        AttemptOutcome::Failed => end.successful == 0,
        AttemptOutcome::Cancelled => end.successful == 0 && end.failed == 0,
    };
    is(fits, "ended otherwise than its essays say");
    is(usize::try_from(end.failed) == Ok(end.failed_slots.len()), "does not name the essays that failed");
    is(end.failed_slots.iter().all(|slot| attempt.slots.contains(slot)), "failed on an essay that it did not have");
    is(end.failed == 0 || end.error.is_some(), "failed and does not say why");
}
