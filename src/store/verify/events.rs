//! The log of events, and its groups of readers.

use super::super::events::{event_log, events_end, group_of};
use super::super::stored::StoredMessage;
use super::super::{Error, Sequence, codec, keys};
use super::{Check, shown};
use crate::domain::EventGroup;

/// How many events are read at once.
const PAGE: usize = 64;

impl Check<'_> {
    pub(super) fn events(&mut self) -> Result<(), Error> {
        let log = self.sound("the log of events", event_log(&self.tree)).flatten();
        let mut newest: Option<Sequence> = None;
        let archived = self.archive.bounds();
        let settled_up_to = self.sound("the end of the files of events", events_end(&self.tree)).unwrap_or(0);
        if archived.map_or(0, |(_, end)| end) < settled_up_to {
            self.violation(&format!("events before {settled_up_to} were settled, and are in no file"));
        }
        let mut is_archive_read = false;
        for entry in self.entries(keys::EVENTS) {
            let (key, value) = entry?;
            let Some(sequence) = self.sound(&shown(&key), keys::event_sequence(&key)) else { continue };
            if key != keys::event(sequence) {
                self.violation(&format!("{}: its key has the wrong length", shown(&key)));
            }
            if let Some((first, end)) = archived
                && sequence >= first
            {
                if !std::mem::replace(&mut is_archive_read, true) {
                    self.archived(first, end, &mut newest);
                    // What came in between is too old, and what is in the files is older; they go when it is settled.
                    newest = newest.filter(|_| sequence <= end);
                }
                // The journal still says what is in a file already.
                if sequence < end {
                    continue;
                }
            }
            self.event(sequence, &value, &mut newest);
        }
        if let (Some((first, end)), false) = (archived, is_archive_read) {
            self.archived(first, end, &mut newest);
        }
        let mut groups = 0;
        for entry in self.entries(keys::EVENT_GROUPS) {
            let (key, value) = entry?;
            groups += 1;
            let Some((group, place)) = self.sound(&shown(&key), group_of(&key, &value)) else { continue };
            if let Some((name, first)) = log
                && place.after.log == name
                && place.after.sequence >= newest.map_or(first, |newest| (newest + 1).max(first))
            {
                self.violation(&format!("group {group} has taken events that there were not yet"));
            }
        }
        if groups > EventGroup::MAX {
            self.violation(&format!("there are {groups} groups of readers, which are too many"));
        }
        Ok(())
    }

    /// The events that are in files.
    fn archived(&mut self, first: Sequence, end: Sequence, newest: &mut Option<Sequence>) {
        let mut next = first;
        while next < end {
            match self.archive.read(next, end, PAGE, usize::MAX) {
                Ok(page) if page.is_empty() => return,
                Ok(page) => {
                    for (sequence, stored) in page {
                        self.event(sequence, &stored, newest);
                        next = sequence + 1;
                    }
                }
                Err(error) => return self.violation(&format!("a file of events: {error}")),
            }
        }
    }

    fn event(&mut self, sequence: Sequence, stored: &[u8], newest: &mut Option<Sequence>) {
        self.checked.events += 1;
        if let Some(newest) = *newest
            && sequence != newest + 1
        {
            self.violation(&format!("events are missing between the numbers {newest} and {sequence}"));
        }
        *newest = Some(sequence);
        let message = codec::decode::<StoredMessage>(stored).and_then(StoredMessage::into_message);
        self.sound(&format!("event {sequence}"), message);
    }
}
