//! The promise "a retry re-enqueues one phase, and nothing else of the batch is run again", over HTTP and on the bus.

mod harness;

use std::sync::atomic::Ordering;
use std::time::Instant;

use harness::{Client, OWNER, PATIENCE, Server, outcome_message, phase_status, request_message};
use rephase::contract::{Message, Topic};
use rephase::domain::Rules;
use serde_json::{Value, json};
use uuid::Uuid;

/// nlp fails the first time.
fn nlp_fails_once() -> Value {
    json!([{ "phase": "nlp", "attempts": [1], "error_code": "NLP_SERVICE_ERROR", "category": "transient",
             "message": "language server down" }])
}

async fn batch_with_failed_nlp(client: &Client) -> String {
    let batch = client.ready_batch(3).await;
    assert_eq!(client.pipeline(&batch, "ai_feedback").await.status, 202);
    let status = client.until_settled(&batch).await;
    assert_eq!(status["status"], "completed_with_failures");
    assert_eq!(phase_status(&status, "nlp"), "failed");
    assert_eq!(phase_status(&status, "ai_feedback"), "skipped_due_to_dependency_failure");
    batch
}

#[tokio::test]
async fn the_failed_phase_alone_runs_again_and_what_waited_for_it_goes_on() {
    let Server { client, .. } = &Server::with_faults(nlp_fails_once()).await;
    let batch = batch_with_failed_nlp(client).await;
    let before = client.status(&batch).await;
    let info = &before["pipeline_state"]["nlp"]["error_info"];
    assert_eq!(info["error_code"], "NLP_SERVICE_ERROR");
    assert_eq!(info["message"], "language server down");

    let retry = json!({ "phase_name": "NLP", "retry_reason": "  it is back  " });
    let answer = client.retry(&batch, retry).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let body = answer.json();
    assert_eq!((&body["status"], &body["phase"]), (&json!("retry_initiated"), &json!("nlp")));
    assert_eq!((&body["batch_id"], &body["attempt"]), (&json!(batch), &json!(2)));
    assert!(body["message"].is_string());
    let location = answer.header("location").to_owned();

    let status = client.until_settled(&batch).await;
    assert_eq!(status["status"], "completed_successfully");
    assert_eq!(status["pipeline_state"]["spellcheck"], before["pipeline_state"]["spellcheck"]);
    assert_eq!(client.attempts(&batch, "spellcheck").await.len(), 1, "the spellcheck ran again");
    assert_eq!(client.attempts(&batch, "ai_feedback").await.len(), 1);

    let attempts = client.attempts(&batch, "nlp").await;
    let told: Vec<_> = attempts.iter().map(|attempt| (&attempt["attempt"], &attempt["trigger"])).collect();
    assert_eq!(told, [(&json!(1), &json!("pipeline")), (&json!(2), &json!("user"))]);
    assert_eq!(attempts[0]["error_code"], "NLP_SERVICE_ERROR", "the earlier attempt is kept");
    assert_eq!(attempts[1]["reason"], "it is back");
    assert_eq!(attempts[1]["requested_by"], OWNER);
    assert_eq!(client.get(&location).await.json()["attempts"], json!([attempts[1]]));
    let info = &status["pipeline_state"]["nlp"]["error_info"];
    assert_eq!(info["retry_count"], 1);
    assert_eq!(info["retry_history"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn what_a_retry_may_not_do_is_refused() {
    let Server { client, .. } = &Server::with_faults(nlp_fails_once()).await;
    let untouched = client.ready_batch(1).await;
    let batch = batch_with_failed_nlp(client).await;
    let before = client.status(&batch).await;
    let nowhere = Uuid::nil().to_string();
    let essay = client.attempts(&batch, "nlp").await[0]["essay_ids"][0].clone();
    for (batch, body, status, error) in [
        (&nowhere, json!({ "phase_name": "nlp" }), 404, "no such batch"),
        (&untouched, json!({ "phase_name": "nlp" }), 404, "nothing to retry"),
        (&batch, json!({ "phase_name": "grading" }), 400, "no phase"),
        (&batch, json!({ "phase_name": "cj_assessment", "essay_ids": [essay] }), 400, "whole"),
        (&batch, json!({ "phase_name": "cj_assessment" }), 409, "never requested"),
        (&batch, json!({ "phase_name": "nlp", "essay_ids": ["stranger"] }), 400, "no essay"),
        (&batch, json!({ "phase_name": "nlp", "essay_ids": [] }), 400, "empty"),
        (&batch, json!({ "phase_name": "ai_feedback" }), 409, "retry nlp first"),
        (&batch, json!({ "phase_name": "spellcheck" }), 409, "force"),
        (&batch, json!({ "phase_name": "nlp", "retry_reason": "å".repeat(501) }), 400, "500"),
    ] {
        let answer = client.retry(batch, body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
        let said = answer.json()["error"].as_str().expect("an error").to_owned();
        assert!(said.contains(error), "{body}: {said}");
    }
    let eve = client.as_user("eve").retry(&batch, json!({ "phase_name": "nlp" })).await;
    assert_eq!(eve.status, 403, "{}", eve.text);
    assert_eq!(client.status(&batch).await, before, "a refused retry changed something");
    let longest = json!({ "phase_name": "nlp", "retry_reason": "å".repeat(500) });
    assert_eq!(client.retry(&batch, longest).await.status, 202);
}

#[tokio::test]
async fn of_two_retries_at_once_one_is_accepted() {
    // The first attempt fails at once; the second takes a second of a clock that stands still.
    let faults = json!([
        { "phase": "nlp", "attempts": [1], "error_code": "NLP_SERVICE_ERROR" },
        { "phase": "nlp", "delay_ms": 1000 },
    ]);
    let Server { client, clock, .. } = &Server::with_faults(faults).await;
    let batch = batch_with_failed_nlp(client).await;
    let retry = || client.retry(&batch, json!({ "phase_name": "nlp" }));
    let (one, other) = tokio::join!(retry(), retry());
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 409], "{} {}", one.text, other.text);

    client.until_phase(&batch, "nlp", "in_progress").await;
    assert_eq!(retry().await.status, 409, "a phase that runs was retried");
    clock.advance(1_000);
    assert_eq!(client.until_settled(&batch).await["status"], "completed_successfully");
    assert_eq!(client.attempts(&batch, "nlp").await.len(), 2);
}

#[tokio::test]
async fn a_phase_that_completed_runs_again_only_with_force() {
    let Server { client, .. } = &Server::start(harness::Setup::default()).await;
    let batch = client.ready_batch(2).await;
    client.pipeline(&batch, "cj_assessment").await;
    client.until_settled(&batch).await;
    let plain = client.retry(&batch, json!({ "phase_name": "cj_assessment" })).await;
    assert_eq!(plain.status, 409, "{}", plain.text);
    let forced = client.retry(&batch, json!({ "phase_name": "cj_assessment", "force": true })).await;
    assert_eq!((forced.status, &forced.json()["attempt"]), (202, &json!(2)), "{}", forced.text);
    client.until_settled(&batch).await;
    assert_eq!(client.attempts(&batch, "cj_assessment").await.len(), 2);
    assert_eq!(client.attempts(&batch, "spellcheck").await.len(), 1);
}

#[tokio::test]
async fn a_retry_of_some_essays_merges_into_what_was_there() {
    let faults = json!([{ "phase": "nlp", "attempts": [1], "essays": [0, 2], "error_code": "NLP_SERVICE_ERROR" }]);
    let Server { client, .. } = &Server::with_faults(faults).await;
    let batch = client.ready_batch(3).await;
    client.pipeline(&batch, "nlp").await;
    let status = client.until_settled(&batch).await;
    assert_eq!(phase_status(&status, "nlp"), "completed_with_partial_success");
    let counts = &status["pipeline_state"]["nlp"]["essay_counts"];
    assert_eq!((&counts["successful"], &counts["failed"]), (&json!(1), &json!(2)));

    let essays = client.attempts(&batch, "nlp").await[0]["essay_ids"].clone();
    let good = client.retry(&batch, json!({ "phase_name": "nlp", "essay_ids": [essays[1]] })).await;
    assert_eq!(good.status, 409, "an essay that came out well was retried without force");
    let one = client.retry(&batch, json!({ "phase_name": "nlp", "essay_ids": [essays[2], essays[2]] })).await;
    assert_eq!(one.status, 202, "{}", one.text);
    let status = client.until_settled(&batch).await;
    assert_eq!(phase_status(&status, "nlp"), "completed_with_partial_success");
    assert_eq!(status["pipeline_state"]["nlp"]["essay_counts"]["successful"], 2);
    client.retry(&batch, json!({ "phase_name": "nlp", "essay_ids": [essays[0]] })).await;
    let status = client.until_settled(&batch).await;
    assert_eq!(status["status"], "completed_successfully");
    let asked: Vec<_> = client.attempts(&batch, "nlp").await.iter().map(|one| one["essay_ids"].clone()).collect();
    assert_eq!(asked, [essays.clone(), json!([essays[2]]), json!([essays[0]])]);
}

async fn until_refused(server: &Server, count: u64) {
    let began = Instant::now();
    while server.app.engine().counters().refused_messages.load(Ordering::Relaxed) < count {
        assert!(began.elapsed() < PATIENCE, "message {count} was not refused");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_bus_takes_the_same_requests_through_the_same_rules() {
    let server = &Server::with_faults(nlp_fails_once()).await;
    let client = &server.client;
    let engine = server.app.engine();
    let batch = client.ready_batch(2).await;
    let start = request_message(Uuid::new_v4(), &batch, OWNER, "ai_feedback", false);
    engine.publish(start).await.expect("published");
    client.until_phase(&batch, "nlp", "failed").await;

    engine.publish(request_message(Uuid::new_v4(), &batch, "eve", "nlp", true)).await.expect("published");
    until_refused(server, 1).await;
    engine.publish(request_message(Uuid::new_v4(), &batch, OWNER, "ai_feedback", true)).await.expect("published");
    until_refused(server, 2).await;
    assert_eq!(client.attempts(&batch, "nlp").await.len(), 1, "a refused retry had an effect");

    let retry = request_message(Uuid::new_v4(), &batch, OWNER, "Nlp", true);
    engine.publish(retry.clone()).await.expect("published");
    let status = client.until(&batch, "completion", |status| status["status"] == "completed_successfully").await;
    assert_eq!(phase_status(&status, "ai_feedback"), "completed_successfully");
    let attempts = client.attempts(&batch, "nlp").await;
    assert_eq!((attempts.len(), &attempts[1]["reason"]), (2, &json!("from the bus")));

    let duplicates = || engine.counters().duplicates.load(Ordering::Relaxed);
    let before = duplicates();
    engine.publish(retry).await.expect("published");
    let began = Instant::now();
    while duplicates() == before {
        assert!(began.elapsed() < PATIENCE, "the duplicate was not recognised");
        tokio::task::yield_now().await;
    }
    assert_eq!(client.attempts(&batch, "nlp").await.len(), 2, "a duplicate had an effect");
}

#[tokio::test]
async fn a_pipeline_requested_on_the_bus_while_one_is_active_is_counted_and_has_no_effect() {
    let server = &Server::with_stuck_workers().await;
    let client = &server.client;
    let batch = client.ready_batch(1).await;
    client.pipeline(&batch, "nlp").await;
    let before = client.until_phase(&batch, "spellcheck", "in_progress").await;
    let engine = server.app.engine();
    engine.publish(request_message(Uuid::new_v4(), &batch, OWNER, "nlp", false)).await.expect("published");
    until_refused(server, 1).await;
    assert_eq!(client.status(&batch).await, before);
}

#[tokio::test]
async fn messages_that_cannot_be_read_are_refused_once_and_block_nobody() {
    let server = &Server::start(harness::Setup::default()).await;
    let engine = server.app.engine();
    let batch = server.client.ready_batch(1).await;
    for body in ["", "{}", "nonsense", "{\"event_type\": \"x\", \"source_service\": \"y\", \"data\": {}}"] {
        let topic = Topic::ElsBatchPhaseOutcome;
        let message = Message { topic, key: batch.clone(), headers: None, body: body.into() };
        engine.publish(message).await.expect("published");
    }
    until_refused(server, 4).await;
    engine.publish(request_message(Uuid::new_v4(), &batch, OWNER, "spellcheck", false)).await.expect("published");
    server.client.until_phase(&batch, "spellcheck", "completed_successfully").await;
}

#[tokio::test]
async fn pipeline_requests_with_is_retry_over_http_are_retries() {
    let Server { client, .. } = &Server::with_faults(nlp_fails_once()).await;
    let batch = batch_with_failed_nlp(client).await;
    let body = json!({ "requested_pipeline": "nlp", "is_retry": true, "retry_reason": "again" });
    let answer = client.post(&format!("/v1/batches/{batch}/pipelines"), body).await;
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("accepted")), "{}", answer.text);
    client.until_settled(&batch).await;
    let attempts = client.attempts(&batch, "nlp").await;
    assert_eq!((&attempts[1]["trigger"], &attempts[1]["reason"]), (&json!("user"), &json!("again")));
}

#[tokio::test]
async fn a_cancelled_pipeline_stops_and_what_somebody_brings_comes_too_late() {
    let server = &Server::with_stuck_workers().await;
    let client = &server.client;
    let batch = client.ready_batch(1).await;
    client.pipeline(&batch, "nlp").await;
    client.until_phase(&batch, "spellcheck", "in_progress").await;
    let path = format!("/v1/batches/{batch}/cancel");
    assert_eq!(client.as_user("eve").post(&path, json!({})).await.status, 403);
    let answer = client.post(&path, json!({ "reason": "wrong class" })).await;
    assert_eq!((answer.status, &answer.json()["phases"]), (200, &json!(["spellcheck", "nlp"])), "{}", answer.text);
    let status = client.status(&batch).await;
    assert_eq!((&status["status"], phase_status(&status, "nlp")), (&json!("cancelled"), "cancelled"));
    assert_eq!(client.post(&path, json!({})).await.status, 409);

    server.app.engine().publish(outcome_message(&batch, "spellcheck", 1)).await.expect("published");
    until_refused(server, 1).await;
    assert_eq!(client.status(&batch).await, status, "an outcome that came too late had an effect");
    let listed = client.get(&format!("/v1/batches/{batch}/phases/spellcheck/attempts")).await.json();
    assert_eq!(listed["attempts"][0]["outcome"], "cancelled");
    assert_eq!(listed["attempts"][0]["note"], "cancelled by teacher-7: wrong class");
    assert_eq!(listed["late_outcomes"][0]["attempt"], 1, "it is on record: {listed:#}");

    assert_eq!(client.retry(&batch, json!({ "phase_name": "spellcheck" })).await.status, 202);
    client.until_phase(&batch, "spellcheck", "in_progress").await;
    server.clock.advance(1_000);
    client.until_phase(&batch, "spellcheck", "completed_successfully").await;
    let listed = client.get(&format!("/v1/batches/{batch}/phases/spellcheck/attempts")).await.json();
    assert_eq!(listed["late_outcomes"].as_array().map(Vec::len), Some(1), "its worker was told and brought nothing");
}

#[tokio::test]
async fn attempts_come_a_page_at_a_time() {
    let Server { client, .. } = &Server::start(harness::Setup::default()).await;
    let batch = client.ready_batch(1).await;
    client.pipeline(&batch, "spellcheck").await;
    for _ in 0..4 {
        client.until_settled(&batch).await;
        client.retry(&batch, json!({ "phase_name": "spellcheck", "force": true })).await;
    }
    client.until_settled(&batch).await;
    let (mut from, mut seen) = (json!(0), Vec::new());
    while !from.is_null() {
        let page = client.get(&format!("/v1/batches/{batch}/phases/spellcheck/attempts?limit=2&from={from}")).await;
        let page = page.json();
        seen.extend(page["attempts"].as_array().expect("a list").iter().map(|attempt| attempt["attempt"].clone()));
        from = page["next_from"].clone();
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    for limit in ["0", "201", "x"] {
        let answer = client.get(&format!("/v1/batches/{batch}/phases/spellcheck/attempts?limit={limit}")).await;
        assert_eq!(answer.status, 400, "{limit}");
    }
}

#[tokio::test]
async fn status_says_since_when_a_phase_is_stuck() {
    let faults = json!([{ "phase": "spellcheck", "delay_ms": 3_600_000 }]);
    let Server { client, clock, .. } = &Server::with_faults(faults).await;
    let batch = client.ready_batch(1).await;
    client.pipeline(&batch, "spellcheck").await;
    client.until_phase(&batch, "spellcheck", "in_progress").await;
    assert_eq!(client.status(&batch).await["stuck_since"], Value::Null);
    clock.advance(450_000);
    assert_eq!(client.status(&batch).await["stuck_since"], "2026-03-02T08:37:30Z");
}

#[tokio::test]
async fn limits_are_answered_with_429_and_when_to_come_again() {
    let rules = Rules { max_user_retries: 1, retry_cooldown_ms: 1_500, ..harness::no_automatic_retry() };
    let setup = harness::Setup { rules, pipeline_limit: 2, ..harness::Setup::default() };
    let Server { client, clock, .. } = &Server::start(setup).await;
    let batch = client.ready_batch(1).await;
    client.pipeline(&batch, "spellcheck").await;
    client.until_settled(&batch).await;
    let retry = || client.retry(&batch, json!({ "phase_name": "spellcheck", "force": true }));
    assert_eq!(retry().await.status, 202);
    client.until_settled(&batch).await;
    let used_up = retry().await;
    assert_eq!((used_up.status, &used_up.json()["error_code"]), (429, &json!("RATE_LIMIT")), "{}", used_up.text);
    assert_eq!(used_up.header("ratelimit-policy"), "\"retries\";q=1");
    clock.advance(1_500);
    assert_eq!(retry().await.status, 429, "waiting does not help");

    client.pipeline(&batch, "spellcheck").await;
    let third = client.pipeline(&batch, "spellcheck").await;
    assert_eq!((third.status, third.header("ratelimit-policy")), (429, "\"pipelines\";q=2"), "{}", third.text);
    let wait_s: u64 = third.header("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&wait_s), "{wait_s}");
    assert_eq!(
        client.as_user("eve").pipeline(&batch, "spellcheck").await.status,
        403,
        "everybody has a limit of his own"
    );
}

#[tokio::test]
async fn a_cooldown_says_how_long_it_is() {
    let rules = Rules { retry_cooldown_ms: 1_500, ..harness::no_automatic_retry() };
    let Server { client, clock, .. } = &Server::start(harness::Setup { rules, ..harness::Setup::default() }).await;
    let batch = client.ready_batch(1).await;
    client.pipeline(&batch, "spellcheck").await;
    client.until_settled(&batch).await;
    let retry = || client.retry(&batch, json!({ "phase_name": "spellcheck", "force": true }));
    assert_eq!(retry().await.status, 202);
    client.until_settled(&batch).await;
    let early = retry().await;
    assert_eq!((early.status, early.header("retry-after")), (429, "2"), "{}", early.text);
    assert_eq!(early.header("ratelimit"), "\"retries\";r=0;t=2");
    clock.advance(1_500);
    assert_eq!(retry().await.status, 202);
}
