//! Reading the log of events: from the store what is old, from memory what is new, and nothing left out unsaid.
//!
//! A reader is a place in the log and a filter. Numbers have no holes, so there is no seam between what was stored and
//! what is committed next: a reader always asks for the number behind the last it has seen, wherever that lies.

use std::collections::HashSet;

use tokio::sync::watch;

use super::{Engine, Error, blocking};
use crate::contract::{Message, Topic};
use crate::domain::{BatchId, EventId};
use crate::store::{Event, EventLog, Sequence};

/// How many events are read at once, and after how many bytes of them reading stops.
const PAGE: usize = 64;
const PAGE_BYTES: usize = 256 * 1_024;

/// How many readers may read the store at once. The others wait for their turn.
pub(super) const MAX_LOG_READS: usize = 16;

/// Which events a reader wants. Nothing set is all.
#[derive(Debug, Clone, Default)]
pub struct StreamFilter {
    /// Those of these topics.
    pub topics: Option<HashSet<Topic>>,
    /// Those about this batch.
    pub batch: Option<BatchId>,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Now,
    /// With the oldest event that is retained.
    Oldest,
    /// Behind this event.
    After(EventId),
}

/// What a reader comes to.
#[derive(Debug)]
pub enum Read {
    /// The next events that it wants, in order.
    Events(Vec<(EventId, Message)>),
    /// Events between these two places cannot be read any more. It goes on behind the second.
    Gap {
        /// The last that it knew.
        after: EventId,
        /// Everything up to and with this is gone.
        up_to: EventId,
    },
}

/// Somebody who reads the log.
pub struct EventReader {
    engine: Engine,
    filter: Filter,
    log: EventLog,
    /// The number of the next event to look at.
    next: Sequence,
    /// Where it was, as long as it is not known whether anything is missing since.
    unsure: Unsure,
    end: watch::Receiver<Sequence>,
}

struct Filter {
    topics: Option<HashSet<Topic>>,
    key: Option<String>,
}

#[derive(Clone, Copy)]
enum Unsure {
    No,
    /// It wants whatever is the oldest.
    Anything,
    /// It knows a place that this log does not have.
    Lost(EventId),
}

impl Engine {
    /// Whether published messages are kept in a log of events.
    #[must_use]
    pub fn has_event_log(&self) -> bool {
        self.shared.store.event_log().is_some()
    }

    /// The newest event of the log; none where there is no log. Number 0 is that before the first.
    #[must_use]
    pub fn newest_event(&self) -> Option<EventId> {
        let log = self.shared.store.event_log()?;
        let end = *self.shared.tail.end().borrow();
        Some(EventId { log: log.name, sequence: end.saturating_sub(1) })
    }

    /// The place before the oldest event that is retained; none where there is no log.
    ///
    /// # Errors
    /// [`Error::Overloaded`] and [`Error::Unavailable`].
    pub async fn before_oldest_event(&self) -> Result<Option<EventId>, Error> {
        let Some(log) = self.shared.store.event_log() else { return Ok(None) };
        let (end, store) = (*self.shared.tail.end().borrow(), self.shared.store.clone());
        let oldest = self.read(move || store.events(log.first, end, 1, 1)).await?;
        let sequence = oldest.first().map_or(end, |event| event.sequence).saturating_sub(1);
        Ok(Some(EventId { log: log.name, sequence }))
    }

    /// Reads the log; none where there is no log.
    #[must_use]
    pub fn read_events(&self, filter: StreamFilter, start: Start) -> Option<EventReader> {
        let log = self.shared.store.event_log()?;
        let end = self.shared.tail.end();
        let newest = *end.borrow();
        let (next, unsure) = match start {
            Start::Now => (newest, Unsure::No),
            Start::Oldest => (log.first, Unsure::Anything),
            Start::After(id) if id.log == log.name && (log.first - 1..newest).contains(&id.sequence) => {
                (id.sequence + 1, Unsure::No)
            }
            Start::After(id) => (log.first, Unsure::Lost(id)),
        };
        let filter = Filter { topics: filter.topics, key: filter.batch.map(|batch| batch.to_string()) };
        Some(EventReader { engine: self.clone(), filter, log, next, unsure, end })
    }
}

impl EventReader {
    /// Everything up to and with this was looked at; none as long as it has to be seen where the log begins.
    #[must_use]
    pub const fn position(&self) -> Option<EventId> {
        match self.unsure {
            Unsure::No => Some(self.before()),
            Unsure::Anything | Unsure::Lost(_) => None,
        }
    }

    const fn before(&self) -> EventId {
        self.id(self.next.saturating_sub(1))
    }

    const fn id(&self, sequence: Sequence) -> EventId {
        EventId { log: self.log.name, sequence }
    }

    /// Waits until there is something to tell. Whoever gives up waiting loses nothing.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn next(&mut self) -> Result<Read, Error> {
        loop {
            let end = *self.end.borrow_and_update();
            if self.next >= end {
                if let Unsure::Lost(after) = self.unsure {
                    return Ok(self.gap(after, end));
                }
                self.end.changed().await.map_err(|_| self.engine.unavailable())?;
                continue;
            }
            let page = match self.engine.shared.tail.from(self.next, PAGE, PAGE_BYTES) {
                Some(page) => page,
                None => self.page(end).await?,
            };
            // Where everything was removed, what came meanwhile is next.
            let first = page.first().map_or(end, |event| event.sequence);
            match std::mem::replace(&mut self.unsure, Unsure::No) {
                Unsure::Lost(after) => return Ok(self.gap(after, first)),
                Unsure::Anything => self.next = first,
                Unsure::No if first > self.next => return Ok(self.gap(self.before(), first)),
                Unsure::No => {}
            }
            let found = self.take(page);
            if !found.is_empty() {
                return Ok(Read::Events(found));
            }
        }
    }

    fn gap(&mut self, after: EventId, next: Sequence) -> Read {
        self.unsure = Unsure::No;
        self.next = next;
        Read::Gap { after, up_to: self.before() }
    }

    async fn page(&self, end: Sequence) -> Result<Vec<Event>, Error> {
        let turn = self.engine.shared.log_reads.acquire().await;
        let _turn = turn.map_err(|_| self.engine.unavailable())?;
        let (store, first) = (self.engine.shared.store.clone(), self.next);
        Ok(blocking(move || store.events(first, end, PAGE, PAGE_BYTES)).await?)
    }

    /// The events of a page that are wanted. A page that was read while its beginning was being removed may have a hole;
    /// what is behind it is read again.
    fn take(&mut self, page: Vec<Event>) -> Vec<(EventId, Message)> {
        let mut found = Vec::new();
        for Event { sequence, message } in page {
            if sequence != self.next {
                break;
            }
            self.next += 1;
            if self.filter.wants(&message) {
                found.push((self.id(sequence), message));
            }
        }
        found
    }
}

impl Filter {
    fn wants(&self, message: &Message) -> bool {
        self.topics.as_ref().is_none_or(|topics| topics.contains(&message.topic))
            && self.key.as_ref().is_none_or(|key| *key == message.key)
    }
}
