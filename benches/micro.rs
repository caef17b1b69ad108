//! What the parts of a retry cost, each alone: `cargo bench --bench micro`.
//!
//! Those that reach the disk do so in the system's directory for temporary files, unless `TMPDIR` says where.

#[path = "retry_load/seed.rs"]
#[expect(dead_code, reason = "its other half fills whole stores")]
mod seed;

use std::sync::{Arc, LazyLock};

use divan::{Bencher, black_box};
use rephase::bus::{self, Bus};
use rephase::clock::Clock;
use rephase::contract::idempotency::Key;
use rephase::contract::{Group, Message, Topic};
use rephase::domain::step::RetryRequest;
use rephase::domain::{Batch, BatchId, Context, Funds, Input, Millis, Origin, Phase, Rules, step};
use rephase::store::{Commit, Options, Store};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

fn main() {
    divan::main();
}

/// What the clock says.
const NOW: Millis = Millis(1_750_000_000_000);

/// How many essays a batch has.
const ESSAYS: [u16; 4] = [3, 30, 100, 1_000];

fn batch(essays: u16) -> Batch {
    seed::failed_in_nlp(BatchId(Uuid::now_v7()), essays, NOW, &mut Commit::new()).expect("a batch")
}

fn retried(batch: &Batch) -> Batch {
    let input = Input::RetryPhase(RetryRequest::whole(seed::OWNER.to_owned(), Phase::Nlp, "again".to_owned()));
    let (origin, rules) = (Arc::<Origin>::default(), Rules::default());
    let (rules, funds) = (&rules, Funds::Unlimited);
    let context = Context { now: NOW, up_since: NOW, correlation_id: Uuid::nil(), origin: &origin, rules, funds };
    step(Some(batch), input, &context).expect("it can be retried").batch
}

fn store() -> (TempDir, Store) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&Options::new(directory.path()), Box::new(|_| {})).expect("it opens");
    (directory, store)
}

fn key(number: u64) -> Key {
    let mut hash = [0; 32];
    // Spread like hashes are.
    hash[..16].copy_from_slice(Uuid::new_v5(&Uuid::nil(), &number.to_be_bytes()).as_bytes());
    Key { service: Group::Orchestrator.service(), topic: Topic::ElsBatchPhaseOutcome, hash }
}

/// A retry, as the state machine sees it.
#[divan::bench(args = ESSAYS)]
fn step_of_a_retry(bencher: Bencher<'_, '_>, essays: u16) {
    let batch = batch(essays);
    bencher.bench_local(|| retried(black_box(&batch)));
}

/// All parts of a record that is new.
#[divan::bench(args = ESSAYS)]
fn encode_a_new_record(bencher: Bencher<'_, '_>, essays: u16) {
    let batch = batch(essays);
    bencher.with_inputs(Commit::new).bench_local_values(|mut commit| {
        commit.put_batch(None, black_box(&batch)).expect("it can be written");
        commit
    });
}

/// Those parts of a record that a retry changes.
#[divan::bench(args = ESSAYS)]
fn encode_a_retried_record(bencher: Bencher<'_, '_>, essays: u16) {
    let batch = batch(essays);
    let retried = retried(&batch);
    bencher.with_inputs(Commit::new).bench_local_values(|mut commit| {
        commit.put_batch(Some(&batch), black_box(&retried)).expect("it can be written");
        commit
    });
}

/// A whole record, read and decoded.
#[divan::bench(args = ESSAYS)]
fn decode_a_record(bencher: Bencher<'_, '_>, essays: u16) {
    let (_directory, store) = store();
    let batch = batch(essays);
    let mut commit = Commit::new();
    commit.put_batch(None, &batch).expect("it can be written");
    store.commit_blocking(commit).expect("committed");
    bencher.bench_local(|| store.batch(black_box(batch.id)).expect("readable"));
}

