//! Point reads and ordered ranges. All of them block.

use super::layers::Tree;
use super::stored::{StoredAnswer, StoredBatch, StoredDetails, StoredEssay, StoredLate, StoredMessage, StoredResult};
use super::{Error, Sequence, Store, codec, keys};
use crate::contract::idempotency::Key;
use crate::contract::{Group, Message};
use crate::domain::{Batch, BatchId, LateOutcome, Millis, Phase, Timer};

/// A message that its group has not consumed.
#[derive(Debug, Clone)]
pub struct OutboxEntry {
    /// Its number in the outbox of its group.
    pub sequence: Sequence,
    /// The message.
    pub message: Message,
}

/// A timer of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerEntry {
    /// The batch to wake.
    pub batch: BatchId,
    /// When, and why.
    pub timer: Timer,
}

/// An idempotency key whose time is over.
#[derive(Debug)]
pub struct ExpiredKey {
    pub(super) index_key: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) expires: Millis,
}

/// How often is read again what its owner has changed meanwhile. A step takes longer than a reading.
const MAX_READINGS: usize = 8;

impl Store {
    /// The record of `id`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where it cannot be decoded, [`Error::Failed`] where it cannot be read.
    pub fn batch(&self, id: BatchId) -> Result<Option<Batch>, Error> {
        batch(&self.shared.state, id)
    }

    /// As [`Store::batch`], for whoever does not own the batch: its owner may write it meanwhile, and then the parts are
    /// read again.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn batch_of_another(&self, id: BatchId) -> Result<Option<Batch>, Error> {
        let version = || self.shared.state.get(keys::batch(id)).map_err(failed);
        let mut before = version()?;
        for _ in 0..MAX_READINGS {
            let read = batch(&self.shared.state, id);
            let after = version()?;
            if after == before {
                return read;
            }
            before = after;
        }
        batch(&self.shared.state, id)
    }

    /// Outcomes of `phase` that came too late, the newest first, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn late_outcomes(&self, id: BatchId, phase: Phase, limit: usize) -> Result<Vec<LateOutcome>, Error> {
        let late = self.shared.state.scan_prefix(keys::late_outcomes(id, phase)).values().rev().take(limit);
        late.map(|value| codec::decode::<StoredLate>(&value.map_err(failed)?)?.into_late()).collect()
    }

    /// The text whose SHA-256 is `hash`.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn content(&self, hash: &[u8; 32]) -> Result<Option<String>, Error> {
        let mut parts = self.shared.contents.scan_prefix(hash).values().peekable();
        if parts.peek().is_none() {
            return Ok(None);
        }
        let mut text = Vec::new();
        for part in parts {
            text.extend_from_slice(&part.map_err(failed)?);
        }
        String::from_utf8(text).map(Some).map_err(|error| Error::Corrupt(error.to_string()))
    }

    /// Until when `group` counts the message `key` as handled; none where it never handled it.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn key_expiry(&self, group: Group, key: &Key) -> Result<Option<Millis>, Error> {
        self.expiry_under(&keys::idempotency(group, key))
    }

    pub(super) fn expiry_under(&self, key: &[u8]) -> Result<Option<Millis>, Error> {
        let value = self.shared.state.get(key).map_err(failed)?;
        let Some(value) = value else { return Ok(None) };
        let bytes = value.as_ref().try_into().map_err(|_| Error::Corrupt("an idempotency key's expiry".to_owned()))?;
        Ok(Some(Millis(u64::from_be_bytes(bytes))))
    }

    /// The answer to the request whose key has this hash, if it is kept and has not expired at `now`.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn answer(&self, hash: &[u8; 32], now: Millis) -> Result<Option<StoredAnswer>, Error> {
        let Some(value) = self.shared.state.get(keys::answer(hash)).map_err(failed)? else { return Ok(None) };
        let (expires, answer) =
            value.split_first_chunk().ok_or_else(|| Error::Corrupt("an answer without its expiry".to_owned()))?;
        if u64::from_be_bytes(*expires) <= now.0 { Ok(None) } else { codec::decode(answer).map(Some) }
    }

    /// Keys that expired at `now` or before, the earliest first, at most `limit`. Reads no key that has not expired,
    /// except the one that ends the walk.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn expired_keys(&self, now: Millis, limit: usize) -> Result<Vec<ExpiredKey>, Error> {
        let mut found = Vec::new();
        for index_key in self.shared.state.scan_prefix(keys::EXPIRIES).keys().take(limit) {
            let index_key = index_key.map_err(failed)?.to_vec();
            let (expires, key) = keys::expired(&index_key)?;
            if expires > now {
                break;
            }
            found.push(ExpiredKey { index_key, key, expires });
        }
        Ok(found)
    }

    /// Messages that `group` has not consumed, from the number `first` up to, not including, `end`, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn outbox(
        &self,
        group: Group,
        first: Sequence,
        end: Sequence,
        limit: usize,
    ) -> Result<Vec<OutboxEntry>, Error> {
        let entries = self.shared.state.range(keys::outbox(group, first)..keys::outbox(group, end));
        let entry = |pair: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = pair.map_err(failed)?;
            let message = codec::decode::<StoredMessage>(&value)?.into_message()?;
            Ok(OutboxEntry { sequence: keys::sequence_of(&key)?, message })
        };
        entries.take(limit).map(entry).collect()
    }

    /// Whether `group` has not consumed the message of this number.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn is_in_outbox(&self, group: Group, sequence: Sequence) -> Result<bool, Error> {
        self.shared.state.contains_key(keys::outbox(group, sequence)).map_err(failed)
    }

    /// The number of the oldest message that `group` has not consumed, and that of the next one to come.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn outbox_bounds(&self, group: Group) -> Result<(Sequence, Sequence), Error> {
        let next = next_sequence(&self.shared.state, group)?;
        let first = self.shared.state.scan_prefix(keys::outbox_of(group)).keys().next();
        let first = first.map(|key| keys::sequence_of(&key.map_err(failed)?)).transpose()?;
        Ok((first.unwrap_or(next), next))
    }

    /// How many messages `group` has not consumed, and the oldest of them. Up to `limit` are counted; past that the
    /// numbers between the last that was and the newest are taken for messages.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn backlog(&self, group: Group, limit: usize) -> Result<(u64, Option<OutboxEntry>), Error> {
        let oldest = self.outbox(group, 0, Sequence::MAX, 1)?.pop();
        let (mut count, mut last) = (0, None);
        for key in self.shared.state.scan_prefix(keys::outbox_of(group)).keys().take(limit) {
            (count, last) = (count + 1, Some(keys::sequence_of(&key.map_err(failed)?)?));
        }
        if let Some(last) = last.filter(|_| usize::try_from(count) == Ok(limit)) {
            count += next_sequence(&self.shared.state, group)?.saturating_sub(last + 1);
        }
        Ok((count, oldest))
    }

    /// Timers by when they are due, the earliest first, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn timers(&self, limit: usize) -> Result<Vec<TimerEntry>, Error> {
        let keys = self.shared.state.scan_prefix(keys::TIMERS).keys().take(limit);
        keys.map(|key| {
            let (batch, timer) = keys::timer_of(&key.map_err(failed)?)?;
            Ok(TimerEntry { batch, timer })
        })
        .collect()
    }
}

