//! The promise "the description of the API is true": it has every route of the router and no other, its examples fit its
//! schemas, and what the server answers is what it says, member by member.
//! Whether it is `OpenAPI` at all, and what the server makes of thousands of requests, `tests/schemathesis/run` says.

mod harness;

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use harness::{Answer, Client, Server, Setup, essays_body, registration};
use rephase::app::Limits;
use rephase::http::{self, Gateway};
use rephase::worker::Runner;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Files for people, which are no part of the API.
fn is_page(path: &str) -> bool {
    path == "/" || path == "/docs" || path.starts_with("/page/") || path.starts_with("/docs/")
}

/// The paths that a router knows. It tells nobody but those who debug it.
fn paths(router: &Router) -> BTreeSet<String> {
    let shown = format!("{router:?}");
    let quoted = shown.split("RouteId(").filter_map(|rest| rest.split_once("): \"")?.1.split('"').next());
    quoted.filter(|path| path.starts_with('/') && !path.contains("{*")).map(str::to_owned).collect()
}

/// The methods of a path, as the answer to one that it does not have says.
async fn methods(router: &Router, path: &str) -> BTreeSet<String> {
    let mut place = String::new();
    for (index, part) in path.split(['{', '}']).enumerate() {
        place.push_str(if index % 2 == 0 { part } else { "x" });
    }
    let request = Request::builder().method("PROBE").uri(&place).body(Body::empty()).expect("a request");
    let answer = router.clone().oneshot(request).await.expect("a router cannot fail");
    assert_eq!(answer.status(), 405, "{path}");
    let allowed = answer.headers()["allow"].to_str().expect("text");
    allowed.split(',').map(|method| method.trim().to_lowercase()).filter(|method| method != "head").collect()
}

#[tokio::test]
async fn every_route_is_in_the_document_and_the_other_way_round() {
    let router = http::router(Gateway::new(0, &Limits::default(), CancellationToken::new()));
    let mut known = BTreeSet::new();
    for path in paths(&router).into_iter().filter(|path| !is_page(path)) {
        let methods = methods(&router, &path).await;
        known.extend(methods.iter().map(|method| format!("{} {path}", method.to_uppercase())));
    }
    assert!(known.len() > 30, "the router does not show its routes any more: {known:?}");
    let request = Request::get("/openapi.json").body(Body::empty()).expect("a request");
    let answer = router.oneshot(request).await.expect("a router cannot fail");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let body = axum::body::to_bytes(answer.into_body(), 16 * 1_024 * 1_024).await.expect("an answer");
    let document: Value = serde_json::from_slice(&body).expect("JSON");
    let document = Document(document);
    let described: BTreeSet<_> = document.operations().map(|(name, _)| name).collect();
    let undescribed: Vec<_> = known.difference(&described).collect();
    let unrouted: Vec<_> = described.difference(&known).collect();
    assert_eq!((undescribed, unrouted), (Vec::new(), Vec::new()), "not in the document; not in the router");
}

/// A description of an API.
struct Document(Value);

impl Document {
    async fn read(client: &Client) -> Self {
        let answer = client.get("/openapi.json").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        Self(answer.json())
    }

