//! A store that is damaged, foreign or too new is refused with a way back, and nothing of it is touched; a disk that
//! takes no more writes ends the program, and loses nothing that was acknowledged.

mod harness;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use harness::{Client, Process, database, run, verify};
use reqwest::Method;
use serde_json::json;

/// Every file below, but the lock, with what is in it.
fn files(directory: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else if !path.ends_with("LOCK") {
            found.insert(path.clone(), fs::read(&path).expect("readable"));
        }
    }
    found
}

/// A directory with some batches in it, whose log has several segments.
async fn store_of_batches() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::serve(&["--data-dir", directory.path().to_str().expect("a path"), "--latency-ms", "0"]);
    for number in 0..6 {
        let batch = process.client.registered_batch(1).await;
        let text = format!("{number} ").repeat(100_000);
        let essays = json!({ "essays": [{ "file_name": "a.txt", "text": text }] });
        let sent = process.client.post(&format!("/v1/batches/{batch}/essays"), essays).await;
        assert_eq!(sent.status, 202, "{}", sent.text);
    }
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0));
    directory
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}

/// A start has to fail, say `why` and what to do, and leave every file as it is. So has a check.
fn must_be_refused(directory: &Path, why: &str, way_back: &str) {
    let before = files(directory);
    let data = directory.to_str().expect("a path");
    for (arguments, wanted) in [(&["serve", "--listen", "127.0.0.1:0"][..], 1), (&["verify"], 2)] {
        // One that starts all the same would serve for ever.
        let mut command = Command::new("timeout");
        command.args(["20", env!("CARGO_BIN_EXE_rephase")]).args(arguments).args(["--data-dir", data]);
        let (code, output, errors) = run(command);
        assert_eq!((code, output.as_str()), (wanted, ""), "{errors}");
        let said = errors.lines().last().unwrap_or_default();
        assert!(said.starts_with("rephase: ") && said.contains(why) && said.contains(way_back), "{errors}");
        assert!(files(directory) == before, "something was touched");
    }
}

#[tokio::test]
async fn a_log_that_was_cut_short_is_refused() {
    let sound = store_of_batches().await;
    let bytes = fs::metadata(sound.path().join("store/db")).expect("a log").len();
    assert!(bytes > 1_024 * 1_024, "{bytes}");
    for left in [0, 1_000, 524_288, bytes / 2, bytes - 524_288] {
        let damaged = tempfile::tempdir().expect("a directory");
        copy(sound.path(), damaged.path());
        let log = OpenOptions::new().write(true).open(damaged.path().join("store/db")).expect("a log");
        log.set_len(left).expect("cut");
        must_be_refused(damaged.path(), "cannot be opened", "backup");
    }
    fs::remove_file(sound.path().join("store/db")).expect("removed");
    let (code, _, errors) = run(Process::command(&["--data-dir", sound.path().to_str().expect("a path")]));
    assert!(code == 1 && errors.contains("its log is gone") && errors.contains("backup"), "{errors}");
    assert!(!sound.path().join("store/db").exists(), "an empty store took its place");
}

#[tokio::test]
async fn a_log_whose_newest_segment_is_unreadable_is_refused() {
    let sound = store_of_batches().await;
    let damaged = tempfile::tempdir().expect("a directory");
    copy(sound.path(), damaged.path());
    let log = OpenOptions::new().read(true).write(true).open(damaged.path().join("store/db")).expect("a log");
    let last = (log.metadata().expect("a log").len() - 1) / 524_288 * 524_288;
    let mut header = [0; 20];
    log.read_exact_at(&mut header, last).expect("a header");
    for byte in &mut header {
        *byte ^= 0xff;
    }
    log.write_all_at(&header, last).expect("written");
    must_be_refused(damaged.path(), "cannot be opened", "backup");

    let process = Process::serve(&["--data-dir", sound.path().to_str().expect("a path")]);
    assert_eq!(process.client.get("/v1/batches").await.json()["batches"].as_array().map(Vec::len), Some(6));
}

#[tokio::test]
async fn events_that_are_lost_are_not_taken_for_others() {
    let sound = store_of_batches().await;
    let file = fs::read_dir(sound.path().join("events")).expect("there are some").next().expect("one").expect("one");
    let damaged = tempfile::tempdir().expect("a directory");
    copy(sound.path(), damaged.path());
    let path = damaged.path().join("events").join(file.file_name());
    let events = OpenOptions::new().write(true).open(&path).expect("a file");
    events.set_len(file.metadata().expect("a length").len() - 100).expect("cut");
    must_be_refused(damaged.path(), "was cut short", "without that file");

    // The way back: the file goes, with what was in it, and nobody takes what comes then for what was there.
    fs::remove_file(path).expect("removed");
    for directory in [&sound, &damaged] {
        let process = Process::serve(&["--data-dir", directory.path().to_str().expect("a path")]);
        process.signal("TERM");
        assert_eq!(process.wait().code(), Some(0));
    }
    verify(damaged.path());
    verify(sound.path());
    let name = |directory: &Path| database(directory).open_tree("rephase").expect("a tree").get(b"u").expect("read");
    assert_ne!(name(damaged.path()).map(|name| name[..8].to_vec()), name(sound.path()).map(|name| name[..8].to_vec()));
}

/// A directory whose server was killed with commits that are in the journal and not yet in the database.
async fn unsettled_store() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::serve(&["--data-dir", directory.path().to_str().expect("a path"), "--latency-ms", "0"]);
    for _ in 0..20 {
        process.client.registered_batch(3).await;
    }
    process.kill();
    directory
}

