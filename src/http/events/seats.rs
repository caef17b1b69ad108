//! How many streams there are, and which of them has the seat of its group.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::domain::EventGroup;
use crate::http::problem::Problem;
use crate::http::serve::Limits;

/// What streams share.
#[derive(Clone)]
pub(in crate::http) struct Streams {
    places: Arc<Semaphore>,
    size: usize,
    seats: Seats,
    pub(super) heartbeat: Duration,
}

type Seats = Arc<Mutex<HashMap<EventGroup, Occupied>>>;

/// A group somebody reads for.
struct Occupied {
    number: u64,
    leave: CancellationToken,
}

/// The seat of a group, until this is dropped or somebody else takes it.
pub(super) struct Seat {
    seats: Seats,
    group: EventGroup,
    number: u64,
    leave: CancellationToken,
}

impl Streams {
    pub(in crate::http) fn new(limits: &Limits) -> Self {
        let places = Arc::new(Semaphore::new(limits.streams));
        // A pause of none would be no pause.
        let (size, heartbeat) = (limits.streams, limits.heartbeat.max(Duration::from_millis(1)));
        Self { places, size, seats: Seats::default(), heartbeat }
    }

    /// How many streams are open.
    pub(in crate::http) fn open(&self) -> usize {
        self.size.saturating_sub(self.places.available_permits())
    }

    /// A place for one more stream.
    pub(super) fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| Problem::too_many_streams())
    }

    /// Takes the seat of `group`; whoever had it leaves.
    pub(super) fn sit(&self, group: EventGroup) -> Seat {
        let leave = CancellationToken::new();
        let mut seats = lock(&self.seats);
        let number = seats.get(&group).map_or(0, |before| before.number + 1);
        if let Some(before) = seats.insert(group.clone(), Occupied { number, leave: leave.clone() }) {
            before.leave.cancel();
        }
        drop(seats);
        Seat { seats: Arc::clone(&self.seats), group, number, leave }
    }

    /// Whether somebody reads for `group`.
    pub(super) fn is_taken(&self, group: &EventGroup) -> bool {
        lock(&self.seats).contains_key(group)
    }
}

impl Seat {
    /// Waits until somebody else takes the seat.
    pub(super) async fn taken(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = lock(&self.seats);
        if seats.get(&self.group).is_some_and(|now| now.number == self.number) {
            seats.remove(&self.group);
        }
    }
}

fn lock(seats: &Seats) -> MutexGuard<'_, HashMap<EventGroup, Occupied>> {
    seats.lock().unwrap_or_else(PoisonError::into_inner)
}
