//! How an engine lives: what it starts with, how it starts, and how it ends.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::credits::Ledger;
use super::durable::Durable;
use super::job_runner::{self, Jobs};
use super::leases::Desk;
use super::once::InFlight;
use super::partition::Partition;
use super::queue::{Queue, queue};
use super::request::Request;
use super::round::Listeners;
use super::survey::Surveys;
use super::tail::Tail;
use super::{Counters, Engine, Shared, blocking, events, orchestrator, relay, sweep, timers};
use crate::bus::{self, Bus};
use crate::clock::Clock;
use crate::domain::{Balances, Rules};
use crate::store::{self, Store};

/// How many requests may wait for one partition. Past that a client is told to come back, and a consumer waits.
const PARTITION_QUEUE: usize = 512;

/// How many reads beside the partitions may be under way. Each holds a thread while it reads; past that a client is told
/// to come back.
const MAX_READS: usize = 256;

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
            let (sender, requests) = queue(PARTITION_QUEUE);
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
            partitions.push(Queue::new(sender, thread.thread().clone()));
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
        Ok(engine)
    }

    /// Spawns a task that [`Engine::shutdown`] waits for. It has to end soon after [`Engine::stopping`].
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.tasks.spawn(task);
    }

    /// Spawns a task without which the engine cannot go on. It runs until the engine is told to end; a panic, or any
    /// other end before that, is the engine's failure.
    pub(super) fn spawn_core(&self, task: impl Future<Output = ()> + Send + 'static) {
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
}
