//! Pipelines, and the retry of one phase.

use schemars::JsonSchema;
use serde_json::json;
use uuid::Uuid;

use super::operation::{Audience, ETAG, LOCATION, Operation, REPLAYED};
use super::schemas::{AT, BATCH_ID, CORRELATION_ID, ESSAY_ID, ProblemDetails, Time, Word};
use super::state::attempt_example;
use crate::contract::BatchStatus;
use crate::domain::Phase;
use crate::domain::view::AttemptView;
use crate::http::phases::{AttemptsQuery, CancelRequest, PipelineRequest, RetryPhaseRequest};
use crate::http::wait::{CameOf, WaitQuery};

const PIPELINE: &str = "That phase with all it depends on, less what is complete. With `is_retry` the retry of that one \
    phase. With `wait_ms` it is answered with 200 once nothing of the batch waits or runs any more.";

const RETRY: &str = "Runs `phase_name` again, alone: at most one of `essay_ids` (these) and `only_failed: true`, nothing \
    for the whole phase; `cj_assessment` only whole. With `dry_run: true` it says with 200 what would happen. With `wait_ms` \
    it is answered with 200 once nothing of the batch waits or runs any more.";

const RETRY_TOLD: &str = "It came to rest (`wait_ms`), with what came of it; or what would happen (`dry_run`); or, with \
    `tell_refusal`, why it would be refused: the problem, with its own `status`.";

pub(super) fn operations() -> Vec<Operation> {
    let user = Audience::User;
    let plan = |status: &str| {
        json!({
            "status": status, "batch_id": BATCH_ID, "phase": "nlp",
            "message": "nlp is going to be retried; then ai_feedback", "attempt": 2, "essay_ids": [ESSAY_ID],
            "goes_on": ["ai_feedback"], "runs_again": [], "stale": [], "correlation_id": CORRELATION_ID,
        })
    };
    vec![
        Operation::post("/v1/batches/{batch_id}/pipelines", "requestPipeline", "Run a pipeline")
            .text(PIPELINE)
            .audience(user)
            .once()
            .if_match()
            .query::<WaitQuery>()
            .body::<PipelineRequest>(json!({ "requested_pipeline": "ai_feedback" }))
            .answer::<PipelineAccepted>(
                202,
                "It is going to run; or nothing is left to run, as `message` says.",
                json!({
                    "status": "accepted", "message": "the pipeline ai_feedback is going to run", "batch_id": BATCH_ID,
                    "correlation_id": CORRELATION_ID,
                }),
            )
            .with(&[ETAG, REPLAYED])
            .answer::<PipelineEnded>(
                200,
                "It came to rest (`wait_ms`), with what came of it.",
                json!({
                    "status": "accepted", "message": "the pipeline ai_feedback is going to run", "batch_id": BATCH_ID,
                    "correlation_id": CORRELATION_ID, "phase_status": "completed_successfully",
                "outcome": "completed_successfully",
                }),
            )
            .with(&[ETAG, REPLAYED])
            .not_found("there is no such batch, or nothing to retry")
            .conflict("a pipeline is running, or the batch is not ready")
            .fails(409, "BCS_PIPELINE_DEPENDENCY_RESOLUTION_FAILED", "a phase before it has not completed")
            .fails(402, "INSUFFICIENT_CREDITS", "it costs more credits than are left")
            .limited("more pipelines in a minute, or more retries, than a user can have"),
        Operation::post("/v1/batches/{batch_id}/retry-phase", "retryPhase", "Retry one phase")
            .text(RETRY)
            .audience(user)
            .once()
            .if_match()
            .query::<WaitQuery>()
            .body::<RetryPhaseRequest>(json!({ "phase_name": "nlp", "retry_reason": "it is installed now" }))
            .answer::<RetryPlan>(202, "It is going to be retried.", plan("retry_initiated"))
            .with(&[ETAG, LOCATION, REPLAYED])
            .answer::<RetryTold>(200, RETRY_TOLD, plan("dry_run"))
            .with(&[REPLAYED])
            .not_found("there is no such batch, or no pipeline of it was ever requested")
            .conflict("the phase is running, was never requested, or has completed (`force` runs it again)")
            .fails(409, "BCS_PIPELINE_DEPENDENCY_RESOLUTION_FAILED", "a phase before it has not completed")
            .limited("the phase was retried as often as it can be, or a moment ago"),
        Operation::post("/v1/batches/{batch_id}/cancel", "cancelBatch", "Cancel what waits or runs")
            .text("What came out before stays. A cancelled phase can be retried, or asked for again with a pipeline.")
            .audience(user)
            .once()
            .if_match()
            .optional_body::<CancelRequest>(json!({ "reason": "the wrong class" }))
            .answer::<Cancelled>(
                200,
                "It is cancelled.",
                json!({
                    "status": "cancelled", "batch_id": BATCH_ID, "phases": ["nlp"], "correlation_id": CORRELATION_ID,
                }),
            )
            .with(&[ETAG, REPLAYED])
            .not_found("there is no such batch")
            .conflict("nothing is running"),
        Operation::get(
            "/v1/batches/{batch_id}/phases/{phase}/attempts",
            "listAttempts",
            "List the attempts at a phase",
        )
        .text("The oldest first, the open one last; and outcomes that came too late.")
        .audience(user)
        .query::<AttemptsQuery>()
        .answer::<AttemptPage>(
            200,
            "A page.",
            json!({
                "attempts": [attempt_example()], "next_from": null,
                "late_outcomes": [{ "at": AT, "attempt": 1, "correlation_id": CORRELATION_ID,
                                    "phase_status": "completed_successfully" }],
            }),
        )
        .with(&[ETAG])
        .not_found("there is no such batch"),
    ]
}

