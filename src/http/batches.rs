//! Registration, essays, prompt, status.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::context::{Body, CorrelationId, Identity, IfMatch, answer, change, etag};
use super::openapi::schemas::{Time, one_text, written};
use super::openapi::state::PipelineState;
use super::wait::Wait;
use super::whole::parse;
use super::{Gateway, Problem};
use crate::contract::requests::{BatchPromptAmendmentRequest, BatchRegistrationRequest, ClientId};
use crate::contract::{BatchClientStatus, BatchStatus, CourseCode, PhaseName, ProcessingPipelineState, Text};
use crate::domain::step::{NewEssay, Registration};
use crate::domain::view::{ErrorInfo, pipeline_state};
use crate::domain::{Batch, BatchId, Input, MAX_ESSAYS, Millis, Phase, Rejected};
use crate::engine::{Reader, Submission, content_id};

/// The largest text of one essay, in bytes: some 150,000 words.
pub(super) const MAX_TEXT_BYTES: usize = 1_024 * 1_024;

/// A batch's id out of a path. What is no id is the id of no batch.
pub(super) fn batch_id(text: &str) -> Result<BatchId, Problem> {
    text.parse().map_err(|_| Rejected::NoSuchBatch.into())
}

pub(super) async fn register(
    State(gateway): State<Gateway>,
    CorrelationId(correlation_id): CorrelationId,
    identity: Identity,
    Body { value: mut body, named }: Body<Map<String, Value>>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    // The user may be named by the header alone.
    if let (None | Some(Value::Null), Some(user)) = (body.get("user_id"), identity.as_deref()) {
        body.insert("user_id".to_owned(), user.into());
    }
    identity.set_organisation(&mut body)?;
    // An enumeration is a string of a client too, and those are trimmed first.
    if let Some(Value::String(course_code)) = body.get_mut("course_code") {
        *course_code = course_code.trim().to_owned();
    }
    let mut request: BatchRegistrationRequest = parse(Value::Object(body).to_string().as_bytes())?;
    let user = identity.user(Some(&request.user_id))?;
    request.user_id = Text::new(&user).map_err(|error| Problem::invalid(format!("user_id {error}")))?;

    let batch = BatchId(Uuid::now_v7());
    let registration = Registration::new(batch, request, engine.clock().now())?;
    let submission = Submission::new(Input::Register(Box::new(registration)), correlation_id);
    change(engine, batch, submission, named, move |batch| {
        let body =
            json!({ "batch_id": batch.id.to_string(), "correlation_id": correlation_id, "status": "registered" });
        answer(StatusCode::ACCEPTED, batch, &body)
    })
    .await
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct EssaysRequest {
    #[schemars(length(min = 1, max = MAX_ESSAYS))]
    essays: Vec<EssayRequest>,
    user_id: Option<ClientId>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(transform = one_text)]
pub(super) struct EssayRequest {
    file_name: Text<1, 255>,
    /// The text itself; or `text_storage_id`, where it is stored.
    #[schemars(transform = written)]
    text: Option<String>,
    text_storage_id: Option<ClientId>,
}

pub(super) async fn provide_essays(
    State(gateway): State<Gateway>,
    CorrelationId(correlation_id): CorrelationId,
    Path(id): Path<String>,
    identity: Identity,
    IfMatch(versions): IfMatch,
    Body { value: request, named }: Body<EssaysRequest>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let by = identity.user(request.user_id.as_ref())?;
    if request.essays.is_empty() || request.essays.len() > MAX_ESSAYS {
        return Err(Problem::invalid(format!("essays: send between 1 and {MAX_ESSAYS}")));
    }
    let mut essays = Vec::with_capacity(request.essays.len());
    let mut contents = Vec::new();
    for (index, essay) in request.essays.into_iter().enumerate() {
        let text_storage_id = match (essay.text, essay.text_storage_id) {
            (Some(text), None) if text.trim().is_empty() => {
                return Err(Problem::invalid(format!("essays[{index}].text is empty")));
            }
            (Some(text), None) if text.len() > MAX_TEXT_BYTES => {
                return Err(Problem::invalid(format!("essays[{index}].text has more than {MAX_TEXT_BYTES} bytes")));
            }
            (Some(text), None) => {
                let storage_id = content_id(&text);
                contents.push(text);
                storage_id
            }
            (None, Some(storage_id)) => storage_id.into_string(),
            (Some(_), Some(_)) | (None, None) => {
                return Err(Problem::invalid(format!("essays[{index}] needs one of text and text_storage_id")));
            }
        };
        essays.push(NewEssay { file_name: essay.file_name.into_string(), text_storage_id });
    }
    let sent = essays.len();
    let submission = Submission::new(Input::ProvideEssays { by, essays }, correlation_id).with_contents(contents);
    let submission = submission.if_version(versions);
    change(engine, batch_id(&id)?, submission, named, move |batch| {
        let received = usize::from(batch.essays_received);
        let essays: Vec<_> = (received - sent..received)
            .filter_map(|slot| batch.original_essay(slot.try_into().ok()?))
            .map(|essay| json!({ "essay_id": essay.essay_id, "text_storage_id": essay.text_storage_id }))
            .collect();
        let body = json!({
            "status": "accepted",
            "batch_id": batch.id.to_string(),
            "essays": essays,
            "received": received,
            "expected": batch.essays.len(),
            "batch_status": batch.status.for_client(),
            "correlation_id": correlation_id,
        });
        answer(StatusCode::ACCEPTED, batch, &body)
    })
    .await
}

pub(super) async fn amend_prompt(
    State(gateway): State<Gateway>,
    CorrelationId(correlation_id): CorrelationId,
    Path(id): Path<String>,
    identity: Identity,
    IfMatch(versions): IfMatch,
    Body { value: request, .. }: Body<BatchPromptAmendmentRequest>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let by = identity.user(request.user_id.as_ref())?;
    let student_prompt_ref = request.student_prompt_ref.clone();
    let submission = Submission::new(Input::AmendPrompt { by, student_prompt_ref }, correlation_id);
    let batch = engine.submit(batch_id(&id)?, submission.if_version(versions)).await?;
    let body = json!({ "status": "success", "batch_id": batch.id.to_string(), "student_prompt_ref": request.student_prompt_ref });
    Ok((etag(&batch), Json(body)).into_response())
}

pub(super) async fn status(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    identity: Identity,
    wait: Wait,
) -> Result<Response, Problem> {
    identity.may_read(&gateway, batch_id(&id)?).await?;
    wait.for_rest(&gateway, batch_id(&id)?).await?;
    if let Some((batch, now)) = gateway.engine()?.at_hand(batch_id(&id)?)
        && let Some(body) = gateway.views.get(&batch, batch.stuck_since(now))
    {
        return Ok(shown(&batch, body));
    }
    let BatchState { batch, pipeline_state, now } = read_state(&gateway, &id).await?;
    let (details, stuck_since) = (&batch.details, batch.stuck_since(now));
    let body = StatusBody {
        batch_id: batch.id.0,
        status: batch.status.for_client(),
        details: StatusDetails {
            batch_status: batch.status,
            essays_received: batch.essays_received,
            has_prompt: details.has_prompt(),
            registered_at: details.registered_at.to_timestamp(),
            updated_at: batch.updated_at.to_timestamp(),
        },
        batch_context: StatusContext {
            course_code: details.course_code,
            expected_essay_count: batch.essays.len(),
            user_id: &details.user_id,
        },
        pipeline_state,
        stuck_since: stuck_since.map(Millis::to_timestamp),
        stale: batch.stale_phases().into_iter().map(Phase::name).collect(),
    };
    let mut json = Vec::with_capacity(USUAL_STATUS_BYTES);
    serde_json::to_writer(&mut json, &body).map_err(|_| Problem::broken())?;
    let body = Bytes::from(json);
    gateway.views.put(&batch, stuck_since, body.clone());
    Ok(shown(&batch, body))
}

/// How many bytes a status of a batch that went well fits into.
const USUAL_STATUS_BYTES: usize = 1_024;

fn shown(batch: &Batch, body: Bytes) -> Response {
    (etag(batch), [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The body of a status.
#[derive(Serialize, JsonSchema)]
pub(super) struct StatusBody<'a> {
    batch_id: Uuid,
    status: BatchClientStatus,
    details: StatusDetails,
    batch_context: StatusContext<'a>,
    #[schemars(with = "PipelineState")]
    pipeline_state: ProcessingPipelineState<ErrorInfo>,
    /// Since when a phase has been over half its deadline.
    #[schemars(with = "Option<Time>")]
    stuck_since: Option<Timestamp>,
    /// Phases whose result is older than what they were made of.
    stale: Vec<PhaseName>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct StatusDetails {
    batch_status: BatchStatus,
    essays_received: u16,
    /// Whether phases that need a prompt can run.
    has_prompt: bool,
    #[schemars(with = "Time")]
    registered_at: Timestamp,
    #[schemars(with = "Time")]
    updated_at: Timestamp,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct StatusContext<'a> {
    course_code: CourseCode,
    expected_essay_count: usize,
    user_id: &'a str,
}

/// A batch as it is now.
pub(super) struct BatchState {
    pub(super) batch: Arc<Batch>,
    pub(super) pipeline_state: ProcessingPipelineState<ErrorInfo>,
    now: Millis,
}

/// The record of a batch, and its pipelines as the wire shows them.
pub(super) async fn read_state(gateway: &Gateway, id: &str) -> Result<BatchState, Problem> {
    let engine = gateway.engine()?;
    if let Some((batch, now)) = engine.at_hand(batch_id(id)?)
        && let Ok(pipeline_state) = pipeline_state(&batch, |phase| engine.newest_at_hand(&batch, phase).ok_or(()))
    {
        return Ok(BatchState { batch, pipeline_state, now });
    }
    let read = |reader: Reader<'_>| {
        let batch = Arc::clone(reader.batch().ok_or(Rejected::NoSuchBatch)?);
        let state = pipeline_state(&batch, |phase: Phase| reader.newest_attempts(phase))?;
        Ok(BatchState { batch, pipeline_state: state, now: reader.now() })
    };
    Ok(engine.query(batch_id(id)?, move |reader| read(reader?)).await?)
}
