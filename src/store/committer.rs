//! One step is one atomic commit; many commits share one write to the disk.
//!
//! The committer takes all commits that wait, appends them to the journal as one frame (so a crash leaves all of them or
//! none), makes that durable, lets readers see it, tells the feed, and only then answers. After the first failure
//! nothing is committed any more: what is on disk and what was promised could no longer be told apart.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::census::Counts;
use super::commit::{Commit, Outgoing};
use super::events::Numbering;
use super::guard::Marker;
use super::journal::{self, Journal, Which, Write};
use super::layers::Tree;
use super::settle::Settlement;
use super::snapshot::Overwritten;
use super::{Error, Feed, Numbers, Sequence, credits, keys, ledger};
use crate::contract::{Group, Message};
use crate::crash::{self, Point};

/// The most commits that share a write. Each is a few kilobytes, and a write of a megabyte still takes milliseconds.
const MAX_GROUP: usize = 256;

/// How many bytes of a text lie in one value: pages of sixteen such values stay below the size from which sled would
/// put them into files of their own.
pub(super) const CONTENT_PART_BYTES: usize = 4_096;

/// A message of a commit that is durable.
#[derive(Debug, Clone)]
pub struct Published {
    /// The group that has to consume it, and its number there; none where it is only watched.
    pub outbox: Option<(Group, Sequence)>,
    /// Its number in the log of events; none where it is not in it.
    pub event: Option<Sequence>,
    /// The message.
    pub message: Message,
}

/// What is done once a commit is durable, or it is known that it will not be. It runs on the committer's thread.
type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

pub(super) struct Request {
    commit: Commit,
    pub(super) done: Done,
}

impl Request {
    pub(super) fn new(commit: Commit, done: impl FnOnce(Result<(), Error>) + Send + 'static) -> Self {
        Self { commit, done: Box::new(done) }
    }

    pub(super) fn of(commit: Commit) -> (Self, oneshot::Receiver<Result<(), Error>>) {
        let (done, answer) = oneshot::channel();
        // Whoever gave up waiting finds what was committed when it asks again.
        (Self::new(commit, |committed| _ = done.send(committed)), answer)
    }
}

/// How far commits may run ahead of settling, as a multiple of what is settled at once. Past that they wait.
const MAX_AHEAD: u64 = 4;

/// Where commits become durable; none where the store goes when the process goes.
pub(super) struct Durable {
    pub(super) journal: Journal,
    pub(super) marker: Marker,
    /// How long the database's log is.
    pub(super) log_bytes: Arc<AtomicU64>,
}

pub(super) struct Committer {
    pub(super) state: Tree,
    pub(super) contents: Tree,
    pub(super) durable: Option<Durable>,
    /// What an open view of the store still has to see.
    pub(super) overwritten: Overwritten,
    pub(super) failure: Arc<OnceLock<Arc<str>>>,
    pub(super) feed: Feed,
    /// How many times something was made durable.
    pub(super) flushes: Arc<AtomicU64>,
    pub(super) numbers: Arc<Numbers>,
    /// How many stand where.
    pub(super) counts: Counts,
    /// The next sequence of each group, in the order of [`Group::ALL`].
    pub(super) next: [Sequence; Group::ALL.len()],
    pub(super) events: Numbering,
    /// How many groups of commits there have been, which every one of them says.
    pub(super) commits: u64,
    pub(super) settling: Settling,
}

/// The committer's side of settling.
pub(super) struct Settling {
    /// How many bytes are settled at once.
    pub(super) bytes: u64,
    /// How many are not on their way.
    pub(super) unsettled: u64,
    pub(super) is_under_way: bool,
    pub(super) settlements: Sender<Settlement>,
    pub(super) done: Receiver<()>,
}

