//! A round: what a partition has stepped, on its way to the disk, and what is said once it is there.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::durable::Durable;
use super::notices::Whom;
use super::once::Reservation;
use super::request::StepReply;
use super::timers::Timers;
use crate::bus::{Bus, Recall};
use crate::contract::idempotency::Key;
use crate::contract::{Group, Notice};
use crate::crash::{self, Point};
use crate::domain::{Attempt, Batch, BatchId, Millis, Phase};
use crate::store::{self, Commit, Sequence};

/// What has been stepped and is not durable yet.
#[derive(Default)]
pub(super) struct Round {
    pub(super) commit: Commit,
    /// Every record that was made, in order.
    pub(super) records: Vec<Arc<Batch>>,
    /// Attempts that have ended.
    pub(super) attempts: Vec<(BatchId, Phase, Arc<Attempt>)>,
    /// Keys of messages that were completed.
    pub(super) completed: Vec<(Group, Key)>,
    /// Commands that left the outbox.
    pub(super) used_up: Vec<(Group, Sequence)>,
    pub(super) due: Vec<Millis>,
    pub(super) recalls: Vec<Recall>,
    /// What users are told, in order.
    pub(super) notices: Vec<(Whom, Notice)>,
    /// Keys of requests whose change is not durable yet.
    pub(super) reservations: Vec<Reservation>,
    pub(super) answers: Vec<Answer>,
}

pub(super) enum Answer {
    Step(oneshot::Sender<Result<StepReply, Error>>, Result<StepReply, Error>),
    Settle(oneshot::Sender<Result<(), Error>>),
    /// Somebody else's, who makes an answer of whether it is durable.
    Told(Box<dyn FnOnce(Result<(), Error>) + Send>),
}

impl Answer {
    /// `answer` once the round is durable.
    pub(super) fn told<T: Send + 'static>(reply: oneshot::Sender<Result<T, Error>>, answer: T) -> Self {
        // Whoever asked may have gone away.
        Self::Told(Box::new(|committed| _ = reply.send(committed.map(|()| answer))))
    }
}

/// Who hears of a round.
#[derive(Clone)]
pub(super) struct Listeners {
    pub(super) durable: Arc<Durable>,
    pub(super) timers: Timers,
    pub(super) bus: Arc<Bus>,
    /// Is cancelled where something did not become durable.
    pub(super) failed: CancellationToken,
}

impl Round {
    /// Says what the round came to. Runs on the committer's thread once that is known, so it does nothing that blocks.
    pub(super) fn conclude(self, number: u64, committed: Result<(), store::Error>, listeners: &Listeners) {
        let Self { records, attempts, due, recalls, notices, reservations, answers, .. } = self;
        let Listeners { durable, timers, bus, failed } = listeners;
        crash::reach(Point::StepAnswer);
        let committed = committed.map_err(Error::from);
        // Free again before anybody is told.
        drop(reservations);
        if committed.is_ok() {
            {
                let mut cache = durable.cache();
                for record in &records {
                    cache.put(Arc::clone(record));
                }
                for (id, phase, attempt) in attempts {
                    cache.add_attempt(id, phase, attempt);
                }
            }
            durable.has_round(number);
            {
                let mut waiting = durable.waiting();
                for record in &records {
                    waiting.tell(record);
                }
            }
            // Once the state can be read that they are about.
            bus.tell(notices);
            for due in due {
                timers.wake_at(due);
            }
            for recall in recalls {
                bus.recall(recall);
            }
        } else {
            failed.cancel();
        }
        for answer in answers {
            // Whoever asked may have gone away; what was committed stays.
            match answer {
                Answer::Step(reply, answer) => {
                    let _ = reply.send(committed.clone().and(answer));
                }
                Answer::Settle(reply) => {
                    let _ = reply.send(committed.clone());
                }
                Answer::Told(tell) => tell(committed.clone()),
            }
        }
    }
}

/// What a partition has stepped and is not durable yet: the next step of the same batch begins with it.
#[derive(Default)]
pub(super) struct OnTheirWay {
    /// The newest record of a batch, and the round that made it.
    records: HashMap<BatchId, (u64, Arc<Batch>)>,
    completed: HashMap<(Group, Key), u64>,
    used_up: HashSet<(Group, Sequence)>,
    /// Oldest first.
    rounds: VecDeque<Trace>,
}

/// What a round put there.
struct Trace {
    number: u64,
    records: Vec<BatchId>,
    completed: Vec<(Group, Key)>,
    used_up: Vec<(Group, Sequence)>,
}

impl OnTheirWay {
    pub(super) fn record(&self, id: BatchId) -> Option<&Arc<Batch>> {
        self.records.get(&id).map(|(_, record)| record)
    }

    pub(super) fn is_completed(&self, group: Group, key: &Key) -> bool {
        !self.completed.is_empty() && self.completed.contains_key(&(group, key.clone()))
    }

    /// Adds what the open round, of this number, made.
    pub(super) fn put(&mut self, number: u64, record: Arc<Batch>) {
        self.records.insert(record.id, (number, record));
    }

    pub(super) fn complete(&mut self, number: u64, group: Group, key: Key) {
        self.completed.insert((group, key), number);
    }

    pub(super) fn is_used_up(&self, group: Group, sequence: Sequence) -> bool {
        self.used_up.contains(&(group, sequence))
    }

    /// The open round takes a command out of the outbox.
    pub(super) fn use_up(&mut self, group: Group, sequence: Sequence) {
        self.used_up.insert((group, sequence));
    }

    /// The round of this number is on its way.
    pub(super) fn close(&mut self, number: u64, round: &mut Round) {
        let records = round.records.iter().map(|record| record.id).collect();
        let (completed, used_up) = (std::mem::take(&mut round.completed), std::mem::take(&mut round.used_up));
        self.rounds.push_back(Trace { number, records, completed, used_up });
    }

    /// Forgets what is durable, which is found elsewhere.
    pub(super) fn arrived(&mut self, durable: u64) {
        while let Some(trace) = self.rounds.pop_front_if(|trace| trace.number <= durable) {
            let Trace { number, records, completed, used_up } = trace;
            for id in records {
                if self.records.get(&id).is_some_and(|(newest, _)| *newest == number) {
                    self.records.remove(&id);
                }
            }
            for key in completed {
                if self.completed.get(&key) == Some(&number) {
                    self.completed.remove(&key);
                }
            }
            // Nothing leaves the outbox twice.
            for command in used_up {
                self.used_up.remove(&command);
            }
        }
    }

    /// Whether everything is durable.
    pub(super) fn is_empty(&self) -> bool {
        self.rounds.is_empty()
    }
}
