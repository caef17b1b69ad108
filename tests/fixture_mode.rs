//! The server as a fixture: what tests may do to it, that nobody else may, and that it leaves nothing behind.

mod harness;

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use harness::{Answer, Client, PATIENCE, Process, START, Server, Setup, kept, phase_status, run};
use rephase::app::{App, DataDirectory, Options};
use rephase::clock::ManualClock;
use rephase::domain::Phase;
use rephase::worker::{self, Runner};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const ROUTES: [(&str, &str); 9] = [
    ("POST", "/_test/reset"),
    ("GET", "/_test/clock"),
    ("POST", "/_test/clock/advance"),
    ("GET", "/_test/faults"),
    ("PUT", "/_test/faults"),
    ("GET", "/_test/events"),
    ("POST", "/_test/seed"),
    ("GET", "/_test/snapshot"),
    ("PUT", "/_test/snapshot"),
];

/// A server inside the test, with the routes for tests and a clock that stands still.
struct Tested {
    app: App,
    client: Client,
}

impl Tested {
    async fn start(data: DataDirectory) -> Self {
        Self::with(data, worker::Options::default()).await
    }

    async fn with(data: DataDirectory, workers: worker::Options) -> Self {
        let workers = worker::Options { latency_ms: 0..=0, ..workers };
        let options = Options { workers, ..Options::new(data) };
        let app = App::start_for_tests(options, ManualClock::new(START)).await.expect("it starts");
        let client = Client::new(&format!("http://{}", app.address()));
        Self { app, client }
    }

    async fn ephemeral() -> Self {
        Self::start(DataDirectory::Ephemeral).await
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let method = method.parse::<Method>().expect("a method");
        Client::send(self.client.request(method, path).body(body.to_owned())).await
    }

    /// As [`Tested::send`], and has to go well.
    async fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.send(method, path, &body.to_string()).await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text);
        answer.json()
    }

    async fn advance(&self, ms: u64) {
        self.done("POST", "/_test/clock/advance", &json!({ "ms": ms })).await;
    }

    async fn faults(&self, rules: Value) {
        assert_eq!(self.done("PUT", "/_test/faults", &rules).await, rules);
    }

    /// A batch whose pipeline has gone as far as it goes while the clock stands still.
    async fn batch_after(&self, pipeline: &str) -> String {
        let batch = self.client.ready_batch(2).await;
        assert_eq!(self.client.pipeline(&batch, pipeline).await.status, 202);
        self.advance(0).await;
        batch
    }
}

/// From a time of an answer, in milliseconds since [`START`].
fn ms(time: &Value) -> u64 {
    let time: jiff::Timestamp = time.as_str().expect("a time").parse().expect("RFC 3339");
    u64::try_from(time.as_millisecond()).expect("after 1970") - START.0
}

#[tokio::test]
async fn nothing_of_it_is_there_without_the_option() {
    let server = Server::start(Setup::default()).await;
    for (method, path) in ROUTES {
        let request = server.client.request(method.parse().expect("a method"), path).body("{}");
        assert_eq!(Client::send(request).await.status, 404, "{method} {path}");
    }
}

fn serve(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rephase"));
    // One that is not refused ends all the same.
    command.args(["serve", "--ephemeral", "--end-with-stdin"]).args(arguments).stdin(Stdio::null());
    command
}

