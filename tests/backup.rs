//! The promise "what was backed up comes back": a backup is one moment of the store, whole or refused.

mod harness;

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::{Process, Server, Setup, backup, fill, kept, run, verify};
use rephase::app;
use serde_json::{Value, json};

fn write(file: &Path, lines: &[String]) {
    let mut output = File::create(file).expect("a file");
    for line in lines {
        writeln!(output, "{line}").expect("written");
    }
}

#[tokio::test]
async fn a_restored_store_is_the_same_store() {
    let original = tempfile::tempdir().expect("a directory");
    fill(original.path()).await;
    let lines = backup(original.path());
    let kinds: std::collections::BTreeSet<_> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .map(|line| line["kind"].as_str().or(line["line"].as_str()).expect("a name").to_owned())
        .collect();
    let expected = [
        "answer",
        "attempt",
        "balance",
        "batch",
        "charge",
        "content",
        "dead_letter",
        "details",
        "essays",
        "header",
        "message",
        "message_key",
        "results",
        "retry_job",
        "retry_job_batch",
        "trailer",
    ];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), expected, "there is something of everything");

    let elsewhere = tempfile::tempdir().expect("a directory");
    let (file, directory) = (elsewhere.path().join("backup.jsonl"), elsewhere.path().join("restored"));
    write(&file, &lines);
    let restored = app::restore(&directory, &file).expect("it is whole");
    assert_eq!((restored.created_at.as_str(), restored.checked.violations), ("2026-03-02T08:30:00Z", 0));
    assert_eq!(restored.checked.batches, 7);
    verify(&directory);
    assert_eq!(backup(&directory), lines, "nothing was lost and nothing was added");
    verify(original.path());

    // And it goes on from there.
    let server = Server::start(Setup { data: kept(&directory), ..Setup::default() }).await;
    let listed = server.client.get("/v1/batches").await.json();
    assert_eq!(listed["batches"].as_array().map(Vec::len), Some(7));
    let running = listed["batches"].as_array().expect("a list").iter().find(|batch| {
        batch["phases"]["ai_feedback"]["status"] == "dispatch_initiated"
            || batch["phases"]["ai_feedback"]["status"] == "in_progress"
    });
    let batch = running.and_then(|batch| batch["batch_id"].as_str()).map(str::to_owned);
    if let Some(batch) = batch {
        server.client.until_settled(&batch).await;
    }
}

#[tokio::test]
async fn a_backup_of_a_busy_server_is_one_moment_of_it() {
    let server = Arc::new(Server::start(Setup::default()).await);
    let mut before = Vec::new();
    for _ in 0..20 {
        let batch = server.client.ready_batch(3).await;
        server.client.pipeline(&batch, "ai_feedback").await;
        before.push(batch);
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..8)
        .map(|number| {
            let (client, is_over) = (server.client.clone(), Arc::clone(&is_over));
            let batch = before[number].clone();
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    client.until_settled(&batch).await;
                    client.retry(&batch, json!({ "phase_name": "nlp", "force": true })).await;
                    client.ready_batch(2).await;
                }
            })
        })
        .collect();
    let elsewhere = tempfile::tempdir().expect("a directory");
    for number in 0..5 {
        let acknowledged = server.client.registered_batch(1).await;
        let answer = server.client.get("/internal/v1/backup").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"));
        let file = elsewhere.path().join(format!("{number}.jsonl"));
        std::fs::write(&file, &answer.text).expect("written");
        let directory = elsewhere.path().join(number.to_string());
        // The checker would find a record of one moment beside a timer, an attempt or a result of another.
        let restored = app::restore(&directory, &file).expect("it is one moment");
        assert!(restored.checked.batches > 20 && restored.checked.attempts > 0, "{:?}", restored.checked);
        assert!(answer.text.contains(&acknowledged.replace('-', "")), "what was acknowledged before is in it");
    }
    is_over.store(true, Ordering::Relaxed);
    for busy in busy {
        busy.await.expect("it worked");
    }
}

