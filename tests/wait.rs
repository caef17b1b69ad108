//! A client that waits for a batch is answered once that has come to rest, when its time is over, or when the server ends.

mod harness;

use harness::{PATIENCE, Server, Setup};
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
async fn what_cannot_be_waited_for_is_refused() {
    let server = Server::start(Setup::default()).await;
    let batch = server.client.registered_batch(1).await;
    for wait in ["30001", "-1", "soon", "", "18446744073709551616"] {
        let answer = server.client.get(&format!("/v1/batches/{batch}/status?wait_ms={wait}")).await;
        assert_eq!((answer.status, &answer.json()["error_code"]), (400, &json!("VALIDATION_ERROR")), "{wait}");
    }
    let unknown = uuid::Uuid::now_v7();
    let answer = server.client.get(&format!("/v1/batches/{unknown}/status?wait_ms=30000")).await;
    assert_eq!(answer.status, 404, "{}", answer.text);
}

#[tokio::test]
async fn a_server_that_ends_lets_nobody_wait() {
    let server = Server::with_stuck_workers().await;
    let batch = server.client.ready_batch(1).await;
    server.client.pipeline(&batch, "nlp").await;
    let client = server.client.clone();
    let path = format!("/v1/batches/{batch}/status?wait_ms=30000");
    let waiting = tokio::spawn(async move { client.get(&path).await });
    // Long enough for the request to have arrived; one that has not would be refused, and the test fail.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    server.app.stop().await;
    let answer = tokio::time::timeout(PATIENCE / 3, waiting).await.expect("it does not wait on").expect("answered");
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("processing")));
}
