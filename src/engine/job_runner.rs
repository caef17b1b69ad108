//! The bulk retries that are running: one task each, which goes from batch to batch at its pace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::jobs::MAX_PER_SECOND;
use super::request::{Cause, Request, Settlement, StepReply, StepRequest};
use super::{Engine, Error, Submission, blocking};
use crate::domain::{JobId, JobMember, JobState, MemberOutcome, MemberResult, RetryJob};
use crate::store::{self, Commit};

/// The most bulk retries that run side by side. Each is a task that mostly waits.
pub(super) const MAX_RUNNING: usize = 32;

/// How many batches of a bulk retry are read at once.
const PAGE: usize = 64;

/// The bulk retries that this process runs.
#[derive(Default)]
pub(super) struct Jobs(Mutex<HashMap<JobId, Running>>);

#[derive(Clone)]
pub(super) struct Running {
    /// Tells it to end.
    pub(super) stop: CancellationToken,
    /// It has ended, and said so on disk where it could.
    pub(super) ended: CancellationToken,
}

impl Jobs {
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn get(&self, id: JobId) -> Option<Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn insert(&self, id: JobId, running: Running) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, running);
    }

    fn remove(&self, id: JobId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// Goes on with what was running when the process ended.
pub(super) async fn start(engine: &Engine) -> Result<(), store::Error> {
    let store = engine.shared.store.clone();
    for job in blocking(move || store.running_jobs(MAX_RUNNING)).await? {
        launch(engine, job);
    }
    Ok(())
}

/// Runs `job` until its end, its owner's wish, or that of the program.
pub(super) fn launch(engine: &Engine, job: RetryJob) {
    let running = Running { stop: engine.stopping().child_token(), ended: CancellationToken::new() };
    engine.shared.jobs.insert(job.id, running.clone());
    let (handle, id) = (engine.clone(), job.id);
    engine.spawn(async move {
        // However it ends, nobody waits for it in vain.
        let ended = running.ended.drop_guard();
        if let Err(error) = run(&handle, job, &running.stop).await {
            tracing::warn!(job = %id, %error, "a retry job stands still; the next start goes on with it");
        }
        handle.shared.jobs.remove(id);
        drop(ended);
    });
}

async fn run(engine: &Engine, mut job: RetryJob, stop: &CancellationToken) -> Result<(), Error> {
    let clock = engine.clock();
    let (mut first, mut due) = (0, clock.now());
    'pages: loop {
        let (store, id) = (engine.shared.store.clone(), job.id);
        let page = blocking(move || store.job_members(id, first, PAGE)).await?;
        for (place, member) in page {
            first = place + 1;
            if member.outcome.is_some() {
                continue;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break 'pages,
                () = clock.sleep_until(due) => {}
            }
            retry(engine, &job, place, member).await?;
            due = due.plus(u64::from(1_000 / job.per_second.clamp(1, MAX_PER_SECOND))).max(clock.now());
        }
        if first >= job.total {
            break;
        }
    }
    if engine.stopping().is_cancelled() {
        return Ok(());
    }
    let at = clock.now();
    job.state = if first >= job.total { JobState::Finished { at } } else { JobState::Stopped { at } };
    let mut commit = Commit::new();
    commit.put_job(&job)?;
    engine.settle(job.id.0.as_bytes(), Settlement::of(commit)).await?;
    tracing::info!(job = %job.id, state = job.state.as_str(), "a retry job has ended");
    Ok(())
}

/// Retries one batch, and writes down what became of it in the same commit.
async fn retry(engine: &Engine, job: &RetryJob, place: u32, mut member: JobMember) -> Result<(), Error> {
    let (reply, answer) = oneshot::channel();
    let submission = Submission {
        origin: Arc::clone(&job.origin),
        versions: Some(vec![member.version]),
        ..Submission::new(job.input(), job.correlation_id(member.batch))
    };
    let cause = Cause::Job { job: job.id, place, phase: job.phase, member: member.clone() };
    let request = StepRequest { batch: member.batch, submission, cause, reply };
    let partition = engine.partition_of(member.batch.0.as_bytes());
    partition.send(Request::Step(Box::new(request))).await.map_err(|_| engine.unavailable())?;
    match answer.await.map_err(|_| engine.unavailable())? {
        Ok(StepReply::Done(_) | StepReply::Duplicate | StepReply::Answered(_) | StepReply::Replayed(_))
        | Err(Error::Rejected(_)) => Ok(()),
        Err(error) if engine.failure().is_some() || engine.stopping().is_cancelled() => Err(error),
        // A batch that cannot be read holds up none of the others.
        Err(error) => {
            let what = MemberResult::Refused { error: error.to_string() };
            member.outcome = Some(MemberOutcome { at: engine.clock().now(), what });
            let mut commit = Commit::new();
            commit.put_member(job.id, place, &member)?;
            engine.settle(job.id.0.as_bytes(), Settlement::of(commit)).await.map(drop)
        }
    }
}
