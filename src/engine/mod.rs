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
mod listing;
mod notices;
mod once;
mod orchestrator;
mod partition;
mod posting;
mod publish;
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

use tokio::sync::{Semaphore, mpsc, oneshot};
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
pub use listing::{Page, Place};
pub use once::RequestKey;
pub use posting::Posted;
pub use publish::content_id;
pub use request::{Claim, Reader};
pub use seed::{Seed, SeedError};
pub use submission::Submission;
pub use survey::{Backlog, Survey};

use crate::bus::{self, Bus};
use crate::clock::Clock;
use crate::domain::{Attempt, Balances, Batch, BatchId, Millis, Phase, Rules};
use crate::store::{self, Store};
use credits::Ledger;
use durable::Durable;
use job_runner::Jobs;
use leases::Desk;
use once::{InFlight, Once, Reservation};
use partition::Partition;
use request::{Cause, Request, StepReply, StepRequest};
use round::Listeners;
use survey::Surveys;
use tail::Tail;
use timers::Timers;

/// How the engine runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The store.
    pub store: store::Options,
    /// The bus.
    pub bus: bus::Options,
    /// The rules of the domain.
    pub rules: Rules,
    /// How often expired idempotency keys are swept, in milliseconds.
    pub sweep_interval_ms: u64,
    /// How old what is over may get before the sweep removes it, in milliseconds; none for ever.
    pub retain_ms: Option<u64>,
    /// The balances of credits to begin with.
    pub credits: Balances,
    /// How many partitions there are.
    pub partitions: usize,
}

impl Options {
    /// The defaults, on this store.
    #[must_use]
    pub fn new(store: store::Options) -> Self {
        // Stepping is quick and waiting for the disk is shared, so more partitions than cores help nobody.
        let partitions = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(1, 8));
        Self {
            store,
            bus: bus::Options::default(),
            rules: Rules::default(),
            sweep_interval_ms: 60_000,
            retain_ms: None,
            credits: Balances::default(),
            partitions,
        }
    }
}

/// How many requests may wait for one partition. Past that a client is told to come back, and a consumer waits.
const PARTITION_QUEUE: usize = 512;

/// How many reads beside the partitions may be under way. Each holds a thread while it reads; past that a client is told
/// to come back.
const MAX_READS: usize = 256;

/// The handle of the engine. Its clones share it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    partitions: Vec<mpsc::Sender<Request>>,
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
    /// Opens the store and starts everything: after that, what was left unconsumed is on its way again and every timer
    /// is armed.
    ///
    /// # Errors
    /// [`store::Error`] where the store does not open.
    pub async fn start(options: Options, clock: Clock) -> Result<Self, store::Error> {
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let failed = CancellationToken::new();
        let bus = Arc::new(Bus::new(&options.bus, &clock, &tasks, &stop));
        let tail = Arc::new(Tail::new());
        let (feed, relays) = relay::channels(Arc::clone(&bus), clock.clone(), Arc::clone(&tail));
        let store_options = options.store.clone();
        let (first, now) = (options.credits, clock.now());
        let opened = blocking(move || {
            let store = Store::open(&store_options, feed)?;
            let ledger = Ledger::open(&store, &first, now)?;
            Ok((store, Arc::new(ledger)))
        });
        let (store, ledger) = opened.await?;
        tail.begin(store.event_log().map_or(0, |log| log.next));
        let counters = Arc::new(Counters::default());
        let up_since = clock.now();
        let (timers, timer_service) = timers::channel(&clock);

        let mut partitions = Vec::with_capacity(options.partitions);
        let mut durable = Vec::with_capacity(options.partitions);
        let mut threads = Vec::with_capacity(options.partitions);
        for index in 0..options.partitions.max(1) {
            let (sender, requests) = mpsc::channel(PARTITION_QUEUE);
            let own = Arc::new(Durable::new());
            let partition = Partition::new(
                store.clone(),
                clock.clone(),
                (options.rules.clone(), up_since),
                Listeners {
                    durable: Arc::clone(&own),
                    timers: timers.clone(),
                    bus: Arc::clone(&bus),
                    failed: failed.clone(),
                },
                (Arc::clone(&counters), Arc::clone(&ledger)),
            );
            let failed = failed.clone().drop_guard();
            let thread = std::thread::Builder::new()
                .name(format!("partition-{index}"))
                .spawn(move || {
                    // However the thread ends, unless it was told to, the guard says so.
                    if partition.run(requests) {
                        failed.disarm();
                    }
                })
                .map_err(|error| store::Error::Corrupt(format!("a partition's thread does not start: {error}")))?;
            partitions.push(sender);
            durable.push(own);
            threads.push(thread);
        }
        let threads = std::sync::Mutex::new(threads);
        let shared = Shared {
            partitions,
            durable,
            threads,
            store,
            bus,
            desk: Desk::new(&clock),
            ledger,
            clock,
            counters,
            in_flight: InFlight::default(),
            jobs: Jobs::default(),
            rules: options.rules,
            timers,
            retain_ms: options.retain_ms,
            sweeping: Semaphore::new(1),
            reads: Arc::new(Semaphore::new(MAX_READS)),
            tail,
            log_reads: Semaphore::new(events::MAX_LOG_READS),
            surveys: Surveys::default(),
            up_since,
            tasks,
            stop,
            failed,
        };
        let engine = Self { shared: Arc::new(shared) };
        relay::start(&engine, relays).await?;
        orchestrator::start(&engine);
        job_runner::start(&engine).await?;
        timers::start(&engine, timer_service);
        sweep::start(&engine, options.sweep_interval_ms);
        survey::start_census(&engine);
        Ok(engine)
    }

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

    /// Spawns a task that [`Engine::shutdown`] waits for. It has to end soon after [`Engine::stopping`].
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.tasks.spawn(task);
    }

    /// Spawns a task without which the engine cannot go on. It runs until the engine is told to end; a panic, or any
    /// other end before that, is the engine's failure.
    fn spawn_core(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.shared.stop.clone();
        let failed = self.shared.failed.clone().drop_guard();
        self.shared.tasks.spawn(async move {
            if stop.run_until_cancelled(task).await.is_none() {
                failed.disarm();
            }
        });
    }

    /// Is cancelled when the engine is told to end.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.shared.stop
    }

    /// Is cancelled when the engine cannot go on: its store failed, or a partition broke.
    #[must_use]
    pub fn failed(&self) -> &CancellationToken {
        &self.shared.failed
    }

    /// Why the engine cannot go on, where the store said so.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.shared.store.failure()
    }

    /// Gives this handle back, after [`Engine::shutdown`]. Blocks: with the last one the store closes.
    ///
    /// # Errors
    /// As [`Store::close`].
    pub fn close(self) -> Result<(), store::Error> {
        let store = self.shared.store.clone();
        drop(self);
        store.close()
    }

    /// Ends every task and partition, and waits for them. What is not consumed then comes again at the next start.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        for partition in &self.shared.partitions {
            // One that is gone has nothing left to stop.
            let _ = partition.send(Request::Stop).await;
        }
        let threads =
            std::mem::take(&mut *self.shared.threads.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        let _ = blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a partition ended in a panic");
                }
            }
            Ok(())
        })
        .await;
    }

    fn partition_of(&self, identity: &[u8]) -> &mpsc::Sender<Request> {
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

    fn refused(&self, error: &mpsc::error::TrySendError<Request>) -> Error {
        match error {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded,
            mpsc::error::TrySendError::Closed(_) => self.unavailable(),
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
