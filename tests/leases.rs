//! Workers of somebody else's: what they lease is theirs alone, for as long as they give signs of life, and nothing they
//! say counts after that.

mod harness;
#[path = "leases/worker.rs"]
mod worker;

use std::collections::BTreeSet;
use std::path::Path;

use harness::{
    Client, PATIENCE, START, Server, Setup, database, kept, outcome_message, phase_status, verify, violations,
};
use rephase::contract::Topic;
use rephase::domain::{RetryPolicy, Rules};
use rephase::worker::Runner;
use serde_json::{Value, json};
use worker::{LEASE_MS, Worker, all_done, failure, setup, waiting};

/// What fails for a transient reason is tried again by itself, once.
fn tried_again() -> Rules {
    let policy = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
    Rules { retry: std::array::from_fn(|_| policy.clone()), ..Rules::default() }
}

/// The worker is told that its lease is over, whatever it says, and nothing changes by it.
async fn is_fenced(client: &Client, worker: &Worker, batch: &str, task: &Value, why: &str) {
    let before = (client.status(batch).await, client.attempts(batch, "spellcheck").await);
    let heartbeat = worker.say(task, "heartbeat", json!({})).await;
    let done = worker.complete(task).await;
    let failed = worker.say(task, "fail", failure()).await;
    for answer in [heartbeat, done, failed] {
        assert_eq!((answer.status, &answer.json()["error_code"]), (409, &json!("CONFLICT")), "{why}: {}", answer.text);
    }
    assert_eq!((client.status(batch).await, client.attempts(batch, "spellcheck").await), before, "{why}");
}

#[tokio::test]
async fn a_worker_gets_all_it_needs_and_what_it_brings_goes_on() {
    let server = Server::start(setup()).await;
    let (client, worker) = (&server.client, Worker::new(&server.client, "w1"));
    let mut watched = server.app.engine().bus().watch();
    let batch = client.ready_batch(3).await;
    client.pipeline(&batch, "nlp").await;
    let task = worker.lease("spellcheck").await;
    assert_eq!((&task["batch_id"], &task["phase"], &task["attempt"]), (&json!(batch), &json!("spellcheck"), &json!(1)));
    assert_eq!(task["prompt"], Value::Null, "the spellcheck needs none");
    assert_eq!(task["lease_expires_at"], json!(START.plus(LEASE_MS).to_timestamp()));
    assert_eq!(task["deadline"], json!(START.plus(15 * 60_000).to_timestamp()));
    let command = &task["command"];
    assert_eq!(command["event_type"], "huleedu.els.spellcheck.initiate.command.v1");
    assert_eq!((&command["correlation_id"], &command["metadata"]["attempt"]), (&task["correlation_id"], &json!(1)));
    let essays = task["essays"].as_array().expect("a list").clone();
    for (slot, essay) in essays.iter().enumerate() {
        assert_eq!(essay["slot"], slot);
        let text = client.get(&format!("/v1/content/{}", essay["text_storage_id"].as_str().expect("an id"))).await;
        assert_eq!(text.text, format!("Essay {slot}."));
    }
    assert_eq!(phase_status(&client.status(&batch).await, "spellcheck"), "in_progress");

    let stored = client.post("/v1/content", json!({ "text": "Stored before." })).await.json()["storage_id"].clone();
    let body = json!({ "essays": [
        { "essay_id": essays[0]["essay_id"], "text": "Corrected.", "metrics": { "corrections": 2 } },
        { "essay_id": essays[1]["essay_id"], "text_storage_id": stored },
        { "essay_id": essays[2]["essay_id"] },
    ] });
    let done = worker.say(&task, "complete", body).await;
    assert_eq!((done.status, &done.json()["outcome"]), (200, &json!("completed_successfully")), "{}", done.text);

    let next = worker.lease("nlp").await;
    assert_eq!(next["prompt"]["student_prompt_ref"]["references"]["student_prompt_text"]["storage_id"], "prompt-1");
    let texts: Vec<_> =
        next["essays"].as_array().expect("a list").iter().map(|essay| &essay["text_storage_id"]).collect();
    assert_eq!(texts[1..], [&stored, &essays[2]["text_storage_id"]]);
    let corrected = client.get(&format!("/v1/content/{}", texts[0].as_str().expect("an id"))).await;
    assert_eq!(corrected.text, "Corrected.");
    assert_eq!(next["essays"][0]["spellcheck_metrics"], json!({ "corrections": 2 }));
    assert_eq!(worker.complete(&next).await.status, 200);
    assert_eq!(client.until_settled(&batch).await["status"], "completed_successfully");
    let attempts = client.attempts(&batch, "spellcheck").await;
    assert_eq!((&attempts[0]["worker_id"], &attempts[0]["lease_ms"]), (&json!("w1"), &json!(LEASE_MS)));

    let mut outcomes = Vec::new();
    while let Ok(message) = watched.try_recv() {
        if message.topic == Topic::ElsBatchPhaseOutcome {
            let envelope: Value = serde_json::from_slice(&message.body).expect("JSON");
            outcomes.push((envelope["data"]["phase_name"].clone(), envelope["data"]["phase_status"].clone()));
        }
    }
    let expected = ["spellcheck", "nlp"].map(|phase| (json!(phase), json!("completed_successfully")));
    assert_eq!(outcomes, expected, "whoever watches sees the outcomes, each once");
    let outcomes = client.get(&format!("/v1/batches/{batch}/phases/spellcheck/attempts")).await.json();
    assert_eq!(outcomes["late_outcomes"], json!([]));
}

