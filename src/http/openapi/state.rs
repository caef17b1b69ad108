//! Where a batch and its phases stand, as many answers show it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};
use uuid::Uuid;

use super::schemas::{AT, BATCH_ID, CORRELATION_ID, ESSAY_ID, Time};
use crate::contract::{EssayProcessingCounts, PipelineExecutionStatus};
use crate::domain::Phase;
use crate::domain::view::ErrorInfo;

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
