//! The promise "whatever is asked, the answer is a clear one, and what is refused changes nothing": random requests,
//! most of them nearly valid, straight at the router.
//!
//! `REPHASE_ROUTER_CASES` says how many, 300 by default.

mod harness;

use std::collections::BTreeMap;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Request};
use harness::{OWNER, Server, essays_body, registration};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use rephase::app::Limits;
use rephase::http::{self, Gateway};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// How many requests share the same batches, which are in fewer and fewer different states.
const RENEWAL: usize = 100;

/// The largest answer that is read.
const MAX_ANSWER: usize = 64 * 1_024 * 1_024;

/// Every route: its method, its path, and which body fits it.
const ROUTES: [(&str, &str, Fit); 42] = [
    ("GET", "/", Fit::Nothing),
    ("GET", "/page/app.js", Fit::Nothing),
    ("GET", "/docs", Fit::Nothing),
    ("GET", "/openapi.json", Fit::Nothing),
    ("GET", "/v1/batches", Fit::Nothing),
    ("POST", "/v1/batches/register", Fit::Registration),
    ("POST", "/v1/batches/{batch}/essays", Fit::Essays),
    ("GET", "/v1/batches/{batch}/essays", Fit::Nothing),
    ("GET", "/v1/batches/{batch}/status", Fit::Nothing),
    ("PATCH", "/v1/batches/{batch}/prompt", Fit::Prompt),
    ("POST", "/v1/batches/{batch}/pipelines", Fit::Pipeline),
    ("POST", "/v1/batches/{batch}/retry-phase", Fit::Retry),
    ("POST", "/v1/batches/{batch}/retry-phase", Fit::RetryOfEssays),
    ("POST", "/v1/batches/{batch}/cancel", Fit::Cancel),
    ("GET", "/v1/batches/{batch}/phases/{phase}/attempts", Fit::Nothing),
    ("POST", "/v1/retry-jobs", Fit::Job),
    ("GET", "/v1/retry-jobs", Fit::Nothing),
    ("GET", "/v1/retry-jobs/{id}", Fit::Nothing),
    ("DELETE", "/v1/retry-jobs/{id}", Fit::Nothing),
    ("GET", "/v1/content/{id}", Fit::Nothing),
    ("POST", "/v1/workers/lease", Fit::Cancel),
    ("POST", "/v1/workers/tasks/{id}/heartbeat", Fit::Cancel),
    ("POST", "/v1/workers/tasks/{id}/complete", Fit::Essays),
    ("POST", "/v1/workers/tasks/{id}/fail", Fit::Cancel),
    ("GET", "/internal/v1/batches/{batch}/pipeline-state", Fit::Nothing),
    ("POST", "/internal/v1/pipelines/define", Fit::Define),
    ("POST", "/internal/v1/batches/{batch}/pipelines/{phase}/preflight", Fit::Nothing),
    ("GET", "/internal/v1/credits", Fit::Nothing),
    ("GET", "/internal/v1/credits/users/{id}", Fit::Nothing),
    ("PUT", "/internal/v1/credits/users/{id}", Fit::Credits),
    ("PUT", "/internal/v1/credits/organisations/{id}", Fit::Credits),
    ("POST", "/internal/v1/credits/users/{id}/adjust", Fit::Credits),
    ("GET", "/internal/v1/dead-letters", Fit::Nothing),
    ("POST", "/internal/v1/dead-letters/redrive", Fit::Letters),
    ("POST", "/internal/v1/dead-letters/discard", Fit::Letters),
    ("GET", "/internal/v1/dead-letters/{id}", Fit::Nothing),
    ("POST", "/internal/v1/dead-letters/{id}/redrive", Fit::Cancel),
    ("POST", "/internal/v1/dead-letters/{id}/discard", Fit::Cancel),
    ("GET", "/healthz", Fit::Nothing),
    ("GET", "/metrics", Fit::Nothing),
    ("GET", "/livez", Fit::Nothing),
    ("GET", "/readyz", Fit::Nothing),
];

const PHASES: [&str; 6] = ["spellcheck", "nlp", "cj_assessment", "ai_feedback", "student_matching", "comprehensive"];

