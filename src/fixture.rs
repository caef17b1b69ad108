//! A server inside a Rust test: its own store, which goes with it, and a clock that the test moves.
//!
//! A request goes to the router directly, so no port is needed; [`Builder::with_port`] opens one for others. The clock
//! stands still until [`Fixture::advance`] moves it, so that what comes of a test depends on no machine's speed: once
//! everything that was due has been worked on, nothing more happens, and [`Fixture::wait_for`] knows it.
//!
//! ```
//! use rephase::Fixture;
//! use rephase::contract::BatchClientStatus::{CompletedSuccessfully, CompletedWithFailures};
//! use rephase::domain::Phase::Nlp;
//! # #[tokio::main]
//! # async fn main() -> Result<(), rephase::fixture::Error> {
//! let fixture = Fixture::start().await?;
//! fixture.faults(r#"[{"phase": "nlp", "attempts": [1], "error_code": "NLP_SERVICE_ERROR", "category": "permanent"}]"#)?;
//! let teacher = fixture.client("teacher-7");
//! let batch = teacher.ready_batch(2).await?;
//! teacher.pipeline(batch, Nlp).await?;
//! fixture.wait_for(batch, CompletedWithFailures).await?;
//! assert_eq!(teacher.retry(batch, Nlp).await?.attempt, 2);
//! fixture.wait_for(batch, CompletedSuccessfully).await?;
//! # fixture.end().await;
//! # Ok(())
//! # }
//! ```

mod client;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

pub use client::{Attempt, Client, Retried, Status};

use crate::app::{App, DataDirectory, Options, Stage};
use crate::clock::ManualClock;
use crate::contract::{BatchClientStatus, PipelineExecutionStatus};
use crate::domain::{Balances, BatchId, Millis, Phase, Rules};
use crate::engine::{EventFilter, EventPage};
use crate::http::{Backstage as _, Refusal};

/// Where the clock begins: 2026-03-02T08:30:00Z.
pub const START: Millis = Millis(1_772_440_200_000);

/// How long a test waits for what has to come, in real time, where it does not say.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it is between two looks at something that somebody else may change.
const PAUSE: Duration = Duration::from_millis(2);

/// The most events of a batch that a timeline shows.
const MAX_SHOWN: usize = 100;

/// What can go wrong in a test.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server does not start.
    #[error("the server does not start: {0:#}")]
    Start(anyhow::Error),
    /// The server refused a request.
    #[error("{method} {path}: {status}: {error}")]
    Refused {
        /// The method.
        method: String,
        /// The path.
        path: String,
        /// The status.
        status: u16,
        /// What it says.
        error: String,
    },
    /// An answer is not what it should be.
    #[error("{path}: {reason}")]
    Unreadable {
        /// The path.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// What a test wanted of the server itself was refused.
    #[error(transparent)]
    Test(#[from] Refusal),
    /// A batch did not come to where it should.
    #[error("{wanted} did not come\n{timeline}")]
    NotReached {
        /// What was waited for.
        wanted: String,
        /// What there is instead, and how it came about.
        timeline: String,
    },
}

/// How a fixture is to be.
#[derive(Debug, Clone)]
pub struct Builder {
    options: Options,
    now: Millis,
    port: Option<SocketAddr>,
    patience: Duration,
}

impl Builder {
    /// Listens on a port that the system chooses, for others than this process.
    #[must_use]
    pub fn with_port(mut self) -> Self {
        self.port = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        self
    }

    /// How long a phase takes by the clock, in milliseconds; nothing where this is not said.
    #[must_use]
    pub fn latency_ms(mut self, latency_ms: RangeInclusive<u64>) -> Self {
        self.options.workers.latency_ms = latency_ms;
        self
    }

    /// The rules of retries and deadlines.
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.options.rules = rules;
        self
    }

    /// The credits that users and organisations begin with, and have again after a reset; others pay nothing.
    #[must_use]
    pub fn credits(mut self, credits: Balances) -> Self {
        self.options.credits = credits;
        self
    }

    /// What the clock shows first.
    #[must_use]
    pub const fn starting_at(mut self, now: Millis) -> Self {
        self.now = now;
        self
    }

    /// How long to wait for what has to come, in real time.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`Error::Start`].
    pub async fn start(self) -> Result<Fixture, Error> {
        let Self { mut options, now, port, patience } = self;
        let clock = ManualClock::new(now);
        let (stage, app) = match port {
            Some(address) => {
                options.listen = address;
                let app = App::start_for_tests(options, clock.clone()).await.map_err(Error::Start)?;
                (app.stage().clone(), Some(app))
            }
            None => (Stage::start(options, clock.clone()).await.map_err(Error::Start)?, None),
        };
        Ok(Fixture { stage, app, patience })
    }
}

/// A server inside a test. [`Fixture::end`] ends it in order; one that is dropped ends with the test's runtime.
pub struct Fixture {
    stage: Stage,
    app: Option<App>,
    patience: Duration,
}