/// The record of `id`.
pub(super) fn batch(tree: &Tree, id: BatchId) -> Result<Option<Batch>, Error> {
    let Some(small) = get::<StoredBatch>(tree, &keys::batch(id))? else { return Ok(None) };
    let mut results: [Vec<StoredResult>; 4] = Default::default();
    for phase in small.phases() {
        results[phase.index()] = require(tree, &keys::results(id, phase))?;
    }
    let details = tree.get(keys::details(id)).map_err(failed)?.ok_or_else(part_is_missing)?;
    let details: StoredDetails = codec::decode_any(&details)?;
    let essays: Vec<StoredEssay> = require(tree, &keys::essays(id))?;
    small.into_batch(id, details, essays, results).map(Some)
}

fn get<T: serde::de::DeserializeOwned>(tree: &Tree, key: &[u8]) -> Result<Option<T>, Error> {
    tree.get(key).map_err(failed)?.map(|value| codec::decode(&value)).transpose()
}

fn require<T: serde::de::DeserializeOwned>(tree: &Tree, key: &[u8]) -> Result<T, Error> {
    get(tree, key)?.ok_or_else(part_is_missing)
}

fn part_is_missing() -> Error {
    Error::Corrupt("a part of a batch's record is missing".to_owned())
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where map_err wants a function of the error")]
pub(super) fn failed(error: sled::Error) -> Error {
    Error::Failed(error.to_string().into())
}

/// The next sequence of each group, in the order of [`Group::ALL`]. A group whose outbox is empty starts anew; nothing
/// refers to a number longer than the process lives.
pub(super) fn next_sequences(tree: &Tree) -> Result<[Sequence; Group::ALL.len()], Error> {
    let mut next = [0; Group::ALL.len()];
    for group in Group::ALL {
        next[group as usize] = next_sequence(tree, group)?;
    }
    Ok(next)
}

fn next_sequence(tree: &Tree, group: Group) -> Result<Sequence, Error> {
    let last = tree.scan_prefix(keys::outbox_of(group)).keys().next_back();
    Ok(match last {
        Some(key) => keys::sequence_of(&key.map_err(failed)?)? + 1,
        None => 0,
    })
}
