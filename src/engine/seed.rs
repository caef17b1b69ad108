//! Batches with a past, for tests: played through the step function, and committed at once.

use super::request::Settlement;
use super::{Engine, Error, content_id, publish};
use crate::domain::history::{Impossible, Played, Story, play};
use crate::domain::{BatchId, Millis, Rules};
use crate::store::Commit;

/// A batch to make.
#[derive(Debug)]
pub struct Seed {
    /// What happened to it. The last of it has happened just now.
    pub story: Story,
    /// Texts to store with it.
    pub texts: Vec<String>,
    /// How long ago the last of it happened, in milliseconds.
    pub ago_ms: u64,
}

/// Why nothing was seeded.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// A story cannot have happened.
    #[error("batch {batch}, chapter {chapter}: {error}")]
    Impossible {
        /// Which batch, from 0.
        batch: usize,
        /// Which chapter of its story, from 0.
        chapter: usize,
        /// Why not.
        error: Impossible,
    },
    /// It could not be stored.
    #[error(transparent)]
    Engine(#[from] Error),
}

impl Engine {
    /// Makes batches with a past, all or none, and says which they are. What is open in one of them goes on from now on.
    ///
    /// # Errors
    /// [`SeedError`]; nothing is stored then.
    pub async fn seed(&self, seeds: Vec<Seed>) -> Result<Vec<BatchId>, SeedError> {
        let (rules, now) = (self.shared.rules.clone(), self.clock().now());
        let made = tokio::task::spawn_blocking(move || make(seeds, &rules, now)).await;
        let Made { commit, ids, due } = made.map_err(|error| Error::Unavailable(error.to_string()))??;
        // No partition has heard of any of them, so whichever commits them is the right one.
        self.settle(&[], Settlement::of(commit)).await?;
        for due in due {
            self.shared.timers.wake_at(due);
        }
        Ok(ids)
    }
}

/// What is to be committed, and the timers in it.
struct Made {
    commit: Commit,
    ids: Vec<BatchId>,
    due: Vec<Millis>,
}

fn make(seeds: Vec<Seed>, rules: &Rules, now: Millis) -> Result<Made, SeedError> {
    let (mut commit, mut ids, mut due) = (Commit::new(), Vec::with_capacity(seeds.len()), Vec::new());
    for (place, Seed { story, texts, ago_ms }) in seeds.into_iter().enumerate() {
        let play = |began| {
            play(&story, rules, began).map_err(|(chapter, error)| SeedError::Impossible {
                batch: place,
                chapter,
                error,
            })
        };
        // Once to see how long it takes; waits are drawn from the id, so it takes as long the next time.
        let took_ms = play(Millis(0))?.batch.updated_at.0;
        let Played { batch, attempts, open } = play(Millis(now.0.saturating_sub(took_ms + ago_ms)))?;
        for text in &texts {
            commit.put_content(text);
            commit.refer_to(&content_id(text), batch.id);
        }
        commit.put_batch(None, &batch).map_err(Error::from)?;
        for (phase, attempt) in attempts {
            commit.record_attempt(batch.id, phase, &attempt).map_err(Error::from)?;
        }
        for timer in batch.timers() {
            commit.arm_timer(batch.id, timer);
            due.push(timer.due);
        }
        if let Some((record, number, outgoing)) = open {
            let message = publish::message(&record, number, outgoing).map_err(Error::from)?;
            commit.publish(message).map_err(Error::from)?;
        }
        ids.push(batch.id);
    }
    Ok(Made { commit, ids, due })
}
