//! The description of the API (`OpenAPI` 3.1), made from the code: schemas are those of the types that requests are read
//! into and answers are written from, their bounds are the constants that the handlers check against.
//!
//! A route is described where its resource is, by an [`Operation`] in one of the lists below; `tests/openapi.rs` asks the
//! router whether any is missing. Nothing is made before somebody asks for it, and then once.

#[expect(dead_code, reason = "types that stand for answers which are built as JSON; only their schemas are used")]
mod batches;
#[expect(dead_code, reason = "types that stand for answers which are built as JSON; only their schemas are used")]
mod content;
#[expect(dead_code, reason = "types that stand for answers which are built as JSON; only their schemas are used")]
mod credits;
#[expect(dead_code, reason = "types that stand for answers which are built as JSON; only their schemas are used")]
mod dead_letters;
mod document;
#[expect(dead_code, reason = "types that stand for answers which are built as JSON; only their schemas are used")]
mod events;
#[expect(dead_code, reason = "types that stand for answers which are built as JSON; only their schemas are used")]
mod internal;
mod notifications;
mod operation;
#[expect(dead_code, reason = "types that stand for answers which are built as JSON; only their schemas are used")]
mod phases;
mod problems;
#[expect(dead_code, reason = "types that stand for answers which are built as JSON; only their schemas are used")]
mod retry_jobs;
pub(super) mod schemas;
#[expect(dead_code, reason = "types that stand for answers which are built as JSON; only their schemas are used")]
mod server;
#[expect(dead_code, reason = "types that stand for answers which are built as JSON; only their schemas are used")]
pub(super) mod state;
#[expect(dead_code, reason = "types that stand for answers which are built as JSON; only their schemas are used")]
mod workers;

use std::sync::LazyLock;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;

use super::Gateway;
use super::page::{File, JSON};
use document::Document;
use operation::Operation;

/// The resources: a tag, what it is about, and its operations.
type Resource = (&'static str, &'static str, fn() -> Vec<Operation>);

/// Every resource, in the order in which people read of them. What is not here is in no document.
const RESOURCES: [Resource; 13] = [
    ("Batches", "Batches of essays: registered, filled, looked at.", batches::operations),
    ("Phases", "Pipelines of phases, and the retry of one phase.", phases::operations),
    ("Bulk retries", "One phase of many batches, retried.", retry_jobs::operations),
    ("Content", "Texts, by the hash of what they say.", content::operations),
    ("Notifications", "What becomes of a user's batches, as it happens.", notifications::operations),
    ("Workers", "Work of `remote` phases: leased, kept alive, brought back.", workers::operations),
    ("Events", "Envelopes of the contract: posted, and read as they are published.", events::operations),
    ("Internal", "For other services and whoever runs the server.", internal::operations),
    ("Credits", "What a pipeline would cost, and who has how many credits.", credits::operations),
    ("Dead letters", "Messages that no consumer could handle, until somebody decides.", dead_letters::operations),
    ("Health", "Is it alive, is it ready, how is it.", server::health),
    ("Metrics", "Everything that is counted.", server::metrics),
    ("Description", "This document.", server::description),
];

static DOCUMENT: LazyLock<File> = LazyLock::new(|| File::new(JSON, Bytes::from(document().to_string())));

fn document() -> serde_json::Value {
    let mut document = Document::new();
    for (tag, about, operations) in RESOURCES {
        document.add(tag, about, operations());
    }
    document.finish()
}

/// The route of the document. It answers while the store is still being opened, too.
pub(super) fn routes() -> Router<Gateway> {
    Router::new().route("/openapi.json", get(read))
}

async fn read(headers: HeaderMap) -> Response {
    DOCUMENT.serve(&headers)
}
