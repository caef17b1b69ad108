//! Bulk retries.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::amiss::Asked;
use super::context::{Body, CorrelationId, Identity, MAX_PAGE, page_size, respond};
use super::listing::FilterRequest;
use super::phases::reason_or_default;
use super::{Gateway, Problem};
use crate::contract::Text;
use crate::contract::requests::{ClientId, RetryReason};
use crate::domain::{Batch, BatchId, JobId, JobMember, MemberResult, Millis, Phase, PhaseState, RetryJob};
use crate::engine::{Answer, JobPreview, JobProgress, JobRequest, MAX_PER_SECOND};

/// How many batches are retried in a second where nobody says.
const DEFAULT_PER_SECOND: u32 = 10;

/// An unknown member is an error: a `dry_run` with a slip in it would be the real thing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryJobRequest {
    filter: FilterRequest,
    /// The phase, in any case.
    #[schemars(with = "Phase")]
    phase: Text<1, 100>,
    /// Only the essays that failed, or never arrived and could now.
    only_failed: Option<bool>,
    /// Why.
    reason: Option<RetryReason>,
    /// How many batches are retried in a second; 10 where nothing is said.
    #[schemars(range(min = 1, max = MAX_PER_SECOND))]
    per_second: Option<u32>,
    /// Whether to say what would happen, and nothing more.
    dry_run: Option<bool>,
    user_id: Option<ClientId>,
}

pub(super) async fn create(
    State(gateway): State<Gateway>,
    CorrelationId(correlation_id): CorrelationId,
    identity: Identity,
    Body { value: request, named }: Body<RetryJobRequest>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let by = identity.user(request.user_id.as_ref())?;
    let per_second = request.per_second.unwrap_or(DEFAULT_PER_SECOND);
    if per_second == 0 || per_second > MAX_PER_SECOND {
        return Err(Problem::invalid(format!("per_second is between 1 and {MAX_PER_SECOND}")));
    }
    let filter_as_written = serde_json::to_value(&request.filter).unwrap_or_default();
    let job = JobRequest {
        by,
        phase: request.phase.as_str().parse()?,
        only_failed: request.only_failed.unwrap_or_default(),
        reason: reason_or_default(request.reason),
        per_second,
        filter: request.filter.into_filter()?,
        filter_as_written,
        origin: named.origin,
    };
    if request.dry_run.unwrap_or_default() {
        return Ok(Json(preview_view(&engine.preview_retry_job(job).await?)).into_response());
    }
    let render = move |job: &RetryJob| {
        let mut body = job_view(job);
        body["correlation_id"] = correlation_id.to_string().into();
        let location = (header::LOCATION.as_str().to_owned(), format!("/v1/retry-jobs/{}", job.id));
        let (status, body) = (StatusCode::ACCEPTED.as_u16(), body.to_string().into_bytes());
        Answer { fingerprint: [0; 32], status, headers: vec![location], body }
    };
    let (answer, is_replayed) = engine.start_retry_job(job, named.key, render).await?;
    Ok(respond(answer, is_replayed))
}

/// A job's id out of a path. What is no id is the id of no job; somebody else's job is none either.
fn job_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|_| no_such_job())
}

