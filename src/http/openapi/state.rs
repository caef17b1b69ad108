//! Where a batch and its phases stand, as many answers show it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};
use uuid::Uuid;

use super::schemas::{AT, BATCH_ID, CORRELATION_ID, ESSAY_ID, Time, Word};
use crate::contract::{ErrorCode, EssayProcessingCounts, PipelineExecutionStatus};
use crate::domain::{Category, Phase};

/// Stands for the name of a pipeline that services know: a phase, or `comprehensive`.
pub(in crate::http) enum PipelineName {}

impl JsonSchema for PipelineName {
    fn schema_name() -> Cow<'static, str> {
        "PipelineName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut names: Vec<_> = Phase::ALL.iter().map(|phase| phase.name().as_str()).collect();
        names.push("comprehensive");
        json_schema!({ "type": "string", "enum": names })
    }
}

/// The phases of a batch. One that was never asked for is null.
#[derive(JsonSchema)]
pub(in crate::http) struct PipelineState {
    batch_id: Uuid,
    /// The phases of all pipelines asked for, in the order they run.
    requested_pipelines: Vec<Phase>,
    spellcheck: Option<PhaseDetail>,
    nlp: Option<PhaseDetail>,
    ai_feedback: Option<PhaseDetail>,
    cj_assessment: Option<PhaseDetail>,
    #[schemars(with = "Time")]
    last_updated: String,
}

/// Where a phase stands.
#[derive(JsonSchema)]
struct PhaseDetail {
    status: PipelineExecutionStatus,
    essay_counts: EssayProcessingCounts,
    /// When its newest attempt was dispatched.
    #[schemars(with = "Option<Time>")]
    started_at: Option<String>,
    /// When its newest attempt ended.
    #[schemars(with = "Option<Time>")]
    completed_at: Option<String>,
    /// There for a phase that failed or was retried.
    error_info: Option<ErrorInfo>,
    #[schemars(range(min = 0, max = 100))]
    progress_percentage: Option<f64>,
}

/// What went wrong, and what was tried. Members that say nothing are left out.
#[derive(JsonSchema)]
struct ErrorInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<ErrorCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<Category>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// The phase that failed, and that this one depends on.
    #[serde(skip_serializing_if = "Option::is_none")]
    dependency: Option<Phase>,
    /// When it is tried again by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    next_retry_at: Option<String>,
    /// The first hundred.
    failed_essays: Vec<FailedEssay>,
    /// Attempts after the first.
    retry_count: u32,
    /// The newest attempts that have ended, the newest first.
    retry_history: Vec<AttemptView>,
}

#[derive(JsonSchema)]
struct FailedEssay {
    essay_id: String,
    error_code: Option<ErrorCode>,
    message: Option<String>,
}

/// One attempt at a phase.
#[derive(JsonSchema)]
#[schemars(rename = "Attempt")]
pub(super) struct AttemptView {
    /// Counts from 1.
    #[schemars(range(min = 1))]
    attempt: u32,
    /// What caused it.
    #[schemars(extend("enum" = ["pipeline", "automatic", "user"]))]
    trigger: Word,
    requested_by: String,
    reason: Option<String>,
    correlation_id: Uuid,
    /// The `Idempotency-Key` of the request that caused it.
    idempotency_key: Option<String>,
    /// The `traceparent` of the request that caused it.
    traceparent: Option<String>,
    essay_count: usize,
    #[schemars(with = "Time")]
    enqueued_at: String,
    #[schemars(with = "Option<Time>")]
    dispatched_at: Option<String>,
    #[schemars(with = "Option<Time>")]
    started_at: Option<String>,
    #[schemars(with = "Option<Time>")]
    ended_at: Option<String>,
    /// None while it is open.
    outcome: Option<PipelineExecutionStatus>,
    successful: Option<u32>,
    failed: Option<u32>,
    error_code: Option<ErrorCode>,
    category: Option<Category>,
    message: Option<String>,
    /// What else is to say.
    note: Option<String>,
    /// The worker that leased it.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_ms: Option<u64>,
    /// Only in the list of the attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    essay_ids: Option<Vec<String>>,
    /// Null while it is open.
    #[serde(skip_serializing_if = "is_not_listed")]
    failed_essay_ids: Option<Vec<String>>,
}

pub(super) fn attempt_example() -> Value {
    json!({
        "attempt": 1, "trigger": "pipeline", "requested_by": "teacher-7", "reason": null,
        "correlation_id": CORRELATION_ID, "idempotency_key": null, "traceparent": null, "essay_count": 1,
        "enqueued_at": AT, "dispatched_at": AT, "started_at": AT, "ended_at": AT, "outcome": "failed", "successful": 0,
        "failed": 1, "error_code": "NLP_SERVICE_ERROR", "category": "permanent",
        "message": "the language model is not installed", "note": null, "essay_ids": [ESSAY_ID],
        "failed_essay_ids": [ESSAY_ID],
    })
}

pub(super) fn state_example() -> Value {
    let counts = |successful: u32, failed: u32| json!({ "total": 1, "pending_dispatch_or_processing": 0, "successful": successful, "failed": failed });
    let mut history = attempt_example();
    if let Some(members) = history.as_object_mut() {
        members.retain(|name, _| !name.ends_with("essay_ids"));
    }
    json!({
        "batch_id": BATCH_ID,
        "requested_pipelines": ["spellcheck", "nlp"],
        "spellcheck": {
            "status": "completed_successfully", "essay_counts": counts(1, 0), "started_at": AT, "completed_at": AT,
            "error_info": null, "progress_percentage": 100.0,
        },
        "nlp": {
            "status": "failed", "essay_counts": counts(0, 1), "started_at": AT, "completed_at": AT,
            "error_info": {
                "error_code": "NLP_SERVICE_ERROR", "category": "permanent",
                "message": "the language model is not installed", "failed_essays": [], "retry_count": 0,
                "retry_history": [history],
            },
            "progress_percentage": 100.0,
        },
        "ai_feedback": null,
        "cj_assessment": null,
        "last_updated": AT,
    })
}
