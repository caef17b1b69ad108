//! The log of events, and its groups of readers.

use super::bytes::u64_at;
use crate::domain::EventGroup;
use crate::store::{Error, Sequence};

pub(in crate::store) const EVENTS: &[u8] = b"v";
pub(in crate::store) const EVENT_LOG: &[u8] = b"u";
pub(in crate::store) const EVENTS_END: &[u8] = b"E";
pub(in crate::store) const EVENT_GROUPS: &[u8] = b"y";

pub(in crate::store) fn event(sequence: Sequence) -> Vec<u8> {
    [EVENTS, &sequence.to_be_bytes()].concat()
}

/// The number of the event with this key.
pub(in crate::store) fn event_sequence(key: &[u8]) -> Result<Sequence, Error> {
    u64_at(key, EVENTS.len())
}

pub(in crate::store) fn event_group(group: &EventGroup) -> Vec<u8> {
    [EVENT_GROUPS, group.as_str().as_bytes()].concat()
}

/// The group with this key.
pub(in crate::store) fn event_group_of(key: &[u8]) -> Result<EventGroup, Error> {
    let name = key.get(EVENT_GROUPS.len()..).and_then(|name| std::str::from_utf8(name).ok());
    let group = name.and_then(|name| name.parse().ok());
    group.ok_or_else(|| Error::Corrupt("a group of readers has no name that one can have".to_owned()))
}
