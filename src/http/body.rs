//! Bodies of requests: how large, for how long, and how much of them all at once.

use std::sync::Arc;
use std::time::Duration;

use axum::RequestExt as _;
use axum::body::{Bytes, HttpBody as _};
use axum::extract::Request;
use http_body_util::{BodyExt as _, LengthLimitError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Limits, Problem};

/// How much memory bodies may take and how long each may take to arrive.
#[derive(Debug, Clone)]
pub(super) struct Bodies {
    bytes: Arc<Semaphore>,
    patience: Duration,
}

/// What is known of a body, and its share of the memory for as long as this is kept.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) share: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    pub(super) fn new(limits: &Limits) -> Self {
        let bytes = limits.bodies.min(Semaphore::MAX_PERMITS);
        Self { bytes: Arc::new(Semaphore::new(bytes)), patience: limits.body }
    }

    /// The whole body of `request`, no larger than its route allows.
    pub(super) async fn receive(&self, request: Request) -> Result<Received, Problem> {
        match tokio::time::timeout(self.patience, self.collect(request)).await {
            Ok(received) => received,
            Err(_) => Err(Problem::too_slow()),
        }
    }

    async fn collect(&self, request: Request) -> Result<Received, Problem> {
        let mut body = request.with_limited_body().into_body();
        let mut received = Received { bytes: Bytes::new(), share: None };
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| problem(&error))?;
            let Ok(part) = frame.into_data() else { continue };
            let size = u32::try_from(part.len()).map_err(|_| Problem::too_large())?;
            let share = Arc::clone(&self.bytes).try_acquire_many_owned(size).map_err(|_| Problem::no_room())?;
            match &mut received.share {
                Some(all) => all.merge(share),
                None => received.share = Some(share),
            }
            // Most bodies are one part, which need not be copied.
            if whole.is_empty() && body.is_end_stream() {
                received.bytes = part;
                return Ok(received);
            }
            whole.extend_from_slice(&part);
        }
        received.bytes = whole.into();
        Ok(received)
    }
}

fn problem(error: &axum::Error) -> Problem {
    let mut cause = std::error::Error::source(error);
    while let Some(found) = cause {
        if found.is::<LengthLimitError>() {
            return Problem::too_large();
        }
        cause = found.source();
    }
    Problem::bad_request("the body could not be read")
}
