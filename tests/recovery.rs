//! The promise "what was answered survives, and takes effect once": restarts, kill -9, deadlines, idempotency keys.

mod harness;

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Instant;

use harness::{Client, OWNER, PATIENCE, Process, Server, Setup, kept, phase_status, run, start_app, verify};
use rephase::bus::Subscription;
use rephase::clock::ManualClock;
use rephase::contract::{Group, Headers, Message, Topic};
use rephase::domain::{RetryPolicy, Rules};
use rephase::engine::{Claim, Engine, Options};
use rephase::store;
use serde_json::{Value, json};
use uuid::Uuid;

#[tokio::test]
async fn a_phase_that_was_running_when_the_process_was_killed_completes_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().to_str().expect("a path");
    let slow = ["--data-dir", data, "--latency-ms", "600000"];
    let process = Process::serve(&slow);
    let batch = process.client.ready_batch(3).await;
    assert_eq!(process.client.pipeline(&batch, "nlp").await.status, 202);
    process.client.until_phase(&batch, "spellcheck", "in_progress").await;
    process.kill();
    verify(directory.path());

    let process = Process::serve(&["--data-dir", data, "--latency-ms", "0"]);
    let status = process.client.until_settled(&batch).await;
    assert_eq!(status["status"], "completed_successfully");
    for phase in ["spellcheck", "nlp"] {
        let attempts = process.client.attempts(&batch, phase).await;
        assert_eq!(attempts.len(), 1, "{phase} ran more than once: {attempts:?}");
        assert_eq!(attempts[0]["outcome"], "completed_successfully");
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_kill_9() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().to_str().expect("a path");
    let process = Process::serve(&["--data-dir", data, "--latency-ms", "0"]);
    let mut batches = Vec::new();
    for essays in 1..=5 {
        batches.push((process.client.ready_batch(essays).await, essays));
    }
    process.kill();
    verify(directory.path());
    let process = Process::serve(&["--data-dir", data, "--latency-ms", "0"]);
    for (batch, essays) in batches {
        let status = process.client.status(&batch).await;
        assert_eq!((&status["status"], &status["details"]["essays_received"]), (&json!("ready"), &json!(essays)));
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_directory_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().to_str().expect("a path");
    let process = Process::serve(&["--data-dir", data]);
    let (code, output, errors) = run(Process::command(&["--data-dir", data]));
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(errors.contains("in use by another rephase process"), "{errors}");
    assert_eq!(process.client.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn sigterm_and_ctrl_c_end_it_with_0_and_nothing_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().to_str().expect("a path");
    let process = Process::serve(&["--data-dir", data, "--latency-ms", "600000"]);
    let batch = process.client.ready_batch(1).await;
    process.client.pipeline(&batch, "spellcheck").await;
    process.client.until_phase(&batch, "spellcheck", "in_progress").await;
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0));
    verify(directory.path());

    let process = Process::serve(&["--data-dir", data, "--latency-ms", "0"]);
    assert_eq!(process.client.until_settled(&batch).await["status"], "completed_successfully");
    process.signal("INT");
    assert_eq!(process.wait().code(), Some(0));
    verify(directory.path());
}

#[tokio::test]
async fn an_ephemeral_server_leaves_no_file_behind() {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut command = Process::command(&["--ephemeral", "--latency-ms", "0"]);
    command.env("TMPDIR", temporary.path()).current_dir(temporary.path());
    let process = Process::spawn(command).expect("it starts");
    let batch = process.client.ready_batch(1).await;
    process.client.pipeline(&batch, "spellcheck").await;
    process.client.until_settled(&batch).await;
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0));
    let left: Vec<_> = std::fs::read_dir(temporary.path()).expect("a directory").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn faults_come_from_a_file_and_a_wrong_one_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("faults.json");
    let faults = json!([{ "phase": "spellcheck", "error_code": "SPELLCHECK_SERVICE_ERROR", "category": "permanent" }]);
    std::fs::write(&file, faults.to_string()).expect("written");
    let path = file.to_str().expect("a path");
    let process = Process::serve(&["--ephemeral", "--latency-ms", "0..1", "--seed", "3", "--faults", path]);
    let batch = process.client.ready_batch(1).await;
    process.client.pipeline(&batch, "spellcheck").await;
    let status = process.client.until_settled(&batch).await;
    assert_eq!(status["pipeline_state"]["spellcheck"]["error_info"]["category"], "permanent");

    std::fs::write(&file, r#"[{"phase": "grading", "error_code": "TIMEOUT"}]"#).expect("written");
    let (code, _, errors) = run(Process::command(&["--ephemeral", "--faults", path]));
    assert_eq!(code, 2);
    assert!(errors.contains("fault rule 1") && errors.contains("grading"), "{errors}");
}