#[tokio::test]
async fn a_worker_that_waits_is_woken_by_a_command() {
    let server = Server::start(setup()).await;
    let worker = Worker::new(&server.client, "w1");
    assert_eq!(worker.ask("spellcheck", 1, 20).await, [] as [Value; 0], "its time is over");
    let waits = tokio::spawn(async move { worker.ask("spellcheck", 4, 30_000).await });
    let batch = waiting(&server.client, 1).await;
    // One that was not woken would come back with nothing.
    assert_eq!(waits.await.expect("it was answered")[0]["batch_id"], json!(batch));
}

#[tokio::test]
async fn a_server_that_ends_lets_no_worker_wait() {
    let server = Server::start(setup()).await;
    let worker = Worker::new(&server.client, "w1");
    let waits = tokio::spawn(async move { worker.ask("spellcheck", 1, 30_000).await });
    // Long enough for the request to have arrived; one that has not would be refused, and the test fail.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    server.app.stop().await;
    let tasks = tokio::time::timeout(PATIENCE / 3, waits).await.expect("it does not wait on").expect("answered");
    assert_eq!(tasks, [] as [Value; 0]);
}

#[tokio::test]
async fn no_two_workers_get_the_same_task() {
    const BATCHES: usize = 24;
    let server = Server::start(setup()).await;
    let mut workers = tokio::task::JoinSet::new();
    for (name, max) in [("w1", 1), ("w2", 2), ("w3", 3), ("w4", 16)] {
        let worker = Worker::new(&server.client, name);
        workers.spawn(async move {
            let mut tasks = Vec::new();
            loop {
                let more = worker.ask("spellcheck", max, 1_000).await;
                if more.is_empty() {
                    return tasks;
                }
                for task in more {
                    assert_eq!(worker.complete(&task).await.status, 200);
                    tasks.push(task["task_id"].as_str().expect("an id").to_owned());
                }
            }
        });
    }
    let mut batches = Vec::new();
    for _ in 0..BATCHES {
        batches.push(waiting(&server.client, 1).await);
    }
    for batch in &batches {
        assert_eq!(server.client.until_settled(batch).await["status"], "completed_successfully");
    }
    let tasks: Vec<_> = workers.join_all().await.into_iter().flatten().collect();
    assert_eq!((tasks.len(), tasks.iter().collect::<BTreeSet<_>>().len()), (BATCHES, BATCHES));
}

