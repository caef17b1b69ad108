//! What consumers and other senders of messages ask of the engine.

use tokio::sync::oneshot;

use super::request::{Cause, Claim, Request, Settlement};
use super::{Engine, Error, content_id, inbound, notices, orchestrator};
use crate::bus::Delivery;
use crate::contract::events::BatchPhaseOutcome;
use crate::contract::idempotency::Key;
use crate::contract::{Envelope, Message, Topic};
use crate::crash::{self, Point};
use crate::store::Commit;

impl Engine {
    /// Publishes a message of somebody else's: it lies in the outbox of its groups when this answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn publish(&self, message: Message) -> Result<(), Error> {
        let key = message.key.clone();
        let notices = notices::foreign(&message).into_iter().collect();
        let mut commit = Commit::new();
        commit.publish(message)?;
        self.settle(key.as_bytes(), Settlement { notices, ..Settlement::of(commit) }).await
    }

    /// Takes a delivered message for handling outside of a step: the key of a message that is being handled, or was,
    /// is not given out again.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn claim(&self, delivery: &Delivery) -> Result<Claim, Error> {
        let key = Key::of(delivery.group().service(), delivery.message());
        let (reply, answer) = oneshot::channel();
        let partition = self.partition_of(&key.hash);
        let request = Request::Claim { group: delivery.group(), key, reply };
        partition.send(request).await.map_err(|_| self.unavailable())?;
        answer.await.map_err(|_| self.unavailable())?
    }

    /// Gives back a claim whose handler failed, so that the next delivery is handled.
    pub async fn release(&self, delivery: &Delivery) {
        let key = Key::of(delivery.group().service(), delivery.message());
        let request = Request::Release { group: delivery.group(), key: key.clone() };
        // Where there is no partition any more, there is no claim either.
        let _ = self.partition_of(&key.hash).send(request).await;
    }

    /// Consumes a command together with the outcome of its attempt, and stores the texts that this made: one step, as if
    /// the outcome had come by the bus, and whoever watches sees it so. A command that was handled before is used up, and
    /// so is one whose attempt is over.
    pub async fn conclude(&self, delivery: Delivery, outcome: Envelope<BatchPhaseOutcome>, contents: Vec<String>) {
        let shown = Message::new(Topic::ElsBatchPhaseOutcome, outcome.data.batch_id.clone(), &outcome);
        let shown = match shown {
            Ok(shown) => shown,
            Err(error) => return self.reject(delivery, &error.to_string()).await,
        };
        let (group, sequence) = (delivery.group(), delivery.sequence());
        let cause = Cause::Command { group, sequence, key: Key::of(group.service(), delivery.message()) };
        let step = inbound::phase_outcome(outcome).map(|inbound| {
            let (mut request, answer) = orchestrator::step_of(inbound, cause);
            request.submission.contents = contents;
            request.submission.shown = Some(shown);
            (request, answer)
        });
        let pending = orchestrator::send(self, step).await;
        orchestrator::settle(self, delivery, pending).await;
    }

    /// Consumes a claimed message: its key is completed, and what its handler made is published and stored, at once.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; the message comes again then.
    pub async fn finish(&self, delivery: Delivery, publish: Vec<Message>, contents: Vec<String>) -> Result<(), Error> {
        let key = Key::of(delivery.group().service(), delivery.message());
        let mut commit = Commit::new();
        let notices = publish.iter().filter_map(notices::foreign).collect();
        publish.into_iter().try_for_each(|message| commit.publish(message))?;
        let batch = delivery.message().key.parse();
        for text in &contents {
            commit.put_content(text);
            // The outcome that names the text comes later, and the text stays until then.
            if let Ok(batch) = batch {
                commit.refer_to(&content_id(text), batch);
            }
        }
        let identity = key.hash;
        let consumed = Some((delivery.group(), delivery.sequence(), key));
        self.settle(&identity, Settlement { consumed, notices, ..Settlement::of(commit) }).await?;
        crash::reach(Point::Acknowledge);
        delivery.acknowledge();
        Ok(())
    }

    /// Stores a text: it is durable under the id that this answers, whether or not it was there before.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn store_content(&self, text: &str) -> Result<String, Error> {
        let storage_id = content_id(text);
        let mut commit = Commit::new();
        commit.put_content(text);
        self.settle(storage_id.as_bytes(), Settlement::of(commit)).await?;
        Ok(storage_id)
    }

    /// Commits what is no step of a batch, on the partition of `identity`.
    pub(super) async fn settle(&self, identity: &[u8], mut settlement: Settlement) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        settlement.reply = Some(reply);
        self.partition_of(identity)
            .send(Request::Settle(Box::new(settlement)))
            .await
            .map_err(|_| self.unavailable())?;
        answer.await.map_err(|_| self.unavailable())?
    }
}
