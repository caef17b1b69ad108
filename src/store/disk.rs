//! Directory, lock, and what it takes until written bytes survive a power loss.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::{Error, Options};

pub(super) fn directory_error(directory: &Path, error: &io::Error) -> Error {
    Error::Directory { directory: directory.to_owned(), reason: error.to_string() }
}

/// One process at a time. The lock goes with the process, however it ends.
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Makes the directory where there is none, and locks it.
    pub(super) fn acquire(directory: &Path) -> Result<Self, Error> {
        let unfit = |error: io::Error| directory_error(directory, &error);
        fs::create_dir_all(directory).map_err(unfit)?;
        let path = directory.join("LOCK");
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(unfit)?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    let owner = owner_of(&mut file);
                    let is_own = owner.as_deref() == Some(std::process::id().to_string().as_str());
                    if !is_own || began.elapsed() > LET_GO {
                        return Err(Error::InUse { directory: directory.to_owned(), owner });
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::Error(error)) => return Err(unfit(error)),
            }
        }
        file.set_len(0).map_err(unfit)?;
        file.rewind().map_err(unfit)?;
        writeln!(file, "{}", std::process::id()).map_err(unfit)?;
        Ok(Self { _file: file })
    }
}

/// How long a store of this very process may take to let go of its lock: whoever used it last may hold it a moment
/// longer, and so may a child that is about to become another program.
const LET_GO: Duration = Duration::from_secs(1);

/// The process that holds the lock, where it said so.
fn owner_of(lock: &mut File) -> Option<String> {
    let mut owner = String::new();
    lock.rewind().and_then(|()| lock.take(20).read_to_string(&mut owner)).ok()?;
    Some(owner.trim().to_owned()).filter(|pid| !pid.is_empty())
}

/// How recent a change of the blob directory may be for its time stamp not to tell two changes apart.
const TIMESTAMP_GRANULARITY: Duration = Duration::from_millis(100);

/// Makes what was settled survive a power loss.
///
/// sled's flush ends in `sync_file_range`, which leaves the bytes in the cache of the disk; an `fdatasync` of the same
/// file empties it. Values above a quarter of a segment (128 KiB, pages of several values included) lie in files of
/// their own, which sled never syncs; they are rare here, and synced where there are new ones.
pub(super) enum Durability {
    /// The store goes when the process goes.
    None,
    /// The log file, and the directory of the large values.
    Fdatasync { log: File, blobs: BlobDirectory },
}

impl Durability {
    /// Opens the log for syncing, and makes the directories themselves durable where that was not done before.
    pub(super) fn new(options: &Options, database: &Path, is_new: bool) -> Result<Self, Error> {
        if !options.durable {
            return Ok(Self::None);
        }
        let unfit = |error: io::Error| directory_error(&options.directory, &error);
        let log = OpenOptions::new().read(true).write(true).open(database.join("db")).map_err(unfit)?;
        let blobs = BlobDirectory { path: database.join("blobs"), seen: None };
        if is_new {
            let parent = options.directory.canonicalize().map_err(unfit)?;
            for directory in [blobs.path.as_path(), database, &options.directory].into_iter().chain(parent.parent()) {
                sync_directory(directory).map_err(unfit)?;
            }
        }
        Ok(Self::Fdatasync { log, blobs })
    }

    /// Call after a flush: what it wrote survives a power loss from here on. Says how long the log is.
    pub(super) fn sync(&mut self) -> io::Result<u64> {
        match self {
            Self::None => Ok(0),
            Self::Fdatasync { log, blobs } => {
                blobs.sync_new()?;
                log.sync_data()?;
                Ok(log.metadata()?.len())
            }
        }
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Where sled keeps values that are too large for its log.
pub(super) struct BlobDirectory {
    path: PathBuf,
    /// The change time up to which everything in it is synced.
    seen: Option<SystemTime>,
}

impl BlobDirectory {
    fn sync_new(&mut self) -> io::Result<()> {
        let changed = fs::metadata(&self.path)?.modified()?;
        if self.seen == Some(changed) {
            return Ok(());
        }
        let since = self.seen.map(|seen| seen - TIMESTAMP_GRANULARITY);
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            // The database may remove one at any time; then it is no longer needed.
            match File::open(&path).and_then(|file| Ok((file.metadata()?.modified()?, file))) {
                Ok((modified, file)) if since.is_none_or(|since| modified >= since) => file.sync_all()?,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        sync_directory(&self.path)?;
        // A change in the same tick of the clock would leave the time stamp as it is, so a fresh one is not trusted.
        let is_settled = changed.elapsed().is_ok_and(|age| age > TIMESTAMP_GRANULARITY);
        self.seen = is_settled.then_some(changed).or(self.seen);
        Ok(())
    }
}
