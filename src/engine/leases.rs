//! Commands for workers of somebody else's: they lie on a desk until one of them asks.
//!
//! Granting a lease is a step like any other. It consumes the command, so that from then on nothing but the end of the
//! lease watches over the attempt.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use uuid::Uuid;

use super::request::{Cause, Request, StepReply, StepRequest};
use super::{Engine, Error, Submission};
use crate::bus::Delivery;
use crate::clock::Clock;
use crate::contract::Message;
use crate::contract::idempotency::Key;
use crate::crash::{self, Point};
use crate::domain::step::NewLease;
use crate::domain::{Batch, BatchId, Input, Phase};

/// How many commands of one phase lie on the desk. More wait in the channel of their group, and then in the outbox.
const SHELF: usize = 64;

/// The same by a manual clock, which goes on once nobody waits for a place.
const MANUAL_SHELF: usize = 16_384;

/// The most leases of one request. A command of a large batch is a few hundred kilobytes.
pub const MAX_LEASES: usize = 16;

/// How many workers may wait for a command. Each holds a connection open; past that one is told to come back.
const MAX_WAITING: usize = 1_024;

/// What a worker asks for.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// How the worker names itself.
    pub worker_id: String,
    /// The phases that it runs, the one it likes best first.
    pub phases: Vec<Phase>,
    /// How many attempts it takes at once: 1 to [`MAX_LEASES`].
    pub max: usize,
    /// How long each lease lasts without a sign of life, in milliseconds.
    pub lease_ms: u64,
}

/// An attempt that a worker has got.
#[derive(Debug, Clone)]
pub struct Leased {
    /// The record since.
    pub batch: Arc<Batch>,
    /// The phase.
    pub phase: Phase,
    /// The command.
    pub command: Message,
}

/// Where commands lie, by [`Phase::index`].
pub(super) struct Desk {
    shelves: [Shelf; 4],
    waiting: Semaphore,
}

struct Shelf {
    /// Whether anybody puts commands here.
    is_open: AtomicBool,
    places: Arc<Semaphore>,
    commands: Mutex<VecDeque<Laid>>,
    /// Wakes one who waits. Whoever takes a command and leaves others wakes the next.
    arrived: Notify,
}

struct Laid {
    delivery: Delivery,
    _place: OwnedSemaphorePermit,
}

impl Desk {
    pub(super) fn new(clock: &Clock) -> Self {
        let places = if clock.is_manual() { MANUAL_SHELF } else { SHELF };
        let shelf = || Shelf {
            is_open: AtomicBool::new(false),
            places: Arc::new(Semaphore::new(places)),
            commands: Mutex::default(),
            arrived: Notify::new(),
        };
        Self { shelves: std::array::from_fn(|_| shelf()), waiting: Semaphore::new(MAX_WAITING) }
    }

    fn shelf(&self, phase: Phase) -> &Shelf {
        &self.shelves[phase.index()]
    }

    /// Takes up to `max` commands, the oldest first.
    fn take(&self, phases: &[Phase], max: usize) -> Vec<(Phase, Delivery)> {
        let mut taken = Vec::new();
        for &phase in phases {
            let place = self.shelf(phase);
            let mut commands = place.commands.lock().unwrap_or_else(PoisonError::into_inner);
            let count = commands.len().min(max - taken.len());
            taken.extend(commands.drain(..count).map(|laid| (phase, laid.delivery)));
            if !commands.is_empty() {
                place.arrived.notify_one();
            }
        }
        taken
    }
}

/// What a command says that a lease needs.
#[derive(Deserialize)]
struct Command {
    correlation_id: Uuid,
    data: CommandData,
    metadata: CommandMetadata,
}

#[derive(Deserialize)]
struct CommandData {
    entity_id: String,
}

#[derive(Deserialize)]
struct CommandMetadata {
    attempt: u32,
}

/// A command on its way to becoming a lease.
struct Pending {
    delivery: Delivery,
    phase: Phase,
    answer: oneshot::Receiver<Result<StepReply, Error>>,
}

impl Engine {
    /// From now on commands of `phase` are offered to whoever asks.
    pub fn open_desk(&self, phase: Phase) {
        self.shared.desk.shelf(phase).is_open.store(true, Ordering::Release);
    }

    /// Whether commands of `phase` are offered to whoever asks.
    #[must_use]
    pub fn is_offered(&self, phase: Phase) -> bool {
        self.shared.desk.shelf(phase).is_open.load(Ordering::Acquire)
    }

