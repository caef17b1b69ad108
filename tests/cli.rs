//! The command line as a client: what it does, what it says, and how it ends, for people and for scripts.

mod harness;

#[path = "cli/program.rs"]
mod program;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use harness::{Client, OWNER, PATIENCE, Process, Server, Setup, request_message};
use program::{Ran, Seen, User, answer, bare, command, end, header, seen, serve, stranger};
use rephase::app::{Access, Tokens};
use serde_json::{Value, json};
use uuid::Uuid;

/// A directory with so many texts, something that is none, and a prompt beside it.
fn class(texts: usize) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::create_dir(directory.path().join("class")).expect("made");
    for number in 0..texts {
        write(directory.path(), &format!("class/{number:03}.txt"), &format!("Essay {number}."));
    }
    write(directory.path(), "class/notes.md", "not an essay");
    write(directory.path(), "prompt", "Write.");
    directory
}

fn write(directory: &Path, name: &str, text: &str) {
    fs::write(directory.join(name), text).expect("written");
}

fn path(directory: &tempfile::TempDir, name: &str) -> String {
    directory.path().join(name).to_str().expect("a path").to_owned()
}

/// nlp fails the first time.
fn nlp_fails_once() -> Value {
    json!([{ "phase": "nlp", "attempts": [1], "error_code": "NLP_SERVICE_ERROR", "category": "permanent",
             "message": "no model" }])
}

/// A batch in which nlp has failed.
async fn failed_batch(client: &Client) -> String {
    let batch = client.ready_batch(2).await;
    client.pipeline(&batch, "ai_feedback").await;
    client.until_settled(&batch).await;
    batch
}

#[tokio::test]
async fn a_directory_becomes_a_batch_that_can_be_followed_to_its_end() {
    let server = Server::start(Setup::default()).await;
    let user = User::of(&server);
    let class = class(3);
    let (texts, prompt) = (path(&class, "class"), path(&class, "prompt"));
    let submit = ["batch", "submit", &texts, "--course", "ENG5", "--prompt", &prompt];
    let ran = user.run(&[&submit[..], &["--pipeline", "ai_feedback", "--wait", "--json"]].concat()).await.ended(0);
    let lines = ran.lines();
    assert_eq!((lines.len(), &lines[0]["essays"], ran.errors.as_str()), (2, &json!(3), ""));
    assert_eq!(lines[1]["status"], "completed_successfully");
    let batch = lines[0]["batch_id"].as_str().expect("an id").to_owned();
    assert_eq!(server.client.status(&batch).await, lines[1]);

    // For people the same, without a pipeline.
    let ran = user.run(&submit).await.ended(0).shows(&[": 3 essays"]).said(&["1 left out", "rephase batch run"]);
    let second = ran.output.split_whitespace().nth(1).expect("an id").trim_end_matches(':').to_owned();
    user.run(&["batch", "show", &second]).await.ended(0).shows(&["ready", "rephase batch run"]);
    let ran = user.run(&["batch", "run", &second, "NLP", "--wait"]).await.ended(0);
    ran.shows(&["✓ spellcheck", "✓ nlp", "completed_successfully"]);
    let ran = user.run(&["batch", "run", &second, "nlp", "--wait"]).await.ended(0);
    let ran = ran.shows(&["nothing to run: nlp is complete; only a retry with --force"]);
    ran.said(&[&format!("rephase retry {second} nlp --force")]);

    let listed = user.run(&["batch", "list"]).await.ended(0).shows(&[&batch, &second, "ai_feedback ✓"]);
    assert_eq!(listed.output.lines().count(), 3, "a header and two batches");
    let listed = user.run(&["batch", "list", "--json", "--limit", "1"]).await.ended(0).lines();
    assert_eq!((listed.len(), &listed[0]["batch_id"]), (1, &json!(second)));
    let listed = user.run(&["batch", "list", "--json", "--phase", "ai_feedback", "--since", "9000d"]).await.ended(0);
    assert_eq!(listed.lines().len(), 1);
    assert_eq!(user.run(&["batch", "list", "--status", "failed"]).await.ended(0).output, "");

    let shown = user.run(&["batch", "show", &batch, "--json"]).await.ended(0).lines();
    assert_eq!(shown[0]["attempts"]["ai_feedback"][0]["outcome"], "completed_successfully");
    user.run(&["batch", "watch", &batch]).await.ended(0).shows(&["completed_successfully"]);
    let watched = user.run(&["batch", "watch", &batch, "--json"]).await.ended(0).lines();
    assert_eq!(watched.last().expect("a line")["status"], "completed_successfully");
    user.run(&["batch", "cancel", &batch]).await.ended(4).said(&["CONFLICT", "correlation id", "batch show"]);
    server.app.stop().await;
}

