//! One message in the hands of a consumer.

use tokio::sync::mpsc;

use crate::clock::{Clock, Work};
use crate::contract::{Group, Message};

/// A message that its consumer has to acknowledge or reject. One that is merely dropped counts as rejected.
#[derive(Debug)]
pub struct Delivery {
    group: Group,
    sequence: u64,
    count: u32,
    message: Message,
    /// None once it is settled.
    work: Option<Work>,
    /// Where it goes when it is rejected; none once it is settled.
    returns: Option<mpsc::UnboundedSender<Returned>>,
}

/// A message that comes again.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) group: Group,
    pub(super) sequence: u64,
    pub(super) count: u32,
    pub(super) message: Message,
    pub(super) work: Option<Work>,
}

impl Delivery {
    pub(super) fn first(
        group: Group,
        sequence: u64,
        message: Message,
        work: Work,
        returns: mpsc::UnboundedSender<Returned>,
    ) -> Self {
        Self { group, sequence, count: 1, message, work: Some(work), returns: Some(returns) }
    }

    pub(super) fn again(returned: Returned, work: Work, returns: mpsc::UnboundedSender<Returned>) -> Self {
        let Returned { group, sequence, count, message, work: _ } = returned;
        Self { group, sequence, count: count.saturating_add(1), message, work: Some(work), returns: Some(returns) }
    }

    /// The group that it was delivered to.
    #[must_use]
    pub const fn group(&self) -> Group {
        self.group
    }

    /// Its number in the outbox of the group.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How often it was delivered, this time included.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The message.
    #[must_use]
    pub const fn message(&self) -> &Message {
        &self.message
    }

    /// Sleeps while nothing is to be done about the message.
    pub async fn sleep(&mut self, clock: &Clock, duration_ms: u64) {
        match &mut self.work {
            Some(work) => work.sleep_until(clock.now().plus(duration_ms)).await,
            None => clock.sleep(duration_ms).await,
        }
    }

    /// Nobody in this process works on it until somebody takes it up: a manual clock does not wait for it.
    pub fn set_aside(&mut self) {
        self.work = None;
    }

    /// Somebody takes it up.
    pub fn take_up(&mut self, clock: &Clock) {
        self.work.get_or_insert_with(|| clock.work(super::ON_ITS_WAY));
    }

    /// The message was handled. Call it once the commit that takes it out of the outbox is durable.
    pub fn acknowledge(mut self) {
        self.returns = None;
    }

    /// The message was not handled; it comes again after a while.
    pub fn reject(self, reason: &str) {
        tracing::warn!(
            group = ?self.group,
            topic = %self.message.topic,
            key = %self.message.key,
            deliveries = self.count,
            reason,
            "a message was not handled; it comes again"
        );
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let Some(returns) = self.returns.take() else { return };
        let (message, work) = (self.message.clone(), self.work.take());
        let returned = Returned { group: self.group, sequence: self.sequence, count: self.count, message, work };
        // Without a bus there is nobody to deliver it again; after the next start it comes from the outbox.
        let _ = returns.send(returned);
    }
}