#[test]
fn the_demo_ends_with_a_complete_batch() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rephase"));
    command.args(["demo", "--json"]);
    let (code, output, errors) = run(command);
    assert_eq!(code, 0, "{errors}");
    let lines: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let has = |what: &str, text: &str| {
        lines.iter().any(|line| line["what"] == what && line["text"].as_str().is_some_and(|said| said.contains(text)))
    };
    assert!(has("nlp", "failed"), "{output}");
    assert!(has("why", "NLP_SERVICE_ERROR"), "{output}");
    assert!(has("retry", "attempt 2"), "{output}");
    assert!(has("batch", "completed_successfully"), "{output}");
}

#[tokio::test]
async fn a_phase_without_an_outcome_fails_at_its_deadline_even_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(harness::START);
    let stuck = || Setup { data: kept(directory.path()), latency_ms: 3_000_000..=3_000_000, ..Setup::default() };
    let app = start_app(stuck(), clock.clock()).await.expect("it starts");
    let client = Client::new(&format!("http://{}", app.address()));
    let batch = client.ready_batch(1).await;
    client.pipeline(&batch, "nlp").await;
    client.until_phase(&batch, "spellcheck", "in_progress").await;
    app.stop().await;

    let app = start_app(stuck(), clock.clock()).await.expect("it starts again");
    let client = Client::new(&format!("http://{}", app.address()));
    clock.advance(15 * 60 * 1_000 - 1);
    assert_eq!(phase_status(&client.status(&batch).await, "spellcheck"), "in_progress");
    clock.advance(1);
    let status = client.until_settled(&batch).await;
    assert_eq!(status["pipeline_state"]["spellcheck"]["error_info"]["error_code"], "TIMEOUT");
    assert_eq!(phase_status(&status, "nlp"), "skipped_due_to_dependency_failure");
    app.stop().await;
}

#[tokio::test]
async fn an_automatic_retry_that_was_waiting_when_the_program_ended_comes_after_the_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(harness::START);
    let faults = json!([{ "phase": "spellcheck", "attempts": [1, 2], "error_code": "SERVICE_UNAVAILABLE" }]);
    let retry = std::array::from_fn(|_| RetryPolicy { base_ms: 60_000, ..RetryPolicy::default() });
    let rules = Rules { retry, ..Rules::default() };
    let setup =
        || Setup { data: kept(directory.path()), faults: faults.clone(), rules: rules.clone(), ..Setup::default() };
    let mut batch = String::new();
    for ended in 0..3 {
        let app = start_app(setup(), clock.clock()).await.expect("it starts");
        let client = Client::new(&format!("http://{}", app.address()));
        if ended == 0 {
            batch = client.ready_batch(2).await;
            client.pipeline(&batch, "spellcheck").await;
        } else {
            clock.advance(60_000);
        }
        let wanted = ended + 1;
        client
            .until(&batch, "an attempt", |status| {
                let info = &status["pipeline_state"]["spellcheck"];
                status["status"] != "processing"
                    || info["error_info"]["retry_history"].as_array().map(Vec::len) == Some(wanted)
            })
            .await;
        if ended < 2 {
            let status = client.status(&batch).await;
            assert_eq!(phase_status(&status, "spellcheck"), "in_progress");
            assert!(status["pipeline_state"]["spellcheck"]["error_info"]["next_retry_at"].is_string(), "{status:#}");
        } else {
            assert_eq!(client.until_settled(&batch).await["status"], "completed_successfully");
            let attempts = client.attempts(&batch, "spellcheck").await;
            let triggers: Vec<_> = attempts.iter().map(|attempt| attempt["trigger"].clone()).collect();
            assert_eq!(triggers, ["pipeline", "automatic", "automatic"]);
        }
        app.stop().await;
    }
}

#[tokio::test]
async fn a_batch_that_cannot_be_read_does_not_hold_up_the_timers_of_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(harness::START);
    let faults = json!([{ "phase": "spellcheck", "attempts": [1], "error_code": "SERVICE_UNAVAILABLE" }]);
    let setup =
        || Setup { data: kept(directory.path()), faults: faults.clone(), rules: Rules::default(), ..Setup::default() };
    let app = start_app(setup(), clock.clock()).await.expect("it starts");
    let client = Client::new(&format!("http://{}", app.address()));
    let mut batches = Vec::new();
    for _ in 0..2 {
        let batch = client.ready_batch(1).await;
        client.pipeline(&batch, "spellcheck").await;
        client
            .until(&batch, "a wait", |status| {
                status["pipeline_state"]["spellcheck"]["error_info"]["next_retry_at"].is_string()
            })
            .await;
        batches.push(batch);
    }
    app.stop().await;
    harness::damage(directory.path(), &batches[0]);

    let app = start_app(setup(), clock.clock()).await.expect("it starts again");
    let client = Client::new(&format!("http://{}", app.address()));
    clock.advance(60_000);
    assert_eq!(client.until_settled(&batches[1]).await["status"], "completed_successfully");
    assert_eq!(client.get(&format!("/v1/batches/{}/status", batches[0])).await.status, 503);
    let began = Instant::now();
    while app.engine().counters().broken_timers.load(Ordering::Relaxed) == 0 {
        assert!(began.elapsed() < PATIENCE, "the broken timer was not counted");
        tokio::task::yield_now().await;
    }
    app.stop().await;
}

