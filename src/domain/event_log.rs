//! Places in the log of events, and who reads from them.

use std::fmt;
use std::str::FromStr;

use super::time::Millis;

/// The number of an event in its log, with the log that numbered it. Another log, such as that of a restored store,
/// counts anew under another name, so that no number of one is taken for that of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventId {
    /// The log.
    pub log: u64,
    /// The number, from 1 and without holes. As a place, 0 is that before the first event.
    pub sequence: u64,
}

/// A string that is no [`EventId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of an event")]
pub struct NoEventId;

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.log, self.sequence)
    }
}

impl FromStr for EventId {
    type Err = NoEventId;

    fn from_str(text: &str) -> Result<Self, NoEventId> {
        let read = |text: &str| {
            let (log, sequence) = text.split_once('-')?;
            Some(Self { log: u64::from_str_radix(log, 16).ok()?, sequence: sequence.parse().ok()? })
        };
        // Only as it is written here: no signs, no capitals, no zeros in front.
        read(text).filter(|id| id.to_string() == text).ok_or(NoEventId)
    }
}

/// The name of readers who share a place in the log: 1 to 100 characters of `a-z`, `0-9`, `.`, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventGroup(String);

/// A string that is no [`EventGroup`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a group is 1 to 100 characters of a-z, 0-9, '.', '_' and '-'")]
pub struct NoEventGroup;

impl EventGroup {
    /// The most groups that there can be.
    pub const MAX: usize = 1_000;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EventGroup {
    type Err = NoEventGroup;

    fn from_str(text: &str) -> Result<Self, NoEventGroup> {
        let is_fit = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let is_name = (1..=100).contains(&text.len()) && text.bytes().all(is_fit);
        if is_name { Ok(Self(text.to_owned())) } else { Err(NoEventGroup) }
    }
}

impl fmt::Display for EventGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupPlace {
    /// Everything up to and with this was taken.
    pub after: EventId,
    /// When it last moved.
    pub moved_at: Millis,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_in_no_other_way() {
        for id in [EventId { log: 0, sequence: 0 }, EventId { log: u64::MAX, sequence: u64::MAX }] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        let others = ["", "-", "1", "1-1", "000000000000000A-1", "000000000000000a-01", "000000000000000a-+1", "a-é"];
        for text in others {
            assert_eq!(text.parse::<EventId>(), Err(NoEventId), "{text}");
        }
    }

    #[test]
    fn a_group_has_a_plain_name() {
        for text in ["a", "reports.v2_eu-1", &"x".repeat(100)] {
            assert_eq!(text.parse::<EventGroup>().map(|group| group.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "A", "a b", "a/b", "å", &"x".repeat(101)] {
            assert_eq!(text.parse::<EventGroup>(), Err(NoEventGroup), "{text}");
        }
    }
}
