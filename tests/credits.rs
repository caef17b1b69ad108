//! The promise "a pipeline is paid for once, and nobody pays what they do not have".

mod common;
mod harness;
#[path = "notifications/listener.rs"]
mod listener;

use std::path::Path;
use std::sync::Arc;

use common::fixtures::assert_valid;
use harness::{
    Answer, Client, OWNER, Process, Server, Setup, essays_body, kept, registration, request_message, verify,
};
use listener::Socket;
use rephase::app;
use rephase::clock::ManualClock;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

const SCHOOL: &str = "/internal/v1/credits/organisations/school-1";
const TEACHER: &str = "/internal/v1/credits/users/teacher-7";

fn setup(credits: Value) -> Setup {
    Setup { credits, ..Setup::default() }
}

async fn server(credits: Value) -> Server {
    Server::start(setup(credits)).await
}

/// A batch of the owner in the school, ready for a pipeline.
async fn school_batch(client: &Client, essays: usize) -> String {
    let mut body = registration(essays);
    body["org_id"] = json!("school-1");
    let registered = client.post("/v1/batches/register", body).await.json();
    let batch = registered["batch_id"].as_str().expect("an id").to_owned();
    let sent = client.post(&format!("/v1/batches/{batch}/essays"), essays_body(essays)).await;
    assert_eq!(sent.status, 202, "{}", sent.text);
    batch
}

async fn put(client: &Client, path: &str, body: &Value) -> Answer {
    Client::send(client.request(Method::PUT, path).json(body)).await
}

async fn left(client: &Client, path: &str) -> (Value, Value) {
    let balance = client.get(path).await.json();
    (balance["credits"].clone(), balance["charged"].clone())
}

async fn preflight(client: &Client, batch: &str, phase: &str) -> Answer {
    let path = format!("/internal/v1/batches/{batch}/pipelines/{phase}/preflight");
    Client::send(client.as_nobody().request(Method::POST, &path)).await
}

/// What was published under this name, envelopes as they were.
fn published(events: &mut rephase_events::Watch, name: &str) -> Vec<Value> {
    let mut found = Vec::new();
    while let Ok(message) = events.try_recv() {
        if message.topic.as_str() == name {
            found.push(serde_json::from_slice(&message.body).expect("JSON"));
        }
    }
    found
}

/// What a watcher of the bus is.
mod rephase_events {
    pub type Watch = tokio::sync::broadcast::Receiver<rephase::contract::Message>;
}

const DENIED: &str = "huleedu.pipeline.denied.v1";

