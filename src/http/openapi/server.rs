//! The server itself: its health, and this document.

use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::operation::{Audience, IF_NONE_MATCH, Operation};
use super::schemas::Word;

pub(super) fn health() -> Vec<Operation> {
    let answer = |status: &str, message: &str, is_sound: bool| {
        json!({
            "service": "rephase", "status": status, "message": message, "version": env!("CARGO_PKG_VERSION"),
            "checks": { "recovered": true, "store": is_sound }, "dependencies": {}, "environment": "standalone",
            "counters": { "steps": 12, "duplicate_messages": 0, "refused_messages": 0, "late_outcomes": 0,
                          "broken_timers": 0, "swept_keys": 0, "removed": 0 },
        })
    };
    vec![
        Operation::get("/healthz", "health", "How is the server?")
            .without_store()
            .answer::<Health>(200, "It serves.", answer("healthy", "serving", true))
            .answer::<Health>(503, "It cannot work.", answer("unhealthy", "the store failed", false)),
        Operation::get("/livez", "isAlive", "Does the process answer?").without_store().answer::<Alive>(
            200,
            "It does.",
            json!({ "status": "alive" }),
        ),
        Operation::get("/readyz", "isReady", "Is recovery done, and does the store take commits?").answer::<Ready>(
            200,
            "It is ready.",
            json!({ "status": "ready" }),
        ),
    ]
}

pub(super) fn metrics() -> Vec<Operation> {
    vec![
        Operation::get("/metrics", "readMetrics", "Read the metrics")
            .text("For Prometheus, in its text format 0.0.4.")
            .audience(Audience::Metrics)
            .without_store()
            .answer_as::<String>(200, "The metrics.", "text/plain", Value::Null),
    ]
}

pub(super) fn description() -> Vec<Operation> {
    vec![
        Operation::get("/openapi.json", "describe", "Read this document")
            .without_store()
            .header(IF_NONE_MATCH)
            .answer::<Map<String, Value>>(200, "This document.", json!({ "openapi": "3.1.0" }))
            .with(&[super::operation::ETAG])
            .empty_answer(304, "It is the one that whoever asks has.")
            .with(&[super::operation::ETAG]),
    ]
}

#[derive(JsonSchema)]
struct Health {
    #[schemars(extend("const" = "rephase"))]
    service: Word,
    #[schemars(extend("enum" = ["healthy", "unhealthy"]))]
    status: Word,
    #[schemars(extend("enum" = ["serving", "recovering", "the store failed"]))]
    message: Word,
    version: String,
    checks: Checks,
    /// None: this server needs no other.
    dependencies: Map<String, Value>,
    environment: String,
    /// None while the store is being opened.
    counters: Option<Counters>,
}

#[derive(JsonSchema)]
#[schemars(rename = "HealthChecks")]
struct Checks {
    recovered: bool,
    store: bool,
}

#[derive(JsonSchema)]
#[schemars(rename = "HealthCounters")]
struct Counters {
    steps: u64,
    duplicate_messages: u64,
    refused_messages: u64,
    late_outcomes: u64,
    broken_timers: u64,
    swept_keys: u64,
    removed: u64,
}

#[derive(JsonSchema)]
struct Alive {
    #[schemars(extend("const" = "alive"))]
    status: Word,
}

#[derive(JsonSchema)]
struct Ready {
    #[schemars(extend("const" = "ready"))]
    status: Word,
}