#[tokio::test]
async fn a_retry_ends_by_how_its_phase_did() {
    let server = Server::with_faults(nlp_fails_once()).await;
    let (user, client) = (User::of(&server), &server.client);
    let batch = failed_batch(client).await;
    user.run(&["batch", "watch", &batch]).await.ended(1).said(&["completed_with_failures", "rephase batch show"]);
    let shown = user.run(&["batch", "show", &batch]).await.ended(0);
    let shown = shown.shows(&["NLP_SERVICE_ERROR, permanent, no model", &format!("rephase retry {batch} nlp --wait")]);
    assert!(!shown.output.contains('\u{1b}'), "nobody asked for colours: {shown:?}");

    let before = client.status(&batch).await;
    let preview = user.run(&["retry", &batch, "nlp", "--dry-run", "--json"]).await.ended(0).lines();
    assert_eq!((&preview[0]["status"], &preview[0]["attempt"]), (&json!("dry_run"), &json!(2)));
    user.run(&["retry", &batch, "nlp", "--dry-run"]).await.ended(0).shows(&["would be:", "goes on    ai_feedback"]);
    assert_eq!(client.status(&batch).await, before, "a preview changes nothing");

    let retry = ["retry", &batch, "nlp", "--reason", "a model", "--wait", "--json"];
    let lines = user.run(&retry).await.ended(0).lines();
    assert_eq!((&lines[0]["attempt"], &lines[1]["status"]), (&json!(2), &json!("completed_successfully")));
    assert_eq!(client.attempts(&batch, "nlp").await[1]["reason"], "a model");

    let refused = user.run(&["retry", &batch, "nlp"]).await.ended(4).said(&["CONFLICT", "only a retry with --force"]);
    assert!(!refused.errors.contains("\"force\""), "{refused:?}");
    let ranked = user.run(&["retry", &batch, "cj_assessment", "--essay", "x"]).await.ended(2);
    ranked.said(&["leave --essay and --only-failed out"]);
    let error = user.run(&["retry", &batch, "nlp", "--json"]).await.ended(4).error();
    assert_eq!((&error["exit_code"], &error["error_code"]), (&json!(4), &json!("CONFLICT")));
    assert!(error["correlation_id"].is_string() && error["hint"].is_string(), "{error}");
    user.run(&["retry", &batch, "spellcheck", "--force", "--downstream", "--wait"]).await.ended(0);
    assert_eq!(client.attempts(&batch, "nlp").await.len(), 3, "downstream");
    server.app.stop().await;
}

#[tokio::test]
async fn a_retry_that_fails_again_is_a_failure() {
    let faults =
        json!([{ "phase": "nlp", "error_code": "NLP_SERVICE_ERROR", "category": "permanent", "message": "no" }]);
    let server = Server::with_faults(faults).await;
    let user = User::of(&server);
    let batch = failed_batch(&server.client).await;
    let ran = user.run(&["retry", &batch, "nlp", "--wait"]).await.ended(1);
    let ran = ran.shows(&["✗ nlp", "failed, 2 of 2 essays"]).said(&["nlp ended as failed: no", "rephase batch show"]);
    assert!(!ran.output.contains("spellcheck"), "it came out before: {ran:?}");
    server.app.stop().await;
}

#[tokio::test]
async fn some_essays_can_be_retried() {
    let faults = json!([{ "phase": "nlp", "attempts": [1], "essays": [1], "error_code": "NLP_SERVICE_ERROR",
                          "category": "permanent", "message": "too long" }]);
    let server = Server::with_faults(faults).await;
    let (user, client) = (User::of(&server), &server.client);
    let batch = client.ready_batch(3).await;
    client.pipeline(&batch, "nlp").await;
    client.until_settled(&batch).await;
    let hint = format!("rephase retry {batch} nlp --only-failed --wait");
    user.run(&["batch", "show", &batch]).await.ended(0).shows(&["too long", &hint]);
    let lines = user.run(&["retry", &batch, "nlp", "--only-failed", "--wait", "--json"]).await.ended(0).lines();
    assert_eq!(lines[0]["essay_ids"].as_array().map(Vec::len), Some(1));
    let ids = client.attempts(&batch, "nlp").await[0]["essay_ids"].clone();
    let essays = format!("{},{}", ids[0].as_str().expect("an id"), ids[2].as_str().expect("an id"));
    let retry = ["retry", &batch, "nlp", "--essay", &essays, "--force", "--json"];
    assert_eq!(user.run(&retry).await.ended(0).lines()[0]["essay_ids"], json!([ids[0], ids[2]]));
    user.run(&["retry", &batch, "nlp", "--essay", &essays, "--only-failed"]).await.ended(2);
    server.app.stop().await;
}

#[tokio::test]
async fn a_wait_has_an_end_and_a_cancellation_is_none_that_went_well() {
    let server = Server::with_stuck_workers().await;
    let user = User::of(&server);
    let batch = server.client.ready_batch(1).await;
    let ran = user.run(&["batch", "run", &batch, "nlp", "--wait=1"]).await.ended(1);
    ran.said(&["has not come to rest", "rephase batch watch"]);
    user.run(&["batch", "show", &batch]).await.ended(0).shows(&["processing", "not yet", "rephase batch cancel"]);
    let of_another =
        user.run(&["batch", "show", &batch, "--user", "eve"]).await.ended(0).shows(&["rephase batch watch"]);
    assert!(!of_another.output.contains("rephase batch cancel"), "eve may not: {of_another:?}");
    let watch = tokio::spawn(end(user.command(&["batch", "watch", &batch])));
    let cancelled = user.run(&["batch", "cancel", &batch, "--reason", "enough"]).await.ended(0);
    cancelled.shows(&["is cancelled: spellcheck, nlp"]);
    watch.await.expect("no panic").ended(1).said(&["ended as cancelled"]);
    server.app.stop().await;
}

