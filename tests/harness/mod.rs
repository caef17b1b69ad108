//! What the tests have in common: a server inside the test, or as a process of its own, and a client.
#![allow(dead_code, reason = "each test file uses its own part of the harness")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rephase::app::{self, Access, App, DataDirectory, Limits, Options, Tls};
use rephase::clock::{Clock, ManualClock};
use rephase::contract::{Headers, Message, Topic};
use rephase::domain::{Balances, Millis, RetryPolicy, Rules};
use rephase::worker::{self, Faults, Runner, StudentMatching};
use serde_json::{Value, json};
use uuid::Uuid;

/// How long a test waits for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The owner of the batches in the tests.
pub const OWNER: &str = "teacher-7";

/// 2026-03-02T08:30:00Z, where the manual clock starts.
pub const START: Millis = Millis(1_772_440_200_000);

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A client that speaks for one user, or for nobody.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    user: Option<String>,
}

/// The beginning of an HTTP client. It can do TLS and so wants to know with what, even where it trusts nobody.
pub fn http_client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().tls_certs_only([])
}

impl Client {
    pub fn new(url: &str) -> Self {
        let http = http_client().timeout(PATIENCE).build().expect("a client");
        Self { http, url: url.to_owned(), user: Some(OWNER.to_owned()) }
    }

    pub fn as_user(&self, user: &str) -> Self {
        Self { user: Some(user.to_owned()), ..self.clone() }
    }

    pub fn as_nobody(&self) -> Self {
        Self { user: None, ..self.clone() }
    }

    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.user {
            Some(user) => request.header("X-User-ID", user),
            None => request,
        }
    }

    pub async fn try_send(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, text: response.text().await? })
    }

    pub async fn send(request: reqwest::RequestBuilder) -> Answer {
        Self::try_send(request).await.expect("the server answers")
    }

    pub async fn get(&self, path: &str) -> Answer {
        Self::send(self.request(reqwest::Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        Self::send(self.request(reqwest::Method::POST, path).json(&body)).await
    }

    /// Registers a batch that has a prompt, and sends its essays: ready for a pipeline.
    pub async fn ready_batch(&self, essays: usize) -> String {
        let batch = self.registered_batch(essays).await;
        let sent = self.post(&format!("/v1/batches/{batch}/essays"), essays_body(essays)).await;
        assert_eq!(sent.status, 202, "{}", sent.text);
        batch
    }

    pub async fn registered_batch(&self, essays: usize) -> String {
        let registered = self.post("/v1/batches/register", registration(essays)).await;
        assert_eq!(registered.status, 202, "{}", registered.text);
        registered.json()["batch_id"].as_str().expect("a batch id").to_owned()
    }

    pub async fn pipeline(&self, batch: &str, phase: &str) -> Answer {
        self.post(&format!("/v1/batches/{batch}/pipelines"), json!({ "requested_pipeline": phase })).await
    }

    pub async fn retry(&self, batch: &str, body: Value) -> Answer {
        self.post(&format!("/v1/batches/{batch}/retry-phase"), body).await
    }

    pub async fn status(&self, batch: &str) -> Value {
        let answer = self.get(&format!("/v1/batches/{batch}/status")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    pub async fn attempts(&self, batch: &str, phase: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/batches/{batch}/phases/{phase}/attempts")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["attempts"].as_array().expect("a list").clone()
    }

    /// Asks for the status until `is_there`, and answers it.
    pub async fn until(&self, batch: &str, what: &str, is_there: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let status = self.status(batch).await;
            if is_there(&status) {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "{what} did not come: {status:#}");
            tokio::task::yield_now().await;
        }
    }

    /// Waits until no pipeline of the batch is running.
    pub async fn until_settled(&self, batch: &str) -> Value {
        self.until(batch, "the end of the pipeline", |status| status["status"] != "processing").await
    }

    pub async fn until_phase(&self, batch: &str, phase: &str, wanted: &str) -> Value {
        self.until(batch, &format!("{phase} {wanted}"), |status| phase_status(status, phase) == wanted).await
    }
}

pub fn phase_status<'a>(status: &'a Value, phase: &str) -> &'a str {
    status["pipeline_state"][phase]["status"].as_str().unwrap_or("none")
}

