//! One step is one atomic commit; many commits share one flush.
//!
//! A [`Commit`] is encoded on the thread that makes it. The committer takes all that wait, writes them as one batch (so
//! a crash leaves all of them or none), flushes, makes the flush durable, tells the feed, and only then answers. After
//! the first failure nothing is committed any more: what is on disk and what was promised could no longer be told apart.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::disk::Durability;
use super::keys::Aged;
use super::snapshot::{Overwritten, Writes};
use super::stored::{
    StoredAnswer, StoredAttempt, StoredBatch, StoredDetails, StoredEssay, StoredLate, StoredMessage, StoredResult,
};
use super::{Error, Feed, Sequence, codec, keys};
use crate::contract::idempotency::Key;
use crate::contract::{Group, Message};
use crate::crash::{self, Point};
use crate::domain::{Attempt, Batch, BatchId, Facet, LateOutcome, Millis, Phase, Timer};

/// The most commits that share a flush. Each is a few kilobytes, and a flush of a megabyte still takes milliseconds.
const MAX_GROUP: usize = 256;

/// How many bytes of a text lie in one value: pages of sixteen such values stay below the size from which sled would
/// put them into files of their own.
pub(super) const CONTENT_PART_BYTES: usize = 4_096;

/// Everything that becomes true at once.
#[derive(Default)]
pub struct Commit {
    writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    contents: Vec<([u8; 32], Vec<u8>)>,
    messages: Vec<(Option<Group>, Vec<u8>, Message)>,
    expired: Vec<(Vec<u8>, Vec<u8>, Millis)>,
    /// What goes where its entry among the ages is still there.
    pub(super) aged: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
    /// Texts that go where nobody refers to them any more.
    pub(super) forgotten: Vec<[u8; 32]>,
}

