//! Stored texts.

use schemars::JsonSchema;
use serde_json::json;

use super::operation::{Audience, LOCATION, Operation};
use super::schemas::STORAGE_ID;
use crate::http::content::StoreRequest;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::post("/v1/content", "storeContent", "Store a text")
            .text("Under its hash: the same however often it is sent. At most 1 MiB.")
            .audience(Audience::User)
            .body::<StoreRequest>(json!({ "text": "I receive letters." }))
            .answer::<Stored>(201, "It is stored.", json!({ "storage_id": STORAGE_ID }))
            .with(&[LOCATION])
            .leads("storage_id", "/storage_id", &["readContent"]),
        Operation::get("/v1/content/{storage_id}", "readContent", "Read a text")
            .audience(Audience::User)
            .answer_as::<String>(200, "The text.", "text/plain; charset=utf-8", json!("I receive letters."))
            .not_found("there is no such text"),
    ]
}

#[derive(JsonSchema)]
struct Stored {
    /// The SHA-256 of the text.
    storage_id: String,
}
