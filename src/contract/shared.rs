//! Parts that several messages have in common.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::enums::{ContentType, ProcessingStage};
use super::names::EventName;

/// `StorageReferenceMetadata`: where a batch's contents lie, by what they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct StorageReferences {
    /// For each content type its storage id, path and the like.
    #[serde(default)]
    #[schemars(transform = bounded)]
    pub references: BTreeMap<ContentType, BTreeMap<String, String>>,
}

/// The most members of one content type in a reference to a prompt, and the most characters of each string. Every
/// command that needs the prompt carries the reference.
pub const MAX_REFERENCE_MEMBERS: usize = 16;
/// See [`MAX_REFERENCE_MEMBERS`].
pub const MAX_REFERENCE_CHARS: usize = 1_024;

fn bounded(schema: &mut Schema) {
    let text = json!({ "type": "string", "maxLength": MAX_REFERENCE_CHARS });
    for reference in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        *reference.1 = json!({
            "type": "object", "maxProperties": MAX_REFERENCE_MEMBERS, "propertyNames": { "maxLength": MAX_REFERENCE_CHARS },
            "additionalProperties": text,
        });
    }
}

/// `EssayProcessingInputRefV1`: one essay, as it is handed from phase to phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EssayRef {
    /// The essay's id, unique within its batch.
    pub essay_id: String,
    /// Where its text is stored.
    pub text_storage_id: String,
    /// What the spellcheck measured; handed on as it came.
    #[serde(default)]
    pub spellcheck_metrics: Option<Value>,
}

/// `SystemProcessingMetadata`: what an event is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SystemMetadata {
    /// The id of the entity.
    pub entity_id: String,
    /// The kind of the entity; `batch` in everything sent here.
    pub entity_type: String,
    /// The entity it belongs to.
    #[serde(default)]
    pub parent_id: Option<String>,
    /// When the metadata was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// The stage the entity is in.
    #[serde(default)]
    pub processing_stage: Option<ProcessingStage>,
    /// When its processing began.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When its processing ended.
    #[serde(default)]
    pub completed_at: Option<Timestamp>,
    /// The event that the metadata belongs to.
    #[serde(default)]
    pub event: Option<String>,
    /// What went wrong, free in form.
    #[serde(default)]
    pub error_info: Map<String, Value>,
}

impl SystemMetadata {
    /// Metadata of `event` about the batch `batch_id`.
    #[must_use]
    pub fn of_batch(batch_id: String, event: EventName, timestamp: Timestamp) -> Self {
        Self {
            entity_id: batch_id,
            entity_type: "batch".to_owned(),
            parent_id: None,
            timestamp: Some(timestamp),
            processing_stage: None,
            started_at: None,
            completed_at: None,
            event: Some(event.as_str().to_owned()),
            error_info: Map::new(),
        }
    }
}