#[tokio::test]
async fn a_preflight_says_what_it_costs_and_whether_it_would_be_let_through() {
    let server = server(json!({ "users": { OWNER: 5 }, "organisations": { "school-1": 6, "free": null } })).await;
    let client = &server.client;
    let own = client.ready_batch(4).await;
    let schools = school_batch(client, 4).await;
    let ten = client.ready_batch(10).await;
    let strangers = client.as_user("eve");
    let mut body = registration(4);
    body["user_id"] = json!("eve");
    let unlimited = strangers.post("/v1/batches/register", body).await.json();
    let unlimited = unlimited["batch_id"].as_str().expect("an id");
    let (comparisons, feedback) = (json!({ "cj_comparison": 6 }), json!({ "ai_feedback_generation": 4 }));
    for (batch, phase, status, required, available, breakdown) in [
        (own.as_str(), "spellcheck", 200, 0, 5, json!({})),
        (&own, "nlp", 200, 0, 5, json!({})),
        (&own, "AI_Feedback", 200, 4, 5, feedback.clone()),
        (&own, "cj_assessment", 402, 6, 5, comparisons.clone()),
        (&schools, "cj_assessment", 200, 6, 6, comparisons.clone()),
        (&ten, "cj_assessment", 402, 45, 5, json!({ "cj_comparison": 45 })),
        // Nobody pays for it, and it is judged before its essays are there.
        (unlimited, "cj_assessment", 200, 6, 1_000_000_000_000_u64, comparisons.clone()),
    ] {
        let answer = preflight(client, batch, phase).await;
        let body = answer.json();
        assert_eq!(answer.status, status, "{batch} {phase}: {}", answer.text);
        assert_eq!(body["allowed"], status == 200);
        assert_eq!(body["batch_id"], batch);
        assert_eq!(body["requested_pipeline"], phase.to_ascii_lowercase());
        assert_eq!((&body["required_credits"], &body["available_credits"]), (&json!(required), &json!(available)));
        assert_eq!(body["resource_breakdown"], breakdown);
        assert_eq!(body["correlation_id"], answer.header("x-correlation-id"));
        let reason = if status == 402 { json!("insufficient_credits") } else { Value::Null };
        assert_eq!(body["denial_reason"], reason);
        assert_eq!(body["error"].is_string(), status != 200);
    }
    let body = preflight(client, &own, "ai_feedback").await.json();
    assert_eq!(body["resolved_pipeline"], json!(["spellcheck", "nlp", "ai_feedback"]));
    for (batch, phase, status, code) in [
        (own.as_str(), "comprehensive", 400, "VALIDATION_ERROR"),
        (&own, "student_matching", 400, "VALIDATION_ERROR"),
        ("3f0e6f8a-52a5-4a55-9d3c-0d6a4f7f9b10", "nlp", 404, "RESOURCE_NOT_FOUND"),
        ("nonsense", "nlp", 404, "RESOURCE_NOT_FOUND"),
    ] {
        let answer = preflight(client, batch, phase).await;
        assert_eq!((answer.status, &answer.json()["error_code"]), (status, &json!(code)), "{batch} {phase}");
    }
    // It charged for nothing.
    assert_eq!(left(client, TEACHER).await, (json!(5), json!(0)));
    // What has completed costs nothing again, and is left out.
    assert_eq!(client.pipeline(&own, "ai_feedback").await.status, 202);
    client.until_settled(&own).await;
    let body = preflight(client, &own, "ai_feedback").await.json();
    assert_eq!((&body["required_credits"], &body["resolved_pipeline"]), (&json!(0), &json!([])));
    assert_eq!(left(client, TEACHER).await, (json!(1), json!(4)));
}

#[tokio::test]
async fn a_pipeline_that_cannot_be_paid_is_denied_told_and_changes_nothing() {
    let server = server(json!({ "organisations": { "school-1": 5 } })).await;
    let client = &server.client;
    let batch = school_batch(client, 4).await;
    let before = client.status(&batch).await;
    let mut socket = Socket::of(&server.app, OWNER).await;
    let mut events = server.app.engine().bus().watch();
    let answer = client.pipeline(&batch, "cj_assessment").await;
    let body = answer.json();
    assert_eq!((answer.status, answer.header("content-type")), (402, "application/problem+json"));
    assert_eq!(
        (&body["error_code"], &body["denial_reason"]),
        (&json!("INSUFFICIENT_CREDITS"), &json!("insufficient_credits"))
    );
    assert_eq!((&body["required_credits"], &body["available_credits"]), (&json!(6), &json!(5)));
    assert_eq!(body["resource_breakdown"], json!({ "cj_comparison": 6 }));

    let heard = socket.event().await;
    assert_eq!(heard["event"], "pipeline_denied_insufficient_credits");
    let data = &heard["data"];
    for (member, value) in [
        ("batch_id", json!(batch)),
        ("credit_deficit", json!(1)),
        ("required_credits", json!(6)),
        ("available_credits", json!(5)),
        ("priority", json!("immediate")),
        ("action_required", json!(true)),
        ("correlation_id", body["correlation_id"].clone()),
    ] {
        assert_eq!(data[member], value, "{member}");
    }
    let told = published(&mut events, DENIED);
    assert_eq!(told.len(), 1);
    assert_valid("EventEnvelope", &told[0], "the denial");
    assert_valid("PipelineDeniedV1", &told[0]["data"], "the denial");
    assert_eq!(told[0]["source_service"], "batch_orchestrator_service");
    assert_eq!((&told[0]["data"]["batch_id"], &told[0]["data"]["org_id"]), (&json!(batch), &json!("school-1")));
    assert_eq!(client.status(&batch).await, before);
    assert_eq!(left(client, SCHOOL).await, (json!(5), json!(0)));

    // What is free runs, and with one credit more so does the rest.
    let more = client.post(&format!("{SCHOOL}/adjust"), json!({ "credits": 1 })).await;
    assert_eq!((more.status, &more.json()["credits"]), (200, &json!(6)), "{}", more.text);
    assert_eq!(client.pipeline(&batch, "cj_assessment").await.status, 202);
    client.until_settled(&batch).await;
    assert_eq!(left(client, SCHOOL).await, (json!(0), json!(6)));
    assert_eq!(client.get(TEACHER).await.status, 404, "the school pays, so nobody asked the teacher");
}

