//! A pipeline is requested: which phases run, which are left out.

use std::sync::Arc;

use super::Draft;
use super::readiness::require_small;
use crate::contract::requests::PromptPayload;
use crate::contract::{BatchStatus, Text};
use crate::domain::attempt::Scope;
use crate::domain::batch::Run;
use crate::domain::credits::Quote;
use crate::domain::needs_prompt;
use crate::domain::phase::{Phase, PhaseState};
use crate::domain::rejection::Rejected;

impl Draft<'_> {
    pub(super) fn request_pipeline(
        &mut self,
        by: &str,
        last: Phase,
        prompt: Option<PromptPayload>,
    ) -> Result<(), Rejected> {
        self.require_owner(by)?;
        if self.batch.run.is_some() {
            return Err(Rejected::PipelineActive);
        }
        self.require_ready()?;
        if let Some(prompt) = prompt {
            self.take_prompt(prompt)?;
        }
        let Quote { phases: queue, completed, cost } = self.batch.quote(last);
        if !self.batch.details.has_prompt()
            && let Some(&phase) = queue.iter().find(|&&phase| needs_prompt(phase))
        {
            return Err(Rejected::PromptMissing { phase });
        }
        self.charge(last, cost)?;
        for phase in completed {
            self.announce_skip(phase);
        }
        for &phase in &queue {
            self.set_state(phase, PhaseState::PendingDependencies { scope: Scope::Whole, before: None });
        }
        self.notify_start(last, &queue);
        self.start_run(by, queue);
        self.advance();
        Ok(())
    }

    pub(super) fn start_run(&mut self, by: &str, queue: Vec<Phase>) {
        self.batch.run = Some(Run {
            correlation_id: self.context.correlation_id,
            origin: Arc::clone(self.context.origin),
            requested_by: by.to_owned(),
            started_at: self.context.now,
            queue,
        });
        self.batch.status = BatchStatus::ProcessingPipelines;
        self.changed = true;
    }

    /// Whether a pipeline or a retry may begin.
    pub(super) fn require_ready(&self) -> Result<(), Rejected> {
        match self.batch.status {
            BatchStatus::ReadyForPipelineExecution
            | BatchStatus::ProcessingPipelines
            | BatchStatus::CompletedSuccessfully
            | BatchStatus::CompletedWithFailures
            | BatchStatus::Cancelled => Ok(()),
            status @ (BatchStatus::AwaitingContentValidation
            | BatchStatus::ContentIngestionFailed
            | BatchStatus::AwaitingPipelineConfiguration
            | BatchStatus::AwaitingStudentValidation
            | BatchStatus::StudentValidationCompleted
            | BatchStatus::ValidationTimeoutProcessed
            | BatchStatus::FailedCritically) => Err(Rejected::NotReady { status }),
        }
    }

    fn take_prompt(&mut self, prompt: PromptPayload) -> Result<(), Rejected> {
        let details = Arc::make_mut(&mut self.batch.details);
        match (prompt.assignment_id, prompt.cms_prompt_ref) {
            (Some(assignment_id), None) if !assignment_id.as_str().is_empty() => {
                details.assignment_id = Some(Text::into_string(assignment_id));
                details.assignment_is_prompt = true;
            }
            (None, Some(reference)) if !reference.references.is_empty() => {
                require_small(&reference)?;
                details.student_prompt_ref = Some(reference);
            }
            (Some(_), _) | (None, Some(_) | None) => return Err(Rejected::PromptAmbiguous),
        }
        self.changed = true;
        Ok(())
    }
}
