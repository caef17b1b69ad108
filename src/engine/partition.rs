//! A partition: the one thread that steps the batches it owns.
//!
//! It takes all requests that wait, steps them one after the other on records it keeps at hand, commits everything they
//! came to at once, and answers after that. While it waits for the disk the next requests gather, so the more there
//! are, the more of them share a flush. A refused request is answered at the same time as the others, because the
//! record that refused it may not be durable yet.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::cache::Cache;
use super::letters::{LetterAnswer, LetterRequest, Refusal};
use super::once::{KEPT_MS, Once, RequestKey, Reservation};
use super::request::{Cause, Claim, Kept, Question, Reader, Request, Settlement, StepReply, StepRequest};
use super::rest::{self, Waiting};
use super::timers::Timers;
use super::{Counters, Error, Submission, publish};
use crate::bus::{Bus, Recall};
use crate::clock::Clock;
use crate::contract::Group;
use crate::contract::idempotency::{self, Key};
use crate::crash::{self, Point};
use crate::domain::{
    Batch, BatchId, Context, Effect, Input, LateOutcome, MemberOutcome, MemberResult, Millis, Rejected, Rules, Step,
    step,
};
use crate::store::{self, Commit, Sequence, Store, StoredAnswer};

/// The most requests that are stepped before they are committed.
const MAX_ROUND: usize = 256;

pub(super) struct Partition {
    pub(super) store: Store,
    pub(super) clock: Clock,
    up_since: Millis,
    rules: Rules,
    timers: Timers,
    bus: Arc<Bus>,
    counters: Arc<Counters>,
    pub(super) cache: Cache,
    /// Keys in the state `processing`, with when that ends. They live in memory: the only one who could hold such a key
    /// is this process, and when it dies its keys are free at once.
    claims: HashMap<(Group, Key), Millis>,
    waiting: Waiting,
}

/// What has been stepped and not yet committed.
#[derive(Default)]
struct Round {
    commit: Commit,
    records: HashMap<BatchId, Arc<Batch>>,
    completed: HashSet<(Group, Key)>,
    due: Vec<Millis>,
    recalls: Vec<Recall>,
    /// Keys of requests whose change is not durable yet.
    reservations: Vec<Reservation>,
    answers: Vec<Answer>,
    questions: Vec<(BatchId, Question)>,
}

enum Answer {
    Step(oneshot::Sender<Result<StepReply, Error>>, Result<StepReply, Error>),
    Settle(oneshot::Sender<Result<(), Error>>),
}

impl Partition {
    pub(super) fn new(
        store: Store,
        clock: Clock,
        (rules, up_since): (Rules, Millis),
        (timers, bus): (Timers, Arc<Bus>),
        counters: Arc<Counters>,
    ) -> Self {
        let (cache, claims, waiting) = (Cache::new(), HashMap::new(), Waiting::default());
        Self { store, clock, up_since, rules, timers, bus, counters, cache, claims, waiting }
    }

