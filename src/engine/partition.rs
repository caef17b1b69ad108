//! A partition: the one thread that steps the batches it owns.
//!
//! It takes all requests that wait, steps them one after the other, hands what they came to to the committer, and goes
//! on with the next, on records that may not be durable yet. Whoever asked is answered once its round is durable, and so
//! is whoever was refused, because the record that refused it may be on its way too. A commit that fails ends
//! everything, so nothing ever has to be taken back.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::credits::{Ledger, Taken};
use super::groups::Groups;
use super::letters::{LetterAnswer, LetterRequest, Refusal};
use super::notices::{self, Whom};
use super::once::{KEPT_MS, Once, RequestKey, Reservation};
use super::request::{Cause, Claim, Kept, Question, Reader, Request, Settlement, StepReply, StepRequest};
use super::rest::{self, Waiting};
use super::round::{Answer, Listeners, OnTheirWay, Round};
use super::{Counters, Error, Submission, publish};
use crate::bus::Recall;
use crate::clock::Clock;
use crate::contract::idempotency::{self, Key};
use crate::contract::{Group, Message, Notice};
use crate::domain::{
    Batch, BatchId, Charge, Context, Effect, Funds, Input, LateOutcome, MemberOutcome, MemberResult, Millis, Phase,
    Rejected, Rules, Step,
};
use crate::store::{self, Commit, Sequence, Store, StoredAnswer};

/// The most requests that are stepped before they are committed.
const MAX_ROUND: usize = 256;

pub(super) struct Partition {
    pub(super) store: Store,
    pub(super) clock: Clock,
    up_since: Millis,
    rules: Rules,
    counters: Arc<Counters>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) listeners: Listeners,
    /// The number of the open round.
    number: u64,
    on_their_way: OnTheirWay,
    /// Keys in the state `processing`, with when that ends. They live in memory: the only one who could hold such a key
    /// is this process, and when it dies its keys are free at once.
    claims: HashMap<(Group, Key), Millis>,
    pub(super) event_groups: Groups,
}

impl Partition {
    pub(super) fn new(
        store: Store,
        clock: Clock,
        (rules, up_since): (Rules, Millis),
        listeners: Listeners,
        (counters, ledger): (Arc<Counters>, Arc<Ledger>),
    ) -> Self {
        let (on_their_way, claims, event_groups) = (OnTheirWay::default(), HashMap::new(), Groups::default());
        Self {
            store,
            clock,
            up_since,
            rules,
            counters,
            ledger,
            listeners,
            number: 1,
            on_their_way,
            claims,
            event_groups,
        }
    }

