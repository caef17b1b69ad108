//! For other services, and whoever runs the server.

use schemars::JsonSchema;
use serde_json::{Value, json};
use uuid::Uuid;

use super::operation::{Audience, ETAG, Operation};
use super::schemas::{BATCH_ID, CORRELATION_ID};
use super::state::{PipelineState, state_example};
use crate::domain::Phase;
use crate::http::internal::DefineRequest;

pub(super) fn operations() -> Vec<Operation> {
    let operator = Audience::Operator;
    vec![
        Operation::get(
            "/internal/v1/batches/{batch_id}/pipeline-state",
            "readPipelineState",
            "Read the phases of a batch",
        )
        .audience(operator)
        .answer::<PipelineStateRead>(
            200,
            "The phases.",
            json!({
                "batch_id": BATCH_ID, "pipeline_state": state_example(), "user_id": "teacher-7",
            }),
        )
        .with(&[ETAG])
        .not_found("there is no such batch"),
        Operation::post("/internal/v1/pipelines/define", "definePipeline", "Ask what a pipeline would run")
            .text("On this batch; one that is not known here has completed nothing.")
            .audience(operator)
            .body::<DefineRequest>(json!({
                "batch_id": BATCH_ID, "requested_pipeline": "ai_feedback", "correlation_id": CORRELATION_ID,
            }))
            .answer::<Defined>(
                200,
                "The phases, in order.",
                json!({
                    "batch_id": BATCH_ID, "final_pipeline": ["nlp", "ai_feedback"],
                    "analysis_summary": "2 phase(s) to run; completed already: spellcheck",
                }),
            ),
        Operation::get("/internal/v1/backup", "readBackup", "Read the whole state")
            .text("As it is at one moment, as lines of JSON: `rephase restore` makes a store of it.")
            .audience(operator)
            .answer_as::<String>(200, "The backup.", "application/x-ndjson", Value::Null)
            .conflict("a backup is being made already"),
    ]
}

#[derive(JsonSchema)]
struct PipelineStateRead {
    batch_id: Uuid,
    pipeline_state: PipelineState,
    user_id: String,
}

#[derive(JsonSchema)]
struct Defined {
    batch_id: String,
    final_pipeline: Vec<Phase>,
    analysis_summary: String,
}