pub fn registration(essays: usize) -> Value {
    json!({
        "expected_essay_count": essays,
        "course_code": "ENG5",
        "user_id": OWNER,
        "student_prompt_ref": {
            "references": { "student_prompt_text": { "storage_id": "prompt-1", "path": "" } }
        },
    })
}

pub fn essays_body(essays: usize) -> Value {
    let essays: Vec<_> = (0..essays)
        .map(|slot| json!({ "file_name": format!("{slot}.txt"), "text": format!("Essay {slot}.") }))
        .collect();
    json!({ "essays": essays })
}

/// How a server inside the test behaves.
pub struct Setup {
    pub data: DataDirectory,
    /// Small, so that whatever runs a while is settled now and then.
    pub journal_bytes: u64,
    pub runners: [Runner; 4],
    pub latency_ms: std::ops::RangeInclusive<u64>,
    pub faults: Value,
    pub student_matching: StudentMatching,
    pub rules: Rules,
    pub pipeline_limit: u32,
    pub credits: Value,
    pub retain_ms: Option<u64>,
    pub retain_events: u64,
    pub limits: Limits,
    pub access: Access,
    pub tls: Option<Tls>,
}

/// The default rules, but nothing is tried again by itself.
pub fn no_automatic_retry() -> Rules {
    Rules { retry: std::array::from_fn(|_| RetryPolicy::never()), ..Rules::default() }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            data: DataDirectory::Ephemeral,
            journal_bytes: 16 * 1_024,
            runners: Default::default(),
            latency_ms: 0..=0,
            faults: json!([]),
            student_matching: StudentMatching::default(),
            rules: no_automatic_retry(),
            pipeline_limit: 0,
            credits: json!({}),
            retain_ms: None,
            retain_events: 10_000,
            limits: Limits::default(),
            access: Access::default(),
            tls: None,
        }
    }
}

/// A server inside the test, with a clock that stands still.
pub struct Server {
    pub app: App,
    pub client: Client,
    pub clock: ManualClock,
}

impl Server {
    pub async fn start(setup: Setup) -> Self {
        let clock = ManualClock::new(START);
        let app = start_app(setup, clock.clock()).await.expect("the server starts");
        let client = Client::new(&format!("http://{}", app.address()));
        Self { app, client, clock }
    }

    pub async fn with_faults(faults: Value) -> Self {
        Self::start(Setup { faults, ..Setup::default() }).await
    }

    /// Phases take a second, and the clock stands still: whatever is dispatched stays on its way.
    pub async fn with_stuck_workers() -> Self {
        Self::start(Setup { latency_ms: 1_000..=1_000, ..Setup::default() }).await
    }
}

/// Starts a server inside the test. A store that is there has to be sound, whatever ended the server before.
pub async fn start_app(setup: Setup, clock: Clock) -> anyhow::Result<App> {
    if let DataDirectory::Kept(directory) = &setup.data
        && directory.join("store/db").exists()
        && !directory.join(DAMAGED).exists()
    {
        let mut found = Vec::new();
        match app::verify(directory, &mut |said| found.push(said.to_owned())) {
            Ok(_) => assert_eq!(found, [""; 0]),
            // It is about to be brought up to date.
            Err(error) => assert!(error.to_string().contains("brings it up"), "{error}"),
        }
    }
    let workers = worker::Options {
        runners: setup.runners,
        latency_ms: setup.latency_ms,
        seed: 0,
        faults: Faults::parse(&setup.faults.to_string()).expect("valid faults"),
        student_matching: setup.student_matching,
    };
    App::start(
        Options {
            journal_bytes: setup.journal_bytes,
            rules: setup.rules,
            pipeline_limit: setup.pipeline_limit,
            credits: Balances::parse(&setup.credits.to_string()).expect("valid credits"),
            retain_ms: setup.retain_ms,
            retain_events: setup.retain_events,
            workers,
            limits: setup.limits,
            access: setup.access,
            tls: setup.tls,
            ..Options::new(setup.data)
        },
        clock,
    )
    .await
}