    /// Lays a command where whoever asks for it gets it, and waits while there is no place.
    pub async fn offer(&self, phase: Phase, mut delivery: Delivery) {
        let Shelf { places, commands, arrived, .. } = self.shared.desk.shelf(phase);
        // Never closed.
        let Ok(place) = Arc::clone(places).acquire_owned().await else { return };
        // What follows is up to somebody outside.
        delivery.set_aside();
        let laid = Laid { delivery, _place: place };
        commands.lock().unwrap_or_else(PoisonError::into_inner).push_back(laid);
        arrived.notify_one();
    }

    /// Waits until there may be a command of one of `phases`.
    ///
    /// # Errors
    /// [`Error::Overloaded`] where as many wait as can.
    pub async fn offered(&self, phases: &[Phase]) -> Result<(), Error> {
        let desk = &self.shared.desk;
        let _place = desk.waiting.try_acquire().map_err(|_| Error::Overloaded)?;
        let arrived = |phase: Phase| async move {
            if phases.contains(&phase) {
                desk.shelf(phase).arrived.notified().await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = arrived(Phase::Spellcheck) => {}
            () = arrived(Phase::CjAssessment) => {}
            () = arrived(Phase::Nlp) => {}
            () = arrived(Phase::AiFeedback) => {}
        }
        Ok(())
    }

    /// Gives attempts to a worker, as many as there are and it takes; they are its own, durably, when this answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`], where it got none.
    pub async fn lease(&self, request: &LeaseRequest) -> Result<Vec<Leased>, Error> {
        loop {
            let taken = self.shared.desk.take(&request.phases, request.max);
            if taken.is_empty() {
                return Ok(Vec::new());
            }
            let leased = self.grant(request, taken).await?;
            // Commands that are out of date are none.
            if !leased.is_empty() {
                return Ok(leased);
            }
        }
    }

    async fn grant(&self, request: &LeaseRequest, taken: Vec<(Phase, Delivery)>) -> Result<Vec<Leased>, Error> {
        let mut pending = Vec::with_capacity(taken.len());
        for (phase, mut delivery) in taken {
            delivery.take_up(self.clock());
            match self.send_grant(request, phase, &delivery).await {
                Ok(answer) => pending.push(Pending { delivery, phase, answer }),
                Err(unreadable) => self.refuse(delivery, &unreadable).await,
            }
        }
        let (mut leased, mut failure) = (Vec::new(), None);
        for Pending { delivery, phase, answer } in pending {
            match answer.await.unwrap_or_else(|_| Err(self.unavailable())) {
                Ok(StepReply::Done(batch)) => {
                    crash::reach(Point::LeaseGranted);
                    tracing::info!(batch = %batch.id, %phase, worker_id = request.worker_id, "an attempt was leased");
                    leased.push(Leased { batch, phase, command: delivery.message().clone() });
                    delivery.acknowledge();
                }
                Ok(StepReply::Duplicate | StepReply::Answered(_) | StepReply::Replayed(_)) => delivery.acknowledge(),
                Err(Error::Rejected(rejected)) => {
                    tracing::info!(batch = delivery.message().key, %phase, %rejected, "a command was out of date");
                    delivery.acknowledge();
                }
                Err(error) => {
                    self.reject(delivery, &error.to_string()).await;
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) if leased.is_empty() => Err(error),
            Some(_) | None => Ok(leased),
        }
    }

    /// Hands the grant of a command to its partition. A command that nobody can read is the error.
    async fn send_grant(
        &self,
        request: &LeaseRequest,
        phase: Phase,
        delivery: &Delivery,
    ) -> Result<oneshot::Receiver<Result<StepReply, Error>>, String> {
        let message = delivery.message();
        let command: Command = serde_json::from_slice(&message.body).map_err(|error| error.to_string())?;
        let batch: BatchId = command.data.entity_id.parse().map_err(|_| "it names no batch".to_owned())?;
        let lease =
            NewLease { worker_id: request.worker_id.clone(), token: Uuid::new_v4(), lease_ms: request.lease_ms };
        let input = Input::PhaseLeased { phase, attempt: command.metadata.attempt, lease };
        let (group, sequence) = (delivery.group(), delivery.sequence());
        let cause = Cause::Command { group, sequence, key: Key::of(group.service(), message) };
        let (reply, answer) = oneshot::channel();
        let submission = Submission::new(input, command.correlation_id);
        let request = Request::Step(Box::new(StepRequest { batch, submission, cause, reply }));
        // Where there is no partition any more, the answer says so.
        let _ = self.partition_of(batch.0.as_bytes()).send(request).await;
        Ok(answer)
    }
}
