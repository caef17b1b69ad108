//! A step of a batch: what it makes of the record, and all that becomes true with it.

use std::sync::Arc;

use super::Partition;
use crate::bus::Recall;
use crate::contract::{Message, Notice};
use crate::domain::{Batch, BatchId, Charge, Context, Effect, Funds, Input, LateOutcome, Phase, Rejected, Step};
use crate::engine::credits::Taken;
use crate::engine::notices::{self, Whom};
use crate::engine::once::{KEPT_MS, Once, RequestKey, Reservation};
use crate::engine::request::{Cause, StepReply, StepRequest};
use crate::engine::round::{Answer, Round};
use crate::engine::{Counters, Error, Submission, publish};
use crate::store::{self, Commit, StoredAnswer};

impl Partition {
    pub(super) fn step(&mut self, round: &mut Round, request: StepRequest) {
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
    pub(in crate::engine) fn keep(
        &self,
        commit: &mut Commit,
        key: RequestKey,
        answer: &StoredAnswer,
    ) -> Result<(), store::Error> {
        let answer = StoredAnswer { fingerprint: key.fingerprint, ..answer.clone() };
        commit.keep_answer(&key.hash, &answer, self.clock.now().plus(KEPT_MS))
    }
}
