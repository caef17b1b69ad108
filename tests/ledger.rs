//! The promise "every attempt is on record": however many a phase has, and however they lie in the store.

mod harness;

use std::fs;
use std::path::Path;

use harness::{Client, Server, Setup, backup, database, kept, no_automatic_retry, verify, violations};
use rephase::app;
use rephase::domain::Rules;
use serde_json::{Value, json};

/// How many attempts the phase of a test has.
const ATTEMPTS: u32 = 75;

fn setup(directory: &Path) -> Setup {
    let rules = Rules { max_user_retries: ATTEMPTS, ..no_automatic_retry() };
    Setup { data: kept(directory), rules, ..Setup::default() }
}

/// How many keys there are beside the batch, and how many volumes.
fn attempt_keys(directory: &Path) -> (usize, usize) {
    let tree = database(directory).open_tree("rephase").expect("a tree");
    let is_attempt = |key: &sled::Result<sled::IVec>| key.as_ref().is_ok_and(|key| key.get(17) == Some(&3));
    (tree.scan_prefix(b"b").keys().filter(is_attempt).count(), tree.scan_prefix(b"A").count())
}

async fn numbers(client: &Client, batch: &str, query: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/batches/{batch}/phases/spellcheck/attempts?{query}")).await.json();
    let attempts = page["attempts"].as_array().expect("a list");
    attempts.iter().map(|attempt| attempt["attempt"].clone()).collect()
}

/// Every attempt is found, from wherever one looks.
async fn shows_them_all(client: &Client, batch: &str) {
    assert_eq!(numbers(client, batch, "limit=200").await, (1..=ATTEMPTS).collect::<Vec<_>>());
    for from in 1..=ATTEMPTS {
        let some = numbers(client, batch, &format!("limit=3&from={from}")).await;
        assert_eq!(some, (from..=ATTEMPTS).take(3).collect::<Vec<_>>(), "from {from}");
    }
}

#[tokio::test]
async fn many_attempts_at_a_phase_are_all_there_and_take_few_keys() {
    let (first, second) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let server = Server::start(setup(first.path())).await;
    let client = &server.client;
    let batch = client.ready_batch(1).await;
    client.pipeline(&batch, "spellcheck").await;
    for number in 1..ATTEMPTS {
        client.until_settled(&batch).await;
        let asked = json!({ "phase_name": "spellcheck", "force": true, "retry_reason": format!("reason {number}") });
        assert_eq!(client.retry(&batch, asked).await.status, 202);
    }
    client.until_settled(&batch).await;
    shows_them_all(client, &batch).await;
    let status = client.status(&batch).await;
    server.app.stop().await;
    verify(first.path());
    assert_eq!(attempt_keys(first.path()), (2, 1), "eight, and three; and what is older");

    // All are there after a start, and in a backup each is alone.
    let server = Server::start(setup(first.path())).await;
    shows_them_all(&server.client, &batch).await;
    assert_eq!(server.client.status(&batch).await, status);
    server.app.stop().await;
    let lines = backup(first.path());
    let file = second.path().join("backup.jsonl");
    fs::write(&file, lines.join("\n") + "\n").expect("written");
    let restored = second.path().join("restored");
    let checked = app::restore(&restored, &file).expect("it is whole").checked;
    assert_eq!((checked.attempts, checked.violations), (u64::from(ATTEMPTS), 0));
    assert_eq!(backup(&restored), lines, "nothing was lost and nothing was added");
    assert_eq!(attempt_keys(&restored), (2, 1), "they lie as they did");
    let server = Server::start(setup(&restored)).await;
    shows_them_all(&server.client, &batch).await;
    server.app.stop().await;

    // What is older belongs to its batch, under its number, and none of it may be missing.
    let tree = database(first.path()).open_tree("rephase").expect("a tree");
    let (key, value) = tree.scan_prefix(b"A").next().expect("a volume").expect("readable");
    drop(tree);
    for (place, said) in [(16, "belongs to a batch that is not there"), (21, "lies under another number")] {
        let mut other = key.to_vec();
        other[place] ^= 1;
        {
            let tree = database(first.path()).open_tree("rephase").expect("a tree");
            tree.remove(&key).expect("removed").expect("it was there");
            tree.insert(&other, &value).expect("inserted");
        }
        let found = violations(first.path());
        assert!(found.iter().any(|found| found.contains(said)), "{found:?}");
        let tree = database(first.path()).open_tree("rephase").expect("a tree");
        tree.remove(&other).expect("removed");
        tree.insert(&key, &value).expect("inserted");
    }
    database(first.path()).open_tree("rephase").expect("a tree").remove(&key).expect("removed");
    let found = violations(first.path());
    assert!(found.iter().any(|found| found.contains("attempts, and there are")), "{found:?}");
}
