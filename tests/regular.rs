//! Batches of a class, from outside: who finds their students is simulated, or speaks by events, or says nothing.

mod harness;

use harness::{Client, Server, Setup, kept, registration, verify};
use rephase::contract::{Message, Topic};
use rephase::worker::StudentMatching;
use serde_json::{Value, json};
use uuid::Uuid;

const DAY_MS: u64 = 24 * 3_600 * 1_000;

async fn regular_batch(client: &Client) -> String {
    let mut body = registration(2);
    body["class_id"] = json!("class-9");
    let registered = client.post("/v1/batches/register", body).await;
    assert_eq!(registered.status, 202, "{}", registered.text);
    let batch = registered.json()["batch_id"].as_str().expect("an id").to_owned();
    assert_eq!(client.post(&format!("/v1/batches/{batch}/essays"), harness::essays_body(2)).await.status, 202);
    batch
}

fn envelope(batch: &str, topic: Topic, data: &Value) -> Message {
    let body = json!({
        "event_id": Uuid::new_v4(), "event_type": topic.as_str(), "event_timestamp": "2026-03-02T08:30:00Z",
        "source_service": "class_management_service", "schema_version": 1, "correlation_id": Uuid::new_v4(),
        "data_schema_uri": null, "metadata": null, "data": data,
    });
    Message { topic, key: batch.to_owned(), headers: None, body: body.to_string().into() }
}

fn confirmation(batch: &str, class: &str) -> Message {
    let data = json!({
        "batch_id": batch, "class_id": class, "course_code": "ENG5", "associations": [], "validation_summary": {},
    });
    envelope(batch, Topic::StudentAssociationsConfirmed, &data)
}

async fn until_status(client: &Client, batch: &str, wanted: &str) -> Value {
    client.until(batch, wanted, |status| status["details"]["batch_status"] == wanted).await
}

#[tokio::test]
async fn a_regular_batch_runs_like_any_other_once_its_students_are_found() {
    let server = Server::start(Setup::default()).await;
    let client = &server.client;
    let mut watched = server.app.engine().bus().watch();
    let batch = regular_batch(client).await;
    until_status(client, &batch, "ready_for_pipeline_execution").await;
    assert_eq!(client.pipeline(&batch, "ai_feedback").await.status, 202);
    assert_eq!(client.until_settled(&batch).await["status"], "completed_successfully");
    let mut seen = Vec::new();
    while let Ok(message) = watched.try_recv() {
        seen.push(message.topic);
    }
    let place = |topic| seen.iter().position(|seen| *seen == topic).unwrap_or_else(|| panic!("{topic} in {seen:?}"));
    assert!(place(Topic::BatchStudentMatchingInitiateCommand) < place(Topic::StudentAssociationsConfirmed));
    assert!(place(Topic::StudentAssociationsConfirmed) < place(Topic::BatchEssaysReady));
    assert!(place(Topic::BatchEssaysReady) < place(Topic::BatchSpellcheckInitiateCommand));
}

#[tokio::test]
async fn somebody_outside_confirms_by_an_event() {
    let server = Server::start(Setup { student_matching: StudentMatching::Events, ..Setup::default() }).await;
    let (client, engine) = (&server.client, server.app.engine());
    let batch = regular_batch(client).await;
    let status = until_status(client, &batch, "awaiting_student_validation").await;
    assert_eq!(status["status"], "processing");
    assert_eq!(client.pipeline(&batch, "nlp").await.status, 409);
    engine.publish(confirmation(&batch, "class-8")).await.expect("sent");
    engine.publish(confirmation(&batch, "class-9")).await.expect("sent");
    until_status(client, &batch, "ready_for_pipeline_execution").await;
}

#[tokio::test]
async fn after_a_day_it_goes_on_by_itself_over_a_restart_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let setup =
        || Setup { data: kept(directory.path()), student_matching: StudentMatching::Events, ..Setup::default() };
    let server = Server::start(setup()).await;
    let batch = regular_batch(&server.client).await;
    server.app.stop().await;
    verify(directory.path());

    let server = Server::start(setup()).await;
    server.clock.advance(DAY_MS - 1);
    assert_eq!(server.client.status(&batch).await["details"]["batch_status"], "awaiting_student_validation");
    server.clock.advance(1);
    until_status(&server.client, &batch, "ready_for_pipeline_execution").await;
    server.app.stop().await;
    verify(directory.path());
}
