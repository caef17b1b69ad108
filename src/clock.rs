//! The only room that reads the system's clock. A manual clock stands still until a test moves it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::domain::Millis;

/// The longest sleep without a look at the system's clock, which may be set while somebody sleeps.
const MAX_SLEEP: Duration = Duration::from_mins(1);

/// Tells the time, and sleeps. Its clones tell the same time.
#[derive(Debug, Clone)]
pub struct Clock(Kind);

#[derive(Debug, Clone)]
enum Kind {
    System,
    Manual(Arc<watch::Sender<Millis>>),
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
            Kind::System => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
            }
            Kind::Manual(now) => *now.borrow(),
        }
    }

    /// Sleeps until the time is `due` or later.
    pub async fn sleep_until(&self, due: Millis) {
        match &self.0 {
            Kind::System => loop {
                let left_ms = due.since(self.now());
                if left_ms == 0 {
                    return;
                }
                tokio::time::sleep(MAX_SLEEP.min(Duration::from_millis(left_ms))).await;
            },
            Kind::Manual(now) => {
                // The sender lives as long as this clock, so the wait ends in no other way.
                let _ = now.subscribe().wait_for(|now| *now >= due).await;
            }
        }
    }

    /// Sleeps for `duration_ms` milliseconds.
    pub async fn sleep(&self, duration_ms: u64) {
        if duration_ms > 0 {
            self.sleep_until(self.now().plus(duration_ms)).await;
        }
    }
}

/// Moves a clock that stands still otherwise.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<watch::Sender<Millis>>);

impl ManualClock {
    /// A clock that shows `now` until it is moved.
    #[must_use]
    pub fn new(now: Millis) -> Self {
        Self(Arc::new(watch::Sender::new(now)))
    }

    /// The clock that this one moves.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock(Kind::Manual(Arc::clone(&self.0)))
    }

    /// Moves it by `duration_ms` milliseconds; everybody whose sleep is over then wakes.
    pub fn advance(&self, duration_ms: u64) {
        self.0.send_modify(|now| *now = now.plus(duration_ms));
    }
}