#[tokio::test]
async fn there_is_one_backup_at_a_time_and_one_that_is_left_ends() {
    let server = Server::start(Setup::default()).await;
    // Enough that it does not fit into what the connection buffers.
    for number in 0..40 {
        let batch = server.client.registered_batch(1).await;
        let text = format!("{number} ").repeat(200_000);
        let body = json!({ "essays": [{ "file_name": "a.txt", "text": text }] });
        assert_eq!(server.client.post(&format!("/v1/batches/{batch}/essays"), body).await.status, 202);
    }
    let request = server.client.request(reqwest::Method::GET, "/internal/v1/backup");
    let unread = request.send().await.expect("it begins");
    let second = server.client.get("/internal/v1/backup").await;
    assert_eq!(second.status, 409, "{}", &second.text[..second.text.len().min(200)]);
    drop(unread);
    let began = std::time::Instant::now();
    while server.client.get("/internal/v1/backup").await.status == 409 {
        assert!(began.elapsed() < harness::PATIENCE, "the one that was left did not end");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_not_whole_is_refused_and_leaves_nothing() {
    let original = tempfile::tempdir().expect("a directory");
    fill(original.path()).await;
    let whole = backup(original.path());
    let elsewhere = tempfile::tempdir().expect("a directory");
    let (file, directory) = (elsewhere.path().join("backup.jsonl"), elsewhere.path().join("restored"));
    let changed = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = whole.clone();
        change(&mut lines);
        lines
    };
    for (what, lines, reason) in [
        ("no end", changed(&|lines| _ = lines.pop()), "it is not whole"),
        ("a line less", changed(&|lines| _ = lines.remove(3)), "it is not whole"),
        ("a line twice", changed(&|lines| lines.insert(3, lines[3].clone())), "it is not whole"),
        ("another text", changed(&|lines| lines[2] = lines[2].replacen('1', "2", 1)), "it is not whole"),
        ("no beginning", changed(&|lines| _ = lines.remove(0)), "it does not begin with a header"),
        ("no JSON", changed(&|lines| lines[4] = "{".to_owned()), "line 5"),
        ("nothing", Vec::new(), "it is not whole"),
        (
            "another version",
            changed(&|lines| lines[0] = lines[0].replace("\"backup_version\":1", "\"backup_version\":9")),
            "it has the version 9",
        ),
        (
            "a newer store",
            changed(&|lines| lines[0] = lines[0].replace("\"store_format\":", "\"store_format\":9")),
            "the store has format 9",
        ),
    ] {
        write(&file, &lines);
        let error = app::restore(&directory, &file).expect_err(what);
        let said = format!("{error:#}");
        assert!(said.contains(reason), "{what}: {said}");
        assert!(std::fs::read_dir(&directory).map_or(0, Iterator::count) == 0, "{what}: something is left");
    }
    write(&file, &whole);
    let error = app::restore(original.path(), &file).expect_err("it is not empty");
    assert!(error.to_string().contains("it is not empty"), "{error}");
    verify(original.path());
}

/// What others may do with what is at `path` and below it.
fn open_to_others(path: &Path, found: &mut Vec<String>) {
    let about = path.metadata().expect("it is there");
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        found.push(format!("{} {mode:o}", path.display()));
    }
    if about.is_dir() {
        for entry in std::fs::read_dir(path).expect("a directory") {
            open_to_others(&entry.expect("an entry").path(), found);
        }
    }
}

#[tokio::test]
async fn a_state_and_its_backup_are_for_their_owner_alone() {
    let elsewhere = tempfile::tempdir().expect("a directory");
    let (data, copy) = (elsewhere.path().join("data"), elsewhere.path().join("copy"));
    let (file, stopped) = (elsewhere.path().join("backup.jsonl"), elsewhere.path().join("stopped.jsonl"));
    // One that was there keeps what it is, and others were given.
    let shared = elsewhere.path().join("shared");
    std::fs::create_dir(&shared).expect("made");
    std::fs::set_permissions(&shared, Permissions::from_mode(0o750)).expect("set");
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    // As most systems have it.
    let rephase = |arguments: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask 022; exec {} {arguments}", env!("CARGO_BIN_EXE_rephase"))]);
        command
    };
    let serve = |data: &Path| {
        let mut command = rephase(&format!("serve --listen 127.0.0.1:0 --latency-ms 0 --data-dir {}", text(data)));
        command.stdout(std::process::Stdio::piped());
        Process::spawn(command).expect("it serves")
    };
    let process = serve(&data);
    let batch = process.client.ready_batch(2).await;
    process.client.pipeline(&batch, "nlp").await;
    process.client.until_settled(&batch).await;
    let (code, _, errors) = run(rephase(&format!("backup {} --url {}", text(&file), process.url)));
    assert_eq!(code, 0, "{errors}");
    process.signal("TERM");
    assert!(process.wait().success());
    for arguments in [
        format!("backup {} --data-dir {}", text(&stopped), text(&data)),
        format!("restore {} --data-dir {}", text(&file), text(&copy)),
    ] {
        let (code, _, errors) = run(rephase(&arguments));
        assert_eq!(code, 0, "{errors}");
    }
    let mut found = Vec::new();
    for path in [&data, &copy, &file, &stopped] {
        open_to_others(path, &mut found);
    }
    assert_eq!(found, [""; 0]);
    serve(&shared).kill();
    open_to_others(&shared, &mut found);
    assert_eq!(found, [format!("{} 750", shared.display())]);
}