#[test]
fn whoever_could_be_reached_by_others_is_refused_it() {
    let (code, output, errors) = run(serve(&["--test-api", "--listen", "0.0.0.0:0"]));
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(errors.contains("--test-api-anywhere"), "{errors}");

    let directory = tempfile::tempdir().expect("a directory");
    let faults = directory.path().join("faults.json");
    std::fs::write(&faults, r#"[{"phase": "nlp", "crash": "worker_result"}]"#).expect("written");
    let faults = faults.to_str().expect("UTF-8");
    let (code, _, errors) = run(serve(&["--faults", faults, "--listen", "127.0.0.1:0"]));
    assert!(code == 1 && errors.contains("needs --test-api"), "{errors}");
}

#[tokio::test]
async fn it_says_where_it_is_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let (ready, temporary) = (directory.path().join("ready"), directory.path().join("tmp"));
    std::fs::create_dir(&temporary).expect("made");
    for is_ended_by_input in [false, true] {
        let file = ready.to_str().expect("UTF-8");
        let mut command = Process::command(&["--ephemeral", "--end-with-stdin", "--ready-file", file]);
        command.env("TMPDIR", &temporary).stdin(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let began = std::time::Instant::now();
        let said = loop {
            match std::fs::read_to_string(&ready) {
                Ok(said) => break said,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let said: Value = serde_json::from_str(&said).expect("it is whole");
        assert_eq!((&said["ready"], &said["pid"]), (&json!(true), &json!(child.id())));
        let client = Client::new(said["url"].as_str().expect("a URL"));
        client.ready_batch(1).await;
        assert!(temporary.read_dir().expect("read").next().is_some());

        let input = child.stdin.take().expect("piped");
        if is_ended_by_input {
            drop(input);
        } else {
            let kill = format!("kill -TERM {}", child.id());
            assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
        }
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
        assert!(!ready.exists());
        assert_eq!(temporary.read_dir().expect("read").count(), 0);
    }
}

#[test]
fn a_signal_ends_it_with_0_from_its_first_moment_on() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let directory = tempfile::tempdir().expect("a directory");
        let settings = directory.path().join("settings");
        assert!(Command::new("mkfifo").arg(&settings).status().expect("mkfifo runs").success());
        let mut command = Process::command(&["--ephemeral", "--config", settings.to_str().expect("UTF-8")]);
        let mut child = command.stdin(Stdio::null()).spawn().expect("it starts");
        // This end opens when the program has opened the other, from which nothing comes until this one is closed.
        let (opened, is_open) = mpsc::channel();
        std::thread::spawn(move || opened.send(std::fs::OpenOptions::new().write(true).open(settings)));
        let end = is_open.recv_timeout(PATIENCE).expect("the program reads its settings").expect("opened");
        kill_process(Pid::from_child(&child), signal).expect("sent");
        drop(end);
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{signal:?}");
    }
}

#[tokio::test]
async fn the_time_stops_at_everything_that_is_due_on_its_way() {
    let tested = Tested::ephemeral().await;
    tested
        .faults(json!([
            { "attempts": [1], "category": "transient", "error_code": "TIMEOUT", "phase": "nlp", "retry_after_ms": 5_000 },
            { "attempts": [2], "error_code": "TIMEOUT", "phase": "nlp", "retry_after_ms": 20_000 },
            { "delay_ms": 60_000, "phase": "ai_feedback" },
        ]))
        .await;
    let batch = tested.batch_after("ai_feedback").await;
    // Nothing that is not due happens.
    tested.advance(4_999).await;
    assert_eq!(tested.client.attempts(&batch, "nlp").await.len(), 1);
    tested.advance(3_600_000).await;
    let status = tested.client.status(&batch).await;
    assert_eq!(status["status"], "completed_successfully", "{status:#}");

    let attempts = tested.client.attempts(&batch, "nlp").await;
    let times: Vec<_> =
        attempts.iter().map(|attempt| (ms(&attempt["dispatched_at"]), ms(&attempt["ended_at"]))).collect();
    let [(0, 0), (second, second_end), (third, third_end)] = times[..] else { panic!("{times:?}") };
    assert_eq!((second, third), (second_end, third_end));
    assert!((5_000..8_000).contains(&second), "{times:?}");
    assert!((20_000..25_000).contains(&(third - second)), "{times:?}");
    // What takes time took exactly that.
    let feedback = &tested.client.attempts(&batch, "ai_feedback").await[0];
    assert_eq!((ms(&feedback["dispatched_at"]), ms(&feedback["ended_at"])), (third, third + 60_000));
}

#[tokio::test]
async fn deadlines_and_the_sweep_come_in_their_time() {
    let tested = Tested::ephemeral().await;
    tested.faults(json!([{ "delay_ms": 3_600_000, "phase": "spellcheck" }])).await;
    let batch = tested.batch_after("spellcheck").await;
    tested.advance(15 * 60_000 - 1).await;
    assert_eq!(phase_status(&tested.client.status(&batch).await, "spellcheck"), "in_progress");
    tested.advance(1).await;
    let attempts = tested.client.attempts(&batch, "spellcheck").await;
    assert_eq!((&attempts[0]["outcome"], ms(&attempts[0]["ended_at"])), (&json!("failed"), 15 * 60_000));
    let swept =
        async || tested.client.get("/healthz").await.json()["counters"]["swept_keys"].as_u64().expect("a number");
    assert_eq!(swept().await, 0);
    tested.advance(10 * 86_400_000).await;
    assert!(swept().await > 0, "the keys of what was handled have expired");
}

#[tokio::test]
async fn what_waits_for_somebody_outside_does_not_hold_up_the_time() {
    let mut workers = worker::Options::default();
    workers.runners[Phase::Spellcheck.index()] = Runner::Remote;
    let tested = Tested::with(DataDirectory::Ephemeral, workers).await;
    // More than lie where workers ask for them.
    let mut batches = Vec::new();
    for _ in 0..80 {
        batches.push(tested.client.ready_batch(1).await);
        assert_eq!(tested.client.pipeline(&batches[batches.len() - 1], "spellcheck").await.status, 202);
    }
    tested.advance(0).await;
    let lease = json!({ "worker_id": "w1", "phases": ["spellcheck"], "max": 1, "wait_ms": 0, "lease_ms": 5_000 });
    let leased = tested.client.post("/v1/workers/lease", lease).await;
    assert_eq!(leased.status, 200, "{}", leased.text);
    let of_leased = leased.json()["tasks"][0]["batch_id"].as_str().expect("a task").to_owned();
    tested.advance(15 * 60_000).await;
    for batch in &batches {
        let first = &tested.client.attempts(batch, "spellcheck").await[0];
        let ended = if *batch == of_leased { 5_000 } else { 15 * 60_000 };
        assert_eq!((&first["outcome"], ms(&first["ended_at"])), (&json!("failed"), ended));
    }
}

#[tokio::test]
async fn a_reset_leaves_nothing_and_nobody_waiting() {
    let tested = Tested::ephemeral().await;
    let rule = json!([{ "error_code": "TIMEOUT", "phase": "nlp", "retry_after_ms": 60_000 }]);
    tested.faults(rule).await;
    let batch = tested.batch_after("nlp").await;
    let (client, path) = (tested.client.clone(), format!("/v1/batches/{batch}/status?wait_ms=30000"));
    let waiting = tokio::spawn(async move { client.get(&path).await });
    // Long enough for the request to have arrived; one that has not would be answered 404, and the test fail.
    tokio::time::sleep(Duration::from_millis(300)).await;
    tested.done("POST", "/_test/reset", &json!({})).await;
    let answer = tokio::time::timeout(PATIENCE / 3, waiting).await.expect("it does not wait on").expect("answered");
    assert!([200, 503].contains(&answer.status), "{}", answer.text);

    assert_eq!(tested.client.get(&format!("/v1/batches/{batch}/status")).await.status, 404);
    assert_eq!(tested.client.get("/v1/batches").await.json()["batches"], json!([]));
    let events = tested.done("GET", "/_test/events", &json!({})).await;
    assert_eq!((&events["events"], &events["published"]), (&json!([]), &json!(0)));
    // What was armed in the old store does not go on in the new one.
    tested.advance(120_000).await;
    assert_eq!(tested.done("GET", "/_test/events", &json!({})).await["published"], 0);
    // The rules are those of the start, which are none, and it works.
    assert_eq!(tested.done("GET", "/_test/faults", &json!({})).await, json!([]));
    let batch = tested.batch_after("nlp").await;
    assert_eq!(tested.client.status(&batch).await["status"], "completed_successfully");
}

#[tokio::test]
async fn a_store_that_is_kept_is_not_put_aside() {
    let directory = tempfile::tempdir().expect("a directory");
    let tested = Tested::start(kept(directory.path())).await;
    let batch = tested.client.registered_batch(1).await;
    for (method, path) in [("POST", "/_test/reset"), ("PUT", "/_test/snapshot")] {
        let answer = tested.send(method, path, "{}").await;
        assert_eq!((answer.status, &answer.json()["error_code"]), (409, &json!("CONFLICT")), "{}", answer.text);
    }
    tested.client.status(&batch).await;
    tested.app.stop().await;
}

#[tokio::test]
async fn a_snapshot_comes_back_as_it_was() {
    let tested = Tested::ephemeral().await;
    let rule = json!([{ "attempts": [1], "category": "permanent", "error_code": "NLP_SERVICE_ERROR", "phase": "nlp" }]);
    tested.faults(rule).await;
    let batch = tested.batch_after("ai_feedback").await;
    let seen = (tested.client.status(&batch).await, tested.client.attempts(&batch, "nlp").await);
    let snapshot = tested.send("GET", "/_test/snapshot", "").await.text;
    tested.done("POST", "/_test/reset", &json!({})).await;
    let other = tested.client.registered_batch(1).await;

    // What is none changes nothing.
    let cut = snapshot.rsplit_once("{\"line\":\"trailer\"").expect("a trailer").0;
    for bad in ["", "no snapshot", "{}", cut, &snapshot.replacen(harness::OWNER, "mallory", 1)] {
        let answer = tested.send("PUT", "/_test/snapshot", bad).await;
        assert_eq!((answer.status, &answer.json()["error_code"]), (400, &json!("VALIDATION_ERROR")), "{}", answer.text);
        assert!(!answer.text.contains("/tmp"), "{}", answer.text);
    }
    tested.client.status(&other).await;

    let answer = tested.send("PUT", "/_test/snapshot", &snapshot).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!((tested.client.status(&batch).await, tested.client.attempts(&batch, "nlp").await), seen);
    assert_eq!(tested.client.get(&format!("/v1/batches/{other}/status")).await.status, 404);
    assert_eq!(tested.client.retry(&batch, json!({ "phase_name": "nlp" })).await.status, 202);
    tested.advance(0).await;
    assert_eq!(tested.client.status(&batch).await["status"], "completed_successfully");
}

#[tokio::test]
async fn an_outcome_that_comes_twice_counts_once() {
    let tested = Tested::ephemeral().await;
    tested.faults(json!([{ "duplicate": true, "phase": "nlp" }])).await;
    let batch = tested.batch_after("nlp").await;
    assert_eq!(tested.client.status(&batch).await["status"], "completed_successfully");
    assert_eq!(tested.client.get("/healthz").await.json()["counters"]["duplicate_messages"], 1);
    assert_eq!(tested.client.attempts(&batch, "nlp").await.len(), 1);
}

#[tokio::test]
async fn a_fault_rule_can_end_the_process() {
    let process = Process::serve(&["--ephemeral", "--test-api", "--latency-ms", "0"]);
    let put = process.client.request(Method::PUT, "/_test/faults");
    let answer = Client::send(put.json(&json!([{ "crash": "worker_result", "phase": "nlp" }]))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let batch = process.client.ready_batch(1).await;
    // It may be gone before it has answered.
    let body = json!({ "requested_pipeline": "nlp" });
    let asked = process.client.request(Method::POST, &format!("/v1/batches/{batch}/pipelines")).json(&body);
    let _ = Client::try_send(asked).await;
    let began = std::time::Instant::now();
    while Client::try_send(process.client.request(Method::GET, "/livez")).await.is_ok() {
        assert!(began.elapsed() < PATIENCE, "it lives");
    }
    assert_eq!(process.wait().code(), None, "it ended by a signal");
}

#[tokio::test]
async fn events_are_listed_in_order_and_by_what_they_are_about() {
    let tested = Tested::ephemeral().await;
    let (one, other) = (tested.batch_after("spellcheck").await, tested.batch_after("spellcheck").await);
    let all = tested.done("GET", "/_test/events", &json!({})).await;
    let events = all["events"].as_array().expect("a list");
    assert_eq!((all["published"].as_u64(), &all["dropped"]), (Some(events.len() as u64), &json!(0)));
    assert_eq!(all["next_after"], Value::Null);
    assert!((1..).zip(events).all(|(number, event)| event["number"] == number), "{all:#}");

    let of_one = tested.done("GET", &format!("/_test/events?batch_id={one}"), &json!({})).await;
    let topics = of_one["events"].as_array().expect("a list").iter().map(|event| &event["topic"]);
    // What the user is told stands between.
    let topics: Vec<_> = topics.filter(|topic| **topic != "huleedu.notification.teacher.requested.v1").collect();
    let names = [
        "huleedu.batch.essays.registered.v1",
        "huleedu.batch.content.provisioning.completed.v1",
        "huleedu.els.spellcheck.initiate.command.v1",
        "huleedu.els.batch.phase.outcome.v1",
        "huleedu.batch.pipeline.completed.v1",
    ];
    assert_eq!(topics, names);
    let path = format!("/_test/events?batch_id={other}&topic={}&after=5", names[3]);
    let outcomes = tested.done("GET", &path, &json!({})).await;
    assert_eq!(outcomes["events"][0]["message"]["data"]["batch_id"], json!(other), "{outcomes:#}");
    assert_eq!(outcomes["events"].as_array().map(Vec::len), Some(1));
    let page = tested.done("GET", "/_test/events?limit=3&after=2", &json!({})).await;
    assert_eq!((&page["events"][2]["number"], &page["next_after"]), (&json!(5), &json!(5)));
    for query in ["topic=none", "after=-1", "limit=0", "limit=10001", "before=3"] {
        assert_eq!(tested.send("GET", &format!("/_test/events?{query}"), "").await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn a_seed_is_what_could_have_come_about() {
    let tested = Tested::ephemeral().await;
    let seed = json!({ "batches": [
        { "user_id": harness::OWNER, "essays": 3, "missing": 1 },
        { "user_id": harness::OWNER, "essays": ["One.", "Two."], "history": [
            { "pipeline": "ai_feedback" },
            { "phase": "spellcheck" },
            { "phase": "nlp", "error_code": "TIMEOUT", "category": "transient", "message": "slow" },
            { "phase": "nlp", "error_code": "NLP_SERVICE_ERROR", "category": "permanent", "essays": [1] },
            { "phase": "ai_feedback", "ends": "timed_out" },
        ] },
        { "user_id": harness::OWNER, "essays": 1, "course_code": "SV1", "history": [
            { "pipeline": "nlp" }, { "phase": "spellcheck", "ends": "in_progress" },
        ] },
        { "user_id": harness::OWNER, "essays": 1, "ago_ms": 1_000, "history": [
            { "pipeline": "nlp" }, { "phase": "spellcheck" }, { "cancel": "enough" },
        ] },
    ] });
    // The clock stands still, and so do the workers of what is open.
    tested.faults(json!([{ "delay_ms": 60_000, "phase": "spellcheck" }])).await;
    let ids = tested.done("POST", "/_test/seed", &seed).await["batch_ids"].clone();
    let id = |place: usize| ids[place].as_str().expect("an id").to_owned();
    assert_eq!(tested.client.status(&id(0)).await["status"], "pending_content");
    let attempts = tested.client.attempts(&id(1), "nlp").await;
    let said: Vec<_> = attempts.iter().map(|attempt| (&attempt["trigger"], &attempt["error_code"])).collect();
    assert_eq!(said, [(&json!("pipeline"), &json!("TIMEOUT")), (&json!("automatic"), &json!("NLP_SERVICE_ERROR"))]);
    assert_eq!(attempts[1]["failed"], 1);
    let feedback = &tested.client.attempts(&id(1), "ai_feedback").await[0];
    assert_eq!((&feedback["outcome"], &feedback["trigger"]), (&json!("failed"), &json!("pipeline")));
    assert_eq!(phase_status(&tested.client.status(&id(2)).await, "spellcheck"), "in_progress");
    let cancelled = tested.client.status(&id(3)).await;
    assert_eq!((&cancelled["status"], phase_status(&cancelled, "nlp")), (&json!("cancelled"), "cancelled"));
    // What is open goes on, and what failed can be retried.
    tested.advance(600_000).await;
    assert_eq!(tested.client.status(&id(2)).await["status"], "completed_successfully");
    assert_eq!(tested.client.retry(&id(1), json!({ "phase_name": "nlp" })).await.status, 202);
    tested.advance(600_000).await;
    assert_eq!(phase_status(&tested.client.status(&id(1)).await, "nlp"), "completed_successfully");
    let snapshot = tested.send("GET", "/_test/snapshot", "").await.text;
    assert_eq!(tested.send("PUT", "/_test/snapshot", &snapshot).await.status, 200, "the checker finds it sound");
}

#[tokio::test]
async fn a_seed_that_could_not_have_come_about_is_refused_whole() {
    let tested = Tested::ephemeral().await;
    let batch = |history: Value| json!({ "user_id": harness::OWNER, "essays": 2, "history": history });
    let good = batch(json!([{ "pipeline": "nlp" }]));
    for (history, place) in [
        (json!([{ "phase": "nlp" }]), "batches[1].history[0]"),
        (json!([{ "pipeline": "nlp" }, { "phase": "nlp" }]), "batches[1].history[1]"),
        (json!([{ "pipeline": "grading" }]), "history[0]"),
        (json!([{ "pipeline": "nlp", "phase": "nlp" }]), "history[0]"),
        (json!([{}]), "history[0]"),
        (json!([{ "pipeline": "nlp" }, { "phase": "spellcheck", "ends": "failed" }]), "history[1]"),
        (json!([{ "pipeline": "nlp" }, { "phase": "spellcheck", "message": "none" }]), "history[1]"),
        (json!([{ "pipeline": "nlp" }, { "phase": "spellcheck", "took_ms": 86_400_000 }]), "history[1]"),
        (
            json!([{ "pipeline": "nlp" }, { "phase": "spellcheck", "error_code": "TIMEOUT", "essays": [2] }]),
            "history[1]",
        ),
        (
            json!([{ "pipeline": "nlp" }, { "phase": "spellcheck", "ends": "in_progress" }, { "phase": "spellcheck" }]),
            "[2]",
        ),
        (json!([{ "pipeline": "nlp" }, { "phase": "spellcheck", "error_code": "NONE" }]), "error_code"),
    ] {
        let answer =
            tested.send("POST", "/_test/seed", &json!({ "batches": [good, batch(history)] }).to_string()).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.json()["error"].as_str().is_some_and(|error| error.contains(place)), "{place}: {}", answer.text);
    }
    for body in
        ["", "[]", "{\"batches\": []}", "{\"batches\": 1}", "{\"batches\": [{}]}", "{\"batches\": [", "{\"more\": 1}"]
    {
        assert_eq!(tested.send("POST", "/_test/seed", body).await.status, 400, "{body}");
    }
    assert_eq!(tested.client.get("/v1/batches").await.json()["batches"], json!([]));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let tested = Tested::ephemeral().await;
    let rules = json!([{ "delay_ms": 5, "phase": "nlp" }]);
    tested.faults(rules.clone()).await;
    for body in ["", "{}", "[{}]", "[{\"phase\": \"nlp\"}]", "[{\"phase\": \"nlp\", \"crash\": \"nowhere\"}]", "\u{0}"]
    {
        let answer = tested.send("PUT", "/_test/faults", body).await;
        assert_eq!((answer.status, answer.json()["error"].is_string()), (400, true), "{body}: {}", answer.text);
    }
    assert_eq!(tested.done("GET", "/_test/faults", &json!({})).await, rules);
    for body in
        ["", "{}", "[]", "{\"ms\": -1}", "{\"ms\": 1.5}", "{\"ms\": 315360000001}", "{\"ms\": 1, \"s\": 2}", "{\"ms\""]
    {
        assert_eq!(tested.send("POST", "/_test/clock/advance", body).await.status, 400, "{body}");
    }
    assert_eq!(ms(&tested.done("GET", "/_test/clock", &json!({})).await["now"]), 0);
    for (method, path) in ROUTES {
        let other = if method == "GET" { "DELETE" } else { "PATCH" };
        assert_eq!(tested.send(other, path, "{}").await.status, 405, "{other} {path}");
    }
    let large = " ".repeat(16 * 1_024 * 1_024 + 1);
    assert_eq!(tested.send("PUT", "/_test/faults", &large).await.status, 413);
    assert_eq!(tested.send("GET", "/_test/nothing", "").await.status, 404);
}
