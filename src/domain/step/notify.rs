//! What the owner of a batch is told (contract, Notifications).

use super::{Data, Draft, Effect};
use crate::contract::BatchStatus;
use crate::contract::enums::{NotificationCategory, NotificationPriority};
use crate::contract::events::TeacherNotificationRequested;
use crate::contract::notifications::{Payload, PhaseConcluded};
use crate::domain::batch::Run;
use crate::domain::essays::EssayCounts;
use crate::domain::phase::{Phase, PhaseState};
use crate::domain::time::Millis;

impl Draft<'_> {
    /// A pipeline that ends with `last` was accepted. One of which all is complete is only over: nothing of it starts.
    pub(super) fn notify_start(&mut self, last: Phase, queue: &[Phase]) {
        let Some(first) = queue.first() else { return };
        let payload = Payload::BatchProcessingStarted {
            batch_id: self.batch.id.to_string(),
            requested_pipeline: last.name(),
            resolved_pipeline: queue.iter().map(|phase| phase.name()).collect(),
            first_phase: first.name(),
            total_phases: queue.len(),
            message: format!("Processing started: Initiating {first} phase"),
        };
        self.notify(payload, NotificationPriority::Low, false, None);
    }

    /// A run is over.
    pub(super) fn notify_completion(&mut self, run: &Run, counts: EssayCounts) {
        let EssayCounts { successful, failed, .. } = counts;
        let status = self.batch.status;
        let message = match failed {
            _ if status == BatchStatus::Cancelled => format!("Pipeline ended before its time: {status}"),
            0 => format!("Pipeline completed successfully: {status}"),
            failed => format!("Pipeline completed with {failed} failures: {status}"),
        };
        let completed = self.batch.requested_phases().filter(|(_, record)| record.state.is_completed());
        let duration_ms = self.context.now.since(run.started_at);
        let payload = Payload::PipelineCompleted {
            batch_id: self.batch.id.to_string(),
            final_status: status,
            completed_phases: completed.map(|(phase, _)| phase.name()).collect(),
            successful_essays: successful,
            failed_essays: failed,
            duration_seconds: std::time::Duration::from_millis(duration_ms).as_secs_f64(),
            message,
        };
        let action_required = failed > 0;
        let priority = if action_required { NotificationPriority::Immediate } else { NotificationPriority::High };
        self.notify(payload, priority, action_required, Some(run));
    }

    /// Tells the owner; what a run has come to, or what this input has caused.
    pub(super) fn notify(
        &mut self,
        payload: Payload,
        priority: NotificationPriority,
        action_required: bool,
        run: Option<&Run>,
    ) {
        let correlation_id = run.map_or(self.context.correlation_id, |run| run.correlation_id);
        let notification = TeacherNotificationRequested {
            teacher_id: self.batch.details.user_id.clone(),
            notification_type: payload.notification_type().to_owned(),
            category: NotificationCategory::BatchProgress,
            priority,
            payload,
            action_required,
            deadline_timestamp: None,
            correlation_id: correlation_id.to_string(),
            batch_id: Some(self.batch.id.to_string()),
            class_id: None,
            timestamp: Some(self.context.now.to_timestamp()),
        };
        self.publish(Data::Notification(notification), correlation_id, run.map(|run| &*run.origin));
    }

    /// Tells the owner where `state` is an end of `phase`.
    pub(super) fn tell_conclusion(&mut self, phase: Phase, state: &PhaseState) {
        let Some(status) = conclusion(state) else { return };
        let attempt = state.attempt().map(|attempt| attempt.correlation_id);
        self.effects.push(Effect::TellOwner(PhaseConcluded {
            batch_id: self.batch.id.0,
            phase: phase.name(),
            status,
            timestamp: Millis::to_timestamp(self.context.now),
            correlation_id: attempt.unwrap_or(self.context.correlation_id),
        }));
    }
}

/// How a phase in this state ended, as an outcome says it. One that was skipped never began.
const fn conclusion(state: &PhaseState) -> Option<BatchStatus> {
    match state {
        PhaseState::Succeeded { .. } => Some(BatchStatus::CompletedSuccessfully),
        PhaseState::PartiallySucceeded { .. } => Some(BatchStatus::CompletedWithFailures),
        PhaseState::Failed { .. } => Some(BatchStatus::FailedCritically),
        PhaseState::Cancelled { .. } => Some(BatchStatus::Cancelled),
        PhaseState::PendingDependencies { .. }
        | PhaseState::Requested { .. }
        | PhaseState::Dispatched { .. }
        | PhaseState::InProgress { .. }
        | PhaseState::BackingOff { .. }
        | PhaseState::SkippedDependency { .. } => None,
    }
}
