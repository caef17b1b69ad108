//! Bulk retries: a set of batches that is fixed first, and retried one after the other at a pace.
//!
//! Each batch is retried by a step like any other; what became of it is written in the commit of that step, so a
//! restart goes on with exactly those that are left. A batch that changed since it was chosen is left alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::job_runner::{MAX_RUNNING, launch, register};
use super::listing::Walk;
use super::once::RequestKey;
use super::request::{Kept, Settlement};
use super::{Answer, Engine, Error};
use crate::domain::{
    Batch, BatchId, Context, Filter, Funds, JobId, JobMember, JobState, MemberResult, Millis, Origin, Phase, RetryJob,
    step,
};
use crate::store::Commit;

/// The most batches of one bulk retry. They are written in one commit, of about a megabyte.
pub const MAX_JOB_BATCHES: usize = 10_000;

/// The most batches that a bulk retry can retry in a second.
pub const MAX_PER_SECOND: u32 = 1_000;

/// A bulk retry that somebody asks for.
#[derive(Debug, Clone)]
pub struct JobRequest {
    /// Who asks.
    pub by: String,
    /// The phase to retry.
    pub phase: Phase,
    /// Whether only the essays that failed, or never arrived, run again.
    pub only_failed: bool,
    /// Why.
    pub reason: String,
    /// How many batches to retry in a second, 1 to [`MAX_PER_SECOND`].
    pub per_second: u32,
    /// Which batches.
    pub filter: Filter,
    /// The same, as it was written.
    pub filter_as_written: Value,
    /// How the request named itself.
    pub origin: Origin,
}

/// What a bulk retry would do.
#[derive(Debug)]
pub struct JobPreview {
    /// How many batches there are.
    pub total: usize,
    /// How many of them would be retried.
    pub retried: usize,
    /// How many would be refused, for each reason.
    pub refused: BTreeMap<String, usize>,
    /// The first of them with what would become of each.
    pub first: Vec<(BatchId, MemberResult)>,
}

/// How many batches a preview names.
const PREVIEWED: usize = 100;

/// A bulk retry and how far it is.
#[derive(Debug)]
pub struct JobProgress {
    /// The job.
    pub job: RetryJob,
    /// How many of its batches came to each result, by [`MemberResult::as_str`].
    pub counts: BTreeMap<&'static str, usize>,
    /// Some of its batches: the place, what became of it, and the batch as it is now.
    pub members: Vec<(u32, JobMember, Option<Arc<Batch>>)>,
}

impl JobRequest {
    /// The job that it asks for, without its batches yet.
    fn into_job(self, id: JobId, now: Millis) -> RetryJob {
        RetryJob {
            id,
            by: self.by,
            phase: self.phase,
            only_failed: self.only_failed,
            reason: self.reason,
            per_second: self.per_second,
            filter: self.filter_as_written,
            origin: Arc::new(self.origin),
            total: 0,
            created_at: now,
            state: JobState::Running,
        }
    }
}

impl Engine {
    /// Fixes the set of batches and begins to retry them; answers what `render` makes of the job once it is durable,
    /// and whether it is the answer to an earlier request of the same key.
    ///
    /// # Errors
    /// [`Error::TooManyBatches`], [`Error::TooManyJobs`], and those of [`Engine::submit_once`].
    pub async fn start_retry_job(
        &self,
        request: JobRequest,
        key: Option<RequestKey>,
        render: impl FnOnce(&RetryJob) -> Answer + Send + 'static,
    ) -> Result<(Answer, bool), Error> {
        let (engine, (reply, answer)) = (self.clone(), oneshot::channel());
        // A client that hangs up does not leave a job behind that nobody runs.
        self.spawn(async move {
            let _ = reply.send(engine.create_job(request, key, render).await);
        });
        answer.await.map_err(|_| self.unavailable())?
    }

    async fn create_job(
        self,
        request: JobRequest,
        key: Option<RequestKey>,
        render: impl FnOnce(&RetryJob) -> Answer,
    ) -> Result<(Answer, bool), Error> {
        let reservation = key.map(|key| self.shared.in_flight.reserve(key).ok_or(Error::KeyInFlight)).transpose()?;
        if let Some(key) = key {
            let (store, now) = (self.shared.store.clone(), self.clock().now());
            // Whoever wrote it held the key until it was durable.
            if let Some(answer) = self.read(move || Ok(key.earlier_answer(&store, now))).await?? {
                return Ok((answer, true));
            }
        }
        let place = self.shared.jobs.place().ok_or(Error::TooManyJobs { limit: MAX_RUNNING })?;
        let members = self.freeze(&request, |batch| (batch.id, batch.version)).await?;
        let now = self.clock().now();
        let mut job = request.into_job(JobId(Uuid::now_v7()), now);
        job.total = u32::try_from(members.len()).unwrap_or(u32::MAX);
        if members.is_empty() {
            job.state = JobState::Finished { at: now };
        }
        let mut commit = Commit::new();
        commit.put_job(&job)?;
        for (place, (batch, version)) in (0..).zip(members) {
            let member = JobMember { batch, version, outcome: None };
            commit.put_member(job.id, place, &member)?;
        }
        let answer = render(&job);
        let kept = key.zip(reservation).map(|(key, reservation)| Kept { key, answer: answer.clone(), reservation });
        // Whoever reads of it can stop it, so it is known before it can be read of.
        let registered = register(&self, job.id, Some(place));
        self.settle(job.id.0.as_bytes(), Settlement { kept, ..Settlement::of(commit) }).await?;
        if job.state == JobState::Running {
            launch(registered, job);
        }
        Ok((answer, false))
    }