    fn operations(&self) -> impl Iterator<Item = (String, &Value)> {
        let paths = self.0["paths"].as_object().expect("paths").iter();
        paths.flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods").iter();
            methods.map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
        })
    }

    /// What `schema` says of `value`, where nothing is allowed that it does not name.
    fn errors(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut schema = schema.clone();
        schema["components"] = json!({ "schemas": self.0["components"]["schemas"] });
        close(&mut schema);
        let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&schema);
        let validator = validator.expect("a schema");
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    /// The description of an answer to the route of `path`.
    fn response(&self, method: &str, path: &str, status: u16) -> &Value {
        let path = path.split('?').next().expect("a path");
        let fits = |template: &str| {
            let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
            let same = |(one, other): (&&str, &&str)| one == other || one.starts_with('{');
            template.len() == path.len() && template.iter().zip(&path).all(same)
        };
        let paths = self.0["paths"].as_object().expect("paths");
        // One that is written out comes before one with a parameter.
        let found = paths.get_key_value(path).or_else(|| paths.iter().find(|(template, _)| fits(template)));
        let (template, methods) = found.unwrap_or_else(|| panic!("{path} is not described"));
        let response = &methods[method.to_lowercase()]["responses"][status.to_string()];
        assert!(response.is_object(), "{method} {template} has no {status}");
        self.resolve(response)
    }

    /// Holds an answer against its description.
    fn check(&self, method: &str, path: &str, answer: &Answer) -> Value {
        let response = self.response(method, path, answer.status);
        let said = format!("{method} {path} {}: {}", answer.status, answer.text);
        for (name, header) in response["headers"].as_object().expect("headers") {
            let header = self.resolve(header);
            let value = answer.headers.get(name).map(|value| value.to_str().expect("text"));
            assert!(value.is_some() || header["required"] != true, "no {name}: {said}");
            let Some(value) = value else { continue };
            let value = value
                .parse::<u64>()
                .ok()
                .filter(|_| header["schema"]["type"] == "integer")
                .map_or(json!(value), Value::from);
            assert_eq!(self.errors(&header["schema"], &value), [""; 0], "{name}: {said}");
        }
        let Some(content) = response["content"].as_object() else {
            assert_eq!(answer.text, "", "{said}");
            return Value::Null;
        };
        let media = content.get(answer.header("content-type")).unwrap_or_else(|| panic!("another type: {said}"));
        let body =
            if answer.header("content-type").ends_with("json") && !answer.header("content-type").contains("ndjson") {
                answer.json()
            } else {
                json!(answer.text)
            };
        assert_eq!(self.errors(&media["schema"], &body), [""; 0], "{said}");
        body
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value["$ref"].as_str() else { return value };
        let found = self.0.pointer(reference.strip_prefix('#').expect("a place in the document"));
        found.unwrap_or_else(|| panic!("{reference} is not there"))
    }
}

/// Lets no object have members that its schema does not name.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            // Of choices the object around them says what there is.
            let is_object = members.get("properties").is_some() && members.get("type").is_some();
            if is_object && !members.contains_key("additionalProperties") {
                members.insert("additionalProperties".to_owned(), false.into());
            }
            members.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// Every place of `value` that refers to another.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_examples_fit_and_what_is_referred_to_is_there() {
    let server = Server::start(Setup::default()).await;
    let document = Document::read(&server.client.as_nobody()).await;
    let mut all = BTreeSet::new();
    references(&document.0, &mut all);
    assert!(all.len() > 50, "{all:?}");
    for reference in all {
        document.resolve(&json!({ "$ref": reference }));
    }
    let known: BTreeSet<_> =
        document.operations().map(|(_, operation)| operation["operationId"].clone().to_string()).collect();
    let mut ids = BTreeSet::new();
    for (name, operation) in document.operations() {
        assert!(ids.insert(operation["operationId"].as_str().expect("an id")), "{name}");
        assert!(operation["summary"].is_string() && operation["tags"][0].is_string(), "{name}");
        let answers = operation["responses"].as_object().expect("answers").values();
        for link in answers.filter_map(|answer| answer["links"].as_object()).flat_map(|links| links.keys()) {
            assert!(known.contains(&json!(link).to_string()), "{name} leads to {link}");
        }
        let bodies = operation["requestBody"]["content"].as_object().into_iter().flatten();
        let answers = operation["responses"].as_object().expect("answers").values();
        let answers = answers.filter_map(|answer| document.resolve(answer)["content"].as_object()).flatten();
        for (media_type, content) in bodies.chain(answers) {
            let examples = content["examples"].as_object().into_iter().flatten().map(|(_, example)| &example["value"]);
            let examples: Vec<_> = content.get("example").into_iter().chain(examples).collect();
            assert!(
                !examples.is_empty() || !media_type.ends_with("json") || media_type.ends_with("ndjson"),
                "{name} has a body without an example"
            );
            for example in examples {
                // This document is an example of itself.
                let schema = if name == "GET /openapi.json" { json!({}) } else { content["schema"].clone() };
                assert_eq!(document.errors(&schema, example), [""; 0], "{name}: {example}");
            }
        }
    }
}

