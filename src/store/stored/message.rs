//! Messages and answers, as they are stored.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::{Error, keys};
use crate::contract::{Headers, Message};

/// A message of the outbox.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct StoredMessage {
    topic: u8,
    key: String,
    /// Event id and trace id.
    headers: Option<(Uuid, Uuid)>,
    #[serde(with = "super::text")]
    body: Bytes,
}

impl StoredMessage {
    pub(in crate::store) fn of(message: &Message) -> Self {
        Self {
            topic: keys::topic_byte(message.topic),
            key: message.key.clone(),
            headers: message.headers.as_ref().map(|headers| (headers.event_id, headers.trace_id)),
            body: message.body.clone(),
        }
    }

    pub(in crate::store) fn into_message(self) -> Result<Message, Error> {
        Ok(Message {
            topic: keys::topic_of(self.topic)?,
            key: self.key,
            headers: self.headers.map(|(event_id, trace_id)| Headers { event_id, trace_id }),
            body: self.body,
        })
    }
}

/// The answer to a request that named itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAnswer {
    /// SHA-256 of what the request was.
    pub fingerprint: [u8; 32],
    /// The status code.
    pub status: u16,
    /// Headers besides those of every answer.
    pub headers: Vec<(String, String)>,
    /// The body, as JSON.
    #[serde(with = "super::text")]
    pub body: Vec<u8>,
}
