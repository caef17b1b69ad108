//! The only room that reads the system's clock. A manual clock is moved by a test: it stands still otherwise, or goes with
//! the system's.

mod hand;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::domain::Millis;
use hand::{Hand, Stop};

/// The longest sleep without a look at the system's clock, which may be set while somebody sleeps.
const MAX_SLEEP: Duration = Duration::from_mins(1);

/// Tells the time, and sleeps. Its clones tell the same time.
#[derive(Debug, Clone)]
pub struct Clock(Kind);

#[derive(Debug, Clone)]
enum Kind {
    System,
    Manual(Arc<Hand>),
}

fn system_now() -> Millis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(Kind::System)
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Millis {
        match &self.0 {
            Kind::System => system_now(),
            Kind::Manual(hand) => hand.now(),
        }
    }

    /// Sleeps until the time is `due` or later.
    pub async fn sleep_until(&self, due: Millis) {
        self.work("somebody who slept").sleep_until(due).await;
    }

    /// Sleeps for `duration_ms` milliseconds.
    pub async fn sleep(&self, duration_ms: u64) {
        if duration_ms > 0 {
            self.sleep_until(self.now().plus(duration_ms)).await;
        }
    }

    /// Says that `what` is being worked on until this is dropped: a manual clock that is run waits for it, because it may
    /// be about to sleep until a time before the next one that is due. For the system's clock it is nothing.
    #[must_use]
    pub fn work(&self, what: &'static str) -> Work {
        if let Kind::Manual(hand) = &self.0 {
            hand.begin(what);
        }
        Work { clock: self.clone(), what }
    }

    /// Whether it can be moved by hand, so that many may sleep at once who wake together.
    #[must_use]
    pub const fn is_manual(&self) -> bool {
        matches!(self.0, Kind::Manual(_))
    }
}

/// Something that is being worked on.
#[derive(Debug)]
pub struct Work {
    clock: Clock,
    what: &'static str,
}

impl Work {
    /// Sleeps until the time is `due` or later. Nothing is worked on meanwhile.
    pub async fn sleep_until(&mut self, due: Millis) {
        self.sleep_and_stop(due, Stop::Here).await;
    }

    /// The same, for what only has to happen now and then: a manual clock that is run does not stop for it.
    pub async fn pause(&mut self, duration_ms: u64) {
        let due = self.clock.now().plus(duration_ms);
        self.sleep_and_stop(due, Stop::Past).await;
    }

    async fn sleep_and_stop(&self, due: Millis, stop: Stop) {
        match &self.clock.0 {
            Kind::System => loop {
                let left_ms = due.since(system_now());
                if left_ms == 0 {
                    return;
                }
                tokio::time::sleep(MAX_SLEEP.min(Duration::from_millis(left_ms))).await;
            },
            Kind::Manual(hand) => hand.sleep_until(due, self.what, stop).await,
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Kind::Manual(hand) = &self.clock.0 {
            hand.end(self.what);
        }
    }
}

/// Moves a clock.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Hand>);

/// Why a clock was not run to the end: what was due, or followed from it, took too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("still going on at {}: {}", .now.to_timestamp(), .working.iter().map(|(what, count)| format!("{what} ({count})")).collect::<Vec<_>>().join(", "))]
pub struct Unfinished {
    /// What the clock showed then.
    pub now: Millis,
    /// What was being worked on, and how many times; nothing where there was only too much of it, one after the other.
    pub working: Vec<(&'static str, usize)>,
}

impl ManualClock {
    /// A clock that shows `now` until it is moved.
    #[must_use]
    pub fn new(now: Millis) -> Self {
        Self(Arc::new(Hand::still(now)))
    }

    /// A clock that goes with the system's, so far ahead of it as it is moved.
    #[must_use]
    pub fn following() -> Self {
        Self(Arc::new(Hand::following()))
    }

