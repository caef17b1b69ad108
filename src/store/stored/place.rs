//! Places of groups of readers, as they are stored.

use serde::{Deserialize, Serialize};

use crate::domain::{EventId, GroupPlace, Millis};

/// How far a group of readers is in the log of events.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct StoredPlace {
    log: u64,
    sequence: u64,
    moved_at: u64,
}

impl StoredPlace {
    pub(in crate::store) const fn of(place: &GroupPlace) -> Self {
        let GroupPlace { after: EventId { log, sequence }, moved_at } = *place;
        Self { log, sequence, moved_at: moved_at.0 }
    }

    pub(in crate::store) const fn into_place(self) -> GroupPlace {
        let Self { log, sequence, moved_at } = self;
        GroupPlace { after: EventId { log, sequence }, moved_at: Millis(moved_at) }
    }
}