/// Asks, and holds each answer against the document.
struct Checked {
    document: Document,
    client: Client,
    seen: BTreeSet<(String, u16)>,
}

impl Checked {
    async fn new(client: &Client) -> Self {
        Self { document: Document::read(client).await, client: client.clone(), seen: BTreeSet::new() }
    }

    async fn send(&mut self, method: &str, path: &str, request: reqwest::RequestBuilder, status: u16) -> Value {
        let answer = Client::send(request).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        self.seen.insert((format!("{method} {path}"), status));
        self.document.check(method, path, &answer)
    }

    async fn get(&mut self, path: &str, status: u16) -> Value {
        let request = self.client.request(reqwest::Method::GET, path);
        self.send("GET", path, request, status).await
    }

    async fn post(&mut self, path: &str, body: Value, status: u16) -> Value {
        let request = self.client.request(reqwest::Method::POST, path).json(&body);
        self.send("POST", path, request, status).await
    }

    async fn delete(&mut self, path: &str, status: u16) -> Value {
        let request = self.client.request(reqwest::Method::DELETE, path);
        self.send("DELETE", path, request, status).await
    }
}

const NOWHERE: &str = "01999f3c-7c1e-7a30-9d51-4f0a6c2b8e11";

#[tokio::test]
async fn what_becomes_of_a_batch_is_answered_as_described() {
    let faults = json!([
        { "phase": "nlp", "attempts": [1], "essays": [0], "error_code": "NLP_SERVICE_ERROR", "category": "permanent",
          "message": "no" },
        { "phase": "ai_feedback", "attempts": [1], "error_code": "AI_FEEDBACK_SERVICE_ERROR", "category": "permanent",
          "message": "no" },
    ]);
    let server = Server::with_faults(faults).await;
    let mut api = Checked::new(&server.client).await;
    let mut with_user = registration(2);
    with_user["class_id"] = Value::Null;
    let batch = api.post("/v1/batches/register", with_user, 202).await["batch_id"].as_str().expect("an id").to_owned();
    api.post("/v1/batches/register", json!({}), 400).await;
    api.post("/v1/batches/register", json!([]), 400).await;
    let path = |rest: &str| format!("/v1/batches/{batch}/{rest}");
    api.get(&path("status"), 200).await;
    let prompt = json!({ "student_prompt_ref": registration(1)["student_prompt_ref"] });
    let amend = server.client.request(reqwest::Method::PATCH, &path("prompt")).json(&prompt);
    api.send("PATCH", &path("prompt"), amend, 200).await;
    api.post(&path("pipelines"), json!({ "requested_pipeline": "nlp" }), 409).await;
    api.post(&path("essays"), essays_body(2), 202).await;
    api.post(&path("essays"), essays_body(2), 409).await;
    let request = || {
        let body = json!({ "requested_pipeline": "ai_feedback" });
        server.client.request(reqwest::Method::POST, &path("pipelines")).header("Idempotency-Key", "p-1").json(&body)
    };
    api.send("POST", &path("pipelines"), request(), 202).await;
    api.send("POST", &path("pipelines"), request(), 202).await;
    let other = server.client.request(reqwest::Method::POST, &path("pipelines")).header("Idempotency-Key", "p-1");
    api.send("POST", &path("pipelines"), other.json(&json!({ "requested_pipeline": "nlp" })), 422).await;
    server.client.until_settled(&batch).await;

    let status = api.get(&path("status?wait_ms=5"), 200).await;
    assert_eq!(status["pipeline_state"]["ai_feedback"]["error_info"]["retry_history"][0]["attempt"], 1);
    api.get("/v1/batches?limit=1", 200).await;
    api.get(&path("essays"), 200).await;
    for phase in ["spellcheck", "nlp", "ai_feedback", "cj_assessment"] {
        api.get(&path(&format!("phases/{phase}/attempts")), 200).await;
    }
    let retry = path("retry-phase");
    api.post(&retry, json!({ "phase_name": "nlp", "only_failed": true, "dry_run": true }), 200).await;
    let waits = |path: &str| format!("{path}?wait_ms=30000");
    api.post(&waits(&retry), json!({ "phase_name": "nlp", "force": true }), 200).await;
    api.post(&waits(&path("pipelines")), json!({ "requested_pipeline": "nlp" }), 200).await;
    api.post(&retry, json!({ "phase_name": "cj_assessment", "only_failed": true }), 400).await;
    api.post(&retry, json!({ "phase_name": "none" }), 400).await;
    let stale = server.client.request(reqwest::Method::POST, &retry).header("If-Match", "\"1\"");
    api.send("POST", &retry, stale.json(&json!({ "phase_name": "nlp" })), 412).await;
    api.post(&retry, json!({ "phase_name": "ai_feedback", "retry_reason": "again", "downstream": true }), 202).await;
    server.client.until_phase(&batch, "ai_feedback", "completed_successfully").await;
    api.get(&path("status"), 200).await;
    api.post(&retry, json!({ "phase_name": "ai_feedback" }), 409).await;
    api.post(&path("cancel"), json!({}), 409).await;
    api.get(&format!("/internal/v1/batches/{batch}/pipeline-state"), 200).await;
    let define = json!({ "batch_id": batch, "requested_pipeline": "comprehensive", "correlation_id": NOWHERE });
    api.post("/internal/v1/pipelines/define", define, 200).await;

    let eve = server.client.as_user("eve").request(reqwest::Method::POST, &retry);
    api.send("POST", &retry, eve.json(&json!({ "phase_name": "nlp" })), 403).await;
    let nobody = server.client.as_nobody().request(reqwest::Method::GET, "/v1/batches");
    api.send("GET", "/v1/batches", nobody, 401).await;
    api.get(&format!("/v1/batches/{NOWHERE}/status"), 404).await;
    api.get("/v1/batches?limit=0", 400).await;
    let huge = server.client.request(reqwest::Method::POST, &retry).body("x".repeat(3 * 1_024 * 1_024));
    api.send("POST", &retry, huge, 413).await;
}