    /// What `look` makes of each batch that a bulk retry is about, as they are now. Only that is kept of them.
    async fn freeze<T: Send + 'static>(
        &self,
        request: &JobRequest,
        look: impl Fn(&Batch) -> T + Send + 'static,
    ) -> Result<Vec<T>, Error> {
        let (store, now) = (self.shared.store.clone(), self.clock().now());
        let (owner, filter) = (request.by.clone(), request.filter.clone());
        let batches = self.read(move || {
            let mut walk = Walk::new(store, owner, filter, now, None);
            let mut batches = Vec::new();
            while batches.len() <= MAX_JOB_BATCHES
                && let Some(place) = walk.next_place()?
            {
                batches.extend(walk.look(place).map(|batch| look(&batch)));
            }
            Ok(batches)
        });
        let batches = batches.await?;
        if batches.len() > MAX_JOB_BATCHES {
            return Err(Error::TooManyBatches { limit: MAX_JOB_BATCHES });
        }
        Ok(batches)
    }

    /// What a bulk retry would do, decided by the same step. Nothing is changed.
    ///
    /// # Errors
    /// [`Error::TooManyBatches`] and [`Error::Unavailable`].
    pub async fn preview_retry_job(&self, request: JobRequest) -> Result<JobPreview, Error> {
        let (engine, now) = (self.clone(), self.clock().now());
        let job = request.clone().into_job(JobId(Uuid::nil()), now);
        let look = move |batch: &Batch| {
            let (up_since, rules) = (engine.shared.up_since, &engine.shared.rules);
            let correlation_id = job.correlation_id(batch.id);
            // A retry costs nothing.
            let funds = Funds::Unlimited;
            let context = Context { now, up_since, correlation_id, origin: &job.origin, rules, funds };
            let answer = step(Some(batch), job.input(), &context).map(|step| step.batch);
            (batch.id, MemberResult::of(job.phase, answer.as_ref()))
        };
        let mut first = self.freeze(&request, look).await?;
        let mut preview = JobPreview { total: first.len(), retried: 0, refused: BTreeMap::new(), first: Vec::new() };
        for (_, result) in &first {
            match result {
                MemberResult::Retried { .. } | MemberResult::Moved => preview.retried += 1,
                MemberResult::Refused { error } => *preview.refused.entry(error.clone()).or_default() += 1,
            }
        }
        first.truncate(PREVIEWED);
        Ok(JobPreview { first, ..preview })
    }

    /// A bulk retry of `owner`: how far it is, and its batches from the place `first` on, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn retry_job(
        &self,
        owner: String,
        id: JobId,
        first: u32,
        limit: usize,
    ) -> Result<Option<JobProgress>, Error> {
        let store = self.shared.store.clone();
        let progress = self.read(move || {
            let Some(job) = store.job(&owner, id)? else { return Ok(None) };
            let mut counts = BTreeMap::new();
            let mut members = Vec::new();
            for (place, member) in store.job_members(id, 0, MAX_JOB_BATCHES)? {
                let result = member.outcome.as_ref().map_or("waiting", |outcome| outcome.what.as_str());
                *counts.entry(result).or_default() += 1;
                if place >= first && members.len() < limit {
                    let batch = store.batch_of_another(member.batch)?.map(Arc::new);
                    members.push((place, member, batch));
                }
            }
            Ok(Some(JobProgress { job, counts, members }))
        });
        progress.await
    }

    /// Bulk retries of `owner`, the newest first, behind `before` where there is one, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn retry_jobs(&self, owner: String, before: Option<JobId>, limit: usize) -> Result<Vec<RetryJob>, Error> {
        let store = self.shared.store.clone();
        self.read(move || store.jobs(&owner, before, limit)).await
    }

    /// Stops a bulk retry of `owner`: once this answers no further batch is retried. One that has ended stays as it is.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn stop_retry_job(&self, owner: String, id: JobId) -> Result<Option<RetryJob>, Error> {
        let find = || {
            let (store, owner) = (self.shared.store.clone(), owner.clone());
            self.read(move || store.job(&owner, id))
        };
        if find().await?.is_none() {
            return Ok(None);
        }
        if let Some(running) = self.shared.jobs.get(id) {
            running.stop.cancel();
            running.ended.cancelled().await;
        }
        // Read again: it may have come to its end meanwhile.
        match find().await? {
            Some(job) if job.state == JobState::Running => {
                // Its runner could not go on, so nobody writes it but this.
                let stopped = RetryJob { state: JobState::Stopped { at: self.clock().now() }, ..job };
                let mut commit = Commit::new();
                commit.put_job(&stopped)?;
                self.settle(id.0.as_bytes(), Settlement::of(commit)).await?;
                Ok(Some(stopped))
            }
            job => Ok(job),
        }
    }
}
