//! What clients ask for: the pipeline request that travels on the bus, and the bodies of the HTTP routes.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::enums::CourseCode;
use super::shared::StorageReferences;
use super::text::Text;

/// The reason a user gives for a retry: at most 500 characters.
pub type RetryReason = Text<0, 500>;

/// The id of a user, a batch or an essay inside a client request: 1 to 255 characters.
pub type ClientId = Text<1, 255>;

/// `ClientBatchPipelineRequestV1`: the only thing that starts a pipeline, and, with `is_retry`, a retry of one phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientBatchPipelineRequest {
    /// The batch.
    pub batch_id: ClientId,
    /// The last phase of the pipeline; with `is_retry` the phase to retry.
    pub requested_pipeline: Text<1, 100>,
    /// What connects the request with all that it causes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_correlation_id: Option<Uuid>,
    /// Who asks.
    pub user_id: ClientId,
    /// Whether a user retries one phase.
    #[serde(default)]
    pub is_retry: bool,
    /// Why.
    #[serde(default)]
    pub retry_reason: Option<RetryReason>,
    /// A prompt for the phases that need one, where the batch has none.
    #[serde(default)]
    pub prompt_payload: Option<PromptPayload>,
}

/// `PipelinePromptPayload`: exactly one of the two (contract, Phases and pipelines).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = one_prompt)]
pub struct PromptPayload {
    /// An assignment, which names a prompt.
    #[serde(default)]
    pub assignment_id: Option<Text<0, 100>>,
    /// A stored prompt.
    #[serde(default)]
    pub cms_prompt_ref: Option<StorageReferences>,
}

fn one_prompt(schema: &mut Schema) {
    let one = |there: &str, not: &str| json!({ "required": [there], "properties": { there: { "not": { "type": "null" } }, not: { "type": "null" } } });
    let choices = [one("assignment_id", "cms_prompt_ref"), one("cms_prompt_ref", "assignment_id")];
    schema.insert("oneOf".to_owned(), json!(choices));
}

/// `BatchRegistrationRequestV1`. Numbers are as wide as JSON's, so that one out of range is refused with its reason and
/// not as a malformed body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchRegistrationRequest {
    /// How many essays will come; more than none.
    #[schemars(range(min = 1, max = 1_000))]
    pub expected_essay_count: i64,
    /// Their ids, where the client wants to choose them; one for each essay.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1_000))]
    pub essay_ids: Option<Vec<ClientId>>,
    /// The course.
    pub course_code: CourseCode,
    /// What the students were asked to write.
    #[serde(default)]
    pub student_prompt_ref: Option<StorageReferences>,
    /// The owner to be.
    pub user_id: ClientId,
    /// The owner's organisation.
    #[serde(default)]
    pub org_id: Option<Text<0, 255>>,
    /// The class of a regular batch; a guest batch has none.
    #[serde(default)]
    pub class_id: Option<Text<0, 255>>,
    /// The model that the comparative judgement shall use.
    #[serde(default)]
    pub cj_default_llm_model: Option<Text<0, 255>>,
    /// Its temperature, 0 to 2.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2))]
    pub cj_default_temperature: Option<f64>,
    /// The assignment the essays belong to.
    #[serde(default)]
    pub assignment_id: Option<Text<0, 100>>,
}

/// `BatchPromptAmendmentRequest`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchPromptAmendmentRequest {
    /// The prompt from now on.
    pub student_prompt_ref: StorageReferences,
    /// Who asks, where nothing else says it. The full stack knows it by the header alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<ClientId>,
}