#[tokio::test]
async fn a_heartbeat_extends_the_lease_up_to_the_deadline() {
    let mut rules = harness::no_automatic_retry();
    rules.phase_deadline_ms = [130_000; 4];
    let server = Server::start(Setup { rules, ..setup() }).await;
    let (client, worker) = (&server.client, Worker::new(&server.client, "w1"));
    let batch = waiting(client, 4).await;
    let task = worker.lease("spellcheck").await;
    let mut extended = Value::Null;
    for done in [json!(1), json!([task["essays"][0]["essay_id"], task["essays"][3]["essay_id"]])] {
        server.clock.advance(50_000);
        let answer = worker.say(&task, "heartbeat", json!({ "progress": done })).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        extended = answer.json();
    }
    assert_eq!(extended["essays_done"], 2);
    assert_eq!(extended["lease_expires_at"], json!(START.plus(130_000).to_timestamp()), "the deadline comes first");
    let status = client.status(&batch).await;
    assert_eq!(status["pipeline_state"]["spellcheck"]["progress_percentage"], 50.0);
    assert_eq!(status["pipeline_state"]["spellcheck"]["essay_counts"]["pending_dispatch_or_processing"], 4);
    for (progress, code) in [(json!(5), 400), (json!(["nobody"]), 400), (json!("many"), 400), (json!(-1), 400)] {
        let answer = worker.say(&task, "heartbeat", json!({ "progress": progress })).await;
        assert_eq!(
            (answer.status, &answer.json()["error_code"]),
            (code, &json!("VALIDATION_ERROR")),
            "{}",
            answer.text
        );
    }
    server.clock.advance(29_999);
    assert_eq!(worker.say(&task, "heartbeat", json!({})).await.json()["essays_done"], 2, "it is not unsaid");
    server.clock.advance(1);
    client.until_settled(&batch).await;
    is_fenced(client, &worker, &batch, &task, "its deadline is over").await;
    let attempt = &client.attempts(&batch, "spellcheck").await[0];
    assert_eq!((&attempt["error_code"], &attempt["outcome"]), (&json!("TIMEOUT"), &json!("failed")));
}

#[tokio::test]
async fn a_lease_that_runs_out_is_counted_and_somebody_else_gets_the_next_attempt() {
    let server = Server::start(Setup { rules: tried_again(), ..setup() }).await;
    let (client, dead, alive) =
        (&server.client, Worker::new(&server.client, "dead"), Worker::new(&server.client, "alive"));
    let batch = waiting(client, 2).await;
    let lost = dead.lease("spellcheck").await;
    server.clock.advance(LEASE_MS - 1);
    assert_eq!(alive.ask("spellcheck", 1, 0).await, [] as [Value; 0], "it is somebody's still");
    server.clock.advance(1);
    let backs_off = |status: &Value| status["pipeline_state"]["spellcheck"]["error_info"]["next_retry_at"].is_string();
    client.until(&batch, "the wait before the next attempt", backs_off).await;
    is_fenced(client, &dead, &batch, &lost, "its lease ran out").await;
    server.clock.advance(1_000);
    let task = alive.lease("spellcheck").await;
    assert_eq!(task["attempt"], 2);
    is_fenced(client, &dead, &batch, &lost, "there is a newer attempt").await;
    assert_eq!(alive.complete(&task).await.status, 200);
    assert_eq!(client.until_settled(&batch).await["status"], "completed_successfully");
    let attempts = client.attempts(&batch, "spellcheck").await;
    let shown: Vec<_> = attempts.iter().map(|one| (&one["worker_id"], &one["trigger"], &one["error_code"])).collect();
    assert_eq!(
        shown,
        [(&json!("dead"), &json!("pipeline"), &json!("TIMEOUT")), (&json!("alive"), &json!("automatic"), &Value::Null)]
    );
    assert_eq!(attempts[0]["category"], "transient");
    assert_eq!(attempts[0]["message"], "worker dead gave no sign of life for 60000 ms");
}

