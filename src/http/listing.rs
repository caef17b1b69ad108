//! The listing of a user's batches.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::amiss::Asked;
use super::context::{Identity, MAX_PAGE, page_size};
use super::openapi::schemas::Time;
use super::{Gateway, Problem};
use crate::contract::{BatchClientStatus, ErrorCode, PipelineExecutionStatus};
use crate::domain::{Batch, BatchId, Filter, Millis, Phase};
use crate::engine::Place;

/// How many batches a page has where nobody says.
const DEFAULT_PAGE: usize = 50;

/// A filter, as clients write it.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FilterRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<BatchClientStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Phase>")]
    phase: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase_status: Option<PipelineExecutionStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<ErrorCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stuck: Option<bool>,
}

impl FilterRequest {
    pub(super) fn into_filter(self) -> Result<Filter, Problem> {
        // Before 1970 there was no batch.
        let millis = |time: Timestamp| Millis(u64::try_from(time.as_millisecond()).unwrap_or(0));
        Ok(Filter {
            status: self.status,
            phase: self.phase.map(|name| name.trim().parse()).transpose()?,
            phase_status: self.phase_status,
            error_code: self.error_code,
            since: self.since.map(millis),
            until: self.until.map(millis),
            stuck: self.stuck.unwrap_or_default(),
        })
    }
}

/// The same in a query, with which page of the result is wanted. (A query's fields cannot be flattened: they are text.)
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Where the batch stands.
    status: Option<BatchClientStatus>,
    /// A phase that was asked for; what is said of a phase is about this one.
    #[schemars(with = "Option<Phase>")]
    phase: Option<String>,
    /// Where a phase stands.
    phase_status: Option<PipelineExecutionStatus>,
    /// What a phase failed with last.
    error_code: Option<ErrorCode>,
    /// Registered then or later.
    #[schemars(with = "Option<Time>")]
    since: Option<Timestamp>,
    /// Registered before.
    #[schemars(with = "Option<Time>")]
    until: Option<Timestamp>,
    /// A phase has been over half its deadline.
    stuck: Option<bool>,
    /// How many to list at the most; 50 where nothing is said.
    #[schemars(range(min = 1, max = MAX_PAGE))]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    #[schemars(regex(pattern = r"^[0-9a-f]{1,13}\.[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"))]
    cursor: Option<String>,
}

pub(super) async fn list(
    State(gateway): State<Gateway>,
    identity: Identity,
    query: Result<Asked<ListQuery>, Problem>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let owner = identity.user(None)?;
    let Asked(query) = query?;
    let limit = page_size(query.limit, DEFAULT_PAGE)?;
    let after = query.cursor.as_deref().map(place_of).transpose()?;
    let ListQuery { status, phase, phase_status, error_code, since, until, stuck, .. } = query;
    let filter = FilterRequest { status, phase, phase_status, error_code, since, until, stuck }.into_filter()?;
    let page = engine.list(owner, filter, after, limit).await?;
    let batches: Vec<_> = page.batches.iter().map(|batch| summary(batch, page.now)).collect();
    Ok(Json(json!({ "batches": batches, "next_cursor": page.next.map(cursor_of) })).into_response())
}

/// A place of the listing, for a client to hand back.
fn cursor_of(place: Place) -> String {
    format!("{:x}.{}", place.registered_at.0, place.batch)
}

fn place_of(cursor: &str) -> Result<Place, Problem> {
    let place = cursor.split_once('.').and_then(|(registered_at, batch)| {
        let registered_at = Millis(u64::from_str_radix(registered_at, 16).ok()?);
        Some(Place { registered_at, batch: batch.parse::<BatchId>().ok()? })
    });
    place.ok_or_else(|| Problem::invalid("cursor is not one that this server gave"))
}

/// A batch in short.
pub(super) fn summary(batch: &Batch, now: Millis) -> Value {
    let phases: Map<String, Value> = batch
        .requested_phases()
        .map(|(phase, record)| {
            let detail = json!({
                "status": record.state.status(),
                "attempts": record.attempts,
                "error_code": record.error().map(|error| error.error_code),
                "essay_counts": record.counts(),
            });
            (phase.to_string(), detail)
        })
        .collect();
    json!({
        "batch_id": batch.id.to_string(),
        "status": batch.status.for_client(),
        "batch_status": batch.status,
        "version": batch.version,
        "course_code": batch.details.course_code,
        "expected_essay_count": batch.essays.len(),
        "essays_received": batch.essays_received,
        "registered_at": batch.details.registered_at.to_timestamp(),
        "updated_at": batch.updated_at.to_timestamp(),
        "phases": phases,
        "stuck_since": batch.stuck_since(now).map(Millis::to_timestamp),
        "stale": batch.stale_phases().iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
