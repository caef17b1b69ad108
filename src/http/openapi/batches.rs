//! Batches: registered, filled, looked at.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};
use uuid::Uuid;

use super::operation::{Audience, ETAG, Operation};
use super::schemas::{AT, BATCH_ID, CORRELATION_ID, ESSAY_ID, STORAGE_ID, Time, Word};
use super::state::state_example;
use crate::contract::requests::{BatchPromptAmendmentRequest, BatchRegistrationRequest};
use crate::contract::{
    BatchClientStatus, BatchStatus, CourseCode, ErrorCode, EssayProcessingCounts, PipelineExecutionStatus,
    StorageReferences,
};
use crate::domain::{Category, Phase};
use crate::http::batches::{EssaysRequest, StatusBody};
use crate::http::essays::EssaysQuery;
use crate::http::listing::ListQuery;
use crate::http::wait::WaitQuery;

/// What can be asked about a batch that is known.
const FROM_A_BATCH: [&str; 8] = [
    "provideEssays",
    "listEssays",
    "amendPrompt",
    "readBatch",
    "requestPipeline",
    "retryPhase",
    "cancelBatch",
    "listAttempts",
];

pub(super) fn operations() -> Vec<Operation> {
    let user = Audience::User;
    let prompt = json!({ "references": { "student_prompt_text": { "storage_id": "prompt-1" } } });
    vec![
        Operation::post("/v1/batches/register", "registerBatch", "Register a batch")
            .text("A batch with so many essay slots. A regular batch has a `class_id`, and waits for its students.")
            .audience(user)
            .once()
            .body::<Registration>(json!({
                "expected_essay_count": 2, "course_code": "ENG5", "student_prompt_ref": prompt,
            }))
            .answer::<Registered>(
                202,
                "It is registered.",
                json!({
                    "batch_id": BATCH_ID, "correlation_id": CORRELATION_ID, "status": "registered",
                }),
            )
            .with(&[ETAG, super::operation::REPLAYED])
            .leads("batch_id", "/batch_id", &FROM_A_BATCH),
        Operation::get("/v1/batches", "listBatches", "List the user's batches")
            .text("The newest first. A page may be short and go on all the same: go by `next_cursor`.")
            .audience(user)
            .query::<ListQuery>()
            .answer::<Listing>(200, "A page.", json!({ "batches": [summary_example()], "next_cursor": null }))
            .leads("batch_id", "/batches/0/batch_id", &FROM_A_BATCH),
        Operation::post("/v1/batches/{batch_id}/essays", "provideEssays", "Send essays")
            .text("Fills the next slots; with the last one the batch is ready.")
            .audience(user)
            .once()
            .if_match()
            .body::<EssaysRequest>(json!({ "essays": [
                { "file_name": "a.txt", "text": "I recieve letters." },
                { "file_name": "b.txt", "text_storage_id": STORAGE_ID },
            ] }))
            .answer::<EssaysTaken>(
                202,
                "They are taken.",
                json!({
                    "status": "accepted", "batch_id": BATCH_ID,
                    "essays": [{ "essay_id": ESSAY_ID, "text_storage_id": STORAGE_ID }],
                    "received": 1, "expected": 2, "batch_status": "pending_content", "correlation_id": CORRELATION_ID,
                }),
            )
            .with(&[ETAG, super::operation::REPLAYED])
            .not_found("there is no such batch")
            .conflict("more essays than there are slots left; none was taken"),
        Operation::get("/v1/batches/{batch_id}/essays", "listEssays", "List the essays of a batch")
            .text("Each with how it came out of each phase; for the owner of the batch.")
            .audience(user)
            .query::<EssaysQuery>()
            .answer::<EssayPage>(
                200,
                "A page, by slot.",
                json!({
                    "essays": [{ "essay_id": ESSAY_ID, "slot": 0, "file_name": "a.txt", "phases": {
                        "nlp": { "outcome": "failed", "pending": false, "error_code": "NLP_SERVICE_ERROR",
                                 "category": "permanent", "message": "the language model is not installed" },
                    } }],
                    "next_from": null,
                }),
            )
            .with(&[ETAG])
            .not_found("there is no such batch"),
        Operation::patch("/v1/batches/{batch_id}/prompt", "amendPrompt", "Change the prompt")
            .text("Until processing begins.")
            .audience(user)
            .if_match()
            .body::<BatchPromptAmendmentRequest>(json!({ "student_prompt_ref": prompt }))
            .answer::<PromptAmended>(
                200,
                "It is another.",
                json!({
                    "status": "success", "batch_id": BATCH_ID, "student_prompt_ref": prompt,
                }),
            )
            .with(&[ETAG])
            .not_found("there is no such batch")
            .conflict("processing has begun"),
        Operation::get("/v1/batches/{batch_id}/status", "readBatch", "Read where a batch stands")
            .text("With `wait_ms` it is answered once nothing of the batch waits or runs any more.")
            .audience(user)
            .query::<WaitQuery>()
            .answer::<StatusBody<'static>>(200, "Where the batch and its phases stand.", status_example())
            .with(&[ETAG])
            .not_found("there is no such batch"),
    ]
}