#[tokio::test]
async fn a_worker_whose_token_is_stale_is_told_so_and_changes_nothing() {
    let server = Server::start(setup()).await;
    let (client, worker) = (&server.client, Worker::new(&server.client, "w1"));

    let batch = waiting(client, 2).await;
    let task = worker.lease("spellcheck").await;
    let mut other = task.clone();
    other["lease_token"] = json!(uuid::Uuid::new_v4());
    is_fenced(client, &worker, &batch, &other, "another token").await;
    other = task.clone();
    other["task_id"] = json!(format!("{batch}.spellcheck.2"));
    is_fenced(client, &worker, &batch, &other, "another attempt").await;
    other["task_id"] = json!(format!("{batch}.nlp.1"));
    is_fenced(client, &worker, &batch, &other, "another phase").await;

    client.post(&format!("/v1/batches/{batch}/cancel"), json!({})).await;
    is_fenced(client, &worker, &batch, &task, "it was cancelled").await;
    assert_eq!(client.retry(&batch, json!({ "phase_name": "spellcheck" })).await.status, 202);
    is_fenced(client, &worker, &batch, &task, "its user has asked again").await;
    let again = worker.lease("spellcheck").await;
    assert_eq!(again["attempt"], 2);
    is_fenced(client, &worker, &batch, &task, "somebody has the next attempt").await;

    let failed = worker.say(&again, "fail", failure()).await;
    assert_eq!(failed.status, 200, "{}", failed.text);
    let heartbeat = worker.say(&again, "heartbeat", json!({})).await;
    let done = worker.complete(&again).await;
    assert_eq!((heartbeat.status, done.status), (409, 409), "it has failed");
    assert_eq!(client.attempts(&batch, "spellcheck").await.len(), 2);

    let batch = waiting(client, 2).await;
    let task = worker.lease("spellcheck").await;
    let outcome = outcome_message(&batch, "spellcheck", 1);
    server.app.engine().publish(outcome).await.expect("published");
    client.until_phase(&batch, "spellcheck", "failed").await;
    is_fenced(client, &worker, &batch, &task, "an outcome came by the bus").await;
}

#[tokio::test]
async fn the_same_work_is_answered_as_it_was() {
    let server = Server::start(setup()).await;
    let (client, worker) = (&server.client, Worker::new(&server.client, "w1"));
    let batch = waiting(client, 2).await;
    let task = worker.lease("spellcheck").await;
    let first = worker.complete(&task).await;
    let again = worker.complete(&task).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (200, ""));
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, "true"));
    assert_eq!(first.text, again.text);
    let mut other = all_done(&task);
    other["essays"][0]["text"] = json!("Something else.");
    let other = worker.say(&task, "complete", other).await;
    assert_eq!((other.status, &other.json()["error_code"]), (409, &json!("CONFLICT")), "{}", other.text);
    assert_eq!(client.attempts(&batch, "spellcheck").await.len(), 1);

    waiting(client, 1).await;
    let task = worker.lease("spellcheck").await;
    let first = worker.say(&task, "fail", failure()).await;
    assert_eq!(worker.say(&task, "fail", failure()).await.text, first.text);
}

#[tokio::test]
async fn the_same_work_that_comes_many_times_at_once_is_answered_as_once() {
    let Server { client, .. } = &Server::start(setup()).await;
    waiting(client, 2).await;
    let worker = Worker::new(client, "one");
    let task = worker.lease("spellcheck").await;
    let complete = || worker.complete(&task);
    let (first, second, third, fourth) = tokio::join!(complete(), complete(), complete(), complete());
    for answer in [&first, &second, &third, &fourth] {
        assert_eq!((answer.status, &answer.text), (200, &first.text));
    }
}

#[tokio::test]
async fn essays_can_fail_one_by_one_and_all_together() {
    let server = Server::start(setup()).await;
    let (client, worker) = (&server.client, Worker::new(&server.client, "w1"));
    let error = json!({ "error_code": "CONTENT_TOO_SHORT", "message": "one word" });
    let batch = waiting(client, 3).await;
    let task = worker.lease("spellcheck").await;
    let mut body = all_done(&task);
    body["essays"][1]["error"] = error.clone();
    let done = worker.say(&task, "complete", body).await;
    assert_eq!(done.json()["outcome"], "completed_with_partial_success", "{}", done.text);
    let status = client.until_settled(&batch).await;
    let info = &status["pipeline_state"]["spellcheck"]["error_info"];
    assert_eq!((&info["error_code"], &info["category"]), (&json!("CONTENT_TOO_SHORT"), &json!("permanent")));
    assert_eq!(
        info["failed_essays"],
        json!([{ "essay_id": task["essays"][1]["essay_id"],
        "error_code": "CONTENT_TOO_SHORT", "message": "one word" }])
    );

    let batch = waiting(client, 2).await;
    let task = worker.lease("spellcheck").await;
    let mut body = all_done(&task);
    for slot in 0..2 {
        body["essays"][slot]["error"] = error.clone();
    }
    assert_eq!(worker.say(&task, "complete", body).await.json()["outcome"], "failed");
    client.until_phase(&batch, "spellcheck", "failed").await;
}

