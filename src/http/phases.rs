//! Pipelines, and the retry of one phase.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::amiss::Asked;
use super::batches::batch_id;
use super::context::{Body, CorrelationId, Identity, IfMatch, MAX_PAGE, answer, change, etag, page_size, submit};
use super::openapi::schemas::one_scope;
use super::wait::Wait;
use super::{Gateway, Problem, credits};
use crate::contract::requests::{ClientId, PromptPayload, RetryReason};
use crate::contract::{BatchClientStatus, PhaseName, PipelineExecutionStatus, Text};
use crate::domain::step::{RetryRequest, Selection};
use crate::domain::view::AttemptView;
use crate::domain::{AttemptOutcome, Batch, BatchId, Input, LateOutcome, MAX_ESSAYS, Phase, PhaseState, Rejected};
use crate::engine::{DEFAULT_RETRY_REASON, Engine, Reader, Submission};

#[derive(Deserialize, JsonSchema)]
pub(super) struct PipelineRequest {
    /// The last phase; all that it depends on runs before it. In any case.
    #[schemars(with = "Phase")]
    requested_pipeline: Text<1, 100>,
    /// The batch of the path again.
    batch_id: Option<ClientId>,
    user_id: Option<ClientId>,
    /// Whether this is the retry of that one phase.
    is_retry: Option<bool>,
    retry_reason: Option<RetryReason>,
    prompt_payload: Option<PromptPayload>,
}

/// A pipeline, or with `is_retry` the retry of its one phase.
pub(super) async fn request_pipeline(
    State(gateway): State<Gateway>,
    CorrelationId(correlation_id): CorrelationId,
    Path(id): Path<String>,
    identity: Identity,
    IfMatch(versions): IfMatch,
    wait: Wait,
    Body { value: request, named }: Body<PipelineRequest>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let by = identity.user(request.user_id.as_ref())?;
    let batch = batch_id(&id)?;
    if request.batch_id.is_some_and(|body| body.as_str().parse() != Ok(batch)) {
        return Err(Problem::bad_request("batch_id is another batch than the path's"));
    }
    let phase: Phase = request.requested_pipeline.as_str().parse()?;
    let is_retry = request.is_retry.unwrap_or_default();
    if let Err(exceeded) = gateway.pipelines.check(&by) {
        return Err(credits::deny(engine, batch, (by, phase, is_retry), exceeded, correlation_id).await);
    }
    let (input, message) = if is_retry {
        let reason = reason_or_default(request.retry_reason);
        let retry = RetryRequest::whole(by, phase, reason);
        (Input::RetryPhase(retry), format!("{phase} is going to be retried"))
    } else {
        let input = Input::RequestPipeline { by, last: phase, prompt: request.prompt_payload };
        (input, format!("the pipeline {phase} is going to run"))
    };
    let submission = Submission::new(input, correlation_id).if_version(versions);
    let accepted = submit(engine, batch, submission, named, move |batch| {
        let body = json!({
            "status": "accepted",
            "message": nothing_to_run(batch, phase).unwrap_or(message),
            "batch_id": batch.id.to_string(),
            "correlation_id": correlation_id,
        });
        answer(StatusCode::ACCEPTED, batch, &body)
    });
    Ok(wait.answer(&gateway, (batch, phase), accepted.await?).await)
}

/// What there is to say where a pipeline was accepted and none of its phases is left to run.
fn nothing_to_run(batch: &Batch, last: Phase) -> Option<String> {
    let is_at_rest = batch.status.for_client() != BatchClientStatus::Processing;
    let stands = batch.phase_state(last)?.status();
    is_at_rest.then(|| match stands {
        PipelineExecutionStatus::CompletedSuccessfully | PipelineExecutionStatus::CompletedWithPartialSuccess => {
            format!("nothing to run: {last} is complete; only a retry with \"force\": true runs it again")
        }
        _ => format!("nothing to run: {last} is {stands}"),
    })
}

pub(super) fn reason_or_default(reason: Option<RetryReason>) -> String {
    match reason {
        Some(reason) if !reason.as_str().is_empty() => reason.into_string(),
        Some(_) | None => DEFAULT_RETRY_REASON.to_owned(),
    }
}

#[derive(Deserialize, JsonSchema)]
#[schemars(transform = one_scope)]
pub(super) struct RetryPhaseRequest {
    /// The phase, in any case.
    #[schemars(with = "Phase")]
    phase_name: Text<1, 100>,
    user_id: Option<ClientId>,
    /// Why; "User initiated retry" where nothing is said.
    retry_reason: Option<RetryReason>,
    /// Only these essays.
    #[schemars(length(min = 1, max = MAX_ESSAYS))]
    essay_ids: Option<Vec<ClientId>>,
    /// Only the essays that failed, or never arrived and could now. Not with `essay_ids`.
    only_failed: Option<bool>,
    /// Whether the completed phases below run again after success.
    downstream: Option<bool>,
    /// Whether what has completed runs again.
    force: Option<bool>,
    /// Whether to say what would happen, and nothing more.
    dry_run: Option<bool>,
    /// With `dry_run`: that it would be refused is an answer, and no error.
    tell_refusal: Option<bool>,
}

