//! Messages: those on their way, those whose effect is known, and those that became dead letters; and requests that were
//! answered once.

use super::bytes::{group_byte, topic_byte, u64_at};
use crate::contract::Group;
use crate::contract::idempotency::Key;
use crate::domain::LetterId;
use crate::store::{Error, Sequence};

pub(in crate::store) fn outbox_of(group: Group) -> Vec<u8> {
    vec![b'o', group_byte(group)]
}

pub(in crate::store) fn outbox(group: Group, sequence: Sequence) -> Vec<u8> {
    let mut key = outbox_of(group);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

pub(in crate::store) fn sequence_of(outbox_key: &[u8]) -> Result<Sequence, Error> {
    u64_at(outbox_key, 2)
}

/// Which consumer and message: the tail of both kinds of key below.
fn identity(group: Group, key: &Key) -> [u8; 34] {
    let mut bytes = [0; 34];
    bytes[0] = group_byte(group);
    bytes[1] = topic_byte(key.topic);
    bytes[2..].copy_from_slice(&key.hash);
    bytes
}

/// Half of a SHA-256 tells two messages apart as well, and there are more of these than of anything else.
pub(in crate::store) const IDEMPOTENCY_BYTES: usize = 19;

pub(in crate::store) fn idempotency(group: Group, key: &Key) -> Vec<u8> {
    let mut bytes = vec![b'k'];
    bytes.extend_from_slice(&identity(group, key));
    bytes.truncate(IDEMPOTENCY_BYTES);
    bytes
}

/// What the key of an idempotency key, or of its expiry, is since format 4, where it was written before.
pub(super) fn shortened(key: &[u8]) -> Option<&[u8]> {
    let bytes = match key {
        [b'k', ..] => IDEMPOTENCY_BYTES,
        [b'x', _, _, _, _, _, _, _, _, b'k', ..] => 9 + IDEMPOTENCY_BYTES,
        _ => return None,
    };
    key.get(..bytes).filter(|_| key.len() > bytes)
}

/// Stands where a group would, for messages that came in through the gateway. No group is ever written so.
const GATEWAY: u8 = u8::MAX;

/// The idempotency key of a message that came in through the gateway.
pub(in crate::store) fn posted(key: &Key) -> Vec<u8> {
    let mut bytes = vec![b'k', GATEWAY, topic_byte(key.topic)];
    bytes.extend_from_slice(&key.hash);
    bytes.truncate(IDEMPOTENCY_BYTES);
    bytes
}

/// The key of the answer to the request whose own key has this hash.
pub(in crate::store) fn answer(hash: &[u8; 32]) -> Vec<u8> {
    let mut bytes = vec![b'h'];
    bytes.extend_from_slice(hash);
    bytes
}

/// What the keys of dead letters begin with.
pub(in crate::store) const LETTER: u8 = b'z';

pub(in crate::store) fn letter(id: LetterId) -> Vec<u8> {
    let mut key = vec![LETTER];
    key.extend_from_slice(id.0.as_bytes());
    key
}

pub(in crate::store) fn letter_of_message(group: Group, key: &Key) -> Vec<u8> {
    let mut bytes = vec![b'w'];
    bytes.extend_from_slice(&identity(group, key));
    bytes
}

pub(in crate::store) fn letter_id(bytes: &[u8]) -> Result<LetterId, Error> {
    let id = bytes.try_into().map_err(|_| Error::Corrupt("a dead letter's id has the wrong length".to_owned()))?;
    Ok(LetterId(uuid::Uuid::from_bytes(id)))
}
