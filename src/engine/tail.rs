//! The newest events, in memory: whoever reads the log at its end needs no disk, and is woken by each commit.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::store::{Event, Sequence};

/// How many events are kept, and how many bytes of them. Readers that are further behind read the store.
const MAX_EVENTS: usize = 1_024;
const MAX_BYTES: usize = 8 * 1_024 * 1_024;

/// The newest events.
pub(super) struct Tail {
    recent: Mutex<Recent>,
    /// The number that the next event will have.
    end: watch::Sender<Sequence>,
}

/// Numbers in here have no holes.
#[derive(Default)]
struct Recent {
    events: VecDeque<Event>,
    bytes: usize,
}

impl Tail {
    pub(super) fn new() -> Self {
        Self { recent: Mutex::default(), end: watch::Sender::new(0) }
    }

    /// The next event will have this number.
    pub(super) fn begin(&self, next: Sequence) {
        self.end.send_replace(next);
    }

    /// Adds events that have become durable, and wakes whoever waits for them. Runs on the committer's thread.
    pub(super) fn extend(&self, events: Vec<Event>) {
        let Some(end) = events.last().map(|event| event.sequence + 1) else { return };
        {
            let mut recent = self.recent();
            for event in events {
                recent.bytes += event.message.body.len();
                recent.events.push_back(event);
                while recent.events.len() > MAX_EVENTS || recent.bytes > MAX_BYTES {
                    let Some(oldest) = recent.events.pop_front() else { break };
                    recent.bytes -= oldest.message.body.len();
                }
            }
        }
        self.end.send_replace(end);
    }

    /// Events from the number `first` on, at most `limit`, and no more once they have `bytes`; none where the first is
    /// not here.
    pub(super) fn from(&self, first: Sequence, limit: usize, bytes: usize) -> Option<Vec<Event>> {
        let recent = self.recent();
        let oldest = recent.events.front()?.sequence;
        let skipped = usize::try_from(first.checked_sub(oldest)?).ok()?;
        let mut size = 0;
        let fits = |event: &&Event| {
            let is_first_or_fits = size < bytes;
            size += event.message.body.len();
            is_first_or_fits
        };
        let found: Vec<_> = recent.events.iter().skip(skipped).take(limit).take_while(fits).cloned().collect();
        Some(found).filter(|found| !found.is_empty())
    }

    /// The number that the next event will have, now and from now on.
    pub(super) fn end(&self) -> watch::Receiver<Sequence> {
        self.end.subscribe()
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Message, Topic};

    fn event(sequence: Sequence, size: usize) -> Event {
        let body = vec![b'x'; size].into();
        Event { sequence, message: Message { topic: Topic::PipelineDenied, key: String::new(), headers: None, body } }
    }

    fn numbers(found: Option<Vec<Event>>) -> Option<Vec<Sequence>> {
        found.map(|events| events.into_iter().map(|event| event.sequence).collect())
    }

    #[test]
    fn it_has_the_newest_and_says_where_it_does_not_reach() {
        let tail = Tail::new();
        tail.begin(5);
        let mut end = tail.end();
        assert_eq!((*end.borrow_and_update(), numbers(tail.from(5, 9, 9))), (5, None));
        tail.extend((5..9).map(|number| event(number, 2)).collect());
        assert!(end.has_changed().expect("it is there"));
        assert_eq!(*end.borrow_and_update(), 9);
        assert_eq!(numbers(tail.from(4, 9, 99)), None);
        assert_eq!(numbers(tail.from(6, 9, 99)), Some(vec![6, 7, 8]));
        assert_eq!(numbers(tail.from(5, 2, 99)), Some(vec![5, 6]));
        assert_eq!(numbers(tail.from(5, 9, 3)), Some(vec![5, 6]));
        assert_eq!(numbers(tail.from(9, 9, 99)), None);
    }

    #[test]
    fn it_is_bounded_by_count_and_by_bytes() {
        let tail = Tail::new();
        let many = u64::try_from(MAX_EVENTS).expect("a number") + 3;
        tail.extend((1..=many).map(|number| event(number, 1)).collect());
        assert_eq!((numbers(tail.from(3, 1, 1)), numbers(tail.from(4, 1, 1))), (None, Some(vec![4])));
        tail.extend(vec![event(many + 1, MAX_BYTES)]);
        assert_eq!(numbers(tail.from(many + 1, 9, 1)), Some(vec![many + 1]));
        assert_eq!(numbers(tail.from(many, 9, 1)), None);
        tail.extend(vec![event(many + 2, MAX_BYTES + 1)]);
        assert_eq!(numbers(tail.from(many + 2, 9, 1)), None, "one that is too large is not kept at all");
    }
}
