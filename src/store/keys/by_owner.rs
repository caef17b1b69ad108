//! What an owner finds again: bulk retries, with those that are running and their batches, and listings of batches.

use sha2::{Digest, Sha256};

use crate::contract::{BatchClientStatus, PipelineExecutionStatus};
use crate::domain::{BatchId, Facet, JobId, Millis, Phase};
use crate::store::Error;

pub(in crate::store) const RUNNING_JOBS: &[u8] = b"q";

/// What the keys of listings begin with.
pub(in crate::store) const LISTING: u8 = b'i';

/// Owners are strings of up to 255 characters; sixteen bytes of a hash tell them apart as well.
pub(super) fn owner_hash(owner: &str) -> [u8; 16] {
    let mut hash = [0; 16];
    hash.copy_from_slice(&Sha256::digest(owner)[..16]);
    hash
}

pub(in crate::store) fn jobs_of(owner: &str) -> Vec<u8> {
    let mut key = vec![b'j'];
    key.extend_from_slice(&owner_hash(owner));
    key
}

pub(in crate::store) fn job_by_hash(owner: [u8; 16], id: JobId) -> Vec<u8> {
    [b"j", &owner[..], id.0.as_bytes()].concat()
}

/// Ids of jobs are made by time, so their order is that of the jobs.
pub(in crate::store) fn job(owner: &str, id: JobId) -> Vec<u8> {
    let mut key = jobs_of(owner);
    key.extend_from_slice(id.0.as_bytes());
    key
}

pub(in crate::store) fn running_job(id: JobId) -> Vec<u8> {
    let mut key = RUNNING_JOBS.to_vec();
    key.extend_from_slice(id.0.as_bytes());
    key
}

pub(in crate::store) fn job_member(job: JobId, place: u32) -> Vec<u8> {
    let mut key = vec![b'm'];
    key.extend_from_slice(job.0.as_bytes());
    key.extend_from_slice(&place.to_be_bytes());
    key
}

/// The place of a batch in its bulk retry.
pub(in crate::store) fn place_of(member_key: &[u8]) -> Result<u32, Error> {
    let place = member_key.split_last_chunk::<4>().ok_or_else(|| Error::Corrupt("a key is too short".to_owned()))?;
    Ok(u32::from_be_bytes(*place.1))
}

/// Where the batches of `owner` with `facet` are listed. Facets are written with the names of the wire, which never
/// change, and end in a zero.
pub(in crate::store) fn listing(owner: &str, facet: Facet) -> Vec<u8> {
    // Room for the longest names and for what a batch adds.
    let mut key = Vec::with_capacity(128);
    key.push(LISTING);
    key.extend_from_slice(&owner_hash(owner));
    let names: &[&str] = match facet {
        Facet::Any => &["any"],
        Facet::Status(status) => &["status", "/", status.as_str()],
        Facet::Phase(phase, status) => &[phase.name().as_str(), "/", status.as_str()],
        Facet::Error(phase, code) => &[phase.name().as_str(), "/error/", code.as_str()],
    };
    for name in names {
        key.extend_from_slice(name.as_bytes());
    }
    key.push(0);
    key
}

/// One batch of a listing: the prefix, then by when it was registered.
pub(in crate::store) fn listed(listing: Vec<u8>, registered_at: Millis, batch: BatchId) -> Vec<u8> {
    let mut key = listing;
    key.extend_from_slice(&registered_at.0.to_be_bytes());
    key.extend_from_slice(batch.0.as_bytes());
    key
}

/// When the batch of a listing's key was registered, and the batch.
pub(in crate::store) fn listed_of(key: &[u8]) -> Result<(Millis, BatchId), Error> {
    let corrupt = || Error::Corrupt("a listing's key is too short".to_owned());
    let (head, batch) = key.split_last_chunk::<16>().ok_or_else(corrupt)?;
    let (_, registered_at) = head.split_last_chunk::<8>().ok_or_else(corrupt)?;
    Ok((Millis(u64::from_be_bytes(*registered_at)), BatchId(uuid::Uuid::from_bytes(*batch))))
}

/// Where a batch or one of its phases stands, by a listing's key; none where it lists something else.
pub(in crate::store) fn facet_of(key: &[u8]) -> Option<Facet> {
    let names = key.get(1 + 16..key.len().checked_sub(1 + 8 + 16)?)?;
    let (what, status) = std::str::from_utf8(names).ok()?.split_once('/')?;
    if what == "status" {
        return status.parse::<BatchClientStatus>().ok().map(Facet::Status);
    }
    let status = status.parse::<PipelineExecutionStatus>().ok()?;
    what.parse::<Phase>().ok().map(|phase| Facet::Phase(phase, status))
}
