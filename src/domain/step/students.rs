//! Students of a regular batch: which essay is whose is found out and confirmed before the first pipeline.

use std::sync::Arc;

use super::{Draft, Effect, Timer};
use crate::contract::BatchStatus;
use crate::domain::rejection::Rejected;
use crate::domain::time::Millis;

impl Draft<'_> {
    /// The essays are there: somebody who knows the class is asked whose they are.
    pub(super) fn await_students(&mut self) {
        let due = self.context.now.plus(self.context.rules.student_validation_ms);
        if let Some(class) = &mut Arc::make_mut(&mut self.batch.details).class {
            class.confirm_by = Some(due);
        }
        self.batch.status = BatchStatus::AwaitingStudentValidation;
        self.changed = true;
        self.effects.push(Effect::ArmTimer(Timer::student_validation(due)));
        self.announce_student_matching();
    }

    /// The first confirmation counts; one that comes later, or again, changes nothing.
    pub(super) fn associations_confirmed(
        &mut self,
        class_id: &str,
        essay_ids: &[String],
        timeout_triggered: bool,
    ) -> Result<(), Rejected> {
        let inconsistent = |reason| Err(Rejected::Inconsistent { reason });
        let Some(class) = &self.batch.details.class else { return inconsistent("the batch has no class") };
        if class.id != class_id {
            return inconsistent("the batch has another class");
        }
        let by_id = self.batch.slots_by_id();
        if !essay_ids.iter().all(|id| by_id.contains_key(id.as_str())) {
            return inconsistent("it has an essay that the batch does not have");
        }
        if !self.batch.is_provisioned() {
            return inconsistent("the essays of the batch are not there yet");
        }
        if self.batch.status == BatchStatus::AwaitingStudentValidation {
            self.have_students(timeout_triggered);
        }
        Ok(())
    }

    pub(super) fn student_validation_expired(&mut self) -> Result<(), Rejected> {
        let is_over = self.confirm_by().is_some_and(|due| due <= self.context.now);
        if self.batch.status != BatchStatus::AwaitingStudentValidation || !is_over {
            return Err(Rejected::Inconsistent { reason: "nobody is waited for, or not for that long yet" });
        }
        self.announce_unconfirmed_students();
        self.have_students(true);
        Ok(())
    }

    fn confirm_by(&self) -> Option<Millis> {
        self.batch.details.class.as_ref().and_then(|class| class.confirm_by)
    }

    fn have_students(&mut self, timeout_triggered: bool) {
        let timer = self.confirm_by().map(Timer::student_validation);
        self.effects.extend(timer.map(Effect::DisarmTimer));
        self.batch.status = if timeout_triggered {
            BatchStatus::ValidationTimeoutProcessed
        } else {
            BatchStatus::StudentValidationCompleted
        };
        self.changed = true;
        self.announce_essays_ready();
    }

    /// What this program itself announced, or another lifecycle service.
    pub(super) fn essays_ready(&mut self) -> Result<(), Rejected> {
        match self.batch.status {
            BatchStatus::StudentValidationCompleted | BatchStatus::ValidationTimeoutProcessed => {
                self.become_ready();
                Ok(())
            }
            BatchStatus::AwaitingContentValidation | BatchStatus::AwaitingStudentValidation => {
                Err(Rejected::Inconsistent { reason: "it is not known yet whose the essays are" })
            }
            BatchStatus::ContentIngestionFailed
            | BatchStatus::AwaitingPipelineConfiguration
            | BatchStatus::ReadyForPipelineExecution
            | BatchStatus::ProcessingPipelines
            | BatchStatus::CompletedSuccessfully
            | BatchStatus::CompletedWithFailures
            | BatchStatus::FailedCritically
            | BatchStatus::Cancelled => Ok(()),
        }
    }
}
