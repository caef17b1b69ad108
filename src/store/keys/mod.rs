//! The keys: one prefix byte, then big-endian integers, so that their order is their meaning.
//!
//! | prefix | then | value |
//! | --- | --- | --- |
//! | `f` | | format version, u32 |
//! | `n` | | how many groups of commits there have been, u64 |
//! | `C` | | how many batches, phases and dead letters stand where |
//! | `b` | batch | the small part of the record, written by every step |
//! | | batch, 0 | what registration fixed |
//! | | batch, 1 | essays |
//! | | batch, 2, phase | how the essays came out of the phase |
//! | | batch, 3, phase, number u32 | up to eight attempts that have ended, of which this is the first |
//! | | batch, 4, phase, time u64 ms, start of the message's hash | an outcome that came too late |
//! | `A` | batch, phase, number u32 | older attempts that were put away, of which this is the first |
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
//! given another meaning; one that is retired stays reserved: `d`, `e`, `r`, `a` and `l`, which what lies under a batch
//! had before format 6.

mod batch;
mod by_owner;
mod by_time;
mod bytes;
mod credits;
mod events;
mod messages;
mod texts;

pub use by_time::Aged;

pub(super) use batch::{
    BATCHES, VOLUMES, attempt, batch, batch_of, details, essays, late_outcome, late_outcomes, letter_of, old_prefixes,
    place_in_ledger, results, volume, volumes, with_its_letter,
};
pub(super) use by_owner::{
    LISTING, RUNNING_JOBS, facet_of, job, job_by_hash, job_member, jobs_of, listed, listed_of, listing, place_of,
    running_job,
};
pub(super) use by_time::{AGES, EXPIRIES, TIMERS, age, aged, ages_after, expired, expiry, timer, timer_of};
pub(super) use bytes::{group_byte, group_of, phase_byte, phase_of, topic_byte, topic_of};
pub(super) use credits::{BALANCES, CHARGES, account_of, balance, balances_end, charge, charge_of, charges};
pub(super) use events::{
    EVENT_GROUPS, EVENT_LOG, EVENTS, EVENTS_END, event, event_group, event_group_of, event_sequence,
};
pub(super) use messages::{
    IDEMPOTENCY_BYTES, LETTER, answer, idempotency, letter, letter_id, letter_of_message, outbox, outbox_of, posted,
    sequence_of,
};
pub(super) use texts::{content_part, hash_of, reference, references};

/// Every prefix there is.
pub(super) const PREFIXES: &[u8] = b"fnCbAokhxtijqmzwcgvuyspE";

pub(super) const FORMAT: &[u8] = b"f";
pub(super) const COMMITS: &[u8] = b"n";
pub(super) const COUNTS: &[u8] = b"C";

/// What a key of an older format is in this one; none where it is the same.
pub(super) fn newest(key: &[u8]) -> Option<Vec<u8>> {
    messages::shortened(key).map(<[u8]>::to_vec).or_else(|| batch::under_its_batch(key))
}
