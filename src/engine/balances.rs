//! Balances, changed by hand: one after the other, by one partition, so that each is decided on what the one before left.

use tokio::sync::oneshot;

use super::credits::{Ledger, Purse, signed};
use super::once::{RequestKey, Reservation};
use super::partition::Partition;
use super::request::Request;
use super::{Answer, Engine, Error};
use crate::domain::{Account, Balance, MAX_BALANCES, MAX_CREDITS, Millis};
use crate::store::{Commit, Difference};

/// A change of a balance by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BalanceChange {
    /// So many credits from now on; none for as many as it takes. An account without a balance gets one.
    Set(Option<u64>),
    /// So many more, or fewer.
    Adjust(i64),
}

/// Why a balance was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unchanged {
    /// There is none.
    #[error("there is no such balance, so nothing is limited; PUT makes one")]
    Missing,
    /// There is no number that could grow or shrink.
    #[error("the credits are unlimited, so there can be no more or fewer; PUT sets a number")]
    Unlimited,
    /// It would be less than nothing, or too much.
    #[error("{credits} credits are left; after the change there have to be between 0 and {MAX_CREDITS}")]
    OutOfRange {
        /// What is left.
        credits: i64,
    },
    /// There are as many as there can be.
    #[error("there are {MAX_BALANCES} balances, and there can be no more")]
    TooMany,
}

/// What came of a change.
#[derive(Debug)]
pub enum Changed {
    /// The answer, which is durable.
    Made(Answer),
    /// The answer to the same request, which was made before.
    Repeated(Answer),
    /// Nothing.
    Refused(Unchanged),
}

/// Makes the answer out of the balance from now on.
type Render = Box<dyn FnOnce(&Account, &Balance) -> Answer + Send>;

/// A change of a balance that somebody asks for.
pub(super) struct BalanceRequest {
    account: Account,
    change: BalanceChange,
    once: Option<(RequestKey, Reservation)>,
    render: Render,
    reply: oneshot::Sender<Result<Changed, Error>>,
}

impl Engine {
    /// Changes the balance of `account`, and says what came of it once that is durable, with the answer that `render`
    /// makes of the balance. What is charged meanwhile is lost in neither.
    ///
    /// # Errors
    /// [`Error::KeyReused`], [`Error::KeyInFlight`], [`Error::Overloaded`] and [`Error::Unavailable`].
    pub async fn change_balance(
        &self,
        account: Account,
        change: BalanceChange,
        key: Option<RequestKey>,
        render: impl FnOnce(&Account, &Balance) -> Answer + Send + 'static,
    ) -> Result<Changed, Error> {
        let once = match key {
            Some(key) => Some((key, self.shared.in_flight.reserve(key).ok_or(Error::KeyInFlight)?)),
            None => None,
        };
        let (reply, answer) = oneshot::channel();
        let request = BalanceRequest { account, change, once, render: Box::new(render), reply };
        let partition = self.partition_of(b"credits");
        partition.try_send(Request::Balance(Box::new(request))).map_err(|error| self.refused(&error))?;
        answer.await.map_err(|_| self.unavailable())?
    }

    /// The balance of `account`; none where it has none.
    ///
    /// # Errors
    /// [`Error::Overloaded`] and [`Error::Unavailable`].
    pub async fn balance(&self, account: Account) -> Result<Option<Balance>, Error> {
        let store = self.shared.store.clone();
        self.read(move || store.balance(&account)).await
    }

    /// Balances, users before organisations, by id, behind `after` where there is one, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Overloaded`] and [`Error::Unavailable`].
    pub async fn balances(&self, after: Option<Account>, limit: usize) -> Result<Vec<(Account, Balance)>, Error> {
        let store = self.shared.store.clone();
        self.read(move || store.balances(after.as_ref(), limit)).await
    }
}

/// A change that was decided: how the balance differs, and what it is then.
struct Decided {
    difference: Difference,
    /// Whether it counted at once, because it only takes.
    is_counted: bool,
    balance: Balance,
}

impl Ledger {
    /// Decides about a change. What it takes from a limited balance counts from now on.
    fn decide(&self, account: &Account, change: BalanceChange, now: Millis) -> Result<Decided, Unchanged> {
        let mut purses = self.purses();
        let has_room = purses.len() < MAX_BALANCES;
        let purse = purses.get_mut(account);
        let before = purse.as_deref().copied();
        let Purse { credits, is_unlimited: was_unlimited, charged } = before.unwrap_or(Purse::NONE);
        let (target, is_unlimited) = match change {
            BalanceChange::Set(_) if before.is_none() && !has_room => return Err(Unchanged::TooMany),
            BalanceChange::Set(None) => (credits, true),
            BalanceChange::Set(Some(target)) => (signed(target), false),
            BalanceChange::Adjust(_) if before.is_none() => return Err(Unchanged::Missing),
            BalanceChange::Adjust(_) if was_unlimited => return Err(Unchanged::Unlimited),
            BalanceChange::Adjust(more) => {
                let target = credits.saturating_add(more);
                if !(0..=signed(MAX_CREDITS)).contains(&target) {
                    return Err(Unchanged::OutOfRange { credits });
                }
                (target, false)
            }
        };
        let difference =
            Difference { credits: target - credits, charged: 0, is_unlimited: Some(is_unlimited), at: now };
        let is_counted = !was_unlimited && !is_unlimited && difference.credits < 0;
        if let Some(purse) = purse.filter(|_| is_counted) {
            purse.credits += difference.credits;
        }
        let balance = Balance { credits: target, is_unlimited, charged, changed_at: now };
        Ok(Decided { difference, is_counted, balance })
    }

    /// Counts a change that is durable.
    fn count(&self, account: Account, difference: Difference) {
        let mut purses = self.purses();
        let purse = purses.entry(account).or_insert(Purse::NONE);
        purse.credits += difference.credits;
        purse.is_unlimited = difference.is_unlimited.unwrap_or(purse.is_unlimited);
    }
}

impl Partition {
    /// Changes a balance and commits that. Everything before is durable.
    pub(super) fn change_and_commit(&self, request: BalanceRequest) {
        let BalanceRequest { account, change, once, render, reply } = request;
        let (key, reservation) = once.unzip();
        let changed = self.change(account, change, key, render);
        drop(reservation);
        // Whoever asked may have gone away.
        let _ = reply.send(changed);
    }

    fn change(
        &self,
        account: Account,
        change: BalanceChange,
        key: Option<RequestKey>,
        render: Render,
    ) -> Result<Changed, Error> {
        let now = self.clock.now();
        if let Some(key) = &key
            && let Some(earlier) = key.earlier_answer(&self.store, now)?
        {
            return Ok(Changed::Repeated(earlier));
        }
        let Decided { difference, is_counted, balance } = match self.ledger.decide(&account, change, now) {
            Ok(decided) => decided,
            Err(unchanged) => return Ok(Changed::Refused(unchanged)),
        };
        let answer = render(&account, &balance);
        let mut commit = Commit::new();
        commit.change_balance(&account, difference);
        if let Some(key) = key {
            // Should this ever fail, less is left here than on disk, which denies and never overdraws.
            self.keep(&mut commit, key, &answer)?;
        }
        self.store.commit_blocking(commit)?;
        if !is_counted {
            self.ledger.count(account, difference);
        }
        Ok(Changed::Made(answer))
    }
}
