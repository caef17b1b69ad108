//! The sweep: what has expired, and what is old, is removed, a bite at a time.
//!
//! It walks indexes that are ordered by time, so it reads what goes and not what stays; and it rests after each bite as
//! long as that took, so that it takes at most half of what the disk and the database can do.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Engine, Error, blocking};
use crate::clock::Work;
use crate::crash::{self, Point};
use crate::store::Commit;

/// How many keys are removed in one commit: so few that a request behind it hardly waits.
const BITE: usize = 16;

pub(super) fn start(engine: &Engine, interval_ms: u64) {
    let handle = engine.clone();
    let work = engine.clock().work("the sweep");
    engine.spawn_core(run(handle, interval_ms, work));
}

async fn run(engine: Engine, interval_ms: u64, mut work: Work) {
    loop {
        match engine.sweep().await {
            Ok(0) => {}
            Ok(swept) => tracing::debug!(swept, "expired keys and old records were removed"),
            Err(error) => tracing::warn!(%error, "the sweep failed; the next one goes on"),
        }
        work.pause(interval_ms.max(1)).await;
    }
}

impl Engine {
    /// Removes every idempotency key that has expired, and whatever has been over for longer than it is retained, and
    /// says how many there were. Runs by itself at an interval.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; what was removed until then stays removed.
    pub async fn sweep(&self) -> Result<usize, Error> {
        // Two at once would read and remove the same.
        let Ok(_turn) = self.shared.sweeping.acquire().await else { return Ok(0) };
        let began = Instant::now();
        let swept = self.sweep_all().await;
        self.counters().sweeps_ns.observe_since(began);
        swept
    }

    async fn sweep_all(&self) -> Result<usize, Error> {
        let now = self.clock().now();
        let mut swept = 0;
        loop {
            let began = Instant::now();
            let store = self.shared.store.clone();
            let expired = blocking(move || store.expired_keys(now, BITE)).await?;
            let count = expired.len();
            if count > 0 {
                crash::reach(Point::SweepBite);
                let mut commit = Commit::new();
                for key in expired {
                    commit.remove_expired(key);
                }
                self.shared.store.commit(commit).await?;
                self.counters().swept_keys.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
                swept += count;
            }
            if count < BITE {
                return Ok(swept + self.remove_old().await?);
            }
            breathe(began).await;
        }
    }
}

/// Rests as long as it took since `began`.
pub(super) async fn breathe(began: Instant) {
    tokio::time::sleep(began.elapsed()).await;
}
