//! The promises "what was answered survives" and "it takes effect once", against kill -9 for real: 32 clients drive the
//! program, it is killed at a random moment, started again, and held to their own record of every answer.
//!
//! The program is the one that cargo built for this test, so `cargo test --release --test chaos` kills the release
//! build. `REPHASE_CHAOS_ROUNDS` says how often (5 where it is not set), `REPHASE_CHAOS_SEED` repeats what was drawn; the
//! moments at which threads and disk meet it are never the same.

#[path = "chaos/compare.rs"]
mod compare;
mod harness;
#[path = "chaos/load.rs"]
mod load;
#[path = "chaos/record.rs"]
mod record;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use compare::Found;
use harness::{PATIENCE, Process, violations};
use load::Worker;
use record::{Record, Request};
use serde_json::json;

/// How many clients work at once.
const CLIENTS: usize = 32;

/// How many rounds share one data directory. Each round is compared with all that the directory has seen, so a directory
/// without end would make it ever slower.
const ROUNDS_A_DIRECTORY: u32 = 20;

/// When the program is killed, counted from the start of the load, in milliseconds.
const KILLED_AFTER_MS: std::ops::RangeInclusive<u64> = 20..=600;

/// What came of all rounds.
#[derive(Default)]
struct Summary {
    rounds: u32,
    acknowledged: u64,
    refused: u64,
    unanswered: u64,
    replayed: u64,
    found: Found,
    violations: usize,
    starts_ms: Vec<u128>,
}

impl Summary {
    fn take(&mut self, record: &mut Record) {
        self.acknowledged += std::mem::take(&mut record.acknowledged);
        self.refused += std::mem::take(&mut record.refused);
        self.unanswered += std::mem::take(&mut record.unanswered);
        self.replayed += std::mem::take(&mut record.replayed);
    }

    fn line(&mut self) -> String {
        self.starts_ms.sort_unstable();
        let (median, max) = (self.starts_ms[self.starts_ms.len() / 2], self.starts_ms[self.starts_ms.len() - 1]);
        let Self { rounds, acknowledged, refused, unanswered, replayed, found, violations, .. } = self;
        format!(
            "chaos: {rounds} rounds, {acknowledged} requests acknowledged, {refused} refused, {unanswered} never \
             answered, {replayed} answered by a repetition; lost {}, doubled {}, violations {violations}; restart in \
             {median} ms (median), {max} ms (most)",
            found.lost.len(),
            found.doubled.len()
        )
    }

    fn must_be_clean(&self) {
        let Found { lost, doubled } = &self.found;
        assert!(lost.is_empty() && doubled.is_empty(), "lost: {lost:#?}\ndoubled: {doubled:#?}");
        assert_eq!(self.violations, 0);
    }
}

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => default,
    }
}

/// Failures of every kind. A batch has 1 to 6 essays, so that rules by slot are about some batches only.
fn faults() -> serde_json::Value {
    let transient = "transient";
    let permanent = "permanent";
    json!([
        { "phase": "spellcheck", "attempts": [1, 2], "essays": [5], "error_code": "TIMEOUT", "category": transient },
        { "phase": "spellcheck", "attempts": [1, 4], "essays": [4], "error_code": "SPELLCHECK_SERVICE_ERROR", "category": permanent },
        { "phase": "nlp", "attempts": [1, 3, 4, 5], "essays": [3], "error_code": "TIMEOUT", "category": transient },
        { "phase": "nlp", "attempts": [2, 6], "error_code": "NLP_SERVICE_ERROR", "category": permanent },
        { "phase": "cj_assessment", "attempts": [1, 5], "garbled": true },
        { "phase": "cj_assessment", "attempts": [2, 3], "error_code": "TIMEOUT", "category": transient },
        { "phase": "ai_feedback", "attempts": [1], "error_code": "PROCESSING_ERROR", "category": permanent },
        { "phase": "ai_feedback", "attempts": [2], "essays": [0], "error_code": "TIMEOUT", "category": transient },
    ])
}

fn start(directory: &Path) -> (Process, u128) {
    let faults_file = directory.join("faults.json");
    std::fs::write(&faults_file, faults().to_string()).expect("written");
    let data = directory.join("data");
    let (data, faults_file) = (data.to_str().expect("a path"), faults_file.to_str().expect("a path"));
    let mut command = Process::command(&["--data-dir", data, "--faults", faults_file, "--latency-ms", "0..20"]);
    // Small, so that kills meet it while it is settled.
    command.args(["--journal-mib", "1"]);
    command.args(["--retry-policy", "all=3,5,2,20", "--deadline", "cj_assessment=1", "--pipeline-limit", "0"]);
    command.args(["--max-retries", "1000"]).env("RUST_LOG", "off");
    let began = Instant::now();
    let process = Process::spawn(command).expect("the server says that it is ready");
    (process, began.elapsed().as_millis())
}

/// The directory as the program left it, or a copy of it: a check opens the database, which mends what a kill tore, and
/// the program has to be able to do that itself.
fn check(directory: &Path, on_a_copy: bool) -> usize {
    let data = directory.join("data");
    if !on_a_copy {
        return count_violations(&data);
    }
    let copy = tempfile::tempdir().expect("a directory");
    copy_directory(&data, copy.path());
    count_violations(copy.path())
}