/// The registration of the contract, in which the header can stand for the user.
enum Registration {}

impl JsonSchema for Registration {
    fn schema_name() -> Cow<'static, str> {
        "BatchRegistrationRequest".into()
    }

    fn json_schema(schemas: &mut SchemaGenerator) -> Schema {
        let mut schema = BatchRegistrationRequest::json_schema(schemas);
        if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
            required.retain(|name| name != "user_id");
        }
        let about = "`user_id` may be left out where the request says otherwise who asks.";
        schema.insert("description".to_owned(), about.into());
        schema
    }
}

#[derive(JsonSchema)]
struct Registered {
    batch_id: Uuid,
    correlation_id: Uuid,
    #[schemars(extend("const" = "registered"))]
    status: Word,
}

/// A page of batches.
#[derive(JsonSchema)]
struct Listing {
    batches: Vec<BatchSummary>,
    /// Where the next page begins; none where there is none.
    next_cursor: Option<String>,
}

/// A batch in short.
#[derive(JsonSchema)]
struct BatchSummary {
    batch_id: Uuid,
    status: BatchClientStatus,
    batch_status: BatchStatus,
    /// As `ETag` says it.
    version: u64,
    course_code: CourseCode,
    expected_essay_count: usize,
    essays_received: u16,
    #[schemars(with = "Time")]
    registered_at: String,
    #[schemars(with = "Time")]
    updated_at: String,
    /// By the name of the phase; those that were asked for.
    phases: BTreeMap<String, PhaseSummary>,
    #[schemars(with = "Option<Time>")]
    stuck_since: Option<String>,
    stale: Vec<Phase>,
}

#[derive(JsonSchema)]
struct PhaseSummary {
    status: PipelineExecutionStatus,
    attempts: u32,
    error_code: Option<ErrorCode>,
    essay_counts: EssayProcessingCounts,
}

#[derive(JsonSchema)]
struct EssaysTaken {
    #[schemars(extend("const" = "accepted"))]
    status: Word,
    batch_id: Uuid,
    essays: Vec<EssayTaken>,
    /// How many slots are filled.
    received: usize,
    /// How many slots there are.
    expected: usize,
    batch_status: BatchClientStatus,
    correlation_id: Uuid,
}

#[derive(JsonSchema)]
struct EssayTaken {
    essay_id: String,
    text_storage_id: String,
}

#[derive(JsonSchema)]
struct EssayPage {
    essays: Vec<EssayResults>,
    /// The first slot of the next page.
    next_from: Option<usize>,
}

#[derive(JsonSchema)]
struct EssayResults {
    essay_id: String,
    slot: u16,
    file_name: Option<String>,
    /// By the name of the phase; those that were asked for.
    phases: BTreeMap<String, EssayOutcome>,
}

#[derive(JsonSchema)]
struct EssayOutcome {
    #[schemars(extend("enum" = ["succeeded", "failed", "not_run"]))]
    outcome: Word,
    /// Whether it is on its way again.
    pending: bool,
    error_code: Option<ErrorCode>,
    category: Option<Category>,
    message: Option<String>,
}

#[derive(JsonSchema)]
struct PromptAmended {
    #[schemars(extend("const" = "success"))]
    status: Word,
    batch_id: Uuid,
    student_prompt_ref: StorageReferences,
}

fn summary_example() -> Value {
    json!({
        "batch_id": BATCH_ID, "status": "completed_with_failures", "batch_status": "completed_with_failures",
        "version": 7, "course_code": "ENG5", "expected_essay_count": 1, "essays_received": 1, "registered_at": AT,
        "updated_at": AT,
        "phases": { "nlp": {
            "status": "failed", "attempts": 1, "error_code": "NLP_SERVICE_ERROR",
            "essay_counts": { "total": 1, "pending_dispatch_or_processing": 0, "successful": 0, "failed": 1 },
        } },
        "stuck_since": null, "stale": [],
    })
}

fn status_example() -> Value {
    json!({
        "batch_id": BATCH_ID, "status": "completed_with_failures",
        "details": { "batch_status": "completed_with_failures", "essays_received": 1, "has_prompt": true, "registered_at": AT,
                     "updated_at": AT },
        "batch_context": { "course_code": "ENG5", "expected_essay_count": 1, "user_id": "teacher-7" },
        "pipeline_state": state_example(), "stuck_since": null, "stale": [],
    })
}
