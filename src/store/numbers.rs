//! What the committer observes of its own work.

use crate::tally::{COUNTS, Histogram, LATENCIES_NS, SIZES};

/// What the committer has observed since the store was opened.
#[derive(Debug)]
pub struct Numbers {
    /// How many commits shared a write to the disk.
    pub commits: Histogram,
    /// How many keys such a group wrote.
    pub writes: Histogram,
    /// How many bytes it took in the journal.
    pub bytes: Histogram,
    /// How long a group took from when it was taken until it was durable and told, in nanoseconds.
    pub commit_ns: Histogram,
    /// How long of that the disk took, in nanoseconds; nothing where nothing is made durable.
    pub flush_ns: Histogram,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            commits: Histogram::new(COUNTS),
            writes: Histogram::new(COUNTS),
            bytes: Histogram::new(SIZES),
            commit_ns: Histogram::new(LATENCIES_NS),
            flush_ns: Histogram::new(LATENCIES_NS),
        }
    }
}
