//! The promise "exactly what was asked, and it can be seen before": scope, preview and precondition of a retry.

mod harness;

use harness::{Client, Server, phase_status};
use serde_json::{Value, json};

/// nlp fails for the essay in slot 1, the first time.
async fn partial() -> (Server, String) {
    let faults = json!([{ "phase": "nlp", "attempts": [1], "essays": [1], "error_code": "NLP_SERVICE_ERROR",
        "category": "permanent", "message": "not a language" }]);
    let server = Server::with_faults(faults).await;
    let batch = server.client.ready_batch(3).await;
    server.client.pipeline(&batch, "ai_feedback").await;
    server.client.until_settled(&batch).await;
    (server, batch)
}

async fn etag(client: &Client, batch: &str) -> String {
    client.get(&format!("/v1/batches/{batch}/status")).await.header("etag").to_owned()
}

#[tokio::test]
async fn the_essays_that_failed_are_named_and_can_be_retried_alone() {
    let (Server { client, .. }, batch) = &partial().await;
    let status = client.status(batch).await;
    let failed = &status["pipeline_state"]["nlp"]["error_info"]["failed_essays"];
    assert_eq!(failed.as_array().map(Vec::len), Some(1), "{status:#}");
    assert_eq!(
        (&failed[0]["error_code"], &failed[0]["message"]),
        (&json!("NLP_SERVICE_ERROR"), &json!("not a language"))
    );
    let attempt = &client.attempts(batch, "nlp").await[0];
    assert_eq!(attempt["failed_essay_ids"], json!([failed[0]["essay_id"]]));

    let only_failed = json!({ "phase_name": "nlp", "only_failed": true });
    let answer = client.retry(batch, only_failed).await;
    assert_eq!((answer.status, &answer.json()["essay_ids"]), (202, &json!([failed[0]["essay_id"]])), "{}", answer.text);
    assert_eq!(answer.json()["stale"], json!(["ai_feedback"]));
    let status = client.until_settled(batch).await;
    assert_eq!(phase_status(&status, "nlp"), "completed_successfully");
    assert_eq!(status["stale"], json!(["ai_feedback"]), "it has not seen the essay");
    let nothing = client.retry(batch, json!({ "phase_name": "nlp", "only_failed": true, "force": true })).await;
    assert_eq!(nothing.status, 409, "{}", nothing.text);
    let both = json!({ "phase_name": "nlp", "only_failed": true, "essay_ids": ["a"] });
    assert_eq!(client.retry(batch, both).await.status, 400);

    client.retry(batch, json!({ "phase_name": "ai_feedback", "only_failed": true })).await;
    let status = client.until_settled(batch).await;
    assert_eq!((&status["status"], &status["stale"]), (&json!("completed_successfully"), &json!([])));
}

#[tokio::test]
async fn downstream_runs_what_is_below_again() {
    let Server { client, .. } = &Server::start(harness::Setup::default()).await;
    let batch = client.ready_batch(2).await;
    client.pipeline(&batch, "ai_feedback").await;
    client.until_settled(&batch).await;
    let body = json!({ "phase_name": "spellcheck", "force": true, "downstream": true });
    let answer = client.retry(&batch, body).await.json();
    assert_eq!((&answer["runs_again"], &answer["stale"]), (&json!(["nlp", "ai_feedback"]), &json!([])));
    let status = client.until_settled(&batch).await;
    assert_eq!((&status["status"], &status["stale"]), (&json!("completed_successfully"), &json!([])));
    for phase in ["spellcheck", "nlp", "ai_feedback"] {
        assert_eq!(client.attempts(&batch, phase).await.len(), 2, "{phase}");
    }
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let (Server { client, .. }, batch) = &partial().await;
    let before = (etag(client, batch).await, client.status(batch).await);
    let ask = |dry_run: bool| json!({ "phase_name": "nlp", "only_failed": true, "dry_run": dry_run });
    let preview = client.retry(batch, ask(true)).await;
    assert_eq!((preview.status, preview.header("etag")), (200, before.0.as_str()), "{}", preview.text);
    assert_eq!((etag(client, batch).await, client.status(batch).await), before);

    let real = client.retry(batch, ask(false)).await;
    let told = |answer: &Value| {
        ["phase", "attempt", "essay_ids", "goes_on", "runs_again", "stale", "message"].map(|name| answer[name].clone())
    };
    assert_eq!(told(&preview.json()), told(&real.json()));
    assert_eq!(preview.json()["status"], "dry_run");
    assert_ne!(real.header("etag"), before.0);

    client.until_settled(batch).await;
    let refused = client.retry(batch, ask(true)).await;
    assert_eq!(refused.status, 409, "a preview is refused as the real thing would be: {}", refused.text);
    let eve = client.as_user("eve").retry(batch, ask(true)).await;
    assert_eq!(eve.status, 403);
}

#[tokio::test]
async fn if_match_refuses_where_the_batch_has_moved() {
    let (Server { client, .. }, batch) = &partial().await;
    let path = format!("/v1/batches/{batch}/retry-phase");
    let retry = |tag: &str| {
        let body = json!({ "phase_name": "nlp", "only_failed": true });
        Client::send(client.request(reqwest::Method::POST, &path).header("If-Match", tag).json(&body))
    };
    let seen = etag(client, batch).await;
    client.retry(batch, json!({ "phase_name": "ai_feedback", "force": true })).await;
    client.until_settled(batch).await;
    let moved = retry(&seen).await;
    assert_eq!((moved.status, &moved.json()["error_code"]), (412, &json!("PRECONDITION_FAILED")), "{}", moved.text);
    assert_eq!(retry("nonsense").await.status, 400);
    assert_eq!(retry("\"other\"").await.status, 412);
    assert_eq!(client.attempts(batch, "nlp").await.len(), 1);
    let now = etag(client, batch).await;
    assert_eq!(retry(&format!("{seen}, {now}")).await.status, 202);
}
