//! The outbox relay: what was committed goes to the bus, in the order of the commits, and nothing is skipped.
//!
//! The committer hands every durable message over as it is; where that queue is full, or after a restart, the relay
//! reads the outbox instead. Numbers without holes tell it which of the two it needs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tracing::Instrument as _;

use super::tail::Tail;
use super::{Engine, blocking};
use crate::bus::Bus;
use crate::clock::{Clock, Work};
use crate::contract::{Group, Message};
use crate::crash::{self, Point};
use crate::store::{self, Event, Feed, Published, Sequence, Store};

/// How many messages of a group may be on their way between committer and relay. More wait in the outbox.
const HANDOVER: usize = 1_024;

/// How many messages are read from the outbox at once.
const PAGE: usize = 64;

/// How often a relay with nothing to do looks whether it missed something. Nothing depends on it.
const SAFETY_POLL: Duration = Duration::from_secs(5);

/// Where the committer leaves messages for one group.
struct Inlet {
    messages: mpsc::Sender<(Sequence, Message)>,
    progress: Arc<Progress>,
}

/// How far the commits are.
#[derive(Default)]
struct Progress {
    /// The number that the next message will have.
    end: AtomicU64,
    grown: Notify,
    /// There is something that the relay has not delivered yet.
    behind: Mutex<Option<Work>>,
}

impl Progress {
    /// The messages up to, not including, `end` are there.
    fn grow(&self, end: Sequence, clock: &Clock) {
        self.end.fetch_max(end, Ordering::AcqRel);
        self.behind().get_or_insert_with(|| clock.work("the outbox"));
    }

    /// The relay has delivered everything before `next`.
    fn has_delivered(&self, next: Sequence) {
        let mut behind = self.behind();
        if next >= self.end.load(Ordering::Acquire) {
            *behind = None;
        }
    }

    fn behind(&self) -> MutexGuard<'_, Option<Work>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Relay {
    group: Group,
    messages: mpsc::Receiver<(Sequence, Message)>,
    progress: Arc<Progress>,
}

/// The feed of the committer, and the relays behind it.
pub(super) fn channels(bus: Arc<Bus>, clock: Clock, tail: Arc<Tail>) -> (Feed, [Relay; Group::ALL.len()]) {
    let (inlets, relays): (Vec<_>, Vec<_>) = Group::ALL
        .into_iter()
        .map(|group| {
            let (sender, messages) = mpsc::channel(HANDOVER);
            let progress = Arc::new(Progress::default());
            (Inlet { messages: sender, progress: Arc::clone(&progress) }, Relay { group, messages, progress })
        })
        .unzip();
    let feed = move |published: Vec<Published>| {
        tail.extend(events(&published));
        for Published { outbox, event: _, message } in published {
            bus.show(message.clone());
            if let Some((group, sequence)) = outbox {
                let inlet = &inlets[group as usize];
                inlet.progress.grow(sequence + 1, &clock);
                // A full queue is no loss: the relay reads the outbox.
                let _ = inlet.messages.try_send((sequence, message));
                inlet.progress.grown.notify_one();
            }
        }
    };
    let Ok(relays) = relays.try_into() else { unreachable!("one relay was made for each group") };
    (Box::new(feed), relays)
}

/// Those that are in the log.
fn events(published: &[Published]) -> Vec<Event> {
    let event = |one: &Published| Some(Event { sequence: one.event?, message: one.message.clone() });
    published.iter().filter_map(event).collect()
}

/// Starts the relays with what was left unconsumed.
pub(super) async fn start(engine: &Engine, relays: [Relay; Group::ALL.len()]) -> Result<(), store::Error> {
    for relay in relays {
        let store = engine.shared.store.clone();
        let bus = Arc::clone(&engine.shared.bus);
        let (group, reader) = (relay.group, store.clone());
        let (first, end) = blocking(move || reader.outbox_bounds(group)).await?;
        relay.progress.grow(end, engine.clock());
        engine.spawn_core(async move {
            if let Err(error) = relay.run(first, &store, &bus).await {
                tracing::error!(?group, %error, "the outbox cannot be read");
            }
        });
    }
    Ok(())
}

impl Relay {
    async fn run(mut self, mut next: Sequence, store: &Store, bus: &Bus) -> Result<(), store::Error> {
        loop {
            match self.messages.try_recv() {
                Ok((sequence, _)) if sequence < next => {}
                Ok((sequence, message)) => {
                    next = self.catch_up(next, sequence, store, bus).await?;
                    self.deliver(sequence, message, bus).await;
                    next = next.max(sequence + 1);
                }
                Err(_) => {
                    let end = self.progress.end.load(Ordering::Acquire);
                    if next < end {
                        next = self.catch_up(next, end, store, bus).await?;
                    } else {
                        self.progress.has_delivered(next);
                        // Either wakes it; which one does not matter.
                        let _ = tokio::time::timeout(SAFETY_POLL, self.progress.grown.notified()).await;
                    }
                }
            }
        }
    }

    /// Delivers what is in the outbox from `next` up to, not including, `end`.
    async fn catch_up(
        &self,
        mut next: Sequence,
        end: Sequence,
        store: &Store,
        bus: &Bus,
    ) -> Result<Sequence, store::Error> {
        while next < end {
            let (group, reader, first) = (self.group, store.clone(), next);
            let page = blocking(move || reader.outbox(group, first, end, PAGE)).await?;
            next = page.last().map_or(end, |entry| entry.sequence + 1);
            for entry in page {
                self.deliver(entry.sequence, entry.message, bus).await;
            }
        }
        Ok(next)
    }

    async fn deliver(&self, sequence: Sequence, message: Message, bus: &Bus) {
        crash::reach(Point::PublishDeliver);
        let span = tracing::debug_span!(
            "dispatch",
            group = self.group.name(),
            sequence,
            topic = %message.topic,
            batch = message.key,
            correlation_id = message.headers.as_ref().map(|headers| tracing::field::display(headers.trace_id)),
        );
        if bus.deliver(self.group, sequence, message).instrument(span).await.is_err() {
            // Nobody consumes for this group; its messages wait in the outbox for somebody who does.
            std::future::pending::<()>().await;
        }
        crash::reach(Point::PublishDelivered);
    }
}