#[tokio::test]
async fn jobs_letters_texts_and_health_are_answered_as_described() {
    let faults = json!([{ "phase": "nlp", "garbled": true }, { "phase": "spellcheck", "attempts": [1],
        "error_code": "SPELLCHECK_SERVICE_ERROR", "category": "permanent", "message": "no" }]);
    let server = Server::with_faults(faults).await;
    let mut api = Checked::new(&server.client).await;
    let batch = server.client.ready_batch(1).await;
    server.client.pipeline(&batch, "nlp").await;
    server.client.until_settled(&batch).await;
    let job =
        |is_dry: bool| json!({ "filter": { "phase_status": "failed" }, "phase": "spellcheck", "dry_run": is_dry });
    api.post("/v1/retry-jobs", job(true), 200).await;
    let made = api.post("/v1/retry-jobs", job(false), 202).await;
    let made = format!("/v1/retry-jobs/{}", made["job_id"].as_str().expect("an id"));
    while api.get(&made, 200).await["status"] == "running" {
        tokio::task::yield_now().await;
    }
    api.get("/v1/retry-jobs", 200).await;
    api.delete(&made, 200).await;
    api.delete(&format!("/v1/retry-jobs/{NOWHERE}"), 404).await;
    api.post("/v1/retry-jobs", json!({ "filter": {}, "phase": "nlp", "more": 1 }), 400).await;

    server.client.retry(&batch, json!({ "phase_name": "nlp" })).await;
    let letters = loop {
        let letters = api.get("/internal/v1/dead-letters", 200).await;
        if letters["dead_letters"][0].is_object() {
            break letters;
        }
        tokio::task::yield_now().await;
    };
    let letter = format!("/internal/v1/dead-letters/{}", letters["dead_letters"][0]["id"].as_str().expect("an id"));
    api.get(&letter, 200).await;
    api.post(&format!("{letter}/discard"), json!({}), 200).await;
    api.post(&format!("{letter}/redrive"), json!({}), 409).await;
    let ids = json!({ "ids": [letters["dead_letters"][0]["id"], NOWHERE] });
    api.post("/internal/v1/dead-letters/redrive", ids, 200).await;
    api.get(&letter, 200).await;

    let stored = api.post("/v1/content", json!({ "text": "Kept." }), 201).await;
    let request = server
        .client
        .request(reqwest::Method::GET, &format!("/v1/content/{}", stored["storage_id"].as_str().expect("an id")));
    api.send("GET", "/v1/content/x", request, 200).await;
    api.get("/v1/content/none", 404).await;
    for path in ["/healthz", "/livez", "/readyz", "/v1/events/groups", "/internal/v1/backup"] {
        api.get(path, 200).await;
    }
    api.delete("/v1/events/groups/none", 404).await;
    api.post("/v1/events/groups/none/ack", json!({ "id": "0000000000000001-1" }), 409).await;
    let skipped =
        api.document.0["paths"]["/v1/events"]["post"]["requestBody"]["content"]["application/json"]["example"].clone();
    api.post("/v1/events", skipped.clone(), 202).await;
    api.post("/v1/events", json!({ "event_type": "none" }), 400).await;
    let known = server.client.request(reqwest::Method::GET, "/openapi.json");
    let tag = server.client.get("/openapi.json").await.header("etag").to_owned();
    api.send("GET", "/openapi.json", known.header("If-None-Match", tag), 304).await;
}

