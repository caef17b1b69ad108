//! Messages that were rejected, until they come again.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::Options;
use super::delivery::{Delivery, Returned};
use crate::clock::Clock;
use crate::domain::Millis;

pub(super) struct Redelivery {
    pub(super) returned: mpsc::UnboundedReceiver<Returned>,
    pub(super) sender: mpsc::Sender<Delivery>,
    pub(super) returns: mpsc::UnboundedSender<Returned>,
    pub(super) clock: Clock,
    pub(super) options: Options,
}

impl Redelivery {
    pub(super) async fn run(mut self) {
        // By when they are due; the number keeps apart those that are due together.
        let mut waiting: BTreeMap<(Millis, u64), Returned> = BTreeMap::new();
        let mut number = 0;
        let mut work = self.clock.work(super::ON_ITS_WAY);
        loop {
            let due = waiting.first_key_value().map(|((due, _), _)| *due);
            let next_due = async {
                match due {
                    Some(due) => work.sleep_until(due).await,
                    None => work.sleep_until(Millis(u64::MAX)).await,
                }
            };
            tokio::select! {
                returned = self.returned.recv() => {
                    let Some(mut returned) = returned else { return };
                    let due = self.clock.now().plus(self.options.backoff_of(returned.count));
                    number += 1;
                    // From here on it is this task that works on it, or sleeps.
                    returned.work = None;
                    waiting.insert((due, number), returned);
                }
                () = next_due => {
                    let Some((_, returned)) = waiting.pop_first() else { continue };
                    let delivery = Delivery::again(returned, self.clock.work(super::ON_ITS_WAY), self.returns.clone());
                    if let Err(refused) = self.sender.send(delivery).await {
                        refused.0.acknowledge();
                        return;
                    }
                }
            }
        }
    }
}

impl Options {
    /// How long a message waits after its `count`th delivery failed, in milliseconds.
    fn backoff_of(&self, count: u32) -> u64 {
        let factor = 2_u64.saturating_pow(count.saturating_sub(1));
        self.backoff_ms.saturating_mul(factor).min(self.max_backoff_ms)
    }
}
