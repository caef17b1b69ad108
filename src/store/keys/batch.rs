//! What lies under a batch: the parts of its record, its attempts, and outcomes that came too late. The parts are
//! neighbours, so that one page of the database has all that a step reads and writes of its batch.

use super::bytes::{phase_byte, phase_of};
use crate::contract::idempotency::Key;
use crate::domain::{BatchId, Millis, Phase};
use crate::store::Error;

pub(in crate::store) const BATCHES: &[u8] = b"b";

/// Where older attempts are put away.
pub(in crate::store) const VOLUMES: &[u8] = b"A";

/// How long the key of a record's small part is, and what every key of its batch begins with.
const RECORD_BYTES: usize = 17;

/// What lies under a batch besides the small part of its record, in the order of their keys: the letter that it has in
/// backups, which was its prefix before format 6; what stands behind the batch; and how long the whole key is.
const PARTS: [(u8, u8, usize); 5] = [(b'd', 0, 18), (b'e', 1, 18), (b'r', 2, 19), (b'a', 3, 23), (b'l', 4, 35)];

pub(super) fn of_batch(prefix: u8, batch: BatchId) -> Vec<u8> {
    let mut key = Vec::with_capacity(40);
    key.push(prefix);
    key.extend_from_slice(batch.0.as_bytes());
    key
}

fn part(batch: BatchId, letter: u8) -> Vec<u8> {
    let mut key = of_batch(b'b', batch);
    key.extend(PARTS.iter().find(|(known, ..)| *known == letter).map(|(_, place, _)| place));
    key
}

/// The small part of the record; and the prefix of everything that lies under the batch.
pub(in crate::store) fn batch(id: BatchId) -> Vec<u8> {
    of_batch(b'b', id)
}

/// The batch whose record has this key; none where the key is of something else that lies under a batch.
pub(in crate::store) fn batch_of(key: &[u8]) -> Option<BatchId> {
    let bytes = key.strip_prefix(BATCHES)?.try_into().ok()?;
    Some(BatchId(uuid::Uuid::from_bytes(bytes)))
}

/// What lies under this key, which begins with [`BATCHES`]: its letter, `b` for the small part of a record.
///
/// # Errors
/// [`Error::Corrupt`] where nothing has such a key.
pub(in crate::store) fn letter_of(key: &[u8]) -> Result<u8, Error> {
    let letter = match key.get(RECORD_BYTES) {
        None => (key.len() == RECORD_BYTES).then_some(b'b'),
        Some(place) => {
            let known = PARTS.iter().find(|(_, known, length)| known == place && *length == key.len());
            known.map(|(letter, ..)| *letter)
        }
    };
    letter.ok_or_else(|| Error::Corrupt("nothing under a batch has such a key".to_owned()))
}

/// A key as it is written in backups, where the letter stands at the beginning: the letter, which elsewhere is the prefix,
/// and what is behind it.
///
/// # Errors
/// As [`letter_of`].
pub(in crate::store) fn with_its_letter(key: &[u8]) -> Result<(u8, Vec<u8>), Error> {
    if !key.starts_with(BATCHES) {
        let (prefix, rest) = key.split_first().ok_or_else(|| Error::Corrupt("an empty key".to_owned()))?;
        return Ok((*prefix, rest.to_vec()));
    }
    let letter = letter_of(key)?;
    let (batch, rest) = key[1..].split_at(RECORD_BYTES - 1);
    Ok((letter, [batch, rest.get(1..).unwrap_or_default()].concat()))
}

/// The prefixes that these keys had before format 6.
pub(in crate::store) fn old_prefixes() -> impl Iterator<Item = u8> {
    PARTS.into_iter().map(|(letter, ..)| letter)
}

/// The same, back; none where the letter is no part's.
pub(super) fn under_its_batch(key: &[u8]) -> Option<Vec<u8>> {
    let (letter, rest) = key.split_first()?;
    let (_, place, _) = PARTS.iter().find(|(known, ..)| known == letter)?;
    let (batch, rest) = rest.split_at_checked(RECORD_BYTES - 1)?;
    Some([BATCHES, batch, &[*place], rest].concat())
}

