//! Whatever a worker sends is answered clearly, changes nothing where it is wrong, and has its bounds.

mod harness;
#[path = "leases/worker.rs"]
mod worker;

use std::task::{Context, Poll, Waker};

use harness::{Server, Setup, kept, verify};
use rephase::domain::Phase;
use serde_json::{Value, json};
use worker::{Worker, failure, setup, waiting};

#[tokio::test]
async fn a_text_is_stored_under_its_hash() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(Setup { data: kept(directory.path()), ..Setup::default() }).await;
    let text = "Räksmörgås.\n";
    let first = server.client.post("/v1/content", json!({ "text": text })).await;
    let id = first.json()["storage_id"].as_str().expect("an id").to_owned();
    assert_eq!((first.status, first.header("location")), (201, format!("/v1/content/{id}").as_str()));
    assert_eq!(server.client.post("/v1/content", json!({ "text": text })).await.json(), first.json());
    let largest = "x".repeat(1_024 * 1_024);
    assert_eq!(server.client.post("/v1/content", json!({ "text": largest })).await.status, 201);
    for body in [json!({}), json!({ "text": " " }), json!({ "text": 1 }), json!({ "text": format!("{largest}x") })] {
        assert_eq!(server.client.post("/v1/content", body).await.status, 400);
    }
    server.app.stop().await;
    verify(directory.path());
    let server = Server::start(Setup { data: kept(directory.path()), ..Setup::default() }).await;
    assert_eq!(server.client.get(&format!("/v1/content/{id}")).await.text, text);
}

#[tokio::test]
async fn whatever_a_worker_sends_is_answered_clearly() {
    let server = Server::start(setup()).await;
    let (client, worker) = (&server.client, Worker::new(&server.client, "w1"));
    let with = |member: &str, value: Value| {
        let mut body = json!({ "worker_id": "w1", "phases": ["spellcheck"] });
        body[member] = value;
        body
    };
    for body in [
        json!({}),
        json!({ "worker_id": "w1" }),
        json!({ "phases": ["spellcheck"] }),
        with("worker_id", json!("")),
        with("worker_id", json!("x".repeat(256))),
        with("worker_id", json!(7)),
        with("phases", json!([])),
        with("phases", json!(vec!["spellcheck"; 5])),
        with("phases", json!(["grading"])),
        with("phases", json!(["cj_assessment"])),
        with("phases", json!("spellcheck")),
        with("max", json!(0)),
        with("max", json!(17)),
        with("max", json!(-1)),
        with("wait_ms", json!(30_001)),
        with("wait_ms", json!("long")),
        with("lease_ms", json!(999)),
        with("lease_ms", json!(3_600_001)),
    ] {
        let answer = client.post("/v1/workers/lease", body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
        assert!(answer.json()["error"].is_string(), "{}", answer.text);
    }

    let batch = waiting(client, 2).await;
    let task = worker.lease("spellcheck").await;
    let before = (client.status(&batch).await, client.attempts(&batch, "spellcheck").await);
    let essay = |slot: usize| json!({ "essay_id": task["essays"][slot]["essay_id"] });
    let and = |mut essay: Value, member: &str, value: Value| {
        essay[member] = value;
        essay
    };
    let stranger = json!({ "essay_id": "nobody" });
    for essays in [
        json!([]),
        json!("all"),
        json!([essay(0)]),
        json!([essay(0), essay(0)]),
        json!([essay(0), essay(1), stranger]),
        json!([essay(0), and(essay(1), "text", json!("  "))]),
        json!([essay(0), and(and(essay(1), "text", json!("a")), "text_storage_id", json!("b"))]),
        json!([essay(0), and(and(essay(1), "text", json!("a")), "error", failure())]),
        json!([essay(0), and(essay(1), "text", json!("x".repeat(1_024 * 1_024 + 1)))]),
        json!([essay(0), and(essay(1), "metrics", json!("x".repeat(1_024)))]),
        json!([essay(0), and(essay(1), "error", json!({ "error_code": "NO_SUCH_CODE" }))]),
        json!([essay(0), and(essay(1), "error", json!({ "error_code": "TIMEOUT", "category": "sometimes" }))]),
        json!(vec![essay(0); 1_001]),
    ] {
        let answer = worker.say(&task, "complete", json!({ "essays": essays })).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
    }
    for body in [
        json!({}),
        json!({ "error_code": "NO_SUCH_CODE" }),
        json!({ "error_code": "TIMEOUT", "category": "sometimes" }),
        json!({ "error_code": "TIMEOUT", "retry_after_ms": 3_600_001 }),
        json!({ "error_code": "TIMEOUT", "message": 1 }),
    ] {
        let answer = worker.say(&task, "fail", body).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
    }
    let unknown = uuid::Uuid::now_v7();
    let no_token = format!("/v1/workers/tasks/{batch}.spellcheck.1/heartbeat");
    for body in [json!({}), json!({ "lease_token": "mine" }), json!({ "lease_token": null })] {
        assert_eq!(client.post(&no_token, body).await.status, 400);
    }
    for id in ["x", "..", &format!("{batch}.spellcheck"), &format!("{batch}.grading.1"), &format!("{unknown}.nlp.1")] {
        let path = format!("/v1/workers/tasks/{id}/heartbeat");
        let answer = client.post(&path, json!({ "lease_token": task["lease_token"] })).await;
        assert_eq!(answer.status, 404, "{id}: {}", answer.text);
    }
    assert_eq!((client.status(&batch).await, client.attempts(&batch, "spellcheck").await), before);
    assert_eq!(worker.complete(&task).await.status, 200, "and it is its task still");
}

#[tokio::test]
async fn only_so_many_workers_can_wait() {
    let server = Server::start(setup()).await;
    let engine = server.app.engine();
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting: Vec<_> = (0..1_024).map(|_| Box::pin(engine.offered(&[Phase::Spellcheck]))).collect();
    for one in &mut waiting {
        assert!(one.as_mut().poll(&mut context).is_pending());
    }
    let refused = std::pin::pin!(engine.offered(&[Phase::Spellcheck])).poll(&mut context);
    assert!(matches!(refused, Poll::Ready(Err(rephase::engine::Error::Overloaded))), "{refused:?}");
    drop(waiting.pop());
    let mut one = Box::pin(engine.offered(&[Phase::Spellcheck]));
    assert!(one.as_mut().poll(&mut context).is_pending());
}
