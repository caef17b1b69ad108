//! The ledgers of a batch: for each phase its attempts that have ended, by number.
//!
//! An attempt is written under a key of its own. The database keeps something in memory for each of its pages, and a page
//! has few keys; so once a phase has many attempts the older ones are put together, eight in one value, under the key
//! of the last of them.

use std::ops::RangeInclusive;

use super::read::{MAX_READINGS, failed};
use super::stored::{StoredAttempt, StoredAttempts};
use super::{Commit, Error, Store, codec, keys};
use crate::domain::{Attempt, Batch, BatchId, Phase, PhaseRecord};

/// How many attempts are put together.
const TOGETHER: u32 = 8;

/// How many bytes attempts may have that are put together: pages of such values stay below the size from which the
/// database would put them into files of their own.
const MAX_TOGETHER_BYTES: usize = 4_096;

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
            // One that is damaged is no obstacle to the step.
            let Ok(attempts) = stored_attempts(&value) else { return Ok(()) };
            together.extend(attempts);
            bytes += value.len();
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

    /// The attempts of these numbers.
    fn ledger(
        &self,
        of: (BatchId, Phase),
        numbers: &RangeInclusive<u32>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Attempt>, Error> {
        let expected: Vec<u32> = match order {
            Order::OldestFirst => numbers.clone().take(limit).collect(),
            Order::NewestFirst => numbers.clone().rev().take(limit).collect(),
        };
        whole(&expected, |attempt: &Attempt| attempt.number, || self.read_ledger(of, numbers, order, limit))
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
            some.retain(|attempt| numbers.contains(&attempt.number));
            read.append(&mut some);
        }
        read.truncate(limit);
        Ok(read)
    }
}

/// What `read` finds, once that has the numbers expected. Attempts may be put together while it reads: from the newest on
/// some seem to be missing then, from the oldest on some are there twice. A ledger in which some are missing is shown as
/// it is.
fn whole<T>(
    expected: &[u32],
    number: impl Fn(&T) -> u32,
    mut read: impl FnMut() -> Result<Vec<T>, Error>,
) -> Result<Vec<T>, Error> {
    let mut found = read()?;
    for _ in 1..MAX_READINGS {
        if found.iter().map(&number).eq(expected.iter().copied()) {
            break;
        }
        found = read()?;
    }
    Ok(found)
}

/// The attempts that lie under one key, by number, as they are stored.
pub(super) fn stored_attempts(value: &[u8]) -> Result<Vec<StoredAttempt>, Error> {
    codec::decode_any::<StoredAttempts>(value).map(|StoredAttempts(attempts)| attempts)
}

/// The same, decoded.
pub(super) fn decode_attempts(value: &[u8]) -> Result<Vec<Attempt>, Error> {
    stored_attempts(value)?.into_iter().map(StoredAttempt::into_attempt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read in the end, where these are read one after the other.
    fn read(expected: &[u32], readings: &[&[u32]]) -> (Vec<u32>, usize) {
        let mut count = 0;
        let found = whole(
            expected,
            |number| *number,
            || {
                let reading = readings[count.min(readings.len() - 1)];
                count += 1;
                Ok(reading.to_vec())
            },
        );
        (found.expect("nothing fails"), count)
    }

    #[test]
    fn what_was_put_together_meanwhile_is_read_again() {
        assert_eq!(read(&[1, 2, 3], &[&[1, 2, 3], &[]]), (vec![1, 2, 3], 1));
        assert_eq!(read(&[9, 8, 7, 6], &[&[9, 8], &[9, 8, 7, 6]]), (vec![9, 8, 7, 6], 2));
        // As many as are expected, but others.
        assert_eq!(read(&[9, 8, 7, 6], &[&[9, 8, 5, 4], &[9, 8, 7, 6]]), (vec![9, 8, 7, 6], 2));
        assert_eq!(read(&[1, 2, 3, 4], &[&[1, 2, 1, 2], &[1, 2, 3, 4]]), (vec![1, 2, 3, 4], 2));
        assert_eq!(read(&[1, 2, 3], &[&[1, 3]]), (vec![1, 3], MAX_READINGS), "it is not there");
    }
}