#[tokio::test]
async fn a_request_that_came_as_an_event_is_denied_too_and_is_no_dead_letter() {
    let server = server(json!({ "users": { OWNER: 5 } })).await;
    let client = &server.client;
    let batch = client.ready_batch(4).await;
    let mut socket = Socket::of(&server.app, OWNER).await;
    let mut events = server.app.engine().bus().watch();
    let message = request_message(Uuid::new_v4(), &batch, OWNER, "cj_assessment", false);
    let envelope: Value = serde_json::from_slice(&message.body).expect("JSON");
    for is_duplicate in [false, true] {
        let answer = client.post("/v1/events", envelope.clone()).await;
        assert_eq!((answer.status, &answer.json()["duplicate"]), (202, &json!(is_duplicate)), "{}", answer.text);
    }
    let heard = socket.event().await;
    assert_eq!(heard["event"], "pipeline_denied_insufficient_credits");
    // As the bus may: what was denied is used up.
    server.app.engine().publish(message).await.expect("sent");
    let paid = request_message(Uuid::new_v4(), &batch, OWNER, "ai_feedback", false);
    server.app.engine().publish(paid).await.expect("sent");
    client.until_phase(&batch, "ai_feedback", "completed_successfully").await;
    assert_eq!(published(&mut events, DENIED).len(), 1);
    assert_eq!(client.get("/internal/v1/dead-letters").await.json()["dead_letters"], json!([]));
    assert_eq!(left(client, TEACHER).await, (json!(1), json!(4)));
}

#[tokio::test]
async fn one_too_many_in_a_minute_is_told_no_more_often_than_it_could_be_asked() {
    let server = Server::start(Setup { pipeline_limit: 2, ..setup(json!({ "users": { OWNER: 100 } })) }).await;
    let client = &server.client;
    let batch = client.ready_batch(4).await;
    for _ in 0..4 {
        // It counts as none.
        assert_eq!(preflight(client, &batch, "cj_assessment").await.status, 200);
    }
    for phase in ["cj_assessment", "nlp"] {
        assert_eq!(client.pipeline(&batch, phase).await.status, 202);
        client.until_settled(&batch).await;
    }
    let mut socket = Socket::of(&server.app, OWNER).await;
    let mut events = server.app.engine().bus().watch();
    for _ in 0..5 {
        let answer = client.pipeline(&batch, "ai_feedback").await;
        assert_eq!((answer.status, &answer.json()["error_code"]), (429, &json!("RATE_LIMIT")));
        assert_eq!(answer.header("ratelimit-policy"), "\"pipelines\";q=2");
        assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| (1..=60).contains(&seconds)));
    }
    let heard = socket.event().await;
    assert_eq!(heard["event"], "pipeline_denied_rate_limit");
    assert_eq!(
        (&heard["data"]["denial_reason"], &heard["data"]["credit_deficit"]),
        (&json!("rate_limit_exceeded"), &json!(0))
    );
    let told = published(&mut events, DENIED);
    assert_eq!(told.len(), 2);
    assert_valid("PipelineDeniedV1", &told[0]["data"], "the denial");
    assert_eq!(told[0]["data"]["denial_reason"], "rate_limit_exceeded");
    assert_eq!(told[0]["data"]["requested_pipeline"], "ai_feedback");

    let refused = preflight(client, &batch, "ai_feedback").await;
    let body = refused.json();
    assert_eq!(
        (refused.status, &body["allowed"], &body["denial_reason"]),
        (429, &json!(false), &json!("rate_limit_exceeded"))
    );
    assert_eq!((&body["resolved_pipeline"], &body["required_credits"]), (&json!(["ai_feedback"]), &json!(4)));
    // Another user has asked for nothing yet, and hears nothing of a batch that is not theirs.
    assert_eq!(client.as_user("eve").pipeline(&batch, "nlp").await.status, 403);
}