#[tokio::test]
async fn the_commands_make_a_backup_and_a_directory_of_it() {
    let elsewhere = tempfile::tempdir().expect("a directory");
    let (data, copy) = (elsewhere.path().join("data"), elsewhere.path().join("copy"));
    let file = elsewhere.path().join("backup.jsonl");
    let process = Process::serve(&["--data-dir", data.to_str().expect("a path"), "--latency-ms", "0"]);
    let batch = process.client.ready_batch(2).await;
    process.client.pipeline(&batch, "nlp").await;
    process.client.until_settled(&batch).await;
    let rephase = |arguments: &[&std::ffi::OsStr]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rephase"));
        command.args(arguments);
        run(command)
    };
    let (code, output, errors) =
        rephase(&["backup".as_ref(), file.as_os_str(), "--url".as_ref(), process.url.as_ref()]);
    assert_eq!((code, errors.as_str()), (0, ""), "{output}");
    let status = process.client.status(&batch).await;
    process.kill();

    let (code, output, errors) =
        rephase(&["restore".as_ref(), file.as_os_str(), "--data-dir".as_ref(), copy.as_os_str()]);
    assert_eq!((code, errors.as_str()), (0, ""), "{output}");
    assert!(output.contains("sound: 1 batches"), "{output}");
    let process = Process::serve(&["--data-dir", copy.to_str().expect("a path")]);
    assert_eq!(process.client.status(&batch).await, status);
    process.kill();

    // What is no backup, and what is the beginning of one, is told in plain words.
    let (none, cut) = (elsewhere.path().join("faults.json"), elsewhere.path().join("cut.jsonl"));
    std::fs::write(&none, r#"[{"phase": "nlp", "delay_ms": 5}]"#).expect("written");
    let whole = std::fs::read(&file).expect("a backup");
    std::fs::write(&cut, &whole[..whole.len() / 2]).expect("written");
    for (file, said) in [(&none, "faults.json is no backup of rephase"), (&cut, "cut.jsonl is cut off")] {
        let fresh = elsewhere.path().join("fresh");
        let arguments: [&std::ffi::OsStr; 4] =
            ["restore".as_ref(), file.as_os_str(), "--data-dir".as_ref(), fresh.as_os_str()];
        let (code, _, errors) = rephase(&arguments);
        assert!(code == 1 && errors.contains(said) && !errors.contains("line 1"), "{errors}");
        assert!(!fresh.exists(), "{said}");
    }

    let other = elsewhere.path().join("stopped.jsonl");
    let (code, _, errors) = rephase(&["backup".as_ref(), other.as_os_str(), "--data-dir".as_ref(), data.as_os_str()]);
    assert_eq!(code, 0, "{errors}");
    let (code, _, errors) =
        rephase(&["backup".as_ref(), other.as_os_str(), "--url".as_ref(), "http://127.0.0.1:1".as_ref()]);
    assert_eq!(code, 6);
    assert!(errors.contains("is the server running?"), "{errors}");
    assert!(app::check_backup(&other).is_ok(), "the one that was there is still there");
    assert!(!elsewhere.path().join("stopped.jsonl.partial").exists());
}

#[tokio::test]
async fn a_backup_takes_the_place_of_a_file_and_of_nothing_else() {
    use std::os::unix::fs::{FileTypeExt as _, symlink};
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    fill(&at("data")).await;
    let backup_to = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rephase"));
        command.arg("backup").arg(at(name)).arg("--data-dir").arg(at("data"));
        run(command)
    };
    run({
        let mut command = Command::new("mkfifo");
        command.arg(at("pipe"));
        command
    });
    std::fs::create_dir(at("folder")).expect("made");
    symlink(at("pipe"), at("to-pipe")).expect("made");
    symlink(at("nowhere"), at("to-nowhere")).expect("made");
    for name in ["pipe", "folder", "to-pipe", "to-nowhere"] {
        let (code, _, errors) = backup_to(name);
        assert_eq!(code, 2, "{name}: {errors}");
        assert!(errors.contains("is no regular file") || errors.contains("is a link"), "{name}: {errors}");
        assert!(!at(&format!("{name}.partial")).exists());
    }
    assert!(std::fs::metadata(at("pipe")).expect("there").file_type().is_fifo(), "it is what it was");

    std::fs::write(at("old"), "old").expect("written");
    symlink("old", at("to-file")).expect("made");
    assert_eq!(backup_to("to-file").0, 0);
    assert!(std::fs::symlink_metadata(at("to-file")).expect("there").is_symlink(), "the link stays");
    assert!(app::check_backup(&at("old")).is_ok(), "what it links to has the backup");
}
