//! Everything that becomes true at once: a step's record, what follows from it, and what caused it.
//!
//! A [`Commit`] is encoded on the thread that makes it; the [committer](super::committer) writes it.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use sled::IVec;

use super::credits::Difference;
use super::keys::Aged;
use super::ledger::Ended;
use super::stored::{StoredAnswer, StoredBatch, StoredDetails, StoredEssay, StoredLate, StoredMessage, StoredResult};
use super::{Error, Sequence, codec, keys};
use crate::contract::idempotency::Key;
use crate::contract::{Group, Message};
use crate::domain::{Batch, BatchId, Facet, LateOutcome, Millis, Phase, Timer};

/// A message on its way out.
pub(super) struct Outgoing {
    /// The group that has to consume it.
    pub(super) group: Option<Group>,
    pub(super) stored: IVec,
    pub(super) message: Message,
    /// Whether it is an event of its own, and so goes to the log: not one that only comes again, or for a second group.
    pub(super) is_event: bool,
}

/// Everything that becomes true at once.
#[derive(Default)]
pub struct Commit {
    /// As they are written, so that the committer, of which there is one, has nothing to copy.
    pub(super) writes: Vec<(IVec, Option<IVec>)>,
    pub(super) contents: Vec<([u8; 32], Vec<u8>)>,
    pub(super) messages: Vec<Outgoing>,
    pub(super) expired: Vec<(Vec<u8>, Vec<u8>, Millis)>,
    /// What goes where its entry among the ages is still there.
    pub(super) aged: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
    /// Texts that go where nobody refers to them any more.
    pub(super) forgotten: Vec<[u8; 32]>,
    /// Attempts that are added to ledgers.
    pub(super) attempts: Vec<Ended>,
    /// By how much balances change, by their keys.
    pub(super) credits: Vec<(Vec<u8>, Difference)>,
}