/// The members of every query, and values that fit some of them.
const MEMBERS: [&str; 12] = [
    "status",
    "phase",
    "phase_status",
    "error_code",
    "since",
    "until",
    "stuck",
    "limit",
    "cursor",
    "from",
    "state",
    "topic",
];
const VALUES: [&str; 12] = [
    "ready",
    "nlp",
    "failed",
    "NLP_SERVICE_ERROR",
    "2026-03-02T08:30:00Z",
    "-009999-01-01T00:00:00Z",
    "true",
    "1",
    "4294967295",
    "18446744073709551615",
    "open",
    "9999-12-31T23:59:59.999999999Z",
];

const HEADERS: [&str; 7] =
    ["X-User-ID", "Idempotency-Key", "If-Match", "X-Correlation-ID", "traceparent", "Content-Type", "Content-Length"];
const HEADER_VALUES: [&str; 14] = [
    OWNER,
    "eve",
    "",
    "\"1\"",
    "*",
    "W/\"2\"",
    "\"1\",\"2\",\"99999999999999999999\"",
    "key-1",
    "key-2",
    "not a uuid",
    "0192f0c1-2345-7000-8000-000000000001",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "application/x-www-form-urlencoded",
    "0",
];

#[derive(Debug, Clone, Copy)]
enum Fit {
    Nothing,
    Registration,
    Essays,
    Prompt,
    Pipeline,
    Retry,
    RetryOfEssays,
    Cancel,
    Job,
    Define,
    Letters,
    Credits,
}

impl Fit {
    fn body(self, phase: &str, id: &str) -> Value {
        match self {
            Self::Nothing => Value::Null,
            Self::Registration => registration(2),
            Self::Credits => json!({ "credits": 7 }),
            Self::Essays => essays_body(1),
            Self::Prompt => json!({ "student_prompt_ref": registration(1)["student_prompt_ref"] }),
            Self::Pipeline => json!({
                "requested_pipeline": phase, "is_retry": false, "retry_reason": "r",
                "prompt_payload": { "assignment_id": "a" },
            }),
            Self::Retry => json!({
                "phase_name": phase, "retry_reason": "r", "only_failed": false, "downstream": true, "force": true,
                "dry_run": false,
            }),
            Self::RetryOfEssays => json!({ "phase_name": phase, "essay_ids": [id], "dry_run": true }),
            Self::Cancel => json!({ "user_id": OWNER, "reason": "r" }),
            Self::Job => json!({
                "filter": { "phase_status": "failed", "stuck": false, "since": "2026-03-02T08:30:00Z" },
                "phase": phase, "only_failed": true, "per_second": 10, "dry_run": true,
            }),
            Self::Define => json!({ "batch_id": id, "requested_pipeline": phase, "correlation_id": id }),
            Self::Letters => json!({ "ids": [id] }),
        }
    }
}

/// What is wrong with a body, at some place in it.
#[derive(Debug, Clone)]
enum Fault {
    Missing,
    Extra(String),
    Instead(Value),
    Huge(usize),
    Nested(usize),
    /// The text is cut here, and this byte put behind it.
    Cut(u16, u8),
}

#[derive(Debug, Clone)]
struct Case {
    route: usize,
    method: Option<String>,
    /// Which of the batches, or an id that is none.
    batch: Result<usize, String>,
    id: Result<usize, String>,
    phase: Result<usize, String>,
    path: Option<String>,
    query: Vec<(usize, Result<usize, String>)>,
    is_owner: bool,
    headers: Vec<(usize, Result<usize, Vec<u8>>)>,
    faults: Vec<(u16, Fault)>,
}

fn garbage() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9%._~!$&'()*+,;=:@-]{0,60}",
        Just("00000000-0000-0000-0000-000000000000".to_owned()),
        Just("%00".to_owned()),
        Just("%ff%fe".to_owned()),
        Just("%F0%9F%98%80".to_owned()),
        Just("..".to_owned()),
    ]
}

fn one_of(count: usize) -> impl Strategy<Value = Result<usize, String>> {
    prop_oneof![4 => (0..count).prop_map(Ok), 1 => garbage().prop_map(Err)]
}