#[tokio::test]
async fn every_refusal_has_its_exit_code() {
    let server = Server::start(Setup::default()).await;
    let user = User::of(&server);
    let batch = server.client.ready_batch(1).await;
    let unknown = Uuid::now_v7().to_string();
    for (code, arguments) in [
        (0, vec!["batch", "show", &batch[..23]]),
        (2, vec!["batch", "show", "abc"]),
        (2, vec!["batch", "show", "not-an-id"]),
        (2, vec!["batch"]),
        (2, vec!["retry", &batch, "grading"]),
        (2, vec!["batch", "list", "--status", "fine"]),
        (2, vec!["batch", "list", "--limit", "0"]),
        (2, vec!["batch", "submit", "nowhere", "--course", "ENG5"]),
        (2, vec!["retry-job", "create", "nlp"]),
        (2, vec!["health", "--url", "ftp://127.0.0.1"]),
        (2, vec!["batch", "run", &batch, "nlp", "--wait=0"]),
        (2, vec!["batch", "watch", &batch, "--within", "0"]),
        (3, vec!["batch", "show", "ffffffff"]),
        (3, vec!["batch", "show", &unknown]),
        (3, vec!["batch", "watch", &unknown]),
        (3, vec!["retry", &unknown, "nlp"]),
        (3, vec!["retry-job", "show", &unknown]),
        (3, vec!["retry-job", "stop", &unknown]),
        (3, vec!["dead-letter", "show", &unknown]),
        (3, vec!["retry", &batch, "nlp"]),
        (4, vec!["batch", "cancel", &batch]),
        (5, vec!["retry", &batch, "nlp", "--user", "eve"]),
        (6, vec!["batch", "list", "--url", "http://127.0.0.1:1"]),
    ] {
        let ran = user.run(&arguments).await;
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
        assert_eq!(code == 0, ran.errors.is_empty(), "{arguments:?}: {ran:?}");
        let machine = user.run(&[&arguments[..], &["--json"]].concat()).await;
        assert_eq!(machine.code, code, "{arguments:?}: {machine:?}");
    }
    let nobody = end(command(&["batch", "list", "--url", &user.url])).await.ended(5);
    nobody.said(&["--user", "REPHASE_USER", "REPHASE_TOKEN"]);
    let nowhere = bare(&["health", "--url", "http://127.0.0.1:1"]).await.ended(6);
    nowhere.said(&["is the server running?", "rephase serve", "--url"]);
    server.app.stop().await;
}

#[tokio::test]
async fn many_batches_are_retried_by_one_command() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), "faults.json", &nlp_fails_once().to_string());
    let faults = path(&directory, "faults.json");
    let server = Process::serve(&["--ephemeral", "--latency-ms", "0", "--faults", &faults]);
    let user = User { url: server.url.clone() };
    for _ in 0..3 {
        failed_batch(&server.client).await;
    }
    let create = ["retry-job", "create", "nlp", "--phase-status", "failed", "--per-second", "1000"];
    user.run(&["retry-job", "create", "nlp"]).await.ended(2).said(&["--all"]);
    let preview = user.run(&[&create[..], &["--dry-run", "--json"]].concat()).await.ended(0).lines();
    assert_eq!((&preview[0]["would_be_retried"], &preview[0]["total"]), (&json!(3), &json!(3)));
    user.run(&[&create[..], &["--dry-run"]].concat()).await.ended(0).shows(&["3 of 3 batches"]);
    assert_eq!(user.run(&["retry-job", "list", "--json"]).await.ended(0).output, "", "a preview makes none");

    let made = user.run(&[&create[..], &["--reason", "a model", "--wait", "--json"]].concat()).await.ended(0).lines();
    let job = made[0]["job_id"].as_str().expect("an id").to_owned();
    let last = made.last().expect("a line");
    assert_eq!((&last["status"], &last["counts"]["retried"]), (&json!("finished"), &json!(3)));
    user.run(&["retry-job", "watch", &job[..20]]).await.ended(0).shows(&["finished:", "3 retried"]);
    let shown = user.run(&["retry-job", "show", &job, "--json"]).await.ended(0).lines();
    assert_eq!(shown[0]["batches"].as_array().map(Vec::len), Some(3));
    user.run(&["retry-job", "show", &job]).await.ended(0).shows(&["a model", "retried"]);
    user.run(&["retry-job", "list"]).await.ended(0).shows(&[&job, "finished"]);
    // Nothing is left to be retried, and what is not is a failure.
    for batch in shown[0]["batches"].as_array().expect("a list") {
        server.client.until_settled(batch["batch_id"].as_str().expect("an id")).await;
    }
    let all = ["retry-job", "create", "nlp", "--all", "--per-second", "1000", "--wait"];
    user.run(&all).await.ended(1).said(&["3 refused", "rephase retry-job show"]);
    let slow = ["retry-job", "create", "nlp", "--all", "--per-second", "1", "--json"];
    let slow = user.run(&slow).await.ended(0).lines()[0]["job_id"].as_str().expect("an id").to_owned();
    user.run(&["retry-job", "stop", &slow]).await.ended(0).shows(&["is stopped"]);
}

