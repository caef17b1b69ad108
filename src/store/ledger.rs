//! The ledgers of a batch: for each phase its attempts that have ended, by number.
//!
//! An attempt is written under a key of its own. The database keeps something in memory for each of its pages, and a page
//! has few keys; so once a phase has many attempts the older ones are put together, eight in one value, under the key
//! of the last of them.

use std::ops::RangeInclusive;

use super::read::failed;
use super::stored::{StoredAttempt, StoredAttempts};
use super::{Commit, Error, Store, codec, keys};
use crate::domain::{Attempt, Batch, BatchId, Phase, PhaseRecord};

/// How many attempts are put together.
const TOGETHER: u32 = 8;

/// How many bytes attempts may have that are put together: pages of such values stay below the size from which the
/// database would put them into files of their own.
const MAX_TOGETHER_BYTES: usize = 4_096;

/// How often a ledger is read again in which attempts were put together meanwhile.
const MAX_READINGS: usize = 8;

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
        self.put(keys::attempt(batch, phase, attempt.number), codec::encode(&StoredAttempt::of(attempt))?);
        Ok(())
    }
}

impl Store {
    /// Adds to `commit`, which records the attempt `ended`, that older ones are put together, where it is their turn. Only
    /// the batch's owner may commit that.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn put_attempts_together(
        &self,
        commit: &mut Commit,
        batch: BatchId,
        phase: Phase,
        ended: u32,
    ) -> Result<(), Error> {
        // Not the last eight, of which some may not be durable yet, and which are read most.
        let Some(before) = ended.checked_sub(2 * TOGETHER).filter(|_| ended.is_multiple_of(TOGETHER)) else {
            return Ok(());
        };
        let last = keys::attempt(batch, phase, before + TOGETHER);
        let (mut found, mut bytes, mut together) = (Vec::new(), 0, Vec::new());
        for entry in self.shared.state.range(keys::attempt(batch, phase, before + 1)..=last.clone()) {
            let (key, value) = entry.map_err(failed)?;
            bytes += value.len();
            together.extend(stored_attempts(&value)?);
            found.push(key);
        }
        // What is not all there yet, or too large, stays as it is.
        if u32::try_from(found.len()) != Ok(TOGETHER) || bytes > MAX_TOGETHER_BYTES {
            return Ok(());
        }
        found.into_iter().filter(|key| **key != *last).for_each(|key| commit.delete(key.to_vec()));
        commit.put(last, codec::encode_newest(&StoredAttempts(together))?);
        Ok(())
    }

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

    /// The attempts of these numbers. Some may be put together while this reads, so that others seem to be missing; then
    /// it reads again.
    fn ledger(
        &self,
        of: (BatchId, Phase),
        numbers: &RangeInclusive<u32>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Attempt>, Error> {
        let wanted = numbers.clone().take(limit).count();
        let mut attempts = Vec::new();
        for _ in 0..MAX_READINGS {
            attempts = self.read_ledger(of, numbers, order, limit)?;
            if attempts.len() == wanted {
                break;
            }
        }
        Ok(attempts)
    }

    fn read_ledger(
        &self,
        (batch, phase): (BatchId, Phase),
        numbers: &RangeInclusive<u32>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Attempt>, Error> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        // What has the last of these numbers among others lies under a later one.
        let last = numbers.end().checked_next_multiple_of(TOGETHER).unwrap_or(u32::MAX);
        let range = keys::attempt(batch, phase, *numbers.start())..=keys::attempt(batch, phase, last);
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
            // Nor those that are read a second time, because they were put together in between.
            let is_behind = |number: u32| match (order, read.last()) {
                (Order::OldestFirst, Some(last)) => number > last.number,
                (Order::NewestFirst, Some(last)) => number < last.number,
                (_, None) => true,
            };
            some.retain(|attempt| numbers.contains(&attempt.number) && is_behind(attempt.number));
            read.append(&mut some);
        }
        read.truncate(limit);
        Ok(read)
    }
}

fn stored_attempts(value: &[u8]) -> Result<Vec<StoredAttempt>, Error> {
    codec::decode_any::<StoredAttempts>(value).map(|StoredAttempts(attempts)| attempts)
}

/// The attempts that lie under one key, by number.
pub(super) fn decode_attempts(value: &[u8]) -> Result<Vec<Attempt>, Error> {
    stored_attempts(value)?.into_iter().map(StoredAttempt::into_attempt).collect()
}

/// A key and its value.
type Entry = (Vec<u8>, Vec<u8>);

/// The attempts that lie under `key`, each under the key that it had alone.
pub(super) fn apart(key: &[u8], value: &[u8]) -> Result<Vec<Entry>, Error> {
    let ledger = &key[..key.len().saturating_sub(size_of::<u32>())];
    let alone =
        |attempt: StoredAttempt| Ok(([ledger, &attempt.number().to_be_bytes()].concat(), codec::encode(&attempt)?));
    stored_attempts(value)?.into_iter().map(alone).collect()
}
