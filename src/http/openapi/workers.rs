//! Workers of somebody else's.

use schemars::JsonSchema;
use serde_json::{Value, json};
use uuid::Uuid;

use super::operation::{Audience, ETAG, Operation, REPLAYED};
use super::schemas::{AT, BATCH_ID, CORRELATION_ID, ESSAY_ID, STORAGE_ID, Time, Word};
use crate::contract::PipelineExecutionStatus;
use crate::domain::Phase;
use crate::http::workers::{CompleteBody, FailBody, HeartbeatBody, LeaseBody, Tasks};

const LEASE: &str = "Answered with tasks as soon as there is something to do, with none when `wait_ms` is over. What is \
    leased is that worker's alone, until the lease runs out.";

pub(super) fn operations() -> Vec<Operation> {
    let worker = Audience::Worker;
    let over = "the lease is over: it ran out, its attempt has ended, or there is a newer one; drop the task";
    let task = format!("{BATCH_ID}.spellcheck.1");
    let returned = |outcome: &str| {
        json!({
            "status": "accepted", "task_id": task, "batch_id": BATCH_ID, "phase": "spellcheck", "attempt": 1,
            "outcome": outcome, "correlation_id": CORRELATION_ID,
        })
    };
    vec![
        Operation::post("/v1/workers/lease", "leaseTasks", "Ask for something to do")
            .text(LEASE)
            .audience(worker)
            .body::<LeaseBody>(json!({ "worker_id": "spellcheck-1", "phases": ["spellcheck"], "wait_ms": 100 }))
            .answer::<Tasks<'static>>(200, "The tasks.", json!({ "tasks": [task_example(&task)] })).leads("task_id", "/tasks/0/task_id", &["keepTask", "completeTask", "failTask"]),
        Operation::post("/v1/workers/tasks/{task_id}/heartbeat", "keepTask", "Say that the work goes on")
            .text("The lease counts anew, up to the attempt's deadline.")
            .audience(worker)
            .body::<HeartbeatBody>(json!({ "lease_token": CORRELATION_ID, "progress": 1 }))
            .answer::<Kept>(200, "The lease goes on.", json!({
                "task_id": task, "lease_expires_at": AT, "deadline": AT, "essays_done": 1,
            }))
            .not_found("there is no such task")
            .conflict(over),
        Operation::post("/v1/workers/tasks/{task_id}/complete", "completeTask", "Bring what came out")
            .text("Each essay of the task once: with another text, metrics, or an error. The same again is answered again.")
            .audience(worker)
            .body::<CompleteBody>(json!({ "lease_token": CORRELATION_ID, "essays": [
                { "essay_id": ESSAY_ID, "text": "I receive letters.", "metrics": { "corrections": 1 } },
            ] }))
            .answer::<Returned>(200, "The attempt has ended.", returned("completed_successfully"))
            .with(&[ETAG, REPLAYED])
            .not_found("there is no such task")
            .conflict(over),
        Operation::post("/v1/workers/tasks/{task_id}/fail", "failTask", "Say that nothing came out")
            .audience(worker)
            .body::<FailBody>(json!({
                "lease_token": CORRELATION_ID, "error_code": "SPELLCHECK_SERVICE_ERROR", "category": "transient",
                "message": "the dictionary is locked",
            }))
            .answer::<Returned>(200, "The attempt has ended.", returned("failed"))
            .with(&[ETAG, REPLAYED])
            .not_found("there is no such task")
            .conflict(over),
    ]
}

#[derive(JsonSchema)]
#[schemars(rename = "TaskKept")]
struct Kept {
    task_id: String,
    #[schemars(with = "Time")]
    lease_expires_at: String,
    /// When the attempt ends, whatever its worker says.
    #[schemars(with = "Time")]
    deadline: String,
    essays_done: u32,
}

#[derive(JsonSchema)]
#[schemars(rename = "TaskReturned")]
struct Returned {
    #[schemars(extend("const" = "accepted"))]
    status: Word,
    task_id: String,
    batch_id: Uuid,
    phase: Phase,
    attempt: u32,
    outcome: Option<PipelineExecutionStatus>,
    correlation_id: Uuid,
}

fn task_example(task: &str) -> Value {
    json!({
        "task_id": task, "batch_id": BATCH_ID, "phase": "spellcheck", "attempt": 1,
        "essays": [{ "essay_id": ESSAY_ID, "slot": 0, "text_storage_id": STORAGE_ID, "spellcheck_metrics": null }],
        "prompt": null, "correlation_id": CORRELATION_ID, "traceparent": null, "lease_token": CORRELATION_ID,
        "lease_expires_at": AT,
        "deadline": AT, "command": { "event_type": "huleedu.els.spellcheck.initiate.command.v1" },
    })
}
