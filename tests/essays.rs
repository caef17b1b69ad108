//! The essays of a batch, and how each came out of each phase: for its owner, a page at a time.

mod harness;

use harness::{Server, Setup};
use serde_json::{Value, json};

fn outcome(essay: &Value, phase: &str) -> (String, bool, String) {
    let result = &essay["phases"][phase];
    let text = |member: &str| result[member].as_str().unwrap_or_default().to_owned();
    (text("outcome"), result["pending"].as_bool().expect("a boolean"), text("error_code"))
}

fn said(outcome: &str, pending: bool, code: &str) -> (String, bool, String) {
    (outcome.to_owned(), pending, code.to_owned())
}

#[tokio::test]
async fn each_essay_says_how_it_came_out_of_each_phase() {
    let faults = json!([
        { "phase": "nlp", "attempts": [1], "essays": [1], "error_code": "NLP_SERVICE_ERROR", "category": "permanent",
          "message": "it has no sentences" },
        { "phase": "nlp", "attempts": [2], "delay_ms": 60_000 },
    ]);
    let server = Server::with_faults(faults).await;
    let client = &server.client;
    let batch = client.ready_batch(3).await;
    let path = format!("/v1/batches/{batch}/essays");
    let before = client.get(&path).await.json();
    assert_eq!((&before["essays"][0]["phases"], &before["next_from"]), (&json!({}), &Value::Null));
    client.pipeline(&batch, "ai_feedback").await;
    let status = client.until_settled(&batch).await;

    let answer = client.get(&path).await;
    assert_eq!(answer.header("etag"), client.get(&format!("/v1/batches/{batch}/status")).await.header("etag"));
    let essays = answer.json()["essays"].as_array().expect("a list").clone();
    assert_eq!(essays.len(), 3);
    assert_eq!((&essays[2]["slot"], &essays[2]["file_name"]), (&json!(2), &json!("2.txt")));
    assert_eq!(outcome(&essays[0], "nlp"), said("succeeded", false, ""));
    assert_eq!(outcome(&essays[1], "spellcheck"), said("succeeded", false, ""));
    assert_eq!(outcome(&essays[1], "nlp"), said("failed", false, "NLP_SERVICE_ERROR"));
    assert_eq!(essays[1]["phases"]["nlp"]["message"], "it has no sentences");
    assert_eq!(outcome(&essays[1], "ai_feedback"), said("not_run", false, ""));
    let failed = &status["pipeline_state"]["nlp"]["error_info"]["failed_essays"][0]["essay_id"];
    assert_eq!(&essays[1]["essay_id"], failed);

    // What is on its way says so, and still how it came out before.
    client.retry(&batch, json!({ "phase_name": "nlp", "only_failed": true })).await;
    client.until_phase(&batch, "nlp", "in_progress").await;
    let essays = client.get(&path).await.json()["essays"].clone();
    assert_eq!(outcome(&essays[0], "nlp"), said("succeeded", false, ""));
    assert_eq!(outcome(&essays[1], "nlp"), said("failed", true, "NLP_SERVICE_ERROR"));
}

#[tokio::test]
async fn they_come_a_page_at_a_time() {
    let server = Server::start(Setup::default()).await;
    let client = &server.client;
    let batch = client.ready_batch(5).await;
    let mut slots = Vec::new();
    let mut from = json!(0);
    while !from.is_null() {
        let page = client.get(&format!("/v1/batches/{batch}/essays?limit=2&from={from}")).await.json();
        slots.extend(page["essays"].as_array().expect("a list").iter().map(|essay| essay["slot"].clone()));
        from = page["next_from"].clone();
    }
    assert_eq!(json!(slots), json!([0, 1, 2, 3, 4]));
    let beyond = client.get(&format!("/v1/batches/{batch}/essays?from=5")).await.json();
    assert_eq!(beyond, json!({ "essays": [], "next_from": null }));
}

#[tokio::test]
async fn whoever_is_not_the_owner_and_whatever_makes_no_sense_is_refused() {
    let server = Server::start(Setup::default()).await;
    let client = &server.client;
    let batch = client.ready_batch(1).await;
    let path = format!("/v1/batches/{batch}/essays");
    assert_eq!(client.as_user("somebody-else").get(&path).await.status, 403);
    assert_eq!(client.as_nobody().get(&path).await.status, 401);
    assert_eq!(client.get(&format!("/v1/batches/{}/essays", uuid::Uuid::now_v7())).await.status, 404);
    assert_eq!(client.get("/v1/batches/none/essays").await.status, 404);
    for query in ["limit=0", "limit=201", "from=-1", "from=65536", "from=x", "page=2"] {
        let answer = client.get(&format!("{path}?{query}")).await;
        assert_eq!((answer.status, &answer.json()["error_code"]), (400, &json!("VALIDATION_ERROR")), "{query}");
    }
}
