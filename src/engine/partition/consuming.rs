//! What a partition uses up, once: the messages and commands that caused its steps, and those that somebody else handles,
//! who claims them before.

use super::Partition;
use crate::contract::Group;
use crate::contract::idempotency::{self, Key};
use crate::domain::{BatchId, MemberOutcome, MemberResult, Millis, Rejected};
use crate::engine::letters::Refusal;
use crate::engine::request::{Cause, Claim, Kept, Settlement, StepReply};
use crate::engine::round::{Answer, Round};
use crate::engine::{Counters, Error};
use crate::store::{self, Sequence};

impl Partition {
    /// Uses up what caused a step. A message that was refused is used up too, and keeps its key: it would be refused
    /// again.
    pub(super) fn use_up(
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
    pub(in crate::engine) fn complete(&mut self, round: &mut Round, group: Group, key: Key) {
        self.on_their_way.complete(self.number, group, key.clone());
        round.completed.push((group, key));
    }

    pub(in crate::engine) fn is_on_its_way(&self, group: Group, key: &Key) -> bool {
        self.on_their_way.is_completed(group, key)
    }

    pub(super) fn is_completed(&self, group: Group, key: &Key, now: Millis) -> Result<bool, store::Error> {
        if self.is_on_its_way(group, key) {
            return Ok(true);
        }
        Ok(self.store.key_expiry(group, key)?.is_some_and(|expires| expires > now))
    }

    /// Whether a command lies in the outbox no more. The only one who sends it is this engine, once, and with its end it
    /// leaves the outbox in one commit; so that is all that has to be known, and it needs no key.
    pub(super) fn is_used_up(&self, group: Group, sequence: Sequence) -> Result<bool, store::Error> {
        Ok(self.on_their_way.is_used_up(group, sequence) || !self.store.is_in_outbox(group, sequence)?)
    }

    pub(super) fn claim(&mut self, group: Group, key: Key) -> Result<Claim, Error> {
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

    pub(super) fn settle(&mut self, round: &mut Round, settlement: Settlement) {
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
}
