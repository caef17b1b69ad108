//! Pipelines are paid for when they are accepted, or denied.

use super::announce::Data;
use super::{Context, Draft, Effect, Outgoing};
use crate::contract::EventName;
use crate::contract::enums::NotificationPriority;
use crate::contract::events::PipelineDenied;
use crate::contract::notifications::Payload;
use crate::domain::batch::Batch;
use crate::domain::credits::{Cost, Denial, DenialReason, Funds, in_json};
use crate::domain::phase::Phase;
use crate::domain::rejection::Rejected;

impl Draft<'_> {
    /// Charges for the pipeline that ends with `requested`, if there is enough.
    pub(super) fn charge(&mut self, requested: Phase, cost: Cost) -> Result<(), Rejected> {
        let funds = self.context.funds;
        match funds {
            Funds::Limited(credits) if cost.total() > credits => {
                let reason = DenialReason::InsufficientCredits;
                Err(Rejected::Denied(Denial { requested, reason, cost, funds }))
            }
            Funds::Limited(_) if cost.total() > 0 => {
                self.effects.push(Effect::Charge { requested, cost });
                Ok(())
            }
            Funds::Limited(_) | Funds::Unlimited => Ok(()),
        }
    }

    /// Why a pipeline that the gateway denies is.
    pub(super) fn deny_pipeline(&self, by: &str, last: Phase, is_retry: bool, reason: DenialReason) -> Rejected {
        if let Err(rejected) = self.require_owner(by) {
            return rejected;
        }
        let cost = if is_retry { Cost::default() } else { self.batch.quote(last).cost };
        Rejected::Denied(Denial { requested: last, reason, cost, funds: self.context.funds })
    }

    fn announce_denial(&mut self, denial: &Denial) {
        let (now, details) = (self.context.now.to_timestamp(), &self.batch.details);
        let denied = PipelineDenied {
            event_name: EventName::PipelineDenied,
            entity_id: Some(self.batch.id.to_string()),
            entity_type: Some("batch".to_owned()),
            parent_id: None,
            timestamp: Some(now),
            batch_id: self.batch.id.to_string(),
            user_id: details.user_id.clone(),
            org_id: details.org_id.clone(),
            requested_pipeline: denial.requested.to_string(),
            denial_reason: denial.reason.as_str().to_owned(),
            required_credits: in_json(denial.cost.total()),
            available_credits: in_json(denial.funds.available()),
            resource_breakdown: Some(denial.cost.breakdown()),
            denied_at: Some(now),
        };
        let (message, next_steps) = advice(denial);
        let payload = Payload::PipelineDenied {
            is_rate_limit: matches!(denial.reason, DenialReason::RateLimitExceeded { .. }),
            denial: Box::new(denied.clone()),
            credit_deficit: denial.deficit(),
            next_steps,
            message,
        };
        self.publish(Data::PipelineDenied(denied), self.context.correlation_id, None);
        self.notify(payload, NotificationPriority::Immediate, true, None);
    }
}

/// What a person reads, and what can be done about it.
fn advice(denial: &Denial) -> (String, Vec<String>) {
    let (pipeline, deficit) = (denial.requested, denial.deficit());
    let step = |text: &str| text.to_owned();
    match denial.reason {
        DenialReason::InsufficientCredits => (
            format!("{pipeline} was not started: {deficit} more credits are needed"),
            vec![step("Ask whoever manages the credits for more"), step("Request a pipeline that costs less")],
        ),
        DenialReason::RateLimitExceeded { wait_ms, .. } => {
            let seconds = wait_ms.div_ceil(1_000);
            let message = format!("{pipeline} was not started: too many pipelines were requested in a short time");
            (message, vec![format!("Request it again in {seconds} second(s)")])
        }
    }
}

/// What is told of a pipeline that a step refused with [`Rejected::Denied`]. The batch stays as it is.
#[must_use]
pub fn denied(batch: &Batch, denial: &Denial, context: &Context<'_>) -> Vec<Outgoing> {
    let mut draft = Draft::of(batch, context);
    draft.announce_denial(denial);
    let publish = |effect| match effect {
        Effect::Publish(outgoing) => Some(*outgoing),
        Effect::Show(_)
        | Effect::Charge { .. }
        | Effect::RecordAttempt { .. }
        | Effect::ArmTimer(_)
        | Effect::DisarmTimer(_)
        | Effect::Recall { .. }
        | Effect::TellOwner(_) => None,
    };
    draft.effects.into_iter().filter_map(publish).collect()
}
