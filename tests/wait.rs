//! A client that waits for a batch is answered once that has come to rest, when its time is over, or when the server ends.

mod harness;

use harness::{PATIENCE, Server, Setup};
use rephase::contract::BatchClientStatus;
use serde_json::json;

#[tokio::test]
async fn a_status_can_be_waited_for() {
    let server = Server::start(Setup::default()).await;
    let batch = server.client.ready_batch(3).await;
    for phase in ["nlp", "ai_feedback"] {
        assert_eq!(server.client.pipeline(&batch, phase).await.status, 202);
        let answer = server.client.get(&format!("/v1/batches/{batch}/status?wait_ms=30000")).await;
        assert_eq!(answer.json()["status"], "completed_successfully", "{}", answer.text);
    }
    // One that is at rest is not waited for.
    let answer = server.client.get(&format!("/v1/batches/{batch}/status?wait_ms=30000")).await;
    assert_eq!(answer.json()["status"], "completed_successfully");
}

#[tokio::test]
async fn whoever_has_waited_long_enough_sees_what_there_is() {
    let server = Server::with_stuck_workers().await;
    let batch = server.client.ready_batch(1).await;
    server.client.pipeline(&batch, "nlp").await;
    let answer = server.client.get(&format!("/v1/batches/{batch}/status?wait_ms=20")).await;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("processing")));
}

#[tokio::test]
async fn whoever_asks_for_a_pipeline_or_a_retry_can_wait_for_what_comes_of_it() {
    let server = Server::with_faults(
        json!([{ "phase": "nlp", "attempts": [2], "error_code": "NLP_SERVICE_ERROR", "category": "permanent" }]),
    )
    .await;
    let client = &server.client;
    let batch = client.ready_batch(3).await;
    let (pipelines, retries) = (waiting(&batch, "pipelines", 30_000), waiting(&batch, "retry-phase", 30_000));
    let ended = client.post(&pipelines, json!({ "requested_pipeline": "nlp" })).await;
    assert_eq!(
        (ended.status, &ended.json()["phase_status"]),
        (200, &json!("completed_successfully")),
        "{}",
        ended.text
    );
    assert_eq!(ended.json()["message"], "the pipeline nlp is going to run");
    for (attempt, outcome) in [(2, "failed"), (3, "completed_successfully")] {
        let ended = client.post(&retries, json!({ "phase_name": "nlp", "force": true })).await;
        assert_eq!((ended.status, &ended.json()["outcome"]), (200, &json!(outcome)), "{}", ended.text);
        assert_eq!(ended.json()["phase_status"], "completed_successfully", "what came out before stays");
        assert_eq!((&ended.json()["attempt"], &ended.json()["status"]), (&json!(attempt), &json!("retry_initiated")));
        let now = client.get(&format!("/v1/batches/{batch}/status")).await;
        assert_eq!(now.json()["pipeline_state"]["nlp"]["error_info"]["retry_history"][0]["outcome"], outcome);
        assert_eq!(now.header("etag"), ended.header("etag"), "the version is that of the outcome");
        assert_eq!(ended.header("location"), format!("/v1/batches/{batch}/phases/nlp/attempts?from={attempt}"));
    }
    // What would happen is told at once, and what is refused is as ever.
    let would = client.post(&retries, json!({ "phase_name": "nlp", "force": true, "dry_run": true })).await;
    assert_eq!((&would.json()["status"], would.json().get("phase_status")), (&json!("dry_run"), None));
    assert_eq!(client.post(&retries, json!({ "phase_name": "nlp" })).await.status, 409);
    assert_eq!(client.attempts(&batch, "nlp").await.len(), 3);
}

/// Somebody else may begin the next retry before whoever waits comes to look.
#[tokio::test]
async fn whoever_waits_is_told_of_the_rest_whatever_began_since() {
    let server = Server::with_stuck_workers().await;
    let client = &server.client;
    let batch = client.ready_batch(1).await;
    client.pipeline(&batch, "nlp").await;
    let engine = server.app.engine();
    let mut rest = std::pin::pin!(engine.rest(batch.parse().expect("an id")));
    tokio::select! {
        biased;
        _ = &mut rest => panic!("it runs"),
        () = std::future::ready(()) => {}
    }
    client.post(&format!("/v1/batches/{batch}/cancel"), json!({})).await;
    assert_eq!(client.retry(&batch, json!({ "phase_name": "spellcheck" })).await.status, 202);
    let record = rest.await.expect("told").expect("there is such a batch");
    assert_eq!(record.status.for_client(), BatchClientStatus::Cancelled);
    assert_eq!(client.status(&batch).await["status"], "processing");
}