/// The program as a process of its own. Killed when it is dropped.
pub struct Process {
    child: Child,
    pub client: Client,
    pub url: String,
}

impl Process {
    /// Starts `rephase serve` on a free port, and waits for its line on standard output.
    pub fn serve(arguments: &[&str]) -> Self {
        Self::spawn(Self::command(arguments)).expect("the server says that it is ready")
    }

    pub fn command(arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rephase"));
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(arguments).stdout(Stdio::piped());
        command
    }

    pub fn spawn(mut command: Command) -> Option<Self> {
        Self::spawn_from(&mut command)
    }

    fn spawn_from(command: &mut Command) -> Option<Self> {
        let mut child = command.spawn().expect("the program starts");
        let output = child.stdout.take().expect("piped");
        // From here on it is waited for, whatever happens.
        let mut process = Self { child, client: Client::new(""), url: String::new() };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).ok()?;
        let ready: Value = serde_json::from_str(&line).ok()?;
        assert_eq!((&ready["ready"], &ready["pid"]), (&json!(true), &json!(process.child.id())));
        ready["url"].as_str()?.clone_into(&mut process.url);
        process.client = Client::new(&process.url);
        Some(process)
    }

    /// The same, with what it says on standard error.
    pub fn spawn_with_errors(mut command: Command) -> Option<(Self, ChildStderr)> {
        let mut process = Self::spawn_from(&mut command)?;
        let errors = process.child.stderr.take().expect("piped");
        Some((process, errors))
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().expect("a shell runs");
        assert!(sent.success());
    }

    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end: exit code, standard output, standard error.
pub fn run(mut command: Command) -> (i32, String, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let (mut output, mut errors) = (String::new(), String::new());
    child.stdout.take().expect("piped").read_to_string(&mut output).expect("text");
    child.stderr.take().expect("piped").read_to_string(&mut errors).expect("text");
    (child.wait().expect("it ends").code().unwrap_or(-1), output, errors)
}

pub fn kept(directory: &Path) -> DataDirectory {
    DataDirectory::Kept(directory.to_owned())
}

/// A `ClientBatchPipelineRequestV1` as the gateway of the full stack sends it.
pub fn request_message(event_id: Uuid, batch: &str, user: &str, phase: &str, is_retry: bool) -> Message {
    let topic = Topic::ClientBatchPipelineRequest;
    let correlation_id = Uuid::new_v4();
    let body = json!({
        "event_id": event_id, "event_type": topic, "event_timestamp": "2026-03-02T08:30:00Z",
        "source_service": "api_gateway_service", "schema_version": 1, "correlation_id": correlation_id,
        "data_schema_uri": null, "metadata": null,
        "data": { "batch_id": batch, "requested_pipeline": phase, "client_correlation_id": correlation_id,
                  "user_id": user, "is_retry": is_retry, "retry_reason": "from the bus", "prompt_payload": null },
    });
    let headers = Some(Headers { event_id, trace_id: correlation_id });
    Message { topic, key: batch.to_owned(), headers, body: body.to_string().into() }
}

/// An `ELSBatchPhaseOutcomeV1` of this attempt, in which nothing came out.
pub fn outcome_message(batch: &str, phase: &str, attempt: u32) -> Message {
    let topic = Topic::ElsBatchPhaseOutcome;
    let event_id = Uuid::new_v4();
    let body = json!({
        "event_id": event_id, "event_type": topic, "event_timestamp": "2026-03-02T08:30:00Z",
        "source_service": "essay_lifecycle_service", "schema_version": 1, "correlation_id": null,
        "data_schema_uri": null, "metadata": { "attempt": attempt },
        "data": { "event_name": "els.batch.phase.outcome", "batch_id": batch, "phase_name": phase,
                  "phase_status": "failed_critically", "processed_essays": [], "failed_essay_ids": [] },
    });
    Message { topic, key: batch.to_owned(), headers: None, body: body.to_string().into() }
}