#[tokio::test]
async fn dead_letters_are_seen_and_decided_about() {
    let server = Server::start(Setup::default()).await;
    let (user, client) = (User::of(&server), &server.client);
    let batch = client.ready_batch(1).await;
    for _ in 0..3 {
        let message = request_message(Uuid::new_v4(), &batch, "eve", "nlp", false);
        server.app.engine().publish(message).await.expect("published");
    }
    let began = Instant::now();
    let open = loop {
        let open = user.run(&["dead-letter", "list", "--state", "open", "--json"]).await.ended(0).lines();
        if open.len() == 3 {
            break open;
        }
        assert!(began.elapsed() < PATIENCE, "{open:?}");
    };
    let ids: Vec<_> = open.iter().map(|letter| letter["id"].as_str().expect("an id")).collect();
    user.run(&["dead-letter", "list"]).await.ended(0).shows(&[ids[0], ids[2], "open"]);
    let shown = user.run(&["dead-letter", "show", ids[0]]).await.ended(0);
    shown.shows(&["\"user_id\": \"eve\"", "refused", &format!("rephase dead-letter discard {}", ids[0])]);
    let shown = user.run(&["dead-letter", "show", ids[0], "--json"]).await.ended(0).lines();
    assert_eq!(shown[0]["message"]["envelope"]["data"]["user_id"], "eve");

    let decided = user.run(&["dead-letter", "discard", ids[0], "--json"]).await.ended(0).lines();
    assert_eq!(decided[0]["state"], "discarded");
    user.run(&["dead-letter", "redrive", ids[0]]).await.ended(4).shows(&["it is not open"]).said(&["1 are not open"]);
    let unknown = Uuid::now_v7().to_string();
    user.run(&["dead-letter", "discard", &unknown]).await.ended(3);
    user.run(&["dead-letter", "discard"]).await.ended(2);
    let ran = user.run(&["dead-letter", "redrive", ids[1]]).await.ended(1).shows(&[ids[1], "open", "it came back: "]);
    ran.said(&["1 of 1 came back at once", "rephase dead-letter show LETTER"]);
    let ran = user.run(&["dead-letter", "redrive", ids[1], "--json"]).await.ended(1).lines();
    assert_eq!((&ran[0]["id"], &ran[0]["state"]), (&json!(ids[1]), &json!("open")));
    user.run(&["dead-letter", "discard", "--all"]).await.ended(0).shows(&[ids[2], "discarded"]);
    user.run(&["dead-letter", "list", "--state", "open"]).await.ended(0).said(&["no dead letter fits"]);
    user.run(&["dead-letter", "redrive", "--all"]).await.ended(0).said(&["no dead letter is open"]);
    // One whose cause is mended stays away.
    let early = client.registered_batch(1).await;
    let message = request_message(Uuid::new_v4(), &early, OWNER, "spellcheck", false);
    server.app.engine().publish(message).await.expect("published");
    let began = Instant::now();
    while user.run(&["dead-letter", "list", "--state", "open", "--json"]).await.ended(0).lines().is_empty() {
        assert!(began.elapsed() < PATIENCE, "it is refused");
    }
    client.post(&format!("/v1/batches/{early}/essays"), harness::essays_body(1)).await;
    user.run(&["dead-letter", "redrive", "--all"]).await.ended(0).shows(&["redriven"]);
    server.app.stop().await;
}

#[tokio::test]
async fn what_cannot_be_a_batch_is_told_before_anything_is_sent() {
    let server = Server::start(Setup::default()).await;
    let user = User::of(&server);
    let class = class(1);
    fs::write(class.path().join("broken"), b"\xff\xfe").expect("written");
    write(class.path(), "empty", " \n");
    fs::write(class.path().join("large"), vec![b'a'; 1_024 * 1_024 + 1]).expect("written");
    fs::create_dir(class.path().join("nothing")).expect("made");
    let good = path(&class, "class/000.txt");
    for (name, why) in [
        ("broken", "iconv -f"),
        ("empty", "leave it away"),
        ("large", "more than"),
        ("nothing", "0 texts"),
        ("no", "cannot be read"),
    ] {
        let bad = path(&class, name);
        let paths: &[&str] = if name == "nothing" { &[&bad] } else { &[&good, &bad] };
        user.run(&[&["batch", "submit", "--course", "ENG5"], paths].concat()).await.ended(2).said(&[why]);
    }
    user.run(&["batch", "submit", &good, "--course", "ENG5", "--wait"]).await.ended(2).said(&["--pipeline"]);
    assert_eq!(user.run(&["batch", "list", "--json"]).await.ended(0).output, "");
    // So is that a pipeline needs a prompt, and what the next command can be where there is none.
    let submit = ["batch", "submit", &good, "--course", "ENG5"];
    let ran = user.run(&[&submit[..], &["--pipeline", "nlp", "--wait", "--json"]].concat()).await.ended(2);
    assert!(ran.error()["hint"].as_str().is_some_and(|hint| hint.contains("--prompt FILE")), "{ran:?}");
    assert_eq!(user.run(&["batch", "list", "--json"]).await.ended(0).output, "", "nothing was sent");
    user.run(&submit).await.ended(0).shows(&[": 1 essay\n"]);
    let sent = user.run(&[&submit[..], &["--json"]].concat()).await.ended(0).lines();
    let batch = sent[0]["batch_id"].as_str().expect("an id");
    let shown = user.run(&["batch", "show", batch, "--json"]).await.ended(0).lines();
    let next = shown[0]["next"][0]["command"].as_str().expect("a command").to_owned();
    let next: Vec<_> = next.split_whitespace().skip(1).collect();
    user.run(&next).await.ended(0).shows(&["completed_successfully"]);
    // What is refused once the batch is there names it.
    let id = Uuid::now_v7().to_string();
    let named = id.clone();
    let (user, _) = stranger(move |number| {
        Some(match number {
            0 => answer("202 Accepted", "", &json!({ "batch_id": named })),
            1 => answer("202 Accepted", "", &json!({ "essays": [{}] })),
            _ => answer("400 Bad Request", "", &json!({ "error": "no" })),
        })
    })
    .await;
    let refused = user.run(&[&submit[..], &["--pipeline", "spellcheck", "--json"]].concat()).await.ended(2).error();
    assert_eq!(refused["batch_id"], json!(id));
    assert!(refused["hint"].as_str().is_some_and(|hint| hint.contains("rephase batch show")), "{refused}");
    server.app.stop().await;
}

#[tokio::test]
async fn more_than_fits_into_one_request_is_sent_in_several() {
    let server = Server::start(Setup::default()).await;
    let user = User::of(&server);
    let class = class(101);
    for number in 0..8 {
        fs::write(class.path().join(format!("class/{number:03}.txt")), vec![b'"'; 1_024 * 1_024]).expect("written");
    }
    let texts = path(&class, "class");
    let submit = ["batch", "submit", &texts, "--course", "SV1", "--pipeline", "spellcheck", "--wait", "--json"];
    let lines = user.run(&submit).await.ended(0).lines();
    assert_eq!(lines[1]["pipeline_state"]["spellcheck"]["essay_counts"]["successful"], 101);
    server.app.stop().await;
}