#[tokio::test]
async fn a_failure_says_when_to_try_again() {
    let server = Server::start(Setup { rules: tried_again(), ..setup() }).await;
    let (client, worker) = (&server.client, Worker::new(&server.client, "w1"));
    let batch = waiting(client, 1).await;
    let task = worker.lease("spellcheck").await;
    let mut body = failure();
    body["retry_after_ms"] = json!(90_000);
    assert_eq!(worker.say(&task, "fail", body).await.json()["outcome"], "failed");
    let info = client.status(&batch).await["pipeline_state"]["spellcheck"]["error_info"].clone();
    assert_eq!(info["next_retry_at"], json!(START.plus(90_000).to_timestamp()), "{info:#}");
    server.clock.advance(90_000);
    let task = worker.lease("spellcheck").await;
    assert_eq!(task["attempt"], 2);
    let body = json!({ "error_code": "SPELLCHECK_SERVICE_ERROR", "category": "permanent" });
    assert_eq!(worker.say(&task, "fail", body).await.status, 200);
    client.until_phase(&batch, "spellcheck", "failed").await;
}

#[tokio::test]
async fn a_command_that_is_out_of_date_is_given_to_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(Setup { data: kept(directory.path()), ..setup() }).await;
    let (client, worker) = (&server.client, Worker::new(&server.client, "w1"));
    let cancelled = waiting(client, 1).await;
    client.post(&format!("/v1/batches/{cancelled}/cancel"), json!({})).await;
    let batch = waiting(client, 1).await;
    let tasks = worker.ask("spellcheck", 4, 30_000).await;
    assert_eq!((tasks.len(), &tasks[0]["batch_id"]), (1, &json!(batch)));
    assert_eq!(client.get("/internal/v1/dead-letters").await.json()["dead_letters"], json!([]));
    server.app.stop().await;
    let checked = rephase::app::verify(directory.path(), &mut |said| panic!("{said}")).expect("it can be read");
    assert_eq!(checked.messages, 0, "and it does not come again");
}

