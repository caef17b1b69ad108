//! Bulk retries: their records by owner, their batches, and which of them are running.

use super::keys::Aged;
use super::read::failed;
use super::stored::{StoredJob, StoredMember};
use super::{Commit, Error, Store, codec, keys};
use crate::domain::{JobId, JobMember, JobState, RetryJob};

impl Commit {
    /// Writes the record of a bulk retry; one that runs is found again at the next start.
    ///
    /// # Errors
    /// As [`Commit::put_batch`].
    pub fn put_job(&mut self, job: &RetryJob) -> Result<(), Error> {
        let key = keys::job(&job.by, job.id);
        match job.state {
            JobState::Running => self.put(keys::running_job(job.id), key.clone()),
            JobState::Finished { at } | JobState::Stopped { at } => {
                self.delete(keys::running_job(job.id));
                self.age(Aged::job(&job.by, job.id), None, Some(at));
            }
        }
        self.put(key, codec::encode(&StoredJob::of(job)?)?);
        Ok(())
    }

    /// Writes what is known of the batch at this place of a bulk retry.
    ///
    /// # Errors
    /// As [`Commit::put_batch`].
    pub fn put_member(&mut self, job: JobId, place: u32, member: &JobMember) -> Result<(), Error> {
        self.put(keys::job_member(job, place), codec::encode(&StoredMember::of(member))?);
        Ok(())
    }
}

impl Store {
    /// A bulk retry of `owner`.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn job(&self, owner: &str, id: JobId) -> Result<Option<RetryJob>, Error> {
        let value = self.shared.state.get(keys::job(owner, id)).map_err(failed)?;
        value.map(|value| codec::decode::<StoredJob>(&value)?.into_job()).transpose()
    }

    /// Bulk retries of `owner`, the newest first, behind `before` where there is one, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn jobs(&self, owner: &str, before: Option<JobId>, limit: usize) -> Result<Vec<RetryJob>, Error> {
        let first = keys::jobs_of(owner);
        let end = before.map_or_else(|| keys::job(owner, JobId(uuid::Uuid::max())), |before| keys::job(owner, before));
        let values = self.shared.state.range(first..end).values().rev().take(limit);
        values.map(|value| codec::decode::<StoredJob>(&value.map_err(failed)?)?.into_job()).collect()
    }

    /// The bulk retries that are running.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn running_jobs(&self) -> Result<Vec<RetryJob>, Error> {
        let running = self.shared.state.scan_prefix(keys::RUNNING_JOBS).values();
        let job = |key: sled::Result<sled::IVec>| {
            let value = self.shared.state.get(key.map_err(failed)?).map_err(failed)?;
            let value = value.ok_or_else(|| Error::Corrupt("a running retry job has no record".to_owned()))?;
            codec::decode::<StoredJob>(&value)?.into_job()
        };
        running.map(job).collect()
    }

    /// The batches of a bulk retry with their places, from the place `first` on, at most `limit`.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn job_members(&self, job: JobId, first: u32, limit: usize) -> Result<Vec<(u32, JobMember)>, Error> {
        let members = self.shared.state.range(keys::job_member(job, first)..=keys::job_member(job, u32::MAX));
        let member = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = entry.map_err(failed)?;
            Ok((keys::place_of(&key)?, codec::decode::<StoredMember>(&value)?.into_member()))
        };
        members.take(limit).map(member).collect()
    }
}