#[tokio::test]
async fn a_class_runs_once_its_students_are_confirmed() {
    let server = Server::start(Setup::default()).await;
    let user = User::of(&server);
    let class = class(2);
    let texts = path(&class, "class");
    let submit = ["batch", "submit", &texts, "--course", "ENG5", "--class", "7b", "--pipeline", "spellcheck", "--wait"];
    user.run(&submit).await.ended(0).shows(&["completed_successfully"]);
    server.app.stop().await;
}

#[tokio::test]
async fn a_token_is_signed_for_whom_it_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let secret = "a secret of thirty-two bytes, or so";
    write(directory.path(), "secret", &format!("{secret}\n"));
    write(directory.path(), "empty", "\n");
    let (file, empty) = (path(&directory, "secret"), path(&directory, "empty"));
    let access = Access { tokens: Some(Tokens::new(secret.as_bytes())), ..Access::default() };
    let setup = Setup { access, ..Setup::default() };
    let server = Server::start(setup).await;
    // The server's time is of the past, when this was not yet valid and will not have expired.
    let sign = ["token", "teacher-7", "--secret-file", &file, "--org", "school-1", "--expires-in", "2d"];
    let token = bare(&sign).await.ended(0).output.trim().to_owned();
    let http = harness::http_client().build().expect("a client");
    let listen = format!("http://{}/v1/notifications/stream", server.app.address());
    let listening = http.get(&listen).bearer_auth(&token).send().await.expect("answered");
    assert_eq!(listening.status(), 200);
    let forged = format!("{}x", &token[..token.len() - 2]);
    assert_eq!(http.get(&listen).bearer_auth(&forged).send().await.expect("answered").status(), 401);
    drop(listening);

    let signed = bare(&[&sign[..], &["--json"]].concat()).await.ended(0).lines();
    let claims = signed[0]["token"].as_str().and_then(|token| token.split('.').nth(1)).expect("claims").to_owned();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).expect("base64");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    assert_eq!((&claims["sub"], &claims["org_id"]), (&json!("teacher-7"), &json!("school-1")));
    assert_eq!((&claims["aud"], &claims["iss"]), (&json!("huleedu-platform"), &json!("huleedu-identity-service")));
    let good_for = claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(exp, iat)| exp - iat);
    assert_eq!(good_for, Some(2 * 86_400));

    write(directory.path(), "short", "short");
    let short = bare(&["token", "me", "--secret-file", &path(&directory, "short")]).await.ended(0);
    short.said(&["warning: the secret has 5 bytes", "whoever has it is every user", "head -c 32 /dev/urandom"]);
    bare(&["token", "me", "--secret-file", &empty]).await.ended(2).said(&["anybody could sign"]);
    bare(&["token", "me", "--secret-file", &file, "--expires-in", "2y"]).await.ended(2).said(&["30m"]);
    let given_away = bare(&["token", "me", "--secret", "swordfish"]).await.ended(2);
    assert!(!given_away.errors.contains("swordfish"), "{given_away:?}");
    let given_away = bare(&["batch", "list", "--url", "http://me:swordfish@127.0.0.1:1"]).await.ended(2);
    assert!(!given_away.errors.contains("swordfish"), "{given_away:?}");
    server.app.stop().await;
}

#[tokio::test]
async fn a_token_is_shown_to_the_server() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), "token", "from-a-file\n");
    let (user, requests) = stranger(|_| Some(answer("200 OK", "", &json!({ "batches": [] })))).await;
    let mut from_the_environment = command(&["batch", "list", "--url", &user.url]);
    from_the_environment.env("REPHASE_TOKEN", "from-the-environment");
    end(from_the_environment).await.ended(0);
    let file = path(&directory, "token");
    let mut both = command(&["batch", "list", "--url", &user.url, "--token-file", &file]);
    both.env("REPHASE_TOKEN", "from-the-environment").env("REPHASE_USER", "teacher-7");
    end(both).await.ended(0);
    let requests = seen(&requests);
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    assert_eq!(header(&requests[0], "authorization"), bearer("from-the-environment"));
    assert_eq!(header(&requests[1], "authorization"), bearer("from-a-file"));
    assert_eq!(
        (header(&requests[0], "x-user-id"), header(&requests[1], "x-user-id")),
        (None, Some("teacher-7".to_owned()))
    );
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_is_sent_again_as_the_same() {
    let batch = Uuid::now_v7().to_string();
    let (user, requests) = stranger(|number| match number {
        0 => None,
        1 => {
            Some(answer("409 Conflict", "", &json!({ "error": "a request with this Idempotency-Key is being served" })))
        }
        2 => Some(answer("503 Service Unavailable", "retry-after: 0\r\n", &json!({ "error": "no room" }))),
        _ => Some(answer("202 Accepted", "", &json!({ "attempt": 2, "phase": "nlp", "message": "done" }))),
    })
    .await;
    user.run(&["retry", &batch, "nlp"]).await.ended(0).shows(&["done"]);
    let keys: Vec<_> = seen(&requests).iter().map(|request| header(request, "idempotency-key")).collect();
    assert!(keys.len() == 4 && keys[0].is_some() && keys.iter().all(|key| *key == keys[0]), "{keys:?}");

    // There is an end to it, and a plain conflict is none to wait for.
    let (user, requests) = stranger(|_| None).await;
    user.run(&["retry", &batch, "nlp", "--timeout", "1"]).await.ended(6).said(&["look before you ask again"]);
    assert!((2..=10).contains(&seen(&requests).len()));
    let (user, requests) = stranger(|_| Some(answer("409 Conflict", "", &json!({ "error": "no" })))).await;
    user.run(&["retry", &batch, "nlp"]).await.ended(4);
    assert_eq!(seen(&requests).len(), 1);
    let (user, _) = stranger(|_| Some("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html>".to_owned())).await;
    user.run(&["batch", "list"]).await.ended(6).said(&["is this a server of rephase?"]);
}

