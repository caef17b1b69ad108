//! Texts by their hash: their parts, and which batches refer to them.

use crate::domain::BatchId;

/// The hash behind a storage id, where the text lies here.
pub(in crate::store) fn hash_of(storage_id: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hex::decode_to_slice(storage_id, &mut hash).ok().map(|()| hash)
}

/// Where the batches that refer to a text are named.
pub(in crate::store) fn references(hash: &[u8; 32]) -> Vec<u8> {
    let mut key = vec![b'c'];
    key.extend_from_slice(hash);
    key
}

pub(in crate::store) fn reference(hash: &[u8; 32], batch: BatchId) -> Vec<u8> {
    let mut key = references(hash);
    key.extend_from_slice(batch.0.as_bytes());
    key
}

pub(in crate::store) fn content_part(hash: &[u8; 32], part: u32) -> Vec<u8> {
    let mut key = hash.to_vec();
    key.extend_from_slice(&part.to_be_bytes());
    key
}
