//! What a step wants to tell, as messages for the bus; and the names of contents.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::contract::{Envelope, Message, SCHEMA_VERSION, metadata, span_of, traceparent_of_span};
use crate::domain::{Batch, BatchId, Millis, Outgoing};
use crate::store;

/// The message for the effect `number` of the step that made `batch` what it is. Its id is made of these, so that the
/// same step always tells the same events.
pub(super) fn message(batch: &Batch, number: usize, outgoing: Outgoing) -> Result<Message, store::Error> {
    let event_id = Uuid::new_v5(&batch.id.0, format!("event/{}/{number}", batch.version).as_bytes());
    enveloped(event_id, batch.id, batch.updated_at, outgoing)
}

/// The message that a pipeline of `batch` was denied. No step comes of a denial, so its id is made of nothing.
pub(super) fn denial(batch: BatchId, now: Millis, outgoing: Outgoing) -> Result<Message, store::Error> {
    enveloped(Uuid::new_v4(), batch, now, outgoing)
}

fn enveloped(event_id: Uuid, batch: BatchId, at: Millis, outgoing: Outgoing) -> Result<Message, store::Error> {
    let Outgoing { correlation_id, metadata: mut said, data } = outgoing;
    if let Some(traceparent) = said.as_mut().and_then(|said| said.get_mut(metadata::TRACEPARENT)) {
        let child = traceparent.as_str().and_then(|parent| traceparent_of_span(parent, span_of(event_id)));
        *traceparent = child.into();
    }
    let topic = data.topic();
    let envelope = Envelope {
        event_id: Some(event_id),
        event_type: topic.as_str().to_owned(),
        event_timestamp: Some(at.to_timestamp()),
        source_service: data.source_service().to_owned(),
        schema_version: SCHEMA_VERSION,
        correlation_id: Some(correlation_id),
        data_schema_uri: None,
        data,
        metadata: said,
    };
    Message::new(topic, batch.to_string(), &envelope).map_err(|error| store::Error::Corrupt(error.to_string()))
}

/// The storage id of a text that is stored here: the SHA-256 of its bytes, in hex.
#[must_use]
pub fn content_id(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}
