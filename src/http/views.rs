//! Bodies that were rendered before. Batches are read much more often than they change.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use lru::LruCache;

use crate::domain::{Batch, BatchId, Millis};

/// How much memory the bodies may take, in bytes.
const MAX_BYTES: usize = 8 * 1_024 * 1_024;

/// What is counted for a body besides its bytes.
const OVERHEAD: usize = 128;

/// The newest status of each batch that was read lately.
#[derive(Clone)]
pub(super) struct Views(Arc<Mutex<Kept>>);

struct Kept {
    bodies: LruCache<BatchId, View>,
    bytes: usize,
}

/// A body, and what it was made of.
struct View {
    version: u64,
    stuck_since: Option<Millis>,
    body: Bytes,
}

impl Views {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Kept { bodies: LruCache::unbounded(), bytes: 0 })))
    }

    /// The status of `batch`, where it was rendered as it is now.
    pub(super) fn get(&self, batch: &Batch, stuck_since: Option<Millis>) -> Option<Bytes> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let view = kept.bodies.get(&batch.id)?;
        let is_same = view.version == batch.version && view.stuck_since == stuck_since;
        is_same.then(|| view.body.clone())
    }

    /// Keeps a status.
    pub(super) fn put(&self, batch: &Batch, stuck_since: Option<Millis>, body: Bytes) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += OVERHEAD + body.len();
        if let Some(old) = kept.bodies.put(batch.id, View { version: batch.version, stuck_since, body }) {
            kept.bytes -= OVERHEAD + old.body.len();
        }
        while kept.bytes > MAX_BYTES
            && let Some((_, evicted)) = kept.bodies.pop_lru()
        {
            kept.bytes -= OVERHEAD + evicted.body.len();
        }
    }
}
