//! Timers, listings and expiries: each is asked for by something that is there.

use super::super::census::Counts;
use super::super::read::{self, failed};
use super::super::stored::StoredAnswer;
use super::super::{Error, codec, keys};
use super::{Check, shown};
use crate::domain::Millis;

impl Check<'_> {
    /// The records were asked for theirs already; here are those that no record asks for.
    pub(super) fn timers(&mut self) -> Result<(), Error> {
        let mut found = 0;
        for entry in self.entries(keys::TIMERS) {
            let (key, _) = entry?;
            found += 1;
            let Some((id, timer)) = self.sound(&shown(&key), keys::timer_of(&key)) else { continue };
            let batch = read::batch(&self.tree, id).unwrap_or_default();
            if !batch.is_some_and(|batch| batch.timers().contains(&timer)) {
                let (phase, attempt) = (timer.phase, timer.attempt);
                self.violation(&format!("a timer for attempt {attempt} at {phase} of batch {id} points nowhere"));
            }
        }
        self.checked.timers = found;
        Ok(())
    }

    pub(super) fn listings(&mut self) -> Result<(), Error> {
        let mut found = 0_u64;
        for entry in self.entries(b"i") {
            entry?;
            found += 1;
        }
        if found == self.listed {
            return Ok(());
        }
        // Seldom, and slow: which of them are too many.
        for entry in self.entries(b"i") {
            let (key, _) = entry?;
            let Some((registered_at, id)) = self.sound(&shown(&key), keys::listed_of(&key)) else { continue };
            let batch = read::batch(&self.tree, id).unwrap_or_default();
            let is_asked_for = batch.is_some_and(|batch| {
                let owner = &batch.details.user_id;
                let mut asked = batch.facets().into_iter().map(|facet| keys::listing(owner, facet));
                asked.any(|listing| key == keys::listed(listing, registered_at, id))
            });
            if !is_asked_for {
                self.violation(&format!("batch {id} is listed under what is not true of it: {}", shown(&key)));
            }
        }
        Ok(())
    }

    /// How many stand where, as the store says and as it is.
    pub(super) fn counts(&mut self) -> Result<(), Error> {
        let (said, are) = (Counts::read(&self.tree), Counts::of_all(&self.tree)?);
        if let Some(said) = self.sound("the counts of what stands where", said)
            && said != are
        {
            self.violation(&format!("so many are said to stand where: {said:?}; but there are {are:?}"));
        }
        Ok(())
    }

    pub(super) fn ages(&mut self) -> Result<(), Error> {
        let mut found = 0;
        for entry in self.entries(keys::AGES) {
            let (key, _) = entry?;
            found += 1;
            self.sound(&shown(&key), keys::aged(&key));
        }
        if found != self.ages {
            let asked = self.ages;
            self.violation(&format!("{found} things are marked as over, and {asked} are"));
        }
        Ok(())
    }

    pub(super) fn expiries(&mut self) -> Result<(), Error> {
        for (prefix, length) in [(b"k", keys::IDEMPOTENCY_BYTES), (b"h", 33)] {
            for entry in self.entries(prefix) {
                let (key, value) = entry?;
                self.checked.keys += 1;
                if key.len() != length {
                    self.violation(&format!("{}: its key has the wrong length", shown(&key)));
                }
                let Some((expires, answer)) = value.split_first_chunk::<8>() else {
                    self.violation(&format!("{}: it does not say when it expires", shown(&key)));
                    continue;
                };
                let expires = Millis(u64::from_be_bytes(*expires));
                if !self.has(&keys::expiry(expires, &key))? {
                    self.violation(&format!("{}: it would never expire", shown(&key)));
                }
                if prefix == b"h" {
                    self.sound(&shown(&key), codec::decode::<StoredAnswer>(answer));
                }
            }
        }
        for entry in self.entries(keys::EXPIRIES) {
            let (index_key, _) = entry?;
            let Some((expires, key)) = self.sound(&shown(&index_key), keys::expired(&index_key)) else { continue };
            // One that was completed anew expires later, and its old entry goes with the next sweep.
            let value = self.tree.get(&key).map_err(failed)?;
            let is_known = value.is_some_and(|value| {
                value.first_chunk::<8>().is_some_and(|found| u64::from_be_bytes(*found) >= expires.0)
            });
            if !is_known {
                self.violation(&format!("{}: it says when something expires that is not there", shown(&index_key)));
            }
        }
        Ok(())
    }
}
