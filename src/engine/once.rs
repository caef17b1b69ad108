//! Requests that name themselves: the first answer is stored with the change, and given again to a repetition.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use super::Error;
use crate::domain::{Batch, Millis};
use crate::store::{Store, StoredAnswer};

/// How long an answer is kept, in milliseconds: a day.
pub(super) const KEPT_MS: u64 = 86_400_000;

/// A request's name for itself, and what it is: the same name with something else is a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKey {
    pub(super) hash: [u8; 32],
    pub(super) fingerprint: [u8; 32],
}

impl RequestKey {
    /// The key `name` for a request that is made of `parts`.
    #[must_use]
    pub fn new(name: &str, parts: &[&[u8]]) -> Self {
        let mut fingerprint = Sha256::new();
        for part in parts {
            // The length keeps neighbours apart.
            fingerprint.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            fingerprint.update(part);
        }
        Self { hash: Sha256::digest(name).into(), fingerprint: fingerprint.finalize().into() }
    }

    /// The answer that this request had before, if it was made before.
    ///
    /// # Errors
    /// [`Error::KeyReused`] where another request had this key.
    pub(super) fn earlier_answer(&self, store: &Store, now: Millis) -> Result<Option<StoredAnswer>, Error> {
        match store.answer(&self.hash, now)? {
            Some(answer) if answer.fingerprint != self.fingerprint => Err(Error::KeyReused),
            answer => Ok(answer),
        }
    }
}

/// Makes the answer to a request out of the record that it led to.
pub(super) type Render = Box<dyn FnOnce(&Batch) -> StoredAnswer + Send>;

/// A request that takes effect once.
pub(super) struct Once {
    pub(super) key: RequestKey,
    pub(super) render: Render,
    /// Goes with the request, so that a client that hangs up does not free its key before its change is durable.
    pub(super) reservation: Reservation,
}

impl std::fmt::Debug for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.key.fmt(f)
    }
}

/// The keys of requests that are being served. Two requests with one key may be about batches of different partitions,
/// so no partition can tell by itself.
#[derive(Clone, Default)]
pub(super) struct InFlight(Arc<Served>);

#[derive(Default)]
struct Served {
    keys: Mutex<HashSet<[u8; 32]>>,
    /// One of them is free again.
    freed: Notify,
}

/// A key that nobody else is served with until this is dropped.
pub(super) struct Reservation {
    keys: InFlight,
    hash: [u8; 32],
}

impl InFlight {
    /// Reserves `key`, unless it is.
    pub(super) fn reserve(&self, key: RequestKey) -> Option<Reservation> {
        let is_new = self.0.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key.hash);
        is_new.then(|| Reservation { keys: self.clone(), hash: key.hash })
    }

    /// Waits until nobody else is served with `key`, and reserves it.
    pub(super) async fn reserve_in_turn(&self, key: RequestKey) -> Reservation {
        loop {
            let mut freed = std::pin::pin!(self.0.freed.notified());
            // Before it is looked at, so that what is freed meanwhile is heard.
            freed.as_mut().enable();
            if let Some(reservation) = self.reserve(key) {
                return reservation;
            }
            freed.await;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.keys.0.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.hash);
        self.keys.0.freed.notify_waiters();
    }
}
