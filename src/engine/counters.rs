//! What has been counted since the start.

use std::sync::atomic::{AtomicU64, Ordering};

/// What has been counted since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Steps that were committed.
    pub steps: AtomicU64,
    /// Messages that had been handled before.
    pub duplicates: AtomicU64,
    /// Messages that the batch, as it stood, did not allow, or that could not be read. All but late outcomes are dead
    /// letters.
    pub refused_messages: AtomicU64,
    /// Outcomes that came when their attempt was not in flight any more; they are among the refused messages too.
    pub late_outcomes: AtomicU64,
    /// Timers that were due for a batch that cannot be read.
    pub broken_timers: AtomicU64,
    /// Idempotency keys that were swept.
    pub swept_keys: AtomicU64,
    /// Batches, bulk retries and dead letters that were removed because they were old.
    pub removed: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
