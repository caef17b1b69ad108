//! The log of events, and its groups of readers.

use super::super::events::{event_log, group_of};
use super::super::stored::StoredMessage;
use super::super::{Error, Sequence, codec, keys};
use super::{Check, shown};
use crate::domain::EventGroup;

impl Check<'_> {
    pub(super) fn events(&mut self) -> Result<(), Error> {
        let log = self.sound("the log of events", event_log(&self.tree)).flatten();
        let mut newest: Option<Sequence> = None;
        for entry in self.entries(keys::EVENTS) {
            let (key, value) = entry?;
            self.checked.events += 1;
            let Some(sequence) = self.sound(&shown(&key), keys::event_sequence(&key)) else { continue };
            if key != keys::event(sequence) {
                self.violation(&format!("{}: its key has the wrong length", shown(&key)));
            }
            if let Some(newest) = newest
                && sequence != newest + 1
            {
                self.violation(&format!("events are missing between the numbers {newest} and {sequence}"));
            }
            newest = Some(sequence);
            let message = codec::decode::<StoredMessage>(&value).and_then(StoredMessage::into_message);
            self.sound(&shown(&key), message);
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
}