/// A message of a commit that is durable.
#[derive(Debug, Clone)]
pub struct Published {
    /// The group that has to consume it, and its number there; none where it is only watched.
    pub outbox: Option<(Group, Sequence)>,
    /// The message.
    pub message: Message,
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
        let Self { writes, contents, messages, expired, aged, forgotten } = self;
        let has_writes = !writes.is_empty() || !contents.is_empty() || !messages.is_empty();
        !has_writes && expired.is_empty() && aged.is_empty() && forgotten.is_empty()
    }

    pub(super) fn into_writes(self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        self.writes
    }

    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.push((key, Some(value)));
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.writes.push((key, None));
    }

    /// Adds `other` behind what is there.
    pub fn append(&mut self, mut other: Self) {
        self.writes.append(&mut other.writes);
        self.contents.append(&mut other.contents);
        self.messages.append(&mut other.messages);
        self.expired.append(&mut other.expired);
        self.aged.append(&mut other.aged);
        self.forgotten.append(&mut other.forgotten);
    }

    /// Writes the parts of `new` that it does not share with `old`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a part cannot be encoded.
    pub fn put_batch(&mut self, old: Option<&Batch>, new: &Batch) -> Result<(), Error> {
        self.put(keys::batch(new.id), codec::encode(&StoredBatch::of(new))?);
        if old.is_none_or(|old| !Arc::ptr_eq(&old.details, &new.details)) {
            self.put(keys::details(new.id), codec::encode(&StoredDetails::of(&new.details)?)?);
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
        let key = |facet: Facet| keys::listed(&keys::listing(owner, facet), registered_at, new.id);
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

    /// Adds an attempt that has ended to the ledger.
    ///
    /// # Errors
    /// As [`Commit::put_batch`].
    pub fn record_attempt(&mut self, batch: BatchId, phase: Phase, attempt: &Attempt) -> Result<(), Error> {
        self.put(keys::attempt(batch, phase, attempt.number), codec::encode(&StoredAttempt::of(attempt))?);
        Ok(())
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
        let groups = Group::of(message.topic);
        if groups.is_empty() {
            self.messages.push((None, Vec::new(), message));
            return Ok(());
        }
        groups.iter().try_for_each(|group| self.publish_to(*group, message.clone()))
    }

    /// Puts `message` into the outbox of `group` alone.
    ///
    /// # Errors
    /// As [`Commit::put_batch`].
    pub fn publish_to(&mut self, group: Group, message: Message) -> Result<(), Error> {
        self.messages.push((Some(group), codec::encode(&StoredMessage::of(&message))?, message));
        Ok(())
    }

    /// Takes a message out of the outbox: its group is done with it.
    pub fn consume(&mut self, group: Group, sequence: Sequence) {
        self.delete(keys::outbox(group, sequence));
    }

    /// Marks the message `key` as handled by `group` until `expires`.
    pub fn complete_key(&mut self, group: Group, key: &Key, expires: Millis) {
        let key = keys::idempotency(group, key);
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

pub(super) struct Request {
    commit: Commit,
    done: oneshot::Sender<Result<(), Error>>,
}

impl Request {
    pub(super) fn of(commit: Commit) -> (Self, oneshot::Receiver<Result<(), Error>>) {
        let (done, answer) = oneshot::channel();
        (Self { commit, done }, answer)
    }
}

pub(super) struct Committer {
    pub(super) database: sled::Db,
    pub(super) tree: sled::Tree,
    pub(super) contents: sled::Tree,
    pub(super) durability: Durability,
    /// What an open view of the store still has to see.
    pub(super) overwritten: Overwritten,
    pub(super) failure: Arc<OnceLock<Arc<str>>>,
    pub(super) feed: Feed,
    /// How many times something was made durable.
    pub(super) flushes: Arc<AtomicU64>,
    /// The next sequence of each group, in the order of [`Group::ALL`].
    pub(super) next: [Sequence; Group::ALL.len()],
    /// How many groups of commits there have been, which every one of them says.
    pub(super) commits: u64,
}

impl Committer {
    /// Serves commits until every store handle is gone.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut group = Vec::with_capacity(MAX_GROUP);
        while requests.blocking_recv_many(&mut group, MAX_GROUP) > 0 {
            let (commits, waiting): (Vec<_>, Vec<_>) =
                group.drain(..).map(|request| (request.commit, request.done)).unzip();
            let answer = match self.failure.get() {
                Some(reason) => Err(Error::Failed(Arc::clone(reason))),
                None => self.commit(commits).map_err(|reason| self.fail(&reason)),
            };
            for done in waiting {
                // Whoever gave up waiting finds what was committed when it asks again.
                let _ = done.send(answer.clone());
            }
        }
    }

    fn fail(&self, reason: &str) -> Error {
        tracing::error!(reason, "the store failed; it takes no more commits");
        Error::Failed(Arc::clone(self.failure.get_or_init(|| reason.into())))
    }

    fn commit(&mut self, commits: Vec<Commit>) -> Result<(), String> {
        if commits.iter().all(Commit::is_empty) {
            return Ok(());
        }
        crash::reach(Point::CommitTaken);
        let mut batch = Writes::default();
        let mut texts = HashMap::new();
        let mut published = Vec::new();
        for (index_key, key, expires) in commits.iter().flat_map(|commit| &commit.expired) {
            // The key may have been completed again meanwhile; then only the old index entry goes. Decided here, where
            // the only writer is, and before the other writes of the group.
            if self.tree.get(key).map_err(text)?.is_some_and(|value| value.starts_with(&expires.0.to_be_bytes())) {
                batch.remove(key.clone());
            }
            batch.remove(index_key.clone());
        }
        for (age, keys) in commits.iter().flat_map(|commit| &commit.aged) {
            // Somebody may have come back to it meanwhile. Decided before the other writes of the group, for which it
            // is there again.
            if self.tree.contains_key(age).map_err(text)? {
                batch.remove(age.clone());
                for key in keys {
                    batch.remove(key.clone());
                }
            }
        }
        let mut forgotten = Vec::new();
        for commit in commits {
            texts.extend(commit.contents);
            forgotten.extend(commit.forgotten);
            for (key, value) in commit.writes {
                match value {
                    Some(value) => batch.insert(key, value),
                    None => batch.remove(key),
                }
            }
            for (group, stored, message) in commit.messages {
                let outbox = group.map(|group| (group, self.next_sequence(group)));
                if let Some((group, sequence)) = outbox {
                    batch.insert(keys::outbox(group, sequence), stored);
                }
                published.push(Published { outbox, message });
            }
        }
        self.commits += 1;
        batch.insert(keys::COMMITS.to_vec(), self.commits.to_be_bytes().to_vec());
        // Before what refers to them: a crash between the two leaves texts that nobody knows of, and no more.
        self.write_contents(texts)?;
        crash::reach(Point::CommitContents);
        self.overwritten.write(&self.tree, batch).map_err(text)?;
        crash::reach(Point::CommitApplied);
        self.forget_contents(forgotten)?;
        self.make_durable()?;
        crash::reach(Point::CommitDurable);
        if !published.is_empty() {
            (self.feed)(published);
        }
        crash::reach(Point::CommitFed);
        Ok(())
    }

    /// Writes the texts that are not there yet, each in parts.
    fn write_contents(&self, texts: HashMap<[u8; 32], Vec<u8>>) -> Result<(), String> {
        let mut batch = sled::Batch::default();
        let mut is_empty = true;
        for (hash, text) in texts {
            // All parts of a text are written at once, so the first stands for all.
            if self.contents.contains_key(keys::content_part(&hash, 0)).map_err(self::text)? {
                continue;
            }
            // An empty text has one empty part, so that it can be told from no text.
            let parts = if text.is_empty() { vec![&text[..]] } else { text.chunks(CONTENT_PART_BYTES).collect() };
            for (number, part) in (0..).zip(parts) {
                batch.insert(keys::content_part(&hash, number), part);
            }
            is_empty = false;
        }
        if is_empty { Ok(()) } else { self.contents.apply_batch(batch).map_err(text) }
    }

    /// Removes the texts that nobody refers to. Those that somebody refers to in this very group are named by now. A
    /// crash before this leaves texts that nobody knows of, and no more.
    fn forget_contents(&self, hashes: Vec<[u8; 32]>) -> Result<(), String> {
        // Whoever looks at the store as it was may still want them.
        if self.overwritten.is_open() {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        for hash in hashes {
            if self.tree.scan_prefix(keys::references(&hash)).next().transpose().map_err(text)?.is_some() {
                continue;
            }
            for key in self.contents.scan_prefix(hash).keys() {
                batch.remove(key.map_err(text)?);
            }
        }
        self.contents.apply_batch(batch).map_err(text)
    }

    fn next_sequence(&mut self, group: Group) -> Sequence {
        let next = &mut self.next[group as usize];
        let sequence = *next;
        *next += 1;
        sequence
    }

    pub(super) fn make_durable(&mut self) -> Result<(), String> {
        self.database.flush().map_err(text)?;
        crash::reach(Point::CommitFlushed);
        self.durability.sync(self.commits).map_err(text)?;
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