impl Committer {
    /// Serves commits until every store handle is gone. Then what is not settled is, so that the next start has nothing
    /// to read twice.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut group = Vec::with_capacity(MAX_GROUP);
        while requests.blocking_recv_many(&mut group, MAX_GROUP) > 0 {
            let (commits, waiting): (Vec<_>, Vec<_>) =
                group.drain(..).map(|request| (request.commit, request.done)).unzip();
            let answer = match self.failure.get() {
                Some(reason) => Err(Error::Failed(Arc::clone(reason))),
                None => self.commit(commits).map_err(|reason| self.fail(&reason)),
            };
            let is_sound = answer.is_ok();
            for done in waiting {
                done(answer.clone());
            }
            if is_sound && let Err(reason) = self.settle_where_due() {
                self.fail(&reason);
            }
        }
        if self.durable.is_some()
            && let Err(reason) = self.settle_all()
        {
            self.fail(&reason);
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
        let began = Instant::now();
        self.numbers.commits.observe_size(commits.len());
        let _span = tracing::debug_span!("commit", number = self.commits + 1, commits = commits.len()).entered();
        crash::reach(Point::CommitTaken);
        let mut writes = Vec::new();
        self.remove_expired(&commits, &mut writes)?;
        self.remove_aged(&commits, &mut writes)?;
        self.add_attempts(&commits, &mut writes)?;
        self.add_up_credits(&commits, &mut writes)?;
        let (mut texts, mut forgotten, mut published) = (HashMap::new(), Vec::new(), Vec::new());
        for commit in commits {
            texts.extend(commit.contents);
            forgotten.extend(commit.forgotten);
            writes.extend(commit.writes.into_iter().map(|(key, value)| Write { which: Which::State, key, value }));
            for Outgoing { group, stored, message, is_event } in commit.messages {
                let event = if is_event { self.events.add(&stored, &mut writes) } else { None };
                let outbox = group.map(|group| (group, self.next_sequence(group)));
                if let Some((group, sequence)) = outbox {
                    let (key, value) = (keys::outbox(group, sequence).into(), Some(stored));
                    writes.push(Write { which: Which::State, key, value });
                }
                published.push(Published { outbox, event, message });
            }
        }
        self.events.trim(&mut writes);
        self.add_texts(texts, &mut writes)?;
        self.write(writes)?;
        self.forget_texts(forgotten)?;
        if !published.is_empty() {
            (self.feed)(published);
        }
        self.numbers.commit_ns.observe_since(began);
        crash::reach(Point::CommitFed);
        Ok(())
    }

    /// Removes keys whose time is over. One may have been completed again meanwhile; then only its old index entry goes.
    /// Decided here, where the only writer is, and before the other writes of the group.
    fn remove_expired(&self, commits: &[Commit], writes: &mut Vec<Write>) -> Result<(), String> {
        for (index_key, key, expires) in commits.iter().flat_map(|commit| &commit.expired) {
            if self.state.get(key).map_err(text)?.is_some_and(|value| value.starts_with(&expires.0.to_be_bytes())) {
                writes.push(removal(Which::State, &key[..]));
            }
            writes.push(removal(Which::State, &index_key[..]));
        }
        Ok(())
    }

    /// Removes what is old. Somebody may have come back to it meanwhile. Decided before the other writes of the group,
    /// for which it is there again.
    fn remove_aged(&self, commits: &[Commit], writes: &mut Vec<Write>) -> Result<(), String> {
        for (age, keys) in commits.iter().flat_map(|commit| &commit.aged) {
            if self.state.contains_key(age).map_err(text)? {
                writes.push(removal(Which::State, &age[..]));
                writes.extend(keys.iter().map(|key| removal(Which::State, &key[..])));
            }
        }
        Ok(())
    }

    /// Writes the ledgers to which these commits add.
    fn add_attempts(&self, commits: &[Commit], writes: &mut Vec<Write>) -> Result<(), String> {
        let attempts = commits.iter().flat_map(|commit| &commit.attempts);
        for (key, value) in ledger::added(&self.state, attempts).map_err(text)? {
            writes.push(Write { which: Which::State, key: key.into(), value: value.map(Into::into) });
        }
        Ok(())
    }

    /// Writes the balances that these commits change.
    fn add_up_credits(&self, commits: &[Commit], writes: &mut Vec<Write>) -> Result<(), String> {
        let differences = commits.iter().flat_map(|commit| &commit.credits);
        for (key, value) in credits::added_up(&self.state, differences).map_err(text)? {
            writes.push(Write { which: Which::State, key: key.into(), value: Some(value.into()) });
        }
        Ok(())
    }

    /// Adds the texts that are not there yet, each in parts.
    fn add_texts(&self, texts: HashMap<[u8; 32], Vec<u8>>, writes: &mut Vec<Write>) -> Result<(), String> {
        for (hash, text) in texts {
            // All parts of a text are written at once, so the first stands for all.
            if self.contents.contains_key(keys::content_part(&hash, 0)).map_err(self::text)? {
                continue;
            }
            // An empty text has one empty part, so that it can be told from no text.
            let parts = if text.is_empty() { vec![&text[..]] } else { text.chunks(CONTENT_PART_BYTES).collect() };
            for (number, part) in (0..).zip(parts) {
                let key = keys::content_part(&hash, number).into();
                writes.push(Write { which: Which::Contents, key, value: Some(part.into()) });
            }
        }
        Ok(())
    }