/// What is wrong with a store that nobody has open.
pub fn violations(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let checked = app::verify(directory, &mut |said| found.push(said.to_owned())).expect("it can be read");
    assert_eq!(usize::try_from(checked.violations), Ok(found.len()));
    found
}

/// A store that nobody has open must be sound.
pub fn verify(directory: &Path) {
    assert_eq!(violations(directory), [""; 0]);
}

/// The lines of a backup of a stopped server's store.
pub fn backup(directory: &Path) -> Vec<String> {
    let mut text = Vec::new();
    let mut write = |mut line: Vec<u8>| {
        text.append(&mut line);
        true
    };
    app::backup(directory, "2026-03-02T08:30:00Z", &mut write).expect("it can be read");
    String::from_utf8(text).expect("text").lines().map(str::to_owned).collect()
}

/// The database below a store that nobody has open.
pub fn database(directory: &Path) -> sled::Db {
    let path = directory.join("store");
    // The store's threads end a little later than the store.
    let mut tries = std::iter::repeat_with(|| sled::open(&path)).take(1_000_000);
    tries.find_map(Result::ok).expect("it opens")
}

/// Lies beside a store that a test has damaged.
const DAMAGED: &str = "damaged-on-purpose";

/// Makes the record of `batch` unreadable in a store that nobody has open.
pub fn damage(directory: &Path, batch: &str) {
    let tree = database(directory).open_tree("rephase").expect("a tree");
    let id: Uuid = batch.parse().expect("an id");
    std::fs::write(directory.join(DAMAGED), "").expect("written");
    let key = [&b"b"[..], id.as_bytes()].concat();
    assert!(tree.insert(key, b"damaged").expect("written").is_some(), "there is a record");
    tree.flush().expect("flushed");
}

/// A store with something of everything: what failed, runs, waits and was cancelled, a bulk retry in its middle, a
/// dead letter, keys, credits.
pub async fn fill(directory: &Path) {
    let faults = json!([
        { "phase": "nlp", "attempts": [1], "essays": [0], "error_code": "NLP_SERVICE_ERROR", "category": "permanent" },
        { "phase": "cj_assessment", "error_code": "TIMEOUT", "retry_after_ms": 60_000 },
        { "phase": "ai_feedback", "delay_ms": 60_000 },
    ]);
    let credits = json!({ "users": { OWNER: 100 } });
    let setup = Setup { data: kept(directory), faults, rules: Rules::default(), credits, ..Setup::default() };
    let server = Server::start(setup).await;
    let client = &server.client;
    client.registered_batch(2).await;
    let mut batches = Vec::new();
    for pipeline in ["nlp", "nlp", "nlp", "cj_assessment", "ai_feedback", "ai_feedback"] {
        let batch = client.ready_batch(2).await;
        client.pipeline(&batch, pipeline).await;
        batches.push((batch, pipeline));
    }
    for (batch, pipeline) in &batches {
        let wanted = if *pipeline == "nlp" { "completed_with_partial_success" } else { "in_progress" };
        client.until_phase(batch, pipeline, wanted).await;
    }
    client.post(&format!("/v1/batches/{}/cancel", batches[5].0), json!({})).await;
    client.retry(&batches[0].0, json!({ "phase_name": "nlp", "only_failed": true })).await;
    client.until_settled(&batches[0].0).await;
    server
        .app
        .engine()
        .publish(request_message(Uuid::new_v4(), &batches[0].0, "eve", "nlp", true))
        .await
        .expect("sent");
    let body =
        json!({ "filter": { "phase_status": "completed_with_partial_success" }, "phase": "nlp", "per_second": 1 });
    let keyed = client.request(reqwest::Method::POST, "/v1/retry-jobs").header("Idempotency-Key", "k").json(&body);
    assert_eq!(Client::send(keyed).await.status, 202);
    // The newest comes first.
    client.until_phase(&batches[5].0, "nlp", "completed_successfully").await;
    while client.get("/internal/v1/dead-letters").await.json()["dead_letters"] == json!([]) {
        tokio::task::yield_now().await;
    }
    server.app.stop().await;
}
