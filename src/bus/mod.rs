//! Consumer groups on bounded channels: delivery, acknowledgement, redelivery.
//!
//! Owns what is on its way to a consumer, and nothing that has to survive: every message lies in the store's outbox
//! until its group has consumed it, and whoever feeds the bus reads it from there again after a restart. So a full
//! channel makes the feeder wait, and no message is dropped. What the engine asks of it is small: deliver to a group,
//! subscribe as a group, acknowledge, watch. Beside the groups there are the channels of users, which keep nothing.

mod channels;
mod delivery;
mod redelivery;

use std::sync::{Arc, Mutex};

use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use channels::{Listener, TooManyConnections};
pub use delivery::Delivery;

use crate::clock::Clock;
use crate::contract::{Group, Message, Notice};
use crate::domain::{BatchId, Phase};
use channels::Channels;
use delivery::Returned;

/// How the bus behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many messages may wait in the channel of one group. Past that the feeder waits.
    pub capacity: usize,
    /// How long a message waits after its first failed delivery, in milliseconds; twice as long after each further one.
    pub backoff_ms: u64,
    /// The longest that it waits, in milliseconds.
    pub max_backoff_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { capacity: 256, backoff_ms: 100, max_backoff_ms: 30_000 }
    }
}

/// What is said of a message that somebody has to do something about.
const ON_ITS_WAY: &str = "a message to a consumer";

/// How many messages a watcher may be behind before it misses some.
const WATCH_CAPACITY: usize = 1_024;

/// Why the bus refuses something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A group has one subscription.
    #[error("somebody consumes for this group already")]
    AlreadySubscribed,
    /// Nobody consumes for the group any more.
    #[error("nobody consumes for this group")]
    Closed,
}

/// The bus.
pub struct Bus {
    lanes: [Lane; Group::ALL.len()],
    clock: Clock,
    watchers: broadcast::Sender<Message>,
    recalls: broadcast::Sender<Recall>,
    channels: Arc<Channels>,
}

/// An attempt that nobody waits for any more. Whoever works on it may stop; what comes of it all the same is too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recall {
    /// Its batch.
    pub batch: BatchId,
    /// Its phase.
    pub phase: Phase,
    /// Its number.
    pub attempt: u32,
}

/// What belongs to one group.
struct Lane {
    group: Group,
    sender: mpsc::Sender<Delivery>,
    subscription: Mutex<Option<Subscription>>,
    /// Bounded by what is delivered: a message is in a channel, with a consumer, or here.
    returns: mpsc::UnboundedSender<Returned>,
}

/// The receiving end of a group.
pub struct Subscription {
    receiver: mpsc::Receiver<Delivery>,
}

impl Bus {
    /// A bus whose redelivery runs in `tasks` until `stop`.
    #[must_use]
    pub fn new(options: &Options, clock: &Clock, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let lane = |group| {
            let (sender, receiver) = mpsc::channel(options.capacity);
            let (returns, returned) = mpsc::unbounded_channel();
            let redelivery = redelivery::Redelivery {
                returned,
                sender: sender.clone(),
                returns: returns.clone(),
                clock: clock.clone(),
                options: options.clone(),
            };
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(redelivery.run()).await });
            Lane { group, sender, subscription: Mutex::new(Some(Subscription { receiver })), returns }
        };
        Self {
            lanes: Group::ALL.map(lane),
            clock: clock.clone(),
            watchers: broadcast::Sender::new(WATCH_CAPACITY),
            recalls: broadcast::Sender::new(WATCH_CAPACITY),
            channels: Arc::default(),
        }
    }

    fn lane(&self, group: Group) -> &Lane {
        &self.lanes[group as usize]
    }

    /// Consumes for `group`.
    ///
    /// # Errors
    /// [`Error::AlreadySubscribed`] where somebody else does.
    pub fn subscribe(&self, group: Group) -> Result<Subscription, Error> {
        let mut subscription = self.lane(group).subscription.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        subscription.take().ok_or(Error::AlreadySubscribed)
    }

    /// Puts the message with this number into the channel of `group`, and waits while that is full.
    ///
    /// # Errors
    /// [`Error::Closed`] where the subscription is gone.
    pub async fn deliver(&self, group: Group, sequence: u64, message: Message) -> Result<(), Error> {
        let lane = self.lane(group);
        let work = self.clock.work(ON_ITS_WAY);
        let delivery = Delivery::first(lane.group, sequence, message, work, lane.returns.clone());
        lane.sender.send(delivery).await.map_err(|refused| {
            refused.0.acknowledge();
            Error::Closed
        })
    }

    /// How many messages wait in the channel of `group`.
    #[must_use]
    pub fn depth(&self, group: Group) -> usize {
        let sender = &self.lane(group).sender;
        sender.max_capacity() - sender.capacity()
    }

    /// Shows `message` to everybody who watches.
    pub fn show(&self, message: Message) {
        // Nobody watching is no failure.
        let _ = self.watchers.send(message);
    }

    /// Tells whoever works on an attempt that nobody waits for it any more.
    pub fn recall(&self, recall: Recall) {
        // Nobody working on anything is no failure.
        let _ = self.recalls.send(recall);
    }

    /// Hears of every recall from now on. One that is missed costs work and nothing else.
    #[must_use]
    pub fn recalls(&self) -> broadcast::Receiver<Recall> {
        self.recalls.subscribe()
    }

    /// Hears what `user` is told from now on.
    ///
    /// # Errors
    /// [`TooManyConnections`].
    pub fn listen(&self, user: &str) -> Result<Listener, TooManyConnections> {
        self.channels.listen(user)
    }

    /// Tells each of these users what is for them, where they have a connection. It never waits.
    pub fn tell<U: AsRef<str>>(&self, notices: Vec<(U, Notice)>) {
        self.channels.tell(notices);
    }

    /// Watches every message that is published from now on. A watcher that falls behind misses some, and is told.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Message> {
        self.watchers.subscribe()
    }
}