#[tokio::test]
async fn a_pipeline_is_charged_once_and_a_retry_never() {
    let faults = json!([
        { "phase": "ai_feedback", "attempts": [1, 2], "error_code": "TIMEOUT", "category": "permanent" },
        { "phase": "cj_assessment", "attempts": [1], "error_code": "TIMEOUT", "category": "transient", "retry_after_ms": 1 },
    ]);
    let rules = rephase::domain::Rules::default();
    let server = Server::start(Setup { faults, rules, ..setup(json!({ "users": { OWNER: 100 } })) }).await;
    let client = &server.client;
    let batch = client.ready_batch(4).await;
    let path = format!("/v1/batches/{batch}/pipelines");
    let once = || {
        let request = client.request(Method::POST, &path).header("Idempotency-Key", "once");
        Client::send(request.json(&json!({ "requested_pipeline": "ai_feedback" })))
    };
    let (first, again) = (once().await, once().await);
    assert_eq!((first.status, again.status, &again.text), (202, 202, &first.text));
    client.until_phase(&batch, "ai_feedback", "failed").await;
    assert_eq!(once().await.status, 202);
    assert_eq!(left(client, TEACHER).await, (json!(96), json!(4)));

    let retried = client.retry(&batch, json!({ "phase_name": "ai_feedback" })).await;
    assert_eq!(retried.status, 202, "{}", retried.text);
    client.until_phase(&batch, "ai_feedback", "failed").await;
    client.until_settled(&batch).await;
    let is_retry = json!({ "requested_pipeline": "ai_feedback", "is_retry": true });
    assert_eq!(client.post(&path, is_retry).await.status, 202);
    client.until_phase(&batch, "ai_feedback", "completed_successfully").await;
    client.until_settled(&batch).await;
    let bulk = json!({ "filter": {}, "phase": "ai_feedback" });
    assert_eq!(client.post("/v1/retry-jobs", bulk).await.status, 202);
    assert_eq!(left(client, TEACHER).await, (json!(96), json!(4)));

    // The same event, through the gateway and by the bus.
    let message = request_message(Uuid::new_v4(), &batch, OWNER, "cj_assessment", false);
    let envelope: Value = serde_json::from_slice(&message.body).expect("JSON");
    for _ in 0..3 {
        assert_eq!(client.post("/v1/events", envelope.clone()).await.status, 202);
        server.app.engine().publish(message.clone()).await.expect("sent");
    }
    // Tried again by itself on the way.
    client.until_phase(&batch, "cj_assessment", "in_progress").await;
    while client.attempts(&batch, "cj_assessment").await.len() < 2 {
        server.clock.advance(60_000);
        tokio::task::yield_now().await;
    }
    client.until_phase(&batch, "cj_assessment", "completed_successfully").await;
    assert_eq!(left(client, TEACHER).await, (json!(90), json!(10)));
}

