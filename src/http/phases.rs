//! Pipelines, and the retry of one phase.

use std::fmt::Write as _;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::batches::batch_id;
use super::context::{Body, CorrelationId, Identity};
use super::{Gateway, Problem};
use crate::contract::Text;
use crate::contract::requests::{ClientId, PromptPayload, RetryReason};
use crate::domain::step::{RetryRequest, Selection};
use crate::domain::view::attempt_view;
use crate::domain::{Input, MAX_ESSAYS, Phase, Rejected};
use crate::engine::{DEFAULT_RETRY_REASON, Reader};

/// The most attempts that one answer lists.
const MAX_PAGE: usize = 200;

#[derive(Deserialize)]
pub(super) struct PipelineRequest {
    requested_pipeline: Text<1, 100>,
    batch_id: Option<ClientId>,
    user_id: Option<ClientId>,
    #[serde(default)]
    is_retry: bool,
    retry_reason: Option<RetryReason>,
    prompt_payload: Option<PromptPayload>,
}

/// A pipeline, or with `is_retry` the retry of its one phase.
pub(super) async fn request_pipeline(
    State(gateway): State<Gateway>,
    CorrelationId(correlation_id): CorrelationId,
    Path(id): Path<String>,
    identity: Identity,
    Body(request): Body<PipelineRequest>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let by = identity.user(request.user_id.as_ref())?;
    if request.batch_id.is_some_and(|body| body.as_str() != id) {
        return Err(Problem::bad_request("batch_id is another batch than the path's"));
    }
    let phase: Phase = request.requested_pipeline.as_str().parse()?;
    let batch = batch_id(&id)?;
    let (input, message) = if request.is_retry {
        let reason = reason_or_default(request.retry_reason);
        let retry = RetryRequest::whole(by, phase, reason);
        (Input::RetryPhase(retry), format!("{phase} is going to be retried"))
    } else {
        let input = Input::RequestPipeline { by, last: phase, prompt: request.prompt_payload };
        (input, format!("the pipeline {phase} is going to run"))
    };
    engine.submit(batch, input, correlation_id, Vec::new()).await?;
    let answer = json!({
        "status": "accepted",
        "message": message,
        "batch_id": id,
        "correlation_id": correlation_id,
    });
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

fn reason_or_default(reason: Option<RetryReason>) -> String {
    match reason {
        Some(reason) if !reason.as_str().is_empty() => reason.into_string(),
        Some(_) | None => DEFAULT_RETRY_REASON.to_owned(),
    }
}

#[derive(Deserialize)]
pub(super) struct RetryPhaseRequest {
    phase_name: Text<1, 100>,
    user_id: Option<ClientId>,
    retry_reason: Option<RetryReason>,
    essay_ids: Option<Vec<ClientId>>,
    #[serde(default)]
    only_failed: bool,
    #[serde(default)]
    downstream: bool,
    #[serde(default)]
    force: bool,
}

impl RetryPhaseRequest {
    fn selection(&mut self) -> Result<Selection, Problem> {
        match (self.essay_ids.take(), self.only_failed) {
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
    Body(mut request): Body<RetryPhaseRequest>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    if !identity.is_known() && request.user_id.is_none() {
        return Err(Problem::missing_field("missing field `user_id`, and there is no header X-User-ID"));
    }
    let by = identity.user(request.user_id.as_ref())?;
    let phase: Phase = request.phase_name.as_str().parse()?;
    let selection = request.selection()?;
    let reason = reason_or_default(request.retry_reason);
    let (force, downstream) = (request.force, request.downstream);
    let input = Input::RetryPhase(RetryRequest { by, phase, selection, force, downstream, reason });
    let batch = engine.submit(batch_id(&id)?, input, correlation_id, Vec::new()).await?;

    let attempt = batch.phase(phase).map_or(0, |record| record.attempts);
    let mut message = format!("{phase} is going to be retried");
    if let Some(attempt) = batch.phase_state(phase).and_then(|state| state.open_attempt())
        && attempt.dispatched_at.is_none()
    {
        message.push_str(", once the phase that is running has ended");
    } else if let Some(run) = batch.run.as_ref().filter(|run| !run.queue.is_empty()) {
        let waiting: Vec<_> = run.queue.iter().map(ToString::to_string).collect();
        // Writing to a string cannot fail.
        let _ = write!(message, "; then {}", waiting.join(", "));
    }
    let answer = json!({
        "status": "retry_initiated",
        "batch_id": id,
        "phase": phase.name(),
        "message": message,
        "attempt": attempt,
        "correlation_id": correlation_id,
    });
    let location = format!("/v1/batches/{id}/phases/{phase}/attempts?from={attempt}");
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(answer)).into_response())
}

#[derive(Deserialize)]
pub(super) struct AttemptsQuery {
    /// The number of the first attempt to list.
    #[serde(default)]
    from: u32,
}

/// The attempts at a phase, oldest first, the open one last; at most [`MAX_PAGE`], from the number `from` on.
pub(super) async fn attempts(
    State(gateway): State<Gateway>,
    Path((id, phase)): Path<(String, String)>,
    query: Result<Query<AttemptsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let Query(AttemptsQuery { from }) = query.map_err(|_| Problem::invalid("from is not the number of an attempt"))?;
    let phase: Phase = phase.parse()?;
    let read = move |reader: Reader<'_>| {
        let batch = reader.batch().ok_or(Rejected::NoSuchBatch)?;
        let essay_id = |slot: u16| batch.essays.get(usize::from(slot)).map(|essay| essay.id.as_str());
        let ended = reader.attempts_from(phase, from, MAX_PAGE)?;
        let open = batch.phase_state(phase).and_then(|state| state.open_attempt());
        let open = open.filter(|attempt| attempt.number >= from && ended.len() < MAX_PAGE);
        Ok(ended
            .iter()
            .chain(open.map(AsRef::as_ref))
            .map(|attempt| attempt_view(attempt, essay_id))
            .collect::<Vec<_>>())
    };
    let attempts = engine.query(batch_id(&id)?, move |reader| read(reader?)).await?;
    Ok(Json(json!({ "attempts": attempts })).into_response())
}
