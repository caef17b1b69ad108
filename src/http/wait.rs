//! Whoever asks may wait until a batch has come to rest, and is answered then: `?wait_ms=`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::{etag, respond};
use super::{Gateway, Problem};
use crate::contract::PipelineExecutionStatus;
use crate::domain::{Batch, BatchId, Phase};
use crate::engine::Answer;

/// How long a client may wait for a batch to come to rest, in milliseconds: shorter than proxies wait for an answer.
const MAX_WAIT_MS: u64 = 30_000;

#[derive(Deserialize, JsonSchema)]
pub(super) struct WaitQuery {
    /// How long to wait for the batch to come to rest, in milliseconds.
    #[serde(default)]
    #[schemars(range(max = MAX_WAIT_MS))]
    wait_ms: u64,
}

/// How long the client waits.
pub(super) struct Wait(Duration);

impl<S: Send + Sync> FromRequestParts<S> for Wait {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let asked = Query::<WaitQuery>::from_request_parts(parts, state).await.ok();
        let wait_ms = asked.map(|Query(asked)| asked.wait_ms).filter(|wait_ms| *wait_ms <= MAX_WAIT_MS);
        let wait_ms = wait_ms.ok_or_else(|| Problem::invalid(format!("wait_ms is a number up to {MAX_WAIT_MS}")))?;
        Ok(Self(Duration::from_millis(wait_ms)))
    }
}

impl Wait {
    /// Waits until nothing of `batch` waits or runs any more, and gives the record that says so; none where the time is
    /// over before, the server ends, or there is no such batch.
    pub(super) async fn for_rest(&self, gateway: &Gateway, batch: BatchId) -> Result<Option<Arc<Batch>>, Problem> {
        if self.0.is_zero() {
            return Ok(None);
        }
        let rest = gateway.engine()?.rest(batch);
        tokio::select! {
            rested = rest => rested.map_err(Problem::from),
            () = tokio::time::sleep(self.0) => Ok(None),
            () = gateway.drain.cancelled() => Ok(None),
        }
    }

    /// Answers a request that was accepted: as it is, or, where its client waits and the batch comes to rest meanwhile,
    /// with 200 and what came of `phase`. Whatever goes wrong after it was accepted, it stays accepted.
    pub(super) async fn answer(
        &self,
        gateway: &Gateway,
        (batch, phase): (BatchId, Phase),
        (accepted, is_replayed): (Answer, bool),
    ) -> Response {
        let answer = match self.for_rest(gateway, batch).await {
            Ok(Some(record)) => ended(accepted, &record, phase),
            Ok(None) | Err(_) => accepted,
        };
        respond(answer, is_replayed)
    }
}

/// What came of a phase.
#[derive(Serialize, JsonSchema)]
pub(super) struct CameOf {
    /// How the phase stands. One that had completed, and was run again in vain, still has.
    phase_status: PipelineExecutionStatus,
    /// How its newest attempt came out.
    #[schemars(with = "Option<PipelineExecutionStatus>")]
    outcome: Option<&'static str>,
}

/// What was accepted, with what came of it. What was accepted is an object that this server wrote.
fn ended(mut answer: Answer, record: &Batch, phase: Phase) -> Answer {
    let Some(state) = record.phase_state(phase) else { return answer };
    let end = state.attempt().and_then(|attempt| attempt.end.as_ref());
    let came = CameOf { phase_status: state.status(), outcome: end.map(|end| end.outcome.as_str()) };
    if let Ok(members) = serde_json::to_string(&came)
        && answer.body.pop_if(|last| *last == b'}').is_some()
    {
        answer.body.extend(members.replacen('{', ",", 1).bytes());
        answer.status = StatusCode::OK.as_u16();
        answer.headers.extend(etag(record).map(|(name, value)| (name.as_str().to_owned(), value)));
    }
    answer
}
