//! What whoever watches the server is shown: metrics that move with the work, a trace that is kept, and a log.
#![expect(clippy::float_cmp, reason = "what is counted is whole")]

mod harness;
#[path = "metrics/page.rs"]
mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use harness::{Client, Process, Server, Setup, kept, outcome_message, request_message};
use page::{Page, names_in, scrape, scrape_until};
use rephase::worker::Runner;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn what_is_done_is_counted_as_what_it_is() {
    let faults =
        json!([{ "phase": "nlp", "attempts": [1], "error_code": "NLP_SERVICE_ERROR", "category": "permanent" }]);
    let Server { client, app, .. } = &Server::with_faults(faults).await;
    let before = scrape(client).await;
    let batch = client.ready_batch(2).await;
    assert_eq!(client.pipeline(&batch, "nlp").await.status, 202);
    client.until_phase(&batch, "nlp", "failed").await;
    let standing = r#"rephase_phases{phase="nlp",status="failed"}"#;
    let failed = scrape_until(client, |page| page.value(standing) == 1.0).await;
    assert_eq!(failed.value(r#"rephase_batches{status="completed_with_failures"}"#), 1.0);
    assert_eq!(client.retry(&batch, json!({ "phase_name": "nlp" })).await.status, 202);
    client.until_settled(&batch).await;
    assert_eq!(client.retry(&batch, json!({ "phase_name": "nlp" })).await.status, 409);
    let event = Uuid::new_v4();
    for _ in 0..2 {
        let message = request_message(event, &batch, "somebody-else", "nlp", true);
        app.engine().publish(message).await.expect("sent");
    }
    let done = r#"rephase_messages_without_effect_total{reason="duplicate"}"#;
    let letters = r#"rephase_dead_letters{state="open"}"#;
    // What is looked up for a scrape stands for the next ones too, for a moment.
    let after = scrape_until(client, |page| page.value(done) == 1.0 && page.value(letters) == 1.0).await;
    let moved = |name: &str| after.value(name) - before.value(name);

    let route = r#"route="/v1/batches/{batch_id}/retry-phase",method="POST""#;
    assert_eq!(moved(&format!(r#"rephase_http_requests_total{{{route},status="202"}}"#)), 1.0);
    assert_eq!(moved(&format!(r#"rephase_http_requests_total{{{route},status="409"}}"#)), 1.0);
    assert_eq!(moved(&format!("rephase_http_request_duration_seconds_count{{{route}}}")), 2.0);
    assert_eq!(moved(&format!(r#"rephase_http_request_duration_seconds_bucket{{{route},le="+Inf"}}"#)), 2.0);
    let attempts = |phase: &str, trigger: &str, outcome: &str| {
        moved(&format!(r#"rephase_attempts_total{{phase="{phase}",trigger="{trigger}",outcome="{outcome}"}}"#))
    };
    assert_eq!(attempts("spellcheck", "pipeline", "completed_successfully"), 1.0);
    assert_eq!(attempts("nlp", "pipeline", "failed"), 1.0);
    assert_eq!(attempts("nlp", "user", "completed_successfully"), 1.0);
    assert_eq!(moved("rephase_attempts_total"), 3.0);
    // The refused retry, and the refused message.
    assert_eq!(moved(r#"rephase_steps_total{outcome="refused"}"#), 2.0);
    assert_eq!(moved(r#"rephase_steps_total{outcome="duplicate"}"#), 1.0);
    // Registered, filled and said to be; pipeline, spellcheck, nlp; retry, nlp.
    assert_eq!(moved(r#"rephase_steps_total{outcome="accepted"}"#), 8.0);
    assert_eq!(moved(r#"rephase_phases{phase="nlp",status="completed_successfully"}"#), 1.0);
    assert_eq!(moved("rephase_phases"), 2.0, "a phase stands in one place");
    assert_eq!(moved(r#"rephase_batches{status="completed_successfully"}"#), 1.0);
    assert_eq!(moved(r#"rephase_dead_letters{state="open"}"#), 1.0);
    assert_eq!(moved("rephase_flushes_total"), moved("rephase_commit_writes_count"));
    assert!(moved("rephase_commit_size_bytes_sum") > 1_000.0);
    assert!(moved("rephase_event_log_next") > 5.0);
    assert_eq!(after.value("rephase_ready"), 1.0);
    assert_eq!(after.value(&format!(r#"rephase_build_info{{version="{}"}}"#, env!("CARGO_PKG_VERSION"))), 1.0);
    assert_eq!(after.value("process_start_time_seconds"), 1_772_440_200.0, "by the server's own clock");
}

#[tokio::test]
async fn what_waits_and_runs_is_seen_with_how_long_it_has() {
    let setup = Setup { latency_ms: 60_000..=60_000, ..Setup::default() };
    let setup = Setup { runners: [Runner::Simulated, Runner::Remote, Runner::Simulated, Runner::Simulated], ..setup };
    let Server { client, clock, app } = &Server::start(setup).await;
    let batch = client.ready_batch(2).await;
    client.pipeline(&batch, "spellcheck").await;
    client.until_phase(&batch, "spellcheck", "in_progress").await;
    clock.advance(7_000);
    let oldest = r#"rephase_oldest_running_seconds{phase="spellcheck"}"#;
    let page = scrape_until(client, |page| page.value(oldest) == 7.0).await;
    assert_eq!(page.value(r#"rephase_oldest_running_seconds{phase="nlp"}"#), 0.0);
    assert_eq!(page.value(r#"rephase_bus_depth{group="spellcheck"}"#), 1.0, "its command is not consumed yet");
    assert_eq!(page.value(r#"rephase_bus_oldest_message_seconds{group="spellcheck"}"#), 7.0);
    assert_eq!(page.value("rephase_leases"), 0.0);
    clock.advance(60_000);
    client.until_settled(&batch).await;

    client.pipeline(&batch, "cj_assessment").await;
    let body = json!({ "worker_id": "w", "phases": ["cj_assessment"], "wait_ms": 30_000 });
    let leased = client.post("/v1/workers/lease", body).await.json();
    let task = &leased["tasks"][0];
    let page = scrape_until(client, |page| page.value("rephase_leases") == 1.0).await;
    assert_eq!(page.value("rephase_bus_depth"), 0.0, "it was consumed with the lease");
    let essays: Vec<_> = task["essays"]
        .as_array()
        .expect("essays")
        .iter()
        .map(|essay| json!({ "essay_id": essay["essay_id"] }))
        .collect();
    let path = format!("/v1/workers/tasks/{}/complete", task["task_id"].as_str().expect("an id"));
    let completed = client.post(&path, json!({ "lease_token": task["lease_token"], "essays": essays })).await;
    assert_eq!(completed.status, 200, "{}", completed.text);
    scrape_until(client, |page| page.value("rephase_leases") == 0.0).await;
    assert_eq!(app.engine().partition_depths().iter().sum::<usize>(), 0);
}

/// Where batches and phases stand, as they are listed, under the names of the metrics.
async fn listed(client: &Client) -> BTreeMap<String, f64> {
    let mut standing: BTreeMap<String, f64> = BTreeMap::new();
    let page = client.get("/v1/batches?limit=200").await.json();
    for batch in page["batches"].as_array().expect("a list") {
        let status = client.status(batch["batch_id"].as_str().expect("an id")).await;
        let status_of = |value: &Value| value["status"].as_str().unwrap_or("none").to_owned();
        *standing.entry(format!(r#"rephase_batches{{status="{}"}}"#, status_of(&status))).or_default() += 1.0;
        for phase in ["spellcheck", "nlp", "cj_assessment", "ai_feedback"] {
            let state = status_of(&status["pipeline_state"][phase]);
            *standing.entry(format!(r#"rephase_phases{{phase="{phase}",status="{state}"}}"#)).or_default() += 1.0;
        }
    }
    standing.retain(|what, _| !what.contains(r#"status="none""#));
    standing
}

/// Waits until the metrics say what is listed, and nothing else.
async fn until_it_agrees(client: &Client) -> Page {
    let began = std::time::Instant::now();
    loop {
        let (listed, page) = (listed(client).await, scrape(client).await);
        let total: f64 = listed.values().sum();
        let is_all = total == page.value("rephase_batches") + page.value("rephase_phases");
        if is_all && listed.iter().all(|(what, count)| page.value(what) == *count) {
            return page;
        }
        assert!(began.elapsed() < harness::PATIENCE, "{listed:#?}\n{}", page.text);
    }
}

#[tokio::test]
async fn a_server_that_starts_again_counts_what_it_finds() {
    let directory = tempfile::tempdir().expect("a directory");
    harness::fill(directory.path()).await;
    let setup = || Setup { data: kept(directory.path()), latency_ms: 3_600_000..=3_600_000, ..Setup::default() };
    let Server { client, app, .. } = Server::start(setup()).await;
    let first = until_it_agrees(&client).await;
    assert_eq!(first.value("rephase_batches"), 7.0);
    assert_eq!(first.value(r#"rephase_dead_letters{state="open"}"#), 1.0);
    // What changes after it was counted, and what is decided about a letter.
    let letter = client.get("/internal/v1/dead-letters").await.json()["dead_letters"][0]["id"].clone();
    let path = format!("/internal/v1/dead-letters/{}/discard", letter.as_str().expect("an id"));
    assert_eq!(client.post(&path, json!({})).await.status, 200);
    let batch = client.ready_batch(1).await;
    client.pipeline(&batch, "spellcheck").await;
    client.until_phase(&batch, "spellcheck", "in_progress").await;
    let last = until_it_agrees(&client).await;
    assert_eq!(last.value("rephase_batches"), 8.0);
    app.stop().await;
    let Server { client, app, .. } = Server::start(setup()).await;
    let again = until_it_agrees(&client).await;
    for page in [last, again] {
        assert_eq!(page.value(r#"rephase_dead_letters{state="discarded"}"#), 1.0);
        assert_eq!(page.value("rephase_dead_letters"), 1.0);
    }
    app.stop().await;
}

#[tokio::test]
async fn what_the_sweep_removes_is_counted_and_stands_nowhere_any_more() {
    let day_ms = 24 * 3_600 * 1_000;
    let Server { client, app, clock } = &Server::start(Setup { retain_ms: Some(2 * day_ms), ..Setup::default() }).await;
    let batch = client.ready_batch(1).await;
    client.pipeline(&batch, "nlp").await;
    client.until_settled(&batch).await;
    let before = until_it_agrees(client).await;
    assert_eq!((before.value("rephase_batches"), before.value("rephase_phases")), (1.0, 2.0));
    clock.advance(3 * day_ms);
    app.engine().sweep().await.expect("swept");
    let after = until_it_agrees(client).await;
    assert_eq!((after.value("rephase_batches"), after.value("rephase_phases")), (0.0, 0.0));
    let moved = |name: &str| after.value(name) - before.value(name);
    assert_eq!(moved("rephase_removed_records_total"), 1.0);
    assert!(moved("rephase_swept_keys_total") > 0.0);
    assert!(moved("rephase_sweep_duration_seconds_count") > 0.0);
}

#[tokio::test]
async fn nothing_that_a_client_sends_becomes_a_label() {
    let Server { client, .. } = &Server::start(Setup::default()).await;
    let batch = client.ready_batch(1).await;
    for number in 0..300 {
        let method = Method::from_bytes(format!("M{number}").as_bytes()).expect("a method");
        Client::send(client.request(method, &format!("/v1/batches/{}/status", Uuid::new_v4()))).await;
        client.get(&format!("/{number}/%22%7D%20evil%7B/{}", Uuid::new_v4())).await;
        client.get(&format!("/v1/batches/{}/status", Uuid::new_v4())).await;
        client.as_user(&format!("user-{number}")).get(&format!("/v1/batches/{batch}/phases/{number}/attempts")).await;
    }
    let page = scrape(client).await;
    let values = |label: &str| page.values("rephase_http_requests_total", label);
    let templates = ["/v1/batches/register", "/v1/batches/{batch_id}/essays", "/v1/batches/{batch_id}/status"];
    let others = ["/v1/batches/{batch_id}/phases/{phase}/attempts", "unmatched"];
    assert_eq!(values("route"), templates.into_iter().chain(others).map(str::to_owned).collect());
    assert_eq!(values("method"), ["GET", "POST", "other"].map(str::to_owned).into());
    assert_eq!(values("status"), ["202", "400", "404", "405"].map(str::to_owned).into(), "{}", page.text);
    assert!(page.lines() < 1_000, "{}", page.lines());
    assert_eq!(page.value(r#"rephase_http_requests_total{route="unmatched",method="GET",status="404"}"#), 300.0);
}

#[tokio::test]
async fn whatever_the_dashboard_and_the_alerts_ask_for_is_answered() {
    let Server { client, .. } = &Server::start(Setup::default()).await;
    let batch = client.ready_batch(1).await;
    client.pipeline(&batch, "nlp").await;
    client.until_settled(&batch).await;
    let page = scrape(client).await;
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/data");
    let dashboard = fs::read_to_string(format!("{data}/grafana-dashboard.json")).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            expressions.push(target["expr"].as_str().expect("an expression").to_owned());
        }
    }
    assert!(expressions.len() > 20, "{expressions:?}");
    let alerts = fs::read_to_string(format!("{data}/alerts.yml")).expect("alerts");
    let alerts = alerts.lines().filter_map(|line| line.trim_start().strip_prefix("expr: "));
    expressions.extend(alerts.map(str::to_owned));
    let mut used = BTreeSet::new();
    for expression in &expressions {
        let names = names_in(expression);
        assert!(!names.is_empty(), "{expression}");
        for (name, labels) in names {
            assert!(page.has(&name), "{name} is not answered: {expression}");
            for label in labels {
                // These two Prometheus adds by itself.
                let is_known = ["job", "instance"].contains(&label.as_str());
                assert!(is_known || !page.values(&name, &label).is_empty(), "{name} has no {label}");
            }
            used.insert(name);
        }
    }
    // A family that nobody looks at is one that nobody needs.
    let unused: Vec<_> =
        page.families().into_iter().filter(|name| !used.iter().any(|used| used.starts_with(name))).collect();
    assert_eq!(unused, [""; 0]);
}

/// The trace ids of messages, and how many different spans there are among them.
fn traces(messages: &[Value]) -> (BTreeSet<String>, usize) {
    let sent = messages.iter().map(|message| message["metadata"]["traceparent"].as_str().unwrap_or("none").to_owned());
    let sent: Vec<_> = sent.collect();
    let part = |range: std::ops::Range<usize>| {
        sent.iter().map(|sent| sent.get(range.clone()).unwrap_or("none").to_owned()).collect::<BTreeSet<_>>()
    };
    (part(3..35), part(36..52).len())
}

#[tokio::test]
async fn a_trace_goes_from_the_request_through_every_event_to_the_end() {
    let runners = [Runner::Simulated, Runner::Simulated, Runner::Remote, Runner::Simulated];
    let Server { client, app, .. } = &Server::start(Setup { runners, ..Setup::default() }).await;
    let mut registration = harness::registration(2);
    registration["class_id"] = json!("class-9");
    let traced = |path: &str, body: &Value, trace: &str| {
        Client::send(client.request(Method::POST, path).header("traceparent", trace).json(body))
    };
    let mut published = app.engine().bus().watch();
    let mut told = || -> Vec<Value> {
        std::iter::from_fn(|| published.try_recv().ok())
            .map(|message| serde_json::from_slice(&message.body).expect("JSON"))
            .collect()
    };
    let registered = traced("/v1/batches/register", &registration, TRACE).await;
    assert_eq!(&registered.header("traceparent")[..36], &TRACE[..36]);
    assert_ne!(registered.header("traceparent"), TRACE, "the answer is of a span of its own");
    let batch = registered.json()["batch_id"].as_str().expect("an id").to_owned();
    traced(&format!("/v1/batches/{batch}/essays"), &harness::essays_body(2), TRACE).await;
    client.until(&batch, "its students", |status| status["status"] == "ready").await;
    let messages = told();
    let types: Vec<_> = messages.iter().map(|message| message["event_type"].as_str().expect("a type")).collect();
    assert_eq!(types.len(), 5, "registered, provisioned, students asked for, confirmed, ready: {types:?}");
    assert_eq!(traces(&messages), ([TRACE[3..35].to_owned()].into(), 5), "{types:?}");

    let other = "00-11111111111111111111111111111111-2222222222222222-00";
    let pipeline = json!({ "requested_pipeline": "ai_feedback" });
    assert_eq!(traced(&format!("/v1/batches/{batch}/pipelines"), &pipeline, other).await.status, 202);
    let body = json!({ "worker_id": "w", "phases": ["nlp"], "wait_ms": 30_000 });
    let leased = client.post("/v1/workers/lease", body).await.json();
    let task = &leased["tasks"][0];
    let handed = task["traceparent"].as_str().expect("the worker gets the trace");
    assert_eq!((&handed[..35], &handed[52..]), (&other[..35], "-00"));
    assert_eq!(task["command"]["metadata"]["traceparent"], handed);
    let essays = task["essays"].as_array().expect("essays");
    let essays: Vec<_> = essays.iter().map(|essay| json!({ "essay_id": essay["essay_id"] })).collect();
    let path = format!("/v1/workers/tasks/{}/complete", task["task_id"].as_str().expect("an id"));
    let done = client.post(&path, json!({ "lease_token": task["lease_token"], "essays": essays })).await;
    assert_eq!((done.status, done.header("traceparent")), (200, ""));
    client.until_settled(&batch).await;
    let messages = told();
    let types: BTreeSet<_> = messages.iter().map(|message| message["event_type"].as_str().expect("a type")).collect();
    // Three commands with their outcomes, two notifications, the completion.
    assert_eq!(messages.len(), 9, "{types:?}");
    assert_eq!(traces(&messages), ([other[3..35].to_owned()].into(), 9), "{types:?}");

    // Without one there is none, and what is none is not gone on with.
    let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
    let retry = json!({ "phase_name": "spellcheck", "force": true });
    let answer = traced(&format!("/v1/batches/{batch}/retry-phase"), &retry, zero).await;
    assert_eq!((answer.status, answer.header("traceparent")), (202, ""));
    client.until_settled(&batch).await;
    assert_eq!(traces(&told()).0, ["none".to_owned()].into());
    let late = outcome_message(&batch, "nlp", 1);
    app.engine().publish(late).await.expect("sent");
}

#[tokio::test]
async fn a_log_for_machines_has_spans_with_the_correlation_id() {
    let mut command =
        Process::command(&["--ephemeral", "--latency-ms", "0", "--log-format", "json", "--log", "rephase=debug"]);
    command.stderr(Stdio::piped()).env("RUST_LOG", "off");
    let (process, errors) = Process::spawn_with_errors(command).expect("a server");
    let client = &process.client;
    let batch = client.ready_batch(1).await;
    let correlation_id = Uuid::new_v4().to_string();
    let path = format!("/v1/batches/{batch}/pipelines");
    let request = client.request(Method::POST, &path).header("X-Correlation-ID", &correlation_id);
    Client::send(request.json(&json!({ "requested_pipeline": "spellcheck" }))).await;
    client.until_settled(&batch).await;
    process.signal("TERM");
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut of_request = BTreeSet::new();
    for line in BufReader::new(errors).lines() {
        let line = line.expect("text");
        let entry: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(entry["timestamp"].is_string() && entry["level"].is_string(), "{line}");
        let Some(name) = entry["span"]["name"].as_str() else { continue };
        *seen.entry(name.to_owned()).or_default() += 1;
        if entry["span"]["correlation_id"] == correlation_id {
            of_request.insert(name.to_owned());
        }
    }
    assert!(process.wait().success());
    assert_eq!(seen.keys().map(String::as_str).collect::<Vec<_>>(), ["commit", "dispatch", "request", "step"]);
    assert_eq!(of_request, ["dispatch", "request", "step"].map(str::to_owned).into());
}

#[test]
fn a_filter_that_is_none_is_refused() {
    let mut command = Process::command(&["--ephemeral"]);
    command.args(["--log", "rephase=loud"]);
    let (code, _, errors) = harness::run(command);
    assert_eq!(code, 2);
    assert!(errors.contains("--log"), "{errors}");
}
