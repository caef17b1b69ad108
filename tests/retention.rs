//! The promise "what is over for long enough goes, and nothing else": retention, in the sweep.

mod harness;

use std::path::Path;

use harness::{Client, OWNER, Server, Setup, kept, request_message, verify};
use rephase::domain::Millis;
use rephase::store::{self, Aged, Commit, Store};
use serde_json::{Value, json};
use uuid::Uuid;

/// A day, in milliseconds.
const DAY_MS: u64 = 86_400_000;

/// A server that keeps what is over for ten days, and whose nlp fails.
async fn server(directory: &Path) -> Server {
    let faults = json!([{ "phase": "nlp", "error_code": "TIMEOUT", "category": "permanent" }]);
    Server::start(Setup { data: kept(directory), faults, retain_ms: Some(10 * DAY_MS), ..Setup::default() }).await
}

async fn batch(client: &Client, text: &str, pipeline: &str) -> (String, String) {
    let batch = client.registered_batch(1).await;
    let body = json!({ "essays": [{ "file_name": "a.txt", "text": text }] });
    let sent = client.post(&format!("/v1/batches/{batch}/essays"), body).await.json();
    client.pipeline(&batch, pipeline).await;
    client.until_settled(&batch).await;
    (batch, sent["essays"][0]["text_storage_id"].as_str().expect("an id").to_owned())
}

async fn is_there(client: &Client, path: &str) -> bool {
    match client.get(path).await.status {
        200 => true,
        404 => false,
        status => panic!("{path}: {status}"),
    }
}

async fn listed(client: &Client, path: &str, name: &str) -> usize {
    client.get(path).await.json()[name].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn a_batch_that_is_over_goes_with_all_that_belongs_to_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = server(directory.path()).await;
    let client = &server.client;
    let (old, its_text) = batch(client, "An old text, misspeled.", "nlp").await;
    let waiting = client.ready_batch(1).await;
    server.clock.advance(5 * DAY_MS);
    let (young, _) = batch(client, "A young text.", "spellcheck").await;
    server.clock.advance(5 * DAY_MS - 1);
    server.app.engine().sweep().await.expect("swept");
    assert!(is_there(client, &format!("/v1/batches/{old}/status")).await, "its time has not come");
    server.clock.advance(1);
    server.app.engine().sweep().await.expect("swept");
    assert!(!is_there(client, &format!("/v1/batches/{old}/status")).await);
    assert!(!is_there(client, &format!("/v1/batches/{old}/phases/nlp/attempts")).await);
    assert!(!is_there(client, &format!("/v1/content/{its_text}")).await);
    assert!(is_there(client, &format!("/v1/batches/{young}/status")).await);
    assert!(is_there(client, &format!("/v1/batches/{waiting}/status")).await, "it was never over");
    assert_eq!(listed(client, "/v1/batches", "batches").await, 2);
    assert_eq!(client.retry(&old, json!({ "phase_name": "nlp" })).await.status, 404);
    server.app.stop().await;
    verify(directory.path());
}

#[tokio::test]
async fn a_retry_makes_a_batch_young_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = server(directory.path()).await;
    let client = &server.client;
    let (batch, text) = batch(client, "A text.", "nlp").await;
    server.clock.advance(9 * DAY_MS);
    assert_eq!(client.retry(&batch, json!({ "phase_name": "nlp" })).await.status, 202);
    client.until_settled(&batch).await;
    server.clock.advance(9 * DAY_MS);
    server.app.engine().sweep().await.expect("swept");
    assert!(is_there(client, &format!("/v1/batches/{batch}/status")).await);
    assert!(is_there(client, &format!("/v1/content/{text}")).await);
    server.app.stop().await;
    verify(directory.path());
}

