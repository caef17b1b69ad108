//! The keys: one prefix byte, then big-endian integers, so that their order is their meaning.
//!
//! | prefix | then | value |
//! | --- | --- | --- |
//! | `f` | | format version, u32 |
//! | `n` | | how many groups of commits there have been, u64 |
//! | `b` | batch | the small part of the record, written by every step |
//! | `d` | batch | what registration fixed |
//! | `e` | batch | essays |
//! | `r` | batch, phase | how the essays came out of the phase |
//! | `a` | batch, phase, number u32 | an attempt that has ended |
//! | `l` | batch, phase, time u64 ms, start of the message's hash | an outcome that came too late |
//! | `o` | group, sequence u64 | a message that its group has not consumed |
//! | `k` | group, topic, first half of the hash | idempotency key: when it expires, u64 ms |
//! | `h` | hash of a request's key | when it expires, u64 ms; then the answer to the request |
//! | `x` | expiry u64 ms, a key with `k` or `h` | nothing: the order in which these expire |
//! | `t` | due u64 ms, batch, phase, number u32, kind | nothing: a timer |
//! | `j` | owner's hash, job | a bulk retry |
//! | `q` | job | the key of a bulk retry that is running |
//! | `m` | job, place u32 | a batch of a bulk retry |
//! | `z` | letter | a dead letter |
//! | `w` | group, topic, hash | the dead letter that this message became |
//! | `c` | text's hash, batch | nothing: the batch refers to the text |
//! | `g` | since u64 ms, what, its id | nothing: a batch, bulk retry or letter that may be removed once it is old |
//! | `i` | owner's hash, facet, when registered u64 ms, batch | nothing: the batches of an owner |
//! | `v` | sequence u64 | an event of the log |
//! | `u` | | the log's name, u64, and the number of its first event, u64 |
//! | `E` | | up to which number, not included, events were settled into files, u64 |
//! | `y` | name | a group of readers of the log: how far it is |
//! | `s` | whether an organisation's u8, its id | a balance of credits |
//! | `p` | batch, version u64 | what was charged for the pipeline that the step to this version accepted |
//!
//! The tree `contents` has: hash, part u32; the text in parts. Bytes of prefixes, phases, groups and topics are never
//! given another meaning; one that is retired stays reserved.

use sha2::{Digest, Sha256};

use crate::contract::idempotency::Key;
use crate::contract::{BatchClientStatus, Group, PipelineExecutionStatus, Topic};
use crate::domain::{Account, BatchId, EventGroup, Facet, JobId, LetterId, Millis, Phase, Timer, TimerKind};

use super::{Error, Sequence};

/// Every prefix there is.
pub(super) const PREFIXES: &[u8] = b"fnbderalokhxtijqmzwcgvuyspE";

pub(super) const FORMAT: &[u8] = b"f";
pub(super) const COMMITS: &[u8] = b"n";
pub(super) const BATCHES: &[u8] = b"b";
pub(super) const TIMERS: &[u8] = b"t";
pub(super) const EXPIRIES: &[u8] = b"x";

fn of_batch(prefix: u8, batch: BatchId) -> Vec<u8> {
    let mut key = Vec::with_capacity(32);
    key.push(prefix);
    key.extend_from_slice(batch.0.as_bytes());
    key
}

pub(super) fn batch(id: BatchId) -> Vec<u8> {
    of_batch(b'b', id)
}

/// The batch whose record has this key.
pub(super) fn batch_of(key: &[u8]) -> Result<BatchId, Error> {
    let bytes = key.get(1..).and_then(|bytes| bytes.try_into().ok());
    let bytes = bytes.ok_or_else(|| Error::Corrupt("a batch's key has the wrong length".to_owned()))?;
    Ok(BatchId(uuid::Uuid::from_bytes(bytes)))
}

pub(super) fn details(id: BatchId) -> Vec<u8> {
    of_batch(b'd', id)
}

pub(super) fn essays(id: BatchId) -> Vec<u8> {
    of_batch(b'e', id)
}

pub(super) fn results(id: BatchId, phase: Phase) -> Vec<u8> {
    let mut key = of_batch(b'r', id);
    key.push(phase_byte(phase));
    key
}

pub(super) fn attempts(id: BatchId, phase: Phase) -> Vec<u8> {
    let mut key = of_batch(b'a', id);
    key.push(phase_byte(phase));
    key
}

