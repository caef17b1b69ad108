//! The records a partition has at hand.

use std::sync::Arc;

use lru::LruCache;

use crate::domain::{Batch, BatchId};

/// How many essays' worth of records one partition keeps: some ten megabytes.
const MAX_WEIGHT: usize = 16_384;

/// What a record weighs besides its essays.
const BASE_WEIGHT: usize = 4;

/// Durable records, the most recently used first out of reach of eviction.
pub(super) struct Cache {
    records: LruCache<BatchId, Arc<Batch>>,
    weight: usize,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self { records: LruCache::unbounded(), weight: 0 }
    }

    pub(super) fn get(&mut self, id: BatchId) -> Option<Arc<Batch>> {
        self.records.get(&id).cloned()
    }

    pub(super) fn remove(&mut self, id: BatchId) {
        if let Some(old) = self.records.pop(&id) {
            self.weight -= weight_of(&old);
        }
    }

    pub(super) fn put(&mut self, batch: Arc<Batch>) {
        self.weight += weight_of(&batch);
        if let Some(old) = self.records.put(batch.id, batch) {
            self.weight -= weight_of(&old);
        }
        while self.weight > MAX_WEIGHT
            && let Some((_, evicted)) = self.records.pop_lru()
        {
            self.weight -= weight_of(&evicted);
        }
    }
}

/// A batch has the same number of essays all its life, so its weight never changes.
fn weight_of(batch: &Batch) -> usize {
    BASE_WEIGHT + batch.essays.len()
}