/// Asks for a comparison of each of these batches at once, and answers how many were accepted.
async fn ask_for_all(client: &Client, batches: &[String]) -> usize {
    let mut asked = JoinSet::new();
    for batch in batches {
        let (client, batch) = (client.clone(), batch.clone());
        asked.spawn(async move { client.pipeline(&batch, "cj_assessment").await.status });
    }
    let statuses = asked.join_all().await;
    assert!(statuses.iter().all(|status| [202, 402].contains(status)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 202).count()
}

#[tokio::test]
async fn many_at_once_never_overdraw_and_no_change_by_hand_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let credits = json!({ "organisations": { "school-1": 60 } });
    let server = Server::start(Setup { data: kept(directory.path()), ..setup(credits) }).await;
    let client = &server.client;
    let mut batches = Vec::new();
    for _ in 0..32 {
        batches.push(school_batch(client, 4).await);
    }
    // Ten of thirty-two can be paid, and there are as many partitions as cores.
    assert_eq!(ask_for_all(client, &batches).await, 10);
    assert_eq!(left(client, SCHOOL).await, (json!(0), json!(60)));

    // While others pay, credits are given and taken in small steps; none of it is lost.
    let mut rest = Vec::new();
    for batch in batches {
        if client.status(&batch).await["status"] == "ready" {
            rest.push(batch);
        }
    }
    let hands = (0..8).map(|hand| {
        let client = client.clone();
        tokio::spawn(async move {
            for step in 0..10 {
                let credits = if (hand + step) % 3 == 2 { -1 } else { 3 };
                let key = format!("{hand}/{step}");
                let path = format!("{SCHOOL}/adjust");
                let request = || client.request(Method::POST, &path).header("Idempotency-Key", &key);
                let mut given = Client::send(request().json(&json!({ "credits": credits }))).await;
                if given.status == 409 && credits < 0 {
                    given = Client::send(client.request(Method::POST, &path).json(&json!({ "credits": 0 }))).await;
                    assert_eq!(given.status, 200, "{}", given.text);
                    continue;
                }
                assert_eq!(given.status, 200, "{}", given.text);
                let again = Client::send(request().json(&json!({ "credits": credits }))).await;
                assert_eq!((again.status, again.header("idempotent-replayed")), (200, "true"));
                GIVEN.fetch_add(credits, std::sync::atomic::Ordering::Relaxed);
            }
        })
    });
    let hands: Vec<_> = hands.collect();
    let mut accepted = 0;
    while !hands.iter().all(tokio::task::JoinHandle::is_finished) {
        accepted += ask_for_all_left(client, &rest).await;
    }
    for hand in hands {
        hand.await.expect("it gave");
    }
    // Whatever was given can be spent, to the last pipeline that it pays.
    accepted += ask_for_all_left(client, &rest).await;
    let given = GIVEN.load(std::sync::atomic::Ordering::Relaxed);
    let spent = i64::try_from(accepted).expect("few") * 6;
    assert_eq!(left(client, SCHOOL).await, (json!(given - spent), json!(60 + spent)));
    assert!(accepted == rest.len() || given - spent < 6, "{given} were given and {spent} spent");
    server.app.stop().await;
    verify(directory.path());
}

static GIVEN: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);

/// As [`ask_for_all`], where some have been accepted before.
async fn ask_for_all_left(client: &Client, batches: &[String]) -> usize {
    let mut left = Vec::new();
    for batch in batches {
        if client.status(batch).await["status"] == "ready" {
            left.push(batch.clone());
        }
    }
    ask_for_all(client, &left).await
}

fn credits_file(directory: &Path, credits: &Value) -> String {
    let path = directory.join("credits.json");
    std::fs::write(&path, credits.to_string()).expect("written");
    path.to_str().expect("a path").to_owned()
}

