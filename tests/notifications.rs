//! The promise "a user who listens hears what becomes of the own batches, in order, and of nobody else's".

mod common;
mod harness;
#[path = "notifications/listener.rs"]
mod listener;

use common::fixtures::{assert_valid, json as fixture};
use harness::{Client, OWNER, START, Server, Setup};
use listener::{Socket, Stream};
use rephase::contract::{Message, Topic};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// An event in short: its type, and what it is about.
fn short(event: &Value) -> String {
    let (kind, data) = (event["event"].as_str().expect("a type"), &event["data"]);
    let about = ["phase", "status", "final_status"].map(|name| data[name].as_str().unwrap_or_default());
    [&[kind], &about[..]].concat().join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shorts(events: &[Value]) -> Vec<String> {
    events.iter().map(short).collect()
}

fn permanent(phase: &str) -> Value {
    json!([{ "phase": phase, "attempts": [1], "error_code": "NLP_SERVICE_ERROR", "category": "permanent" }])
}

async fn request_pipeline(client: &Client, batch: &str, phase: &str) -> Uuid {
    let correlation_id = Uuid::new_v4();
    let request = client.request(Method::POST, &format!("/v1/batches/{batch}/pipelines"));
    let request = request.header("X-Correlation-ID", correlation_id.to_string());
    let accepted = Client::send(request.json(&json!({ "requested_pipeline": phase }))).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    correlation_id
}

#[tokio::test]
async fn a_pipeline_is_heard_from_its_start_to_its_end() {
    let Server { client, app, .. } = &Server::start(Setup::default()).await;
    let mut socket = Socket::of(app, OWNER).await;
    let batch = client.ready_batch(2).await;
    let correlation_id = request_pipeline(client, &batch, "ai_feedback").await;
    let events = socket.events(5).await;
    let expected = [
        "batch_processing_started",
        "batch_phase_concluded spellcheck completed_successfully",
        "batch_phase_concluded nlp completed_successfully",
        "batch_phase_concluded ai_feedback completed_successfully",
        "pipeline_completed completed_successfully",
    ];
    assert_eq!(shorts(&events), expected);
    // What is heard can be read.
    assert_eq!(client.status(&batch).await["status"], "completed_successfully");

    let said = |payload: Value, priority: &str| {
        let mut said = payload;
        let own = json!({
            "batch_id": batch, "category": "batch_progress", "priority": priority, "action_required": false,
            "deadline": null, "class_id": null, "correlation_id": correlation_id, "timestamp": "2026-03-02T08:30:00Z",
        });
        said.as_object_mut().expect("an object").extend(own.as_object().expect("an object").clone());
        said
    };
    let started = json!({
        "requested_pipeline": "ai_feedback", "resolved_pipeline": ["spellcheck", "nlp", "ai_feedback"],
        "first_phase": "spellcheck", "total_phases": 3, "message": "Processing started: Initiating spellcheck phase",
    });
    assert_eq!(events[0]["data"], said(started, "low"));
    let concluded = json!({
        "batch_id": batch, "phase": "nlp", "status": "completed_successfully", "timestamp": "2026-03-02T08:30:00Z",
        "correlation_id": correlation_id,
    });
    assert_eq!(events[2]["data"], concluded);
    let completed = json!({
        "final_status": "completed_successfully", "completed_phases": ["spellcheck", "nlp", "ai_feedback"],
        "successful_essays": 2, "failed_essays": 0, "duration_seconds": 0.0,
        "message": "Pipeline completed successfully: completed_successfully",
    });
    assert_eq!(events[4]["data"], said(completed, "high"));

    // What is complete is left out; of a pipeline of which all is, nothing starts.
    request_pipeline(client, &batch, "cj_assessment").await;
    let events = socket.events(3).await;
    assert_eq!(events[0]["data"]["resolved_pipeline"], json!(["cj_assessment"]));
    request_pipeline(client, &batch, "cj_assessment").await;
    assert_eq!(shorts(&socket.events(1).await), ["pipeline_completed completed_successfully"]);
}

#[tokio::test]
async fn a_failure_and_its_retry_are_heard() {
    let Server { client, app, .. } = &Server::with_faults(permanent("nlp")).await;
    let batch = client.ready_batch(2).await;
    let mut socket = Socket::of(app, OWNER).await;
    let mut stream = Stream::open(client).await;
    request_pipeline(client, &batch, "ai_feedback").await;
    let events = socket.events(4).await;
    let expected = [
        "batch_processing_started",
        "batch_phase_concluded spellcheck completed_successfully",
        "batch_phase_concluded nlp failed_critically",
        "pipeline_completed completed_with_failures",
    ];
    assert_eq!(shorts(&events), expected, "what was skipped has not begun");
    let end = &events[3]["data"];
    assert_eq!((&end["priority"], &end["action_required"]), (&json!("immediate"), &json!(true)));
    assert_eq!((&end["successful_essays"], &end["failed_essays"]), (&json!(0), &json!(2)));
    assert_eq!(end["message"], "Pipeline completed with 2 failures: completed_with_failures");

    let retried = client.retry(&batch, json!({ "phase_name": "nlp" })).await;
    assert_eq!(retried.status, 202, "{}", retried.text);
    let again = socket.events(3).await;
    let expected = [
        "batch_phase_concluded nlp completed_successfully",
        "batch_phase_concluded ai_feedback completed_successfully",
        "pipeline_completed completed_successfully",
    ];
    assert_eq!(shorts(&again), expected);
    let attempt = &client.attempts(&batch, "nlp").await[1];
    assert_eq!(again[0]["data"]["correlation_id"], attempt["correlation_id"]);

    // Server-sent events are the same ones.
    for event in events.into_iter().chain(again) {
        assert_eq!(stream.event().await, event);
    }
}

#[tokio::test]
async fn a_partial_success_and_an_end_before_its_time_are_heard_as_such() {
    let faults = json!([
        { "phase": "spellcheck", "essays": [1], "error_code": "PROCESSING_ERROR", "category": "permanent" },
        { "phase": "nlp", "delay_ms": 60_000 },
    ]);
    let Server { client, app, .. } = &Server::with_faults(faults).await;
    let batch = client.ready_batch(2).await;
    let mut socket = Socket::of(app, OWNER).await;
    request_pipeline(client, &batch, "ai_feedback").await;
    let events = socket.events(2).await;
    assert_eq!(short(&events[1]), "batch_phase_concluded spellcheck completed_with_failures");
    client.until_phase(&batch, "nlp", "in_progress").await;
    let cancelled = client.post(&format!("/v1/batches/{batch}/cancel"), json!({})).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text);
    let expected = [
        "batch_phase_concluded nlp cancelled",
        "batch_phase_concluded ai_feedback cancelled",
        "pipeline_completed cancelled",
    ];
    assert_eq!(shorts(&socket.events(3).await), expected);
}

