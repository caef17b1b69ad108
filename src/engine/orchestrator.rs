//! The orchestrator's consumer: messages become steps.

use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use super::request::{Cause, Request, Settlement, StepReply, StepRequest};
use super::{Counters, Engine, Error, Submission, inbound};
use crate::bus::{Delivery, Subscription};
use crate::contract::Group;
use crate::contract::idempotency::Key;
use crate::store::Commit;

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
        let answer = match send(&engine, &delivery).await {
            Ok(answer) => answer,
            Err(error) => {
                delivery.reject(&error.to_string());
                continue;
            }
        };
        engine.spawn(async move {
            settle(delivery, answer).await;
            drop(place);
        });
    }
}

enum Pending {
    Step(oneshot::Receiver<Result<StepReply, Error>>),
    Refusal(oneshot::Receiver<Result<(), Error>>),
}

async fn send(engine: &Engine, delivery: &Delivery) -> Result<Pending, Error> {
    let message = delivery.message();
    let (group, sequence) = (delivery.group(), delivery.sequence());
    let key = Key::of(group.service(), message);
    let (partition, request, pending) = match inbound::read(message) {
        Ok(inbound::Inbound { batch, input, correlation_id, origin }) => {
            let (reply, answer) = oneshot::channel();
            let cause = Cause::Message { group, sequence, key };
            let request = StepRequest {
                batch,
                submission: Submission::new(input, correlation_id).from_origin(origin),
                cause,
                reply,
            };
            (engine.partition_of(batch.0.as_bytes()), Request::Step(Box::new(request)), Pending::Step(answer))
        }
        Err(unreadable) => {
            tracing::warn!(topic = %message.topic, key = %message.key, %unreadable, "a message was refused");
            Counters::add(&engine.counters().refused_messages);
            let (reply, answer) = oneshot::channel();
            let partition = engine.partition_of(&key.hash);
            let consumed = Some((group, sequence, key));
            let settlement = Settlement { consumed, reply: Some(reply), ..Settlement::of(Commit::new()) };
            (partition, Request::Settle(Box::new(settlement)), Pending::Refusal(answer))
        }
    };
    partition.send(request).await.map_err(|_| engine.unavailable())?;
    Ok(pending)
}

async fn settle(delivery: Delivery, pending: Pending) {
    let message = delivery.message();
    let result = match pending {
        Pending::Step(answer) => match answer.await {
            Ok(Ok(StepReply::Done(_) | StepReply::Answered(_) | StepReply::Replayed(_))) => Ok(()),
            Ok(Ok(StepReply::Duplicate)) => {
                tracing::debug!(topic = %message.topic, key = %message.key, "a message had been handled before");
                Ok(())
            }
            Ok(Err(Error::Rejected(rejected))) => {
                tracing::warn!(topic = %message.topic, key = %message.key, %rejected, "a message was refused");
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the partition ended".to_owned()),
        },
        Pending::Refusal(answer) => match answer.await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("the partition ended".to_owned()),
        },
    };
    match result {
        Ok(()) => delivery.acknowledge(),
        Err(reason) => delivery.reject(&reason),
    }
}
