//! One step is one atomic commit; many commits share one flush.
//!
//! The committer takes all commits that wait, writes them as one batch (so a crash leaves all of them or none), flushes,
//! makes the flush durable, tells the feed, and only then answers. After the first failure nothing is committed any
//! more: what is on disk and what was promised could no longer be told apart.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, oneshot};

use super::commit::Commit;
use super::disk::Durability;
use super::snapshot::{Overwritten, Writes};
use super::{Error, Feed, Sequence, keys};
use crate::contract::{Group, Message};
use crate::crash::{self, Point};

/// The most commits that share a flush. Each is a few kilobytes, and a flush of a megabyte still takes milliseconds.
const MAX_GROUP: usize = 256;

/// How many bytes of a text lie in one value: pages of sixteen such values stay below the size from which sled would
/// put them into files of their own.
pub(super) const CONTENT_PART_BYTES: usize = 4_096;

/// A message of a commit that is durable.
#[derive(Debug, Clone)]
pub struct Published {
    /// The group that has to consume it, and its number there; none where it is only watched.
    pub outbox: Option<(Group, Sequence)>,
    /// The message.
    pub message: Message,
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
        if hashes.is_empty() || self.overwritten.is_open() {
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
