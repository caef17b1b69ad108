//! The bulk retries that are running: one task each, which goes from batch to batch at its pace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::request::{Cause, Request, Settlement, StepReply, StepRequest};
use super::{Engine, Error, Submission, blocking};
use crate::clock::Work;
use crate::crash::{self, Point};
use crate::domain::{JobId, JobMember, JobState, MemberOutcome, MemberResult, Millis, RetryJob};
use crate::store::{self, Commit};

/// The most bulk retries that run side by side. Each is a task that mostly waits.
pub(super) const MAX_RUNNING: usize = 32;

/// How many batches of a bulk retry are read at once.
const PAGE: usize = 64;

/// The bulk retries that this process runs.
pub(super) struct Jobs {
    running: Mutex<HashMap<JobId, Running>>,
    places: Arc<Semaphore>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self { running: Mutex::default(), places: Arc::new(Semaphore::new(MAX_RUNNING)) }
    }
}

#[derive(Clone)]
pub(super) struct Running {
    /// Tells it to end.
    pub(super) stop: CancellationToken,
    /// It has ended, and said so on disk where it could.
    pub(super) ended: CancellationToken,
}

/// A bulk retry that everybody can find and stop from now on, and that ends when this is dropped.
pub(super) struct Registered {
    engine: Engine,
    id: JobId,
    running: Running,
    /// Its place among those that run; none for one that was running when the process ended.
    _place: Option<OwnedSemaphorePermit>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let running = &self.engine.shared.jobs.running;
        running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        // However it ended, nobody waits for it in vain.
        self.running.ended.cancel();
    }
}

impl Jobs {
    /// A place for one more, if there is one.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    pub(super) fn get(&self, id: JobId) -> Option<Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }
}

/// Makes a bulk retry known, before anybody can read of it on disk.
pub(super) fn register(engine: &Engine, id: JobId, place: Option<OwnedSemaphorePermit>) -> Registered {
    let running = Running { stop: engine.stopping().child_token(), ended: CancellationToken::new() };
    let jobs = &engine.shared.jobs.running;
    jobs.lock().unwrap_or_else(PoisonError::into_inner).insert(id, running.clone());
    Registered { engine: engine.clone(), id, running, _place: place }
}

/// Goes on with what was running when the process ended.
pub(super) async fn start(engine: &Engine) -> Result<(), store::Error> {
    let store = engine.shared.store.clone();
    for job in blocking(move || store.running_jobs()).await? {
        let place = engine.shared.jobs.place();
        launch(register(engine, job.id, place), job);
    }
    Ok(())
}

/// Runs `job` until its end, its owner's wish, or that of the program.
pub(super) fn launch(registered: Registered, job: RetryJob) {
    let engine = registered.engine.clone();
    let mut work = engine.clock().work("a bulk retry");
    engine.spawn(async move {
        let (engine, id) = (&registered.engine, job.id);
        if let Err(error) = run(engine, job, &mut work, &registered.running.stop).await {
            tracing::warn!(job = %id, %error, "a retry job stands still; the next start goes on with it");
        }
    });
}

async fn run(engine: &Engine, mut job: RetryJob, work: &mut Work, stop: &CancellationToken) -> Result<(), Error> {
    let clock = engine.clock();
    let mut first = 0;
    let mut pace = Pace::new(job.per_second, clock.now());
    'pages: loop {
        let (store, id) = (engine.shared.store.clone(), job.id);
        let members = blocking(move || store.job_members(id, first, PAGE)).await?;
        for (place, member) in members {
            if member.outcome.is_none() {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break 'pages,
                    () = work.sleep_until(pace.due()) => {}
                }
                retry(engine, &job, place, member).await?;
                pace.next(clock.now());
            }
            // Only now: one that is stopped before its last batch has not finished.
            first = place + 1;
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

/// When the next batch has its turn. Counted in microseconds, so that no pace is rounded up.
struct Pace {
    due_us: u64,
    interval_us: u64,
}

impl Pace {
    fn new(per_second: u32, now: Millis) -> Self {
        Self { due_us: now.0.saturating_mul(1_000), interval_us: 1_000_000_u64.div_ceil(u64::from(per_second.max(1))) }
    }

    const fn due(&self) -> Millis {
        Millis(self.due_us.div_ceil(1_000))
    }

    /// One has had its turn. What was missed is not made up for.
    fn next(&mut self, now: Millis) {
        self.due_us = self.due_us.saturating_add(self.interval_us).max(now.0.saturating_mul(1_000));
    }
}

/// Retries one batch, and writes down what became of it in the same commit.
async fn retry(engine: &Engine, job: &RetryJob, place: u32, mut member: JobMember) -> Result<(), Error> {
    crash::reach(Point::JobTurn);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pace_is_faster_than_what_was_asked() {
        for per_second in [1, 3, 10, 300, 334, 501, 999, 1_000] {
            let (start, mut now) = (Millis(5_000), Millis(5_000));
            let mut pace = Pace::new(per_second, start);
            for _ in 0..per_second {
                now = now.max(pace.due());
                pace.next(now);
            }
            assert!(now.max(pace.due()).since(start) >= 1_000, "{per_second}");
            assert!(pace.due().since(start) <= 1_001, "{per_second}");
        }
    }
}