fn json_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
        Just(json!("\u{0}")),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null, [], {}])),
        (0..PHASES.len()).prop_map(|phase| PHASES[phase].into()),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => Just(Fault::Missing),
        2 => "\\PC{0,20}".prop_map(Fault::Extra),
        6 => json_value().prop_map(Fault::Instead),
        1 => (0..70_000_usize).prop_map(Fault::Huge),
        1 => (1..300_usize).prop_map(Fault::Nested),
        1 => (any::<u16>(), any::<u8>()).prop_map(|(at, byte)| Fault::Cut(at, byte)),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let method = prop_oneof![
        8 => Just(None),
        1 => prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"])
            .prop_map(|method| Some(method.to_owned())),
        1 => "[A-Za-z]{1,12}".prop_map(Some),
    ];
    let header = prop_oneof![
        3 => (0..HEADER_VALUES.len()).prop_map(Ok),
        1 => vec(any::<u8>(), 0..300).prop_map(Err),
    ];
    let place = (one_of(BATCHES), one_of(BATCHES), one_of(PHASES.len()), prop::option::weighted(0.05, garbage()));
    let query = vec((0..MEMBERS.len(), one_of(VALUES.len())), 0..4);
    let said = (prop::bool::weighted(0.9), vec((0..HEADERS.len(), header), 0..2));
    // Half of the bodies fit, so that some of what is asked is done.
    let faults = prop_oneof![Just(Vec::new()), vec((any::<u16>(), fault()), 1..4)];
    (0..ROUTES.len(), method, place, query, said, faults).prop_map(
        |(route, method, (batch, id, phase, path), query, (is_owner, headers), faults)| Case {
            route,
            method,
            batch,
            id,
            phase,
            path,
            query,
            is_owner,
            headers,
            faults,
        },
    )
}

/// Changes `value`, or something within it that `at` leads to.
fn spoil(value: &mut Value, at: u16, fault: &Fault) {
    let within = match value {
        Value::Object(members) => members.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    let place = usize::from(at) % (within + 1);
    let rest = at / u16::try_from(within + 1).expect("bodies are small");
    if place < within {
        let is_missing = matches!(fault, Fault::Missing) && rest.is_multiple_of(2);
        match value {
            Value::Object(members) => {
                let name = members.keys().nth(place).cloned().expect("there are so many");
                if is_missing {
                    members.remove(&name);
                } else {
                    spoil(&mut members[&name], rest, fault);
                }
            }
            Value::Array(items) if is_missing => drop(items.remove(place)),
            Value::Array(items) => spoil(&mut items[place], rest, fault),
            _ => unreachable!("nothing is within"),
        }
        return;
    }
    match fault {
        Fault::Missing => *value = Value::Null,
        Fault::Extra(name) => {
            if let Value::Object(members) = value {
                members.insert(name.clone(), json!({ "x": [1] }));
            }
        }
        Fault::Instead(other) => *value = other.clone(),
        Fault::Huge(size) => *value = "å".repeat(*size).into(),
        Fault::Nested(depth) => {
            let nested = (0..*depth)
                .fold(json!(1), |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({ "a": inner }) });
            *value = nested;
        }
        Fault::Cut(..) => {}
    }
}

/// How many batches there are to ask about.
const BATCHES: usize = 5;

/// A server's router, and what there is to ask about.
struct World {
    router: Router,
    server: Server,
    batches: Vec<String>,
    /// Ids of other things: essays, letters, jobs, texts.
    ids: Vec<String>,
    asked: usize,
    /// How many answers there were of each status.
    answered: BTreeMap<u16, u32>,
    /// How many requests did something.
    done: u32,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

impl World {
    async fn new() -> Self {
        let faults = json!([
            { "phase": "nlp", "attempts": [1], "error_code": "NLP_SERVICE_ERROR", "category": "permanent",
              "message": "no" },
            { "phase": "ai_feedback", "garbled": true },
            { "phase": "cj_assessment", "delay_ms": 3_600_000 },
        ]);
        let server = Server::with_faults(faults).await;
        let gateway = Gateway::new(0, &Limits::default(), CancellationToken::new());
        gateway.open(server.app.engine().clone());
        let mut world = Self {
            router: http::router(gateway),
            server,
            batches: Vec::new(),
            ids: Vec::new(),
            asked: 0,
            answered: BTreeMap::new(),
            done: 0,
        };
        world.renew().await;
        world
    }

