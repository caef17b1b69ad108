//! What is driven through a server: so many connections, each with one request after the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use hdrhistogram::Histogram;
use hyper::StatusCode;
use rephase::domain::BatchId;
use tokio::task::JoinSet;

use crate::client::Connection;

/// What every retry says.
const RETRY: &[u8] = br#"{"phase_name": "nlp", "force": true, "retry_reason": "the language model is installed"}"#;

/// How long a client waits for a batch to come to rest, in milliseconds.
const WAIT_MS: u64 = 30_000;

/// What was measured.
pub struct Measured {
    /// How long each took, in nanoseconds.
    pub times: Histogram<u64>,
    /// How long all of them took.
    pub elapsed: Duration,
    /// How many were told to come back.
    pub refused: u64,
}

impl Measured {
    fn new() -> Self {
        Self { times: Histogram::new(3).expect("three digits are possible"), elapsed: Duration::ZERO, refused: 0 }
    }

    fn record(&mut self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).expect("a request takes less than centuries");
        self.times.record(nanoseconds).expect("the histogram grows");
    }

    fn add(&mut self, other: &Self) {
        self.times.add(&other.times).expect("all count alike");
        self.elapsed += other.elapsed;
        self.refused += other.refused;
    }

    pub fn count(&self) -> u64 {
        self.times.len()
    }

    /// How many there were in a second.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn rate(&self) -> f64 {
        self.count() as f64 / self.elapsed.as_secs_f64()
    }

    /// How many were told to come back in a second.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn refused_rate(&self) -> f64 {
        self.refused as f64 / self.elapsed.as_secs_f64()
    }

    /// How long so much of a hundred took at most, in milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "times are far below 2^52 ns")]
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        self.times.value_at_percentile(percent) as f64 / 1e6
    }
}

/// What one connection does, again and again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Asks for what it sent.
    Echo,
    /// Reads how a batch stands.
    Status,
    /// Retries, and is content with the answer.
    Accept,
    /// The same, and where it is told to come back it does, with another batch.
    TryAccept,
    /// Retries, and is answered once the phase has completed.
    Complete,
    /// Retries, and asks then until the phase has completed.
    CompleteInTwo,
}

/// When to stop.
#[derive(Clone)]
pub enum Until {
    /// Every batch has had its turn.
    Through,
    /// So many turns have been taken.
    Count(usize),
    /// So much time has passed.
    Time(Duration),
    /// Somebody says so.
    Told(Arc<AtomicBool>),
}

/// After which time the server tells those to come back for whom it has no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Lets each of so many connections do `act` to the next batch, again and again.
pub async fn drive(
    address: SocketAddr,
    connections: usize,
    batches: &Arc<Vec<BatchId>>,
    act: Act,
    until: Until,
) -> anyhow::Result<Measured> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(address).await?);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in open {
        let (next, batches, until) = (Arc::clone(&next), Arc::clone(batches), until.clone());
        tasks.spawn(async move {
            let mut measured = Measured::new();
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                let is_over = match &until {
                    Until::Through => turn >= batches.len(),
                    Until::Count(count) => turn >= *count,
                    Until::Time(time) => began.elapsed() >= *time,
                    Until::Told(told) => told.load(Ordering::Relaxed),
                };
                if is_over {
                    return Ok::<_, anyhow::Error>(measured);
                }
                match take_turn(&mut connection, act, batches[turn % batches.len()]).await? {
                    Some(took) => measured.record(took),
                    None => measured.refused += 1,
                }
            }
        });
    }
    let mut all = Measured::new();
    while let Some(measured) = tasks.join_next().await {
        all.add(&measured??);
    }
    all.elapsed = began.elapsed();
    Ok(all)
}

/// Does it once, and says how long that took; none where the server had no room.
async fn take_turn(connection: &mut Connection, act: Act, batch: BatchId) -> anyhow::Result<Option<Duration>> {
    let took = match act {
        Act::Echo => {
            let (status, took) = connection.send("POST", "/echo", Bytes::from_static(RETRY)).await?;
            ensure!(status == StatusCode::OK, "the echo answered {status}");
            took
        }
        Act::Status => {
            let (status, took) = connection.get(&format!("/v1/batches/{batch}/status")).await?;
            ensure!(status == StatusCode::OK, "a status was answered with {status}");
            took
        }
        Act::Accept => accept(connection, batch).await?,
        Act::TryAccept => match retry(connection, batch, "").await? {
            (StatusCode::ACCEPTED, took) => took,
            // No room: it comes back when it was told to.
            (StatusCode::SERVICE_UNAVAILABLE, _) => {
                tokio::time::sleep(RETRY_AFTER).await;
                return Ok(None);
            }
            // The last retry of this batch is not done.
            (StatusCode::CONFLICT, _) => return Ok(None),
            (status, _) => anyhow::bail!("a retry was answered with {status}"),
        },
        Act::Complete => complete(connection, batch).await?,
        Act::CompleteInTwo => accept(connection, batch).await? + rest(connection, batch).await?,
    };
    Ok(Some(took))
}

async fn retry(connection: &mut Connection, batch: BatchId, query: &str) -> anyhow::Result<(StatusCode, Duration)> {
    connection.send("POST", &format!("/v1/batches/{batch}/retry-phase{query}"), Bytes::from_static(RETRY)).await
}

async fn complete(connection: &mut Connection, batch: BatchId) -> anyhow::Result<Duration> {
    let (status, took) = retry(connection, batch, &format!("?wait_ms={WAIT_MS}")).await?;
    ensure!(status == StatusCode::OK, "a retry that was waited for was answered with {status}");
    Ok(took)
}

async fn accept(connection: &mut Connection, batch: BatchId) -> anyhow::Result<Duration> {
    let (status, took) = retry(connection, batch, "").await?;
    ensure!(status == StatusCode::ACCEPTED, "a retry was answered with {status}");
    Ok(took)
}

async fn rest(connection: &mut Connection, batch: BatchId) -> anyhow::Result<Duration> {
    let (status, took) = connection.get(&format!("/v1/batches/{batch}/status?wait_ms={WAIT_MS}")).await?;
    ensure!(status == StatusCode::OK, "a status was answered with {status}");
    Ok(took)
}

/// Retries every batch once and then lets all of them come to rest, for so many rounds; only the first part counts.
pub async fn accept_rounds(
    address: SocketAddr,
    connections: usize,
    batches: &Arc<Vec<BatchId>>,
    rounds: usize,
) -> anyhow::Result<Measured> {
    let mut all = Measured::new();
    for _ in 0..rounds {
        all.add(&drive(address, connections, batches, Act::Accept, Until::Through).await?);
        let mut connection = Connection::open(address).await?;
        for batch in batches.iter() {
            rest(&mut connection, *batch).await?;
        }
    }
    Ok(all)
}
