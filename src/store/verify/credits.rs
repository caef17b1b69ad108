//! Credits: balances are what they can be, and every charge is somebody's for a batch that is there.

use std::collections::HashMap;

use super::super::read;
use super::super::stored::{StoredBalance, StoredCharge};
use super::super::{Error, codec, keys};
use super::{Check, shown};
use crate::domain::{Account, MAX_CREDITS};

impl Check<'_> {
    /// Charges go with their batches, so a balance may have been charged more than is still on record, and never less.
    pub(super) fn credits(&mut self) -> Result<(), Error> {
        let mut recorded = self.charges()?;
        for entry in self.entries(keys::BALANCES) {
            let (key, value) = entry?;
            self.checked.balances += 1;
            let Some(account) = self.sound(&shown(&key), keys::account_of(&key)) else { continue };
            let Some(balance) = self.sound(&shown(&key), codec::decode::<StoredBalance>(&value)) else { continue };
            let is_possible = u64::try_from(balance.credits).is_ok_and(|credits| credits <= MAX_CREDITS);
            if !is_possible {
                self.violation(&format!("the balance of {} is {} credits", account.id(), balance.credits));
            }
            if recorded.remove(&account).is_some_and(|recorded| recorded > balance.charged) {
                self.violation(&format!("{} was charged less than its pipelines cost", account.id()));
            }
        }
        for account in recorded.into_keys() {
            self.violation(&format!("{} was charged and has no balance", account.id()));
        }
        Ok(())
    }

    /// What is on record, by account.
    fn charges(&mut self) -> Result<HashMap<Account, u64>, Error> {
        let mut recorded: HashMap<Account, u64> = HashMap::new();
        for entry in self.entries(keys::CHARGES) {
            let (key, value) = entry?;
            self.checked.charges += 1;
            let Some((id, version)) = self.sound(&shown(&key), keys::charge_of(&key)) else { continue };
            let charge = codec::decode::<StoredCharge>(&value).and_then(StoredCharge::into_charge);
            let Some(charge) = self.sound(&shown(&key), charge) else { continue };
            // One that cannot be read is said elsewhere.
            let batch = read::batch(&self.tree, id).unwrap_or_default();
            if batch.is_none_or(|batch| batch.version < version) || charge.cost.total() == 0 {
                self.violation(&format!("{}: nothing of batch {id} was to be paid for then", shown(&key)));
            }
            *recorded.entry(charge.account).or_default() += charge.cost.total();
        }
        Ok(recorded)
    }
}
