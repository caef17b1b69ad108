//! What the sweep costs others: a million idempotency keys expire at once, and batches are registered meanwhile.
//!
//! Prints how long a registration takes without a sweep and with one, how long the sweep takes, and what memory it
//! needs. `REPHASE_BENCH_KEYS` is the number of keys.

use std::time::{Duration, Instant};

use rephase::clock::ManualClock;
use rephase::contract::idempotency::Key;
use rephase::contract::{Group, Topic};
use rephase::domain::step::Registration;
use rephase::domain::{BatchId, Input, Millis};
use rephase::engine::{Engine, Options, Submission};
use rephase::store::{self, Commit, Store};
use serde_json::json;
use uuid::Uuid;

/// How many keys there are where nobody says.
const KEYS: u64 = 1_000_000;

/// How many keys are written in one commit.
const BITE: u64 = 100;

/// When the keys expire, and what the clock says before.
const EXPIRY: Millis = Millis(2_000_000);

fn key(number: u64) -> Key {
    let mut hash = [0; 32];
    // Spread like hashes are.
    hash[..16].copy_from_slice(Uuid::new_v5(&Uuid::nil(), &number.to_be_bytes()).as_bytes());
    Key { service: Group::Orchestrator.service(), topic: Topic::ElsBatchPhaseOutcome, hash }
}

fn seed(directory: &std::path::Path, count: u64) {
    let store = Store::open(&store::Options::new(directory), Box::new(|_| {})).expect("it opens");
    for first in (0..count).step_by(usize::try_from(BITE).expect("it fits")) {
        let mut commit = Commit::new();
        for number in first..(first + BITE).min(count) {
            commit.complete_key(Group::Orchestrator, &key(number), EXPIRY);
        }
        store.commit_blocking(commit).expect("committed");
    }
}

async fn register(engine: &Engine) -> Duration {
    let id = BatchId(Uuid::now_v7());
    let request = json!({ "expected_essay_count": 3, "course_code": "ENG5", "user_id": "bench" });
    let request = serde_json::from_value(request).expect("a request");
    let registration = Registration::new(id, request, engine.clock().now()).expect("a registration");
    let began = Instant::now();
    let input = Input::Register(Box::new(registration));
    engine.submit(id, Submission::new(input, Uuid::new_v4())).await.expect("registered");
    began.elapsed()
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1_024
}

fn report(what: &str, mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let at = |share: f64| {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank"
        )]
        let rank = (times.len() as f64 * share) as usize;
        times[rank.min(times.len() - 1)]
    };
    println!("{what}: {} registrations, p50 {:.2?}, p99 {:.2?}, max {:.2?}", times.len(), at(0.5), at(0.99), at(1.0));
    at(0.99)
}

fn main() {
    let count = std::env::var("REPHASE_BENCH_KEYS").ok().and_then(|count| count.parse().ok()).unwrap_or(KEYS);
    let directory = tempfile::tempdir().expect("a directory");
    let began = Instant::now();
    seed(directory.path(), count);
    println!("{count} keys written in {:.1?}", began.elapsed());

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(measure(directory.path()));
}

async fn measure(directory: &std::path::Path) {
    let clock = ManualClock::new(Millis(1_000_000));
    let engine = Engine::start(Options::new(store::Options::new(directory)), clock.clock()).await;
    let engine = engine.expect("it starts");
    let mut quiet = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        quiet.push(register(&engine).await);
    }
    let without = report("without a sweep", quiet);
    println!("resident before: {} MiB", resident_mib());

    clock.advance(EXPIRY.0);
    let sweeping = engine.clone();
    let sweep = tokio::spawn(async move {
        let began = Instant::now();
        (sweeping.sweep().await.expect("swept"), began.elapsed())
    });
    let (mut busy, mut peak) = (Vec::new(), 0);
    while !sweep.is_finished() {
        busy.push(register(&engine).await);
        if busy.len() % 256 == 0 {
            peak = peak.max(resident_mib());
        }
    }
    let (_, took) = sweep.await.expect("it ended");
    let with = report("during the sweep", busy);
    // The engine's own sweep may have had the turn.
    let swept = engine.counters().swept_keys.load(std::sync::atomic::Ordering::Relaxed);
    println!("{swept} keys swept in {took:.1?}; resident at most {peak} MiB");
    println!("p99 with : without = {:.2}", with.as_secs_f64() / without.as_secs_f64());
    engine.shutdown().await;
}