    /// Serves requests until it is told to stop, and says whether that is why it ended. A store that failed ends it.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) -> bool {
        let mut waiting = Vec::with_capacity(MAX_ROUND);
        loop {
            if requests.blocking_recv_many(&mut waiting, MAX_ROUND) == 0 {
                return true;
            }
            let mut round = Round::default();
            let mut is_last = false;
            let mut committed = Ok(());
            for request in waiting.drain(..) {
                is_last |= matches!(request, Request::Stop);
                match request {
                    // These read what the round is about to write, so that is written first.
                    Request::Letters(request) => {
                        committed = committed.and(self.finish(std::mem::take(&mut round)));
                        committed = committed.and(self.decide_and_commit(*request));
                    }
                    Request::Forget { batches, reply } => {
                        committed = committed.and(self.finish(std::mem::take(&mut round)));
                        let forgotten = self.forget_and_commit(batches);
                        committed = committed.and(forgotten.clone().map(drop));
                        // The sweep may have ended.
                        let _ = reply.send(forgotten);
                    }
                    request => self.take(&mut round, request),
                }
            }
            if let Err(error) = committed.and(self.finish(round)) {
                tracing::error!(%error, "a commit failed; this partition ends");
                return false;
            }
            if is_last {
                return true;
            }
        }
    }

    fn take(&mut self, round: &mut Round, request: Request) {
        match request {
            Request::Step(request) => self.step(round, *request),
            Request::Query { batch, run } if round.records.contains_key(&batch) => round.questions.push((batch, run)),
            Request::Query { batch, run } => self.answer(batch, run),
            Request::Rest { batch, reply } if round.records.contains_key(&batch) => self.waiting.add(batch, reply),
            Request::Rest { batch, reply } => self.wait_for_rest(batch, reply),
            Request::Claim { group, key, reply } => {
                // Whoever asked may have gone away; then its claim ends with its time.
                let _ = reply.send(self.claim(round, group, key));
            }
            Request::Release { group, key } => {
                self.claims.remove(&(group, key));
            }
            Request::Settle(settlement) => self.settle(round, *settlement),
            Request::Letters(_) | Request::Forget { .. } | Request::Stop => {}
        }
    }

    fn wait_for_rest(&mut self, batch: BatchId, reply: rest::Reply) {
        match self.durable_record(batch) {
            Ok(Some(record)) if !rest::rests(&record) => self.waiting.add(batch, reply),
            answer => {
                // Whoever asked may have gone away.
                let _ = reply.send(answer.map(drop).map_err(Error::from));
            }
        }
    }

    fn forget_and_commit(&mut self, batches: Vec<(BatchId, Millis)>) -> Result<usize, Error> {
        let (commit, count) = self.forget(batches);
        self.finish(Round { commit, ..Round::default() })?;
        Ok(count)
    }

    fn decide_and_commit(&mut self, request: LetterRequest) -> Result<(), Error> {
        let LetterAnswer { commit, answer, reservation, reply } = self.decide(request);
        let committed = self.finish(Round { commit, ..Round::default() });
        drop(reservation);
        // Whoever asked may have gone away.
        let _ = reply.send(committed.clone().and(answer));
        committed
    }

    fn step(&mut self, round: &mut Round, request: StepRequest) {
        let StepRequest { batch, mut submission, cause, reply } = request;
        let contents = std::mem::take(&mut submission.contents);
        let late = self.late_outcome(&submission.input);
        let once = submission.once.take();
        if let Some(early) =
            once.as_ref().and_then(|once| once.key.earlier_answer(&self.store, self.clock.now()).transpose())
        {
            // Its key is free again before anybody is told.
            drop(once);
            // Whoever asked may have gone away. An answer that is found is durable, and nothing else comes of it.
            let _ = reply.send(early.map(StepReply::Replayed));
            return;
        }
        let answer = match self.try_step(round, batch, submission, once, &cause) {
            Ok(answer) => answer,
            Err(error) => {
                // Nothing of it is in the round, so it can be answered at once, and is not used up.
                let _ = reply.send(Err(error.into()));
                return;
            }
        };
        if let Ok(StepReply::Done(_) | StepReply::Answered(_)) = &answer {
            for text in &contents {
                round.commit.put_content(text);
            }
            Counters::add(&self.counters.steps);
        }
        if let (Err(Rejected::StaleAttempt { phase }), Some(late), Cause::Message { key, .. }) = (&answer, late, &cause)
        {
            Counters::add(&self.counters.late_outcomes);
            if let Err(error) = round.commit.record_late(batch, *phase, key, &late) {
                let _ = reply.send(Err(error.into()));
                return;
            }
        }
        if let Err(error) = self.use_up(round, batch, cause, &answer) {
            let _ = reply.send(Err(error.into()));
            return;
        }
        round.answers.push(Answer::Step(reply, answer.map_err(Error::from)));
    }

    /// What there is to record of an outcome, should it turn out to come too late.
    fn late_outcome(&self, input: &Input) -> Option<LateOutcome> {
        let Input::PhaseOutcome(outcome) = input else { return None };
        let (attempt, correlation_id) = (outcome.attempt, outcome.correlation_id);
        Some(LateOutcome { at: self.clock.now(), attempt, correlation_id, status: outcome.status })
    }

    /// Steps the batch and adds what came of it to the round. A store that cannot be read is the outer error.
    fn try_step(
        &mut self,
        round: &mut Round,
        id: BatchId,
        submission: Submission,
        once: Option<Once>,
        cause: &Cause,
    ) -> Result<Result<StepReply, Rejected>, store::Error> {
        let now = match cause {
            // Whoever sent it saw that it was due. The clock may have been set back since; the timer is used up now.
            Cause::Timer(timer) => self.clock.now().max(timer.due),
            Cause::Request | Cause::Message { .. } | Cause::Job { .. } => self.clock.now(),
        };
        if let Cause::Message { group, key, .. } = cause
            && self.is_completed(round, *group, key, now)?
        {
            return Ok(Ok(StepReply::Duplicate));
        }
        let old = self.record(round, id)?;
        let Submission { input, correlation_id, contents: _, versions, origin, once: _ } = submission;
        if let (Some(old), Some(versions)) = (&old, versions)
            && !versions.contains(&old.version)
        {
            return Ok(Err(Rejected::Moved { version: old.version }));
        }
        let context = Context { now, up_since: self.up_since, correlation_id, origin: &origin, rules: &self.rules };
        let Step { batch, effects } = match step(old.as_deref(), input, &context) {
            Ok(step) => step,
            Err(rejected) => return Ok(Err(rejected)),
        };
        if old.as_ref().is_some_and(|old| old.version == batch.version) {
            let mut commit = Commit::new();
            let reply = self.reply(&mut commit, &mut round.reservations, Arc::new(batch), once)?;
            round.commit.append(commit);
            return Ok(Ok(reply));
        }
        // Built apart, so that a step whose effects cannot be encoded leaves nothing in the round.
        let mut commit = Commit::new();
        let (mut due, mut recalls) = (Vec::new(), Vec::new());
        commit.put_batch(old.as_deref(), &batch)?;
        for (number, effect) in effects.into_iter().enumerate() {
            match effect {
                Effect::Publish(outgoing) => commit.publish(publish::message(&batch, number, *outgoing)?)?,
                Effect::RecordAttempt { phase, attempt } => commit.record_attempt(id, phase, &attempt)?,
                Effect::ArmTimer(timer) => {
                    commit.arm_timer(id, timer);
                    due.push(timer.due);
                }
                Effect::DisarmTimer(timer) => commit.disarm_timer(id, timer),
                Effect::Recall { phase, attempt } => recalls.push(Recall { batch: id, phase, attempt }),
            }
        }
        let batch = Arc::new(batch);
        let reply = self.reply(&mut commit, &mut round.reservations, Arc::clone(&batch), once)?;
        round.commit.append(commit);
        round.due.append(&mut due);
        round.recalls.append(&mut recalls);
        round.records.insert(id, batch);
        Ok(Ok(reply))
    }

    /// The answer to a step that was allowed; that of a request which named itself is committed with it.
    fn reply(
        &self,
        commit: &mut Commit,
        reservations: &mut Vec<Reservation>,
        batch: Arc<Batch>,
        once: Option<Once>,
    ) -> Result<StepReply, store::Error> {
        let Some(Once { key, render, reservation }) = once else { return Ok(StepReply::Done(batch)) };
        let answer = render(&batch);
        self.keep(commit, key, &answer)?;
        reservations.push(reservation);
        Ok(StepReply::Answered(answer))
    }

    /// Keeps the answer to the request of `key`.
    pub(super) fn keep(&self, commit: &mut Commit, key: RequestKey, answer: &StoredAnswer) -> Result<(), store::Error> {
        let answer = StoredAnswer { fingerprint: key.fingerprint, ..answer.clone() };
        commit.keep_answer(&key.hash, &answer, self.clock.now().plus(KEPT_MS))
    }

    /// Uses up what caused a step. A message that was refused is used up too, and keeps its key: it would be refused
    /// again.
    fn use_up(
        &self,
        round: &mut Round,
        batch: BatchId,
        cause: Cause,
        answer: &Result<StepReply, Rejected>,
    ) -> Result<(), store::Error> {
        match cause {
            Cause::Request => {}
            Cause::Timer(timer) => round.commit.disarm_timer(batch, timer),
            Cause::Job { job, place, phase, mut member } => {
                let what = match answer {
                    Ok(StepReply::Done(batch)) => MemberResult::of(phase, Ok(batch)),
                    Err(rejected) => MemberResult::of(phase, Err(rejected)),
                    // It has no key, so it cannot be a repetition.
                    Ok(StepReply::Duplicate | StepReply::Answered(_) | StepReply::Replayed(_)) => return Ok(()),
                };
                member.outcome = Some(MemberOutcome { at: self.clock.now(), what });
                round.commit.put_member(job, place, &member)?;
            }
            Cause::Message { group, sequence, key, message, deliveries } => {
                match answer {
                    Ok(StepReply::Done(_) | StepReply::Answered(_) | StepReply::Replayed(_)) => {}
                    Ok(StepReply::Duplicate) => Counters::add(&self.counters.duplicates),
                    Err(rejected) => {
                        Counters::add(&self.counters.refused_messages);
                        if !matches!(rejected, Rejected::StaleAttempt { .. }) {
                            let refusal = Refusal { group, message, error: rejected.to_string(), deliveries };
                            self.bury(&mut round.commit, &key, refusal)?;
                        }
                    }
                }
                if matches!(answer, Ok(StepReply::Duplicate)) {
                    round.commit.consume(group, sequence);
                } else {
                    self.consume(round, group, sequence, key);
                }
            }
        }
        Ok(())
    }

    /// Takes a message out of the outbox and completes its key.
    fn consume(&self, round: &mut Round, group: Group, sequence: Sequence, key: Key) {
        let lifetime_ms = idempotency::completed_ttl_s(key.topic) * 1_000;
        round.commit.consume(group, sequence);
        round.commit.complete_key(group, &key, self.clock.now().plus(lifetime_ms));
        round.completed.insert((group, key));
    }

    fn is_completed(&self, round: &Round, group: Group, key: &Key, now: Millis) -> Result<bool, store::Error> {
        if round.completed.contains(&(group, key.clone())) {
            return Ok(true);
        }
        Ok(self.store.key_expiry(group, key)?.is_some_and(|expires| expires > now))
    }

    fn claim(&mut self, round: &Round, group: Group, key: Key) -> Result<Claim, Error> {
        let now = self.clock.now();
        if self.is_completed(round, group, &key, now)? {
            return Ok(Claim::Duplicate);
        }
        let claim = (group, key);
        if let Some(&until) = self.claims.get(&claim)
            && until > now
        {
            return Ok(Claim::Busy { until });
        }
        self.claims.insert(claim, now.plus(idempotency::PROCESSING_TTL_S * 1_000));
        Ok(Claim::Granted)
    }

    fn settle(&mut self, round: &mut Round, settlement: Settlement) {
        let Settlement { mut commit, consumed, refusal, kept, reply } = settlement;
        let complete = || {
            if let Some(Kept { key, answer, .. }) = &kept {
                self.keep(&mut commit, *key, answer)?;
            }
            if let (Some(refusal), Some((_, _, key))) = (refusal, &consumed) {
                Counters::add(&self.counters.refused_messages);
                self.bury(&mut commit, key, refusal)?;
            }
            Ok(())
        };
        if let Err(error) = complete() {
            let error: store::Error = error;
            // Whoever asked may have gone away.
            let _ = reply.map(|reply| reply.send(Err(error.into())));
            return;
        }
        round.reservations.extend(kept.map(|kept| kept.reservation));
        round.commit.append(commit);
        if let Some((group, sequence, key)) = consumed {
            self.claims.remove(&(group, key.clone()));
            self.consume(round, group, sequence, key);
        }
        round.answers.extend(reply.map(Answer::Settle));
    }

    /// The record as the round has it so far.
    fn record(&mut self, round: &Round, id: BatchId) -> Result<Option<Arc<Batch>>, store::Error> {
        if let Some(record) = round.records.get(&id) {
            return Ok(Some(Arc::clone(record)));
        }
        if let Some(record) = self.cache.get(id) {
            return Ok(Some(record));
        }
        let record = self.store.batch(id)?.map(Arc::new);
        if let Some(record) = &record {
            self.cache.put(Arc::clone(record));
        }
        Ok(record)
    }

    /// The record where no round has it.
    pub(super) fn durable_record(&mut self, id: BatchId) -> Result<Option<Arc<Batch>>, store::Error> {
        self.record(&Round::default(), id)
    }

    fn answer(&mut self, id: BatchId, run: Question) {
        let now = self.clock.now();
        let record = self.durable_record(id);
        let (store, up_since, rules) = (&self.store, self.up_since, &self.rules);
        let reader = record.map(|batch| Reader { batch, id, store, now, up_since, rules });
        // It only reads, so whatever breaks in it has broken nothing here; whoever asked sees that no answer comes.
        if catch_unwind(AssertUnwindSafe(|| run(reader.map_err(Error::from)))).is_err() {
            tracing::error!(batch = %id, "a read of a batch panicked");
        }
    }

    /// Commits the round, and then, and only then, answers.
    fn finish(&mut self, round: Round) -> Result<(), Error> {
        let Round { commit, records, completed: _, due, recalls, reservations, answers, questions } = round;
        let committed = if commit.is_empty() { Ok(()) } else { self.store.commit_blocking(commit) };
        let committed = committed.map_err(Error::from);
        crash::reach(Point::StepAnswer);
        drop(reservations);
        if committed.is_ok() {
            for record in records.into_values() {
                self.waiting.tell(&record);
                self.cache.put(record);
            }
            for due in due {
                self.timers.wake_at(due);
            }
            for recall in recalls {
                self.bus.recall(recall);
            }
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
            }
        }
        for (batch, run) in questions {
            match &committed {
                Ok(()) => self.answer(batch, run),
                Err(error) => run(Err(error.clone())),
            }
        }
        committed
    }
}
