//! Opening: the lock, the files of events, the database with what the journal says above it, and the threads.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::archive::Archive;
use super::census::Counts;
use super::committer::{Committer, Durable, Settling};
use super::disk::{self, DirectoryLock, Durability};
use super::events::Numbering;
use super::guard::{self, Marker};
use super::journal::{self, Journal, Replay, Which, Write};
use super::layers::Tree;
use super::settle::Settler;
use super::snapshot::Overwritten;
use super::{Error, Feed, Numbers, Options, Shared, Store, keys, migrate, read};

/// How many commits may wait for the committer. Each is a round of a partition, or somebody who waits.
const COMMIT_QUEUE: usize = 256;

/// A store as it lies on disk, with what its journal says in the upper layers.
pub(super) struct Opened {
    pub(super) database: sled::Db,
    pub(super) state: Tree,
    pub(super) contents: Tree,
    /// How many commits there have been.
    pub(super) commits: u64,
    /// How many bytes of the journal are not settled.
    pub(super) unsettled: u64,
    /// The newest segment of the journal, where there are so many that they have to be settled whatever they say.
    pub(super) full_up_to: Option<u64>,
}

/// How many segments a journal may have after a start. Each start adds one, and each is read by the next.
const MAX_SEGMENTS: usize = 8;

/// Opens what lies in the directory, which is locked.
pub(super) fn open(options: &Options) -> Result<Opened, Error> {
    let replay = match journal::replay(&options.directory) {
        Ok(Ok(replay)) => replay,
        Ok(Err(reason)) => return Err(Error::Damaged { directory: options.directory.clone(), reason }),
        Err(error) => return Err(disk::directory_error(&options.directory, &error)),
    };
    let (database, state) = guard::open(options, &replay)?;
    let settled = guard::commits(&state).map_err(read::failed)?;
    let contents = database.open_tree("contents").map_err(|error| damaged(&options.directory, &error))?;
    let (state, contents) = (Tree::new(state), Tree::new(contents));
    let Replay { after, writes, commits, last_segment, segments } = replay;
    let unsettled = journal::bytes_of(&writes);
    let (of_state, of_contents): (Vec<_>, Vec<_>) = writes.into_iter().partition(|write| write.which == Which::State);
    state.apply(of_state.into_iter().map(|write| write.under_newest_key().into_pair()));
    contents.apply(of_contents.into_iter().map(Write::into_pair));
    let commits = after.map_or(settled, |_| commits);
    let full_up_to = last_segment.filter(|_| segments >= MAX_SEGMENTS || unsettled >= options.journal_bytes);
    Ok(Opened { database, state, contents, commits, unsettled, full_up_to })
}

/// The files of events.
pub(super) fn archive(options: &Options) -> Result<Archive, Error> {
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
        let Opened { database, state, contents, commits, unsettled, full_up_to } = open(options)?;
        // Whoever made the mark had made the directories durable before.
        let is_new = !guard::is_marked(directory).map_err(unfit)?;
        let mut durability = Durability::new(options, &directory.join("store"), is_new)?;
        migrate::prepare(&database, &state, &mut durability, directory)?;
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
        let numbers = Arc::new(Numbers::default());
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
        let settling = Settling { bytes: options.journal_bytes, unsettled, is_under_way: false, settlements, done };
        let (events, mut writes) = Numbering::open(&state, archive.clone(), options.retain_events)?;
        let event_log = events.log;
        // What can be counted again is no reason not to start.
        let counts = Counts::read(&state).or_else(|error| {
            tracing::warn!(%error, "how many batches stand where cannot be read, and is counted anew");
            let counts = Counts::of_all(&state)?;
            writes.push(counts.write()?);
            Ok::<_, Error>(counts)
        })?;
        let mut committer = Committer {
            state: state.clone(),
            contents: contents.clone(),
            durable,
            overwritten: overwritten.clone(),
            failure: Arc::clone(&failure),
            feed,
            flushes: Arc::clone(&flushes),
            numbers: Arc::clone(&numbers),
            counts,
            next: read::next_sequences(&state)?,
            events,
            commits,
            settling,
        };
        // Where there is little, it is settled with what comes: a process that is killed again soon then finds a database
        // that nobody has written to, and need not try whether it is whole.
        if let Some(last) = full_up_to {
            committer.settle_up_to(last)?;
        }
        if !writes.is_empty() {
            committer.write(writes).map_err(|reason| Error::Failed(reason.into()))?;
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
            directory: directory.clone(),
            threads,
            _lock: lock,
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

fn spawn(name: &str, directory: &Path, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|error| disk::directory_error(directory, &error))
}

/// How long a store of this very process may take to let go of its files once it was closed: the database's own
/// threads end a little later than its last handle.
pub(super) const LET_GO: Duration = Duration::from_secs(5);

/// Opens the database. Its lock can only be held by a store of this process that was just closed, since the directory's
/// own lock keeps every other process out; so it is waited for.
pub(super) fn open_unlocked(config: &sled::Config) -> sled::Result<sled::Db> {
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

pub(super) fn damaged(directory: &Path, error: &sled::Error) -> Error {
    Error::Damaged { directory: directory.to_owned(), reason: error.to_string() }
}
