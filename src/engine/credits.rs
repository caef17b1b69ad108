//! Credits: balances that batches of all partitions share.
//!
//! A step is one commit of its own partition, and a balance belongs to none. So what is left of each is counted here, in
//! memory: whoever accepts a pipeline takes its price before the commit that it goes into, and that commit says by how
//! much the balance changes. What is given by hand counts once it is durable, what is taken counts at once. Therefore
//! what is on disk never falls below zero, whichever commits a crash leaves. A commit that fails ends the process, so only
//! what never became part of one is given back.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::notices::{self, Whom};
use super::partition::Partition;
use super::round::Round;
use super::{Engine, Error, publish};
use crate::domain::{
    Account, Balance, Balances, Batch, BatchDetails, BatchId, Context, Denial, Effect, Funds, Input, Millis, Phase,
    Preflight, Rejected, Step, denied, step,
};
use crate::store::{self, Commit, Difference, Store};

/// What is left, by account. Shared by the partitions; its lock is held for the moment of a look.
#[derive(Default)]
pub(super) struct Ledger(Mutex<HashMap<Account, Purse>>);

/// What is left to one account, less what was taken and is not durable yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purse {
    pub(super) credits: i64,
    pub(super) is_unlimited: bool,
    pub(super) charged: u64,
}

impl Purse {
    /// That of an account that nothing is known of.
    pub(super) const NONE: Self = Self { credits: 0, is_unlimited: true, charged: 0 };
}

impl Ledger {
    /// The balances in `store`. Those of `first` that are not there are put there.
    pub(super) fn open(store: &Store, first: &Balances, now: Millis) -> Result<Self, store::Error> {
        let purse = |(account, balance)| {
            let Balance { credits, is_unlimited, charged, changed_at: _ } = balance;
            (account, Purse { credits, is_unlimited, charged })
        };
        let mut purses: HashMap<_, _> = store.balances(None, usize::MAX)?.into_iter().map(purse).collect();
        let mut commit = Commit::new();
        for (account, credits) in &first.0 {
            if let Entry::Vacant(vacant) = purses.entry(account.clone()) {
                let (is_unlimited, credits) = (credits.is_none(), signed(credits.unwrap_or(0)));
                let difference = Difference { credits, charged: 0, is_unlimited: Some(is_unlimited), at: now };
                commit.change_balance(account, difference);
                vacant.insert(Purse { credits, is_unlimited, charged: 0 });
            }
        }
        if !commit.is_empty() {
            store.commit_blocking(commit)?;
        }
        Ok(Self(Mutex::new(purses)))
    }

    pub(super) fn purses(&self) -> MutexGuard<'_, HashMap<Account, Purse>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who pays for a batch, and what they have.
    fn funds(&self, details: &BatchDetails) -> (Option<Account>, Funds) {
        let purses = self.purses();
        let payer = Account::payers(details).find_map(|account| purses.get(&account).map(|purse| (account, *purse)));
        match payer {
            None => (None, Funds::Unlimited),
            Some((account, Purse { is_unlimited: true, .. })) => (Some(account), Funds::Unlimited),
            Some((account, Purse { credits, .. })) => {
                (Some(account), Funds::Limited(u64::try_from(credits).unwrap_or(0)))
            }
        }
    }

    /// Takes `credits`, if they are still there.
    fn take(self: &Arc<Self>, account: Account, credits: u64) -> Option<Taken> {
        let mut purses = self.purses();
        let purse = purses.get_mut(&account).filter(|purse| !purse.is_unlimited)?;
        let left = purse.credits.checked_sub(signed(credits)).filter(|left| *left >= 0)?;
        (purse.credits, purse.charged) = (left, purse.charged + credits);
        drop(purses);
        Some(Taken { ledger: Arc::clone(self), account, credits, is_kept: false })
    }
}

/// What an effect charges, if that is what it does.
const fn price(effect: &Effect) -> Option<u64> {
    match effect {
        Effect::Charge { cost, .. } => Some(cost.total()),
        Effect::Publish(_)
        | Effect::Show(_)
        | Effect::RecordAttempt { .. }
        | Effect::ArmTimer(_)
        | Effect::DisarmTimer(_)
        | Effect::Recall { .. }
        | Effect::TellOwner(_) => None,
    }
}

