//! The newest of what was published, in order, for tests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast::{self, error::TryRecvError};

use super::Engine;
use crate::contract::{Message, Topic};

/// How many messages are kept.
const MAX_EVENTS: usize = 10_000;

/// How much of them is kept, in bytes.
const MAX_BYTES: usize = 64 * 1_024 * 1_024;

/// A message that was published.
#[derive(Debug, Clone)]
pub struct LoggedEvent {
    /// Its number, from 1. Those of messages that were missed are left out.
    pub number: u64,
    /// The message.
    pub message: Message,
}

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Of this topic.
    pub topic: Option<Topic>,
    /// With this key, which is the batch.
    pub key: Option<String>,
    /// Behind this number.
    pub after: u64,
    /// As many.
    pub limit: usize,
    /// And as much, in bytes, but at least one.
    pub max_bytes: usize,
}

/// Some of the events.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// They, in order.
    pub events: Vec<LoggedEvent>,
    /// Behind which number to go on; none where there are no more for now.
    pub next_after: Option<u64>,
    /// How many were published.
    pub published: u64,
    /// How many of them are not kept any more, or were missed.
    pub dropped: u64,
}

/// Keeps what is published. Its clones share it.
#[derive(Clone)]
pub struct EventLog(Arc<Mutex<Kept>>);

struct Kept {
    published: broadcast::Receiver<Message>,
    events: VecDeque<LoggedEvent>,
    bytes: usize,
    /// The number of the last that was published.
    last: u64,
}

impl EventLog {
    /// Keeps what `engine` publishes from now on.
    #[must_use]
    pub fn of(engine: &Engine) -> Self {
        let (published, mut signal) = (engine.bus().watch(), engine.bus().watch());
        let kept = Kept { published, events: VecDeque::new(), bytes: 0, last: 0 };
        let log = Self(Arc::new(Mutex::new(kept)));
        let (keeper, stop) = (log.clone(), engine.stopping().clone());
        engine.spawn(async move {
            // What it hears is only that there is something.
            let listen = async {
                while !matches!(signal.recv().await, Err(broadcast::error::RecvError::Closed)) {
                    drop(keeper.kept());
                }
            };
            stop.run_until_cancelled(listen).await;
        });
        log
    }

    /// The events that `filter` lets through. Whatever was answered before is among them.
    #[must_use]
    pub fn read(&self, filter: &EventFilter) -> EventPage {
        let kept = self.kept();
        let wanted = |event: &&LoggedEvent| {
            event.number > filter.after
                && filter.topic.is_none_or(|topic| topic == event.message.topic)
                && filter.key.as_deref().is_none_or(|key| key == event.message.key)
        };
        let (mut events, mut bytes, mut next_after) = (Vec::new(), 0, None);
        for event in kept.events.iter().filter(wanted) {
            bytes += event.message.body.len();
            if events.len() == filter.limit || (bytes > filter.max_bytes && !events.is_empty()) {
                next_after = events.last().map(|last: &LoggedEvent| last.number);
                break;
            }
            events.push(event.clone());
        }
        let dropped = kept.last - u64::try_from(kept.events.len()).unwrap_or(0);
        EventPage { events, next_after, published: kept.last, dropped }
    }

    /// What is kept, with everything in it that has been published.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match kept.published.try_recv() {
                Ok(message) => kept.put(message),
                Err(TryRecvError::Lagged(missed)) => kept.last += missed,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return kept,
            }
        }
    }
}

impl Kept {
    fn put(&mut self, message: Message) {
        self.last += 1;
        self.bytes += message.body.len();
        self.events.push_back(LoggedEvent { number: self.last, message });
        while self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.events.pop_front() else { return };
            self.bytes -= oldest.message.body.len();
        }
    }
}
