//! What is durable of a partition's batches, for whoever reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::cache::Cache;
use super::rest::Waiting;

/// Shared by a partition, which steps on; the committer, which puts into it what has become durable; and readers. What
/// is in it may be told to anybody.
pub(super) struct Durable {
    cache: Mutex<Cache>,
    waiting: Mutex<Waiting>,
    /// How many rounds of the partition are durable, and in here.
    rounds: AtomicU64,
}

impl Durable {
    pub(super) fn new() -> Self {
        Self { cache: Mutex::new(Cache::new()), waiting: Mutex::default(), rounds: AtomicU64::new(0) }
    }

    pub(super) fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Acquire)
    }

    /// The round of this number is in here.
    pub(super) fn has_round(&self, number: u64) {
        self.rounds.store(number, Ordering::Release);
    }
}