#[tokio::test]
async fn an_automatic_retry_ends_its_phase_once() {
    let faults = json!([{ "phase": "spellcheck", "attempts": [1], "error_code": "TIMEOUT", "category": "transient" }]);
    let rules = rephase::domain::Rules::default();
    let server = Server::start(Setup { faults, rules, ..Setup::default() }).await;
    let batch = server.client.ready_batch(1).await;
    let mut socket = Socket::of(&server.app, OWNER).await;
    request_pipeline(&server.client, &batch, "spellcheck").await;
    let waits = |status: &Value| status["pipeline_state"]["spellcheck"]["error_info"]["next_retry_at"].is_string();
    server.client.until(&batch, "the wait", waits).await;
    server.clock.advance(1_000);
    let expected = [
        "batch_processing_started",
        "batch_phase_concluded spellcheck completed_successfully",
        "pipeline_completed completed_successfully",
    ];
    let events = socket.events(3).await;
    assert_eq!(shorts(&events), expected);
    assert!(events[2]["data"]["duration_seconds"].as_f64() > Some(0.0));
}

#[tokio::test]
async fn nobody_hears_of_the_batches_of_others() {
    let Server { client, app, .. } = &Server::start(Setup::default()).await;
    let (mut own, mut other) = (Socket::of(app, OWNER).await, Socket::of(app, "eve").await);
    let mut second = Socket::of(app, OWNER).await;
    let batch = client.ready_batch(1).await;
    request_pipeline(client, &batch, "spellcheck").await;
    let heard = own.events(3).await;
    assert_eq!(second.events(3).await, heard, "each connection of a user hears the same");
    // Had the other heard anything, it would come before this.
    publish(app, &json!({ "for": "eve" }), "eve").await;
    assert_eq!(other.event().await["data"]["for"], "eve");
}

