//! Retention: what is over for long enough is removed, a bite at a time, from the oldest on.
//!
//! Batches are removed by the partition that owns them, so that no step meets half of one; bulk retries and dead letters
//! by the committer, if they are still what they were.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::partition::Partition;
use super::request::Request;
use super::sweep::breathe;
use super::{Engine, Error, blocking};
use crate::domain::{BatchId, Millis};
use crate::store::{Aged, Commit, Old};

/// How many old things are removed at once: so few that a request behind them hardly waits. A batch of ten essays is
/// some thirty keys.
const BITE: usize = 2;

impl Engine {
    /// Removes everything that has been over for longer than this server retains, and says how much that was.
    pub(super) async fn remove_old(&self) -> Result<usize, Error> {
        let Some(retain_ms) = self.shared.retain_ms else { return Ok(0) };
        let before = Millis(self.clock().now().0.saturating_sub(retain_ms));
        let (mut removed, mut after) = (0, None);
        // A backup still wants what is old; the next sweep is soon enough.
        while !self.shared.store.has_snapshot() {
            let began = std::time::Instant::now();
            let store = self.shared.store.clone();
            let old = blocking(move || store.old(before, after, BITE)).await?;
            let Some(last) = old.last() else { return Ok(removed) };
            after = Some(*last);
            let count = self.remove(old).await?;
            self.counters().removed.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
            removed += count;
            breathe(began).await;
        }
        Ok(removed)
    }

    async fn remove(&self, old: Vec<Old>) -> Result<usize, Error> {
        let mut batches: HashMap<usize, Vec<(BatchId, Millis)>> = HashMap::new();
        let mut others = Vec::new();
        for one in old {
            match one.aged {
                Aged::Batch(id) => {
                    batches.entry(self.partition_index(id.0.as_bytes())).or_default().push((id, one.since));
                }
                Aged::Job(..) | Aged::Letter(_) => others.push(one),
            }
        }
        let mut count = others.len();
        let store = self.shared.store.clone();
        let commit = blocking(move || {
            let mut commit = Commit::new();
            others.into_iter().try_for_each(|one| store.remove_old(&mut commit, one))?;
            Ok(commit)
        });
        self.shared.store.commit(commit.await?).await?;
        for (partition, batches) in batches {
            let (reply, answer) = oneshot::channel();
            let request = Request::Forget { batches, reply };
            self.shared.partitions[partition].send(request).await.map_err(|_| self.unavailable())?;
            count += answer.await.map_err(|_| self.unavailable())??;
        }
        Ok(count)
    }
}

impl Partition {
    /// The removal of the batches that still rest since they were found, and which they are. It reads what is durable,
    /// so everything has to be.
    pub(super) fn forget(&self, batches: Vec<(BatchId, Millis)>) -> (Commit, Vec<BatchId>) {
        let (mut commit, mut forgotten) = (Commit::new(), Vec::new());
        for (id, since) in batches {
            let removal = self.durable_record(id).and_then(|batch| {
                let Some(batch) = batch.filter(|batch| batch.rests_since() == Some(since)) else { return Ok(None) };
                // Apart, so that of one that cannot be read to its end nothing goes.
                let mut removal = Commit::new();
                self.store.remove_batch(&mut removal, &batch)?;
                Ok(Some(removal))
            });
            match removal {
                Ok(None) => {}
                Ok(Some(removal)) => {
                    commit.append(removal);
                    forgotten.push(id);
                }
                Err(error) => tracing::error!(batch = %id, %error, "a batch cannot be read, so it is not removed"),
            }
        }
        (commit, forgotten)
    }
}
