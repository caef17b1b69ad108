//! Step, commit, then tell: the partitions that own batches, and what keeps them going.
//!
//! Every batch belongs to one partition, a thread, which loads its record, steps, commits and answers; so the steps of a
//! batch are in order without a lock. Beside the partitions: the outbox relay, which feeds the bus with what was
//! committed; the orchestrator's consumer, which turns messages into steps; the timers; the sweep; readers of the log of
//! events, each at its own pace. Everybody else uses the [`Engine`] handle and never the store.

mod backup;
mod balances;
mod cache;
mod consume;
mod counters;
mod credits;
mod durable;
mod error;
mod event_log;
mod events;
mod groups;
mod inbound;
mod job_runner;
mod jobs;
mod leases;
mod letters;
mod life;
mod listing;
mod notices;
mod once;
mod orchestrator;
mod partition;
mod posting;
mod publish;
mod queue;
mod relay;
mod request;
mod rest;
mod retention;
mod round;
mod seed;
mod submission;
mod survey;
mod sweep;
mod tail;
mod timers;

use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::bus::{Listener, TooManyConnections};
pub use crate::store::StoredAnswer as Answer;
pub use crate::store::{Numbers as StoreNumbers, Standings};
pub use balances::{BalanceChange, Changed, Unchanged};
pub use counters::{Attempts, Counters};
pub use error::Error;
pub use event_log::{EventFilter, EventLog, EventPage, LoggedEvent};
pub use events::{EventReader, Read, Start, StreamFilter};
pub use groups::Acknowledged;
pub use inbound::{DEFAULT_RETRY_REASON, readable};
pub use jobs::{JobPreview, JobProgress, JobRequest, MAX_JOB_BATCHES, MAX_PER_SECOND};
pub use leases::{LeaseRequest, Leased, MAX_LEASES};
pub use letters::{Decided, Decisions, LetterFilter, MAX_DECISIONS, MAX_DELIVERIES, Undecided};
pub use life::Options;
pub use listing::{Page, Place};
pub use once::RequestKey;
pub use posting::Posted;
pub use publish::content_id;
pub use request::{Claim, Reader};
pub use seed::{Seed, SeedError};
pub use submission::Submission;
pub use survey::{Backlog, Survey};

use crate::bus::Bus;
use crate::clock::Clock;
use crate::domain::{Attempt, Batch, BatchId, Millis, Phase, Rules};
use crate::store::{self, Store};
use credits::Ledger;
use durable::Durable;
use job_runner::Jobs;
use leases::Desk;
use once::{InFlight, Once, Reservation};
use queue::Queue;
use request::{Cause, Request, StepReply, StepRequest};
use survey::Surveys;
use tail::Tail;
use timers::Timers;

/// The handle of the engine. Its clones share it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    partitions: Vec<Queue<Request>>,
    /// What is durable of each partition.
    durable: Vec<Arc<Durable>>,
    threads: std::sync::Mutex<Vec<std::thread::JoinHandle<()>>>,
    store: Store,
    bus: Arc<Bus>,
    clock: Clock,
    counters: Arc<Counters>,
    in_flight: InFlight,
    jobs: Jobs,
    desk: Desk,
    ledger: Arc<Ledger>,
    rules: Rules,
    timers: Timers,
    retain_ms: Option<u64>,
    /// One sweep at a time.
    sweeping: Semaphore,
    reads: Arc<Semaphore>,
    tail: Arc<Tail>,
    log_reads: Semaphore,
    surveys: Surveys,
    up_since: Millis,
    tasks: TaskTracker,
    stop: CancellationToken,
    failed: CancellationToken,
}

impl Engine {
    /// Does `input` to `batch`, and answers with the record from then on, once that is durable.
    ///
    /// # Errors
    /// [`Error::Rejected`] where the batch does not allow it; the others where it may be tried again.
    pub async fn submit(&self, batch: BatchId, submission: Submission) -> Result<Arc<Batch>, Error> {
        match self.send(batch, submission).await? {
            StepReply::Done(batch) => Ok(batch),
            StepReply::Duplicate | StepReply::Answered(_) | StepReply::Replayed(_) => {
                Err(Error::Unavailable("a request without a key has no answer to repeat".to_owned()))
            }
        }
    }

    /// As [`Engine::submit`], for a request that named itself: its answer, made by `render`, is stored with the change,
    /// and given again, as it was, to a repetition. Answers whether it is one.
    ///
    /// # Errors
    /// Besides those of [`Engine::submit`], [`Error::KeyReused`] and [`Error::KeyInFlight`].
    pub async fn submit_once(
        &self,
        batch: BatchId,
        submission: Submission,
        key: RequestKey,
        render: impl FnOnce(&Batch) -> Answer + Send + 'static,
    ) -> Result<(Answer, bool), Error> {
        let reservation = self.shared.in_flight.reserve(key).ok_or(Error::KeyInFlight)?;
        self.submit_reserved(batch, submission, (key, reservation), render).await
    }