#[tokio::test]
async fn a_text_goes_with_the_last_batch_that_refers_to_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = server(directory.path()).await;
    let client = &server.client;
    let (first, text) = batch(client, "The same text, mispelled.", "spellcheck").await;
    server.clock.advance(5 * DAY_MS);
    let (second, same) = batch(client, "The same text, mispelled.", "spellcheck").await;
    assert_eq!(text, same);
    server.clock.advance(5 * DAY_MS);
    server.app.engine().sweep().await.expect("swept");
    assert!(!is_there(client, &format!("/v1/batches/{first}/status")).await);
    assert!(is_there(client, &format!("/v1/content/{text}")).await, "the second refers to it");
    server.clock.advance(5 * DAY_MS);
    server.app.engine().sweep().await.expect("swept");
    assert!(!is_there(client, &format!("/v1/batches/{second}/status")).await);
    assert!(!is_there(client, &format!("/v1/content/{text}")).await);
    server.app.stop().await;
    verify(directory.path());
}

#[tokio::test]
async fn jobs_that_have_ended_and_dead_letters_go_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = server(directory.path()).await;
    let client = &server.client;
    let ended = client.post("/v1/retry-jobs", json!({ "filter": {}, "phase": "nlp" })).await;
    assert_eq!(ended.json()["status"], "finished");
    client.registered_batch(1).await;
    client.registered_batch(1).await;
    let running = client.post("/v1/retry-jobs", json!({ "filter": {}, "phase": "nlp", "per_second": 1 })).await;
    assert_eq!(running.json()["status"], "running");
    let message = request_message(Uuid::new_v4(), &Uuid::new_v4().to_string(), OWNER, "nlp", false);
    server.app.engine().publish(message).await.expect("published");
    while listed(client, "/internal/v1/dead-letters", "dead_letters").await == 0 {
        tokio::task::yield_now().await;
    }
    server.app.engine().sweep().await.expect("swept");
    assert_eq!(listed(client, "/v1/retry-jobs", "jobs").await, 2);
    server.clock.advance(10 * DAY_MS);
    // The one that was running has just come to its end, so it is young.
    while client.get("/v1/retry-jobs").await.json()["jobs"][0]["status"] == "running" {
        tokio::task::yield_now().await;
    }
    server.app.engine().sweep().await.expect("swept");
    let jobs: Value = client.get("/v1/retry-jobs").await.json();
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(1));
    assert_eq!(jobs["jobs"][0]["job_id"], running.json()["job_id"]);
    assert_eq!(listed(client, "/internal/v1/dead-letters", "dead_letters").await, 0);
    server.app.stop().await;
    verify(directory.path());
}

#[tokio::test]
async fn without_retention_nothing_goes() {
    let server = Server::start(Setup::default()).await;
    let (batch, _) = batch(&server.client, "A text.", "spellcheck").await;
    server.clock.advance(10_000 * DAY_MS);
    server.app.engine().sweep().await.expect("swept");
    assert!(is_there(&server.client, &format!("/v1/batches/{batch}/status")).await);
}

#[tokio::test]
async fn a_backup_still_has_what_goes_while_it_is_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = server(directory.path()).await;
    batch(&server.client, "A text of its own, mispelled.", "spellcheck").await;
    server.app.stop().await;
    let mut before = Vec::new();
    let mut write = |line| {
        before.push(line);
        true
    };
    rephase::app::backup(directory.path(), "now", &mut write).expect("it can be read");

    let store = Store::open(&store::Options::new(directory.path()), Box::new(|_| {})).expect("it opens");
    let snapshot = store.snapshot().expect("the only one");
    let mut removal = Commit::new();
    let mut removed = 0;
    for old in store.old(Millis(u64::MAX - 1), None, 100).expect("readable") {
        if let Aged::Batch(id) = old.aged {
            let batch = store.batch(id).expect("readable").expect("it is there");
            store.remove_batch(&mut removal, &batch).expect("readable");
            removed += 1;
        }
    }
    store.commit(removal).await.expect("committed");
    assert_eq!(removed, 1);
    let mut during = Vec::new();
    let mut write = |line| {
        during.push(line);
        true
    };
    store::backup(&snapshot, "now", &mut write).expect("it can be read");
    assert_eq!(during, before, "it is the store as it was");
}