    /// Batches that wait for essays, are ready, failed, run, and have a dead letter.
    async fn renew(&mut self) {
        let client = &self.server.client;
        let pending = client.registered_batch(3).await;
        client.post(&format!("/v1/batches/{pending}/essays"), essays_body(1)).await;
        let ready = client.ready_batch(2).await;
        let failed = client.ready_batch(2).await;
        client.pipeline(&failed, "nlp").await;
        client.until_settled(&failed).await;
        let running = client.ready_batch(2).await;
        client.pipeline(&running, "cj_assessment").await;
        client.until_phase(&running, "cj_assessment", "in_progress").await;
        let garbled = client.ready_batch(2).await;
        client.pipeline(&garbled, "ai_feedback").await;
        client.until_settled(&garbled).await;
        client.retry(&garbled, json!({ "phase_name": "nlp" })).await;
        client.until_phase(&garbled, "nlp", "completed_successfully").await;
        let job = client.post("/v1/retry-jobs", json!({ "filter": {}, "phase": "nlp", "reason": "r" })).await.json();
        let job = job["job_id"].as_str().unwrap_or("none").to_owned();
        self.stop_job(&job).await;
        let letters = client.get("/internal/v1/dead-letters").await.json();
        let letter = letters["dead_letters"][0]["id"].as_str().unwrap_or("none").to_owned();
        let attempts = client.retry(&failed, json!({ "phase_name": "nlp", "dry_run": true })).await.json();
        let essay = attempts["essay_ids"][0].as_str().unwrap_or("none").to_owned();
        let text = rephase::engine::content_id("Essay 0.");
        self.batches = vec![pending, ready, failed, running, garbled];
        self.ids = vec![letter, job, essay, text, self.batches[1].clone()];
        self.quiet().await;
    }

    async fn stop_job(&self, job: &str) {
        let stop = self.server.client.request(reqwest::Method::DELETE, &format!("/v1/retry-jobs/{job}"));
        harness::Client::send(stop).await;
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        let answer = self.router.clone().oneshot(request).await.expect("a router cannot fail");
        let (head, body) = answer.into_parts();
        let body = to_bytes(body, MAX_ANSWER).await.expect("an answer").to_vec();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn read(&self, path: &str, user: &str) -> (Option<HeaderValue>, Value) {
        let request = Request::get(path).header("X-User-ID", user).body(Body::empty()).expect("a request");
        let answer = self.ask(request).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.json());
        (answer.headers.get("etag").cloned(), answer.json())
    }

    /// All that requests here could change.
    async fn snapshot(&self) -> Vec<(Option<HeaderValue>, Value)> {
        let mut seen = Vec::new();
        for batch in &self.batches {
            seen.push(self.read(&format!("/v1/batches/{batch}/status"), OWNER).await);
        }
        for user in [OWNER, "eve"] {
            seen.push(self.read("/v1/batches?limit=1", user).await);
            seen.push(self.read("/v1/retry-jobs?limit=5", user).await);
        }
        seen.push(self.read("/internal/v1/dead-letters?limit=10", OWNER).await);
        seen
    }

    /// Waits until what was asked before has come to rest, and says how things are then.
    async fn quiet(&self) -> Vec<(Option<HeaderValue>, Value)> {
        let mut before = self.snapshot().await;
        let mut same = 0;
        while same < 2 {
            tokio::task::yield_now().await;
            let now = self.snapshot().await;
            same = if now == before { same + 1 } else { 0 };
            before = now;
        }
        before
    }