impl Fixture {
    /// Starts one without a port, whose phases take no time.
    ///
    /// # Errors
    /// [`Error::Start`].
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// One that is to be otherwise.
    #[must_use]
    pub fn builder() -> Builder {
        let mut options = Options::new(DataDirectory::Ephemeral);
        options.workers.latency_ms = 0..=0;
        Builder { options, now: START, port: None, patience: PATIENCE }
    }

    /// A client that speaks for `user`.
    #[must_use]
    pub fn client(&self, user: &str) -> Client {
        Client::new(self.stage.front().clone(), user)
    }

    /// Where others reach it; none without a port.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        self.app.as_ref().map(|app| format!("http://{}", app.address()))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.stage.clock().now()
    }

    /// Moves the time by `duration_ms` milliseconds, from each time that is due to the next, and answers it once
    /// everything that was due has happened, with all that followed from it.
    ///
    /// # Errors
    /// [`Error::Test`] where that takes half a minute of real time.
    pub async fn advance(&self, duration_ms: u64) -> Result<Millis, Error> {
        Ok(self.stage.advance(duration_ms).await?)
    }

    /// Goes by these fault rules from now on (README, `--faults`).
    ///
    /// # Errors
    /// [`Error::Test`] with the rule that is wrong; those that were there stay.
    pub fn faults(&self, json: &str) -> Result<(), Error> {
        Ok(self.stage.replace_faults(json)?)
    }

    /// Puts an empty store in the place of the one that is there.
    ///
    /// # Errors
    /// [`Error::Test`].
    pub async fn reset(&self) -> Result<(), Error> {
        Ok(self.stage.reset().await?)
    }

    /// What was published.
    #[must_use]
    pub fn events(&self, filter: &EventFilter) -> Option<EventPage> {
        self.stage.events().map(|log| log.read(filter))
    }

    /// Waits until `batch` is `wanted`, and answers its status.
    ///
    /// # Errors
    /// [`Error::NotReached`], with all that happened to the batch.
    pub async fn wait_for(&self, batch: BatchId, wanted: BatchClientStatus) -> Result<Status, Error> {
        self.wait_until(batch, wanted.as_str(), |status| status.status == wanted).await
    }

    /// Waits until `phase` of `batch` is `wanted`, and answers the status of the batch.
    ///
    /// # Errors
    /// As [`Fixture::wait_for`].
    pub async fn wait_for_phase(
        &self,
        batch: BatchId,
        phase: Phase,
        wanted: PipelineExecutionStatus,
    ) -> Result<Status, Error> {
        let is_there = |status: &Status| status.phase(phase).is_some_and(|phase| phase.status == wanted);
        self.wait_until(batch, &format!("{phase} {wanted}"), is_there).await
    }

    async fn wait_until(
        &self,
        batch: BatchId,
        wanted: &str,
        is_there: impl Fn(&Status) -> bool,
    ) -> Result<Status, Error> {
        let (client, began) = (self.client("the test"), Instant::now());
        loop {
            let status = client.status(batch).await?;
            if is_there(&status) {
                return Ok(status);
            }
            // Everything that is under way comes to its end.
            let rest = self.stage.advance(0);
            let has_rested = matches!(tokio::time::timeout(self.patience, rest).await, Ok(Ok(_)));
            let status = client.status(batch).await?;
            if is_there(&status) {
                return Ok(status);
            }
            // Without a port there is nobody else who could still do something.
            if (has_rested && self.app.is_none()) || began.elapsed() >= self.patience {
                let (wanted, timeline) = (wanted.to_owned(), self.timeline(&client, batch, &status).await);
                return Err(Error::NotReached { wanted, timeline });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What happened to `batch`, for people.
    async fn timeline(&self, client: &Client, batch: BatchId, status: &Status) -> String {
        let mut shown = format!("it is {} now at {}\n", status.status, self.now().to_timestamp());
        for phase in Phase::ALL {
            if let Some(detail) = status.phase(phase) {
                // Writing to a string does not fail.
                let _ = writeln!(shown, "  {phase} is {}", detail.status);
                for attempt in client.attempts(batch, phase).await.unwrap_or_default() {
                    let _ = writeln!(shown, "    {attempt}");
                }
            }
        }
        let key = Some(batch.to_string());
        let filter = EventFilter { key, limit: MAX_SHOWN, max_bytes: usize::MAX, ..EventFilter::default() };
        for event in self.events(&filter).map(|page| page.events).unwrap_or_default() {
            let _ = writeln!(shown, "  event {}: {}", event.number, event.message.topic);
        }
        shown
    }

    /// Answers what is being served, and ends everything.
    pub async fn end(self) {
        match self.app {
            Some(app) => app.stop().await,
            // Its store goes with it.
            None => _ = self.stage.stop().await,
        }
    }
}