#[tokio::test]
async fn what_was_charged_survives_kill_9_and_is_charged_no_second_time() {
    let elsewhere = tempfile::tempdir().expect("a directory");
    let file = credits_file(elsewhere.path(), &json!({ "organisations": { "school-1": 1_000 } }));
    let data = elsewhere.path().join("data");
    let arguments = ["--data-dir", data.to_str().expect("a path"), "--credits", &file, "--pipeline-limit", "0"];
    let process = Process::serve(&arguments);
    let mut batches = Vec::new();
    for _ in 0..24 {
        batches.push(school_batch(&process.client, 4).await);
    }
    let mut paid = 0;
    let message = request_message(Uuid::new_v4(), &batches[0], OWNER, "ai_feedback", false);
    let envelope: Value = serde_json::from_slice(&message.body).expect("JSON");
    assert_eq!(process.client.post("/v1/events", envelope.clone()).await.status, 202);
    process.client.until_phase(&batches[0], "ai_feedback", "completed_successfully").await;
    let mut process = process;
    // Killed in the middle of a third of the requests each time; whoever got no answer asks again, with the same key.
    for round in batches[1..].chunks(8) {
        let mut asked = JoinSet::new();
        for batch in round {
            let (client, batch) = (process.client.clone(), batch.clone());
            asked.spawn(async move { ask(&client, &batch).await });
        }
        let _ = asked.join_next().await;
        process.kill();
        asked.join_all().await;
        verify(&data);
        process = Process::serve(&arguments);
        for batch in round {
            let again = ask(&process.client, batch).await.expect("it is there again");
            assert_eq!(again.status, 202, "{}", again.text);
            paid += 6;
        }
        assert_eq!(process.client.post("/v1/events", envelope.clone()).await.json()["duplicate"], true);
        let expected = (json!(1_000 - 4 - paid), json!(4 + paid));
        assert_eq!(left(&process.client, SCHOOL).await, expected, "the file gives nothing to who has a balance");
    }
    assert_eq!(paid, 23 * 6);
    process.kill();
    verify(&data);
}

async fn ask(client: &Client, batch: &str) -> Option<Answer> {
    let request = client.request(Method::POST, &format!("/v1/batches/{batch}/pipelines"));
    let request = request.header("Idempotency-Key", batch).json(&json!({ "requested_pipeline": "cj_assessment" }));
    Client::try_send(request).await.ok()
}