#[tokio::test]
async fn a_lease_survives_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let restored = directory.path().join("restored");
    let start = async |data: &Path, later_ms: u64| {
        let clock = rephase::clock::ManualClock::new(START.plus(later_ms));
        let setup = Setup { data: kept(data), rules: tried_again(), ..setup() };
        let app = harness::start_app(setup, clock.clock()).await.expect("it starts");
        let client = Client::new(&format!("http://{}", app.address()));
        Server { app, client, clock }
    };
    let original = directory.path().join("original");
    let server = start(&original, 0).await;
    let (alive, late) = (waiting(&server.client, 1).await, waiting(&server.client, 1).await);
    let worker = Worker::new(&server.client, "w1");
    let (first, second) = (worker.lease("spellcheck").await, worker.lease("spellcheck").await);
    let unleased = waiting(&server.client, 1).await;
    server.app.stop().await;
    verify(&original);
    let (file, mut lines) = (directory.path().join("backup.jsonl"), Vec::new());
    rephase::app::backup(&original, "2026-03-02T08:30:00Z", &mut |part| {
        lines.extend(part);
        true
    })
    .expect("a backup");
    std::fs::write(&file, lines).expect("written");
    assert_eq!(rephase::app::restore(&restored, &file).expect("it is whole").checked.violations, 0);

    let server = start(&restored, LEASE_MS / 2).await;
    let worker = Worker::new(&server.client, "w1");
    assert_eq!((&first["batch_id"], &second["batch_id"]), (&json!(alive), &json!(late)));
    assert_eq!(worker.complete(&first).await.status, 200, "its lease goes on");
    server.client.until_phase(&alive, "spellcheck", "completed_successfully").await;
    server.app.stop().await;
    verify(&restored);

    // The lease ended while nobody was there to be told anything, and so did the deadline.
    let down_ms = 3_600_000;
    let server = start(&restored, down_ms).await;
    let (client, worker) = (&server.client, Worker::new(&server.client, "w1"));
    let third = worker.lease("spellcheck").await;
    assert_eq!(third["batch_id"], json!(unleased), "what was leased to somebody is not given out again");
    server.clock.advance(LEASE_MS - 1);
    let extended = worker.say(&second, "heartbeat", json!({})).await;
    assert_eq!(extended.status, 200, "{}", extended.text);
    assert_eq!(extended.json()["lease_expires_at"], json!(START.plus(down_ms + 2 * LEASE_MS - 1).to_timestamp()));
    assert_eq!(extended.json()["deadline"], json!(START.plus(down_ms + 15 * 60_000).to_timestamp()));
    server.clock.advance(LEASE_MS);
    let ended = |status: &Value| status["pipeline_state"]["spellcheck"]["error_info"]["next_retry_at"].is_string();
    client.until(&late, "the end of the lease", ended).await;
    is_fenced(client, &worker, &late, &second, "its second time is over").await;
    server.app.stop().await;
    verify(&restored);
}

#[tokio::test]
async fn a_leased_attempt_whose_command_is_still_there_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let start = async || Server::start(Setup { data: kept(directory.path()), journal_bytes: 1, ..setup() }).await;
    let server = start().await;
    waiting(&server.client, 1).await;
    server.app.stop().await;
    let command = {
        let tree = database(directory.path()).open_tree("rephase").expect("a tree");
        tree.scan_prefix(b"o").next().expect("a command").expect("readable")
    };
    let server = start().await;
    Worker::new(&server.client, "w1").lease("spellcheck").await;
    server.app.stop().await;
    verify(directory.path());
    {
        let tree = database(directory.path()).open_tree("rephase").expect("a tree");
        tree.insert(command.0, command.1).expect("inserted");
        tree.flush().expect("flushed");
    }
    let found = violations(directory.path());
    assert!(found.iter().any(|said| said.contains("is leased and still sent")), "{found:#?}");
}

#[tokio::test]
async fn a_phase_left_to_events_is_ended_by_an_event() {
    let directory = tempfile::tempdir().expect("a directory");
    let runners = [Runner::Events, Runner::Simulated, Runner::Simulated, Runner::Simulated];
    let server = Server::start(Setup { data: kept(directory.path()), runners, ..Setup::default() }).await;
    let client = &server.client;
    let mut watched = server.app.engine().bus().watch();
    let (batch, left) = (waiting(client, 1).await, waiting(client, 1).await);
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let message = watched.recv().await.expect("it is shown");
        if message.topic == Topic::BatchSpellcheckInitiateCommand {
            seen.insert(message.key);
        }
    }
    assert_eq!(seen, BTreeSet::from([batch.clone(), left.clone()]));
    assert_eq!(phase_status(&client.status(&batch).await, "spellcheck"), "dispatch_initiated");
    let lease = json!({ "worker_id": "w1", "phases": ["spellcheck"] });
    assert_eq!(client.post("/v1/workers/lease", lease).await.status, 400, "it is not for workers");
    server.app.engine().publish(outcome_message(&batch, "spellcheck", 1)).await.expect("published");
    client.until_phase(&batch, "spellcheck", "failed").await;
    // Nobody answers about the other, and its deadline watches over it.
    server.clock.advance(15 * 60_000);
    client.until_phase(&left, "spellcheck", "failed").await;
    server.app.stop().await;
    let checked = rephase::app::verify(directory.path(), &mut |said| panic!("{said}")).expect("it can be read");
    assert_eq!(checked.messages, 0, "the commands were consumed");
}
