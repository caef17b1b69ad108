//! The promise "a newer version reads what an older one wrote": stores of every format version, written by the version
//! that had it and killed in the middle of its work, open and show the same.
//!
//! Each has batches that wait for essays, are ready, completed, failed in part, run, wait for their next attempt, and
//! were cancelled; beside it lies what their version said of them.

mod harness;

use std::path::Path;

use harness::{Client, Server, Setup, database, kept, no_automatic_retry, start_app, verify};
use rephase::app::App;
use rephase::clock::ManualClock;
use rephase::domain::{Millis, Rules};
use serde_json::{Value, json};

/// The versions whose stores lie in tests/fixtures/stores.
const VERSIONS: [&str; 8] = ["v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8"];

/// The versions whose backups lie in tests/fixtures/backups.
const BACKUPS: [&str; 1] = ["v1"];

/// The owner of the batches in them.
const OWNER: &str = "gold";

/// Copies the store of `version` to where it may be changed, and gives what its version said of it.
fn unpack(version: &str, into: &Path) -> Vec<Value> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stores").join(version);
    std::fs::create_dir_all(into.join("store/blobs")).expect("a directory");
    for part in ["", "store", "journal", "events"] {
        // Those of before there was a journal, or files of events, have none.
        for file in std::fs::read_dir(fixture.join(part)).into_iter().flatten() {
            let file = file.expect("an entry");
            if file.path().is_file() && file.path().extension().is_none_or(|extension| extension != "json") {
                std::fs::create_dir_all(into.join(part)).expect("a directory");
                std::fs::copy(file.path(), into.join(part).join(file.file_name())).expect("copied");
            }
        }
    }
    let said = std::fs::read_to_string(fixture.join("expected.json")).expect("what it said");
    serde_json::from_str(&said).expect("a list of batches")
}

/// Checks that what lies in `directory` opens, twice, and says the same as its version did.
async fn opens_and_says_the_same(version: &str, directory: &Path, expected: &[Value]) {
    // Workers take an hour, so that what ran is still running.
    let setup = || Setup { data: kept(directory), latency_ms: 3_600_000..=3_600_000, ..Setup::default() };
    // The second start finds what the first one brought up to date.
    for start in 1..=2 {
        let server = Server::start(setup()).await;
        let client = server.client.as_user(OWNER);
        for was in expected {
            let id = was["batch_id"].as_str().expect("an id");
            let mut is = client.status(id).await;
            if was["details"].get("has_prompt").is_none() {
                // Later versions say this too.
                is["details"].as_object_mut().expect("an object").remove("has_prompt");
            }
            if was["status"] != "processing" {
                assert_eq!(&is, was, "{version}, start {start}");
            }
            assert_eq!(is["status"], was["status"]);
        }
        let listed = client.get("/v1/batches").await.json();
        let listed: Vec<_> = listed["batches"].as_array().expect("a list").iter().collect();
        let newest_first: Vec<_> = listed.iter().map(|batch| &batch["batch_id"]).collect();
        assert_eq!(newest_first, expected.iter().rev().map(|was| &was["batch_id"]).collect::<Vec<_>>(), "{version}");
        let in_part = client.get("/v1/batches?phase_status=completed_with_partial_success").await.json();
        assert_eq!(in_part["batches"].as_array().map(Vec::len), Some(1), "{version}");
        server.app.stop().await;
        verify(directory);
    }
}

#[tokio::test]
async fn a_store_of_every_version_opens_and_says_the_same() {
    for version in VERSIONS {
        let directory = tempfile::tempdir().expect("a directory");
        let expected = unpack(version, directory.path());
        opens_and_says_the_same(version, directory.path(), &expected).await;
    }
}

