//! Bulk retries.

use schemars::JsonSchema;
use serde_json::{Value, json};
use uuid::Uuid;

use super::operation::{Audience, LOCATION, Operation, REPLAYED};
use super::schemas::{AT, BATCH_ID, CORRELATION_ID, Time, Word};
use crate::contract::PipelineExecutionStatus;
use crate::domain::Phase;
use crate::http::listing::FilterRequest;
use crate::http::retry_jobs::{JobQuery, JobsQuery, RetryJobRequest};

pub(super) fn operations() -> Vec<Operation> {
    let user = Audience::User;
    let mut made = job_example("running");
    made["correlation_id"] = CORRELATION_ID.into();
    let mut read = job_example("finished");
    read["counts"] = json!({ "waiting": 0, "retried": 1, "moved": 0, "refused": 0 });
    read["next_from"] = Value::Null;
    read["batches"] = json!([{
        "batch_id": BATCH_ID, "outcome": "retried", "at": AT, "phase_status": "in_progress", "attempt": 2,
    }]);
    vec![
        Operation::post("/v1/retry-jobs", "createRetryJob", "Retry a phase of many batches")
            .text("Of every batch of the user that fits `filter`, as many as there are now, at most 10,000.")
            .audience(user)
            .once()
            .body::<RetryJobRequest>(json!({
                "filter": { "phase_status": "failed", "error_code": "NLP_SERVICE_ERROR" }, "phase": "nlp",
                "reason": "it is installed now",
            }))
            .answer::<JobMade>(202, "The job is made.", made)
            .with(&[LOCATION, REPLAYED])
            .leads("job_id", "/job_id", &["readRetryJob", "stopRetryJob"])
            .answer::<JobPreview>(200, "What would happen (`dry_run`); the first 100 batches by name.", json!({
                "status": "dry_run", "total": 2, "would_be_retried": 1,
                "would_be_refused": [{ "error": "nlp is in_progress; it can be retried once it has ended", "count": 1 }],
                "batches": [{ "batch_id": BATCH_ID, "attempt": 2 }],
            }))
            .limited("as many jobs are running as can"),
        Operation::get("/v1/retry-jobs", "listRetryJobs", "List the user's jobs")
            .audience(user)
            .query::<JobsQuery>()
            .answer::<JobPage>(200, "A page, the newest first.", json!({
                "jobs": [job_example("finished")], "next_cursor": null,
            })),
        Operation::get("/v1/retry-jobs/{job_id}", "readRetryJob", "Read how far a job is")
            .text("And what became of each batch. `moved`: it changed after the job was made, and was left alone.")
            .audience(user)
            .query::<JobQuery>()
            .answer::<JobRead>(200, "The job, with a page of its batches.", read)
            .not_found("the user has no such job"),
        Operation::delete("/v1/retry-jobs/{job_id}", "stopRetryJob", "Stop a job")
            .text("The batches behind are left alone.")
            .audience(user)
            .answer::<JobView>(200, "It is stopped, or has ended before.", job_example("stopped"))
            .not_found("the user has no such job"),
    ]
}

#[derive(JsonSchema)]
#[schemars(rename = "RetryJob")]
struct JobView {
    job_id: Uuid,
    #[schemars(extend("enum" = ["running", "finished", "stopped"]))]
    status: Word,
    phase: Phase,
    only_failed: bool,
    reason: String,
    per_second: u32,
    /// As it was written.
    filter: FilterRequest,
    /// How many batches there are.
    total: u32,
    #[schemars(with = "Time")]
    created_at: String,
    #[schemars(with = "Option<Time>")]
    ended_at: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename = "RetryJobMade")]
struct JobMade {
    #[serde(flatten)]
    job: JobView,
    correlation_id: Uuid,
}

#[derive(JsonSchema)]
#[schemars(rename = "RetryJobRead")]
struct JobRead {
    #[serde(flatten)]
    job: JobView,
    counts: Counts,
    /// The place of the first batch of the next page.
    next_from: Option<u32>,
    batches: Vec<Member>,
}

#[derive(JsonSchema)]
#[schemars(rename = "RetryJobCounts")]
struct Counts {
    waiting: usize,
    retried: usize,
    moved: usize,
    refused: usize,
}

#[derive(JsonSchema)]
#[schemars(rename = "RetryJobBatch")]
struct Member {
    batch_id: Uuid,
    #[schemars(extend("enum" = ["waiting", "retried", "moved", "refused"]))]
    outcome: Word,
    #[schemars(with = "Option<Time>")]
    at: Option<String>,
    /// Where the phase stands by now; none where the batch is gone.
    phase_status: Option<PipelineExecutionStatus>,
    /// Of one that was retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    /// Why it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename = "RetryJobPage")]
struct JobPage {
    jobs: Vec<JobView>,
    next_cursor: Option<Uuid>,
}

#[derive(JsonSchema)]
#[schemars(rename = "RetryJobPreview")]
struct JobPreview {
    #[schemars(extend("const" = "dry_run"))]
    status: Word,
    total: usize,
    would_be_retried: usize,
    would_be_refused: Vec<Refused>,
    batches: Vec<Previewed>,
}

#[derive(JsonSchema)]
#[schemars(rename = "RetryJobRefusal")]
struct Refused {
    error: String,
    count: usize,
}

#[derive(JsonSchema)]
#[schemars(rename = "RetryJobPreviewedBatch")]
struct Previewed {
    batch_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn job_example(status: &str) -> Value {
    json!({
        "job_id": BATCH_ID, "status": status, "phase": "nlp", "only_failed": false, "reason": "it is installed now",
        "per_second": 10, "filter": { "phase_status": "failed", "error_code": "NLP_SERVICE_ERROR" }, "total": 1,
        "created_at": AT, "ended_at": if status == "running" { Value::Null } else { AT.into() },
    })
}