#[tokio::test]
async fn what_is_no_answer_of_this_server_is_no_success() {
    let id = Uuid::now_v7().to_string();
    let directory = class(1);
    let text = path(&directory, "class/000.txt");
    for body in [json!(null), json!([]), json!({ "batches": 5, "status": 5, "phase": 5, "phases": 5, "batch_id": 5 })] {
        let (user, _) = stranger(move |_| Some(answer("200 OK", "", &body))).await;
        for arguments in [
            vec!["batch", "list"],
            vec!["batch", "show", &id],
            vec!["batch", "watch", &id],
            vec!["batch", "run", &id, "nlp"],
            vec!["batch", "cancel", &id],
            vec!["batch", "submit", &text, "--course", "ENG5"],
            vec!["retry", &id, "nlp"],
            vec!["retry-job", "create", "nlp", "--all"],
            vec!["retry-job", "create", "nlp", "--all", "--dry-run"],
            vec!["retry-job", "list"],
            vec!["retry-job", "show", &id],
            vec!["retry-job", "stop", &id],
            vec!["dead-letter", "list"],
            vec!["dead-letter", "show", &id],
            vec!["dead-letter", "discard", &id],
        ] {
            let ran = user.run(&arguments).await.ended(6).said(&["is this a server of rephase?"]);
            assert!(ran.output.is_empty() && !ran.errors.contains("does not answer"), "{arguments:?}: {ran:?}");
        }
    }
}

#[tokio::test]
async fn only_what_changes_something_may_have_been_done() {
    let id = Uuid::now_v7().to_string();
    let (user, _) = stranger(|_| None).await;
    let read = user.run(&["batch", "show", &id, "--timeout", "1"]).await.ended(6);
    assert!(!read.errors.contains("may have been done"), "{read:?}");
    user.run(&["retry", &id, "nlp", "--timeout", "1"]).await.ended(6).said(&["may have been done"]);
}

#[tokio::test]
async fn a_list_whose_pages_repeat_comes_to_an_end() {
    for members in [json!([]), json!([{ "batch_id": "x" }])] {
        let body = json!({ "batches": members, "next_cursor": "again" });
        let (user, requests) = stranger(move |_| Some(answer("200 OK", "", &body))).await;
        let list = user.run(&["batch", "list", "--limit", "1000000"]);
        let ran = tokio::time::timeout(PATIENCE, list).await.expect("it ends");
        ran.ended(6).said(&["do not come to an end"]);
        assert!(seen(&requests).len() < 5);
    }
}

#[tokio::test]
async fn who_may_not_is_told_what_to_show() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), "token", "x");
    let token = path(&directory, "token");
    let id = Uuid::now_v7().to_string();
    for (status, error, arguments, hint) in [
        ("401 Unauthorized", "no token", vec!["dead-letter", "list"], "the admin's token"),
        ("403 Forbidden", "no", vec!["dead-letter", "list", "--token-file", &token], "the admin's token"),
        (
            "401 Unauthorized",
            "who are you? Send the header X-User-ID",
            vec!["dead-letter", "redrive", &id, "--token-file", &token],
            "say who decides: --user USER",
        ),
        (
            "403 Forbidden",
            "the token and X-User-ID are different users",
            vec!["batch", "list", "--token-file", &token, "--user", "bob"],
            "leave --user",
        ),
        ("403 Forbidden", "not yours", vec!["batch", "show", &id, "--user", "bob"], "ask as its owner: --user USER"),
        ("401 Unauthorized", "expired", vec!["batch", "list", "--token-file", &token], "show another token"),
    ] {
        let body = answer(status, "", &json!({ "error": error }));
        let (user, _) = stranger(move |_| Some(body.clone())).await;
        let url = user.url.clone();
        end(command(&[&arguments[..], &["--url", &url]].concat())).await.ended(5).said(&[hint]);
    }
}

/// Everything that a terminal could be steered with.
const HOSTILE: &str = "\u{1b}]0;mine\u{7}\u{9b}2J\r\n\t\u{7f}\u{202e}\u{2066}\u{200b}x";

#[track_caller]
fn is_harmless(ran: &Ran) {
    for text in [&ran.output, &ran.errors] {
        let steering = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{200b}' | '\u{202e}' | '\u{2066}');
        assert!(!text.contains(steering), "{ran:?}");
    }
    assert!(ran.output.contains('x') || ran.errors.contains('x'), "it was to be shown: {ran:?}");
}

