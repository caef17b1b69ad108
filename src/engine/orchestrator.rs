//! The orchestrator's consumer: messages become steps.

use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use super::request::{Cause, Request, StepReply, StepRequest};
use super::{Engine, Error, Submission, inbound};
use crate::bus::{Delivery, Subscription};
use crate::contract::Group;
use crate::contract::idempotency::Key;
use crate::crash::{self, Point};

/// How many messages may be on their way through the partitions at once.
const MAX_IN_FLIGHT: usize = 512;

pub(super) fn start(engine: &Engine) {
    let handle = engine.clone();
    match engine.bus().subscribe(Group::Orchestrator) {
        Ok(subscription) => engine.spawn_core(run(handle, subscription)),
        Err(error) => unreachable!("the engine makes its bus and is its first subscriber: {error}"),
    }
}

async fn run(engine: Engine, mut subscription: Subscription) {
    let places = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    while let Some(delivery) = subscription.next().await {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        // Sent to the partition here, one after the other, so that messages of one batch keep their order; only the
        // answers are waited for side by side.
        crash::reach(Point::ConsumeTaken);
        let pending = send(&engine, asked(&delivery)).await;
        let handle = engine.clone();
        engine.spawn(async move {
            settle(&handle, delivery, pending).await;
            drop(place);
        });
    }
}

/// What came of handing a message to its partition.
pub(super) enum Pending {
    Step(oneshot::Receiver<Result<StepReply, Error>>),
    /// It says nothing that could be done.
    Unreadable(inbound::Unreadable),
    /// There is no partition any more.
    Gone,
}

/// A step that is to be asked for, and where its answer comes.
type Asked = (StepRequest, oneshot::Receiver<Result<StepReply, Error>>);

/// The step that a message asks for, with what it uses up.
pub(super) fn step_of(inbound: inbound::Inbound, cause: Cause) -> Asked {
    let inbound::Inbound { batch, input, correlation_id, origin } = inbound;
    let (reply, answer) = oneshot::channel();
    let submission = Submission::new(input, correlation_id).from_origin(origin);
    (StepRequest { batch, submission, cause, reply }, answer)
}

/// Hands a step to its partition.
pub(super) async fn send(engine: &Engine, step: Result<Asked, inbound::Unreadable>) -> Pending {
    let (request, answer) = match step {
        Ok(asked) => asked,
        Err(unreadable) => return Pending::Unreadable(unreadable),
    };
    let partition = engine.partition_of(request.batch.0.as_bytes());
    match partition.send(Request::Step(Box::new(request))).await {
        Ok(()) => Pending::Step(answer),
        Err(_) => Pending::Gone,
    }
}

/// What a delivered message asks for.
fn asked(delivery: &Delivery) -> Result<Asked, inbound::Unreadable> {
    let inbound = inbound::read(delivery.message())?;
    let message = delivery.message().clone();
    let (group, sequence, deliveries) = (delivery.group(), delivery.sequence(), delivery.count());
    let key = Key::of(group.service(), &message);
    Ok(step_of(inbound, Cause::Message { group, sequence, key, message, deliveries }))
}

/// Waits for what came of it, and lets go of the message.
pub(super) async fn settle(engine: &Engine, delivery: Delivery, pending: Pending) {
    let (topic, key) = (delivery.message().topic, delivery.message().key.clone());
    match pending {
        Pending::Step(answer) => match answer.await {
            Ok(Ok(StepReply::Done(_) | StepReply::Answered(_) | StepReply::Replayed(_))) => {
                crash::reach(Point::Acknowledge);
                delivery.acknowledge();
            }
            Ok(Ok(StepReply::Duplicate)) => {
                tracing::debug!(%topic, key, "a message had been handled before");
                delivery.acknowledge();
            }
            Ok(Err(Error::Rejected(rejected))) => {
                tracing::warn!(%topic, key, %rejected, "a message was refused");
                delivery.acknowledge();
            }
            Ok(Err(error)) => engine.reject(delivery, &error.to_string()).await,
            Err(_) => delivery.reject("the partition ended"),
        },
        Pending::Unreadable(unreadable) => {
            tracing::warn!(%topic, key, %unreadable, "a message was refused");
            engine.refuse(delivery, &unreadable.to_string()).await;
        }
        Pending::Gone => delivery.reject("the partition ended"),
    }
}
