//! The ledgers of a batch: for each phase its attempts that have ended, by number.
//!
//! The database keeps something in memory for each of its pages, and a page has few keys; so eight attempts share one, in
//! the order of their numbers: 1 to 8, 9 to 16, and so on, under the key of the first. A commit says which attempt is
//! added, and the [committer](super::committer), the only writer, adds it to what its eight have by then: a ledger only
//! ever grows, so whoever reads it meanwhile misses nothing.
//!
//! What does not fit lies under a key of its own, and so do the attempts behind it up to the next eight. Stores of before
//! have each attempt alone, or eight of them under the key of the last.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::layers::Tree;
use super::read::failed;
use super::stored::{StoredAttempt, StoredAttempts};
use super::{Commit, Error, Store, codec, keys};
use crate::domain::{Attempt, Batch, BatchId, Phase, PhaseRecord};

/// How many attempts share a value.
const TOGETHER: u32 = 8;

/// How many bytes attempts may have that share a value: pages of such values stay below the size from which the database
/// would put them into files of their own.
const MAX_TOGETHER_BYTES: usize = 4_096;

/// An attempt that has ended, on its way into the ledger.
pub(super) struct Ended {
    batch: BatchId,
    phase: Phase,
    number: u32,
    stored: Vec<u8>,
}

impl Ended {
    /// The number of the first that shares a value with it.
    const fn first(&self) -> u32 {
        first_of_its_eight(self.number)
    }
}

const fn first_of_its_eight(number: u32) -> u32 {
    number.saturating_sub(1) / TOGETHER * TOGETHER + 1
}

/// From which end a ledger is read.
#[derive(Clone, Copy)]
enum Order {
    OldestFirst,
    NewestFirst,
}

impl Commit {
    /// Adds an attempt that has ended to the ledger.
    ///
    /// # Errors
    /// As [`Commit::put_batch`].
    pub fn record_attempt(&mut self, batch: BatchId, phase: Phase, attempt: &Attempt) -> Result<(), Error> {
        let stored = codec::encode(&StoredAttempt::of(attempt))?;
        self.attempts.push(Ended { batch, phase, number: attempt.number, stored });
        Ok(())
    }
}

/// What lies where once these attempts are added, in order.
pub(super) fn added<'a>(
    tree: &Tree,
    attempts: impl Iterator<Item = &'a Ended>,
) -> Result<HashMap<Vec<u8>, Vec<u8>>, Error> {
    let mut values: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    for ended in attempts {
        let Ended { batch, phase, number, stored } = ended;
        let key = keys::attempt(*batch, *phase, ended.first());
        let before = number.saturating_sub(ended.first());
        let longer = match values.get(&key) {
            _ if before == 0 => None,
            Some(open) => with(open, before, stored),
            None => tree.get(&key).map_err(failed)?.and_then(|open| with(&open, before, stored)),
        };
        match longer {
            Some(longer) => values.insert(key, longer),
            None => values.insert(keys::attempt(*batch, *phase, *number), stored.clone()),
        };
    }
    Ok(values)
}

/// What `open` is with one attempt more; none where it does not have all that come before it, or no room.
fn with(open: &[u8], before: u32, attempt: &[u8]) -> Option<Vec<u8>> {
    let longer = codec::append::<StoredAttempts>(open, before.try_into().ok()?, attempt)?;
    (longer.len() <= MAX_TOGETHER_BYTES).then_some(longer)
}

impl Store {
    /// Attempts of `phase` that had ended by the time of `batch`, the newest first, at most `limit`. More may have since.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn newest_attempts(&self, batch: &Batch, phase: Phase, limit: usize) -> Result<Vec<Attempt>, Error> {
        let last = batch.phase(phase).map_or(0, PhaseRecord::ended_attempts);
        self.ledger((batch.id, phase), &(1..=last), Order::NewestFirst, limit)
    }

    /// The same, oldest first, from the number `first` on.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn attempts_from(&self, batch: &Batch, phase: Phase, first: u32, limit: usize) -> Result<Vec<Attempt>, Error> {
        let last = batch.phase(phase).map_or(0, PhaseRecord::ended_attempts);
        self.ledger((batch.id, phase), &(first.max(1)..=last), Order::OldestFirst, limit)
    }

    /// The attempts of these numbers, at most `limit`.
    fn ledger(
        &self,
        (batch, phase): (BatchId, Phase),
        numbers: &RangeInclusive<u32>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Attempt>, Error> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        // The first of them may lie under an earlier key. None lies under a later one: in stores of before the newest are
        // alone.
        let first = first_of_its_eight(*numbers.start());
        let range = keys::attempt(batch, phase, first)..=keys::attempt(batch, phase, *numbers.end());
        let mut values = self.shared.state.range(range).values();
        let mut read: Vec<Attempt> = Vec::new();
        while read.len() < limit {
            let next = match order {
                Order::OldestFirst => values.next(),
                Order::NewestFirst => values.next_back(),
            };
            let Some(value) = next else { break };
            let mut some = decode_attempts(&value.map_err(failed)?)?;
            if matches!(order, Order::NewestFirst) {
                some.reverse();
            }
            some.retain(|attempt| numbers.contains(&attempt.number));
            read.append(&mut some);
        }
        read.truncate(limit);
        Ok(read)
    }
}

/// The attempts that lie under one key, by number, as they are stored.
pub(super) fn stored_attempts(value: &[u8]) -> Result<Vec<StoredAttempt>, Error> {
    codec::decode_any::<StoredAttempts>(value).map(|StoredAttempts(attempts)| attempts)
}

/// The same, decoded.
pub(super) fn decode_attempts(value: &[u8]) -> Result<Vec<Attempt>, Error> {
    stored_attempts(value)?.into_iter().map(StoredAttempt::into_attempt).collect()
}
