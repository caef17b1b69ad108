//! What has its time: timers that get due, keys that expire, and what may be removed once it is old. Each begins with
//! the time, so that what is next comes first.

use super::by_owner::owner_hash;
use super::bytes::{phase_byte, phase_of, u64_at};
use crate::domain::{BatchId, JobId, LetterId, Millis, Timer, TimerKind};
use crate::store::Error;

pub(in crate::store) const TIMERS: &[u8] = b"t";
pub(in crate::store) const EXPIRIES: &[u8] = b"x";
pub(in crate::store) const AGES: &[u8] = b"g";

pub(in crate::store) fn timer(batch: BatchId, timer: Timer) -> Vec<u8> {
    let mut key = TIMERS.to_vec();
    key.extend_from_slice(&timer.due.0.to_be_bytes());
    key.extend_from_slice(batch.0.as_bytes());
    key.push(phase_byte(timer.phase));
    key.extend_from_slice(&timer.attempt.to_be_bytes());
    key.push(match timer.kind {
        TimerKind::Deadline => 0,
        TimerKind::Retry => 1,
        TimerKind::StudentValidation => 2,
    });
    key
}

pub(in crate::store) fn timer_of(key: &[u8]) -> Result<(BatchId, Timer), Error> {
    let corrupt = || Error::Corrupt("a timer's key has the wrong length".to_owned());
    let due = Millis(u64_at(key, 1)?);
    let batch = key.get(9..25).and_then(|bytes| bytes.try_into().ok()).ok_or_else(corrupt)?;
    let phase = phase_of(*key.get(25).ok_or_else(corrupt)?)?;
    let attempt =
        key.get(26..30).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes).ok_or_else(corrupt)?;
    let kind = match key.get(30) {
        Some(0) => TimerKind::Deadline,
        Some(1) => TimerKind::Retry,
        Some(2) => TimerKind::StudentValidation,
        Some(_) | None => return Err(corrupt()),
    };
    Ok((BatchId(uuid::Uuid::from_bytes(batch)), Timer { kind, due, phase, attempt }))
}

/// The entry of the expiry index for the value under `key`, which begins with when it expires.
pub(in crate::store) fn expiry(expires: Millis, key: &[u8]) -> Vec<u8> {
    let mut bytes = EXPIRIES.to_vec();
    bytes.extend_from_slice(&expires.0.to_be_bytes());
    bytes.extend_from_slice(key);
    bytes
}

/// When the key behind an entry of the expiry index expires, and that key.
pub(in crate::store) fn expired(expiry_key: &[u8]) -> Result<(Millis, Vec<u8>), Error> {
    Ok((Millis(u64_at(expiry_key, 1)?), expiry_key[9..].to_vec()))
}

/// Something that may be removed once it is old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aged {
    /// A batch at rest.
    Batch(BatchId),
    /// A bulk retry that has ended, by its owner's hash.
    Job([u8; 16], JobId),
    /// A dead letter.
    Letter(LetterId),
}

impl Aged {
    pub(in crate::store) fn job(owner: &str, id: JobId) -> Self {
        Self::Job(owner_hash(owner), id)
    }
}

pub(in crate::store) fn age(since: Millis, aged: Aged) -> Vec<u8> {
    let mut key = AGES.to_vec();
    key.extend_from_slice(&since.0.to_be_bytes());
    match aged {
        Aged::Batch(id) => {
            key.push(0);
            key.extend_from_slice(id.0.as_bytes());
        }
        Aged::Job(owner, id) => {
            key.push(1);
            key.extend_from_slice(&owner);
            key.extend_from_slice(id.0.as_bytes());
        }
        Aged::Letter(id) => {
            key.push(2);
            key.extend_from_slice(id.0.as_bytes());
        }
    }
    key
}

/// The end of what may be removed since `time` or longer.
pub(in crate::store) fn ages_after(time: Millis) -> Vec<u8> {
    [AGES, &time.0.saturating_add(1).to_be_bytes()].concat()
}

/// Since when, and what.
pub(in crate::store) fn aged(key: &[u8]) -> Result<(Millis, Aged), Error> {
    let corrupt = || Error::Corrupt("an age's key cannot be read".to_owned());
    let since = Millis(u64_at(key, 1)?);
    let (kind, rest) = key[9..].split_first().ok_or_else(corrupt)?;
    let id = |bytes: &[u8]| bytes.try_into().map(uuid::Uuid::from_bytes).map_err(|_| corrupt());
    let aged = match kind {
        0 => Aged::Batch(BatchId(id(rest)?)),
        1 => {
            let (owner, job) = rest.split_first_chunk::<16>().ok_or_else(corrupt)?;
            Aged::Job(*owner, JobId(id(job)?))
        }
        2 => Aged::Letter(LetterId(id(rest)?)),
        _ => return Err(corrupt()),
    };
    Ok((since, aged))
}