/// So many retries at once, until the last of them is durable.
#[divan::bench(args = [1, 16, 64])]
fn commit(bencher: Bencher<'_, '_>, steps: u64) {
    let (_directory, store) = store();
    let batch = batch(3);
    let retried = retried(&batch);
    let commit = || {
        let mut commit = Commit::new();
        commit.put_batch(Some(&batch), &retried).expect("it can be written");
        commit
    };
    bencher.with_inputs(|| (0..steps).map(|_| commit()).collect::<Vec<_>>()).bench_local_values(|commits| {
        let (done, all_done) = std::sync::mpsc::channel();
        for commit in commits {
            let done = done.clone();
            store.commit_then(commit, move |committed| {
                committed.expect("committed");
                let _ = done.send(());
            });
        }
        (0..steps).for_each(|_| all_done.recv().expect("all of them are answered"));
    });
}

/// From the bus to a consumer on another task, and acknowledged.
#[divan::bench]
fn publish_to_acknowledge(bencher: Bencher<'_, '_>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let bus = Bus::new(&bus::Options::default(), &Clock::system(), &tasks, &stop);
        let mut subscription = bus.subscribe(Group::Nlp).expect("nobody else consumes");
        let (acknowledged, has_acknowledged) = std::sync::mpsc::channel();
        tokio::spawn(async move {
            while let Some(delivery) = subscription.next().await {
                delivery.acknowledge();
                let _ = acknowledged.send(());
            }
        });
        let body = vec![b' '; 2_048].into();
        let topic = Topic::BatchNlpInitiateCommandV2;
        let message = Message { topic, key: Uuid::nil().to_string(), headers: None, body };
        let handle = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            bencher.bench_local(|| {
                handle.block_on(bus.deliver(Group::Nlp, 1, message.clone())).expect("somebody consumes");
                has_acknowledged.recv().expect("it is acknowledged");
            });
        });
        stop.cancel();
    });
}

/// How many keys are stored where keys are looked up or swept.
const KEYS: u64 = 1_000_000;

/// When they expire.
const EXPIRY: Millis = Millis(NOW.0 + 3_600_000);

/// Filled once: it takes longer than everything else here.
static STORE_OF_KEYS: LazyLock<(TempDir, Store)> = LazyLock::new(|| {
    let (directory, store) = store();
    complete_keys(&store, 0..KEYS, EXPIRY);
    (directory, store)
});

fn complete_keys(store: &Store, numbers: std::ops::Range<u64>, expires: Millis) {
    for first in numbers.clone().step_by(1_000) {
        let mut commit = Commit::new();
        for number in first..(first + 1_000).min(numbers.end) {
            commit.complete_key(Group::Orchestrator, &key(number), expires);
        }
        store.commit_blocking(commit).expect("committed");
    }
}

/// Whether a message was consumed before, among a million that were: one that was, and one that was not.
#[divan::bench(args = [true, false])]
fn idempotency_check(bencher: Bencher<'_, '_>, was_consumed: bool) {
    let store = &STORE_OF_KEYS.1;
    let mut number = 0;
    bencher
        .with_inputs(|| {
            number = (number + 7_919) % KEYS;
            key(if was_consumed { number } else { KEYS * 2 + number })
        })
        .bench_local_refs(|key| {
            let expiry = store.key_expiry(Group::Orchestrator, key).expect("readable");
            assert_eq!(expiry.is_some(), was_consumed, "the store has what was completed");
        });
}

/// Ten thousand keys that have expired are swept from among a million that have not.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn sweep_10_000_of_a_million(bencher: Bencher<'_, '_>) {
    const EXPIRED: u64 = 10_000;
    const BITE: usize = 16;
    let store = &STORE_OF_KEYS.1;
    bencher.with_inputs(|| complete_keys(store, KEYS..KEYS + EXPIRED, NOW)).bench_local_values(|()| {
        let mut swept = 0;
        loop {
            let expired = store.expired_keys(Millis(NOW.0 + 1), BITE).expect("readable");
            if expired.is_empty() {
                break;
            }
            let mut commit = Commit::new();
            swept += expired.len() as u64;
            for key in expired {
                commit.remove_expired(key);
            }
            store.commit_blocking(commit).expect("committed");
        }
        assert_eq!(swept, EXPIRED, "everything that expired, and nothing else");
    });
}
