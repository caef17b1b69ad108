//! Groups of readers of the log of events: each has a place, which only an acknowledgement moves.
//!
//! One partition owns all of them, so that their changes are in order: it reads them once, and from then on what it
//! remembers is what is stored or on its way there.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::partition::Partition;
use super::request::Request;
use super::round::{Answer, Round};
use super::{Engine, Error};
use crate::domain::{EventGroup, EventId, GroupPlace};
use crate::store::{self, Commit};

/// What came of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// The group's place now. It never moves back.
    At(GroupPlace),
    /// There is no such group.
    NoGroup,
    /// The event is not of this log, or there has not been such an event yet.
    NoEvent,
}

/// Something about groups.
pub(super) struct GroupRequest {
    question: Question,
    reply: oneshot::Sender<Result<Reply, Error>>,
}

enum Question {
    Open { group: EventGroup, after: EventId },
    Acknowledge { group: EventGroup, id: EventId },
    Forget { group: EventGroup },
    List,
}

enum Reply {
    Opened(Option<GroupPlace>),
    Acknowledged(Acknowledged),
    Forgotten(bool),
    All(Vec<(EventGroup, GroupPlace)>),
}

/// The groups, as the partition that owns them knows them; nothing as long as nobody asked.
#[derive(Default)]
pub(super) struct Groups(Option<BTreeMap<EventGroup, GroupPlace>>);

impl Engine {
    /// The place of `group`. A new group begins behind `after`, and is durable when this answers. None where there are
    /// as many groups as there can be.
    ///
    /// # Errors
    /// [`Error::Overloaded`] and [`Error::Unavailable`].
    pub async fn open_event_group(&self, group: EventGroup, after: EventId) -> Result<Option<GroupPlace>, Error> {
        match self.ask_groups(Question::Open { group, after }).await? {
            Reply::Opened(place) => Ok(place),
            Reply::Acknowledged(_) | Reply::Forgotten(_) | Reply::All(_) => Err(self.unavailable()),
        }
    }

    /// Moves `group` behind `id`: everything up to and with it was taken. Answered once that is durable.
    ///
    /// # Errors
    /// As [`Engine::open_event_group`].
    pub async fn acknowledge_event(&self, group: EventGroup, id: EventId) -> Result<Acknowledged, Error> {
        // Events that there are stay, so what is refused here was never there.
        let exists = self.newest_event().is_some_and(|newest| newest.log == id.log && id.sequence <= newest.sequence);
        if !exists {
            return Ok(Acknowledged::NoEvent);
        }
        match self.ask_groups(Question::Acknowledge { group, id }).await? {
            Reply::Acknowledged(acknowledged) => Ok(acknowledged),
            Reply::Opened(_) | Reply::Forgotten(_) | Reply::All(_) => Err(self.unavailable()),
        }
    }

    /// Forgets `group`, and says whether there was one.
    ///
    /// # Errors
    /// As [`Engine::open_event_group`].
    pub async fn forget_event_group(&self, group: EventGroup) -> Result<bool, Error> {
        match self.ask_groups(Question::Forget { group }).await? {
            Reply::Forgotten(was_there) => Ok(was_there),
            Reply::Opened(_) | Reply::Acknowledged(_) | Reply::All(_) => Err(self.unavailable()),
        }
    }

    /// Every group, by name, with its place.
    ///
    /// # Errors
    /// As [`Engine::open_event_group`].
    pub async fn event_groups(&self) -> Result<Vec<(EventGroup, GroupPlace)>, Error> {
        match self.ask_groups(Question::List).await? {
            Reply::All(groups) => Ok(groups),
            Reply::Opened(_) | Reply::Acknowledged(_) | Reply::Forgotten(_) => Err(self.unavailable()),
        }
    }

    async fn ask_groups(&self, question: Question) -> Result<Reply, Error> {
        let (reply, answer) = oneshot::channel();
        let partition = self.partition_of(b"event groups");
        let request = Request::Groups(Box::new(GroupRequest { question, reply }));
        partition.try_send(request).map_err(|error| self.refused(&error))?;
        answer.await.map_err(|_| self.unavailable())?
    }
}

impl Partition {
    pub(super) fn groups(&mut self, round: &mut Round, request: GroupRequest) {
        let GroupRequest { question, reply } = request;
        match self.try_groups(round, question) {
            Ok(answer) => round.answers.push(Answer::told(reply, answer)),
            Err(error) => {
                // Whoever asked may have gone away.
                let _ = reply.send(Err(error.into()));
            }
        }
    }

    fn try_groups(&mut self, round: &mut Round, question: Question) -> Result<Reply, store::Error> {
        let now = self.clock.now();
        let groups = match &mut self.event_groups.0 {
            Some(groups) => groups,
            unknown => unknown.insert(self.store.event_groups()?.into_iter().collect()),
        };
        // Remembered only once it can be stored.
        let mut put = |groups: &mut BTreeMap<_, _>, group: EventGroup, place: GroupPlace| {
            let mut commit = Commit::new();
            commit.put_event_group(&group, &place)?;
            round.commit.append(commit);
            groups.insert(group, place);
            Ok::<_, store::Error>(place)
        };
        Ok(match question {
            Question::Open { group, after } => Reply::Opened(match groups.get(&group) {
                Some(place) => Some(*place),
                None if groups.len() >= EventGroup::MAX => None,
                None => Some(put(groups, group, GroupPlace { after, moved_at: now })?),
            }),
            Question::Acknowledge { group, id } => Reply::Acknowledged(match groups.get(&group) {
                None => Acknowledged::NoGroup,
                Some(place) if place.after.log == id.log && place.after.sequence >= id.sequence => {
                    Acknowledged::At(*place)
                }
                Some(_) => Acknowledged::At(put(groups, group, GroupPlace { after: id, moved_at: now })?),
            }),
            Question::Forget { group } => {
                let was_there = groups.remove(&group).is_some();
                if was_there {
                    round.commit.remove_event_group(&group);
                }
                Reply::Forgotten(was_there)
            }
            Question::List => Reply::All(groups.iter().map(|(group, place)| (group.clone(), *place)).collect()),
        })
    }
}
