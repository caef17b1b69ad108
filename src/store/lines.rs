//! Stored values as lines of JSON, for backups: what they are called there, and back.
//!
//! Only what nothing else says is written. Listings, expiries, timers, references and ages follow from it and are made
//! anew. The log of events is not written: a restored store begins another one, and the groups that read from the old
//! one are told so.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ledger::{stored_attempts, stored_volume};
use super::stored::{
    StoredAnswer, StoredAttempt, StoredBalance, StoredBatch, StoredCharge, StoredDetails, StoredEssay, StoredJob,
    StoredLate, StoredLetter, StoredMember, StoredMessage, StoredPlace, StoredResult,
};
use super::{Error, codec};

/// The version of the form that backups have.
pub(super) const BACKUP_VERSION: u32 = 1;

/// What attempts that have ended are called, wherever they lie. Each has a line of its own.
pub(super) const ATTEMPT: &str = "attempt";

/// What a backup has, each by its letter, with its name there. A letter is the prefix of its keys, but for what lies under
/// a batch, which follows the batch's `b`. Older attempts come before newer ones.
pub(super) const KINDS: [(u8, &str); 16] = [
    (b'A', ATTEMPT),
    (b'b', "batch"),
    (b'd', "details"),
    (b'e', "essays"),
    (b'r', "results"),
    (b'a', ATTEMPT),
    (b'l', "late_outcome"),
    (b'o', "message"),
    (b'k', "message_key"),
    (b'h', "answer"),
    (b'j', "retry_job"),
    (b'm', "retry_job_batch"),
    (b'z', "dead_letter"),
    (b'y', "event_group"),
    (b's', "balance"),
    (b'p', "charge"),
];

/// One line of a backup.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Line {
    /// The first.
    Header {
        /// The version of the form.
        backup_version: u32,
        /// The format of the store that it was made of.
        store_format: u32,
        /// When it was made.
        created_at: String,
    },
    /// A stored value.
    Record {
        /// What it is.
        kind: String,
        /// Its key without the letter, in hex.
        key: String,
        /// What it says.
        value: Value,
    },
    /// A text.
    Content {
        /// Its SHA-256.
        storage_id: String,
        /// The text.
        text: String,
    },
    /// The last.
    Trailer {
        /// How many lines come before it.
        lines: u64,
        /// SHA-256 of all that comes before it, in hex.
        sha256: String,
    },
}

/// An answer, with when it expires.
#[derive(Serialize, Deserialize)]
struct Expiring<T> {
    expires: u64,
    value: T,
}

fn corrupt(error: impl std::fmt::Display) -> Error {
    Error::Corrupt(error.to_string())
}

/// What a letter stands for in a backup.
pub(super) fn name_of(letter: u8) -> Result<&'static str, Error> {
    let known = KINDS.iter().find(|(known, _)| *known == letter);
    known.map(|(_, name)| *name).ok_or_else(|| corrupt("a key that a backup does not have"))
}

/// What lies under a key, which is given without its letter, as JSON: what was put together each under its own key.
pub(super) fn to_json(letter: u8, key: Vec<u8>, stored: &[u8]) -> Result<Vec<(Vec<u8>, Value)>, Error> {
    let attempts = match letter {
        b'a' => stored_attempts(stored)?,
        b'A' => stored_volume(stored)?,
        _ => return Ok(vec![(key, value_to_json(letter, stored)?)]),
    };
    let ledger = &key[..key.len().saturating_sub(size_of::<u32>())];
    let alone = |attempt: StoredAttempt| {
        let value = serde_json::to_value(&attempt).map_err(corrupt)?;
        Ok(([ledger, &attempt.number().to_be_bytes()].concat(), value))
    };
    attempts.into_iter().map(alone).collect()
}

fn value_to_json(letter: u8, stored: &[u8]) -> Result<Value, Error> {
    match letter {
        b'b' => plain::<StoredBatch>(stored),
        b'd' => serde_json::to_value(codec::decode_any::<StoredDetails>(stored)?).map_err(corrupt),
        b'e' => plain::<Vec<StoredEssay>>(stored),
        b'r' => plain::<Vec<StoredResult>>(stored),
        b'l' => plain::<StoredLate>(stored),
        b'o' => plain::<StoredMessage>(stored),
        b'j' => plain::<StoredJob>(stored),
        b'm' => plain::<StoredMember>(stored),
        b'z' => plain::<StoredLetter>(stored),
        b'y' => plain::<StoredPlace>(stored),
        b's' => plain::<StoredBalance>(stored),
        b'p' => plain::<StoredCharge>(stored),
        b'k' | b'h' => {
            let (expires, rest) = stored.split_first_chunk().ok_or_else(|| corrupt("a key without its expiry"))?;
            let expires = u64::from_be_bytes(*expires);
            if letter == b'k' {
                return Ok(json!({ "expires": expires }));
            }
            let value: StoredAnswer = codec::decode(rest)?;
            serde_json::to_value(Expiring { expires, value }).map_err(corrupt)
        }
        _ => Err(corrupt("a key that a backup does not have")),
    }
}

fn plain<T: Serialize + DeserializeOwned>(stored: &[u8]) -> Result<Value, Error> {
    serde_json::to_value(codec::decode::<T>(stored)?).map_err(corrupt)
}

/// The same, back.
pub(super) fn from_json(prefix: u8, value: Value) -> Result<Vec<u8>, Error> {
    match prefix {
        b'b' => stored::<StoredBatch>(value),
        b'd' => codec::encode_newest(&serde_json::from_value::<StoredDetails>(value).map_err(corrupt)?),
        b'e' => stored::<Vec<StoredEssay>>(value),
        b'r' => stored::<Vec<StoredResult>>(value),
        b'a' | b'A' => stored::<StoredAttempt>(value),
        b'l' => stored::<StoredLate>(value),
        b'o' => stored::<StoredMessage>(value),
        b'j' => stored::<StoredJob>(value),
        b'm' => stored::<StoredMember>(value),
        b'z' => stored::<StoredLetter>(value),
        b'y' => stored::<StoredPlace>(value),
        b's' => stored::<StoredBalance>(value),
        b'p' => stored::<StoredCharge>(value),
        b'k' => {
            let expires = value.get("expires").and_then(Value::as_u64);
            Ok(expires.ok_or_else(|| corrupt("a key without its expiry"))?.to_be_bytes().to_vec())
        }
        b'h' => {
            let Expiring::<StoredAnswer> { expires, value } = serde_json::from_value(value).map_err(corrupt)?;
            let mut bytes = expires.to_be_bytes().to_vec();
            bytes.append(&mut codec::encode(&value)?);
            Ok(bytes)
        }
        _ => Err(corrupt("a key that a backup does not have")),
    }
}

fn stored<T: Serialize + DeserializeOwned>(value: Value) -> Result<Vec<u8>, Error> {
    codec::encode(&serde_json::from_value::<T>(value).map_err(corrupt)?)
}
