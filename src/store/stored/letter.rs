//! Dead letters, as they are stored.

use serde::{Deserialize, Serialize};

use super::super::{Error, keys};
use super::StoredMessage;
use crate::domain::{DeadLetter, LetterChange, LetterEvent, LetterId, LetterState, Millis};

/// A message that its group refused.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct StoredLetter {
    group: u8,
    message: StoredMessage,
    attempts: u32,
    history: Vec<(u64, StoredChange)>,
}

#[derive(Serialize, Deserialize)]
enum StoredChange {
    Refused { error: String, deliveries: u32 },
    Redriven { by: String },
    Discarded { by: String },
}

impl StoredLetter {
    pub(in crate::store) fn of(letter: &DeadLetter) -> Self {
        let history = letter.history.iter().map(|LetterEvent { at, what }| {
            let what = match what {
                LetterChange::Refused { error, deliveries } => {
                    StoredChange::Refused { error: error.clone(), deliveries: *deliveries }
                }
                LetterChange::Redriven { by } => StoredChange::Redriven { by: by.clone() },
                LetterChange::Discarded { by } => StoredChange::Discarded { by: by.clone() },
            };
            (at.0, what)
        });
        Self {
            group: keys::group_byte(letter.group),
            message: StoredMessage::of(&letter.message),
            attempts: letter.attempts,
            history: history.collect(),
        }
    }

    /// Where it stands, as [`DeadLetter::state`].
    pub(in crate::store) fn state(&self) -> LetterState {
        match self.history.last() {
            Some((_, StoredChange::Refused { .. })) | None => LetterState::Open,
            Some((_, StoredChange::Redriven { .. })) => LetterState::Redriven,
            Some((_, StoredChange::Discarded { .. })) => LetterState::Discarded,
        }
    }

    pub(in crate::store) fn into_letter(self, id: LetterId) -> Result<DeadLetter, Error> {
        let history = self.history.into_iter().map(|(at, what)| {
            let what = match what {
                StoredChange::Refused { error, deliveries } => LetterChange::Refused { error, deliveries },
                StoredChange::Redriven { by } => LetterChange::Redriven { by },
                StoredChange::Discarded { by } => LetterChange::Discarded { by },
            };
            LetterEvent { at: Millis(at), what }
        });
        Ok(DeadLetter {
            id,
            group: keys::group_of(self.group)?,
            message: self.message.into_message()?,
            attempts: self.attempts,
            history: history.collect(),
        })
    }
}
