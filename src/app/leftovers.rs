//! Temporary directories: one for each ephemeral store, and what killed processes left of theirs.
//!
//! The database opens files by their names as long as it is open, so its directory can't be removed before its end, and
//! kill -9 leaves it behind. The next ephemeral store removes it, unless it is that young that it may belong to a process
//! which starts.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

/// What the names of these directories begin with.
const PREFIX: &str = "rephase-ephemeral-";

/// The most entries of the directory of temporary files that are looked at: the start does not wait for more.
const MAX_ENTRIES: usize = 4_096;

/// How old a directory has to be at least: one that was made just now may belong to a process that starts.
const MIN_AGE: Duration = Duration::from_secs(10);

/// A new directory that is removed, with its contents, when this is dropped.
pub(super) async fn temporary() -> anyhow::Result<tempfile::TempDir> {
    let make = || {
        remove(&std::env::temp_dir());
        tempfile::Builder::new().prefix(PREFIX).tempdir().context("there is no room for a temporary store")
    };
    tokio::task::spawn_blocking(make).await?
}

/// Removes what processes left that were killed. What cannot be read or removed stays: it may be somebody else's.
fn remove(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.take(MAX_ENTRIES).flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_left_over(&entry.path()) {
            // Another process may be at it too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether a process had a store there and has ended: its lock is free and says who it was.
fn is_left_over(directory: &Path) -> bool {
    let is_own = |metadata: &fs::Metadata| metadata.is_dir() && !metadata.file_type().is_symlink();
    let age = |metadata: &fs::Metadata| SystemTime::now().duration_since(metadata.modified().ok()?).ok();
    let Ok(metadata) = fs::symlink_metadata(directory) else { return false };
    if !is_own(&metadata) {
        return false;
    }
    let Ok(lock) = OpenOptions::new().read(true).write(true).open(directory.join("LOCK")) else { return false };
    let Ok(said) = lock.metadata() else { return false };
    said.len() > 0 && age(&said).is_some_and(|age| age >= MIN_AGE) && lock.try_lock().is_ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A directory as a store has it, whose lock says so and was taken an hour ago.
    fn directory(parent: &Path, name: &str, said: &str) -> std::fs::File {
        let path = parent.join(name);
        fs::create_dir(&path).expect("made");
        let mut lock = fs::File::create(path.join("LOCK")).expect("made");
        write!(lock, "{said}").expect("written");
        lock.set_modified(SystemTime::now() - Duration::from_hours(1)).expect("set");
        lock
    }

    #[test]
    fn only_what_nobody_has_locked_any_more_is_removed() {
        let parent = tempfile::tempdir().expect("a directory");
        drop(directory(parent.path(), "rephase-ephemeral-left", "17\n"));
        drop(directory(parent.path(), "rephase-ephemeral-starting", ""));
        drop(directory(parent.path(), "somebody-else", "17\n"));
        let held = directory(parent.path(), "rephase-ephemeral-held", "17\n");
        held.lock().expect("locked");
        let young = directory(parent.path(), "rephase-ephemeral-young", "17\n");
        young.set_modified(SystemTime::now()).expect("set");
        drop(young);
        remove(parent.path());
        let mut left: Vec<_> =
            fs::read_dir(parent.path()).expect("read").map(|entry| entry.expect("an entry").file_name()).collect();
        left.sort();
        let names =
            ["rephase-ephemeral-held", "rephase-ephemeral-starting", "rephase-ephemeral-young", "somebody-else"];
        assert_eq!(left, names);
    }
}
