//! When a worker took an attempt, and by which lease.
//!
//! Before there were leases this was an option of a time. In the store the variants of [`StoredStart`] have the bytes of
//! that option and one number more, in a backup its null and number and one object more; so what older versions wrote
//! is read as it was.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::domain::{Attempt, Lease, Millis};

#[derive(Clone, Serialize, Deserialize)]
pub(super) enum StoredStart {
    NotYet,
    At(u64),
    Leased { at: u64, lease: StoredLease },
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct StoredLease {
    worker_id: String,
    token: Uuid,
    lease_ms: u64,
    until: u64,
    essays_done: u32,
}

/// The same, for people.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Shown {
    NotYet(()),
    At(u64),
    Leased { at: u64, lease: StoredLease },
}

pub(super) fn serialize<S: Serializer>(start: &StoredStart, serializer: S) -> Result<S::Ok, S::Error> {
    if !serializer.is_human_readable() {
        return start.serialize(serializer);
    }
    let shown = match start.clone() {
        StoredStart::NotYet => Shown::NotYet(()),
        StoredStart::At(at) => Shown::At(at),
        StoredStart::Leased { at, lease } => Shown::Leased { at, lease },
    };
    shown.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StoredStart, D::Error> {
    if !deserializer.is_human_readable() {
        return StoredStart::deserialize(deserializer);
    }
    Ok(match Shown::deserialize(deserializer)? {
        Shown::NotYet(()) => StoredStart::NotYet,
        Shown::At(at) => StoredStart::At(at),
        Shown::Leased { at, lease } => StoredStart::Leased { at, lease },
    })
}

impl StoredStart {
    pub(super) fn of(attempt: &Attempt) -> Self {
        match (attempt.started_at, &attempt.lease) {
            (None, _) => Self::NotYet,
            (Some(at), None) => Self::At(at.0),
            (Some(at), Some(lease)) => Self::Leased { at: at.0, lease: StoredLease::of(lease) },
        }
    }

    pub(super) const fn at(&self) -> Option<Millis> {
        match self {
            Self::NotYet => None,
            Self::At(at) | Self::Leased { at, .. } => Some(Millis(*at)),
        }
    }

    pub(super) fn into_lease(self) -> Option<Arc<Lease>> {
        match self {
            Self::NotYet | Self::At(_) => None,
            Self::Leased { lease, .. } => Some(Arc::new(lease.into_lease())),
        }
    }
}

impl StoredLease {
    fn of(lease: &Lease) -> Self {
        Self {
            worker_id: lease.worker_id.clone(),
            token: lease.token,
            lease_ms: lease.lease_ms,
            until: lease.until.0,
            essays_done: lease.essays_done,
        }
    }

    fn into_lease(self) -> Lease {
        Lease {
            worker_id: self.worker_id,
            token: self.token,
            lease_ms: self.lease_ms,
            until: Millis(self.until),
            essays_done: self.essays_done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::codec;

    /// As it was before there were leases.
    #[derive(Serialize, Deserialize)]
    struct Before {
        started_at: Option<u64>,
        end: u8,
    }

    #[derive(Serialize, Deserialize)]
    struct Now {
        #[serde(with = "super", rename = "started_at")]
        start: StoredStart,
        end: u8,
    }

    /// What version 3 of the format wrote: none, and a time.
    const GOLDEN: [(&[u8], Option<u64>); 2] =
        [(&[1, 0, 7], None), (&[1, 1, 253, 0x40, 0x23, 0xab, 0xad, 0x9c, 0x01, 0, 0, 7], Some(1_772_440_200_000))];

    #[test]
    fn what_was_written_before_there_were_leases_is_read_as_it_was() {
        for (bytes, at) in GOLDEN {
            let before = codec::encode(&Before { started_at: at, end: 7 }).expect("encoded");
            assert_eq!(before, bytes, "the golden bytes are those of an option");
            let now: Now = codec::decode(bytes).expect("it decodes");
            assert_eq!((now.start.at().map(|at| at.0), now.end), (at, 7));
            assert_eq!(codec::encode(&now).expect("encoded"), bytes);
            let text = serde_json::to_string(&Before { started_at: at, end: 7 }).expect("JSON");
            let now: Now = serde_json::from_str(&text).expect("it is read");
            assert_eq!(now.start.at().map(|at| at.0), at);
            assert_eq!(serde_json::to_string(&now).expect("JSON"), text);
        }
    }

    #[test]
    fn a_lease_is_kept_in_the_store_and_in_a_backup() {
        let lease = StoredLease {
            worker_id: "w".to_owned(),
            token: Uuid::from_u128(5),
            lease_ms: 60_000,
            until: 9,
            essays_done: 3,
        };
        let start = StoredStart::Leased { at: 4, lease };
        let bytes = codec::encode(&Now { start: start.clone(), end: 7 }).expect("encoded");
        let golden = [&[1, 2, 4, 1, b'w', 16][..], Uuid::from_u128(5).as_bytes(), &[251, 0x60, 0xea, 9, 3, 7]].concat();
        assert_eq!(bytes, golden);
        let text = serde_json::to_string(&Now { start, end: 7 }).expect("JSON");
        for now in [codec::decode::<Now>(&bytes).expect("decoded"), serde_json::from_str(&text).expect("read")] {
            assert_eq!(now.start.at(), Some(Millis(4)));
            let lease = now.start.into_lease().expect("a lease");
            assert_eq!((lease.worker_id.as_str(), lease.token), ("w", Uuid::from_u128(5)));
            assert_eq!((lease.lease_ms, lease.until, lease.essays_done), (60_000, Millis(9), 3));
        }
    }
}