impl Commit {
    /// A commit of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { writes, contents, messages, expired, aged, forgotten, attempts, credits } = self;
        let has_writes = !writes.is_empty() || !contents.is_empty() || !messages.is_empty();
        let has_changes = !attempts.is_empty() || !credits.is_empty();
        !has_writes && !has_changes && expired.is_empty() && aged.is_empty() && forgotten.is_empty()
    }

    pub(super) fn into_writes(self) -> Vec<(IVec, Option<IVec>)> {
        self.writes
    }

    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.push((key.into(), Some(value.into())));
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.writes.push((key.into(), None));
    }

    /// Adds `other` behind what is there.
    pub fn append(&mut self, mut other: Self) {
        self.writes.append(&mut other.writes);
        self.contents.append(&mut other.contents);
        self.messages.append(&mut other.messages);
        self.expired.append(&mut other.expired);
        self.aged.append(&mut other.aged);
        self.forgotten.append(&mut other.forgotten);
        self.attempts.append(&mut other.attempts);
        self.credits.append(&mut other.credits);
    }

    /// Writes the parts of `new` that it does not share with `old`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a part cannot be encoded.
    pub fn put_batch(&mut self, old: Option<&Batch>, new: &Batch) -> Result<(), Error> {
        self.put(keys::batch(new.id), codec::encode(&StoredBatch::of(new))?);
        if old.is_none_or(|old| !Arc::ptr_eq(&old.details, &new.details)) {
            self.put(keys::details(new.id), codec::encode_newest(&StoredDetails::of(&new.details)?)?);
        }
        if old.is_none_or(|old| !Arc::ptr_eq(&old.essays, &new.essays)) {
            let essays: Vec<_> = new.essays.iter().map(StoredEssay::of).collect();
            self.put(keys::essays(new.id), codec::encode(&essays)?);
        }
        for phase in Phase::ALL {
            let Some(record) = new.phase(phase) else { continue };
            let before = old.and_then(|old| old.phase(phase));
            if before.is_none_or(|before| !Arc::ptr_eq(&before.results, &record.results)) {
                let results = record.results.iter().map(StoredResult::of).collect::<Result<Vec<_>, _>>()?;
                self.put(keys::results(new.id, phase), codec::encode(&results)?);
            }
        }
        self.index(old, new);
        Ok(())
    }

    /// Everything besides the record that follows from it.
    pub(super) fn index(&mut self, old: Option<&Batch>, new: &Batch) {
        self.list(old, new);
        self.refer(old, new);
        self.age(Aged::Batch(new.id), old.and_then(Batch::rests_since), new.rests_since());
    }

    /// Lists the batch under what has become true of it, and no longer under what has not.
    fn list(&mut self, old: Option<&Batch>, new: &Batch) {
        let (owner, registered_at) = (&new.details.user_id, new.details.registered_at);
        let key = |facet: Facet| keys::listed(keys::listing(owner, facet), registered_at, new.id);
        let (before, after) = (old.map(Batch::facets).unwrap_or_default(), new.facets());
        for facet in before.iter().filter(|facet| !after.contains(facet)) {
            self.delete(key(*facet));
        }
        for facet in after.iter().filter(|facet| !before.contains(facet)) {
            self.put(key(*facet), Vec::new());
        }
    }

    /// Names the batch as one that refers to the texts that it did not refer to before.
    fn refer(&mut self, old: Option<&Batch>, new: &Batch) {
        let is_same = |old: &Batch, phase| match (old.phase(phase), new.phase(phase)) {
            (Some(old), Some(new)) => Arc::ptr_eq(&old.results, &new.results),
            (old, new) => old.is_none() && new.is_none(),
        };
        if old.is_some_and(|old| {
            Arc::ptr_eq(&old.essays, &new.essays) && Phase::ALL.into_iter().all(|phase| is_same(old, phase))
        }) {
            return;
        }
        for place in 0..new.essays.len() {
            let mut named: Vec<&str> = old.into_iter().flat_map(|old| old.storage_ids(place)).collect();
            for storage_id in new.storage_ids(place) {
                if !named.contains(&storage_id) {
                    named.push(storage_id);
                    self.refer_to(storage_id, new.id);
                }
            }
        }
    }

    /// Names `batch` as one that refers to a text, where that lies here.
    pub fn refer_to(&mut self, storage_id: &str, batch: BatchId) {
        if let Some(hash) = keys::hash_of(storage_id) {
            self.put(keys::reference(&hash, batch), Vec::new());
        }
    }

    /// Notes since when something may be removed once it is old.
    pub(super) fn age(&mut self, aged: Aged, before: Option<Millis>, since: Option<Millis>) {
        if before == since {
            return;
        }
        if let Some(before) = before {
            self.delete(keys::age(before, aged));
        }
        if let Some(since) = since {
            self.put(keys::age(since, aged), Vec::new());
        }
    }

    /// Adds an outcome that came too late to the record.
    ///
    /// # Errors
    /// As [`Commit::put_batch`].
    pub fn record_late(
        &mut self,
        batch: BatchId,
        phase: Phase,
        message: &Key,
        late: &LateOutcome,
    ) -> Result<(), Error> {
        self.put(keys::late_outcome(batch, phase, late.at, message), codec::encode(&StoredLate::of(late))?);
        Ok(())
    }

    /// Puts `message` into the outbox of every group that gets its topic.
    ///
    /// # Errors
    /// As [`Commit::put_batch`].
    pub fn publish(&mut self, message: Message) -> Result<(), Error> {
        let Some((first, others)) = Group::of(message.topic).split_first() else { return self.announce(message) };
        self.send(Some(*first), message.clone(), true)?;
        others.iter().try_for_each(|group| self.publish_to(*group, message.clone()))
    }

    /// Shows `message` to whoever watches or reads the log, and gives it to no group.
    ///
    /// # Errors
    /// As [`Commit::put_batch`].
    pub fn announce(&mut self, message: Message) -> Result<(), Error> {
        self.send(None, message, true)
    }

    /// Puts `message` into the outbox of `group` alone. It is no event of its own.
    ///
    /// # Errors
    /// As [`Commit::put_batch`].
    pub fn publish_to(&mut self, group: Group, message: Message) -> Result<(), Error> {
        self.send(Some(group), message, false)
    }

    fn send(&mut self, group: Option<Group>, message: Message, is_event: bool) -> Result<(), Error> {
        let stored = codec::encode_sized(message.body.len(), &StoredMessage::of(&message))?.into();
        self.messages.push(Outgoing { group, stored, message, is_event });
        Ok(())
    }

    /// Takes a message out of the outbox: its group is done with it.
    pub fn consume(&mut self, group: Group, sequence: Sequence) {
        self.delete(keys::outbox(group, sequence));
    }

    /// Marks the message `key` as handled by `group` until `expires`.
    pub fn complete_key(&mut self, group: Group, key: &Key, expires: Millis) {
        self.complete_under(keys::idempotency(group, key), expires);
    }

    pub(super) fn complete_under(&mut self, key: Vec<u8>, expires: Millis) {
        self.put(keys::expiry(expires, &key), Vec::new());
        self.put(key, expires.0.to_be_bytes().to_vec());
    }

    /// Forgets that `group` handled the message `key`, which it would have until `expires`.
    pub fn free_key(&mut self, group: Group, key: &Key, expires: Millis) {
        let key = keys::idempotency(group, key);
        self.delete(keys::expiry(expires, &key));
        self.delete(key);
    }

    /// Keeps the answer to a request until `expires`, for a repetition of it.
    ///
    /// # Errors
    /// As [`Commit::put_batch`].
    pub fn keep_answer(&mut self, hash: &[u8; 32], answer: &StoredAnswer, expires: Millis) -> Result<(), Error> {
        let key = keys::answer(hash);
        let mut value = expires.0.to_be_bytes().to_vec();
        value.append(&mut codec::encode(answer)?);
        self.put(keys::expiry(expires, &key), Vec::new());
        self.put(key, value);
        Ok(())
    }

    /// Removes a key that [`Store::expired_keys`](super::Store::expired_keys) found.
    pub fn remove_expired(&mut self, expired: super::read::ExpiredKey) {
        self.expired.push((expired.index_key, expired.key, expired.expires));
    }

    /// Wakes `batch` at a time.
    pub fn arm_timer(&mut self, batch: BatchId, timer: Timer) {
        self.put(keys::timer(batch, timer), Vec::new());
    }

    /// Does not.
    pub fn disarm_timer(&mut self, batch: BatchId, timer: Timer) {
        self.delete(keys::timer(batch, timer));
    }

    /// Stores a text. Its storage id is the SHA-256 of its bytes in hex, so the same text is stored once.
    pub fn put_content(&mut self, text: &str) {
        self.contents.push((Sha256::digest(text.as_bytes()).into(), text.as_bytes().to_vec()));
    }
}