#[tokio::test]
async fn a_repetition_waits_too_and_says_how_it_is_by_now() {
    let server = Server::start(Setup::default()).await;
    let client = &server.client;
    let batch = client.ready_batch(1).await;
    client.post(&waiting(&batch, "pipelines", 30_000), json!({ "requested_pipeline": "nlp" })).await;
    let retry = async |wait_ms| {
        let request = client.request(reqwest::Method::POST, &waiting(&batch, "retry-phase", wait_ms));
        let body = json!({ "phase_name": "nlp", "force": true });
        harness::Client::send(request.header("Idempotency-Key", "the-same").json(&body)).await
    };
    let (accepted, again) = (retry(0).await, retry(30_000).await);
    assert_eq!((accepted.status, accepted.json().get("phase_status")), (202, None));
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, "true"));
    let mut body = again.json();
    for member in ["phase_status", "outcome"] {
        assert_eq!(body.as_object_mut().and_then(|body| body.remove(member)), Some("completed_successfully".into()));
    }
    assert_eq!(body, accepted.json());
    assert_eq!(client.attempts(&batch, "nlp").await.len(), 2);
}

#[tokio::test]
async fn a_retry_that_takes_longer_was_accepted_all_the_same() {
    let server = Server::with_stuck_workers().await;
    let batch = server.client.ready_batch(1).await;
    let pipelines = waiting(&batch, "pipelines", 20);
    let accepted = server.client.post(&pipelines, json!({ "requested_pipeline": "nlp" })).await;
    assert_eq!((accepted.status, accepted.json().get("phase_status")), (202, None), "{}", accepted.text);
    assert_eq!(server.client.status(&batch).await["status"], "processing");
}

fn waiting(batch: &str, what: &str, wait_ms: u64) -> String {
    format!("/v1/batches/{batch}/{what}?wait_ms={wait_ms}")
}

#[tokio::test]
async fn what_cannot_be_waited_for_is_refused() {
    let server = Server::start(Setup::default()).await;
    let batch = server.client.registered_batch(1).await;
    for wait in ["30001", "-1", "soon", "", "18446744073709551616"] {
        let answer = server.client.get(&format!("/v1/batches/{batch}/status?wait_ms={wait}")).await;
        assert_eq!((answer.status, &answer.json()["error_code"]), (400, &json!("VALIDATION_ERROR")), "{wait}");
    }
    let ready = server.client.ready_batch(1).await;
    let body = json!({ "requested_pipeline": "nlp" });
    let answer = server.client.post(&waiting(&ready, "pipelines", 30_001), body).await;
    assert_eq!((answer.status, &answer.json()["error_code"]), (400, &json!("VALIDATION_ERROR")));
    assert_eq!(server.client.status(&ready).await["status"], "ready", "nothing has come of it");
    let unknown = uuid::Uuid::now_v7();
    let answer = server.client.get(&format!("/v1/batches/{unknown}/status?wait_ms=30000")).await;
    assert_eq!(answer.status, 404, "{}", answer.text);
}

#[tokio::test]
async fn a_server_that_ends_lets_nobody_wait() {
    let server = Server::with_stuck_workers().await;
    let batch = server.client.ready_batch(1).await;
    server.client.pipeline(&batch, "nlp").await;
    let other = server.client.ready_batch(1).await;
    let [client, another] = [(); 2].map(|()| server.client.clone());
    let path = format!("/v1/batches/{batch}/status?wait_ms=30000");
    let waits = tokio::spawn(async move { client.get(&path).await });
    let path = waiting(&other, "pipelines", 30_000);
    let asks = tokio::spawn(async move { another.post(&path, json!({ "requested_pipeline": "nlp" })).await });
    // Long enough for the request to have arrived; one that has not would be refused, and the test fail.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    server.app.stop().await;
    for (waiting, status) in [(waits, (200, "processing")), (asks, (202, "accepted"))] {
        let answer = tokio::time::timeout(PATIENCE / 3, waiting).await.expect("it does not wait on").expect("answered");
        assert_eq!((answer.status, &answer.json()["status"]), (status.0, &json!(status.1)));
    }
}
