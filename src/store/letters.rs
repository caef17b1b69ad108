//! Dead letters, the newest last; and which letter a message became, so that it becomes the same one again.

use super::keys::Aged;
use super::read::failed;
use super::stored::StoredLetter;
use super::{Commit, Error, Store, codec, keys};
use crate::contract::Group;
use crate::contract::idempotency::Key;
use crate::domain::{DeadLetter, LetterId};

impl Commit {
    /// Keeps a message that its group refused.
    ///
    /// # Errors
    /// As [`Commit::put_batch`].
    pub fn put_letter(&mut self, key: &Key, letter: &DeadLetter) -> Result<(), Error> {
        let mut newest = letter.history.iter().rev().map(|event| event.at);
        let (since, before) = (newest.next(), newest.next());
        self.age(Aged::Letter(letter.id), before, since);
        self.put(keys::letter(letter.id), codec::encode(&StoredLetter::of(letter))?);
        self.put(keys::letter_of_message(letter.group, key), letter.id.0.as_bytes().to_vec());
        Ok(())
    }
}

impl Store {
    /// The dead letter of this id.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn letter(&self, id: LetterId) -> Result<Option<DeadLetter>, Error> {
        let value = self.shared.state.get(keys::letter(id)).map_err(failed)?;
        value.map(|value| codec::decode::<StoredLetter>(&value)?.into_letter(id)).transpose()
    }

    /// The dead letter that the message `key` of `group` became before.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn letter_of_message(&self, group: Group, key: &Key) -> Result<Option<DeadLetter>, Error> {
        match self.shared.state.get(keys::letter_of_message(group, key)).map_err(failed)? {
            Some(id) => self.letter(keys::letter_id(&id)?),
            None => Ok(None),
        }
    }

    /// Dead letters, the newest first, behind `before` where there is one, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn letters(&self, before: Option<LetterId>, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        let first = keys::letter(LetterId(uuid::Uuid::nil()));
        let end = keys::letter(before.unwrap_or(LetterId(uuid::Uuid::max())));
        let letter = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = entry.map_err(failed)?;
            let id = keys::letter_id(key.get(1..).unwrap_or_default())?;
            codec::decode::<StoredLetter>(&value)?.into_letter(id)
        };
        self.shared.state.range(first..end).rev().take(limit).map(letter).collect()
    }
}