pub(super) fn signed(credits: u64) -> i64 {
    i64::try_from(credits).unwrap_or(i64::MAX)
}

/// Credits that were taken. They are given back where they do not become part of a commit.
pub(super) struct Taken {
    ledger: Arc<Ledger>,
    pub(super) account: Account,
    credits: u64,
    is_kept: bool,
}

impl Taken {
    /// They are part of a commit.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(purse) = self.ledger.purses().get_mut(&self.account).filter(|_| !self.is_kept) {
            purse.credits += signed(self.credits);
            purse.charged -= self.credits;
        }
    }
}

impl Partition {
    /// Steps the batch, and takes what the step charges.
    pub(super) fn step_and_take(
        &self,
        old: Option<&Batch>,
        input: Input,
        context: &Context<'_>,
    ) -> Result<(Step, Option<Taken>), Rejected> {
        let (Some(batch), Input::RequestPipeline { .. } | Input::DenyPipeline { .. }) = (old, &input) else {
            return Ok((step(old, input, context)?, None));
        };
        loop {
            let (account, funds) = self.ledger.funds(&batch.details);
            let step = step(old, input.clone(), &Context { funds, ..*context })?;
            let cost = step.effects.iter().find_map(price);
            let (Some(account), Some(credits)) = (account, cost) else { return Ok((step, None)) };
            // Where another partition was faster there is less, and the step decides anew.
            if let Some(taken) = self.ledger.take(account, credits) {
                return Ok((step, Some(taken)));
            }
        }
    }

    /// Tells that a pipeline was denied.
    pub(super) fn tell_denial(
        round: &mut Round,
        batch: &Arc<Batch>,
        denial: &Denial,
        context: &Context<'_>,
    ) -> Result<(), store::Error> {
        let (mut commit, mut told) = (Commit::new(), Vec::new());
        for outgoing in denied(batch, denial, context) {
            let message = publish::denial(batch.id, context.now, outgoing)?;
            told.extend(notices::notice(&message));
            commit.publish(message)?;
        }
        round.commit.append(commit);
        round.notices.extend(told.into_iter().map(|notice| (Whom::Owner(Arc::clone(batch)), notice)));
        Ok(())
    }
}

impl Engine {
    /// What the pipeline of `batch` that ends with `last` would run and cost, and what there is to pay with; and who owns
    /// the batch.
    ///
    /// # Errors
    /// [`Error::Rejected`] where there is no such batch, [`Error::Overloaded`] and [`Error::Unavailable`].
    pub async fn preflight(&self, batch: BatchId, last: Phase) -> Result<(Preflight, String), Error> {
        let ledger = Arc::clone(&self.shared.ledger);
        let look = move |batch: &Batch| {
            let (_, funds) = ledger.funds(&batch.details);
            (Preflight { requested: last, quote: batch.quote(last), funds }, batch.details.user_id.clone())
        };
        let found = self.query(batch, move |reader| Ok(reader?.batch().map(|batch| look(batch)))).await?;
        found.ok_or(Error::Rejected(Rejected::NoSuchBatch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account::User("teacher-7".to_owned())
    }

    fn ledger(credits: i64) -> Arc<Ledger> {
        let purse = Purse { credits, is_unlimited: false, charged: 0 };
        Arc::new(Ledger(Mutex::new(HashMap::from([(account(), purse)]))))
    }

    fn credits(ledger: &Ledger) -> (i64, u64) {
        let purse = ledger.purses()[&account()];
        (purse.credits, purse.charged)
    }

    #[test]
    fn nobody_takes_what_somebody_else_has_taken() {
        let ledger = ledger(60);
        let taken = std::thread::scope(|scope| {
            let take = || (0..10).filter_map(|_| ledger.take(account(), 7)).collect::<Vec<_>>();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("it takes")).collect::<Vec<_>>()
        });
        assert_eq!((taken.len(), credits(&ledger)), (8, (4, 56)));
        assert!(ledger.take(account(), 4).is_some_and(|taken| taken.credits == 4), "and gives it back");
        assert_eq!(credits(&ledger), (4, 56));
        taken.into_iter().take(3).for_each(Taken::keep);
        // What did not become part of a commit is there again.
        assert_eq!(credits(&ledger), (39, 21));
        assert!(ledger.take(Account::User("eve".to_owned()), 1).is_none());
    }
}