fn no_such_job() -> Problem {
    Problem::not_found("there is no such retry job")
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JobQuery {
    /// The place of the first batch to show.
    #[schemars(range(max = u32::MAX))]
    from: Option<u32>,
    #[schemars(range(min = 1, max = MAX_PAGE))]
    limit: Option<usize>,
}

pub(super) async fn read(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    identity: Identity,
    query: Result<Asked<JobQuery>, Problem>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let by = identity.user(None)?;
    let Asked(JobQuery { from, limit }) = query?;
    let progress = engine.retry_job(by, job_id(&id)?, from.unwrap_or(0), page_size(limit, MAX_PAGE)?).await?;
    let JobProgress { job, counts, members } = progress.ok_or_else(no_such_job)?;
    let mut body = job_view(&job);
    body["counts"] = counts_view(&counts);
    let last = members.last().map(|(place, ..)| place + 1);
    body["next_from"] = last.filter(|next| *next < job.total).into();
    body["batches"] = members.iter().map(|(_, member, batch)| member_view(&job, member, batch.as_ref())).collect();
    Ok(Json(body).into_response())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JobsQuery {
    #[schemars(range(min = 1, max = MAX_PAGE))]
    limit: Option<usize>,
    /// The id of the last job of the page before.
    #[schemars(with = "Option<Uuid>")]
    cursor: Option<String>,
}

pub(super) async fn list(
    State(gateway): State<Gateway>,
    identity: Identity,
    query: Result<Asked<JobsQuery>, Problem>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let by = identity.user(None)?;
    let Asked(JobsQuery { limit, cursor }) = query?;
    let limit = page_size(limit, MAX_PAGE)?;
    let before = cursor.map(|cursor| cursor.parse::<JobId>()).transpose();
    let before = before.map_err(|_| Problem::invalid("cursor is not one that this server gave"))?;
    let mut jobs = engine.retry_jobs(by, before, limit + 1).await?;
    let has_more = jobs.len() > limit;
    jobs.truncate(limit);
    let next = jobs.last().filter(|_| has_more).map(|job| job.id.to_string());
    let body = json!({ "jobs": jobs.iter().map(job_view).collect::<Vec<_>>(), "next_cursor": next });
    Ok(Json(body).into_response())
}

pub(super) async fn stop(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    identity: Identity,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let by = identity.user(None)?;
    let job = engine.stop_retry_job(by, job_id(&id)?).await?.ok_or_else(no_such_job)?;
    Ok(Json(job_view(&job)).into_response())
}

fn job_view(job: &RetryJob) -> Value {
    json!({
        "job_id": job.id.to_string(),
        "status": job.state.as_str(),
        "phase": job.phase.name(),
        "only_failed": job.only_failed,
        "reason": job.reason,
        "per_second": job.per_second,
        "filter": job.filter,
        "total": job.total,
        "created_at": job.created_at.to_timestamp(),
        "ended_at": job.state.ended_at().map(Millis::to_timestamp),
    })
}

fn counts_view(counts: &BTreeMap<&'static str, usize>) -> Value {
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    json!({
        "waiting": count("waiting"),
        "retried": count("retried"),
        "moved": count("moved"),
        "refused": count("refused"),
    })
}

/// What became of one batch, and where the phase stands by now.
fn member_view(job: &RetryJob, member: &JobMember, batch: Option<&Arc<Batch>>) -> Value {
    let outcome = member.outcome.as_ref();
    let mut view = json!({
        "batch_id": member.batch.to_string(),
        "outcome": outcome.map_or("waiting", |outcome| outcome.what.as_str()),
        "at": outcome.map(|outcome| outcome.at.to_timestamp()),
        "phase_status": batch.and_then(|batch| batch.phase_state(job.phase)).map(PhaseState::status),
    });
    match outcome.map(|outcome| &outcome.what) {
        Some(MemberResult::Retried { attempt }) => view["attempt"] = (*attempt).into(),
        Some(MemberResult::Refused { error }) => view["error"] = error.as_str().into(),
        Some(MemberResult::Moved) => view["error"] = "the batch has changed since the job was made".into(),
        None => {}
    }
    view
}

fn preview_view(preview: &JobPreview) -> Value {
    let named = |(batch, result): &(BatchId, MemberResult)| match result {
        MemberResult::Retried { attempt } => json!({ "batch_id": batch.to_string(), "attempt": attempt }),
        MemberResult::Refused { error } => json!({ "batch_id": batch.to_string(), "error": error }),
        MemberResult::Moved => json!({ "batch_id": batch.to_string() }),
    };
    let refused: Vec<_> =
        preview.refused.iter().map(|(error, count)| json!({ "error": error, "count": count })).collect();
    json!({
        "status": "dry_run",
        "total": preview.total,
        "would_be_retried": preview.retried,
        "would_be_refused": refused,
        "batches": preview.first.iter().map(named).collect::<Vec<_>>(),
    })
}
