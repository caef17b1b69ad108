//! Dead letters: what consumers refuse for good is kept, and comes again when somebody says so.

use tokio::sync::oneshot;

use super::once::{RequestKey, Reservation};
use super::partition::Partition;
use super::request::{Request, Settlement};
use super::{Answer, Engine, Error};
use crate::bus::Delivery;
use crate::contract::idempotency::Key;
use crate::contract::{Group, Message, Topic};
use crate::domain::{DeadLetter, Decision, LetterId, LetterState};
use crate::store::{self, Commit};

/// After so many deliveries without success a message becomes a dead letter. With the waits between them that takes
/// some five minutes.
pub const MAX_DELIVERIES: u32 = 16;

/// How many letters are looked at for one page, at the most.
const MAX_EXAMINED: usize = 2_000;

/// How many letters are read at once.
const BITE: usize = 64;

/// The most letters that one request decides about.
pub const MAX_DECISIONS: usize = 200;

/// What becomes of the letters that a request names.
pub type Decided = Vec<(LetterId, Result<DeadLetter, Undecided>)>;

/// Why nothing was decided about a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecided {
    /// There is no such letter.
    Missing,
    /// It is not open any more.
    Closed(LetterState),
}

/// What a decision about letters came to.
#[derive(Debug)]
pub enum Decisions {
    /// This, with its answer.
    Made(Decided, Answer),
    /// It had been made before, with this answer.
    Repeated(Answer),
}

/// A decision about letters.
pub(super) struct LetterRequest {
    ids: Vec<LetterId>,
    by: String,
    decision: Decision,
    render: Render,
    once: Option<(RequestKey, Reservation)>,
    pub(super) reply: oneshot::Sender<Result<Decisions, Error>>,
}

/// Makes the answer out of what was decided.
type Render = Box<dyn FnOnce(&Decided) -> Answer + Send>;

/// A message that could not be handled.
pub(super) struct Refusal {
    pub(super) group: Group,
    pub(super) message: Message,
    pub(super) error: String,
    pub(super) deliveries: u32,
}

/// Which letters to list. Nothing set lists all.
#[derive(Debug, Clone, Default)]
pub struct LetterFilter {
    /// Where they stand.
    pub state: Option<LetterState>,
    /// The topic of their message.
    pub topic: Option<Topic>,
}

impl Engine {
    /// Gives back a message that could not be handled this time: it comes again, unless it has come often enough.
    pub async fn reject(&self, delivery: Delivery, error: &str) {
        if delivery.count() < MAX_DELIVERIES || self.failed().is_cancelled() || self.stopping().is_cancelled() {
            delivery.reject(error);
        } else {
            self.refuse(delivery, error).await;
        }
    }

    /// Consumes a message that cannot be handled: it keeps its key, and becomes a dead letter.
    pub async fn refuse(&self, delivery: Delivery, error: &str) {
        let (group, message) = (delivery.group(), delivery.message().clone());
        let key = Key::of(group.service(), &message);
        let identity = key.hash;
        let refusal = Refusal { group, message, error: error.to_owned(), deliveries: delivery.count() };
        let consumed = Some((group, delivery.sequence(), key));
        let settlement = Settlement { consumed, refusal: Some(refusal), ..Settlement::of(Commit::new()) };
        match self.settle(&identity, settlement).await {
            Ok(()) => delivery.acknowledge(),
            Err(unavailable) => delivery.reject(&unavailable.to_string()),
        }
    }

