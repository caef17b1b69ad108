//! The points at which a crash is interesting, by name; and a way to die at one of them.
//!
//! Each lies between two things that are not one: what was decided and what is written, what is written and what is
//! durable, what is durable and what is told. A test arms one, and the process ends there as kill -9 would end it: no
//! destructor runs, no buffer is written. Where none is armed, a point costs the read of one number.

use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

/// A point at which a process may die. In a fault rule it goes by its name in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// A group of commits was taken, and nothing of it is written.
    CommitTaken,
    /// All of it is in the system's memory.
    CommitWritten,
    /// It is durable, and nobody knows.
    CommitDurable,
    /// Readers can see it.
    CommitApplied,
    /// Its messages are on their way, and whoever waits for it has not been told.
    CommitFed,
    /// What the journal says is going to be settled, and a new segment has begun.
    SettleFrozen,
    /// It is in the database's memory.
    SettleWritten,
    /// It is durable there too, and the journal still says it.
    SettleDurable,
    /// The partition knows that its round is durable, and has not answered.
    StepAnswer,
    /// A message is about to be put on the bus.
    PublishDeliver,
    /// A message is on the bus.
    PublishDelivered,
    /// A consumer has a message and has done nothing about it.
    ConsumeTaken,
    /// What a message caused is durable, and the message is not acknowledged.
    Acknowledge,
    /// A worker has a command, and has not begun.
    WorkerTaken,
    /// A worker has a result, and has told nobody.
    WorkerResult,
    /// A worker of somebody else's has a command for it alone, and has not been told.
    LeaseGranted,
    /// A timer is due and was not told to its batch.
    TimerDue,
    /// The sweep knows what has expired.
    SweepBite,
    /// A batch of a bulk retry has its turn.
    JobTurn,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::CommitTaken,
        Self::CommitWritten,
        Self::CommitDurable,
        Self::CommitApplied,
        Self::CommitFed,
        Self::SettleFrozen,
        Self::SettleWritten,
        Self::SettleDurable,
        Self::StepAnswer,
        Self::PublishDeliver,
        Self::PublishDelivered,
        Self::ConsumeTaken,
        Self::Acknowledge,
        Self::WorkerTaken,
        Self::WorkerResult,
        Self::LeaseGranted,
        Self::TimerDue,
        Self::SweepBite,
        Self::JobTurn,
    ];
}

/// The armed point, as its place in [`Point::ALL`] and one; 0 for none.
static ARMED: AtomicU32 = AtomicU32::new(0);

/// How many times it is passed before the process dies.
static PASSES: AtomicU32 = AtomicU32::new(0);

/// Lets the process die when it reaches `point` once more after it has passed it `passes` times.
pub fn arm(point: Point, passes: u32) {
    PASSES.store(passes, Ordering::SeqCst);
    ARMED.store(point as u32 + 1, Ordering::SeqCst);
}

/// The process is at `point`.
pub(crate) fn reach(point: Point) {
    if ARMED.load(Ordering::Relaxed) != point as u32 + 1 {
        return;
    }
    let is_due = PASSES.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |passes| passes.checked_sub(1)).is_err();
    if is_due {
        std::process::abort();
    }
}
