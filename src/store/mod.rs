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
mod events;
mod guard;
mod jobs;
mod journal;
mod keys;
mod layers;
mod letters;
mod lines;
mod listing;
mod migrate;
mod numbers;
mod read;
mod restore;
mod retention;
mod seal;
mod settle;
mod snapshot;
mod stored;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use backup::backup;
pub use census::Standings;
pub use commit::Commit;
pub use committer::Published;
pub use credits::Difference;
pub use events::{Event, EventLog};
pub use keys::Aged;
pub use listing::Listed;
pub use numbers::Numbers;
pub use read::{ExpiredKey, OutboxEntry, TimerEntry};
pub use restore::{Restored, check_backup, restore};
pub use retention::Old;
pub use snapshot::Snapshot;
pub use stored::{StoredAnswer, readable};
pub use verify::{Checked, verify};

use archive::Archive;
use census::Census;
use committer::{Committer, Durable, Request, Settling};
use disk::{DirectoryLock, Durability};
use events::Numbering;
use guard::Marker;
use journal::{Journal, Replay, Which, Write};
use layers::Tree;
use settle::Settler;
use snapshot::Overwritten;

/// The number of a message in the outbox of one group; counts up without holes while the process lives.
pub type Sequence = u64;

/// How many commits may wait for the committer. Each is a round of a partition, or somebody who waits.
const COMMIT_QUEUE: usize = 256;

/// How the store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory; made where it does not exist.
    pub directory: PathBuf,
    /// How much memory the store may use to keep pages, in bytes.
    pub cache_bytes: u64,
    /// How much is in the journal before it is settled in the database, in bytes. It takes up to four times that on
    /// disk and, with what keeps it in order, some eight times that in memory while settling does not keep up.
    pub journal_bytes: u64,
    /// How many published messages stay readable in the log of events; 0 is no log.
    pub retain_events: u64,
    /// Whether commits are made durable. Without, the directory is as short-lived as the process.
    pub durable: bool,
}

impl Options {
    /// The cache a store gets where nobody says otherwise: 16 MiB. The database's own default is a gibibyte.
    pub const DEFAULT_CACHE_BYTES: u64 = 16 * 1_024 * 1_024;

    /// The journal a store gets where nobody says otherwise: 16 MiB, which are read in some tens of milliseconds when
    /// the store is opened after a crash.
    pub const DEFAULT_JOURNAL_BYTES: u64 = 16 * 1_024 * 1_024;

    /// The events a store retains where nobody says otherwise. They take some 2 MB.
    pub const DEFAULT_RETAIN_EVENTS: u64 = 1_000;

    /// A durable store in `directory`.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            cache_bytes: Self::DEFAULT_CACHE_BYTES,
            journal_bytes: Self::DEFAULT_JOURNAL_BYTES,
            retain_events: Self::DEFAULT_RETAIN_EVENTS,
            durable: true,
        }
    }
}

/// What can go wrong in the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Another process has the directory open.
    #[error("{} is in use by another rephase process{}; stop that one first, or choose another --data-dir", .directory.display(), .owner.as_ref().map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The process, where it said so.
        owner: Option<String>,
    },
    /// The directory cannot be made, read or written.
    #[error("{}: {reason}", .directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The database does not open.
    #[error("the store in {} cannot be opened: {reason}. Nothing was changed; restore a backup into an empty directory, or move this one away to start anew", .directory.display())]
    Damaged {
        /// The directory.
        directory: PathBuf,
        /// What the database says.
        reason: String,
    },
    /// The database does not open, and no copy of it was tried first: it is too large, or was never marked.
    #[error("the store in {} cannot be opened: {reason}. The database may have changed it as it was opened; restore a backup into an empty directory, or move this one away to start anew", .directory.display())]
    Mangled {
        /// The directory.
        directory: PathBuf,
        /// What is known.
        reason: String,
    },
    /// The store was written by a newer version of this program.
    #[error("the store has format {found}, and this version reads up to {known}; use the newer version")]
    NewerFormat {
        /// The store's format.
        found: u32,
        /// The newest known here.
        known: u32,
    },
    /// The store was written by an older version, and is only read here.
    #[error("the store has format {found}, and this version's is {known}; `rephase serve` brings it up to that")]
    OlderFormat {
        /// The store's format.
        found: u32,
        /// This version's.
        known: u32,
    },
    /// A file is no backup, or not a whole one.
    #[error("{} cannot be restored: {reason}", .file.display())]
    Backup {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A stored value is not what it should be.
    #[error("a stored value cannot be read: {0}")]
    Corrupt(String),
    /// The database failed; it takes no more commits.
    #[error("the store failed and takes no more commits: {0}")]
    Failed(Arc<str>),
    /// The store is closing.
    #[error("the store is closing")]
    Closing,
}

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
    census: Census,
    directory: PathBuf,
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lock: DirectoryLock,
}

/// A store as it lies on disk, with what its journal says in the upper layers.
struct Opened {
    database: sled::Db,
    state: Tree,
    contents: Tree,
    /// How many commits there have been.
    commits: u64,
    /// The newest segment of the journal, where there is one.
    last_segment: Option<u64>,
}