impl Subscription {
    /// The next message; none once the bus is gone.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.receiver.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::contract::Topic;
    use crate::domain::Millis;

    struct Fixture {
        bus: Bus,
        clock: ManualClock,
        _stop: tokio_util::sync::DropGuard,
    }

    fn fixture(capacity: usize) -> Fixture {
        let clock = ManualClock::new(Millis(1_000));
        let stop = CancellationToken::new();
        let options = Options { capacity, backoff_ms: 100, max_backoff_ms: 300 };
        let bus = Bus::new(&options, &clock.clock(), &TaskTracker::new(), &stop);
        Fixture { bus, clock, _stop: stop.drop_guard() }
    }

    fn message(body: &'static str) -> Message {
        Message { topic: Topic::ElsBatchPhaseOutcome, key: "batch".to_owned(), headers: None, body: body.into() }
    }

    #[tokio::test]
    async fn a_group_gets_its_messages_in_order() {
        let Fixture { bus, .. } = &fixture(8);
        let mut subscription = bus.subscribe(Group::Orchestrator).expect("the only one");
        for (sequence, body) in [(0, "a"), (1, "b")] {
            bus.deliver(Group::Orchestrator, sequence, message(body)).await.expect("open");
        }
        for (sequence, body) in [(0, "a"), (1, "b")] {
            let delivery = subscription.next().await.expect("a message");
            assert_eq!((delivery.sequence(), &delivery.message().body[..]), (sequence, body.as_bytes()));
            delivery.acknowledge();
        }
        assert_eq!(bus.subscribe(Group::Orchestrator).err(), Some(Error::AlreadySubscribed));
    }

    #[tokio::test]
    async fn a_full_channel_makes_the_feeder_wait_and_drops_nothing() {
        let Fixture { bus, .. } = &fixture(1);
        let mut subscription = bus.subscribe(Group::Nlp).expect("the only one");
        bus.deliver(Group::Nlp, 0, message("first")).await.expect("open");
        assert_eq!(bus.depth(Group::Nlp), 1);

        let mut second = std::pin::pin!(bus.deliver(Group::Nlp, 1, message("second")));
        tokio::select! {
            biased;
            _ = &mut second => panic!("the channel was full"),
            () = std::future::ready(()) => {}
        }
        subscription.next().await.expect("the first").acknowledge();
        second.await.expect("open");
        assert_eq!(subscription.next().await.expect("the second").sequence(), 1);
    }

    #[tokio::test]
    async fn a_returned_message_comes_again_with_a_growing_wait() {
        let Fixture { bus, clock, .. } = &fixture(8);
        let mut subscription = bus.subscribe(Group::Nlp).expect("the only one");
        bus.deliver(Group::Nlp, 7, message("again")).await.expect("open");
        let mut delivery = subscription.next().await.expect("a message");
        for (count, wait_ms) in [(1, 100), (2, 200), (3, 300), (4, 300)] {
            assert_eq!((delivery.count(), delivery.sequence()), (count, 7));
            delivery.reject("not now");
            // The redelivery reads the clock when it takes the message back, so it gets its turn first.
            tokio::task::yield_now().await;
            clock.advance(wait_ms - 1);
            tokio::task::yield_now().await;
            assert_eq!(bus.depth(Group::Nlp), 0, "it came back before {wait_ms} ms");
            clock.advance(1);
            delivery = subscription.next().await.expect("the same message");
        }
        delivery.acknowledge();
    }

    #[tokio::test]
    async fn a_message_whose_handler_vanished_comes_again() {
        let Fixture { bus, clock, .. } = &fixture(8);
        let mut subscription = bus.subscribe(Group::Nlp).expect("the only one");
        bus.deliver(Group::Nlp, 0, message("dropped")).await.expect("open");
        drop(subscription.next().await);
        tokio::task::yield_now().await;
        clock.advance(100);
        assert_eq!(subscription.next().await.expect("the same message").count(), 2);
    }
}