#[tokio::test]
async fn a_server_cannot_steer_the_terminal() {
    let id = Uuid::now_v7().to_string();
    let status = json!({
        "batch_id": HOSTILE, "status": HOSTILE, "stuck_since": HOSTILE, "stale": [HOSTILE], "version": HOSTILE,
        "details": { "batch_status": HOSTILE, "registered_at": HOSTILE },
        "batch_context": { "user_id": HOSTILE, "course_code": HOSTILE },
        "pipeline_state": { "nlp": { "status": HOSTILE, "essay_counts": { "total": HOSTILE }, "error_info": {
            "error_code": HOSTILE, "message": HOSTILE, "next_retry_at": HOSTILE,
            "failed_essays": [{ "essay_id": HOSTILE, "error_code": HOSTILE, "message": HOSTILE }] } } },
        "attempts": [{ "attempt": HOSTILE, "reason": HOSTILE, "outcome": HOSTILE, "trigger": HOSTILE }],
        "phase": HOSTILE, "attempt": 2, "message": HOSTILE, "counters": { HOSTILE: HOSTILE },
        "batches": [{ "batch_id": HOSTILE, "status": HOSTILE, "phases": { "nlp": { "status": HOSTILE } } }],
        "jobs": [{ "job_id": HOSTILE, "reason": HOSTILE }], "counts": { "retried": HOSTILE }, "job_id": HOSTILE,
        "dead_letters": [{ "id": HOSTILE, "error": HOSTILE }], "history": [{ "what": HOSTILE }],
        "results": [{ "id": HOSTILE, "error": HOSTILE }], "essay_ids": [HOSTILE], "goes_on": [HOSTILE], "phases": [HOSTILE],
    });
    let error = json!({ "status": HOSTILE, "error": HOSTILE, "error_code": HOSTILE, "correlation_id": HOSTILE });
    for body in [answer("200 OK", "", &status), answer("400 Bad Request", "", &error)] {
        let (user, _) = stranger(move |_| Some(body.clone())).await;
        for arguments in [
            vec!["health"],
            vec!["batch", "list"],
            vec!["batch", "show", &id],
            vec!["batch", "watch", &id],
            vec!["batch", "cancel", &id],
            vec!["retry", &id, "nlp", "--wait"],
            vec!["retry-job", "list"],
            vec!["retry-job", "show", &id],
            vec!["retry-job", "watch", &id],
            vec!["dead-letter", "list"],
            vec!["dead-letter", "show", &id],
            vec!["dead-letter", "discard", &id],
        ] {
            is_harmless(&user.run(&arguments).await);
            let machine = user.run(&[&arguments[..], &["--json"]].concat()).await;
            is_harmless(&machine);
            machine.lines();
        }
    }
}

#[tokio::test]
async fn whoever_stops_reading_has_seen_enough() {
    let server = Server::start(Setup::default()).await;
    let user = User::of(&server);
    let batch = server.client.ready_batch(1).await;
    for arguments in [
        vec!["batch", "list"],
        vec!["batch", "list", "--json"],
        vec!["batch", "show", &batch],
        vec!["batch", "watch", &batch, "--json"],
        vec!["health"],
        vec!["completions", "bash"],
        vec!["man"],
    ] {
        let mut child = user.command(&arguments);
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().await.expect("it ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{arguments:?}: {errors}");
    }
    // A full disk is something else.
    let mut full = user.command(&["batch", "list"]);
    let device = fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
    let child = full.stdout(device).stderr(Stdio::piped()).spawn().expect("it starts");
    let output = child.wait_with_output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be written"));
    server.app.stop().await;
}

#[tokio::test]
async fn shells_take_their_completions() {
    for (shell, wanted) in [
        ("bash", "dead-letter"),
        ("zsh", "#compdef rephase"),
        ("fish", "complete -c rephase"),
        ("elvish", "retry-job"),
        ("powershell", "retry-job"),
    ] {
        bare(&["completions", shell]).await.ended(0).shows(&[wanted, "only-failed"]);
    }
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), "bash", &bare(&["completions", "bash"]).await.output);
    let mut bash = tokio::process::Command::new("bash");
    bash.args(["-n", &path(&directory, "bash")]);
    assert_eq!(end(bash).await.ended(0).errors, "");
    bare(&["completions", "cmd"]).await.ended(2);
    bare(&["man"]).await.ended(0).shows(&[".TH rephase 1", "retry"]);
    let pages = path(&directory, "man");
    bare(&["man", "--dir", &pages]).await.ended(0);
    assert!(fs::read_to_string(path(&directory, "man/rephase-batch-submit.1")).expect("a page").contains("course"));
}

/// Somebody pastes what is suggested into a shell, where nothing of the environment is as it was for the program.
#[tokio::test]
async fn what_is_suggested_works_as_it_is_pasted() {
    let server = Server::start(Setup::default()).await;
    let user = User::of(&server);
    let class = class(1);
    write(class.path(), "a token", "x");
    write(class.path(), "ca.pem", &rcgen::generate_simple_self_signed(["a".to_owned()]).expect("one").cert.pem());
    let (token, ca, texts) = (path(&class, "a token"), path(&class, "ca.pem"), path(&class, "class"));
    let options = ["--url", &user.url, "--user", OWNER, "--token-file", &token, "--ca-file", &ca];
    let submit = ["batch", "submit", &texts, "--course", "ENG5"];
    let ran = bare(&[&submit[..], &options].concat()).await.ended(0);
    let named = format!("--url '{}' --user '{OWNER}' --token-file '{token}' --ca-file '{ca}'", user.url);
    ran.said(&["rephase batch run", &named]);
    let unknown = Uuid::now_v7().to_string();
    let missing = bare(&[&["batch", "show", &unknown][..], &options].concat()).await.ended(3);
    missing.said(&[&format!("`rephase batch list {named}` shows what there is")]);
    // The options may stand before the command as well.
    let before = bare(&[&options[..], &["--json", "batch", "list"]].concat()).await.ended(0).lines();
    let batch = before[0]["batch_id"].as_str().expect("an id").to_owned();
    bare(&["--log=error", &format!("--url={}", user.url), "--timeout", "5", "health"]).await.ended(0);
    bare(&["--url", &user.url, "serve"]).await.ended(2);
    bare(&["--url"]).await.ended(2);
    bare(&["--json", "--help"]).await;

    let shown = bare(&[&["batch", "show", &batch, "--json"][..], &options].concat()).await.ended(0).lines();
    let next = shown[0]["next"][0]["command"].as_str().expect("a command");
    let mut pasted = tokio::process::Command::new("bash");
    pasted.args(["-c", &format!("rephase() {{ '{}' \"$@\"; }}; {next}", env!("CARGO_BIN_EXE_rephase"))]);
    end(pasted).await.ended(0).shows(&["completed_successfully"]);
    server.app.stop().await;
}

