//! Messages that nobody could handle, kept until a person decides.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::time::Millis;
use crate::contract::{Group, Message};

/// The id of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId(pub Uuid);

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for LetterId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::try_parse(text).map(Self)
    }
}

/// The most entries of a letter's history. Beyond it the oldest but the first go.
const MAX_HISTORY: usize = 50;

/// The most characters of an error that are kept.
const MAX_ERROR_CHARS: usize = 1_000;

/// A message that its group refused for good. A letter that is redriven and refused again stays the same letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its id; made by time, so that their order is that of the letters.
    pub id: LetterId,
    /// The group that refused it.
    pub group: Group,
    /// The message.
    pub message: Message,
    /// How often it was refused.
    pub attempts: u32,
    /// What happened to it, oldest first; the last says where it stands.
    pub history: Vec<LetterEvent>,
}

/// Something that happened to a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterEvent {
    /// When.
    pub at: Millis,
    /// What.
    pub what: LetterChange,
}

/// What happened to a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LetterChange {
    /// The group refused it.
    Refused {
        /// Why.
        error: String,
        /// How often it had been delivered for that.
        deliveries: u32,
    },
    /// Somebody sent it on its way again.
    Redriven {
        /// Who.
        by: String,
    },
    /// Somebody decided that nothing is to be done about it.
    Discarded {
        /// Who.
        by: String,
    },
}

/// Where a dead letter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterState {
    /// It waits for a decision.
    Open,
    /// It was sent on its way again, and has not come back.
    Redriven,
    /// Nothing is to be done about it.
    Discarded,
}

impl LetterState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Open, Self::Redriven, Self::Discarded];

    /// As clients read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Redriven => "redriven",
            Self::Discarded => "discarded",
        }
    }
}

/// What can be decided about an open letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Send it on its way again.
    Redrive,
    /// Leave it.
    Discard,
}

impl DeadLetter {
    /// A letter without a history yet.
    #[must_use]
    pub const fn new(id: LetterId, group: Group, message: Message) -> Self {
        Self { id, group, message, attempts: 0, history: Vec::new() }
    }

    /// The same letter, refused once more.
    #[must_use]
    pub fn refused(mut self, at: Millis, error: &str, deliveries: u32) -> Self {
        self.attempts = self.attempts.saturating_add(1);
        let error = error.chars().take(MAX_ERROR_CHARS).collect();
        self.add(at, LetterChange::Refused { error, deliveries });
        self
    }

    /// The same letter, decided about; none where it is not open.
    #[must_use]
    pub fn decided(mut self, at: Millis, by: String, decision: Decision) -> Option<Self> {
        match self.state() {
            LetterState::Open => {}
            LetterState::Redriven | LetterState::Discarded => return None,
        }
        let what = match decision {
            Decision::Redrive => LetterChange::Redriven { by },
            Decision::Discard => LetterChange::Discarded { by },
        };
        self.add(at, what);
        Some(self)
    }

    fn add(&mut self, at: Millis, what: LetterChange) {
        if self.history.len() == MAX_HISTORY {
            self.history.remove(1);
        }
        self.history.push(LetterEvent { at, what });
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> LetterState {
        match self.history.last().map(|event| &event.what) {
            Some(LetterChange::Refused { .. }) | None => LetterState::Open,
            Some(LetterChange::Redriven { .. }) => LetterState::Redriven,
            Some(LetterChange::Discarded { .. }) => LetterState::Discarded,
        }
    }

    /// Why it was refused last.
    #[must_use]
    pub fn error(&self) -> &str {
        let errors = self.history.iter().rev().filter_map(|event| match &event.what {
            LetterChange::Refused { error, .. } => Some(error.as_str()),
            LetterChange::Redriven { .. } | LetterChange::Discarded { .. } => None,
        });
        errors.into_iter().next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Topic;

    fn letter() -> DeadLetter {
        let message =
            Message { topic: Topic::ElsBatchPhaseOutcome, key: "b".to_owned(), headers: None, body: "{}".into() };
        DeadLetter::new(LetterId(Uuid::nil()), Group::Orchestrator, message).refused(Millis(1), "no", 3)
    }

    #[test]
    fn only_an_open_letter_is_decided_about_and_a_refusal_opens_it_again() {
        let redriven = letter().decided(Millis(2), "op".to_owned(), Decision::Redrive).expect("it is open");
        assert_eq!(redriven.state(), LetterState::Redriven);
        assert_eq!(redriven.clone().decided(Millis(3), "op".to_owned(), Decision::Discard), None);
        let again = redriven.refused(Millis(4), "still no", 1);
        assert_eq!((again.state(), again.attempts, again.error()), (LetterState::Open, 2, "still no"));
        let discarded = again.decided(Millis(5), "op".to_owned(), Decision::Discard).expect("it is open");
        assert_eq!(discarded.decided(Millis(6), "op".to_owned(), Decision::Redrive), None);
    }

    #[test]
    fn the_history_is_bounded_and_keeps_its_beginning() {
        let mut letter = letter();
        for number in 2..200 {
            letter = letter.refused(Millis(number), "again", 1);
        }
        assert_eq!((letter.history.len(), letter.attempts), (MAX_HISTORY, 199));
        assert_eq!((letter.history[0].at, letter.history[1].at), (Millis(1), Millis(151)));
    }
}