    fn request(&self, case: &Case) -> Option<Request<Body>> {
        let (method, template, fit) = ROUTES[case.route];
        let pick = |choice: &Result<usize, String>, from: &[String]| match choice {
            Ok(index) => from[index % from.len()].clone(),
            Err(garbage) => garbage.clone(),
        };
        let phases = PHASES.map(str::to_owned);
        let (batch, id, phase) =
            (pick(&case.batch, &self.batches), pick(&case.id, &self.ids), pick(&case.phase, &phases));
        let mut path = template.replace("{batch}", &batch).replace("{id}", &id).replace("{phase}", &phase);
        if let Some(garbage) = &case.path {
            path = format!("{path}/{garbage}");
        }
        let values = VALUES.map(str::to_owned);
        let query: Vec<_> =
            case.query.iter().map(|(member, value)| format!("{}={}", MEMBERS[*member], pick(value, &values))).collect();
        if !query.is_empty() && matches!(fit, Fit::Nothing) {
            path = format!("{path}?{}", query.join("&"));
        }
        let mut body = fit.body(&phase, &id);
        let mut cut = None;
        for (at, fault) in &case.faults {
            spoil(&mut body, *at, fault);
            if let Fault::Cut(at, byte) = fault {
                cut = Some((usize::from(*at), *byte));
            }
        }
        let mut bytes = if matches!(fit, Fit::Nothing) { Vec::new() } else { body.to_string().into_bytes() };
        if let Some((at, byte)) = cut {
            bytes.truncate(at % (bytes.len() + 1));
            bytes.push(byte);
        }
        let method = case.method.as_deref().unwrap_or(method);
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).ok()?).uri(path);
        if case.is_owner {
            request = request.header("X-User-ID", OWNER);
        }
        for (name, value) in &case.headers {
            let value = match value {
                Ok(index) => HEADER_VALUES[*index].as_bytes(),
                Err(bytes) => bytes,
            };
            if let Ok(value) = HeaderValue::from_bytes(value) {
                request = request.header(HEADERS[*name], value);
            }
        }
        request.body(bytes.into()).ok()
    }

    /// Asks, and says what is wrong with the answer.
    async fn check(&mut self, case: &Case) -> Result<(), String> {
        self.asked += 1;
        if self.asked.is_multiple_of(RENEWAL) {
            self.renew().await;
        }
        // What moves by itself is not taken for what a request did: that would be so every time.
        let mut found = Ok(());
        for _ in 0..4 {
            let before = self.quiet().await;
            let Some(request) = self.request(case) else { return Ok(()) };
            let method = request.method().clone();
            let answer = self.ask(request).await;
            *self.answered.entry(answer.status).or_default() += 1;
            answer_is_clear(&method, &answer)?;
            let is_refused = answer.status >= 400;
            if answer.status == 202 && answer.json()["job_id"].is_string() {
                self.stop_job(answer.json()["job_id"].as_str().unwrap_or_default()).await;
            }
            if !is_refused && method != Method::GET && method != Method::HEAD {
                self.done += 1;
                return Ok(());
            }
            let after = self.snapshot().await;
            if before == after {
                return Ok(());
            }
            found = Err(format!("{method} was answered {} and changed {before:?} into {after:?}", answer.status));
        }
        found
    }
}

fn answer_is_clear(method: &Method, answer: &Answer) -> Result<(), String> {
    let body = answer.json();
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
    let said = || format!("{} {:?} {}", answer.status, answer.headers, String::from_utf8_lossy(&answer.body));
    let correlation_id = header("x-correlation-id").ok_or_else(|| format!("no correlation id: {}", said()))?;
    if answer.status >= 500 && !(answer.status == 503 && header("retry-after").is_some()) {
        return Err(format!("a mistake of the server: {}", said()));
    }
    if answer.status < 400 {
        return if (200..300).contains(&answer.status) { Ok(()) } else { Err(said()) };
    }
    if header("content-type") != Some("application/problem+json") {
        return Err(format!("no problem: {}", said()));
    }
    // There is no body where only the head was asked for.
    if method == Method::HEAD && answer.body.is_empty() {
        return Ok(());
    }
    let is_said = |member: &str| body[member].as_str().is_some_and(|text| !text.is_empty());
    let is_clear = is_said("error") && is_said("error_code") && body["correlation_id"] == correlation_id;
    if is_clear && body["status"] == answer.status { Ok(()) } else { Err(format!("not clear: {}", said())) }
}

#[test]
fn whatever_is_asked_the_answer_is_clear_and_what_is_refused_changes_nothing() {
    let cases = std::env::var("REPHASE_ROUTER_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let world = std::cell::RefCell::new(runtime.block_on(World::new()));
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let ended =
        runner.run(&case(), |case| runtime.block_on(world.borrow_mut().check(&case)).map_err(TestCaseError::fail));
    let World { answered, done, .. } = &*world.borrow();
    println!("answers of each status: {answered:?}; {done} requests did something");
    if let Err(error) = ended {
        panic!("{error}");
    }
    // Where no request is accepted, or none refused, nothing was tried.
    assert!(*done > 0 && answered.contains_key(&400) && answered.contains_key(&404), "{done} done, {answered:?}");
}
