//! The ledgers of a batch: for each phase its attempts that have ended, by number.
//!
//! The database keeps something in memory for each of its pages, and a page has few keys; so eight attempts share one, in
//! the order of their numbers: 1 to 8, 9 to 16, and so on, under the key of the first. A commit says which attempt is
//! added, and the [committer](super::committer), the only writer, adds it to what its eight have by then: a ledger only
//! ever grows, so whoever reads it meanwhile misses nothing.
//!
//! What does not fit lies under a key of its own, and so do the attempts behind it up to the next eight. Stores of before
//! have each attempt alone, or eight of them under the key of the last.
//!
//! Once 64 attempts of a phase have eight behind them, they are put away into a [volume] elsewhere in the database: few ask
//! for them, there is no end to them, and what lies beside a batch is read with it.

mod volume;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::layers::Tree;
use super::read::failed;
use super::stored::{StoredAttempt, StoredAttempts};
use super::{Commit, Error, Store, codec, keys};
use crate::domain::{Attempt, Batch, BatchId, Phase, PhaseRecord};

/// How many attempts share a value.
const TOGETHER: u32 = 8;

/// How many attempts are put away at once.
const IN_VOLUME: u32 = 64;

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
    /// The attempt whose key is this behind its letter.
    pub(super) fn under(behind_letter: &[u8], stored: Vec<u8>) -> Result<Self, Error> {
        let (batch, phase, number) = keys::place_in_ledger(behind_letter)?;
        Ok(Self { batch, phase, number, stored })
    }

    /// The number of the first that shares a value with it.
    const fn first(&self) -> u32 {
        first_of(TOGETHER, self.number)
    }

    /// The number of the first of those that are put away, where it is the last of the eight behind them.
    const fn first_to_put_away(&self) -> Option<u32> {
        let is_last = self.number > IN_VOLUME && self.number % IN_VOLUME == TOGETHER;
        if is_last { Some(self.number - TOGETHER - IN_VOLUME + 1) } else { None }
    }
}

/// The first of the `many` neighbours that `number` is one of.
const fn first_of(many: u32, number: u32) -> u32 {
    number.saturating_sub(1) / many * many + 1
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

/// What is written and removed so that these attempts are added, in order.
pub(super) fn added<'a>(tree: &Tree, attempts: impl Iterator<Item = &'a Ended>) -> Result<Changes, Error> {
    let mut ledger = Changed { tree, changes: HashMap::new() };
    for ended in attempts {
        ledger.add(ended)?;
        if let Some(first) = ended.first_to_put_away() {
            ledger.put_away(ended.batch, ended.phase, first)?;
        }
    }
    Ok(ledger.changes)
}

/// Values by their keys; none where there is no such key any more.
type Changes = HashMap<Vec<u8>, Option<Vec<u8>>>;

/// Ledgers, with what changes in them.
struct Changed<'a> {
    tree: &'a Tree,
    changes: Changes,
}

impl Changed<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self.changes.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => Ok(self.tree.get(key).map_err(failed)?.map(|value| value.to_vec())),
        }
    }

    fn add(&mut self, ended: &Ended) -> Result<(), Error> {
        let Ended { batch, phase, number, stored } = ended;
        let key = keys::attempt(*batch, *phase, ended.first());
        let longer = match number.saturating_sub(ended.first()) {
            0 => None,
            before => self.get(&key)?.and_then(|open| with(&open, before, stored)),
        };
        match longer {
            Some(longer) => self.changes.insert(key, Some(longer)),
            None => self.changes.insert(keys::attempt(*batch, *phase, *number), Some(stored.clone())),
        };
        Ok(())
    }

    /// Eights of which some are alone, or missing, stay where they are.
    fn put_away(&mut self, batch: BatchId, phase: Phase, first: u32) -> Result<(), Error> {
        let count = |value: &[u8]| codec::count::<StoredAttempts>(value).map(u32::from);
        let mut eights = Vec::new();
        for first in (first..first + IN_VOLUME).step_by(TOGETHER as usize) {
            let key = keys::attempt(batch, phase, first);
            if let Some(value) = self.get(&key)?.filter(|value| count(value) == Some(TOGETHER)) {
                eights.push(Eight { first, value });
                self.changes.insert(key, None);
            }
        }
        for (first, volume) in volume::volumes(&eights) {
            self.changes.insert(keys::volume(batch, phase, first), Some(volume));
        }
        Ok(())
    }
}

/// Eight attempts that share a value.
struct Eight {
    /// The number of the first.
    first: u32,
    value: Vec<u8>,
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
        ledger: (BatchId, Phase),
        numbers: &RangeInclusive<u32>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Attempt>, Error> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let (batch, phase) = ledger;
        // What is put away while this reads is here before it is there.
        let first = first_of(TOGETHER, *numbers.start());
        let range = keys::attempt(batch, phase, first)..=keys::attempt(batch, phase, *numbers.end());
        let mut read = self.some_of(range, decode_attempts, numbers, order, limit)?;
        if is_all(&read, numbers, order, limit) {
            return Ok(read);
        }
        let first = first_of(IN_VOLUME, *numbers.start());
        let range = keys::volume(batch, phase, first)..=keys::volume(batch, phase, *numbers.end());
        read.append(&mut self.some_of(range, decode_volume, numbers, order, limit)?);
        match order {
            Order::OldestFirst => read.sort_by_key(|attempt| attempt.number),
            Order::NewestFirst => read.sort_by_key(|attempt| Reverse(attempt.number)),
        }
        read.dedup_by_key(|attempt| attempt.number);
        read.truncate(limit);
        Ok(read)
    }

    /// The attempts of these numbers that lie under keys of this range, at most `limit`. The first of them may lie under
    /// an earlier key, with others. None lies under a later one: in stores of before the newest are alone.
    fn some_of(
        &self,
        range: RangeInclusive<Vec<u8>>,
        decode: impl Fn(&[u8]) -> Result<Vec<Attempt>, Error>,
        numbers: &RangeInclusive<u32>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Attempt>, Error> {
        let mut values = self.shared.state.range(range).values();
        let mut read: Vec<Attempt> = Vec::new();
        while read.len() < limit {
            let next = match order {
                Order::OldestFirst => values.next(),
                Order::NewestFirst => values.next_back(),
            };
            let Some(value) = next else { break };
            let mut some = decode(&value.map_err(failed)?)?;
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

/// Whether these are all that are asked for, without a hole.
fn is_all(read: &[Attempt], numbers: &RangeInclusive<u32>, order: Order, limit: usize) -> bool {
    let mut found = read.iter().map(|attempt| attempt.number);
    match order {
        Order::OldestFirst => numbers.clone().take(limit).eq(found),
        Order::NewestFirst => numbers.clone().rev().take(limit).all(|number| found.next() == Some(number)),
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

/// The attempts of a volume, by number, as they are stored.
pub(super) fn stored_volume(value: &[u8]) -> Result<Vec<StoredAttempt>, Error> {
    let mut all = Vec::new();
    for eight in volume::eights(value)? {
        all.append(&mut stored_attempts(&eight)?);
    }
    Ok(all)
}

/// The same, decoded.
pub(super) fn decode_volume(value: &[u8]) -> Result<Vec<Attempt>, Error> {
    stored_volume(value)?.into_iter().map(StoredAttempt::into_attempt).collect()
}