pub(in crate::store) fn details(id: BatchId) -> Vec<u8> {
    part(id, b'd')
}

pub(in crate::store) fn essays(id: BatchId) -> Vec<u8> {
    part(id, b'e')
}

pub(in crate::store) fn results(id: BatchId, phase: Phase) -> Vec<u8> {
    of_phase(id, b'r', phase)
}

pub(in crate::store) fn attempt(id: BatchId, phase: Phase, number: u32) -> Vec<u8> {
    let mut key = of_phase(id, b'a', phase);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Where the volumes of a batch lie.
pub(in crate::store) fn volumes(id: BatchId) -> Vec<u8> {
    of_batch(b'A', id)
}

/// The volume of older attempts of which the first has this number.
pub(in crate::store) fn volume(id: BatchId, phase: Phase, number: u32) -> Vec<u8> {
    let mut key = volumes(id);
    key.push(phase_byte(phase));
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The place in a ledger that a key has behind its letter: batch, phase and number.
///
/// # Errors
/// [`Error::Corrupt`] where it is none.
pub(in crate::store) fn place_in_ledger(behind_letter: &[u8]) -> Result<(BatchId, Phase, u32), Error> {
    let place = behind_letter.split_first_chunk::<16>().and_then(|(id, rest)| Some((id, rest.split_first()?)));
    let number = |rest: &[u8]| rest.try_into().map(u32::from_be_bytes).ok();
    let place = place.and_then(|(id, (phase, rest))| Some((*id, *phase, number(rest)?)));
    let (id, phase, number) = place.ok_or_else(|| Error::Corrupt("no attempt has such a key".to_owned()))?;
    Ok((BatchId(uuid::Uuid::from_bytes(id)), phase_of(phase)?, number))
}

pub(in crate::store) fn late_outcomes(id: BatchId, phase: Phase) -> Vec<u8> {
    of_phase(id, b'l', phase)
}

/// The message tells apart outcomes that came in the same millisecond.
pub(in crate::store) fn late_outcome(id: BatchId, phase: Phase, at: Millis, message: &Key) -> Vec<u8> {
    let mut key = late_outcomes(id, phase);
    key.extend_from_slice(&at.0.to_be_bytes());
    key.extend_from_slice(&message.hash[..8]);
    key
}

fn of_phase(id: BatchId, letter: u8, phase: Phase) -> Vec<u8> {
    let mut key = part(id, letter);
    key.push(phase_byte(phase));
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Topic, idempotency::Key};

    #[test]
    fn what_lies_under_a_batch_has_a_letter_and_comes_back_from_it() {
        let id = BatchId(uuid::Uuid::from_u128(0x0123_4567_89ab_cdef));
        let message = Key { service: "nlp", topic: Topic::ClientBatchPipelineRequest, hash: [7; 32] };
        let keys = [
            (b'b', batch(id)),
            (b'd', details(id)),
            (b'e', essays(id)),
            (b'r', results(id, Phase::Nlp)),
            (b'a', attempt(id, Phase::Nlp, 3)),
            (b'l', late_outcome(id, Phase::AiFeedback, Millis(9), &message)),
        ];
        assert!(keys.is_sorted_by_key(|(_, key)| key), "the parts that every step reads come first");
        for (letter, key) in keys {
            assert!(key.starts_with(&batch(id)));
            let (its, rest) = with_its_letter(&key).expect("a key of ours");
            assert_eq!((its, &rest[..16]), (letter, &id.0.as_bytes()[..]));
            let before = [&[letter][..], &rest].concat();
            assert_eq!(under_its_batch(&before), (letter != b'b').then_some(key.clone()));
            assert_eq!(batch_of(&key), (letter == b'b').then_some(id));
            // Neither shorter nor longer.
            assert!(letter == b'b' || letter_of(&key[..key.len() - 1]).is_err() || key.len() == 18);
            assert!(letter_of(&[&key[..], &[9]].concat()).is_err());
        }
        assert!(letter_of(b"b").is_err());
        assert_eq!(under_its_batch(b"d short"), None);
    }
}