/// A process may die while it brings a store up to its version.
#[tokio::test]
async fn what_was_brought_up_in_part_is_brought_up_to_its_end() {
    for (version, moved) in [("v1", 1), ("v4", 3), ("v4", 20)] {
        let directory = tempfile::tempdir().expect("a directory");
        let expected = unpack(version, directory.path());
        {
            let tree = database(directory.path()).open_tree("rephase").expect("a tree");
            let parts = [(b'd', 0), (b'e', 1), (b'r', 2), (b'a', 3)];
            let old = parts.iter().flat_map(|(prefix, place)| {
                tree.scan_prefix([*prefix]).map(|entry| (*place, entry.expect("readable"))).collect::<Vec<_>>()
            });
            let some: Vec<_> = old.take(moved).collect();
            assert_eq!(some.len(), moved, "{version} has so many");
            for (place, (key, value)) in some {
                tree.insert([b"b", &key[1..17], &[place], &key[17..]].concat(), value).expect("written");
                tree.remove(key).expect("removed");
            }
            tree.flush().expect("flushed");
        }
        opens_and_says_the_same(version, directory.path(), &expected).await;
    }
}

/// A server by whose clock an hour and more has passed since the newest of these batches was registered: whatever waits
/// for its next attempt does so for less.
async fn an_hour_later(directory: &Path, expected: &[Value]) -> (App, Client) {
    let newest = expected.last().expect("there are batches");
    let written: jiff::Timestamp =
        newest["details"]["registered_at"].as_str().and_then(|time| time.parse().ok()).expect("a time");
    let later = u64::try_from(written.as_millisecond() + 4_000_000).expect("after 1970");
    let rules = Rules { max_user_retries: 100, ..no_automatic_retry() };
    let setup = Setup { data: kept(directory), rules, ..Setup::default() };
    let app = start_app(setup, ManualClock::new(Millis(later)).clock()).await.expect("it opens");
    let client = Client::new(&format!("http://{}", app.address())).as_user(OWNER);
    (app, client)
}

#[tokio::test]
async fn what_an_older_version_left_running_is_finished() {
    for version in VERSIONS {
        let directory = tempfile::tempdir().expect("a directory");
        let expected = unpack(version, directory.path());
        let (app, client) = an_hour_later(directory.path(), &expected).await;
        for was in expected.iter().filter(|was| was["status"] == "processing") {
            let status = client.until_settled(was["batch_id"].as_str().expect("an id")).await;
            assert_eq!(status["status"], "completed_successfully", "{version}: {status:#}");
        }
        app.stop().await;
    }
}

/// In format 7 the newest attempts lay alone, and older ones eight together. In format 8 all lay beside their batch.
#[tokio::test]
async fn a_ledger_of_before_is_read_and_added_to() {
    for version in ["v7", "v8"] {
        is_read_and_added_to(version).await;
    }
}

async fn is_read_and_added_to(version: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let batches = unpack(version, directory.path());
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stores").join(version);
    let fixture = fixture.join("attempts.json");
    let said = std::fs::read_to_string(fixture).expect("what it said");
    let said: Value = serde_json::from_str(&said).expect("the attempts of a batch");
    let (id, mut expected) = (said["batch_id"].as_str().expect("an id"), said["attempts"].as_array().cloned());
    let expected = expected.as_mut().expect("a list");
    let (app, client) = an_hour_later(directory.path(), &batches).await;
    let path = |query: &str| format!("/v1/batches/{id}/phases/spellcheck/attempts?{query}");
    assert_eq!(client.get(&path("limit=200")).await.json()["attempts"].as_array(), Some(&*expected), "{version}");
    for number in expected.len() + 1..=80 {
        let asked = json!({ "phase_name": "spellcheck", "force": true });
        let answer = client.retry(id, asked).await;
        assert_eq!(answer.status, 202, "{version} {number} {}", answer.text);
        client.until_settled(id).await;
        let newest = client.get(&path(&format!("from={number}"))).await.json();
        assert_eq!(newest["attempts"][0]["attempt"], number);
        expected.extend(newest["attempts"].as_array().cloned().into_iter().flatten());
        assert_eq!(client.get(&path("limit=200")).await.json()["attempts"].as_array(), Some(&*expected));
    }
    app.stop().await;
    verify(directory.path());
}

#[test]
fn a_backup_of_every_version_is_restored() {
    for version in BACKUPS {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/backups/{version}.jsonl"));
        let elsewhere = tempfile::tempdir().expect("a directory");
        let directory = elsewhere.path().join("restored");
        let restored = rephase::app::restore(&directory, &fixture).expect("it is whole");
        assert_eq!((restored.checked.batches, restored.checked.violations), (7, 0), "{version}");
        verify(&directory);
    }
}