fn count_violations(directory: &Path) -> usize {
    let found = violations(directory);
    for violation in &found {
        eprintln!("chaos: {violation}");
    }
    found.len()
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_dir() {
            copy_directory(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}

/// Repeats every request with a key that got no answer, until it gets one.
async fn repeat_unanswered(process: &Process, record: &Arc<Mutex<Record>>, pending: Vec<Request>) {
    let repeat = |request: Request| {
        let worker = Worker::new(process.client.clone(), 0, fastrand::Rng::with_seed(0), Arc::clone(record));
        tokio::spawn(async move { worker.until_answered(request).await })
    };
    for repetition in pending.into_iter().map(repeat).collect::<Vec<_>>() {
        repetition.await.expect("it is answered");
    }
}

/// Sets the clients to work.
fn employ(
    process: &Process,
    record: &Arc<Mutex<Record>>,
    random: &mut fastrand::Rng,
) -> Vec<tokio::task::JoinHandle<Option<Request>>> {
    let employ = |number| {
        let worker = Worker::new(process.client.clone(), number, random.fork(), Arc::clone(record));
        tokio::spawn(worker.run())
    };
    (0..CLIENTS).map(employ).collect()
}

/// Lets the clients work until the program is killed in the midst of it; answers what is to be repeated.
async fn work_and_kill(process: Process, record: &Arc<Mutex<Record>>, random: &mut fastrand::Rng) -> Vec<Request> {
    let clients = employ(&process, record, random);
    // Nothing is waited for here: the moment is what is random.
    tokio::time::sleep(Duration::from_millis(random.u64(KILLED_AFTER_MS))).await;
    process.kill();
    let mut pending = Vec::new();
    for client in clients {
        pending.extend(client.await.expect("a client ends when its server is gone"));
    }
    pending
}

/// A directory's life: so many rounds, and an end at which everything comes to rest.
async fn live_through(rounds: u32, random: &mut fastrand::Rng, summary: &mut Summary) {
    let directory = tempfile::tempdir().expect("a directory");
    let record = Arc::new(Mutex::new(Record::default()));
    let (mut process, _) = start(directory.path());
    for _ in 0..rounds {
        let pending = work_and_kill(process, &record, random).await;
        summary.violations += check(directory.path(), random.bool());
        let (restarted, took_ms) = start(directory.path());
        process = restarted;
        summary.starts_ms.push(took_ms);
        summary.rounds += 1;
        repeat_unanswered(&process, &record, pending).await;
        let (known, touched) = {
            let mut record = record.lock().expect("nobody panicked");
            summary.take(&mut record);
            let touched = record.touched();
            (record.clone(), touched)
        };
        summary.found.append(compare::compare(&process.client, known, Some(touched)).await);
        summary.must_be_clean();
    }
    let record = record.lock().expect("nobody panicked").clone();
    compare::rest(&process.client, &record, PATIENCE).await;
    summary.found.append(compare::compare(&process.client, record, None).await);
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0));
    summary.violations += check(directory.path(), false);
    summary.must_be_clean();
}

/// Told to end, the program answers what it has begun: a request without an answer has had no effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_it_with_0_and_loses_nothing() {
    let mut random = fastrand::Rng::with_seed(number("REPHASE_CHAOS_SEED", 7));
    let directory = tempfile::tempdir().expect("a directory");
    let record = Arc::new(Mutex::new(Record::orderly()));
    let mut pending = Vec::new();
    for _ in 0..3 {
        let (process, _) = start(directory.path());
        repeat_unanswered(&process, &record, std::mem::take(&mut pending)).await;
        let clients = employ(&process, &record, &mut random);
        // Nothing is waited for here: the moment is what is random.
        tokio::time::sleep(Duration::from_millis(random.u64(KILLED_AFTER_MS))).await;
        process.signal("TERM");
        for client in clients {
            pending.extend(client.await.expect("a client ends when its server is gone"));
        }
        assert_eq!(process.wait().code(), Some(0));
        assert_eq!(check(directory.path(), false), 0);
    }
    let (process, _) = start(directory.path());
    repeat_unanswered(&process, &record, pending).await;
    let known = record.lock().expect("nobody panicked").clone();
    assert!(known.acknowledged > 0, "nothing was tried");
    assert_eq!(known.replayed, 0, "a request took effect and was not answered");
    let Found { lost, doubled } = compare::compare(&process.client, known, None).await;
    assert!(lost.is_empty() && doubled.is_empty(), "lost: {lost:#?}\ndoubled: {doubled:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_32_clients_were_answered_survives_kill_9_and_takes_effect_once() {
    let rounds = u32::try_from(number("REPHASE_CHAOS_ROUNDS", 5)).expect("not so many");
    let seed = number("REPHASE_CHAOS_SEED", fastrand::u64(..));
    println!("chaos: REPHASE_CHAOS_SEED={seed} REPHASE_CHAOS_ROUNDS={rounds}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut summary = Summary::default();
    while summary.rounds < rounds {
        let left = rounds - summary.rounds;
        live_through(left.min(ROUNDS_A_DIRECTORY), &mut random, &mut summary).await;
        println!("{}", summary.line());
    }
    assert!(summary.acknowledged > 0, "nothing was tried");
}