    /// As [`Engine::submit_once`], and where the same request is being served it waits for its turn, and gets that answer.
    ///
    /// # Errors
    /// Besides those of [`Engine::submit`], [`Error::KeyReused`].
    pub async fn submit_in_turn(
        &self,
        batch: BatchId,
        submission: Submission,
        key: RequestKey,
        render: impl FnOnce(&Batch) -> Answer + Send + 'static,
    ) -> Result<(Answer, bool), Error> {
        let reservation = self.shared.in_flight.reserve_in_turn(key).await;
        self.submit_reserved(batch, submission, (key, reservation), render).await
    }

    async fn submit_reserved(
        &self,
        batch: BatchId,
        submission: Submission,
        (key, reservation): (RequestKey, Reservation),
        render: impl FnOnce(&Batch) -> Answer + Send + 'static,
    ) -> Result<(Answer, bool), Error> {
        let once = Some(Once { key, render: Box::new(render), reservation });
        match self.send(batch, Submission { once, ..submission }).await? {
            StepReply::Answered(answer) => Ok((answer, false)),
            StepReply::Replayed(answer) => Ok((answer, true)),
            StepReply::Done(_) | StepReply::Duplicate => {
                Err(Error::Unavailable("a request with a key has its own answer".to_owned()))
            }
        }
    }

    async fn send(&self, batch: BatchId, submission: Submission) -> Result<StepReply, Error> {
        let (reply, answer) = oneshot::channel();
        let request = StepRequest { batch, submission, cause: Cause::Request, reply };
        let partition = self.partition_of(batch.0.as_bytes());
        partition.try_send(Request::Step(Box::new(request))).map_err(|error| self.refused(&error))?;
        answer.await.map_err(|_| self.unavailable())?
    }

    /// The durable record of `batch` and the time, where it is at hand. It does not block.
    #[must_use]
    pub fn at_hand(&self, batch: BatchId) -> Option<(Arc<Batch>, Millis)> {
        let durable = &self.shared.durable[self.partition_index(batch.0.as_bytes())];
        let record = durable.cache().get(batch)?;
        Some((record, self.clock().now()))
    }

    /// Attempts of `phase` that have ended, the newest first, as many as a status shows, by the time of `batch`: where
    /// they are at hand, and that is still the newest record. It does not block.
    #[must_use]
    pub fn newest_at_hand(&self, batch: &Arc<Batch>, phase: Phase) -> Option<Vec<Arc<Attempt>>> {
        let durable = &self.shared.durable[self.partition_index(batch.id.0.as_bytes())];
        durable.cache().tail_of(batch, phase)
    }

    /// Lets `question` read what is durable of `batch`.
    ///
    /// # Errors
    /// [`Error::Overloaded`] and [`Error::Unavailable`].
    pub async fn query<T: Send + 'static>(
        &self,
        batch: BatchId,
        question: impl FnOnce(Result<Reader<'_>, Error>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let run = Box::new(move |reader: Result<Reader<'_>, Error>| {
            // Whoever asked may have gone away.
            let _ = reply.send(question(reader));
        });
        let partition = self.partition_of(batch.0.as_bytes());
        partition.try_send(Request::Query { batch, run }).map_err(|error| self.refused(&error))?;
        answer.await.map_err(|_| self.unavailable())?
    }

    /// The text behind a storage id, where it lies here.
    ///
    /// # Errors
    /// [`Error::Overloaded`] and [`Error::Unavailable`].
    pub async fn content(&self, storage_id: &str) -> Result<Option<String>, Error> {
        let Some(hash) = hex::decode(storage_id).ok().and_then(|bytes| bytes.try_into().ok()) else { return Ok(None) };
        let store = self.shared.store.clone();
        self.read(move || store.content(&hash)).await
    }

    /// Reads what is no batch's, for somebody who waits for it.
    async fn read<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> Result<T, store::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let place = Arc::clone(&self.shared.reads).try_acquire_owned().map_err(|_| Error::Overloaded)?;
        let read = blocking(move || {
            let result = task();
            // Kept until here, even where whoever asked has gone away.
            drop(place);
            result
        });
        Ok(read.await?)
    }

    /// The bus that this engine feeds.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.shared.bus
    }

    /// The clock that this engine runs by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    fn partition_of(&self, identity: &[u8]) -> &Queue<Request> {
        &self.shared.partitions[self.partition_index(identity)]
    }

    fn partition_index(&self, identity: &[u8]) -> usize {
        // FNV-1a: spreads ids evenly, and is the same for ever.
        let hash = identity
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        let count = self.shared.partitions.len();
        usize::try_from(hash % u64::try_from(count).unwrap_or(1)).unwrap_or(0)
    }

    fn refused(&self, error: &TrySendError<Request>) -> Error {
        match error {
            TrySendError::Full(_) => Error::Overloaded,
            TrySendError::Closed(_) => self.unavailable(),
        }
    }

    fn unavailable(&self) -> Error {
        Error::Unavailable(self.failure().unwrap_or("the program is ending").to_owned())
    }
}

/// Runs what blocks where blocking is allowed.
async fn blocking<T: Send + 'static>(
    task: impl FnOnce() -> Result<T, store::Error> + Send + 'static,
) -> Result<T, store::Error> {
    match tokio::task::spawn_blocking(task).await {
        Ok(result) => result,
        Err(error) => Err(store::Error::Failed(error.to_string().into())),
    }
}
