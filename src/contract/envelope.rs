//! The envelope around every message on the bus (contract, Envelope).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// The only schema version there is.
pub const SCHEMA_VERSION: u32 = 1;

/// `EventEnvelope`: a message and what is known about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// Unique for each event; a duplicate is recognised by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Uuid>,
    /// The name of the topic. A string here, so that an envelope of an unknown topic can still be read and refused.
    pub event_type: String,
    /// When the event happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_timestamp: Option<Timestamp>,
    /// Who sent it.
    pub source_service: String,
    /// The version of this envelope.
    #[serde(default = "schema_version")]
    pub schema_version: u32,
    /// What connects all that one request caused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Uuid>,
    /// Where the schema of `data` is, if anywhere.
    #[serde(default)]
    pub data_schema_uri: Option<String>,
    /// The message itself.
    pub data: T,
    /// What else is known: `user_id` and `org_id` on commands, W3C `traceparent`.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
}

fn schema_version() -> u32 {
    SCHEMA_VERSION
}

/// Whether `text` has the form of a W3C `traceparent` (Trace Context, section 3.2): version, trace id, parent id, flags.
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let is_some = |part: &str| part.bytes().any(|byte| byte != b'0');
    lengths == [2, 32, 16, 2]
        && parts[0] != "ff"
        && is_some(parts[1])
        && is_some(parts[2])
        && parts.into_iter().all(is_hex)
}

/// The `traceparent` of a new span in the trace of `parent`, which has the form of one.
#[must_use]
pub fn traceparent_of_span(parent: &str, span: u64) -> Option<String> {
    let (trace, flags) = (parent.get(3..35)?, parent.get(53..55)?);
    // A span of none would be none.
    Some(format!("00-{trace}-{:016x}-{flags}", span.max(1)))
}

/// The span of an event: each is one of its own, the same whenever it is told.
#[must_use]
pub fn span_of(event_id: Uuid) -> u64 {
    event_id.as_u64_pair().1
}

/// Names of the envelope's `metadata` members.
pub mod metadata {
    /// The owner of the batch, on commands.
    pub const USER_ID: &str = "user_id";
    /// The owner's organisation, on commands.
    pub const ORG_ID: &str = "org_id";
    /// W3C trace context of the request that caused the message.
    pub const TRACEPARENT: &str = "traceparent";
    /// The number of the attempt a command or an outcome belongs to, from 1. An addition of this project; a worker that
    /// echoes it makes its outcome impossible to confuse with another attempt's.
    pub const ATTEMPT: &str = "attempt";
    /// The slots of the essays of a command, from 0, where they are not simply all of the batch's, in order. An
    /// addition of this project.
    pub const SLOTS: &str = "slots";
    /// Why a phase failed, on an outcome: `{"error_code", "category", "message"}`. An addition of this project, since
    /// `ELSBatchPhaseOutcomeV1` has no room for it.
    pub const ERROR: &str = "error";
    /// How long to wait at least before the phase is tried again by itself, in milliseconds, on an outcome. An addition
    /// of this project.
    pub const RETRY_AFTER_MS: &str = "retry_after_ms";
    /// Why single essays failed, on an outcome: essay id to the same object as [`ERROR`]. An addition of this project.
    pub const ESSAY_ERRORS: &str = "essay_errors";
}
