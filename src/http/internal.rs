//! Routes for other services (contract, HTTP).

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::batches::{BatchState, read_state};
use super::context::{Body, etag};
use super::openapi::state::PipelineName;
use super::{Gateway, Problem};
use crate::contract::Text;
use crate::contract::requests::ClientId;
use crate::domain::{BatchId, Phase, resolve};

pub(super) async fn pipeline_state(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let BatchState { batch, pipeline_state, .. } = read_state(&gateway, &id).await?;
    let answer =
        json!({ "batch_id": batch.id.to_string(), "pipeline_state": pipeline_state, "user_id": batch.details.user_id });
    Ok((etag(&batch), Json(answer)).into_response())
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct DefineRequest {
    batch_id: ClientId,
    /// A phase, or `comprehensive`.
    #[schemars(with = "PipelineName")]
    requested_pipeline: Text<1, 100>,
    #[expect(dead_code, reason = "required by the contract; the answer does not repeat it")]
    correlation_id: Uuid,
}

/// What a pipeline would run on this batch. A batch that is not known here has completed nothing.
pub(super) async fn define_pipeline(
    State(gateway): State<Gateway>,
    Body { value: request, .. }: Body<DefineRequest>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let phases = resolve(request.requested_pipeline.as_str()).map_err(|error| Problem::invalid(error.to_string()))?;
    let completed: Vec<Phase> = match request.batch_id.as_str().parse::<BatchId>() {
        Ok(id) => {
            let completed = move |reader: crate::engine::Reader<'_>| {
                let batch = reader.batch().cloned();
                batch.map_or_else(Vec::new, |batch| {
                    Phase::ALL.into_iter().filter(|phase| batch.has_completed(*phase)).collect()
                })
            };
            engine.query(id, move |reader| reader.map(completed)).await?
        }
        Err(_) => Vec::new(),
    };
    let (skipped, left): (Vec<_>, Vec<_>) = phases.into_iter().partition(|phase| completed.contains(phase));
    let names = |phases: &[Phase]| phases.iter().map(ToString::to_string).collect::<Vec<_>>();
    let summary = if skipped.is_empty() {
        format!("{} phase(s) to run; nothing of it has completed", left.len())
    } else {
        format!("{} phase(s) to run; completed already: {}", left.len(), names(&skipped).join(", "))
    };
    let answer = json!({
        "batch_id": request.batch_id,
        "final_pipeline": names(&left),
        "analysis_summary": summary,
    });
    Ok(Json(answer).into_response())
}
