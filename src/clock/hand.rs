//! What is behind a clock that is moved by hand: the time it shows, who sleeps by it, and who is at work.
//!
//! Whoever is at work may be about to sleep until a time that nobody knows yet, so the hand can go from one time that is
//! due to the next only while nobody is. Who wakes is at work from that moment on, not from when it is polled: otherwise
//! everybody would seem to rest just after the hand was moved.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::{MAX_SLEEP, system_now};
use crate::domain::Millis;

#[derive(Debug)]
pub(super) struct Hand {
    state: Mutex<State>,
    /// The last who was at work is no longer.
    rested: Notify,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    /// By when they are due; the number keeps apart those that are due together.
    sleepers: BTreeMap<(Millis, u64), Sleeper>,
    next_number: u64,
    /// How many are at work, by what they do.
    working: BTreeMap<&'static str, usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// It shows this.
    Still(Millis),
    /// It goes with the system's clock, so far ahead of it.
    Follows { ahead_ms: i64 },
}

#[derive(Debug)]
struct Sleeper {
    wake: Arc<Notify>,
    what: &'static str,
    stop: Stop,
}

/// Whether the hand stops where a sleep is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It does.
    Here,
    /// It goes past, and the sleeper wakes where it stops next.
    Past,
}

impl State {
    fn now(&self) -> Millis {
        match self.mode {
            Mode::Still(now) => now,
            Mode::Follows { ahead_ms } => Millis(system_now().0.saturating_add_signed(ahead_ms)),
        }
    }

    fn begin(&mut self, what: &'static str) {
        *self.working.entry(what).or_default() += 1;
    }

    /// Says whether nobody is at work any more.
    fn end(&mut self, what: &'static str) -> bool {
        if let Some(count) = self.working.get_mut(what) {
            *count -= 1;
            if *count == 0 {
                self.working.remove(what);
            }
        }
        self.working.is_empty()
    }

    /// Wakes everybody whose sleep is over at `now`.
    fn wake_until(&mut self, now: Millis) {
        while let Some(first) = self.sleepers.first_entry().filter(|first| first.key().0 <= now) {
            let Sleeper { wake, what, stop: _ } = first.remove();
            self.begin(what);
            wake.notify_one();
        }
    }
}

impl Hand {
    pub(super) fn still(now: Millis) -> Self {
        Self::new(Mode::Still(now))
    }

    pub(super) fn following() -> Self {
        Self::new(Mode::Follows { ahead_ms: 0 })
    }

    fn new(mode: Mode) -> Self {
        let state = State { mode, sleepers: BTreeMap::new(), next_number: 0, working: BTreeMap::new() };
        Self { state: Mutex::new(state), rested: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Millis {
        self.state().now()
    }

    pub(super) fn begin(&self, what: &'static str) {
        self.state().begin(what);
    }

    pub(super) fn end(&self, what: &'static str) {
        if self.state().end(what) {
            self.rested.notify_waiters();
        }
    }

    /// Sleeps until `due`. Whoever calls it is at work, and is again when this ends; meanwhile it is not.
    pub(super) async fn sleep_until(&self, due: Millis, what: &'static str, stop: Stop) {
        let Some(sleep) = Sleep::begin(self, due, what, stop) else { return };
        loop {
            let moved = sleep.wake.notified();
            match sleep.left() {
                Left::Nothing => return,
                Left::UntilMoved => moved.await,
                Left::Real(left) => tokio::select! {
                    () = moved => {}
                    () = tokio::time::sleep(MAX_SLEEP.min(left)) => {}
                },
            }
        }
    }

    /// Moves a hand that stands still by `duration_ms`; one that goes is that much further ahead from then on.
    pub(super) fn advance(&self, duration_ms: u64) {
        let mut state = self.state();
        let now = state.now().plus(duration_ms);
        match &mut state.mode {
            Mode::Still(shown) => *shown = now,
            Mode::Follows { ahead_ms } => *ahead_ms = ahead_ms.saturating_add_unsigned(duration_ms),
        }
        state.wake_until(now);
    }

    /// Holds the hand where it is, until what this answers is dropped.
    pub(super) fn hold(&self) -> Held<'_> {
        let mut state = self.state();
        let goes_on = matches!(state.mode, Mode::Follows { .. });
        let now = state.now();
        state.mode = Mode::Still(now);
        state.wake_until(now);
        Held { hand: self, goes_on }
    }
}

/// Somebody who sleeps, or has just woken.
struct Sleep<'a> {
    hand: &'a Hand,
    key: (Millis, u64),
    what: &'static str,
    wake: Arc<Notify>,
}