#[derive(JsonSchema)]
struct PipelineAccepted {
    #[schemars(extend("const" = "accepted"))]
    status: Word,
    message: String,
    batch_id: Uuid,
    correlation_id: Uuid,
}

/// What a retry does.
#[derive(JsonSchema)]
struct RetryPlan {
    #[schemars(extend("const" = "retry_initiated"))]
    status: Word,
    #[serde(flatten)]
    plan: Plan,
}

/// What came of a pipeline.
#[derive(JsonSchema)]
struct PipelineEnded {
    #[serde(flatten)]
    accepted: PipelineAccepted,
    #[serde(flatten)]
    came: CameOf,
}

/// What came of a retry.
#[derive(JsonSchema)]
struct RetryEnded {
    #[serde(flatten)]
    accepted: RetryPlan,
    #[serde(flatten)]
    came: CameOf,
}

/// What came of a retry, or would come of it, or why not.
#[derive(JsonSchema)]
#[serde(untagged)]
enum RetryTold {
    Ended(RetryEnded),
    Would(RetryPreview),
    Refused(ProblemDetails),
}

/// What a retry would do.
#[derive(JsonSchema)]
struct RetryPreview {
    #[schemars(extend("const" = "dry_run"))]
    status: Word,
    #[serde(flatten)]
    plan: Plan,
}

#[derive(JsonSchema)]
struct Plan {
    batch_id: Uuid,
    phase: Phase,
    message: String,
    /// The number that the attempt has.
    attempt: u32,
    essay_ids: Vec<String>,
    /// Phases that go on afterwards.
    goes_on: Vec<Phase>,
    /// Completed phases that run again afterwards.
    runs_again: Vec<Phase>,
    /// Phases whose result is then older than what they were made of.
    stale: Vec<Phase>,
    correlation_id: Uuid,
}

#[derive(JsonSchema)]
struct Cancelled {
    #[schemars(extend("const" = "cancelled"))]
    status: Word,
    batch_id: Uuid,
    phases: Vec<Phase>,
    correlation_id: Uuid,
}

#[derive(JsonSchema)]
struct AttemptPage {
    attempts: Vec<AttemptView<'static>>,
    /// The number of the first attempt of the next page.
    next_from: Option<u32>,
    /// The newest outcomes that nobody waited for any more.
    late_outcomes: Vec<LateView>,
}

#[derive(JsonSchema)]
#[schemars(rename = "LateOutcome")]
struct LateView {
    #[schemars(with = "Time")]
    at: String,
    attempt: Option<u32>,
    correlation_id: Uuid,
    phase_status: BatchStatus,
}
