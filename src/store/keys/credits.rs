//! Balances of credits, and what was charged.

use super::batch::of_batch;
use crate::domain::{Account, BatchId};
use crate::store::Error;

pub(in crate::store) const BALANCES: &[u8] = b"s";
pub(in crate::store) const CHARGES: &[u8] = b"p";

pub(in crate::store) fn balance(account: &Account) -> Vec<u8> {
    let kind = match account {
        Account::User(_) => 0,
        Account::Organisation(_) => 1,
    };
    [BALANCES, &[kind], account.id().as_bytes()].concat()
}

/// The first key behind all balances.
pub(in crate::store) fn balances_end() -> Vec<u8> {
    vec![BALANCES[0] + 1]
}

/// The account whose balance has this key.
pub(in crate::store) fn account_of(key: &[u8]) -> Result<Account, Error> {
    let corrupt = || Error::Corrupt("a balance is nobody's".to_owned());
    let (kind, id) = key.get(BALANCES.len()..).and_then(|rest| rest.split_first()).ok_or_else(corrupt)?;
    let id = std::str::from_utf8(id).map_err(|_| corrupt())?.to_owned();
    match kind {
        0 => Ok(Account::User(id)),
        1 => Ok(Account::Organisation(id)),
        _ => Err(corrupt()),
    }
}

/// Where the charges for a batch lie.
pub(in crate::store) fn charges(id: BatchId) -> Vec<u8> {
    of_batch(CHARGES[0], id)
}

pub(in crate::store) fn charge(id: BatchId, version: u64) -> Vec<u8> {
    let mut key = charges(id);
    key.extend_from_slice(&version.to_be_bytes());
    key
}

/// The batch that was charged for, and the version that it came to.
pub(in crate::store) fn charge_of(key: &[u8]) -> Result<(BatchId, u64), Error> {
    let parts = key.split_last_chunk::<8>().and_then(|(head, version)| {
        let batch = head.strip_prefix(CHARGES)?.try_into().ok()?;
        Some((BatchId(uuid::Uuid::from_bytes(batch)), u64::from_be_bytes(*version)))
    });
    parts.ok_or_else(|| Error::Corrupt("a charge's key has the wrong length".to_owned()))
}
