//! The records that are at hand: durable, and shared by the partition that owns them with whoever reads.

use std::collections::VecDeque;
use std::sync::Arc;

use lru::LruCache;

use crate::domain::{Attempt, Batch, BatchId, Phase};

/// How many essays' worth of records one partition keeps: some ten megabytes.
const MAX_WEIGHT: usize = 16_384;

/// What a record weighs besides its essays.
const BASE_WEIGHT: usize = 8;

/// How many ended attempts of a phase are at hand: as many as a status shows.
pub(super) const TAIL: usize = crate::domain::view::RETRY_HISTORY;

/// The newest attempts of a phase that have ended, the newest first.
type Tail = VecDeque<Arc<Attempt>>;

struct Entry {
    batch: Arc<Batch>,
    /// By phase; none where it is not known.
    tails: [Option<Tail>; 4],
}

/// Durable records, the most recently used first out of reach of eviction.
pub(super) struct Cache {
    records: LruCache<BatchId, Entry>,
    weight: usize,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self { records: LruCache::unbounded(), weight: 0 }
    }

    pub(super) fn get(&mut self, id: BatchId) -> Option<Arc<Batch>> {
        self.records.get(&id).map(|entry| Arc::clone(&entry.batch))
    }

    pub(super) fn remove(&mut self, id: BatchId) {
        if let Some(old) = self.records.pop(&id) {
            self.weight -= weight_of(&old.batch);
        }
    }

    pub(super) fn put(&mut self, batch: Arc<Batch>) {
        if let Some(entry) = self.records.get_mut(&batch.id) {
            entry.batch = batch;
            return;
        }
        self.weight += weight_of(&batch);
        self.records.put(batch.id, Entry { batch, tails: Default::default() });
        while self.weight > MAX_WEIGHT
            && let Some((_, evicted)) = self.records.pop_lru()
        {
            self.weight -= weight_of(&evicted.batch);
        }
    }

    /// Adds an attempt that has ended. Call it with the record that it led to, before anybody else sees that.
    pub(super) fn add_attempt(&mut self, id: BatchId, phase: Phase, attempt: Arc<Attempt>) {
        let Some(entry) = self.records.peek_mut(&id) else { return };
        let tail = &mut entry.tails[phase.index()];
        if attempt.number == 1 {
            *tail = Some(Tail::new());
        }
        if let Some(tail) = tail {
            tail.push_front(attempt);
            tail.truncate(TAIL);
        }
    }

    /// The newest attempts of `phase` that had ended by the time of `batch`, where that is the record here and they are at
    /// hand.
    pub(super) fn tail_of(&mut self, batch: &Arc<Batch>, phase: Phase) -> Option<Vec<Arc<Attempt>>> {
        let entry = self.records.peek(&batch.id).filter(|entry| Arc::ptr_eq(&entry.batch, batch))?;
        Some(entry.tails[phase.index()].as_ref()?.iter().cloned().collect())
    }

    /// Keeps attempts that were read from the ledger for `batch`, unless that has moved since.
    pub(super) fn put_tail(&mut self, batch: &Arc<Batch>, phase: Phase, newest: &[Arc<Attempt>]) {
        if let Some(entry) = self.records.peek_mut(&batch.id)
            && Arc::ptr_eq(&entry.batch, batch)
        {
            entry.tails[phase.index()] = Some(newest.iter().cloned().collect());
        }
    }
}

/// A batch has the same number of essays all its life, so its weight never changes.
fn weight_of(batch: &Batch) -> usize {
    BASE_WEIGHT + batch.essays.len()
}
