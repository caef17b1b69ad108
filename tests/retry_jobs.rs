//! The promise "a bulk retry is a set of single ones": fixed first, paced, on record, and gone on with after a restart.

mod harness;

use std::path::Path;

use harness::{Client, PATIENCE, Server, Setup, kept, phase_status};
use serde_json::{Value, json};

/// nlp fails the first time.
fn faults() -> Value {
    json!([{ "phase": "nlp", "attempts": [1], "error_code": "NLP_SERVICE_ERROR", "category": "permanent" }])
}

async fn failed_batch(server: &Server) -> String {
    server.clock.advance(1);
    let batch = server.client.ready_batch(1).await;
    server.client.pipeline(&batch, "nlp").await;
    server.client.until_settled(&batch).await;
    batch
}

async fn failed_batches(server: &Server, count: usize) -> Vec<String> {
    let mut batches = Vec::new();
    for _ in 0..count {
        batches.push(failed_batch(server).await);
    }
    // In the order of listings, which is that of a job.
    batches.reverse();
    batches
}

fn all_failed(per_second: u32) -> Value {
    json!({ "filter": { "phase": "nlp", "phase_status": "failed" }, "phase": "nlp", "reason": "the model is back",
        "per_second": per_second })
}

async fn start(client: &Client, body: Value) -> String {
    let answer = client.post("/v1/retry-jobs", body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let job = answer.json()["job_id"].as_str().expect("a job id").to_owned();
    assert_eq!(answer.header("location"), format!("/v1/retry-jobs/{job}"));
    job
}

async fn progress(client: &Client, job: &str) -> Value {
    let answer = client.get(&format!("/v1/retry-jobs/{job}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

async fn until(client: &Client, job: &str, what: &str, is_there: impl Fn(&Value) -> bool) -> Value {
    let began = std::time::Instant::now();
    loop {
        let progress = progress(client, job).await;
        if is_there(&progress) {
            return progress;
        }
        assert!(began.elapsed() < PATIENCE, "{what} did not come: {progress:#}");
        tokio::task::yield_now().await;
    }
}

async fn until_waiting(client: &Client, job: &str, count: u64) -> Value {
    until(client, job, &format!("{count} waiting"), |progress| progress["counts"]["waiting"] == count).await
}

async fn until_finished(client: &Client, job: &str) -> Value {
    until(client, job, "the end", |progress| progress["status"] == "finished").await
}

fn outcomes(progress: &Value) -> Vec<(&str, &str)> {
    fn text<'a>(batch: &'a Value, name: &str) -> &'a str {
        batch[name].as_str().unwrap_or_default()
    }
    let batches = progress["batches"].as_array().expect("a list");
    batches.iter().map(|batch| (text(batch, "batch_id"), text(batch, "outcome"))).collect()
}

#[tokio::test]
async fn the_set_is_fixed_first_and_each_batch_is_retried_once() {
    let server = Server::with_faults(faults()).await;
    let client = &server.client;
    let batches = failed_batches(&server, 3).await;
    let untouched = client.registered_batch(1).await;
    let job = start(client, all_failed(1)).await;
    let later = failed_batch(&server).await;
    server.clock.advance(1_000);
    until_waiting(client, &job, 1).await;
    server.clock.advance(1_000);
    let progress = until_finished(client, &job).await;

    let expected: Vec<_> = batches.iter().map(|batch| (batch.as_str(), "retried")).collect();
    assert_eq!(outcomes(&progress), expected);
    assert_eq!((&progress["total"], &progress["counts"]["retried"]), (&json!(3), &json!(3)));
    for batch in &batches {
        let status = client.until_settled(batch).await;
        assert_eq!(phase_status(&status, "nlp"), "completed_successfully");
        let attempts = client.attempts(batch, "nlp").await;
        assert_eq!(attempts.len(), 2);
        assert_eq!((&attempts[1]["trigger"], &attempts[1]["reason"]), (&json!("user"), &json!("the model is back")));
    }
    assert_eq!(phase_status(&client.status(&later).await, "nlp"), "failed", "it came after the job");
    assert_eq!(client.status(&untouched).await["status"], "pending_content");
}

#[tokio::test]
async fn a_batch_that_moved_is_reported_and_not_forced() {
    let server = Server::with_faults(faults()).await;
    let client = &server.client;
    let batches = failed_batches(&server, 3).await;
    let job = start(client, all_failed(1)).await;
    until_waiting(client, &job, 2).await;
    client.retry(&batches[1], json!({ "phase_name": "nlp" })).await;
    client.until_settled(&batches[1]).await;
    server.clock.advance(1_000);
    until_waiting(client, &job, 1).await;
    server.clock.advance(1_000);
    let progress = until_finished(client, &job).await;
    let what: Vec<_> = outcomes(&progress).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(what, ["retried", "moved", "retried"]);
    assert_eq!(client.attempts(&batches[1], "nlp").await.len(), 2, "its own retry, and no other");
}

#[tokio::test]
async fn a_batch_that_does_not_allow_it_is_reported_with_the_reason() {
    let server = Server::with_faults(faults()).await;
    let failed = failed_batch(&server).await;
    let body = json!({ "filter": {}, "phase": "spellcheck", "per_second": 1_000 });
    let job = start(&server.client, body).await;
    let progress = until_finished(&server.client, &job).await;
    assert_eq!(outcomes(&progress), [(failed.as_str(), "refused")]);
    let error = progress["batches"][0]["error"].as_str().expect("a reason");
    assert!(error.contains("has completed"), "{error}");
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() {
    let server = Server::with_faults(faults()).await;
    let client = &server.client;
    failed_batches(&server, 2).await;
    let ready = client.ready_batch(1).await;
    client.pipeline(&ready, "spellcheck").await;
    client.until_settled(&ready).await;
    let mut body = json!({ "filter": {}, "phase": "nlp", "only_failed": true, "dry_run": true });
    let answer = client.post("/v1/retry-jobs", body.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let preview = answer.json();
    assert_eq!((&preview["total"], &preview["would_be_retried"]), (&json!(3), &json!(2)), "{preview:#}");
    assert_eq!(preview["would_be_refused"][0]["count"], 1);
    assert_eq!(preview["batches"][1]["attempt"], 2);
    assert_eq!(client.get("/v1/retry-jobs").await.json()["jobs"], json!([]));

    body["dry_run"] = false.into();
    body["per_second"] = 1_000.into();
    let job = start(client, body).await;
    // Where the clock stands still, so does a job that has to wait a millisecond.
    while progress(client, &job).await["status"] != "finished" {
        server.clock.advance(1);
    }
    let counts = &progress(client, &job).await["counts"];
    assert_eq!((&counts["retried"], &counts["refused"]), (&json!(2), &json!(1)), "as the preview said");
}

#[tokio::test]
async fn the_pace_is_kept() {
    let server = Server::with_faults(faults()).await;
    failed_batches(&server, 4).await;
    let job = start(&server.client, all_failed(2)).await;
    for waiting in [3, 2, 1] {
        until_waiting(&server.client, &job, waiting).await;
        server.clock.advance(499);
        tokio::task::yield_now().await;
        assert_eq!(progress(&server.client, &job).await["counts"]["waiting"], waiting, "before its time");
        server.clock.advance(1);
    }
    until_finished(&server.client, &job).await;
}

#[tokio::test]
async fn a_job_that_is_stopped_leaves_the_rest_alone() {
    let server = Server::with_faults(faults()).await;
    let client = &server.client;
    let batches = failed_batches(&server, 3).await;
    let job = start(client, all_failed(1)).await;
    until_waiting(client, &job, 2).await;
    let path = format!("/v1/retry-jobs/{job}");
    assert_eq!(Client::send(client.as_user("x").request(reqwest::Method::DELETE, &path)).await.status, 404);
    let stopped = Client::send(client.request(reqwest::Method::DELETE, &path)).await;
    assert_eq!((stopped.status, &stopped.json()["status"]), (200, &json!("stopped")), "{}", stopped.text);
    server.clock.advance(60_000);
    tokio::task::yield_now().await;
    let progress = progress(client, &job).await;
    assert_eq!((&progress["status"], &progress["counts"]["waiting"]), (&json!("stopped"), &json!(2)));
    assert_eq!(client.attempts(&batches[2], "nlp").await.len(), 1);
    let again = Client::send(client.request(reqwest::Method::DELETE, &path)).await;
    assert_eq!((again.status, &again.json()["ended_at"]), (200, &stopped.json()["ended_at"]));
}

#[tokio::test]
async fn a_job_that_is_stopped_before_its_last_batch_has_not_finished() {
    let server = Server::with_faults(faults()).await;
    let client = &server.client;
    failed_batches(&server, 2).await;
    let job = start(client, all_failed(1)).await;
    until_waiting(client, &job, 1).await;
    let stopped = Client::send(client.request(reqwest::Method::DELETE, &format!("/v1/retry-jobs/{job}"))).await;
    assert_eq!((stopped.status, &stopped.json()["status"]), (200, &json!("stopped")), "{}", stopped.text);
    assert_eq!(progress(client, &job).await["counts"]["waiting"], 1);
}

async fn server_on(directory: &Path) -> Server {
    Server::start(Setup { data: kept(directory), faults: faults(), ..Setup::default() }).await
}

#[tokio::test]
async fn a_restart_goes_on_with_those_that_are_left() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = server_on(directory.path()).await;
    let batches = failed_batches(&server, 4).await;
    let job = start(&server.client, all_failed(1)).await;
    until_waiting(&server.client, &job, 3).await;
    server.app.stop().await;

    let server = server_on(directory.path()).await;
    for waiting in [2, 1, 0] {
        until_waiting(&server.client, &job, waiting).await;
        server.clock.advance(1_000);
    }
    until_finished(&server.client, &job).await;
    server.app.stop().await;

    let server = server_on(directory.path()).await;
    let progress = progress(&server.client, &job).await;
    assert_eq!((&progress["status"], &progress["counts"]["retried"]), (&json!("finished"), &json!(4)));
    for batch in &batches {
        server.client.until_settled(batch).await;
        assert_eq!(server.client.attempts(batch, "nlp").await.len(), 2, "{batch} was retried once");
    }
}

#[tokio::test]
async fn as_many_jobs_run_as_can_and_a_restart_goes_on_with_all_of_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = server_on(directory.path()).await;
    for _ in 0..3 {
        server.client.registered_batch(1).await;
    }
    // Each has its first batch at once, and waits for the second.
    let body = json!({ "filter": {}, "phase": "nlp", "per_second": 1 });
    let mut creations = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (client, body) = (server.client.clone(), body.clone());
        creations.spawn(async move { client.post("/v1/retry-jobs", body).await });
    }
    let answers = creations.join_all().await;
    let jobs: Vec<_> =
        answers.iter().filter_map(|answer| answer.json()["job_id"].as_str().map(str::to_owned)).collect();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert_eq!((jobs.len(), refused.len()), (32, 8));
    assert_eq!(refused[0].header("retry-after"), "10");
    for job in &jobs {
        until_waiting(&server.client, job, 2).await;
    }
    server.app.stop().await;

    let server = server_on(directory.path()).await;
    for job in &jobs {
        until_waiting(&server.client, job, 1).await;
    }
    server.clock.advance(1_000);
    for job in &jobs {
        until_finished(&server.client, job).await;
    }
    assert_eq!(server.client.post("/v1/retry-jobs", body).await.status, 202, "there is room again");
}

#[tokio::test]
async fn a_request_with_a_key_makes_one_job() {
    let server = Server::with_faults(faults()).await;
    let client = &server.client;
    let batch = failed_batch(&server).await;
    let keyed = |body: Value| {
        client.request(reqwest::Method::POST, "/v1/retry-jobs").header("Idempotency-Key", "k-1").json(&body)
    };
    let first = Client::send(keyed(all_failed(1))).await;
    let job = first.json()["job_id"].as_str().expect("a job").to_owned();
    until_finished(client, &job).await;
    let again = Client::send(keyed(all_failed(1))).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, "true"));
    assert_eq!((again.text, again.headers.get("location")), (first.text, first.headers.get("location")));
    assert_eq!(Client::send(keyed(all_failed(2))).await.status, 422);
    let jobs = client.get("/v1/retry-jobs").await.json();
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(1));
    assert_eq!(client.attempts(&batch, "nlp").await[1]["idempotency_key"], "k-1");
    assert_eq!(client.as_user("x").get("/v1/retry-jobs").await.json()["jobs"], json!([]));
    assert_eq!(client.as_user("x").get(&format!("/v1/retry-jobs/{job}")).await.status, 404);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let Server { client, .. } = &Server::with_faults(faults()).await;
    for (body, reason) in [
        (json!({ "phase": "nlp" }), "missing field `filter`"),
        (json!({ "filter": {} }), "missing field `phase`"),
        (json!({ "filter": {}, "phase": "nlp", "dryrun": true }), "dryrun: there is no such member, but "),
        (json!({ "filter": {}, "phase": "grading" }), "there is no phase 'grading'"),
        (
            json!({ "filter": { "phse": "nlp" }, "phase": "nlp" }),
            "filter.phse: there is no such member, but status, phase, ",
        ),
        (json!({ "filter": { "status": "bad" }, "phase": "nlp" }), "filter.status: 'bad' is none of "),
        (json!({ "filter": {}, "phase": "nlp", "per_second": 0 }), "per_second is between 1 and 1000"),
        (json!({ "filter": {}, "phase": "nlp", "per_second": 1_001 }), "per_second is between 1 and 1000"),
        (json!({ "filter": {}, "phase": "nlp", "reason": "x".repeat(501) }), "reason: "),
    ] {
        let answer = client.post("/v1/retry-jobs", body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(error.starts_with(reason), "{body}: {error}");
    }
    assert_eq!(client.as_nobody().post("/v1/retry-jobs", all_failed(1)).await.status, 401);
    assert_eq!(client.get("/v1/retry-jobs/nonsense").await.status, 404);
    assert_eq!(client.get("/v1/retry-jobs?limit=0").await.status, 400);
    let empty = client.post("/v1/retry-jobs", all_failed(1)).await.json();
    assert_eq!((&empty["status"], &empty["total"]), (&json!("finished"), &json!(0)));
}
