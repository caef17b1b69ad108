//! What lies under a batch: the parts of its record, its attempts, and outcomes that came too late.

use super::bytes::phase_byte;
use crate::contract::idempotency::Key;
use crate::domain::{BatchId, Millis, Phase};
use crate::store::Error;

pub(in crate::store) const BATCHES: &[u8] = b"b";

pub(super) fn of_batch(prefix: u8, batch: BatchId) -> Vec<u8> {
    let mut key = Vec::with_capacity(32);
    key.push(prefix);
    key.extend_from_slice(batch.0.as_bytes());
    key
}

pub(in crate::store) fn batch(id: BatchId) -> Vec<u8> {
    of_batch(b'b', id)
}

/// The batch whose record has this key.
pub(in crate::store) fn batch_of(key: &[u8]) -> Result<BatchId, Error> {
    let bytes = key.get(1..).and_then(|bytes| bytes.try_into().ok());
    let bytes = bytes.ok_or_else(|| Error::Corrupt("a batch's key has the wrong length".to_owned()))?;
    Ok(BatchId(uuid::Uuid::from_bytes(bytes)))
}

pub(in crate::store) fn details(id: BatchId) -> Vec<u8> {
    of_batch(b'd', id)
}

pub(in crate::store) fn essays(id: BatchId) -> Vec<u8> {
    of_batch(b'e', id)
}

pub(in crate::store) fn results(id: BatchId, phase: Phase) -> Vec<u8> {
    let mut key = of_batch(b'r', id);
    key.push(phase_byte(phase));
    key
}

pub(in crate::store) fn attempts(id: BatchId, phase: Phase) -> Vec<u8> {
    let mut key = of_batch(b'a', id);
    key.push(phase_byte(phase));
    key
}

pub(in crate::store) fn attempt(id: BatchId, phase: Phase, number: u32) -> Vec<u8> {
    let mut key = attempts(id, phase);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

pub(in crate::store) fn late_outcomes(id: BatchId, phase: Phase) -> Vec<u8> {
    let mut key = of_batch(b'l', id);
    key.push(phase_byte(phase));
    key
}

/// The message tells apart outcomes that came in the same millisecond.
pub(in crate::store) fn late_outcome(id: BatchId, phase: Phase, at: Millis, message: &Key) -> Vec<u8> {
    let mut key = late_outcomes(id, phase);
    key.extend_from_slice(&at.0.to_be_bytes());
    key.extend_from_slice(&message.hash[..8]);
    key
}
