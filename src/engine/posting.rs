//! Messages of other services, that come in through the gateway: each is published once.

use tokio::sync::oneshot;

use super::notices::{self, Whom};
use super::partition::Partition;
use super::request::Request;
use super::round::{Answer, Round};
use super::{Engine, Error};
use crate::contract::idempotency::{self, Key};
use crate::contract::{Group, Message, Notice, services};
use crate::store::{self, Commit};

/// What became of a message that was posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// It is published.
    New,
    /// It had been before.
    Duplicate,
}

/// A message to publish, if it was not before.
pub(super) struct PostRequest {
    key: Key,
    message: Message,
    /// What a user is told by it.
    notice: Option<(Whom, Notice)>,
    reply: oneshot::Sender<Result<Posted, Error>>,
}

impl Engine {
    /// Whether anybody here hears of a message like this one: a consumer, or readers of the log.
    #[must_use]
    pub fn hears(&self, message: &Message) -> bool {
        self.has_event_log() || is_for_orchestrator(message)
    }

    /// Publishes a message of another service, and says so once that is durable. One with an event id that was posted
    /// before, to the same topic and as long ago as its consumers would know it, is published no second time. What the
    /// orchestrator consumes goes to it; everything else goes to the log alone, commands to workers too, which are the
    /// orchestrator's to give.
    ///
    /// # Errors
    /// [`Error::Overloaded`] and [`Error::Unavailable`].
    pub async fn post(&self, message: Message) -> Result<Posted, Error> {
        let key = Key::of(services::GATEWAY, &message);
        let notice = notices::foreign(&message);
        let (reply, answer) = oneshot::channel();
        // One partition decides about each event id, so that no two are published at once.
        let partition = self.partition_of(&key.hash);
        let request = Request::Post(Box::new(PostRequest { key, message, notice, reply }));
        partition.try_send(request).map_err(|error| self.refused(&error))?;
        answer.await.map_err(|_| self.unavailable())?
    }
}

fn is_for_orchestrator(message: &Message) -> bool {
    Group::of(message.topic).contains(&Group::Orchestrator)
}

impl Partition {
    pub(super) fn post(&mut self, round: &mut Round, request: PostRequest) {
        let PostRequest { key, message, notice, reply } = request;
        let posted = match self.try_post(round, key, message) {
            Ok(posted) => posted,
            Err(error) => {
                // Whoever asked may have gone away.
                let _ = reply.send(Err(error.into()));
                return;
            }
        };
        if posted == Posted::New {
            round.notices.extend(notice);
        }
        round.answers.push(Answer::told(reply, posted));
    }

    fn try_post(&mut self, round: &mut Round, key: Key, message: Message) -> Result<Posted, store::Error> {
        let now = self.clock.now();
        // The service in the key tells the gateway's keys from the orchestrator's own.
        let is_known = self.is_on_its_way(Group::Orchestrator, &key)
            || self.store.posted_expiry(&key)?.is_some_and(|expires| expires > now);
        if is_known {
            return Ok(Posted::Duplicate);
        }
        let mut commit = Commit::new();
        let is_consumed = is_for_orchestrator(&message);
        if is_consumed { commit.publish(message) } else { commit.announce(message) }?;
        commit.mark_posted(&key, now.plus(idempotency::completed_ttl_s(key.topic) * 1_000));
        round.commit.append(commit);
        self.complete(round, Group::Orchestrator, key);
        Ok(Posted::New)
    }
}
