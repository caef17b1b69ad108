//! The whole state, for whoever runs the server.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use tokio_stream::wrappers::ReceiverStream;

use super::{Gateway, Problem};
use crate::engine::Engine;

pub(super) async fn read(State(gateway): State<Gateway>) -> Result<Response, Problem> {
    stream(gateway.engine()?)
}

/// The state of `engine`, line by line.
pub(super) fn stream(engine: &Engine) -> Result<Response, Problem> {
    let lines = engine.backup()?;
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(lines)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}
