//! Step, commit, then tell: the partitions that own batches, and what keeps them going.
//!
//! Every batch belongs to one partition, a thread, which loads its record, steps, commits and answers; so the steps of a
//! batch are in order without a lock. Beside the partitions: the outbox relay, which feeds the bus with what was
//! committed; the orchestrator's consumer, which turns messages into steps; the timers; the sweep. Everybody else uses
//! the [`Engine`] handle and never the store.

mod backup;
mod cache;
mod consume;
mod inbound;
mod job_runner;
mod jobs;
mod letters;
mod listing;
mod once;
mod orchestrator;
mod partition;
mod publish;
mod relay;
mod request;
mod retention;
mod sweep;
mod timers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub use crate::store::StoredAnswer as Answer;
pub use inbound::{DEFAULT_RETRY_REASON, readable};
pub use jobs::{JobPreview, JobProgress, JobRequest, MAX_JOB_BATCHES, MAX_PER_SECOND};
pub use letters::{Decided, Decisions, LetterFilter, MAX_DECISIONS, MAX_DELIVERIES, Undecided};
pub use listing::{Page, Place};
pub use once::RequestKey;
pub use publish::content_id;
pub use request::{Claim, Reader};

use crate::bus::{self, Bus};
use crate::clock::Clock;
use crate::domain::{Batch, BatchId, Input, Millis, Origin, Rejected, Rules};
use crate::store::{self, Store};
use job_runner::Jobs;
use once::{InFlight, Once};
use partition::Partition;
use request::{Cause, Request, StepReply, StepRequest};

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
            partitions,
        }
    }
}

/// How many requests may wait for one partition. Past that a client is told to come back, and a consumer waits.
const PARTITION_QUEUE: usize = 1_024;

/// How many reads beside the partitions may be under way. Each holds a thread while it reads; past that a client is told
/// to come back.
const MAX_READS: usize = 256;

/// Why the engine did not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The batch does not allow it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The request's key was used for another request.
    #[error("this Idempotency-Key was used for another request; use a new one for each request")]
    KeyReused,
    /// A request with the same key is being served.
    #[error("a request with this Idempotency-Key is being served; ask again for its answer")]
    KeyInFlight,
    /// A bulk retry would be about more batches than one can have.
    #[error("more than {limit} batches fit the filter; narrow it, by since and until for example")]
    TooManyBatches {
        /// The most there can be.
        limit: usize,
    },
    /// As many bulk retries are running as can.
    #[error("{limit} retry jobs are running already; wait for one to end, or stop one")]
    TooManyJobs {
        /// The most there can be.
        limit: usize,
    },
    /// One backup at a time.
    #[error("a backup is being made already; wait for its end")]
    BackupRunning,
    /// Too much is waiting already.
    #[error("too many requests are waiting; try again in a moment")]
    Overloaded,
    /// The store failed, or the program is ending.
    #[error("not available: {0}")]
    Unavailable(String),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// An input, and what comes with it.
#[derive(Debug)]
pub struct Submission {
    input: Input,
    correlation_id: Uuid,
    contents: Vec<String>,
    versions: Option<Vec<u64>>,
    origin: Arc<Origin>,
    once: Option<Once>,
}

impl Submission {
    /// `input`, connected with the request that it comes from.
    #[must_use]
    pub fn new(input: Input, correlation_id: Uuid) -> Self {
        Self { input, correlation_id, contents: Vec::new(), versions: None, origin: Arc::default(), once: None }
    }

    /// Stores these texts in the same commit.
    #[must_use]
    pub fn with_contents(self, contents: Vec<String>) -> Self {
        Self { contents, ..self }
    }

    /// What the request says of itself.
    #[must_use]
    pub fn from_origin(self, origin: Origin) -> Self {
        Self { origin: Arc::new(origin), ..self }
    }

    /// Only if the batch is in one of these versions; whatever its version where there are none.
    #[must_use]
    pub fn if_version(self, versions: Option<Vec<u64>>) -> Self {
        Self { versions, ..self }
    }
}

/// What has been counted since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Steps that were committed.
    pub steps: AtomicU64,
    /// Messages that had been handled before.
    pub duplicates: AtomicU64,
    /// Messages that the batch, as it stood, did not allow, or that could not be read. All but late outcomes are dead
    /// letters.
    pub refused_messages: AtomicU64,
    /// Outcomes that came when their attempt was not in flight any more; they are among the refused messages too.
    pub late_outcomes: AtomicU64,
    /// Timers that were due for a batch that cannot be read.
    pub broken_timers: AtomicU64,
    /// Idempotency keys that were swept.
    pub swept_keys: AtomicU64,
    /// Batches, bulk retries and dead letters that were removed because they were old.
    pub removed: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The handle of the engine. Its clones share it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    partitions: Vec<mpsc::Sender<Request>>,
    threads: std::sync::Mutex<Vec<std::thread::JoinHandle<()>>>,
    store: Store,
    bus: Arc<Bus>,
    clock: Clock,
    counters: Arc<Counters>,
    in_flight: InFlight,
    jobs: Jobs,
    rules: Rules,
    retain_ms: Option<u64>,
    /// One sweep at a time.
    sweeping: Semaphore,
    reads: Arc<Semaphore>,
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
        let (feed, relays) = relay::channels(Arc::clone(&bus));
        let store_options = options.store.clone();
        let store = blocking(move || Store::open(&store_options, feed)).await?;
        let counters = Arc::new(Counters::default());
        let up_since = clock.now();
        let (timers, timer_service) = timers::channel();

        let mut partitions = Vec::with_capacity(options.partitions);
        let mut threads = Vec::with_capacity(options.partitions);
        for index in 0..options.partitions.max(1) {
            let (sender, requests) = mpsc::channel(PARTITION_QUEUE);
            let partition = Partition::new(
                store.clone(),
                clock.clone(),
                (options.rules.clone(), up_since),
                (timers.clone(), Arc::clone(&bus)),
                Arc::clone(&counters),
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
            threads.push(thread);
        }
        let threads = std::sync::Mutex::new(threads);
        let shared = Shared {
            partitions,
            threads,
            store,
            bus,
            clock,
            counters,
            in_flight: InFlight::default(),
            jobs: Jobs::default(),
            rules: options.rules,
            retain_ms: options.retain_ms,
            sweeping: Semaphore::new(1),
            reads: Arc::new(Semaphore::new(MAX_READS)),
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