fn engine_options(directory: &std::path::Path) -> Options {
    Options::new(store::Options::new(directory))
}

/// A command for a phase that no worker of the test consumes by itself.
fn command(event: &str) -> Message {
    let event_id = Uuid::new_v5(&Uuid::nil(), event.as_bytes());
    let headers = Headers { event_id, trace_id: event_id };
    let body = event.as_bytes().to_vec().into();
    Message { topic: Topic::BatchNlpInitiateCommandV2, key: "batch".to_owned(), headers: Some(headers), body }
}

async fn next(subscription: &mut Subscription) -> rephase::bus::Delivery {
    tokio::time::timeout(PATIENCE, subscription.next()).await.expect("in time").expect("the bus is open")
}

#[tokio::test]
async fn messages_nobody_consumed_come_again_after_a_restart_in_their_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(harness::START);
    let engine = Engine::start(engine_options(directory.path()), clock.clock()).await.expect("it starts");
    let mut subscription = engine.bus().subscribe(Group::Nlp).expect("the only one");
    for event in ["first", "second", "third"] {
        engine.publish(command(event)).await.expect("published");
    }
    let first = next(&mut subscription).await;
    assert_eq!(engine.claim(&first).await.expect("answered"), Claim::Granted);
    engine.finish(first, Vec::new(), Vec::new()).await.expect("committed");
    // The second is delivered, and its consumer never comes to an end with it.
    let second = next(&mut subscription).await;
    assert_eq!(engine.claim(&second).await.expect("answered"), Claim::Granted);
    engine.shutdown().await;
    drop((second, subscription, engine));

    let engine = Engine::start(engine_options(directory.path()), clock.clock()).await.expect("it starts again");
    let mut subscription = engine.bus().subscribe(Group::Nlp).expect("the only one");
    for event in ["second", "third"] {
        let delivery = next(&mut subscription).await;
        assert_eq!(&delivery.message().body[..], event.as_bytes());
        assert_eq!(engine.claim(&delivery).await.expect("answered"), Claim::Granted, "a dead process holds no key");
        engine.finish(delivery, Vec::new(), Vec::new()).await.expect("committed");
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn a_failed_handler_releases_its_key_and_the_message_comes_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(harness::START);
    let engine = Engine::start(engine_options(directory.path()), clock.clock()).await.expect("it starts");
    let mut subscription = engine.bus().subscribe(Group::Nlp).expect("the only one");
    engine.publish(command("once")).await.expect("published");
    let delivery = next(&mut subscription).await;
    assert_eq!(engine.claim(&delivery).await.expect("answered"), Claim::Granted);
    let until = harness::START.plus(300_000);
    assert_eq!(engine.claim(&delivery).await.expect("answered"), Claim::Busy { until }, "it is processing");
    engine.release(&delivery).await;
    delivery.reject("the handler failed");

    let began = Instant::now();
    let again = loop {
        clock.advance(100);
        if let Ok(Some(delivery)) =
            tokio::time::timeout(std::time::Duration::from_millis(20), subscription.next()).await
        {
            break delivery;
        }
        assert!(began.elapsed() < PATIENCE, "it did not come again");
    };
    assert_eq!(again.count(), 2);
    assert_eq!(engine.claim(&again).await.expect("answered"), Claim::Granted);
    engine.finish(again, Vec::new(), Vec::new()).await.expect("committed");
    engine.publish(command("once")).await.expect("published");
    let duplicate = next(&mut subscription).await;
    assert_eq!(engine.claim(&duplicate).await.expect("answered"), Claim::Duplicate, "it is completed");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_processing_key_is_free_after_300_seconds_and_a_completed_one_after_its_lifetime() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(harness::START);
    let engine = Engine::start(engine_options(directory.path()), clock.clock()).await.expect("it starts");
    let mut subscription = engine.bus().subscribe(Group::Nlp).expect("the only one");
    engine.publish(command("slow")).await.expect("published");
    let delivery = next(&mut subscription).await;
    let claim = async || engine.claim(&delivery).await.expect("answered");
    assert_eq!(claim().await, Claim::Granted);
    clock.advance(299_999);
    assert!(matches!(claim().await, Claim::Busy { .. }));
    clock.advance(1);
    assert_eq!(claim().await, Claim::Granted);
    engine.finish(delivery, Vec::new(), Vec::new()).await.expect("committed");

    engine.publish(command("slow")).await.expect("published");
    let delivery = next(&mut subscription).await;
    let claim = async || engine.claim(&delivery).await.expect("answered");
    clock.advance(86_399_999);
    assert_eq!(claim().await, Claim::Duplicate);
    clock.advance(1);
    assert_eq!(claim().await, Claim::Granted);
    engine.shutdown().await;
}

