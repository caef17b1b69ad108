//! Against loss that nobody notices: a damaged database may open all the same, with what lay behind the damage gone.
//!
//! Beside the store lies a mark, written after each group of commits that became durable: how many there were, and how
//! long the log of the database was. The mark itself is not synced: after a power loss it may be older than the store,
//! never newer; so a journal that ends before its mark has lost some. And each segment of the journal says how many
//! commits were before it: a database that knows of fewer has lost some too.
//!
//! The database mends what it takes for the torn end of its log as it opens, which destroys the rest of a damaged one.
//! So a copy is opened first, as long as that is cheap or there is a reason to; not where its seal is whole.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::journal::Replay;
use super::open::{LET_GO, open_unlocked};
use super::seal;
use super::{Error, Options, disk, keys};

const MAGIC: &[u8; 8] = b"rephase1";

const MARK_BYTES: usize = 32;

/// What is known to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    commits: u64,
    log_bytes: u64,
}

impl Mark {
    fn encode(self) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.commits.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.log_bytes.to_be_bytes());
        let digest = Sha256::digest(&bytes[..24]);
        bytes[24..].copy_from_slice(&digest[..8]);
        bytes
    }

    /// None where it is not whole: then it was just made, or a power loss met it.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let mark = Self { commits: number(8)?, log_bytes: number(16)? };
        (mark.encode() == bytes).then_some(mark)
    }

    /// The mark of the store in `directory`; none where it never had one.
    fn read(directory: &Path) -> io::Result<Option<Self>> {
        let mut bytes = Vec::with_capacity(MARK_BYTES);
        match File::open(path_of(directory)) {
            Ok(file) => file.take(MARK_BYTES as u64 + 1).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Self::decode(&bytes))
    }
}

fn path_of(directory: &Path) -> PathBuf {
    directory.join("DURABLE")
}

/// Whether the store in `directory` has a mark.
pub(super) fn is_marked(directory: &Path) -> io::Result<bool> {
    path_of(directory).try_exists()
}

/// Writes the mark.
pub(super) struct Marker(File);

impl Marker {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let path = path_of(directory);
        OpenOptions::new().create(true).truncate(false).write(true).open(path).map(Self)
    }

    /// Call when so many commits are durable, in a log of this length.
    pub(super) fn write(&self, commits: u64, log_bytes: u64) -> io::Result<()> {
        self.0.write_all_at(&Mark { commits, log_bytes }.encode(), 0)
    }
}

/// How many commits the database knows of.
pub(super) fn commits(tree: &sled::Tree) -> sled::Result<u64> {
    let value = tree.get(keys::COMMITS)?;
    Ok(value.and_then(|value| value.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes))
}

/// Opens the database, unless that would lose something.
pub(super) fn open(options: &Options, journal: &Replay) -> Result<(sled::Db, sled::Tree), Error> {
    let path = options.directory.join("store");
    let config = config(options, &path);
    if !options.durable {
        return try_open(&config, 0).map_err(|reason| damaged(options, true, reason));
    }
    let unfit = |error: io::Error| disk::directory_error(&options.directory, &error);
    let mark = Mark::read(&options.directory).map_err(unfit)?;
    // Stores of before there was a journal have all their commits in the database.
    let settled = journal.after.or(mark.map(|mark| mark.commits)).unwrap_or(0);
    if let (Some(mark), Some(_)) = (mark, journal.after)
        && journal.commits < mark.commits
    {
        return Err(damaged(options, true, lost(mark.commits, journal.commits)));
    }
    let trial = options.directory.join("trial");
    // One that a crash left behind.
    remove(&trial).map_err(unfit)?;
    let mut is_untouched = false;
    if let Some(mark) = mark {
        let log_bytes = fs::metadata(path.join("db")).map_or(0, |file| file.len());
        if log_bytes == 0 {
            return Err(damaged(options, true, "its log is gone".to_owned()));
        }
        // The database may give back what is free at its end, so that a shorter log can be whole.
        let is_cut = log_bytes < mark.log_bytes;
        is_untouched = is_cut || bytes_in(&path).map_err(unfit)? <= seal::MAX_BYTES;
        let sealed = if is_untouched { seal::unbroken(&options.directory).map_err(unfit)? } else { None };
        if let Some(commits) = sealed.filter(|commits| *commits < settled) {
            return Err(damaged(options, true, lost(settled, commits)));
        }
        if is_untouched && sealed.is_none() {
            let tried = copy_unlocked(&path, &trial).map_err(unfit).and_then(|()| {
                let config = self::config(options, &trial).temporary(true);
                let opened = try_open(&config, settled).and_then(|(_, tree)| {
                    tree.iter().try_for_each(|entry| entry.map(drop)).map_err(|error| error.to_string())
                });
                opened.map_err(|reason| damaged(options, true, reason))
            });
            remove(&trial).map_err(unfit)?;
            tried?;
        }
    }
    try_open(&config, settled).map_err(|reason| damaged(options, is_untouched, reason))
}

fn config(options: &Options, path: &Path) -> sled::Config {
    let config = sled::Config::new().path(path).cache_capacity(options.cache_bytes).flush_every_ms(None);
    config.temporary(!options.durable)
}

/// Opens the database, in which so many commits are settled. It panics over some kinds of damage.
fn try_open(config: &sled::Config, settled: u64) -> Result<(sled::Db, sled::Tree), String> {
    let open = || {
        let database = open_unlocked(config)?;
        let tree = database.open_tree("rephase")?;
        let commits = commits(&tree)?;
        Ok((database, tree, commits))
    };
    let opened: sled::Result<_> =
        catch_unwind(AssertUnwindSafe(open)).map_err(|_| "its log makes no sense".to_owned())?;
    let (database, tree, commits) = opened.map_err(|error| error.to_string())?;
    if commits < settled { Err(lost(settled, commits)) } else { Ok((database, tree)) }
}

fn lost(durable: u64, found: u64) -> String {
    format!("of {durable} commits that were durable it has {found}")
}

fn damaged(options: &Options, is_untouched: bool, reason: String) -> Error {
    let directory = options.directory.clone();
    if is_untouched { Error::Damaged { directory, reason } } else { Error::Mangled { directory, reason } }
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn bytes_in(directory: &Path) -> io::Result<u64> {
    let mut files = Vec::new();
    seal::list(directory, &mut files)?;
    Ok(files.iter().map(|(_, bytes)| bytes).sum())
}

/// Copies the database. One of this process that was just closed may still be writing, and holds its lock until then.
fn copy_unlocked(from: &Path, to: &Path) -> io::Result<()> {
    let log = File::open(from.join("db"))?;
    let began = Instant::now();
    while let Err(error) = log.try_lock() {
        match error {
            TryLockError::WouldBlock if began.elapsed() < LET_GO => std::thread::sleep(Duration::from_millis(5)),
            TryLockError::WouldBlock => return Err(io::ErrorKind::WouldBlock.into()),
            TryLockError::Error(error) => return Err(error),
        }
    }
    copy(from, to)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