pub(super) fn attempt(id: BatchId, phase: Phase, number: u32) -> Vec<u8> {
    let mut key = attempts(id, phase);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

pub(super) fn late_outcomes(id: BatchId, phase: Phase) -> Vec<u8> {
    let mut key = of_batch(b'l', id);
    key.push(phase_byte(phase));
    key
}

/// The message tells apart outcomes that came in the same millisecond.
pub(super) fn late_outcome(id: BatchId, phase: Phase, at: Millis, message: &Key) -> Vec<u8> {
    let mut key = late_outcomes(id, phase);
    key.extend_from_slice(&at.0.to_be_bytes());
    key.extend_from_slice(&message.hash[..8]);
    key
}

pub(super) fn outbox_of(group: Group) -> Vec<u8> {
    vec![b'o', group_byte(group)]
}

pub(super) fn outbox(group: Group, sequence: Sequence) -> Vec<u8> {
    let mut key = outbox_of(group);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

pub(super) fn sequence_of(outbox_key: &[u8]) -> Result<Sequence, Error> {
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
pub(super) const IDEMPOTENCY_BYTES: usize = 19;

pub(super) fn idempotency(group: Group, key: &Key) -> Vec<u8> {
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
pub(super) fn posted(key: &Key) -> Vec<u8> {
    let mut bytes = vec![b'k', GATEWAY, topic_byte(key.topic)];
    bytes.extend_from_slice(&key.hash);
    bytes.truncate(IDEMPOTENCY_BYTES);
    bytes
}

/// The key of the answer to the request whose own key has this hash.
pub(super) fn answer(hash: &[u8; 32]) -> Vec<u8> {
    let mut bytes = vec![b'h'];
    bytes.extend_from_slice(hash);
    bytes
}

/// The entry of the expiry index for the value under `key`, which begins with when it expires.
pub(super) fn expiry(expires: Millis, key: &[u8]) -> Vec<u8> {
    let mut bytes = EXPIRIES.to_vec();
    bytes.extend_from_slice(&expires.0.to_be_bytes());
    bytes.extend_from_slice(key);
    bytes
}

/// When the key behind an entry of the expiry index expires, and that key.
pub(super) fn expired(expiry_key: &[u8]) -> Result<(Millis, Vec<u8>), Error> {
    Ok((Millis(u64_at(expiry_key, 1)?), expiry_key[9..].to_vec()))
}

pub(super) fn timer(batch: BatchId, timer: Timer) -> Vec<u8> {
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

pub(super) fn timer_of(key: &[u8]) -> Result<(BatchId, Timer), Error> {
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

/// Where the batches that refer to a text are named.
pub(super) fn references(hash: &[u8; 32]) -> Vec<u8> {
    let mut key = vec![b'c'];
    key.extend_from_slice(hash);
    key
}

pub(super) fn reference(hash: &[u8; 32], batch: BatchId) -> Vec<u8> {
    let mut key = references(hash);
    key.extend_from_slice(batch.0.as_bytes());
    key
}

/// The hash behind a storage id, where the text lies here.
pub(super) fn hash_of(storage_id: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hex::decode_to_slice(storage_id, &mut hash).ok().map(|()| hash)
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
    pub(super) fn job(owner: &str, id: JobId) -> Self {
        Self::Job(owner_hash(owner), id)
    }
}

pub(super) const AGES: &[u8] = b"g";

pub(super) fn age(since: Millis, aged: Aged) -> Vec<u8> {
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
pub(super) fn ages_after(time: Millis) -> Vec<u8> {
    [AGES, &time.0.saturating_add(1).to_be_bytes()].concat()
}

/// Since when, and what.
pub(super) fn aged(key: &[u8]) -> Result<(Millis, Aged), Error> {
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

/// Owners are strings of up to 255 characters; sixteen bytes of a hash tell them apart as well.
fn owner_hash(owner: &str) -> [u8; 16] {
    let mut hash = [0; 16];
    hash.copy_from_slice(&Sha256::digest(owner)[..16]);
    hash
}

pub(super) fn jobs_of(owner: &str) -> Vec<u8> {
    let mut key = vec![b'j'];
    key.extend_from_slice(&owner_hash(owner));
    key
}

pub(super) fn job_by_hash(owner: [u8; 16], id: JobId) -> Vec<u8> {
    [b"j", &owner[..], id.0.as_bytes()].concat()
}

/// Ids of jobs are made by time, so their order is that of the jobs.
pub(super) fn job(owner: &str, id: JobId) -> Vec<u8> {
    let mut key = jobs_of(owner);
    key.extend_from_slice(id.0.as_bytes());
    key
}

/// What the keys of dead letters begin with.
pub(super) const LETTER: u8 = b'z';

pub(super) fn letter(id: LetterId) -> Vec<u8> {
    let mut key = vec![LETTER];
    key.extend_from_slice(id.0.as_bytes());
    key
}

pub(super) fn letter_of_message(group: Group, key: &Key) -> Vec<u8> {
    let mut bytes = vec![b'w'];
    bytes.extend_from_slice(&identity(group, key));
    bytes
}

pub(super) fn letter_id(bytes: &[u8]) -> Result<LetterId, Error> {
    let id = bytes.try_into().map_err(|_| Error::Corrupt("a dead letter's id has the wrong length".to_owned()))?;
    Ok(LetterId(uuid::Uuid::from_bytes(id)))
}

pub(super) const RUNNING_JOBS: &[u8] = b"q";

pub(super) fn running_job(id: JobId) -> Vec<u8> {
    let mut key = RUNNING_JOBS.to_vec();
    key.extend_from_slice(id.0.as_bytes());
    key
}

pub(super) fn job_member(job: JobId, place: u32) -> Vec<u8> {
    let mut key = vec![b'm'];
    key.extend_from_slice(job.0.as_bytes());
    key.extend_from_slice(&place.to_be_bytes());
    key
}

/// The place of a batch in its bulk retry.
pub(super) fn place_of(member_key: &[u8]) -> Result<u32, Error> {
    let place = member_key.split_last_chunk::<4>().ok_or_else(|| Error::Corrupt("a key is too short".to_owned()))?;
    Ok(u32::from_be_bytes(*place.1))
}

/// What the keys of listings begin with.
pub(super) const LISTING: u8 = b'i';

/// Where the batches of `owner` with `facet` are listed. Facets are written with the names of the wire, which never
/// change, and end in a zero.
pub(super) fn listing(owner: &str, facet: Facet) -> Vec<u8> {
    let mut key = vec![LISTING];
    key.extend_from_slice(&owner_hash(owner));
    let names: &[&str] = match facet {
        Facet::Any => &["any"],
        Facet::Status(status) => &["status", status.as_str()],
        Facet::Phase(phase, status) => &[phase.name().as_str(), status.as_str()],
        Facet::Error(phase, code) => &[phase.name().as_str(), "error", code.as_str()],
    };
    key.extend_from_slice(names.join("/").as_bytes());
    key.push(0);
    key
}

/// One batch of a listing: the prefix, then by when it was registered.
pub(super) fn listed(listing: &[u8], registered_at: Millis, batch: BatchId) -> Vec<u8> {
    let mut key = listing.to_vec();
    key.extend_from_slice(&registered_at.0.to_be_bytes());
    key.extend_from_slice(batch.0.as_bytes());
    key
}

/// When the batch of a listing's key was registered, and the batch.
pub(super) fn listed_of(key: &[u8]) -> Result<(Millis, BatchId), Error> {
    let corrupt = || Error::Corrupt("a listing's key is too short".to_owned());
    let (head, batch) = key.split_last_chunk::<16>().ok_or_else(corrupt)?;
    let (_, registered_at) = head.split_last_chunk::<8>().ok_or_else(corrupt)?;
    Ok((Millis(u64::from_be_bytes(*registered_at)), BatchId(uuid::Uuid::from_bytes(*batch))))
}

/// Where a batch or one of its phases stands, by a listing's key; none where it lists something else.
pub(super) fn facet_of(key: &[u8]) -> Option<Facet> {
    let names = key.get(1 + 16..key.len().checked_sub(1 + 8 + 16)?)?;
    let (what, status) = std::str::from_utf8(names).ok()?.split_once('/')?;
    if what == "status" {
        return status.parse::<BatchClientStatus>().ok().map(Facet::Status);
    }
    let status = status.parse::<PipelineExecutionStatus>().ok()?;
    what.parse::<Phase>().ok().map(|phase| Facet::Phase(phase, status))
}

pub(super) const EVENTS: &[u8] = b"v";
pub(super) const EVENT_LOG: &[u8] = b"u";
pub(super) const EVENTS_END: &[u8] = b"E";
pub(super) const EVENT_GROUPS: &[u8] = b"y";

pub(super) fn event(sequence: Sequence) -> Vec<u8> {
    [EVENTS, &sequence.to_be_bytes()].concat()
}

/// The number of the event with this key.
pub(super) fn event_sequence(key: &[u8]) -> Result<Sequence, Error> {
    u64_at(key, EVENTS.len())
}

pub(super) fn event_group(group: &EventGroup) -> Vec<u8> {
    [EVENT_GROUPS, group.as_str().as_bytes()].concat()
}

/// The group with this key.
pub(super) fn event_group_of(key: &[u8]) -> Result<EventGroup, Error> {
    let name = key.get(EVENT_GROUPS.len()..).and_then(|name| std::str::from_utf8(name).ok());
    let group = name.and_then(|name| name.parse().ok());
    group.ok_or_else(|| Error::Corrupt("a group of readers has no name that one can have".to_owned()))
}

pub(super) const BALANCES: &[u8] = b"s";
pub(super) const CHARGES: &[u8] = b"p";

pub(super) fn balance(account: &Account) -> Vec<u8> {
    let kind = match account {
        Account::User(_) => 0,
        Account::Organisation(_) => 1,
    };
    [BALANCES, &[kind], account.id().as_bytes()].concat()
}

/// The first key behind all balances.
pub(super) fn balances_end() -> Vec<u8> {
    vec![BALANCES[0] + 1]
}

/// The account whose balance has this key.
pub(super) fn account_of(key: &[u8]) -> Result<Account, Error> {
    let corrupt = || Error::Corrupt("a balance is nobody's".to_owned());
    let (kind, id) = key.get(BALANCES.len()..).and_then(|rest| rest.split_first()).ok_or_else(corrupt)?;
    let id = std::str::from_utf8(id).map_err(|_| corrupt())?.to_owned();
    match kind {
        0 => Ok(Account::User(id)),
        1 => Ok(Account::Organisation(id)),
        _ => Err(corrupt()),
    }
}

/// Where the charges for a batch lie.
pub(super) fn charges(id: BatchId) -> Vec<u8> {
    of_batch(CHARGES[0], id)
}

pub(super) fn charge(id: BatchId, version: u64) -> Vec<u8> {
    let mut key = charges(id);
    key.extend_from_slice(&version.to_be_bytes());
    key
}

/// The batch that was charged for, and the version that it came to.
pub(super) fn charge_of(key: &[u8]) -> Result<(BatchId, u64), Error> {
    let (head, version) =
        key.split_last_chunk::<8>().ok_or_else(|| Error::Corrupt("a charge's key is too short".to_owned()))?;
    Ok((batch_of(head)?, u64::from_be_bytes(*version)))
}

pub(super) fn content_part(hash: &[u8; 32], part: u32) -> Vec<u8> {
    let mut key = hash.to_vec();
    key.extend_from_slice(&part.to_be_bytes());
    key
}

fn u64_at(key: &[u8], offset: usize) -> Result<u64, Error> {
    key.get(offset..offset + 8)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_be_bytes)
        .ok_or_else(|| Error::Corrupt("a key is too short".to_owned()))
}

pub(super) const fn phase_byte(phase: Phase) -> u8 {
    match phase {
        Phase::Spellcheck => 0,
        Phase::CjAssessment => 1,
        Phase::Nlp => 2,
        Phase::AiFeedback => 3,
    }
}

pub(super) fn phase_of(byte: u8) -> Result<Phase, Error> {
    Phase::ALL
        .into_iter()
        .find(|phase| phase_byte(*phase) == byte)
        .ok_or_else(|| Error::Corrupt(format!("there is no phase {byte}")))
}

pub(super) fn group_of(byte: u8) -> Result<Group, Error> {
    let group = Group::ALL.into_iter().find(|group| group_byte(*group) == byte);
    group.ok_or_else(|| Error::Corrupt(format!("there is no group {byte}")))
}

pub(super) const fn group_byte(group: Group) -> u8 {
    match group {
        Group::Orchestrator => 0,
        Group::Spellcheck => 1,
        Group::CjAssessment => 2,
        Group::Nlp => 3,
        Group::AiFeedback => 4,
        Group::StudentMatching => 5,
    }
}

pub(super) const fn topic_byte(topic: Topic) -> u8 {
    match topic {
        Topic::BatchAiFeedbackInitiateCommand => 0,
        Topic::BatchCjAssessmentInitiateCommand => 1,
        Topic::BatchContentProvisioningCompleted => 2,
        Topic::BatchEssaysReady => 3,
        Topic::BatchEssaysRegistered => 4,
        Topic::BatchNlpInitiateCommandV2 => 5,
        Topic::BatchPhaseSkipped => 6,
        Topic::BatchPipelineCompleted => 7,
        Topic::BatchSpellcheckInitiateCommand => 8,
        Topic::BatchStudentMatchingInitiateCommand => 9,
        Topic::BatchValidationErrors => 10,
        Topic::ClientBatchPipelineRequest => 11,
        Topic::ElsBatchPhaseOutcome => 12,
        Topic::EssayContentProvisioned => 13,
        Topic::PipelineDenied => 14,
        Topic::StudentAssociationsConfirmed => 15,
        Topic::TeacherNotificationRequested => 16,
    }
}

pub(super) fn topic_of(byte: u8) -> Result<Topic, Error> {
    Topic::ALL
        .iter()
        .copied()
        .find(|topic| topic_byte(*topic) == byte)
        .ok_or_else(|| Error::Corrupt(format!("there is no topic {byte}")))
}
