//! The log of events: every message that was published, in the order of the commits, until there are too many; and how
//! far its groups of readers are.
//!
//! Numbers have no holes, so whoever reads sees what is missing. A log has a name, made when it begins. A store that was
//! restored, or that ran without a log for a while, begins another, and nobody takes a number of the one for that of the
//! other.

use super::archive::Archive;
use super::codec;
use super::commit::Commit;
use super::journal::{Which, Write};
use super::keys;
use super::layers::Tree;
use super::read::failed;
use super::stored::{StoredMessage, StoredPlace};
use super::{Error, Sequence, Store};
use crate::contract::Message;
use crate::contract::idempotency::Key;
use crate::domain::{EventGroup, GroupPlace, Millis};

/// How many events more than it adds a group of commits may remove, so that a log whose bound was lowered gets there
/// without one long commit.
const TRIM: u64 = 64;

/// The log of a store that keeps one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventLog {
    /// Its name.
    pub name: u64,
    /// The number of its first event, which may be gone by now.
    pub first: Sequence,
    /// The number that its next event had when the store was opened.
    pub next: Sequence,
}

/// An event of the log.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its number.
    pub sequence: Sequence,
    /// The message.
    pub message: Message,
}

/// The committer's side of the log.
pub(super) struct Numbering {
    /// None where no log is kept.
    pub(super) log: Option<EventLog>,
    archive: Archive,
    retained: u64,
    /// The number of the oldest event that is not in a file, of whatever log.
    oldest: Sequence,
    next: Sequence,
    /// How many were added since the last trim.
    added: u64,
}

impl Numbering {
    /// How the log goes on, and what has to be written before it does.
    pub(super) fn open(tree: &Tree, archive: Archive, retained: u64) -> Result<(Self, Vec<Write>), Error> {
        let bound = |key: Option<sled::Result<sled::IVec>>| {
            key.map(|key| keys::event_sequence(&key.map_err(failed)?)).transpose()
        };
        let oldest = bound(tree.scan_prefix(keys::EVENTS).keys().next())?;
        let after_newest = bound(tree.scan_prefix(keys::EVENTS).keys().next_back())?.map(|newest| newest + 1);
        let archived_up_to = archive.bounds().map_or(0, |(_, end)| end);
        let settled_up_to = events_end(tree)?;
        let is_cut = archived_up_to < settled_up_to;
        if is_cut && retained > 0 {
            tracing::error!("the files of events are gone, or the newest are; another log begins");
        }
        // Whoever reads the old log is told of a gap, as by any that has come to an end.
        let found = event_log(tree)?.filter(|_| !is_cut);
        let next = after_newest.unwrap_or(1).max(found.map_or(1, |(_, first)| first));
        let next = next.max(archived_up_to).max(settled_up_to);
        // What is between the files and the journal has gone, and so has what was before it.
        let is_stale = oldest.is_some_and(|oldest| oldest > archived_up_to) || is_cut;
        let unstored = oldest.filter(|_| is_stale).unwrap_or(0);
        archive.forget_before(next.saturating_sub(retained).max(unstored));
        if retained == 0 || is_cut {
            archive.clear().map_err(|error| Error::Failed(error.to_string().into()))?;
        }
        let numbering = |log| Self { log, archive, retained, oldest: oldest.unwrap_or(next), next, added: 0 };
        let write = |key: &[u8], value: Option<Vec<u8>>| Write {
            which: Which::State,
            key: key.into(),
            value: value.map(Into::into),
        };
        match found {
            Some((name, first)) if retained > 0 => Ok((numbering(Some(EventLog { name, first, next })), Vec::new())),
            _ if retained == 0 => {
                // What is published from now on would be missing in it.
                let ends = [keys::EVENT_LOG, keys::EVENTS_END].map(|key| write(key, None));
                Ok((numbering(None), ends.into_iter().filter(|_| found.is_some() || is_cut).collect()))
            }
            Some(_) | None => {
                let (name, _) = uuid::Uuid::new_v4().as_u64_pair();
                let value = [name.to_be_bytes(), next.to_be_bytes()].concat();
                let begins = vec![write(keys::EVENT_LOG, Some(value)), write(keys::EVENTS_END, None)];
                Ok((numbering(Some(EventLog { name, first: next, next })), begins))
            }
        }
    }

    /// Adds an event, where a log is kept, and says its number.
    pub(super) fn add(&mut self, stored: &sled::IVec, writes: &mut Vec<Write>) -> Option<Sequence> {
        self.added += 1;
        self.log?;
        let sequence = self.next;
        self.next += 1;
        let key = keys::event(sequence).into();
        writes.push(Write { which: Which::State, key, value: Some(stored.clone()) });
        Some(sequence)
    }