/// Opens what lies in the directory, which is locked.
fn open(options: &Options) -> Result<Opened, Error> {
    let replay = match journal::replay(&options.directory) {
        Ok(Ok(replay)) => replay,
        Ok(Err(reason)) => return Err(Error::Damaged { directory: options.directory.clone(), reason }),
        Err(error) => return Err(disk::directory_error(&options.directory, &error)),
    };
    let (database, state) = guard::open(options, &replay)?;
    let settled = guard::commits(&state).map_err(read::failed)?;
    let contents = database.open_tree("contents").map_err(|error| damaged(&options.directory, &error))?;
    let (state, contents) = (Tree::new(state), Tree::new(contents));
    let Replay { after, writes, commits, last_segment } = replay;
    let (of_state, of_contents): (Vec<_>, Vec<_>) = writes.into_iter().partition(|write| write.which == Which::State);
    state.apply(of_state.into_iter().map(|write| write.under_newest_key().into_pair()));
    contents.apply(of_contents.into_iter().map(Write::into_pair));
    let commits = after.map_or(settled, |_| commits);
    Ok(Opened { database, state, contents, commits, last_segment })
}

/// The files of events.
fn archive(options: &Options) -> Result<Archive, Error> {
    Archive::open(options).map_err(|error| {
        let directory = options.directory.clone();
        match error.kind() {
            std::io::ErrorKind::InvalidData => {
                let reason = format!("{error}; without that file it opens, and another log of events begins");
                Error::Damaged { directory, reason }
            }
            _ => disk::directory_error(&directory, &error),
        }
    })
}

impl Store {
    /// Opens the store in its directory, and starts its threads.
    ///
    /// Blocks while the database and the journal are read.
    ///
    /// # Errors
    /// Every way in which a directory can be unfit, each with what to do about it.
    pub fn open(options: &Options, feed: Feed) -> Result<Self, Error> {
        let directory = &options.directory;
        let unfit = |error: std::io::Error| disk::directory_error(directory, &error);
        let lock = DirectoryLock::acquire(directory)?;
        let archive = archive(options)?;
        let Opened { database, state, contents, commits, last_segment } = open(options)?;
        let mut durability = Durability::new(options, &directory.join("store"))?;
        migrate::prepare(&database, state.settled(), &mut durability, directory)?;
        let log_bytes = Arc::new(AtomicU64::new(durability.sync().map_err(unfit)?));
        let durable = if options.durable {
            let journal = Journal::begin(directory, commits).map_err(unfit)?;
            let marker = Marker::open(directory).map_err(unfit)?;
            Some(Durable { journal, marker, log_bytes: Arc::clone(&log_bytes) })
        } else {
            None
        };
        let (failure, overwritten) = (Arc::new(OnceLock::new()), Overwritten::default());
        let flushes = Arc::new(AtomicU64::new(0));
        let (numbers, census) = (Arc::new(Numbers::default()), Census::default());
        let (settlements, to_settle) = std::sync::mpsc::channel();
        let (say_done, done) = std::sync::mpsc::channel();
        let settler = Settler {
            database: database.clone(),
            // Stores of before there were files for them.
            has_events: state.settled().scan_prefix(keys::EVENTS).next().is_some(),
            archive: archive.clone(),
            state: state.clone(),
            contents: contents.clone(),
            durability,
            directory: directory.clone(),
            log_bytes,
            failure: Arc::clone(&failure),
        };
        let settling = Settling { bytes: options.journal_bytes, unsettled: 0, is_under_way: false, settlements, done };
        let (events, event_log_writes) = Numbering::open(&state, archive.clone(), options.retain_events)?;
        let event_log = events.log;
        let mut committer = Committer {
            state: state.clone(),
            contents: contents.clone(),
            durable,
            overwritten: overwritten.clone(),
            failure: Arc::clone(&failure),
            feed,
            flushes: Arc::clone(&flushes),
            numbers: Arc::clone(&numbers),
            census: census.clone(),
            next: read::next_sequences(&state)?,
            events,
            commits,
            settling,
        };
        if let Some(last) = last_segment {
            committer.settle_up_to(last)?;
        }
        if !event_log_writes.is_empty() {
            committer.write(event_log_writes).map_err(|reason| Error::Failed(reason.into()))?;
        }
        let (commits, requests) = tokio::sync::mpsc::channel(COMMIT_QUEUE);
        let threads = vec![
            spawn("committer", directory, move || committer.run(requests))?,
            spawn("settler", directory, move || settler.run(&to_settle, &say_done))?,
        ];
        let threads = Mutex::new(threads);
        let shared = Shared {
            database,
            state,
            contents,
            overwritten,
            event_log,
            archive,
            commits,
            failure,
            flushes,
            numbers,
            census,
            directory: directory.clone(),
            threads,
            _lock: lock,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

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

fn spawn(name: &str, directory: &Path, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|error| disk::directory_error(directory, &error))
}

/// How long a store of this very process may take to let go of its files once it was closed: the database's own
/// threads end a little later than its last handle.
const LET_GO: Duration = Duration::from_secs(5);

/// Opens the database. Its lock can only be held by a store of this process that was just closed, since the directory's
/// own lock keeps every other process out; so it is waited for.
fn open_unlocked(config: &sled::Config) -> sled::Result<sled::Db> {
    let began = Instant::now();
    loop {
        match config.open() {
            Err(sled::Error::Io(error)) if is_locked(&error) && began.elapsed() < LET_GO => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

/// The database says it in words only.
fn is_locked(error: &std::io::Error) -> bool {
    error.to_string().starts_with("could not acquire lock")
}

fn damaged(directory: &Path, error: &sled::Error) -> Error {
    Error::Damaged { directory: directory.to_owned(), reason: error.to_string() }
}
