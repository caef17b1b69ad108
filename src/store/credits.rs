//! Balances of credits, and what was charged for which pipeline.
//!
//! Batches of all partitions share a balance, so a commit does not say what it is from now on but by how much it
//! changes; the [committer](super::committer), the only writer, adds that up.

use std::collections::HashMap;
use std::ops::Bound;

use super::layers::Tree;
use super::read::failed;
use super::stored::{StoredBalance, StoredCharge};
use super::{Commit, Error, Store, codec, keys};
use crate::domain::{Account, Balance, BatchId, Charge, Millis};

/// By how much a balance changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// Credits that it has more, or fewer.
    pub credits: i64,
    /// Credits that were charged.
    pub charged: u64,
    /// Whether nothing is limited from now on; none where that stays as it is.
    pub is_unlimited: Option<bool>,
    /// When.
    pub at: Millis,
}

impl Difference {
    fn apply(self, balance: &mut StoredBalance) {
        let Self { credits, charged, is_unlimited, at } = self;
        balance.credits = balance.credits.saturating_add(credits);
        balance.charged = balance.charged.saturating_add(charged);
        balance.is_unlimited = is_unlimited.unwrap_or(balance.is_unlimited);
        balance.changed_at = balance.changed_at.max(at.0);
    }
}

impl Commit {
    /// Changes the balance of `account`; it has one from now on.
    pub fn change_balance(&mut self, account: &Account, difference: Difference) {
        self.credits.push((keys::balance(account), difference));
    }

    /// Charges for the pipeline that the step of `batch` to `version` accepted.
    ///
    /// # Errors
    /// As [`Commit::put_batch`].
    pub fn charge(&mut self, batch: BatchId, version: u64, charge: &Charge) -> Result<(), Error> {
        self.put(keys::charge(batch, version), codec::encode(&StoredCharge::of(charge))?);
        let charged = charge.cost.total();
        let credits = i64::try_from(charged).map_or(i64::MIN, |credits| -credits);
        self.change_balance(&charge.account, Difference { credits, charged, is_unlimited: None, at: charge.at });
        Ok(())
    }
}

/// A balance, encoded, by its key.
type Encoded = (Vec<u8>, Vec<u8>);

/// What balances are once these differences are added, in order.
pub(super) fn added_up<'a>(
    tree: &Tree,
    differences: impl Iterator<Item = &'a (Vec<u8>, Difference)>,
) -> Result<Vec<Encoded>, Error> {
    let mut balances: HashMap<&Vec<u8>, StoredBalance> = HashMap::new();
    for (key, difference) in differences {
        if !balances.contains_key(key) {
            let stored = tree.get(key).map_err(failed)?;
            let stored = stored.map(|value| codec::decode(&value)).transpose()?;
            balances.insert(key, stored.unwrap_or(StoredBalance::NONE));
        }
        if let Some(balance) = balances.get_mut(key) {
            difference.apply(balance);
        }
    }
    balances.into_iter().map(|(key, balance)| Ok((key.clone(), codec::encode(&balance)?))).collect()
}

impl Store {
    /// The balance of `account`; none where it has none.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn balance(&self, account: &Account) -> Result<Option<Balance>, Error> {
        let value = self.shared.state.get(keys::balance(account)).map_err(failed)?;
        Ok(value.map(|value| codec::decode::<StoredBalance>(&value)).transpose()?.map(StoredBalance::into_balance))
    }

    /// Balances, users before organisations, by id, behind `after` where there is one, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn balances(&self, after: Option<&Account>, limit: usize) -> Result<Vec<(Account, Balance)>, Error> {
        let start =
            after.map_or(Bound::Included(keys::BALANCES.to_vec()), |after| Bound::Excluded(keys::balance(after)));
        let end = Bound::Excluded(keys::balances_end());
        let balance = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = entry.map_err(failed)?;
            Ok((keys::account_of(&key)?, codec::decode::<StoredBalance>(&value)?.into_balance()))
        };
        self.shared.state.range::<Vec<u8>>((start, end)).take(limit).map(balance).collect()
    }
}