#[tokio::test]
async fn workers_are_answered_as_described() {
    let server = Server::start(Setup { runners: [Runner::Remote; 4], ..Setup::default() }).await;
    let mut api = Checked::new(&server.client).await;
    let lease = json!({ "worker_id": "w", "phases": ["spellcheck", "nlp"], "max": 1, "wait_ms": 30_000 });
    let batch = server.client.ready_batch(2).await;
    server.client.pipeline(&batch, "nlp").await;
    let leased = api.post("/v1/workers/lease", lease.clone(), 200).await["tasks"][0].clone();
    let task = format!("/v1/workers/tasks/{}", leased["task_id"].as_str().expect("an id"));
    let token = &leased["lease_token"];
    api.post(&format!("{task}/heartbeat"), json!({ "lease_token": token, "progress": 1 }), 200).await;
    api.get(&format!("/v1/batches/{batch}/status"), 200).await;
    let essays = leased["essays"].as_array().expect("essays").iter();
    let essays: Vec<_> = essays.map(|essay| json!({ "essay_id": essay["essay_id"], "metrics": { "n": 1 } })).collect();
    let complete = json!({ "lease_token": token, "essays": essays });
    api.post(&format!("{task}/complete"), complete.clone(), 200).await;
    api.post(&format!("{task}/complete"), complete, 200).await;
    api.post(&format!("{task}/heartbeat"), json!({ "lease_token": token }), 409).await;
    let leased = api.post("/v1/workers/lease", lease, 200).await["tasks"][0].clone();
    let task = format!("/v1/workers/tasks/{}", leased["task_id"].as_str().expect("an id"));
    let fail = json!({ "lease_token": leased["lease_token"], "error_code": "NLP_SERVICE_ERROR", "message": "no" });
    api.post(&format!("{task}/fail"), fail, 200).await;
    api.get(&format!("/v1/batches/{batch}/phases/nlp/attempts"), 200).await;
    api.post("/v1/workers/lease", json!({ "worker_id": "w", "phases": [] }), 400).await;
    api.post("/v1/workers/tasks/none/fail", json!({}), 400).await;
}