impl RetryPhaseRequest {
    fn selection(&mut self) -> Result<Selection, Problem> {
        match (self.essay_ids.take(), self.only_failed.unwrap_or_default()) {
            (Some(_), true) => Err(Problem::invalid("send at most one of essay_ids and only_failed")),
            (Some(essay_ids), false) if essay_ids.len() > MAX_ESSAYS => {
                Err(Problem::invalid(format!("essay_ids has more than {MAX_ESSAYS} members")))
            }
            (Some(essay_ids), false) => {
                Ok(Selection::Essays(essay_ids.into_iter().map(ClientId::into_string).collect()))
            }
            (None, true) => Ok(Selection::Failed),
            (None, false) => Ok(Selection::Whole),
        }
    }
}

pub(super) async fn retry(
    State(gateway): State<Gateway>,
    CorrelationId(correlation_id): CorrelationId,
    Path(id): Path<String>,
    identity: Identity,
    IfMatch(versions): IfMatch,
    wait: Wait,
    Body { value: mut request, named }: Body<RetryPhaseRequest>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    if !identity.is_known() && request.user_id.is_none() {
        return Err(Problem::missing_field("missing field `user_id`, and there is no header X-User-ID"));
    }
    let by = identity.user(request.user_id.as_ref())?;
    let phase: Phase = request.phase_name.as_str().parse()?;
    let selection = request.selection()?;
    let reason = reason_or_default(request.retry_reason);
    let (force, downstream) = (request.force.unwrap_or_default(), request.downstream.unwrap_or_default());
    let input = Input::RetryPhase(RetryRequest { by, phase, selection, force, downstream, reason });
    let batch = batch_id(&id)?;
    if request.dry_run.unwrap_or_default() {
        let previewed = preview(engine, batch, input, versions, correlation_id).await;
        return match previewed {
            Ok((before, after)) => {
                let mut answer = plan(&after, phase, correlation_id);
                answer.status = "dry_run";
                Ok((etag(&before), Json(answer)).into_response())
            }
            Err(problem) if request.tell_refusal.unwrap_or_default() => {
                let mut answer = problem.render(correlation_id);
                *answer.status_mut() = StatusCode::OK;
                // The answer is no error; what it has is what one would be.
                answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Ok(answer)
            }
            Err(problem) => Err(problem),
        };
    }
    let submission = Submission::new(input, correlation_id).if_version(versions);
    let accepted = submit(engine, batch, submission, named, move |batch| {
        let body = plan(batch, phase, correlation_id);
        let location = format!("/v1/batches/{}/phases/{phase}/attempts?from={}", batch.id, body.attempt);
        let mut answer = answer(StatusCode::ACCEPTED, batch, &body);
        answer.headers.push((header::LOCATION.as_str().to_owned(), location));
        answer
    });
    Ok(wait.answer(&gateway, (batch, phase), accepted.await?).await)
}

/// The batch as it is, and as it would be after `input`.
async fn preview(
    engine: &Engine,
    batch: BatchId,
    input: Input,
    versions: Option<Vec<u64>>,
    correlation_id: Uuid,
) -> Result<(Arc<Batch>, Batch), Problem> {
    let preview = move |reader: Reader<'_>| {
        let before = Arc::clone(reader.batch().ok_or(Rejected::NoSuchBatch)?);
        Ok((before, reader.preview(input, correlation_id)?))
    };
    let (before, after) = engine.query(batch, move |reader| preview(reader?)).await?;
    if versions.is_some_and(|versions| !versions.contains(&before.version)) {
        return Err(Rejected::Moved { version: before.version }.into());
    }
    Ok((before, after))
}

/// What a retry does.
#[derive(Serialize)]
struct Plan {
    status: &'static str,
    batch_id: Uuid,
    phase: PhaseName,
    message: String,
    attempt: u32,
    essay_ids: Vec<String>,
    goes_on: Vec<PhaseName>,
    runs_again: Vec<PhaseName>,
    stale: Vec<PhaseName>,
    correlation_id: Uuid,
}