#[tokio::test]
async fn a_container_can_ask_how_the_server_is() {
    let server = Server::start(Setup::default()).await;
    let user = User::of(&server);
    user.run(&["health"]).await.ended(0).shows(&["healthy:"]);
    let healthy = user.run(&["ping", "--json"]).await.ended(0).lines();
    assert_eq!(healthy[0]["status"], "healthy");
    server.app.stop().await;
    let body = json!({ "status": "unhealthy", "message": "the store failed" });
    let (user, _) = stranger(move |_| Some(answer("503 Service Unavailable", "", &body))).await;
    user.run(&["health"]).await.ended(1).shows(&["unhealthy:"]).said(&["the store failed"]);
    let (user, _) = stranger(|_| Some(answer("502 Bad Gateway", "", &json!("a proxy")))).await;
    user.run(&["health"]).await.ended(1).said(&["502"]);
    bare(&["health", "--url", "http://127.0.0.1:1"]).await.ended(6);
}

/// A certificate for 127.0.0.1 that its own key has signed, changed so; and where a server shows it.
async fn shown_by(change: &[fn(&mut rcgen::CertificateParams)]) -> (rcgen::Certificate, String) {
    use tokio_rustls::rustls;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    let mut params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    for change in change {
        change(&mut params);
    }
    let key = rcgen::KeyPair::generate().expect("a key");
    let made = params.self_signed(&key).expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth();
    let config = config.with_single_cert(vec![made.der().clone()], key).expect("a certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            if let Ok(connection) = acceptor.accept(connection).await {
                let body = json!({ "status": "healthy", "message": "over TLS", "version": "x" });
                serve(connection, &Seen::default(), Some(answer("200 OK", "", &body))).await;
            }
        }
    });
    (made, url)
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said_with_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    // As `openssl req -x509` makes them.
    let authority =
        |params: &mut rcgen::CertificateParams| params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let over = |params: &mut rcgen::CertificateParams| params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let (_, foreign) = shown_by(&[]).await;
    for (change, name, said) in [
        (authority as fn(&mut _), "authority", "-addext basicConstraints=critical,CA:FALSE"),
        (over as fn(&mut _), "over", "a certificate for this address that is valid now"),
    ] {
        let (made, url) = shown_by(&[change]).await;
        write(directory.path(), name, &made.pem());
        bare(&["health", "--url", &url, "--ca-file", &path(&directory, name)]).await.ended(6).said(&[said]);
        let other = bare(&["health", "--url", &foreign, "--ca-file", &path(&directory, name)]).await.ended(6);
        other.said(&["not in the file of --ca-file"]);
    }
}

#[tokio::test]
async fn an_https_server_is_trusted_for_its_certificate() {
    let (made, url) = shown_by(&[]).await;
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), "ca.pem", &made.pem());
    write(directory.path(), "none.pem", "nothing\n");
    let (ca, none) = (path(&directory, "ca.pem"), path(&directory, "none.pem"));
    bare(&["health", "--url", &url, "--ca-file", &ca]).await.ended(0).shows(&["over TLS"]);
    bare(&["health", "--url", &url]).await.ended(6).said(&["certificate", "--ca-file FILE"]);
    let plain = url.replace("https", "http");
    bare(&["health", "--url", &plain]).await.ended(6).said(&["https://"]);
    // The error is all that a machine reads.
    let refused = bare(&["health", "--url", &url, "--json"]).await.ended(6).error();
    assert_eq!(refused["exit_code"], 6);
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    write(directory.path(), "other.pem", &other.cert.pem());
    let other = path(&directory, "other.pem");
    bare(&["health", "--url", &url, "--ca-file", &other]).await.ended(6).said(&["not in the file of --ca-file"]);
    let (spoken, _) = stranger(|_| Some("HTTP/1.1 200 OK\r\n\r\n".to_owned())).await;
    bare(&["health", "--url", &spoken.url.replace("http", "https")]).await.ended(6);
    bare(&["health", "--url", &url, "--ca-file", &none]).await.ended(2).said(&["--ca-file"]);
}

#[tokio::test]
async fn what_is_kept_says_for_machines_how_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(Setup::default()).await;
    let user = User::of(&server);
    server.client.ready_batch(2).await;
    let (file, data) = (path(&directory, "backup"), path(&directory, "data"));
    let made = user.run(&["backup", &file, "--json"]).await.ended(0).lines();
    assert_eq!(made[0]["bytes"], fs::metadata(&file).expect("a file").len());
    server.app.stop().await;
    let restored = bare(&["restore", &file, "--data-dir", &data, "--json"]).await.ended(0).lines();
    assert_eq!((&restored[0]["created_at"], &restored[0]["checked"]["batches"]), (&made[0]["created_at"], &json!(1)));
    assert_eq!(bare(&["verify", "--data-dir", &data, "--json"]).await.ended(0).lines()[0]["violations"], 0);
    let both = ["backup", &file, "--data-dir", &data, "--url", "http://127.0.0.1:1"];
    bare(&both).await.ended(2);
    // A server that is named in the environment is not asked where a directory is.
    user.run(&["backup", &file, "--data-dir", &data]).await.ended(0).shows(&["as of"]);
}