    /// Removes the texts that nobody refers to. Those that somebody refers to in this very group are named by now. A
    /// crash before this leaves texts that nobody knows of, and no more.
    fn forget_texts(&mut self, hashes: Vec<[u8; 32]>) -> Result<(), String> {
        // Whoever looks at the store as it was may still want them.
        if hashes.is_empty() || self.overwritten.is_open() {
            return Ok(());
        }
        let mut writes = Vec::new();
        for hash in hashes {
            if self.state.scan_prefix(keys::references(&hash)).next().transpose().map_err(text)?.is_some() {
                continue;
            }
            for key in self.contents.scan_prefix(hash).keys() {
                writes.push(removal(Which::Contents, &key.map_err(text)?));
            }
        }
        if writes.is_empty() { Ok(()) } else { self.write(writes) }
    }

    fn next_sequence(&mut self, group: Group) -> Sequence {
        let next = &mut self.next[group as usize];
        let sequence = *next;
        *next += 1;
        sequence
    }

    /// Makes a group durable, and then lets readers see it.
    pub(super) fn write(&mut self, mut writes: Vec<Write>) -> Result<(), String> {
        writes.extend(self.counts.follow(&self.state, &writes).map_err(text)?);
        let commit = self.commits + 1;
        let bytes = journal::bytes_of(&writes);
        self.numbers.writes.observe_size(writes.len());
        self.numbers.bytes.observe(bytes);
        if let Some(Durable { journal, marker, log_bytes }) = &mut self.durable {
            let began = Instant::now();
            journal.append(commit, &writes).map_err(text)?;
            crash::reach(Point::CommitWritten);
            journal.sync().map_err(text)?;
            marker.write(commit, log_bytes.load(Ordering::Relaxed)).map_err(text)?;
            self.numbers.flush_ns.observe_since(began);
        }
        crash::reach(Point::CommitDurable);
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.commits = commit;
        self.settling.unsettled += bytes;
        let (state, contents): (Vec<_>, Vec<_>) = writes.into_iter().partition(|write| write.which == Which::State);
        if !contents.is_empty() {
            self.contents.apply(contents.into_iter().map(Write::into_pair));
        }
        self.overwritten.apply(&self.state, state.into_iter().map(Write::into_pair).collect()).map_err(text)?;
        crash::reach(Point::CommitApplied);
        Ok(())
    }

    /// Has the journal settled once there is enough of it, and waits where there is far too much.
    fn settle_where_due(&mut self) -> Result<(), String> {
        let Settling { bytes, unsettled, is_under_way, done, .. } = &mut self.settling;
        if *unsettled < *bytes {
            return Ok(());
        }
        if *is_under_way {
            let is_done = if *unsettled > MAX_AHEAD * *bytes { done.recv().is_ok() } else { done.try_recv().is_ok() };
            if !is_done {
                return Ok(());
            }
            *is_under_way = false;
        }
        self.settle()
    }

    fn settle_all(&mut self) -> Result<(), String> {
        if self.settling.is_under_way {
            // It ends only after it has said so.
            let _ = self.settling.done.recv();
            self.settling.is_under_way = false;
        }
        if self.failure.get().is_some() {
            return Ok(());
        }
        self.remove_spare()?;
        if self.settling.unsettled > 0 {
            self.settle()?;
            let _ = self.settling.done.recv();
            self.remove_spare()?;
        }
        Ok(())
    }

    fn remove_spare(&self) -> Result<(), String> {
        self.durable.as_ref().map_or(Ok(()), |durable| durable.journal.remove_spare()).map_err(text)
    }

    /// Begins to settle everything that is durable now.
    fn settle(&mut self) -> Result<(), String> {
        let commits = self.commits;
        let last_segment = self.durable.as_mut().map(|durable| durable.journal.rotate(commits));
        let last_segment = last_segment.transpose().map_err(text)?;
        self.send_settlement(last_segment)
    }

    /// Begins to settle what was found in the journal up to its segment `last`.
    pub(super) fn settle_up_to(&mut self, last: u64) -> Result<(), Error> {
        self.send_settlement(Some(last)).map_err(|reason| Error::Failed(reason.into()))
    }

    fn send_settlement(&mut self, last_segment: Option<u64>) -> Result<(), String> {
        let commits = self.commits;
        let (state, contents) = (self.state.freeze(), self.contents.freeze());
        self.settling.unsettled = 0;
        self.settling.is_under_way = true;
        let settlement = Settlement { state, contents, commits, last_segment };
        self.settling.settlements.send(settlement).map_err(|_| "nobody settles any more".to_owned())
    }
}

fn removal(which: Which, key: &[u8]) -> Write {
    Write { which, key: key.into(), value: None }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
