//! Stored texts.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::batches::MAX_TEXT_BYTES;
use super::context::{Body, Identity};
use super::openapi::schemas::written;
use super::{Gateway, Problem};
use crate::contract::requests::ClientId;

#[derive(Deserialize, JsonSchema)]
pub(super) struct StoreRequest {
    #[schemars(transform = written)]
    text: String,
    user_id: Option<ClientId>,
}

/// Keeps a text under its own hash, so that storing it again changes nothing.
pub(super) async fn store(
    State(gateway): State<Gateway>,
    identity: Identity,
    Body { value: StoreRequest { text, user_id }, named: _named }: Body<StoreRequest>,
) -> Result<Response, Problem> {
    if identity.is_known() {
        identity.user(user_id.as_ref())?;
    }
    if text.trim().is_empty() {
        return Err(Problem::invalid("text is empty"));
    }
    if text.len() > MAX_TEXT_BYTES {
        return Err(Problem::invalid(format!("text has more than {MAX_TEXT_BYTES} bytes")));
    }
    let storage_id = gateway.engine()?.store_content(&text).await?;
    let location = [(header::LOCATION, format!("/v1/content/{storage_id}"))];
    Ok((StatusCode::CREATED, location, Json(json!({ "storage_id": storage_id }))).into_response())
}

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
