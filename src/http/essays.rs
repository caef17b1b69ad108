//! The essays of a batch, and how each came out of each phase.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::amiss::Asked;
use super::batches::batch_id;
use super::context::{Identity, MAX_PAGE, etag, page_size};
use super::{Gateway, Problem};
use crate::domain::{Batch, EssayResult, Phase, PhaseRecord, Rejected, Slot};
use crate::engine::Reader;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EssaysQuery {
    /// The slot of the first essay to list.
    #[serde(default)]
    #[schemars(range(max = Slot::MAX))]
    from: Slot,
    /// How many to list at the most.
    #[schemars(range(min = 1, max = MAX_PAGE))]
    limit: Option<usize>,
}

/// The essays by slot, a page at a time, for the owner of the batch.
pub(super) async fn list(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    identity: Identity,
    query: Result<Asked<EssaysQuery>, Problem>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let by = identity.user(None)?;
    let Asked(EssaysQuery { from, limit }) = query?;
    let limit = page_size(limit, MAX_PAGE)?;
    let read = move |reader: Reader<'_>| {
        let batch = reader.batch().ok_or(Rejected::NoSuchBatch)?;
        if batch.details.user_id != by {
            return Err(Rejected::NotOwner.into());
        }
        Ok(Arc::clone(batch))
    };
    let batch = engine.query(batch_id(&id)?, move |reader| read(reader?)).await?;
    let slots = batch.slots().skip(usize::from(from)).take(limit);
    let essays: Vec<_> = slots.filter_map(|slot| essay_view(&batch, slot)).collect();
    let next = usize::from(from) + limit;
    let next_from = (next < batch.essays.len()).then_some(next);
    Ok((etag(&batch), Json(json!({ "essays": essays, "next_from": next_from }))).into_response())
}

fn essay_view(batch: &Batch, slot: Slot) -> Option<Value> {
    let essay = batch.essays.get(usize::from(slot))?;
    let phases: Map<String, Value> = batch
        .requested_phases()
        .map(|(phase, record): (Phase, &PhaseRecord)| (phase.to_string(), result_view(record, slot)))
        .collect();
    Some(json!({
        "essay_id": essay.id,
        "slot": slot,
        "file_name": essay.content.as_ref().map(|content| content.file_name.as_str()),
        "phases": phases,
    }))
}

/// How an essay came out last, and whether it is on its way again.
fn result_view(record: &PhaseRecord, slot: Slot) -> Value {
    // The slots of an attempt are in order.
    let is_pending = record.pending_slots().binary_search(&slot).is_ok();
    let (outcome, error) = match record.results.get(usize::from(slot)) {
        None | Some(EssayResult::NotRun) => ("not_run", None),
        Some(EssayResult::Succeeded(_)) => ("succeeded", None),
        Some(EssayResult::Failed { error, .. }) => ("failed", error.as_ref()),
    };
    json!({
        "outcome": outcome,
        "pending": is_pending,
        "error_code": error.map(|error| error.error_code.as_str()),
        "category": error.map(|error| error.category.as_str()),
        "message": error.map(|error| error.message.as_str()),
    })
}