/// The newest segment of the journal in `directory`.
fn newest_segment(directory: &Path) -> std::path::PathBuf {
    let segments = fs::read_dir(directory.join("journal")).expect("a journal");
    segments.map(|entry| entry.expect("an entry").path()).max().expect("a segment")
}

#[tokio::test]
async fn a_journal_that_lost_something_is_refused() {
    let sound = unsettled_store().await;
    let bytes = fs::metadata(newest_segment(sound.path())).expect("a segment").len();
    for left in [bytes - 1, bytes / 2, 33, 32, 31, 0] {
        let damaged = tempfile::tempdir().expect("a directory");
        copy(sound.path(), damaged.path());
        let segment = OpenOptions::new().write(true).open(newest_segment(damaged.path())).expect("a segment");
        segment.set_len(left).expect("cut");
        must_be_refused(damaged.path(), "cannot be opened", "backup");
    }
    for at in [0, 20, 40, bytes / 2, bytes - 1] {
        let damaged = tempfile::tempdir().expect("a directory");
        copy(sound.path(), damaged.path());
        let segment =
            OpenOptions::new().read(true).write(true).open(newest_segment(damaged.path())).expect("a segment");
        let mut byte = [0];
        segment.read_exact_at(&mut byte, at).expect("there is one");
        segment.write_all_at(&[!byte[0]], at).expect("written");
        must_be_refused(damaged.path(), "cannot be opened", "backup");
    }
    let damaged = tempfile::tempdir().expect("a directory");
    copy(sound.path(), damaged.path());
    fs::remove_file(newest_segment(damaged.path())).expect("removed");
    must_be_refused(damaged.path(), "cannot be opened", "backup");

    let process = Process::serve(&["--data-dir", sound.path().to_str().expect("a path")]);
    assert_eq!(process.client.get("/v1/batches").await.json()["batches"].as_array().map(Vec::len), Some(20));
}

#[tokio::test]
async fn a_seal_that_is_broken_or_gone_is_no_damage() {
    let directory = store_of_batches().await;
    let seal = directory.path().join("SEAL");
    for broken in [Some(&b"nonsense"[..]), Some(b""), None] {
        assert!(seal.exists(), "a store that was closed is sealed");
        match broken {
            Some(bytes) => fs::write(&seal, bytes).expect("written"),
            None => fs::remove_file(&seal).expect("removed"),
        }
        verify(directory.path());
        let process = Process::serve(&["--data-dir", directory.path().to_str().expect("a path")]);
        assert_eq!(process.client.get("/v1/batches").await.json()["batches"].as_array().map(Vec::len), Some(6));
        process.signal("TERM");
        assert_eq!(process.wait().code(), Some(0));
    }
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused() {
    let sound = store_of_batches().await;
    {
        let tree = database(sound.path()).open_tree("rephase").expect("a tree");
        tree.insert(b"f", &99_u32.to_be_bytes()).expect("written");
        tree.flush().expect("flushed");
    }
    // The database may write a snapshot of its log when it is opened, so only the answer is looked at.
    let (code, _, errors) = run(Process::command(&["--data-dir", sound.path().to_str().expect("a path")]));
    assert_eq!(code, 1);
    assert!(errors.contains("format 99") && errors.contains("use the newer version"), "{errors}");
}

#[tokio::test]
async fn an_end_at_which_not_everything_is_put_away_is_told_and_loses_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().to_str().expect("a path");
    let mut command = Process::command(&["--data-dir", data]);
    command.stderr(std::process::Stdio::piped());
    let (process, errors) = Process::spawn_with_errors(command).expect("it starts");
    let batch = process.client.registered_batch(1).await;
    // No events can be settled where their directory has to be.
    fs::write(directory.path().join("events"), "").expect("written");
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(1));
    let said = std::io::read_to_string(errors).expect("text");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("rephase: ") && last.contains("nothing that was answered is lost"), "{said}");
    assert!(last.contains("directory"), "{said}");

    fs::remove_file(directory.path().join("events")).expect("removed");
    verify(directory.path());
    let process = Process::serve(&["--data-dir", data]);
    process.client.status(&batch).await;
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0));
}

#[tokio::test]
async fn a_disk_that_takes_no_more_ends_the_program_and_loses_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().to_str().expect("a path");
    // A file may grow to so many blocks of 512 bytes; past that a write fails instead of ending the process.
    let mut command = Command::new("sh");
    let limited = "trap '' XFSZ; ulimit -f 4096; exec \"$0\" serve --listen 127.0.0.1:0 --data-dir \"$1\"";
    command.args(["-c", limited, env!("CARGO_BIN_EXE_rephase"), data]).env("RUST_LOG", "off");
    command.stdout(std::process::Stdio::piped());
    let process = Process::spawn(command).expect("it starts");
    let mut acknowledged = Vec::new();
    let refused = loop {
        let body = json!({ "expected_essay_count": 400, "course_code": "ENG5" });
        match Client::try_send(process.client.request(Method::POST, "/v1/batches/register").json(&body)).await {
            Ok(answer) if answer.status == 202 => {
                acknowledged.push(answer.json()["batch_id"].as_str().expect("an id").to_owned());
            }
            refused => break refused.expect("whoever is being served is answered"),
        }
        assert!(acknowledged.len() < 10_000, "the disk never gets full");
    };
    assert_eq!((refused.status, &refused.json()["error_code"]), (503, &json!("SERVICE_UNAVAILABLE")));
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(process.wait().code(), Some(1));
    verify(directory.path());
    let process = Process::serve(&["--data-dir", data]);
    for batch in &acknowledged {
        process.client.status(batch).await;
    }
    assert!(!acknowledged.is_empty());
}
