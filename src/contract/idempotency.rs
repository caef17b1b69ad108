//! Idempotency keys of the stack's consumers: format, hash and lifetimes (contract, Idempotent consumer).

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{Message, Topic};

/// How long a key may stay `processing` before somebody else may try, in seconds.
pub const PROCESSING_TTL_S: u64 = 300;

/// The identity of a message for one consuming service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The consuming service.
    pub service: &'static str,
    /// The topic of the message.
    pub topic: Topic,
    /// SHA-256 of what identifies the message.
    pub hash: [u8; 32],
}

impl Key {
    /// The key of `message` for the consumer `service`. Without complete headers the body decides; a body that is no
    /// JSON object is identified by its bytes, so that it too is refused only once.
    #[must_use]
    pub fn of(service: &'static str, message: &Message) -> Self {
        let hash = match &message.headers {
            Some(headers) => hash_of_event_id(&headers.event_id.to_string()),
            None => match serde_json::from_slice::<Map<String, Value>>(&message.body) {
                Ok(envelope) => hash_of_envelope(&envelope),
                Err(_) => Sha256::digest(&message.body).into(),
            },
        };
        Self { service, topic: message.topic, hash }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let event_type = self.topic.as_str().replace('.', "_");
        write!(f, "huleedu:idempotency:v2:{}:{event_type}:{}", self.service, hex::encode(self.hash))
    }
}

/// How long a `completed` key of `topic` is kept, in seconds.
#[must_use]
pub const fn completed_ttl_s(topic: Topic) -> u64 {
    match topic {
        Topic::EssayContentProvisioned => 3_600,
        Topic::BatchEssaysRegistered | Topic::BatchEssaysReady | Topic::ElsBatchPhaseOutcome => 43_200,
        Topic::BatchAiFeedbackInitiateCommand
        | Topic::BatchCjAssessmentInitiateCommand
        | Topic::BatchContentProvisioningCompleted
        | Topic::BatchNlpInitiateCommandV2
        | Topic::BatchPhaseSkipped
        | Topic::BatchPipelineCompleted
        | Topic::BatchSpellcheckInitiateCommand
        | Topic::BatchStudentMatchingInitiateCommand
        | Topic::BatchValidationErrors
        | Topic::ClientBatchPipelineRequest
        | Topic::PipelineDenied
        | Topic::StudentAssociationsConfirmed
        | Topic::TeacherNotificationRequested => 86_400,
    }
}

/// Hash of a message whose headers are complete: no spaces, the id as it is.
fn hash_of_event_id(event_id: &str) -> [u8; 32] {
    Sha256::digest(Value::from_iter([("event_id", event_id)]).to_string()).into()
}

/// Hash of a message without complete headers: `data` with the `event_id`, or alone where there is none.
fn hash_of_envelope(envelope: &Map<String, Value>) -> [u8; 32] {
    let data = envelope.get("data").cloned().unwrap_or(Value::Null);
    let identity = match envelope.get("event_id") {
        Some(Value::String(event_id)) if !event_id.is_empty() => {
            Value::from_iter([("data", data), ("event_id", Value::from(event_id.as_str()))])
        }
        _ => data,
    };
    Sha256::digest(canonical_json(&identity)).into()
}

/// JSON with sorted keys, a space after each `,` and `:`, and everything beyond printable ASCII as `\uXXXX`, numbers as
/// the stack's services write them.
fn canonical_json(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Canonical);
    match sorted(value).serialize(&mut serializer) {
        Ok(()) => bytes,
        Err(error) => unreachable!("a JSON value is always serialisable into memory: {error}"),
    }
}

/// The same value with its keys in order, whatever order the map type of the build keeps.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

struct Canonical;

impl Formatter for Canonical {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for character in fragment.chars() {
            if matches!(character, ' '..='~') {
                writer.write_all(&[character as u8])?;
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }

    /// The shortest digits that read back as the same number, as a decimal for exponents from -4 to 15, else with an
    /// exponent of at least two digits.
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let scientific = format!("{value:e}");
        let Some((mantissa, exponent)) = scientific.split_once('e') else { return write!(writer, "{value}") };
        match exponent.parse::<i32>() {
            Ok(exponent) if !(-4..16).contains(&exponent) => {
                let sign = if exponent < 0 { '-' } else { '+' };
                write!(writer, "{mantissa}e{sign}{:02}", exponent.unsigned_abs())
            }
            _ => write!(writer, "{value:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_json_writes_what_the_services_write() {
        let value: Value =
            serde_json::from_str(r#"{"b": [1, 2.5, 1e16, 1e-5, 1e22, 0.0001, 100000.0], "a": "\u007f\n/å😀"}"#)
                .expect("JSON");
        let written = String::from_utf8(canonical_json(&value)).expect("ASCII");
        assert_eq!(
            written,
            r#"{"a": "\u007f\n/\u00e5\ud83d\ude00", "b": [1, 2.5, 1e+16, 1e-05, 1e+22, 0.0001, 100000.0]}"#
        );
    }
}
