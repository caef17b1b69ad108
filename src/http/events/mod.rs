//! The event gateway, for services that speak events: they post envelopes, and read everything that is published.
//!
//! Nobody has to say who they are here: an event is a service's, not a user's.

mod groups;
mod kinds;
mod seats;
mod stream;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

pub(super) use groups::{Acknowledgement, acknowledge, forget, list};
pub(super) use seats::Streams;
pub(super) use stream::{StreamQuery, stream};

use super::body::Received;
use super::{Gateway, Problem};
use crate::engine::Posted;

/// The largest event, in bytes. One with a thousand essays and their students takes some 300 KB.
pub(super) const MAX_EVENT_BYTES: usize = 512 * 1_024;

/// From how many bytes on an event is read beside the runtime: it takes about a millisecond then.
const LARGE_EVENT_BYTES: usize = 64 * 1_024;

/// Publishes one event of another service.
pub(super) async fn publish(State(gateway): State<Gateway>, request: Request) -> Result<Response, Problem> {
    // Until the answer, so that what is being served stays within its bounds.
    let Received { bytes, share: _share } = gateway.bodies.receive(request).await?;
    let engine = gateway.engine()?;
    let event = if bytes.len() < LARGE_EVENT_BYTES {
        kinds::read(&bytes)?
    } else {
        let read = tokio::task::spawn_blocking(move || kinds::read(&bytes));
        read.await.map_err(|_| Problem::bad_request("the event could not be read"))??
    };
    let topic = event.message.topic;
    if !engine.hears(&event.message) {
        return Err(Problem::conflict(format!(
            "nobody would hear of it: no log of events is kept, and nothing here consumes {topic}"
        )));
    }
    let is_duplicate = match engine.post(event.message).await? {
        Posted::New => false,
        Posted::Duplicate => true,
    };
    let answer = json!({ "event_id": event.event_id, "topic": topic, "duplicate": is_duplicate });
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

/// What is asked of a log that is not kept.
fn no_log() -> Problem {
    Problem::conflict("no log of events is kept: the server was started with --retain-events 0")
}