    /// The clock that this one moves.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock(Kind::Manual(Arc::clone(&self.0)))
    }

    /// Moves it by `duration_ms` milliseconds; everybody whose sleep is over then wakes.
    pub fn advance(&self, duration_ms: u64) {
        self.0.advance(duration_ms);
    }

    /// Moves it by `duration_ms` milliseconds, from each time that is due to the next, and goes on each time once
    /// everything that was due, and what followed from it, has been worked on; answers what it shows in the end. The
    /// system's clock does not move it meanwhile. Run it for one caller at a time.
    ///
    /// # Errors
    /// [`Unfinished`] where that takes longer than `patience`; the clock then goes on from where it had got to.
    pub async fn run(&self, duration_ms: u64, patience: Duration) -> Result<Millis, Unfinished> {
        let held = self.0.hold();
        let last = self.0.now().plus(duration_ms);
        let run = async {
            held.rest().await;
            while let Some(due) = held.next_stop(last) {
                held.move_to(due);
                held.rest().await;
                // With nobody to wait for, patience has to have its turn all the same.
                tokio::task::yield_now().await;
            }
            held.move_to(last);
            held.rest().await;
        };
        match tokio::time::timeout(patience, run).await {
            Ok(()) => Ok(self.0.now()),
            Err(_) => Err(Unfinished { now: self.0.now(), working: held.working() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_clock_that_is_run_stops_for_everybody_in_turn() {
        let manual = ManualClock::new(Millis(1_000));
        let clock = manual.clock();
        let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
        for (first, then) in [(10, 25), (20, 5), (500, 0)] {
            let (clock, told) = (clock.clone(), told.clone());
            let mut work = clock.work("a sleeper");
            tokio::spawn(async move {
                work.sleep_until(Millis(1_000 + first)).await;
                told.send(clock.now().0).expect("heard");
                tokio::task::yield_now().await;
                // One that is armed by what was due comes in its turn too.
                work.sleep_until(clock.now().plus(then)).await;
                told.send(clock.now().0).expect("heard");
            });
        }
        assert_eq!(manual.run(100, PATIENCE).await, Ok(Millis(1_100)));
        let mut times = Vec::new();
        while let Ok(time) = seen.try_recv() {
            times.push(time);
        }
        assert_eq!(times, [1_010, 1_020, 1_025, 1_035]);
    }

    #[tokio::test]
    async fn a_pause_is_no_stop_and_ends_all_the_same() {
        let manual = ManualClock::new(Millis(0));
        let clock = manual.clock();
        let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let mut work = clock.work("the sweep");
        tokio::spawn(async move {
            loop {
                work.pause(10).await;
                if told.send(clock.now().0).is_err() {
                    return;
                }
            }
        });
        assert_eq!(manual.run(1_000_000, PATIENCE).await, Ok(Millis(1_000_000)));
        assert_eq!((seen.try_recv(), seen.try_recv().is_err()), (Ok(1_000_000), true));
    }

    #[tokio::test]
    async fn what_does_not_rest_is_named() {
        let manual = ManualClock::following();
        let before = manual.clock().now();
        let _work = manual.clock().work("a phase");
        let unfinished = manual.run(10_000, Duration::from_millis(20)).await.expect_err("it works on");
        assert_eq!(unfinished.working, [("a phase", 1)]);
        // It has not been moved, and goes on.
        assert!(unfinished.now.since(before) < 10_000);
    }

    #[tokio::test]
    async fn a_clock_that_follows_wakes_by_itself_and_when_it_is_moved() {
        let manual = ManualClock::following();
        let clock = manual.clock();
        clock.sleep(1).await;
        let before = clock.now();
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(3_600_000).await }
        });
        tokio::task::yield_now().await;
        manual.run(3_600_001, PATIENCE).await.expect("nothing is going on");
        sleeper.await.expect("awake");
        assert!(clock.now().since(before) >= 3_600_000);
    }
}