#[tokio::test]
async fn the_sweep_removes_what_has_expired_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(harness::START);
    // The sweep runs when the test says so.
    let options = Options { sweep_interval_ms: u64::MAX / 2, ..engine_options(directory.path()) };
    let engine = Engine::start(options, clock.clock()).await.expect("it starts");
    let mut subscription = engine.bus().subscribe(Group::Nlp).expect("the only one");
    let complete = async |engine: &Engine, subscription: &mut Subscription, event: &str| {
        engine.publish(command(event)).await.expect("published");
        let delivery = next(subscription).await;
        engine.claim(&delivery).await.expect("answered");
        engine.finish(delivery, Vec::new(), Vec::new()).await.expect("committed");
    };
    for number in 0..300 {
        complete(&engine, &mut subscription, &format!("old {number}")).await;
    }
    clock.advance(1_000);
    complete(&engine, &mut subscription, "new").await;
    assert_eq!(engine.sweep().await.expect("swept"), 0);
    clock.advance(86_400_000 - 1_000);
    assert_eq!(engine.sweep().await.expect("swept"), 300);
    assert_eq!(engine.sweep().await.expect("swept"), 0);
    engine.publish(command("new")).await.expect("published");
    let delivery = next(&mut subscription).await;
    assert_eq!(engine.claim(&delivery).await.expect("answered"), Claim::Duplicate, "a live key was swept");
    engine.shutdown().await;
}

#[tokio::test]
async fn an_outcome_that_comes_twice_takes_effect_once() {
    let server = Server::with_stuck_workers().await;
    let client = &server.client;
    let batch = client.ready_batch(1).await;
    client.pipeline(&batch, "spellcheck").await;
    client.until_phase(&batch, "spellcheck", "in_progress").await;
    let attempt = client.attempts(&batch, "spellcheck").await[0].clone();
    let event_id = Uuid::new_v4();
    let outcome = json!({
        "event_id": event_id, "event_type": Topic::ElsBatchPhaseOutcome, "source_service": "essay_lifecycle_service",
        "correlation_id": attempt["correlation_id"],
        "data": { "batch_id": batch, "phase_name": "spellcheck", "phase_status": "completed_successfully",
            "processed_essays": [{ "essay_id": attempt["essay_ids"][0], "text_storage_id": "new" }],
            "failed_essay_ids": [] },
    });
    let message = || Message {
        topic: Topic::ElsBatchPhaseOutcome,
        key: batch.clone(),
        headers: Some(Headers { event_id, trace_id: Uuid::nil() }),
        body: outcome.to_string().into(),
    };
    let engine = server.app.engine();
    engine.publish(message()).await.expect("published");
    engine.publish(message()).await.expect("published");
    client.until_settled(&batch).await;
    let began = Instant::now();
    while engine.counters().duplicates.load(Ordering::Relaxed) == 0 {
        assert!(began.elapsed() < PATIENCE, "the duplicate was not recognised");
        tokio::task::yield_now().await;
    }
    assert_eq!(client.attempts(&batch, "spellcheck").await.len(), 1);
    assert_eq!(client.attempts(&batch, "spellcheck").await[0]["requested_by"], OWNER);
}

#[tokio::test]
async fn a_journal_is_kept_over_starts_and_stays_in_few_pieces() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().to_str().expect("a path");
    let segments = || std::fs::read_dir(directory.path().join("journal")).expect("a journal").count();
    let (mut batches, mut pieces) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let process = Process::serve(&["--data-dir", data, "--latency-ms", "0"]);
        batches.push(process.client.registered_batch(1).await);
        process.kill();
        pieces.push(segments());
    }
    assert_eq!(pieces[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
    verify(directory.path());
    // Where they are more than eight, and one that they are written over next, a start that lives a little longer settles them.
    let process = Process::serve(&["--data-dir", data, "--latency-ms", "0"]);
    while segments() > 9 {
        assert!(batches.len() < 2_000, "{} segments", segments());
        batches.push(process.client.registered_batch(1).await);
    }
    for batch in &batches {
        assert_eq!(process.client.status(batch).await["batch_id"], **batch);
    }
}
