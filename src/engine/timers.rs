//! Timers: one task sleeps until the first is due, or a sooner one is committed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use super::request::{Cause, Request, StepRequest};
use super::{Counters, Engine, Error, Submission, blocking};
use crate::clock::{Clock, Work};
use crate::crash::{self, Point};
use crate::domain::Millis;
use crate::store::TimerEntry;

/// How many due timers are handled before the next are read.
const PAGE: usize = 64;

/// How long the task waits after it failed to handle what is due, in milliseconds.
const PAUSE_MS: u64 = 1_000;

/// What is said of this task while it is at work.
const TIMERS: &str = "a timer";

/// Where partitions say that a timer was committed.
#[derive(Clone)]
pub(super) struct Timers(Arc<Alarm>);

pub(super) struct Alarm {
    /// When the task wakes by itself, in milliseconds.
    wakes_at: AtomicU64,
    sooner: Notify,
    /// The task has been told and has not looked yet.
    told: Mutex<Option<Work>>,
    clock: Clock,
}

pub(super) fn channel(clock: &Clock) -> (Timers, Arc<Alarm>) {
    let (told, clock) = (Mutex::default(), clock.clone());
    let alarm = Arc::new(Alarm { wakes_at: AtomicU64::new(0), sooner: Notify::new(), told, clock });
    (Timers(Arc::clone(&alarm)), alarm)
}

impl Timers {
    /// A timer that is due at `due` is durable.
    pub(super) fn wake_at(&self, due: Millis) {
        if due.0 < self.0.wakes_at.fetch_min(due.0, Ordering::AcqRel) {
            self.0.tell(Some(self.0.clock.work(TIMERS)));
            self.0.sooner.notify_one();
        }
    }
}

impl Alarm {
    fn tell(&self, work: Option<Work>) {
        let before = std::mem::replace(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner), work);
        drop(before);
    }
}

pub(super) fn start(engine: &Engine, alarm: Arc<Alarm>) {
    let handle = engine.clone();
    // From now on, and not only once the task has its first turn.
    let work = engine.clock().work(TIMERS);
    engine.spawn_core(run(handle, alarm, work));
}

async fn run(engine: Engine, alarm: Arc<Alarm>, mut work: Work) {
    let mut broken = HashSet::new();
    loop {
        alarm.tell(None);
        // Until the timers have been read, any that is committed counts as sooner.
        alarm.wakes_at.store(u64::MAX, Ordering::Release);
        let clock = engine.clock().clone();
        let due = match fire_due(&engine, &mut broken).await {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(%error, "timers that are due could not be handled; trying again");
                Some(clock.now().plus(PAUSE_MS))
            }
        };
        let due = due.unwrap_or(Millis(u64::MAX));
        let due = Millis(alarm.wakes_at.fetch_min(due.0, Ordering::AcqRel).min(due.0));
        tokio::select! {
            () = work.sleep_until(due) => {}
            () = alarm.sooner.notified() => {}
        }
    }
}

/// Handles everything that is due, and says when the next timer is. A timer whose batch cannot be read is left behind,
/// so that it holds up nobody else; `broken` remembers it.
async fn fire_due(engine: &Engine, broken: &mut HashSet<TimerEntry>) -> Result<Option<Millis>, Error> {
    loop {
        let store = engine.shared.store.clone();
        let limit = PAGE + broken.len();
        let mut timers = blocking(move || store.timers(limit)).await?;
        timers.retain(|entry| !broken.contains(entry));
        let now = engine.clock().now();
        let Some(first) = timers.first() else { return Ok(None) };
        if first.timer.due > now {
            return Ok(Some(first.timer.due));
        }
        for entry in timers.into_iter().take_while(|entry| entry.timer.due <= now) {
            if let Err(error) = fire(engine, entry).await {
                if engine.failure().is_some() || engine.stopping().is_cancelled() {
                    return Err(error);
                }
                let (batch, phase) = (entry.batch, entry.timer.phase);
                tracing::error!(%batch, %phase, %error, "a timer is due and its batch cannot be read");
                Counters::add(&engine.counters().broken_timers);
                broken.insert(entry);
            }
        }
    }
}

async fn fire(engine: &Engine, entry: TimerEntry) -> Result<(), Error> {
    crash::reach(Point::TimerDue);
    let TimerEntry { batch, timer } = entry;
    let (reply, answer) = oneshot::channel();
    let correlation_id =
        Uuid::new_v5(&batch.0, format!("{:?}/{}/{}", timer.kind, timer.phase, timer.attempt).as_bytes());
    let request = StepRequest {
        batch,
        submission: Submission::new(timer.input(), correlation_id),
        cause: Cause::Timer(timer),
        reply,
    };
    let partition = engine.partition_of(batch.0.as_bytes());
    partition.send(Request::Step(Box::new(request))).await.map_err(|_| engine.unavailable())?;
    match answer.await.map_err(|_| engine.unavailable())? {
        Ok(_) => {
            let (phase, attempt, due) = (timer.phase, timer.attempt, timer.kind);
            tracing::info!(%batch, %phase, attempt, ?due, "a timer was due");
        }
        // The attempt ended in the same moment; the timer is gone all the same.
        Err(Error::Rejected(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
