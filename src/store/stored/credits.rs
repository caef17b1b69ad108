//! Balances and charges, as they are stored.

use serde::{Deserialize, Serialize};

use super::parse;
use crate::domain::{Account, Balance, Charge, Cost, Millis, Phase};
use crate::store::Error;

/// The balance of an account. Every change of it is a difference, so that it comes to the same in whatever order charges
/// and changes by hand are committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct StoredBalance {
    /// What is left, where that counts.
    pub(in crate::store) credits: i64,
    pub(in crate::store) charged: u64,
    pub(in crate::store) is_unlimited: bool,
    pub(in crate::store) changed_at: u64,
}

impl StoredBalance {
    /// That of an account that nothing is known of.
    pub(in crate::store) const NONE: Self = Self { credits: 0, charged: 0, is_unlimited: true, changed_at: 0 };

    pub(in crate::store) const fn into_balance(self) -> Balance {
        let Self { credits, charged, is_unlimited, changed_at } = self;
        Balance { credits, is_unlimited, charged, changed_at: Millis(changed_at) }
    }
}

/// What an accepted pipeline was charged.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct StoredCharge {
    of_organisation: bool,
    account: String,
    requested: String,
    cj_comparisons: u64,
    ai_feedback: u64,
    at: u64,
}

impl StoredCharge {
    pub(in crate::store) fn of(charge: &Charge) -> Self {
        let Charge { account, requested, cost: Cost { cj_comparisons, ai_feedback }, at } = charge;
        Self {
            of_organisation: matches!(account, Account::Organisation(_)),
            account: account.id().to_owned(),
            requested: requested.to_string(),
            cj_comparisons: *cj_comparisons,
            ai_feedback: *ai_feedback,
            at: at.0,
        }
    }

    pub(in crate::store) fn into_charge(self) -> Result<Charge, Error> {
        let Self { of_organisation, account, requested, cj_comparisons, ai_feedback, at } = self;
        let account = if of_organisation { Account::Organisation(account) } else { Account::User(account) };
        let requested = parse::<Phase>(&requested)?;
        Ok(Charge { account, requested, cost: Cost { cj_comparisons, ai_feedback }, at: Millis(at) })
    }
}