    /// The dead letter of this id.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn dead_letter(&self, id: LetterId) -> Result<Option<DeadLetter>, Error> {
        let store = self.shared.store.clone();
        self.read(move || store.letter(id)).await
    }

    /// Dead letters that `filter` lets through, the newest first, behind `after` where there is one, at most `limit`;
    /// and the letter behind which the next page begins.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn dead_letters(
        &self,
        filter: LetterFilter,
        mut after: Option<LetterId>,
        limit: usize,
    ) -> Result<(Vec<DeadLetter>, Option<LetterId>), Error> {
        let store = self.shared.store.clone();
        let page = self.read(move || {
            let (mut found, mut examined) = (Vec::new(), 0);
            while examined < MAX_EXAMINED {
                let letters = store.letters(after, BITE)?;
                if letters.is_empty() {
                    return Ok((found, None));
                }
                for letter in letters {
                    (after, examined) = (Some(letter.id), examined + 1);
                    let fits = filter.state.is_none_or(|state| letter.state() == state)
                        && filter.topic.is_none_or(|topic| letter.message.topic == topic);
                    if fits {
                        found.push(letter);
                    }
                    if found.len() == limit {
                        let has_more = !store.letters(after, 1)?.is_empty();
                        return Ok((found, after.filter(|_| has_more)));
                    }
                }
            }
            Ok((found, after))
        });
        page.await
    }

    /// Decides about dead letters, and says what came of it once it is durable, with the answer that `render` makes of
    /// it. Where nothing could be decided the answer is not kept for repetitions.
    ///
    /// # Errors
    /// [`Error::KeyReused`], [`Error::KeyInFlight`] and [`Error::Unavailable`].
    pub async fn decide(
        &self,
        ids: Vec<LetterId>,
        by: String,
        decision: Decision,
        key: Option<RequestKey>,
        render: impl FnOnce(&Decided) -> Answer + Send + 'static,
    ) -> Result<Decisions, Error> {
        let once = match key {
            Some(key) => Some((key, self.shared.in_flight.reserve(key).ok_or(Error::KeyInFlight)?)),
            None => None,
        };
        let (reply, answer) = oneshot::channel();
        let request = LetterRequest { ids, by, decision, render: Box::new(render), once, reply };
        // One partition decides about all of them, so that no two decide about the same.
        let partition = self.partition_of(b"dead letters");
        partition.try_send(Request::Letters(Box::new(request))).map_err(|error| self.refused(&error))?;
        answer.await.map_err(|_| self.unavailable())?
    }
}

impl Partition {
    /// Keeps a message that was refused, as the letter that it became before where it did.
    pub(super) fn bury(&self, commit: &mut Commit, key: &Key, refusal: Refusal) -> Result<(), store::Error> {
        let Refusal { group, message, error, deliveries } = refusal;
        let now = self.clock.now();
        let letter = self.store.letter_of_message(group, key)?.unwrap_or_else(|| {
            let mut random = [0; 10];
            random.copy_from_slice(&key.hash[..10]);
            let id = uuid::Builder::from_unix_timestamp_millis(now.0, &random).into_uuid();
            DeadLetter::new(LetterId(id), group, message)
        });
        commit.put_letter(key, &letter.refused(now, &error, deliveries))
    }

    /// Decides about letters: the answer, whether it is a repetition, and what to commit first.
    pub(super) fn decide(&self, request: LetterRequest) -> LetterAnswer {
        let LetterRequest { ids, by, decision, render, once, reply } = request;
        let mut commit = Commit::new();
        let answer = || {
            if let Some((key, _)) = &once
                && let Some(earlier) = key.earlier_answer(&self.store, self.clock.now())?
            {
                return Ok(Decisions::Repeated(earlier));
            }
            let mut decided: Decided = Vec::with_capacity(ids.len());
            for id in ids {
                // What is named twice is decided about once.
                if decided.iter().any(|(earlier, _)| *earlier == id) {
                    continue;
                }
                decided.push((id, self.decide_about(&mut commit, id, by.clone(), decision)?));
            }
            let answer = render(&decided);
            if let Some((key, _)) = &once
                && decided.iter().any(|(_, result)| result.is_ok())
            {
                self.keep(&mut commit, *key, &answer)?;
            }
            Ok(Decisions::Made(decided, answer))
        };
        let answer = answer();
        if answer.is_err() {
            commit = Commit::new();
        }
        LetterAnswer { commit, answer, reservation: once.map(|(_, reservation)| reservation), reply }
    }

    fn decide_about(
        &self,
        commit: &mut Commit,
        id: LetterId,
        by: String,
        decision: Decision,
    ) -> Result<Result<DeadLetter, Undecided>, store::Error> {
        let Some(letter) = self.store.letter(id)? else { return Ok(Err(Undecided::Missing)) };
        let state = letter.state();
        let Some(letter) = letter.decided(self.clock.now(), by, decision) else {
            return Ok(Err(Undecided::Closed(state)));
        };
        let key = Key::of(letter.group.service(), &letter.message);
        commit.put_letter(&key, &letter)?;
        match decision {
            Decision::Redrive => {
                // Its key is free again, or it would only be known as handled before.
                if let Some(expires) = self.store.key_expiry(letter.group, &key)? {
                    commit.free_key(letter.group, &key, expires);
                }
                commit.publish_to(letter.group, letter.message.clone())?;
            }
            Decision::Discard => {}
        }
        Ok(Ok(letter))
    }
}

/// What a partition has to commit and then to say about letters.
pub(super) struct LetterAnswer {
    pub(super) commit: Commit,
    pub(super) answer: Result<Decisions, Error>,
    pub(super) reservation: Option<Reservation>,
    pub(super) reply: oneshot::Sender<Result<Decisions, Error>>,
}