/// Read off the batch as it is after the retry was accepted. The preview says the same.
fn plan(batch: &Batch, phase: Phase, correlation_id: Uuid) -> Plan {
    let plan = batch.retry_plan(phase);
    let names = |phases: &[Phase]| phases.iter().map(|phase| phase.name()).collect::<Vec<_>>();
    let mut message = format!("{phase} is going to be retried");
    if plan.waits {
        message.push_str(", once the phase that is running has ended");
    }
    if !plan.goes_on.is_empty() {
        let then: Vec<_> = plan.goes_on.iter().map(ToString::to_string).collect();
        // Writing to a string cannot fail.
        let _ = write!(message, "; then {}", then.join(", "));
    }
    Plan {
        status: "retry_initiated",
        batch_id: batch.id.0,
        phase: phase.name(),
        message,
        attempt: plan.attempt,
        essay_ids: plan.essay_ids,
        goes_on: names(&plan.goes_on),
        runs_again: names(&plan.runs_again),
        stale: names(&plan.stale),
        correlation_id,
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct AttemptsQuery {
    /// The number of the first attempt to list.
    #[serde(default)]
    #[schemars(range(max = u32::MAX))]
    from: u32,
    /// How many to list at the most.
    #[schemars(range(min = 1, max = MAX_PAGE))]
    limit: Option<usize>,
}

/// The attempts at a phase, oldest first, the open one last, a page at a time; and what came too late.
pub(super) async fn attempts(
    State(gateway): State<Gateway>,
    Path((id, phase)): Path<(String, String)>,
    identity: Identity,
    query: Result<Asked<AttemptsQuery>, Problem>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let Asked(AttemptsQuery { from, limit }) = query?;
    let limit = page_size(limit, MAX_PAGE)?;
    let phase: Phase = phase.parse()?;
    identity.may_read(&gateway, batch_id(&id)?).await?;
    let read = move |reader: Reader<'_>| {
        let batch = reader.batch().ok_or(Rejected::NoSuchBatch)?;
        let essay_id = |slot: u16| batch.essays.get(usize::from(slot)).map(|essay| essay.id.as_str());
        let ended = reader.attempts_from(phase, from, limit)?;
        let late = reader.late_outcomes(phase, MAX_LATE)?;
        let late: Vec<_> = late.iter().map(late_view).collect();
        let open = batch.phase_state(phase).and_then(|state| state.open_attempt());
        let open = open.filter(|attempt| attempt.number >= from && ended.len() < limit);
        let listed = ended.iter().chain(open.map(AsRef::as_ref));
        let attempts: Vec<_> = listed.map(|attempt| AttemptView::with_essays(attempt, essay_id)).collect();
        let last = ended.last().map_or(from, |attempt| attempt.number);
        let total = batch.phase(phase).map_or(0, |record| record.attempts);
        let next_from = (ended.len() == limit && last < total).then(|| last + 1);
        let answer = json!({ "attempts": attempts, "next_from": next_from, "late_outcomes": late });
        Ok((Arc::clone(batch), answer))
    };
    let (batch, answer) = engine.query(batch_id(&id)?, move |reader| read(reader?)).await?;
    Ok((etag(&batch), Json(answer)).into_response())
}

/// The most late outcomes that one answer lists; the newest.
const MAX_LATE: usize = 20;

fn late_view(late: &LateOutcome) -> Value {
    json!({
        "at": late.at.to_timestamp(),
        "attempt": late.attempt,
        "correlation_id": late.correlation_id,
        "phase_status": late.status,
    })
}

/// Whether the phase, or its last attempt, was cancelled by the step that made `batch` what it is.
fn was_cancelled(batch: &Batch, state: &PhaseState) -> bool {
    let end = state.attempt().and_then(|attempt| attempt.end.as_ref());
    let is_now = end.is_some_and(|end| end.outcome == AttemptOutcome::Cancelled && end.at == batch.updated_at);
    is_now || matches!(state, PhaseState::Cancelled { .. })
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct CancelRequest {
    user_id: Option<ClientId>,
    reason: Option<RetryReason>,
}

/// Stops what waits or runs. Workers that are at it are not interrupted; what they bring comes too late.
pub(super) async fn cancel(
    State(gateway): State<Gateway>,
    CorrelationId(correlation_id): CorrelationId,
    Path(id): Path<String>,
    identity: Identity,
    IfMatch(versions): IfMatch,
    Body { value: request, named }: Body<CancelRequest>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let by = identity.user(request.user_id.as_ref())?;
    let reason = request.reason.map(RetryReason::into_string).filter(|reason| !reason.is_empty());
    let reason = reason.unwrap_or_else(|| "User initiated cancellation".to_owned());
    let submission = Submission::new(Input::Cancel { by, reason }, correlation_id).if_version(versions);
    change(engine, batch_id(&id)?, submission, named, move |batch| {
        let phases = batch.requested_phases().filter(|(_, record)| was_cancelled(batch, &record.state));
        let body = json!({
            "status": "cancelled",
            "batch_id": batch.id.to_string(),
            "phases": phases.map(|(phase, _)| phase.to_string()).collect::<Vec<_>>(),
            "correlation_id": correlation_id,
        });
        answer(StatusCode::OK, batch, &body)
    })
    .await
}
