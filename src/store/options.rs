//! How a store is opened.

use std::path::PathBuf;

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
