//! What is asked of a partition, and what it answers.

use std::sync::Arc;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::balances::BalanceRequest;
use super::cache::TAIL;
use super::durable::Durable;
use super::groups::GroupRequest;
use super::letters::{LetterRequest, Refusal};
use super::notices::Whom;
use super::once::{RequestKey, Reservation};
use super::posting::PostRequest;
use super::{Error, Submission, rest};
use crate::contract::idempotency::Key;
use crate::contract::{Group, Message, Notice};
use crate::domain::{
    Attempt, Batch, BatchId, Context, Funds, Input, JobId, JobMember, LateOutcome, Millis, Phase, Rules, Timer, step,
};
use crate::store::{Commit, Sequence, Store, StoredAnswer};

pub(super) enum Request {
    Step(Box<StepRequest>),
    Query {
        batch: BatchId,
        run: Question,
    },
    /// To be told when the batch is no longer being processed.
    Rest {
        batch: BatchId,
        reply: rest::Reply,
    },
    Claim {
        group: Group,
        key: Key,
        reply: oneshot::Sender<Result<Claim, Error>>,
    },
    Release {
        group: Group,
        key: Key,
    },
    Settle(Box<Settlement>),
    Post(Box<PostRequest>),
    Groups(Box<GroupRequest>),
    Letters(Box<LetterRequest>),
    Balance(Box<BalanceRequest>),
    /// Batches to remove, each if it still rests since then; how many were is the answer.
    Forget {
        batches: Vec<(BatchId, Millis)>,
        reply: oneshot::Sender<Result<usize, Error>>,
    },
    Stop,
}

pub(super) type Question = Box<dyn FnOnce(Result<Reader<'_>, Error>) + Send>;

pub(super) struct StepRequest {
    pub(super) batch: BatchId,
    pub(super) submission: Submission,
    pub(super) cause: Cause,
    pub(super) reply: oneshot::Sender<Result<StepReply, Error>>,
}

/// What a step uses up, whatever it decides.
pub(super) enum Cause {
    /// Nothing: somebody waits for the answer.
    Request,
    /// A message of the outbox, at its so-many-th delivery.
    Message { group: Group, sequence: Sequence, key: Key, message: Message, deliveries: u32 },
    /// A command of the outbox that somebody leases, or that a worker here has run. One that is out of date is used up,
    /// and no dead letter: its attempt has ended in another way.
    Command { group: Group, sequence: Sequence, key: Key },
    /// A timer that is due.
    Timer(Timer),
    /// The turn of a batch in a bulk retry.
    Job { job: JobId, place: u32, phase: Phase, member: JobMember },
}

pub(super) enum StepReply {
    /// The record from now on.
    Done(Arc<Batch>),
    /// The message had been handled before.
    Duplicate,
    /// The answer to a request that named itself, stored with what it changed.
    Answered(StoredAnswer),
    /// The stored answer of an earlier request of the same name.
    Replayed(StoredAnswer),
}

/// A commit that is no step of a batch.
pub(super) struct Settlement {
    pub(super) commit: Commit,
    /// A message that was handled, as far as it could be.
    pub(super) consumed: Option<(Group, Sequence, Key)>,
    /// Why it could not be, where it could not; it becomes a dead letter.
    pub(super) refusal: Option<Refusal>,
    /// An answer to keep for repetitions of its request.
    pub(super) kept: Option<Kept>,
    /// What it tells users.
    pub(super) notices: Vec<(Whom, Notice)>,
    pub(super) reply: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Settlement {
    pub(super) const fn of(commit: Commit) -> Self {
        Self { commit, consumed: None, refusal: None, kept: None, notices: Vec::new(), reply: None }
    }
}

/// The answer to a request that named itself and is no step. Nobody else is served with its key meanwhile.
pub(super) struct Kept {
    pub(super) key: RequestKey,
    pub(super) answer: StoredAnswer,
    pub(super) reservation: Reservation,
}

/// Whether a message may be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Yes; its key is `processing` from now on.
    Granted,
    /// It was handled before.
    Duplicate,
    /// It is being handled, and may be taken over once its key's time is over.
    Busy {
        /// When that is.
        until: Millis,
    },
}

/// What can be read of one batch.
pub struct Reader<'a> {
    pub(super) batch: Option<Arc<Batch>>,
    pub(super) id: BatchId,
    pub(super) store: &'a Store,
    pub(super) durable: &'a Durable,
    pub(super) now: Millis,
    pub(super) up_since: Millis,
    pub(super) rules: &'a Rules,
}

impl Reader<'_> {
    /// The record; none where there is no such batch.
    #[must_use]
    pub const fn batch(&self) -> Option<&Arc<Batch>> {
        self.batch.as_ref()
    }

    /// What `input` would make of the batch. Nothing is changed.
    ///
    /// # Errors
    /// [`Error::Rejected`], as the real thing would be.
    pub fn preview(&self, input: Input, correlation_id: Uuid) -> Result<Batch, Error> {
        let origin = Arc::default();
        let (now, up_since, rules) = (self.now, self.up_since, self.rules);
        let context = Context { now, up_since, correlation_id, origin: &origin, rules, funds: Funds::Unlimited };
        Ok(step(self.batch.as_deref(), input, &context)?.batch)
    }

    /// Attempts of `phase` that had ended by the time of the record, the newest first, as many as a status shows.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub fn newest_attempts(&self, phase: Phase) -> Result<Vec<Arc<Attempt>>, Error> {
        let Some(batch) = &self.batch else { return Ok(Vec::new()) };
        if let Some(tail) = self.durable.cache().tail_of(batch, phase) {
            return Ok(tail);
        }
        let newest = self.store.newest_attempts(batch, phase, TAIL)?;
        let newest: Vec<_> = newest.into_iter().map(Arc::new).collect();
        self.durable.cache().put_tail(batch, phase, &newest);
        Ok(newest)
    }

    /// Outcomes of `phase` that came too late, the newest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub fn late_outcomes(&self, phase: Phase, limit: usize) -> Result<Vec<LateOutcome>, Error> {
        Ok(self.store.late_outcomes(self.id, phase, limit)?)
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Millis {
        self.now
    }

    /// Attempts of `phase` that had ended by the time of the record, oldest first, from the number `first` on.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub fn attempts_from(&self, phase: Phase, first: u32, limit: usize) -> Result<Vec<Attempt>, Error> {
        let Some(batch) = &self.batch else { return Ok(Vec::new()) };
        Ok(self.store.attempts_from(batch, phase, first, limit)?)
    }
}
