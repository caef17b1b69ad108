//! The promise "nothing is thrown away": what no consumer could handle is kept, shown, and sent on its way again.

mod harness;

use std::time::Instant;

use harness::{
    Answer, Client, OWNER, PATIENCE, Server, Setup, damage, kept, outcome_message, phase_status, request_message,
};
use rephase::contract::{Message, Topic};
use serde_json::{Value, json};
use uuid::Uuid;

const LETTERS: &str = "/internal/v1/dead-letters";

async fn letters(client: &Client, query: &str) -> Vec<Value> {
    let answer = client.get(&format!("{LETTERS}?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["dead_letters"].as_array().expect("a list").clone()
}

/// Waits until there are so many open letters.
async fn until_open(client: &Client, count: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let open = letters(client, "state=open").await;
        if open.len() == count {
            return open;
        }
        assert!(began.elapsed() < PATIENCE, "there are {} open letters, and not {count}", open.len());
        tokio::task::yield_now().await;
    }
}

async fn letter(client: &Client, id: &Value) -> Value {
    let answer = client.get(&format!("{LETTERS}/{}", id.as_str().expect("an id"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

async fn decide(client: &Client, id: &Value, decision: &str) -> Answer {
    client.post(&format!("{LETTERS}/{}/{decision}", id.as_str().expect("an id")), json!({})).await
}

fn unreadable(body: &'static str) -> Message {
    Message { topic: Topic::ElsBatchPhaseOutcome, key: "batch-1".to_owned(), headers: None, body: body.into() }
}

#[tokio::test]
async fn a_refused_request_takes_effect_once_it_is_redriven() {
    let server = Server::start(Setup::default()).await;
    let client = &server.client;
    let batch = client.registered_batch(1).await;
    let message = request_message(Uuid::new_v4(), &batch, OWNER, "spellcheck", false);
    server.app.engine().publish(message.clone()).await.expect("published");
    let open = until_open(client, 1).await;
    assert_eq!((&open[0]["attempts"], &open[0]["key"]), (&json!(1), &json!(batch)));
    assert!(open[0]["error"].as_str().expect("an error").contains("needs all of its essays"), "{open:#?}");
    let shown = letter(client, &open[0]["id"]).await;
    assert_eq!(shown["message"]["envelope"]["data"]["batch_id"], json!(batch));
    assert_eq!(shown["message"]["topic"], "huleedu.commands.batch.pipeline.v1");

    // The same message again has been handled: it kept its key.
    server.app.engine().publish(message).await.expect("published");
    client.post(&format!("/v1/batches/{batch}/essays"), harness::essays_body(1)).await;
    assert_eq!(client.status(&batch).await["status"], "ready");
    let redriven = decide(&client.as_user("operator"), &open[0]["id"], "redrive").await;
    assert_eq!((redriven.status, &redriven.json()["state"]), (200, &json!("redriven")), "{}", redriven.text);
    let status = client.until_phase(&batch, "spellcheck", "completed_successfully").await;
    assert_eq!(status["pipeline_state"]["spellcheck"]["essay_counts"]["successful"], 1);
    assert_eq!(letters(client, "state=open").await.len(), 0);
    let history = letter(client, &open[0]["id"]).await["history"].clone();
    assert_eq!((&history[0]["what"], &history[1]["what"]), (&json!("refused"), &json!("redriven")));
    assert_eq!((&history[1]["by"], history.as_array().map(Vec::len)), (&json!("operator"), Some(2)));
}

#[tokio::test]
async fn a_letter_that_is_refused_again_stays_the_same_letter() {
    let directory = tempfile::tempdir().expect("a directory");
    let setup = || Setup { data: kept(directory.path()), ..Setup::default() };
    let server = Server::start(setup()).await;
    server.app.engine().publish(unreadable("not JSON")).await.expect("published");
    let id = until_open(&server.client, 1).await[0]["id"].clone();
    assert_eq!(letter(&server.client, &id).await["message"]["envelope"], "not JSON");
    server.clock.advance(5);
    assert_eq!(decide(&server.client, &id, "redrive").await.status, 200);
    let again = until_open(&server.client, 1).await;
    assert_eq!((&again[0]["id"], &again[0]["attempts"]), (&id, &json!(2)));
    assert_eq!(again[0]["last_at"], "2026-03-02T08:30:00.005Z");
    server.app.stop().await;

    let server = Server::start(setup()).await;
    let client = &server.client;
    assert_eq!(letter(client, &id).await["attempts"], 2, "it is kept");
    assert_eq!(decide(client, &id, "discard").await.status, 200);
    let closed = decide(client, &id, "redrive").await;
    assert_eq!(closed.status, 409);
    assert!(closed.text.contains("is discarded"), "{}", closed.text);
    assert_eq!(letters(client, "state=discarded").await.len(), 1);
    assert_eq!(letters(client, "state=discarded&topic=huleedu.commands.batch.pipeline.v1").await.len(), 0);
}

#[tokio::test]
async fn many_letters_are_decided_about_at_once() {
    let server = Server::start(Setup::default()).await;
    let client = &server.client;
    for (count, body) in [(1, "a"), (2, "b"), (3, "c")] {
        server.clock.advance(1);
        server.app.engine().publish(unreadable(body)).await.expect("published");
        until_open(client, count).await;
    }
    let ids: Vec<_> = letters(client, "").await.iter().map(|letter| letter["id"].clone()).collect();
    let newest = letter(client, &ids[0]).await;
    assert_eq!(newest["message"]["envelope"], "c", "the newest first");
    let missing = Uuid::new_v4();
    let body = json!({ "ids": [ids[0], ids[1], ids[0], missing] });
    let keyed = || {
        let path = format!("{LETTERS}/discard");
        client.request(reqwest::Method::POST, &path).header("Idempotency-Key", "many").json(&body)
    };
    let first = Client::send(keyed()).await;
    assert_eq!((first.status, &first.json()["decided"]), (200, &json!(2)), "{}", first.text);
    assert_eq!(first.json()["results"][2]["error"], "there is no such dead letter");
    let again = Client::send(keyed()).await;
    assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &first.text));
    let open = letters(client, "state=open").await;
    assert_eq!(open.iter().map(|letter| &letter["id"]).collect::<Vec<_>>(), [&ids[2]]);

    let (mut paged, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let page = client.get(&format!("{LETTERS}?{query}")).await.json();
        paged.extend(page["dead_letters"].as_array().expect("a list").iter().map(|letter| letter["id"].clone()));
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(paged, ids);
}

#[tokio::test]
async fn a_garbled_outcome_becomes_a_letter_and_its_phase_runs_into_its_deadline() {
    let server = Server::with_faults(json!([{ "phase": "nlp", "attempts": [1], "garbled": true }])).await;
    let client = &server.client;
    let batch = client.ready_batch(1).await;
    client.pipeline(&batch, "nlp").await;
    let open = until_open(client, 1).await;
    assert_eq!((&open[0]["topic"], &open[0]["key"]), (&json!("huleedu.els.batch.phase.outcome.v1"), &json!(batch)));
    server.clock.advance(900_000);
    let status = client.until_settled(&batch).await;
    assert_eq!(phase_status(&status, "nlp"), "failed");
    assert_eq!(status["pipeline_state"]["nlp"]["error_info"]["error_code"], "TIMEOUT");
}

#[tokio::test]
async fn a_message_that_comes_too_often_becomes_a_letter() {
    let directory = tempfile::tempdir().expect("a directory");
    let setup = || Setup { data: kept(directory.path()), ..Setup::default() };
    let server = Server::start(setup()).await;
    let batch = server.client.ready_batch(1).await;
    server.app.stop().await;
    damage(directory.path(), &batch);

    let server = Server::start(setup()).await;
    let message = request_message(Uuid::new_v4(), &batch, OWNER, "spellcheck", false);
    server.app.engine().publish(message).await.expect("published");
    let began = Instant::now();
    let open = loop {
        let open = letters(&server.client, "").await;
        if !open.is_empty() {
            break open;
        }
        assert!(began.elapsed() < PATIENCE, "it comes for ever");
        server.clock.advance(30_000);
    };
    let history = letter(&server.client, &open[0]["id"]).await["history"].clone();
    assert_eq!(history[0]["deliveries"], 16);
    assert!(open[0]["error"].as_str().expect("an error").contains("cannot be read"), "{open:#?}");
}

#[tokio::test]
async fn what_is_late_is_on_record_with_its_attempt_and_is_no_letter() {
    let server = Server::with_stuck_workers().await;
    let client = &server.client;
    let batch = client.ready_batch(1).await;
    client.pipeline(&batch, "spellcheck").await;
    client.until_phase(&batch, "spellcheck", "in_progress").await;
    client.post(&format!("/v1/batches/{batch}/cancel"), json!({})).await;
    server.app.engine().publish(outcome_message(&batch, "spellcheck", 1)).await.expect("published");
    let path = format!("/v1/batches/{batch}/phases/spellcheck/attempts");
    let began = Instant::now();
    while client.get(&path).await.json()["late_outcomes"] == json!([]) {
        assert!(began.elapsed() < PATIENCE, "the outcome did not come");
        tokio::task::yield_now().await;
    }
    assert_eq!(letters(client, "").await.len(), 0);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let Server { client, .. } = &Server::start(Setup::default()).await;
    for query in ["state=closed", "topic=nothing", "limit=0", "limit=201", "cursor=x", "sate=open"] {
        assert_eq!(client.get(&format!("{LETTERS}?{query}")).await.status, 400, "{query}");
    }
    assert_eq!(client.get(&format!("{LETTERS}/nonsense")).await.status, 404);
    let missing = Uuid::new_v4();
    assert_eq!(client.get(&format!("{LETTERS}/{missing}")).await.status, 404);
    assert_eq!(decide(client, &json!(missing), "redrive").await.status, 404);
    assert_eq!(decide(&client.as_nobody(), &json!(missing), "redrive").await.status, 401);
    for ids in [json!([]), json!(["x"]), json!(vec![missing; 201])] {
        assert_eq!(client.post(&format!("{LETTERS}/discard"), json!({ "ids": ids })).await.status, 400, "{ids}");
    }
}
