//! What can go wrong in the store, each with what to do about it.

use std::path::PathBuf;
use std::sync::Arc;

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
