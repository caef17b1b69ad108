//! Who waits for a batch to come to rest.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Engine, Error, Request};
use crate::contract::BatchClientStatus;
use crate::domain::{Batch, BatchId};

/// How many may wait in one partition. Each holds a connection open; past that a client is told to come back.
const MAX_WAITING: usize = 4_096;

/// The record that rests; none where there is no such batch.
pub(super) type Reply = oneshot::Sender<Result<Option<Arc<Batch>>, Error>>;

/// Those who wait, by batch.
#[derive(Default)]
pub(super) struct Waiting {
    replies: HashMap<BatchId, Vec<Reply>>,
    count: usize,
}

impl Waiting {
    /// Lets somebody wait for `batch`, if there is room.
    pub(super) fn add(&mut self, batch: BatchId, reply: Reply) {
        if self.count >= MAX_WAITING {
            self.forget_those_who_left();
        }
        if self.count >= MAX_WAITING {
            // Whoever asked may have gone away.
            let _ = reply.send(Err(Error::Overloaded));
            return;
        }
        self.count += 1;
        self.replies.entry(batch).or_default().push(reply);
    }

    /// Tells those who wait for `batch`, if that is no longer being processed. Call once that is durable.
    pub(super) fn tell(&mut self, batch: &Arc<Batch>) {
        if !self.replies.is_empty() && rests(batch) {
            for reply in self.replies.remove(&batch.id).unwrap_or_default() {
                self.count -= 1;
                // Whoever asked may have gone away.
                let _ = reply.send(Ok(Some(Arc::clone(batch))));
            }
        }
    }

    fn forget_those_who_left(&mut self) {
        self.replies.retain(|_, replies| {
            replies.retain(|reply| !reply.is_closed());
            !replies.is_empty()
        });
        self.count = self.replies.values().map(Vec::len).sum();
    }
}

/// What came of looking at a record that may be at hand.
enum Wait {
    /// There is nothing to wait for.
    Over(Arc<Batch>),
    Begun,
    /// It is not at hand.
    Unknown(Reply),
}

/// Whether nothing of the batch runs, or is going to by itself.
pub(super) fn rests(batch: &Batch) -> bool {
    batch.status.for_client() != BatchClientStatus::Processing
}

impl Engine {
    /// Waits until `batch` is no longer being processed, and answers with the durable record that says so, whatever has
    /// become of the batch since; none where there is no such batch.
    ///
    /// # Errors
    /// [`Error::Overloaded`] and [`Error::Unavailable`].
    pub async fn rest(&self, batch: BatchId) -> Result<Option<Arc<Batch>>, Error> {
        let (reply, answer) = oneshot::channel();
        match self.wait_at_hand(batch, reply) {
            Wait::Over(record) => return Ok(Some(record)),
            Wait::Begun => {}
            Wait::Unknown(reply) => {
                let partition = self.partition_of(batch.0.as_bytes());
                partition.try_send(Request::Rest { batch, reply }).map_err(|error| self.refused(&error))?;
            }
        }
        answer.await.map_err(|_| self.unavailable())?
    }

    /// Waits for a batch whose record is at hand, without its partition.
    fn wait_at_hand(&self, batch: BatchId, reply: Reply) -> Wait {
        let durable = &self.shared.durable[self.partition_index(batch.0.as_bytes())];
        // Held while it is looked at, so that what becomes durable meanwhile is told after it was added.
        let mut waiting = durable.waiting();
        let record = durable.cache().get(batch);
        match record {
            Some(record) if rests(&record) => Wait::Over(record),
            Some(_) => {
                Waiting::add(&mut waiting, batch, reply);
                Wait::Begun
            }
            None => Wait::Unknown(reply),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn there_is_room_for_so_many_and_those_who_leave_make_some() {
        let mut waiting = Waiting::default();
        let mut wait = |batch: u128| {
            let (reply, answer) = oneshot::channel();
            waiting.add(BatchId(Uuid::from_u128(batch)), reply);
            answer
        };
        let mut answers: Vec<_> = (0..MAX_WAITING as u128).map(|number| wait(number % 100)).collect();
        assert!(matches!(wait(1).try_recv(), Ok(Err(Error::Overloaded))));
        assert!(answers.iter_mut().all(|answer| matches!(answer.try_recv(), Err(TryRecvError::Empty))));
        answers.truncate(MAX_WAITING - 2);
        let [mut first, mut second, mut third] = [200, 201, 202].map(wait);
        assert!([&mut first, &mut second].into_iter().all(|some| matches!(some.try_recv(), Err(TryRecvError::Empty))));
        assert!(matches!(third.try_recv(), Ok(Err(Error::Overloaded))));
    }
}
