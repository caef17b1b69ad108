//! What has been counted since the start.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::{Attempt, AttemptOutcome, Phase, Trigger};
use crate::tally::{Histogram, LATENCIES_NS};

/// What has been counted since the start.
#[derive(Debug)]
pub struct Counters {
    /// Steps that were committed.
    pub steps: AtomicU64,
    /// Steps that the batch, as it stood, did not allow, whoever asked for them.
    pub refused_steps: AtomicU64,
    /// Steps that had been made before: messages that came again, and requests that named themselves.
    pub repeated_steps: AtomicU64,
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
    /// How long sweeps took, in nanoseconds, their rests included.
    pub sweeps_ns: Histogram,
    /// Attempts that have ended.
    pub attempts: Attempts,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            steps: AtomicU64::default(),
            refused_steps: AtomicU64::default(),
            repeated_steps: AtomicU64::default(),
            duplicates: AtomicU64::default(),
            refused_messages: AtomicU64::default(),
            late_outcomes: AtomicU64::default(),
            broken_timers: AtomicU64::default(),
            swept_keys: AtomicU64::default(),
            removed: AtomicU64::default(),
            sweeps_ns: Histogram::new(LATENCIES_NS),
            attempts: Attempts::default(),
        }
    }
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Attempts that have ended, by what caused them and how they ended.
#[derive(Debug, Default)]
pub struct Attempts([[[AtomicU64; AttemptOutcome::ALL.len()]; Trigger::ALL.len()]; Phase::ALL.len()]);

impl Attempts {
    pub(super) fn add(&self, phase: Phase, attempt: &Attempt) {
        if let Some(end) = &attempt.end {
            Counters::add(&self.0[phase.index()][attempt.trigger as usize][end.outcome as usize]);
        }
    }

    /// How many there are of each kind.
    pub fn all(&self) -> impl Iterator<Item = (Phase, Trigger, AttemptOutcome, u64)> {
        let kinds = |(phase, trigger)| AttemptOutcome::ALL.map(|outcome| (phase, trigger, outcome));
        let pairs = Phase::ALL.into_iter().flat_map(|phase| Trigger::ALL.map(|trigger| (phase, trigger)));
        pairs.flat_map(kinds).map(|(phase, trigger, outcome): (Phase, Trigger, AttemptOutcome)| {
            let count = &self.0[phase.index()][trigger as usize][outcome as usize];
            (phase, trigger, outcome, count.load(Ordering::Relaxed))
        })
    }
}