/// Publishes the contract's sample for `user`, with this payload.
async fn publish(app: &rephase::app::App, payload: &Value, user: &str) {
    let mut sample = fixture("samples/teacher_notification_requested.json");
    sample["data"]["payload"] = payload.clone();
    sample["data"]["teacher_id"] = user.into();
    publish_body(app, sample.to_string()).await;
}

async fn publish_body(app: &rephase::app::App, body: String) {
    let (topic, key) = (Topic::TeacherNotificationRequested, Uuid::new_v4().to_string());
    let message = Message { topic, key, headers: None, body: body.into() };
    app.engine().publish(message).await.expect("published");
}

#[tokio::test]
async fn what_others_publish_is_heard_too() {
    let Server { app, client, .. } = &Server::start(Setup::default()).await;
    let mut socket = Socket::of(app, OWNER).await;
    let mut stream = Stream::open(client).await;
    for broken in [
        "",
        "nonsense",
        "{}",
        r#"{"data": {"teacher_id": 7}}"#,
        r#"{"data": {"teacher_id": "teacher-7"}}"#,
        r#"{"event_type": "e", "source_service": "s", "data": {"teacher_id": "teacher-7", "payload": 1}}"#,
    ] {
        publish_body(app, broken.to_owned()).await;
    }
    let mut sample = fixture("samples/teacher_notification_requested.json");
    sample["data"]["teacher_id"] = OWNER.into();
    sample["data"]["deadline_timestamp"] = "2026-03-03T08:30:00Z".into();
    sample["data"]["class_id"] = "class-1".into();
    sample["data"]["payload"]["priority"] = "the payload's own does not count".into();
    publish_body(app, sample.to_string()).await;
    let data = &sample["data"];
    let mut expected = data["payload"].clone();
    let own = json!({
        "category": "batch_progress", "priority": "low", "action_required": false,
        "deadline": "2026-03-03T08:30:00Z", "batch_id": data["batch_id"], "class_id": "class-1",
        "correlation_id": data["correlation_id"], "timestamp": data["timestamp"],
    });
    expected.as_object_mut().expect("an object").extend(own.as_object().expect("an object").clone());
    let expected = json!({ "event": "batch_processing_started", "data": expected });
    assert_eq!(socket.event().await, expected);
    assert_eq!(stream.event().await, expected);

    // One that is too large is nobody's.
    sample["data"]["payload"]["message"] = "x".repeat(64 * 1_024).into();
    publish_body(app, sample.to_string()).await;
    sample["data"]["payload"]["message"] = Value::Null;

    // A name cannot forge lines of the stream.
    sample["data"]["notification_type"] = "a\r\nb\ndata: forged".into();
    publish_body(app, sample.to_string()).await;
    assert_eq!(stream.event().await["event"], "abdata: forged");
}

#[tokio::test]
async fn what_is_published_fits_the_schema_and_the_sample() {
    let Server { client, app, .. } = &Server::with_faults(permanent("nlp")).await;
    let mut published = app.engine().bus().watch();
    let batch = client.ready_batch(2).await;
    request_pipeline(client, &batch, "nlp").await;
    client.until_settled(&batch).await;
    let sample = fixture("samples/teacher_notification_requested.json");
    let mut types = Vec::new();
    while let Ok(message) = published.try_recv() {
        if message.topic != Topic::TeacherNotificationRequested {
            continue;
        }
        assert_eq!(message.key, batch);
        let mut envelope: Value = serde_json::from_slice(&message.body).expect("JSON");
        assert_valid("EventEnvelope", &envelope, "the envelope");
        assert_valid("TeacherNotificationRequestedV1", &envelope["data"], "the notification");
        types.push(envelope["data"]["notification_type"].as_str().expect("a type").to_owned());
        if types.len() == 1 {
            // The contract's sample is this very notification, but for the ids.
            for name in ["event_id", "correlation_id"] {
                envelope[name] = sample[name].clone();
            }
            for name in ["correlation_id", "batch_id"] {
                envelope["data"][name] = sample["data"][name].clone();
            }
            envelope["data"]["payload"]["batch_id"] = sample["data"]["payload"]["batch_id"].clone();
            assert_eq!(envelope, sample);
            assert_eq!(START.to_timestamp().to_string(), "2026-03-02T08:30:00Z");
        }
    }
    assert_eq!(types, ["batch_processing_started", "pipeline_completed"]);
}