#[tokio::test]
async fn balances_are_read_and_changed_by_hand_within_their_bounds() {
    let server = server(json!({ "users": { OWNER: 10 }, "organisations": { "school-1": null } })).await;
    let client = &server.client.as_nobody();
    let teacher = client.get(TEACHER).await.json();
    let expected =
        json!({ "type": "user", "id": OWNER, "credits": 10, "charged": 0, "changed_at": "2026-03-02T08:30:00Z" });
    assert_eq!(teacher, expected);
    assert_eq!(left(client, SCHOOL).await.0, Value::Null);

    let (set, adjust) = (Method::PUT, Method::POST);
    for (method, path, body, status, said) in [
        (&set, TEACHER, json!({}), 400, "credits"),
        (&set, TEACHER, json!({ "credits": -1 }), 400, "credits"),
        (&set, TEACHER, json!({ "credits": "9" }), 400, "credits"),
        (&set, TEACHER, json!({ "credits": 1.5 }), 400, "credits"),
        (&set, TEACHER, json!({ "credits": 1_000_000_000_001_u64 }), 400, "at most 1000000000000"),
        (&set, TEACHER, json!({ "credits": 1, "more": 1 }), 400, "more"),
        (&set, "/internal/v1/credits/users/%20", json!({ "credits": 1 }), 400, "id"),
        (&set, "/internal/v1/credits/schools/x", json!({ "credits": 1 }), 404, "users and of organisations"),
        (&adjust, TEACHER, json!({ "credits": -11 }), 409, "10 credits are left"),
        (&adjust, TEACHER, json!({ "credits": 1_000_000_000_000_u64 }), 409, "10 credits are left"),
        (&adjust, TEACHER, json!({ "credits": i64::MIN }), 409, "10 credits are left"),
        (&adjust, TEACHER, json!({ "credits": i64::MAX }), 409, "10 credits are left"),
        (&adjust, SCHOOL, json!({ "credits": 1 }), 409, "unlimited"),
        (&adjust, "/internal/v1/credits/users/eve", json!({ "credits": 1 }), 404, "no such balance"),
    ] {
        let path = if *method == adjust { format!("{path}/adjust") } else { path.to_owned() };
        let answer = Client::send(client.request(method.clone(), &path).json(&body)).await;
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text);
        assert!(error.contains(said), "{path} {body}: {error}");
    }
    let long = format!("/internal/v1/credits/users/{}", "x".repeat(256));
    assert_eq!(put(client, &long, &json!({ "credits": 1 })).await.status, 400);
    assert_eq!(client.get(TEACHER).await.json(), expected, "what is refused changes nothing");

    assert_eq!(put(client, TEACHER, &json!({ "credits": null })).await.json()["credits"], Value::Null);
    assert_eq!(put(client, TEACHER, &json!({ "credits": 7 })).await.json()["credits"], 7);
    assert_eq!(put(client, TEACHER, &json!({ "credits": 3 })).await.json()["credits"], 3);
    assert_eq!(put(client, SCHOOL, &json!({ "credits": 5 })).await.json()["credits"], 5);
    assert_eq!(put(client, "/internal/v1/credits/users/a%2Fb", &json!({ "credits": 1 })).await.json()["id"], "a/b");
    assert_eq!(left(client, TEACHER).await.0, 3);

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/internal/v1/credits?limit=1{cursor}")).await.json();
        let balances = page["balances"].as_array().expect("a list");
        assert!(balances.len() <= 1);
        seen.extend(balances.iter().map(|balance| balance["id"].clone()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={}", next.replace('/', "%2F"));
    }
    assert_eq!(seen, ["a/b", OWNER, "school-1"]);
    for query in ["?limit=0", "?limit=201", "?cursor=x", "?nonsense=1"] {
        assert_eq!(client.get(&format!("/internal/v1/credits{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn an_unlimited_balance_is_limited_and_freed_again_while_others_pay() {
    let server = server(json!({ "organisations": { "school-1": 12 } })).await;
    let client = &server.client;
    let mut batches = Vec::new();
    for _ in 0..4 {
        batches.push(school_batch(client, 4).await);
    }
    assert_eq!(client.pipeline(&batches[0], "cj_assessment").await.status, 202);
    put(client, SCHOOL, &json!({ "credits": null })).await;
    // Free, so that it is not counted as charged either.
    assert_eq!(client.pipeline(&batches[1], "cj_assessment").await.status, 202);
    assert_eq!(put(client, SCHOOL, &json!({ "credits": 7 })).await.json()["credits"], 7);
    assert_eq!(client.pipeline(&batches[2], "cj_assessment").await.status, 202);
    assert_eq!(client.pipeline(&batches[3], "cj_assessment").await.status, 402);
    assert_eq!(left(client, SCHOOL).await, (json!(1), json!(12)));
}

#[tokio::test]
async fn a_restart_a_reset_and_a_snapshot_keep_what_they_should() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new(harness::START);
    let setup = |credits| Setup { data: kept(directory.path()), ..setup(credits) };
    let first = json!({ "users": { OWNER: 10 } });
    let app = harness::start_app(setup(first.clone()), clock.clock()).await.expect("it starts");
    let client = Client::new(&format!("http://{}", app.address()));
    let batch = client.ready_batch(4).await;
    assert_eq!(client.pipeline(&batch, "ai_feedback").await.status, 202);
    client.until_settled(&batch).await;
    put(&client, "/internal/v1/credits/users/freed", &json!({ "credits": null })).await;
    app.stop().await;
    let again = json!({ "users": { OWNER: 10, "freed": 1, "eve": 3 } });
    let app = harness::start_app(setup(again), clock.clock()).await.expect("it starts again");
    let client = Client::new(&format!("http://{}", app.address()));
    assert_eq!(left(&client, TEACHER).await, (json!(6), json!(4)), "a balance that is there stays");
    assert_eq!(left(&client, "/internal/v1/credits/users/eve").await, (json!(3), json!(0)));
    assert_eq!(left(&client, "/internal/v1/credits/users/freed").await.0, Value::Null);
    app.stop().await;

    let process = Process::serve(&["--ephemeral", "--test-api", "--credits", &credits_file(directory.path(), &first)]);
    let client = &process.client;
    let batch = client.ready_batch(4).await;
    assert_eq!(client.pipeline(&batch, "ai_feedback").await.status, 202);
    let snapshot = client.get("/_test/snapshot").await.text;
    assert_eq!(client.post("/_test/reset", json!({})).await.status, 200);
    assert_eq!(left(client, TEACHER).await, (json!(10), json!(0)));
    let restored = Client::send(client.request(Method::PUT, "/_test/snapshot").body(snapshot)).await;
    assert_eq!(restored.status, 200, "{}", restored.text);
    assert_eq!(left(client, TEACHER).await, (json!(6), json!(4)));
}

#[tokio::test]
async fn a_backup_has_the_balances_and_what_was_charged() {
    let (original, elsewhere) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let credits = json!({ "organisations": { "school-1": 10 } });
    let server = Server::start(Setup { data: kept(original.path()), ..setup(credits) }).await;
    let batch = school_batch(&server.client, 4).await;
    assert_eq!(server.client.pipeline(&batch, "cj_assessment").await.status, 202);
    let lines = server.client.get("/internal/v1/backup").await.text;
    let charge = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let charge = charge.into_iter().find(|line| line["kind"] == "charge").expect("it was charged");
    assert!(charge["key"].as_str().is_some_and(|key| key.starts_with(&batch.replace('-', ""))), "{charge}");
    assert_eq!((&charge["value"]["account"], &charge["value"]["cj_comparisons"]), (&json!("school-1"), &json!(6)));
    server.app.stop().await;

    let (file, directory) = (elsewhere.path().join("backup.jsonl"), elsewhere.path().join("restored"));
    std::fs::write(&file, lines).expect("written");
    let restored = app::restore(&directory, &file).expect("it is whole");
    assert_eq!((restored.checked.balances, restored.checked.charges), (1, 1));
    let server = Server::start(Setup { data: kept(&directory), ..Setup::default() }).await;
    assert_eq!(left(&server.client, SCHOOL).await, (json!(4), json!(6)));
    server.app.stop().await;
}

#[tokio::test]
async fn what_is_removed_with_its_batch_stays_charged() {
    let directory = tempfile::tempdir().expect("a directory");
    let setup = setup(json!({ "users": { OWNER: 10 } }));
    let day_ms = 86_400_000;
    let server = Server::start(Setup { data: kept(directory.path()), retain_ms: Some(day_ms), ..setup }).await;
    let batch = server.client.ready_batch(4).await;
    assert_eq!(server.client.pipeline(&batch, "ai_feedback").await.status, 202);
    server.client.until_settled(&batch).await;
    server.clock.advance(2 * day_ms);
    server.app.engine().sweep().await.expect("swept");
    assert_eq!(server.client.get(&format!("/v1/batches/{batch}/status")).await.status, 404);
    assert_eq!(left(&server.client, TEACHER).await, (json!(6), json!(4)));
    server.app.stop().await;
    let checked = app::verify(directory.path(), &mut |said| panic!("{said}")).expect("it can be read");
    assert_eq!((checked.balances, checked.charges), (1, 0));
}

#[tokio::test]
async fn a_fixture_has_credits_too() {
    let credits = rephase::domain::Balances::parse(&json!({ "users": { OWNER: 4 } }).to_string()).expect("balances");
    let fixture = rephase::Fixture::builder().credits(credits).start().await.expect("it starts");
    let teacher = Arc::new(fixture.client(OWNER));
    for _ in 0..2 {
        let (one, other) = (teacher.ready_batch(4).await.expect("ready"), teacher.ready_batch(4).await.expect("ready"));
        teacher.pipeline(one, rephase::domain::Phase::AiFeedback).await.expect("paid");
        let denied = teacher.pipeline(other, rephase::domain::Phase::AiFeedback).await.expect_err("nothing is left");
        assert!(matches!(denied, rephase::fixture::Error::Refused { status: 402, .. }), "{denied}");
        fixture.reset().await.expect("empty");
    }
    fixture.end().await;
}

#[test]
fn a_file_that_is_none_is_refused_before_anything_starts() {
    let elsewhere = tempfile::tempdir().expect("a directory");
    let data = elsewhere.path().join("data");
    for (credits, said) in [(json!({ "users": { "a": -1 } }), "-1"), (json!([]), "cannot be used")] {
        let file = credits_file(elsewhere.path(), &credits);
        let command = Process::command(&["--data-dir", data.to_str().expect("a path"), "--credits", &file]);
        let (code, _, errors) = harness::run(command);
        assert!(code == 2 && errors.contains(said), "{code} {errors}");
    }
    assert!(!data.exists());
}