/// How long a sleep still is.
enum Left {
    Nothing,
    /// As long as nobody moves the hand.
    UntilMoved,
    /// That long, as the hand goes.
    Real(Duration),
}

impl<'a> Sleep<'a> {
    fn begin(hand: &'a Hand, due: Millis, what: &'static str, stop: Stop) -> Option<Self> {
        let mut state = hand.state();
        if due <= state.now() {
            return None;
        }
        let key = (due, state.next_number);
        state.next_number += 1;
        let wake = Arc::new(Notify::new());
        state.sleepers.insert(key, Sleeper { wake: Arc::clone(&wake), what, stop });
        let has_rested = state.end(what);
        drop(state);
        if has_rested {
            hand.rested.notify_waiters();
        }
        Some(Self { hand, key, what, wake })
    }

    fn left(&self) -> Left {
        let mut state = self.hand.state();
        let now = state.now();
        if !state.sleepers.contains_key(&self.key) {
            return Left::Nothing;
        }
        match state.mode {
            Mode::Still(_) => Left::UntilMoved,
            Mode::Follows { .. } if self.key.0 <= now => {
                state.wake_until(now);
                Left::Nothing
            }
            Mode::Follows { .. } => Left::Real(Duration::from_millis(self.key.0.since(now))),
        }
    }
}

impl Drop for Sleep<'_> {
    /// At work again: since it was woken, or, where it was not, from now on.
    fn drop(&mut self) {
        let mut state = self.hand.state();
        if state.sleepers.remove(&self.key).is_some() {
            state.begin(self.what);
        }
    }
}

/// A hand that goes only where it is moved. Where it followed the system's clock it goes on when this is dropped, from
/// where it is.
pub(super) struct Held<'a> {
    hand: &'a Hand,
    goes_on: bool,
}

impl Held<'_> {
    /// Waits until nobody is at work.
    pub(super) async fn rest(&self) {
        loop {
            let mut rested = std::pin::pin!(self.hand.rested.notified());
            rested.as_mut().enable();
            if self.hand.state().working.is_empty() {
                return;
            }
            rested.await;
        }
    }

    /// The next time at which the hand has to stop, where that is no later than `last`.
    pub(super) fn next_stop(&self, last: Millis) -> Option<Millis> {
        let state = self.hand.state();
        let stops = state.sleepers.iter().filter(|(_, sleeper)| sleeper.stop == Stop::Here);
        let first = stops.map(|((due, _), _)| *due).next();
        first.filter(|due| *due <= last)
    }

    /// Moves the hand forward to `time`; everybody whose sleep is over then wakes.
    pub(super) fn move_to(&self, time: Millis) {
        let mut state = self.hand.state();
        let now = state.now().max(time);
        state.mode = Mode::Still(now);
        state.wake_until(now);
    }

    /// What is being worked on, and by how many.
    pub(super) fn working(&self) -> Vec<(&'static str, usize)> {
        self.hand.state().working.iter().map(|(what, count)| (*what, *count)).collect()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.goes_on {
            return;
        }
        let mut state = self.hand.state();
        let (now, system) = (state.now().0, system_now().0);
        let ahead_ms = i64::try_from(i128::from(now) - i128::from(system)).unwrap_or(i64::MAX);
        state.mode = Mode::Follows { ahead_ms };
        for sleeper in state.sleepers.values() {
            // It sleeps by the system's clock again.
            sleeper.wake.notify_one();
        }
    }
}
