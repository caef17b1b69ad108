//! The only room that names sled or bincode: keys, codec, commit, reads, sweep.
//!
//! What the engine asks of it is small: one atomic [`Commit`] that is durable before it is answered, point reads,
//! ordered ranges (outbox, attempts, the log of events), and timers. A store on another database has to offer the same
//! and no more.
//!
//! Commits are handed to one committer thread, which appends many of them at once to a journal; from there they are
//! settled in the database by and by. A read sees every commit that is durable and nothing else, and it blocks, so it
//! belongs on threads that may.

mod archive;
mod backup;
mod census;
mod codec;
mod commit;
mod committer;
mod credits;
mod disk;
mod error;
mod events;
mod guard;
mod jobs;
mod journal;
mod keys;
mod layers;
mod ledger;
mod letters;
mod lines;
mod listing;
mod migrate;
mod numbers;
mod open;
mod options;
mod read;
mod restore;
mod retention;
mod seal;
mod settle;
mod snapshot;
mod stored;
mod verify;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

pub use backup::backup;
pub use census::Standings;
pub use commit::Commit;
pub use committer::Published;
pub use credits::Difference;
pub use error::Error;
pub use events::{Event, EventLog};
pub use keys::Aged;
pub use listing::Listed;
pub use numbers::Numbers;
pub use options::Options;
pub use read::{ExpiredKey, OutboxEntry, TimerEntry};
pub use restore::{Restored, check_backup, restore};
pub use retention::Old;
pub use snapshot::Snapshot;
pub use stored::{StoredAnswer, readable};
pub use verify::{Checked, verify};

use archive::Archive;
use committer::Request;
use disk::DirectoryLock;
use layers::Tree;
use snapshot::Overwritten;

/// The number of a message in the outbox of one group; counts up without holes while the process lives.
pub type Sequence = u64;

/// Hears of every message of a commit, once the commit is durable, in the order of the commits.
pub type Feed = Box<dyn Fn(Vec<Published>) + Send>;

/// The store. Its clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    database: sled::Db,
    /// Everything but the contents.
    state: Tree,
    /// Contents by their hash. They never change.
    contents: Tree,
    overwritten: Overwritten,
    event_log: Option<EventLog>,
    archive: Archive,
    commits: tokio::sync::mpsc::Sender<Request>,
    failure: Arc<OnceLock<Arc<str>>>,
    flushes: Arc<AtomicU64>,
    numbers: Arc<Numbers>,
    directory: PathBuf,
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lock: DirectoryLock,
}

impl Store {
    /// Hands `commit` to the committer and waits until it is durable.
    ///
    /// # Errors
    /// [`Error::Failed`] where it is not, and from then on for ever.
    pub async fn commit(&self, commit: Commit) -> Result<(), Error> {
        let (request, done) = Request::of(commit);
        self.shared.commits.send(request).await.map_err(|_| self.closed())?;
        done.await.map_err(|_| self.closed())?
    }

    /// Hands `commit` to the committer, and goes on; `done` hears what came of it, on the committer's thread, after
    /// those of all commits that were handed over before. Blocks while too many are waiting.
    pub fn commit_then(&self, commit: Commit, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        if let Err(refused) = self.shared.commits.blocking_send(Request::new(commit, done)) {
            (refused.0.done)(Err(self.closed()));
        }
    }

    /// The same as [`Store::commit`], for threads that may block.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit_blocking(&self, commit: Commit) -> Result<(), Error> {
        let (request, done) = Request::of(commit);
        self.shared.commits.blocking_send(request).map_err(|_| self.closed())?;
        done.blocking_recv().map_err(|_| self.closed())?
    }

    /// Why the store failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure.get().map(AsRef::as_ref)
    }

    /// Gives this handle back. With the last one the store closes: it waits until everything that was committed is
    /// settled.
    ///
    /// # Errors
    /// [`Error::Failed`] where the store failed, then or before. What was committed is in the journal all the same.
    pub fn close(self) -> Result<(), Error> {
        let failure = Arc::clone(&self.shared.failure);
        drop(self);
        failure.get().map_or(Ok(()), |reason| Err(Error::Failed(Arc::clone(reason))))
    }

    /// How many times something was made durable: commits that came together share one.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.shared.flushes.load(Ordering::Relaxed)
    }

    /// How many bytes the database has on disk.
    #[must_use]
    pub fn size_on_disk(&self) -> u64 {
        self.shared.database.size_on_disk().unwrap_or(0)
    }

    /// How many bytes the journal has on disk.
    #[must_use]
    pub fn journal_size_on_disk(&self) -> u64 {
        journal::size_on_disk(&self.shared.directory).unwrap_or(0)
    }

    /// What the committer has observed of its own work.
    #[must_use]
    pub fn numbers(&self) -> &Numbers {
        &self.shared.numbers
    }

    fn closed(&self) -> Error {
        self.shared.failure.get().map_or(Error::Closing, |reason| Error::Failed(Arc::clone(reason)))
    }
}

impl Drop for Shared {
    /// Closes the queue, and waits for the last commit and until it is settled. Nothing can be waiting for an answer
    /// then: a waiter holds the store open.
    fn drop(&mut self) {
        let (closed, _) = tokio::sync::mpsc::channel(1);
        drop(std::mem::replace(&mut self.commits, closed));
        for thread in self.threads.get_mut().map(std::mem::take).unwrap_or_default() {
            if thread.join().is_err() {
                let reason = "a thread of the store ended in a panic";
                tracing::error!(reason);
                // The first failure is the one that is told.
                let _ = self.failure.set(reason.into());
            }
        }
    }
}