    /// Removes what is too much, behind the writes that added it.
    pub(super) fn trim(&mut self, writes: &mut Vec<Write>) {
        let added = std::mem::take(&mut self.added);
        if added == 0 {
            return;
        }
        self.archive.forget_before(self.next.saturating_sub(self.retained));
        let end = self.next.saturating_sub(self.retained).min(self.oldest.saturating_add(added + TRIM));
        for sequence in self.oldest..end {
            writes.push(Write { which: Which::State, key: keys::event(sequence).into(), value: None });
        }
        self.oldest = self.oldest.max(end);
    }
}

/// The name of the log in `tree`, and the number of its first event.
pub(super) fn event_log(tree: &Tree) -> Result<Option<(u64, Sequence)>, Error> {
    let Some(value) = tree.get(keys::EVENT_LOG).map_err(failed)? else { return Ok(None) };
    let bytes: Option<&[u8; 16]> = value.as_ref().try_into().ok();
    let read = |bytes: &[u8; 16]| {
        let (name, first) = bytes.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*name), u64::from_be_bytes(first.try_into().ok()?)))
    };
    let read = bytes.and_then(read);
    read.map(Some).ok_or_else(|| Error::Corrupt("the name of the log of events has the wrong length".to_owned()))
}

/// Up to which number, not included, events were settled into files.
pub(super) fn events_end(tree: &Tree) -> Result<Sequence, Error> {
    let Some(value) = tree.get(keys::EVENTS_END).map_err(failed)? else { return Ok(0) };
    let bytes = value.as_ref().try_into();
    bytes.map(u64::from_be_bytes).map_err(|_| Error::Corrupt("the end of the files of events".to_owned()))
}

/// The group and the place of a stored entry.
pub(super) fn group_of(key: &[u8], value: &[u8]) -> Result<(EventGroup, GroupPlace), Error> {
    Ok((keys::event_group_of(key)?, codec::decode::<StoredPlace>(value)?.into_place()))
}

impl Store {
    /// The log; none where this store keeps none.
    #[must_use]
    pub fn event_log(&self) -> Option<EventLog> {
        self.shared.event_log
    }

    /// Events from the number `first` up to, not including, `end`: at most `limit`, and no more once they have `bytes`.
    /// Those that are too old are missing.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn events(&self, first: Sequence, end: Sequence, limit: usize, bytes: usize) -> Result<Vec<Event>, Error> {
        let event = |sequence, stored: &[u8]| {
            let message = codec::decode::<StoredMessage>(stored)?.into_message()?;
            Ok(Event { sequence, message })
        };
        let archived = self.shared.archive.read(first, end, limit, bytes);
        let archived = archived.map_err(|error| Error::Corrupt(error.to_string()))?;
        let is_next = archived.first().is_some_and(|(sequence, _)| *sequence == first);
        let recent = if is_next { Vec::new() } else { self.unarchived(first, end, limit, bytes)? };
        // Those in no file are newer, and in an older store some are older than all that are in one.
        let is_recent_first = match (archived.first(), recent.first()) {
            (Some((archived, _)), Some((recent, _))) => recent < archived,
            (archived, _) => archived.is_none(),
        };
        if is_recent_first {
            recent.iter().map(|(sequence, stored)| event(*sequence, stored)).collect()
        } else {
            archived.iter().map(|(sequence, stored)| event(*sequence, stored)).collect()
        }
    }

    fn unarchived(
        &self,
        first: Sequence,
        end: Sequence,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<(Sequence, sled::IVec)>, Error> {
        let (mut found, mut size) = (Vec::new(), 0);
        for entry in self.shared.state.range(keys::event(first)..keys::event(end.max(first))).take(limit) {
            let (key, value) = entry.map_err(failed)?;
            size += value.len();
            found.push((keys::event_sequence(&key)?, value));
            if size >= bytes {
                break;
            }
        }
        Ok(found)
    }

    /// Every group of readers, by name, with its place.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn event_groups(&self) -> Result<Vec<(EventGroup, GroupPlace)>, Error> {
        let entries = self.shared.state.scan_prefix(keys::EVENT_GROUPS);
        entries.map(|entry| entry.map_err(failed).and_then(|(key, value)| group_of(&key, &value))).collect()
    }

    /// Until when a message that came in through the gateway is known; none where it is not.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn posted_expiry(&self, key: &Key) -> Result<Option<Millis>, Error> {
        self.expiry_under(&keys::posted(key))
    }
}

impl Commit {
    /// Notes that the message `key` came in through the gateway, until `expires`.
    pub fn mark_posted(&mut self, key: &Key, expires: Millis) {
        self.complete_under(keys::posted(key), expires);
    }

    /// Writes how far a group of readers is.
    ///
    /// # Errors
    /// As [`Commit::put_batch`].
    pub fn put_event_group(&mut self, group: &EventGroup, place: &GroupPlace) -> Result<(), Error> {
        self.put(keys::event_group(group), codec::encode(&StoredPlace::of(place))?);
        Ok(())
    }

    /// Forgets a group of readers.
    pub fn remove_event_group(&mut self, group: &EventGroup) {
        self.delete(keys::event_group(group));
    }
}
