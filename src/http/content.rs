//! Stored texts.

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::{Gateway, Problem};

pub(super) async fn read(State(gateway): State<Gateway>, Path(storage_id): Path<String>) -> Result<Response, Problem> {
    let text = gateway.engine()?.content(&storage_id).await?;
    let text = text.ok_or_else(|| Problem::not_found("there is no content with this storage id"))?;
    // Named by its hash, so it never changes.
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, text).into_response())
}
