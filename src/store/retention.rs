//! What is old: found by its age, and removed with everything that belongs to it.

use std::ops::Bound;

use super::keys::{self, Aged};
use super::read::failed;
use super::{Commit, Error, Store, codec};
use crate::contract::idempotency::Key;
use crate::domain::{Batch, Millis};

/// Something that may be removed once it is old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Old {
    /// Since when it may.
    pub since: Millis,
    /// What it is.
    pub aged: Aged,
}

impl Store {
    /// What may be removed since `before` or longer, the oldest first, behind `after` where there is one, at most
    /// `limit`. Reads nothing else.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn old(&self, before: Millis, after: Option<Old>, limit: usize) -> Result<Vec<Old>, Error> {
        let mut found = Vec::new();
        let behind = after.map_or_else(|| keys::AGES.to_vec(), |after| keys::age(after.since, after.aged));
        let range = (Bound::Excluded(behind), Bound::Excluded(keys::ages_after(before)));
        for key in self.shared.state.range::<Vec<u8>>(range).keys().take(limit) {
            let (since, aged) = keys::aged(&key.map_err(failed)?)?;
            found.push(Old { since, aged });
        }
        Ok(found)
    }

    /// Adds the removal of `batch` and all that belongs to it to `commit`. Only its owner may commit that.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn remove_batch(&self, commit: &mut Commit, batch: &Batch) -> Result<(), Error> {
        let id = batch.id;
        for prefix in [keys::batch(id), keys::volumes(id), keys::charges(id)] {
            for key in self.shared.state.scan_prefix(prefix).keys() {
                commit.delete(key.map_err(failed)?.to_vec());
            }
        }
        let (owner, registered_at) = (&batch.details.user_id, batch.details.registered_at);
        for facet in batch.facets() {
            commit.delete(keys::listed(keys::listing(owner, facet), registered_at, id));
        }
        for place in 0..batch.essays.len() {
            for hash in batch.storage_ids(place).filter_map(keys::hash_of) {
                commit.delete(keys::reference(&hash, id));
                commit.forget_content(hash);
            }
        }
        commit.age(Aged::Batch(id), batch.rests_since(), None);
        Ok(())
    }

    /// Adds the removal of an ended bulk retry, or of a dead letter, to `commit`; it is left alone where it is not what
    /// it was by the time that this is written. What is no such thing is left alone too.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn remove_old(&self, commit: &mut Commit, old: Old) -> Result<(), Error> {
        let mut belongings = Vec::new();
        match old.aged {
            Aged::Batch(_) => return Ok(()),
            Aged::Job(owner, id) => {
                for key in self.shared.state.scan_prefix(&keys::job_member(id, 0)[..17]).keys() {
                    belongings.push(key.map_err(failed)?.to_vec());
                }
                belongings.push(keys::job_by_hash(owner, id));
            }
            Aged::Letter(id) => {
                belongings.push(keys::letter(id));
                let stored = self.shared.state.get(keys::letter(id)).map_err(failed)?;
                if let Some(value) = stored {
                    let letter = codec::decode::<super::stored::StoredLetter>(&value)?.into_letter(id)?;
                    let key = Key::of(letter.group.service(), &letter.message);
                    belongings.push(keys::letter_of_message(letter.group, &key));
                }
            }
        }
        commit.remove_aged(keys::age(old.since, old.aged), belongings);
        Ok(())
    }
}

impl Commit {
    fn forget_content(&mut self, hash: [u8; 32]) {
        self.forgotten.push(hash);
    }

    fn remove_aged(&mut self, age: Vec<u8>, belongings: Vec<Vec<u8>>) {
        self.aged.push((age, belongings));
    }
}
