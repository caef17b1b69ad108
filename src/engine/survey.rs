//! A look at how everything stands, for whoever watches the server.
//!
//! What is counted as it happens is in [`Counters`](super::Counters) and costs nothing to read. The rest is looked up
//! here: within bounds, and never for more than a tenth of the time, however often somebody asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::Semaphore;

use super::queue::Queue;
use super::{Engine, Error};
use crate::contract::{Group, Message};
use crate::domain::{Batch, Millis, TimerKind};
use crate::store::{self, Standings, Store};

/// How many messages of a group are counted one by one.
const MAX_COUNTED: usize = 10_000;

/// How many attempts are looked at for the oldest that runs: those whose deadlines come first.
const MAX_EXAMINED: usize = 1_024;

/// A survey stands for so many times as long as it took.
const STANDS_FOR: u32 = 9;

/// How everything stands.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// What each group has not consumed.
    pub groups: Vec<Backlog>,
    /// For how long the oldest attempt of each phase that is in flight has been, in milliseconds, by
    /// [`Phase::index`](crate::domain::Phase::index).
    pub oldest_running_ms: [Option<u64>; 4],
    /// How many attempts are leased to workers of somebody else's.
    pub leases: u64,
    /// Whether there were more attempts in flight than are looked at; the two before are about those whose deadlines
    /// come first then.
    pub is_cut_short: bool,
    /// How many stand where.
    pub standings: Standings,
    /// How many bytes the database takes.
    pub store_bytes: u64,
    /// How many bytes the journal takes.
    pub journal_bytes: u64,
    /// The numbers of the oldest event of the log and of the next; none where there is no log.
    pub event_log: Option<(u64, u64)>,
}

/// What a group has not consumed.
#[derive(Debug, Clone, Copy)]
pub struct Backlog {
    /// The group.
    pub group: Group,
    /// How many messages.
    pub depth: u64,
    /// How old the oldest of them is, as its envelope says, in milliseconds.
    pub oldest_ms: Option<u64>,
}

/// The last survey, and who may make the next.
pub(super) struct Surveys {
    turn: Semaphore,
    last: Mutex<Option<Last>>,
}

struct Last {
    at: Instant,
    took: Duration,
    survey: Arc<Survey>,
}

impl Default for Surveys {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), last: Mutex::default() }
    }
}

impl Surveys {
    fn standing(&self) -> Option<Arc<Survey>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let stands = last.as_ref().filter(|last| last.at.elapsed() < last.took * STANDS_FOR);
        stands.map(|last| Arc::clone(&last.survey))
    }
}

impl Engine {
    /// How everything stands, or stood a moment ago.
    ///
    /// # Errors
    /// [`Error::Overloaded`] and [`Error::Unavailable`].
    pub async fn survey(&self) -> Result<Arc<Survey>, Error> {
        let surveys = &self.shared.surveys;
        let _turn = surveys.turn.acquire().await.map_err(|_| self.unavailable())?;
        if let Some(survey) = surveys.standing() {
            return Ok(survey);
        }
        let (began, now) = (Instant::now(), self.clock().now());
        let (store, next) = (self.shared.store.clone(), *self.shared.tail.end().borrow());
        let survey = Arc::new(self.read(move || look(&store, next, now)).await?);
        let last = Last { at: Instant::now(), took: began.elapsed(), survey: Arc::clone(&survey) };
        *surveys.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        Ok(survey)
    }

    /// How many requests wait for each partition.
    #[must_use]
    pub fn partition_depths(&self) -> Vec<usize> {
        self.shared.partitions.iter().map(Queue::waiting).collect()
    }

    /// What the store has observed of its own work.
    #[must_use]
    pub fn store_numbers(&self) -> &store::Numbers {
        self.shared.store.numbers()
    }

    /// How many times the store made something durable.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.shared.store.flushes()
    }

    /// Since when it has been running.
    #[must_use]
    pub fn up_since(&self) -> Millis {
        self.shared.up_since
    }
}

fn look(store: &Store, next_event: u64, now: Millis) -> Result<Survey, store::Error> {
    let mut survey = Survey {
        standings: store.standings()?,
        store_bytes: store.size_on_disk(),
        journal_bytes: store.journal_size_on_disk(),
        ..Survey::default()
    };
    for group in Group::ALL {
        let (depth, oldest) = store.backlog(group, MAX_COUNTED)?;
        let oldest_ms = oldest.and_then(|oldest| sent_at(&oldest.message)).map(|at| now.since(at));
        survey.groups.push(Backlog { group, depth, oldest_ms });
    }
    if let Some(log) = store.event_log() {
        let oldest = store.events(log.first, next_event, 1, 1)?;
        survey.event_log = Some((oldest.first().map_or(next_event, |event| event.sequence), next_event));
    }
    look_at_attempts(store, now, &mut survey)?;
    Ok(survey)
}

/// Every attempt in flight has its deadline among the timers.
fn look_at_attempts(store: &Store, now: Millis, survey: &mut Survey) -> Result<(), store::Error> {
    let timers = store.timers(MAX_EXAMINED)?;
    survey.is_cut_short = timers.len() == MAX_EXAMINED;
    let mut before: Option<Batch> = None;
    for entry in timers.into_iter().filter(|entry| entry.timer.kind == TimerKind::Deadline) {
        let batch = match before.take().filter(|batch| batch.id == entry.batch) {
            Some(batch) => Some(batch),
            None => store.batch(entry.batch)?,
        };
        let in_flight = batch.as_ref().and_then(|batch| batch.phase_state(entry.timer.phase)?.in_flight());
        if let Some((attempt, _)) = in_flight.filter(|(attempt, _)| attempt.number == entry.timer.attempt) {
            survey.leases += u64::from(attempt.lease.is_some());
            let age_ms = now.since(attempt.dispatched_at.unwrap_or(now));
            let oldest = &mut survey.oldest_running_ms[entry.timer.phase.index()];
            *oldest = Some(oldest.map_or(age_ms, |oldest| oldest.max(age_ms)));
        }
        before = batch;
    }
    Ok(())
}

/// When a message was sent, as its envelope says.
fn sent_at(message: &Message) -> Option<Millis> {
    #[derive(Deserialize)]
    struct Envelope {
        event_timestamp: jiff::Timestamp,
    }
    let Envelope { event_timestamp } = serde_json::from_slice(&message.body).ok()?;
    u64::try_from(event_timestamp.as_millisecond()).ok().map(Millis)
}