    /// Serves requests until it is told to stop, and says whether that is why it ended. A store that failed ends it.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) -> bool {
        let mut waiting = Vec::with_capacity(MAX_ROUND);
        loop {
            if requests.blocking_recv_many(&mut waiting, MAX_ROUND) == 0 {
                return true;
            }
            self.on_their_way.arrived(self.listeners.durable.rounds());
            let mut round = Round::default();
            let mut is_last = false;
            for request in waiting.drain(..) {
                is_last |= matches!(request, Request::Stop);
                match request {
                    // These read what is durable, so everything is made so before.
                    Request::Letters(request) => {
                        self.send_and_wait(std::mem::take(&mut round));
                        self.decide_and_commit(*request);
                    }
                    Request::Balance(request) => {
                        self.send_and_wait(std::mem::take(&mut round));
                        self.change_and_commit(*request);
                    }
                    Request::Forget { batches, reply } => {
                        self.send_and_wait(std::mem::take(&mut round));
                        // The sweep may have ended.
                        let _ = reply.send(self.forget_and_commit(batches));
                    }
                    request => self.take(&mut round, request),
                }
            }
            self.send(round);
            if let Some(reason) = self.store.failure() {
                tracing::error!(reason, "a commit failed; this partition ends");
                return false;
            }
            if is_last {
                return true;
            }
        }
    }

    /// Hands a round to the committer, and opens the next.
    fn send(&mut self, mut round: Round) {
        let number = self.number;
        let commit = std::mem::take(&mut round.commit);
        if commit.is_empty() && round.answers.is_empty() && round.reservations.is_empty() {
            return;
        }
        self.number += 1;
        let listeners = self.listeners.clone();
        if commit.is_empty() && self.on_their_way.is_empty() {
            // There is nothing to wait for.
            round.conclude(number, Ok(()), &listeners);
            return;
        }
        self.on_their_way.close(number, &mut round);
        self.store.commit_then(commit, move |committed| round.conclude(number, committed, &listeners));
    }

    /// Waits until everything up to and with this round is durable. Where it is not, the store has failed, and says so
    /// to the next who asks.
    fn send_and_wait(&mut self, round: Round) {
        self.send(round);
        let _ = self.store.commit_blocking(Commit::new());
        self.on_their_way.arrived(self.listeners.durable.rounds());
    }

    fn take(&mut self, round: &mut Round, request: Request) {
        match request {
            Request::Step(request) => self.step(round, *request),
            Request::Query { batch, run } => self.answer(batch, run),
            Request::Rest { batch, reply } => self.wait_for_rest(batch, reply),
            Request::Claim { group, key, reply } => {
                // Whoever asked may have gone away; then its claim ends with its time.
                let _ = reply.send(self.claim(group, key));
            }
            Request::Release { group, key } => {
                self.claims.remove(&(group, key));
            }
            Request::Settle(settlement) => self.settle(round, *settlement),
            Request::Post(request) => self.post(round, *request),
            Request::Groups(request) => self.groups(round, *request),
            Request::Letters(_) | Request::Balance(_) | Request::Forget { .. } | Request::Stop => {}
        }
    }

    fn wait_for_rest(&mut self, batch: BatchId, reply: rest::Reply) {
        // Held while it is looked at, so that what becomes durable meanwhile is told after it was added.
        let durable = Arc::clone(&self.listeners.durable);
        let mut waiting = durable.waiting();
        match self.durable_record(batch) {
            Ok(Some(record)) if !rest::rests(&record) => Waiting::add(&mut waiting, batch, reply),
            answer => {
                // Whoever asked may have gone away.
                let _ = reply.send(answer.map(drop).map_err(Error::from));
            }
        }
    }

    fn forget_and_commit(&mut self, batches: Vec<(BatchId, Millis)>) -> Result<usize, Error> {
        let (commit, forgotten) = self.forget(batches);
        self.store.commit_blocking(commit)?;
        let mut cache = self.listeners.durable.cache();
        for id in &forgotten {
            cache.remove(*id);
        }
        Ok(forgotten.len())
    }

    fn decide_and_commit(&mut self, request: LetterRequest) {
        let LetterAnswer { commit, answer, reservation, reply } = self.decide(request);
        let committed = self.store.commit_blocking(commit).map_err(Error::from);
        drop(reservation);
        // Whoever asked may have gone away.
        let _ = reply.send(committed.and(answer));
    }

    fn step(&mut self, round: &mut Round, request: StepRequest) {
        let StepRequest { batch, mut submission, cause, reply } = request;
        let _span = tracing::debug_span!("step", %batch, correlation_id = %submission.correlation_id).entered();
        let contents = std::mem::take(&mut submission.contents);
        let mut shown = submission.shown.take();
        let late = self.late_outcome(&submission.input);
        let once = submission.once.take();
        if let Some(early) =
            once.as_ref().and_then(|once| once.key.earlier_answer(&self.store, self.clock.now()).transpose())
        {
            // Its key is free again before anybody is told.
            drop(once);
            Counters::add(&self.counters.repeated_steps);
            // Whoever asked may have gone away. An answer that is found is durable, and nothing else comes of it.
            let _ = reply.send(early.map(StepReply::Replayed));
            return;
        }
        let answer = match self.try_step(round, batch, submission, once, (&cause, &mut shown)) {
            Ok(answer) => answer,
            Err(error) => {
                // Nothing of it is in the round, so it can be answered at once, and is not used up.
                let _ = reply.send(Err(error.into()));
                return;
            }
        };
        match &answer {
            Ok(StepReply::Done(_) | StepReply::Answered(_)) => {
                for text in &contents {
                    round.commit.put_content(text);
                }
                Counters::add(&self.counters.steps);
            }
            Ok(StepReply::Duplicate | StepReply::Replayed(_)) => Counters::add(&self.counters.repeated_steps),
            Err(_) => Counters::add(&self.counters.refused_steps),
        }
        let used_up = match (&answer, late) {
            (Err(Rejected::StaleAttempt { phase }), Some(late)) => {
                self.record_late(&mut round.commit, (batch, *phase), &cause, (&late, shown))
            }
            (Ok(_) | Err(_), _) => Ok(()),
        };
        if let Err(error) = used_up.and_then(|()| self.use_up(round, batch, cause, &answer)) {
            let _ = reply.send(Err(error.into()));
            return;
        }
        round.answers.push(Answer::Step(reply, answer.map_err(Error::from)));
    }

    /// Puts an outcome on record that came too late, and shows it.
    fn record_late(
        &self,
        commit: &mut Commit,
        (batch, phase): (BatchId, Phase),
        cause: &Cause,
        (late, shown): (&LateOutcome, Option<Message>),
    ) -> Result<(), store::Error> {
        let (Cause::Message { key, .. } | Cause::Command { key, .. }) = cause else { return Ok(()) };
        Counters::add(&self.counters.late_outcomes);
        shown.map_or(Ok(()), |message| commit.announce(message))?;
        commit.record_late(batch, phase, key, late)
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
        (cause, shown): (&Cause, &mut Option<Message>),
    ) -> Result<Result<StepReply, Rejected>, store::Error> {
        let now = match cause {
            // Whoever sent it saw that it was due. The clock may have been set back since; the timer is used up now.
            Cause::Timer(timer) => self.clock.now().max(timer.due),
            Cause::Request | Cause::Message { .. } | Cause::Command { .. } | Cause::Job { .. } => self.clock.now(),
        };
        let is_repetition = match cause {
            Cause::Message { group, key, .. } => self.is_completed(*group, key, now)?,
            Cause::Command { group, sequence, .. } => self.is_used_up(*group, *sequence)?,
            Cause::Request | Cause::Timer(_) | Cause::Job { .. } => false,
        };
        if is_repetition {
            return Ok(Ok(StepReply::Duplicate));
        }
        let old = self.record(id)?;
        let Submission { input, correlation_id, contents: _, versions, origin, once: _, shown: _ } = submission;
        if let (Some(old), Some(versions)) = (&old, versions)
            && !versions.contains(&old.version)
        {
            return Ok(Err(Rejected::Moved { version: old.version }));
        }
        let (up_since, rules, funds) = (self.up_since, &self.rules, Funds::Unlimited);
        let context = Context { now, up_since, correlation_id, origin: &origin, rules, funds };
        let (Step { batch, effects }, taken) = match self.step_and_take(old.as_deref(), input, &context) {
            Ok(stepped) => stepped,
            Err(rejected) => {
                if let (Rejected::Denied(denial), Some(old)) = (&rejected, &old) {
                    Self::tell_denial(round, old, denial, &context)?;
                }
                return Ok(Err(rejected));
            }
        };
        if old.as_ref().is_some_and(|old| old.version == batch.version) {
            let mut commit = Commit::new();
            let reply = self.reply(&mut commit, &mut round.reservations, Arc::new(batch), once)?;
            round.commit.append(commit);
            return Ok(Ok(reply));
        }
        // Built apart, so that a step whose effects cannot be encoded leaves nothing in the round.
        let mut commit = Commit::new();
        let (mut due, mut recalls, mut attempts, mut told) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        shown.take().map_or(Ok(()), |message| commit.announce(message))?;
        commit.put_batch(old.as_deref(), &batch)?;
        for (number, effect) in effects.into_iter().enumerate() {
            match effect {
                Effect::Publish(outgoing) => {
                    let message = publish::message(&batch, number, *outgoing)?;
                    told.extend(notices::notice(&message));
                    commit.publish(message)?;
                }
                Effect::Show(outgoing) => commit.announce(publish::message(&batch, number, *outgoing)?)?,
                Effect::Charge { requested, cost } => {
                    if let Some(Taken { account, .. }) = &taken {
                        let charge = Charge { account: account.clone(), requested, cost, at: now };
                        commit.charge(id, batch.version, &charge)?;
                    }
                }
                Effect::RecordAttempt { phase, attempt } => {
                    commit.record_attempt(id, phase, &attempt)?;
                    self.counters.attempts.add(phase, &attempt);
                    attempts.push((id, phase, attempt));
                }
                Effect::ArmTimer(timer) => {
                    commit.arm_timer(id, timer);
                    due.push(timer.due);
                }
                Effect::DisarmTimer(timer) => commit.disarm_timer(id, timer),
                Effect::Recall { phase, attempt } => recalls.push(Recall { batch: id, phase, attempt }),
                Effect::TellOwner(concluded) => told.push(Notice::PhaseConcluded(concluded)),
            }
        }
        let batch = Arc::new(batch);
        let reply = self.reply(&mut commit, &mut round.reservations, Arc::clone(&batch), once)?;
        round.commit.append(commit);
        taken.into_iter().for_each(Taken::keep);
        round.due.append(&mut due);
        round.recalls.append(&mut recalls);
        round.attempts.append(&mut attempts);
        round.notices.extend(told.into_iter().map(|notice| (Whom::Owner(Arc::clone(&batch)), notice)));
        self.on_their_way.put(self.number, Arc::clone(&batch));
        round.records.push(batch);
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
        &mut self,
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
            Cause::Command { group, sequence, key: _ } => {
                if !matches!(answer, Ok(StepReply::Duplicate)) {
                    round.commit.consume(group, sequence);
                    self.on_their_way.use_up(group, sequence);
                    round.used_up.push((group, sequence));
                }
            }
            Cause::Message { group, sequence, key, message, deliveries } => {
                match answer {
                    Ok(StepReply::Done(_) | StepReply::Answered(_) | StepReply::Replayed(_)) => {}
                    Ok(StepReply::Duplicate) => Counters::add(&self.counters.duplicates),
                    Err(rejected) => {
                        Counters::add(&self.counters.refused_messages);
                        // What was denied was told, which is all that can be done about it.
                        if !matches!(rejected, Rejected::StaleAttempt { .. } | Rejected::Denied(_)) {
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
    fn consume(&mut self, round: &mut Round, group: Group, sequence: Sequence, key: Key) {
        let lifetime_ms = idempotency::completed_ttl_s(key.topic) * 1_000;
        round.commit.consume(group, sequence);
        round.commit.complete_key(group, &key, self.clock.now().plus(lifetime_ms));
        self.complete(round, group, key);
    }

    /// A key is completed in this round, and known as that until the store says so.
    pub(super) fn complete(&mut self, round: &mut Round, group: Group, key: Key) {
        self.on_their_way.complete(self.number, group, key.clone());
        round.completed.push((group, key));
    }

    pub(super) fn is_on_its_way(&self, group: Group, key: &Key) -> bool {
        self.on_their_way.is_completed(group, key)
    }

    fn is_completed(&self, group: Group, key: &Key, now: Millis) -> Result<bool, store::Error> {
        if self.is_on_its_way(group, key) {
            return Ok(true);
        }
        Ok(self.store.key_expiry(group, key)?.is_some_and(|expires| expires > now))
    }

    /// Whether a command lies in the outbox no more. The only one who sends it is this engine, once, and with its end it
    /// leaves the outbox in one commit; so that is all that has to be known, and it needs no key.
    fn is_used_up(&self, group: Group, sequence: Sequence) -> Result<bool, store::Error> {
        Ok(self.on_their_way.is_used_up(group, sequence) || !self.store.is_in_outbox(group, sequence)?)
    }

    fn claim(&mut self, group: Group, key: Key) -> Result<Claim, Error> {
        let now = self.clock.now();
        if self.is_completed(group, &key, now)? {
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
        let Settlement { mut commit, consumed, refusal, kept, notices, reply } = settlement;
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
        round.notices.extend(notices);
        if let Some((group, sequence, key)) = consumed {
            self.claims.remove(&(group, key.clone()));
            self.consume(round, group, sequence, key);
        }
        round.answers.extend(reply.map(Answer::Settle));
    }

    /// The newest record, durable or on its way.
    fn record(&self, id: BatchId) -> Result<Option<Arc<Batch>>, store::Error> {
        match self.on_their_way.record(id) {
            Some(record) => Ok(Some(Arc::clone(record))),
            None => self.durable_record(id),
        }
    }

    /// The newest durable record.
    pub(super) fn durable_record(&self, id: BatchId) -> Result<Option<Arc<Batch>>, store::Error> {
        let durable = &self.listeners.durable;
        if let Some(record) = durable.cache().get(id) {
            return Ok(Some(record));
        }
        let record = self.store.batch(id)?.map(Arc::new);
        if let Some(record) = &record
            && self.on_their_way.record(id).is_none()
        {
            // Nobody else makes records of this batch, so none that is newer can have come in between.
            durable.cache().put(Arc::clone(record));
        }
        Ok(record)
    }

    fn answer(&mut self, id: BatchId, run: Question) {
        let now = self.clock.now();
        let record = self.durable_record(id);
        let (store, up_since, rules, durable) = (&self.store, self.up_since, &self.rules, &self.listeners.durable);
        let reader = record.map(|batch| Reader { batch, id, store, durable, now, up_since, rules });
        // It only reads, so whatever breaks in it has broken nothing here; whoever asked sees that no answer comes.
        if catch_unwind(AssertUnwindSafe(|| run(reader.map_err(Error::from)))).is_err() {
            tracing::error!(batch = %id, "a read of a batch panicked");
        }
    }
}
