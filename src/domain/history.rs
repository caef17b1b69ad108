//! Batches that have a past: what happened to each is told, and played through [`step()`], so that no batch comes out
//! of it that could not have come about.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::attempt::{Attempt, Origin};
use super::batch::{Batch, BatchId, Slot};
use super::credits::Funds;
use super::errors::PhaseError;
use super::phase::Phase;
use super::rejection::Rejected;
use super::step::{
    Context, Data, Effect, Input, NewEssay, Outgoing, PhaseOutcome, Registration, RetryRequest, Rules, Step, Timer,
    TimerKind, step,
};
use super::time::Millis;
use crate::contract::BatchStatus;
use crate::contract::requests::BatchRegistrationRequest;

/// What happened to a batch after its registration, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// Its id.
    pub id: BatchId,
    /// Its registration.
    pub registration: BatchRegistrationRequest,
    /// The essays that have arrived.
    pub essays: Vec<NewEssay>,
    /// What happened then.
    pub chapters: Vec<Chapter>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Chapter {
    /// Its owner asked for a pipeline.
    Pipeline {
        /// The last phase.
        last: Phase,
    },
    /// The next attempt of a phase. Where none was open, its owner retried the phase.
    Attempt {
        /// The phase.
        phase: Phase,
        /// Why it was retried, if it was.
        reason: String,
        /// How long it took, in milliseconds.
        took_ms: u64,
        /// How it ended.
        end: End,
    },
    /// Its owner stopped it.
    Cancel {
        /// Why.
        reason: String,
    },
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// It has not: its command is on its way to a worker.
    Dispatched,
    /// It has not: a worker has begun.
    Started,
    /// Everything came out.
    Succeeded,
    /// These essays failed, or all of them.
    Failed {
        /// The slots; none for the whole phase.
        slots: Option<Vec<Slot>>,
        /// Why.
        error: PhaseError,
    },
    /// Nobody was heard of until its deadline.
    TimedOut,
}

/// A batch with its past.
#[derive(Debug)]
pub struct Played {
    /// The record.
    pub batch: Batch,
    /// The attempts that have ended.
    pub attempts: Vec<(Phase, Arc<Attempt>)>,
    /// The command that nobody has answered yet, with the record of the step that sent it, and its place among the
    /// effects of that step.
    pub open: Option<(Batch, usize, Outgoing)>,
}

/// Why a story cannot have happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// The batch did not allow it.
    #[error("{0}")]
    Rejected(#[from] Rejected),
    /// An attempt follows, or something else, and the one before has not ended.
    #[error("{phase} has an attempt that has not ended, so nothing of {phase} can follow it")]
    NotEnded {
        /// The phase.
        phase: Phase,
    },
    /// Another phase runs.
    #[error("{phase} waits for another phase")]
    NotItsTurn {
        /// The phase.
        phase: Phase,
    },
    /// Something would have been due before.
    #[error("{phase} had its deadline before, or was tried again by itself")]
    TooLate {
        /// The phase.
        phase: Phase,
    },
    /// It has no essay in this slot.
    #[error("the attempt of {phase} has no essay in slot {slot}")]
    NoSuchSlot {
        /// The phase.
        phase: Phase,
        /// The slot.
        slot: Slot,
    },
}

/// How long it was between two things that happened, in milliseconds, where nobody says.
const PAUSE_MS: u64 = 1_000;

/// Plays `story` by `rules` from `began` on.
///
/// # Errors
/// The number of the chapter, from 0, that cannot have happened, and why. The essays and the registration count as the
/// first.
pub fn play(story: &Story, rules: &Rules, began: Millis) -> Result<Played, (usize, Impossible)> {
    let id = story.id;
    let mut player = Player { id, batch: None, began, now: began, rules, played: Vec::new(), open: None, number: 0 };
    let registration = Registration::new(id, story.registration.clone(), began).map_err(|error| (0, error.into()))?;
    let by = story.registration.user_id.as_str().to_owned();
    player.go(Input::Register(Box::new(registration))).map_err(|error| (0, error))?;
    if !story.essays.is_empty() {
        let essays = story.essays.clone();
        player.go(Input::ProvideEssays { by: by.clone(), essays }).map_err(|error| (0, error))?;
    }
    for (number, chapter) in story.chapters.iter().enumerate() {
        player.chapter(&by, chapter).map_err(|error| (number, error))?;
    }
    let Player { batch, played, open, .. } = player;
    match batch {
        Some(batch) => Ok(Played { batch, attempts: played, open }),
        None => Err((0, Rejected::NoSuchBatch.into())),
    }
}

struct Player<'a> {
    id: BatchId,
    batch: Option<Batch>,
    began: Millis,
    now: Millis,
    rules: &'a Rules,
    played: Vec<(Phase, Arc<Attempt>)>,
    open: Option<(Batch, usize, Outgoing)>,
    /// Of the step.
    number: u32,
}

impl Player<'_> {
    fn chapter(&mut self, by: &str, chapter: &Chapter) -> Result<(), Impossible> {
        let by = by.to_owned();
        match chapter {
            Chapter::Pipeline { last } => {
                self.wait(PAUSE_MS)?;
                self.go(Input::RequestPipeline { by, last: *last, prompt: None })
            }
            Chapter::Cancel { reason } => {
                self.wait(PAUSE_MS)?;
                self.go(Input::Cancel { by, reason: reason.clone() })?;
                self.open = None;
                Ok(())
            }
            Chapter::Attempt { phase, reason, took_ms, end } => {
                self.begin(by, *phase, reason)?;
                self.end(*phase, *took_ms, end)
            }
        }
    }

    /// Lets an attempt of `phase` be on its way to a worker.
    fn begin(&mut self, by: String, phase: Phase, reason: &str) -> Result<(), Impossible> {
        match self.timer(phase) {
            Some(Timer { kind: TimerKind::Deadline, attempt, .. }) => {
                let state = self.batch.as_ref().and_then(|batch| batch.phase_state(phase)?.open_attempt());
                let has_begun = state.is_some_and(|open| open.number == attempt && open.started_at.is_some());
                if has_begun { Err(Impossible::NotEnded { phase }) } else { Ok(()) }
            }
            Some(timer @ Timer { kind: TimerKind::Retry, .. }) => {
                self.now = self.now.max(timer.due);
                self.go(timer.input())
            }
            // One that waits for its students is refused by the step.
            Some(Timer { kind: TimerKind::StudentValidation, .. }) | None => {
                self.wait(PAUSE_MS)?;
                self.go(Input::RetryPhase(RetryRequest::whole(by, phase, reason.to_owned())))
            }
        }
    }

    /// Lets the attempt of `phase` that is open end.
    fn end(&mut self, phase: Phase, took_ms: u64, end: &End) -> Result<(), Impossible> {
        let Some(Timer { kind: TimerKind::Deadline, due, attempt, .. }) = self.timer(phase) else {
            return Err(Impossible::NotItsTurn { phase });
        };
        let input = match end {
            End::Dispatched => return Ok(()),
            End::Started => {
                self.wait(took_ms)?;
                return self.go(Input::PhaseStarted { phase, attempt });
            }
            End::TimedOut => {
                self.now = self.now.max(due);
                Input::DeadlineExpired { phase, attempt }
            }
            End::Succeeded => {
                self.wait(took_ms)?;
                Input::PhaseOutcome(self.outcome(phase, attempt, None)?)
            }
            End::Failed { slots, error } => {
                self.wait(took_ms)?;
                Input::PhaseOutcome(self.outcome(phase, attempt, Some((slots.as_deref(), error)))?)
            }
        };
        // Before the step, which may send the command of the next phase.
        self.open = None;
        self.go(input)
    }

    /// What a worker says of the attempt that is open.
    fn outcome(
        &self,
        phase: Phase,
        attempt: u32,
        failed: Option<(Option<&[Slot]>, &PhaseError)>,
    ) -> Result<PhaseOutcome, Impossible> {
        let batch = self.batch.as_ref().ok_or(Rejected::NoSuchBatch)?;
        let open = batch.phase_state(phase).and_then(|state| state.open_attempt());
        let slots = open.map(|open| open.slots.clone()).unwrap_or_default();
        let named = failed.and_then(|(named, _)| named).unwrap_or_default();
        if let Some(&slot) = named.iter().find(|slot| !slots.contains(slot)) {
            return Err(Impossible::NoSuchSlot { phase, slot });
        }
        let has_failed = |slot: &Slot| failed.is_some_and(|(named, _)| named.is_none_or(|named| named.contains(slot)));
        let (lost, came_out): (Vec<Slot>, Vec<Slot>) = slots.into_iter().partition(has_failed);
        let status = match (lost.is_empty(), came_out.is_empty()) {
            (true, _) => BatchStatus::CompletedSuccessfully,
            (false, true) => BatchStatus::FailedCritically,
            (false, false) => BatchStatus::CompletedWithFailures,
        };
        let error = failed.map(|(_, error)| error.clone());
        let id = |slot: &Slot| batch.essays.get(usize::from(*slot)).map(|essay| essay.id.clone());
        let essay_errors: BTreeMap<_, _> =
            lost.iter().filter_map(id).filter_map(|id| Some((id, error.clone()?))).collect();
        Ok(PhaseOutcome {
            phase,
            status,
            processed: came_out.into_iter().filter_map(|slot| batch.input_of(phase, slot)).collect(),
            attempt: Some(attempt),
            correlation_id: None,
            error,
            retry_after_ms: None,
            essay_errors: if status == BatchStatus::CompletedWithFailures { essay_errors } else { BTreeMap::new() },
        })
    }

    fn timer(&self, phase: Phase) -> Option<Timer> {
        self.batch.as_ref()?.timers().into_iter().find(|timer| timer.phase == phase)
    }

    /// Lets time pass, unless something would be due meanwhile.
    fn wait(&mut self, duration_ms: u64) -> Result<(), Impossible> {
        self.now = self.now.plus(duration_ms);
        let timers = self.batch.as_ref().map(Batch::timers).unwrap_or_default();
        let late = timers.into_iter().find(|timer| timer.due <= self.now);
        late.map_or(Ok(()), |timer| Err(Impossible::TooLate { phase: timer.phase }))
    }

    fn go(&mut self, input: Input) -> Result<(), Impossible> {
        let origin = Arc::<Origin>::default();
        self.number += 1;
        let correlation_id = Uuid::new_v5(&self.id.0, format!("history/{}", self.number).as_bytes());
        let (now, up_since, rules) = (self.now, self.began, self.rules);
        // Whoever seeds a past pays for none of it.
        let context = Context { now, up_since, correlation_id, origin: &origin, rules, funds: Funds::Unlimited };
        let Step { batch, effects } = step(self.batch.as_ref(), input, &context)?;
        for (number, effect) in effects.into_iter().enumerate() {
            match effect {
                Effect::RecordAttempt { phase, attempt } => self.played.push((phase, attempt)),
                Effect::Publish(outgoing) if is_command(&outgoing.data) => {
                    self.open = Some((batch.clone(), number, *outgoing));
                }
                // What is over has been heard, and the timers follow from the record.
                Effect::Publish(_)
                | Effect::Show(_)
                | Effect::Charge { .. }
                | Effect::TellOwner(_)
                | Effect::ArmTimer(_)
                | Effect::DisarmTimer(_)
                | Effect::Recall { .. } => {}
            }
        }
        self.batch = Some(batch);
        Ok(())
    }
}

/// Whether a worker has to do something about it.
const fn is_command(data: &Data) -> bool {
    match data {
        Data::Spellcheck(_) | Data::CjAssessment(_) | Data::Nlp(_) | Data::AiFeedback(_) | Data::StudentMatching(_) => {
            true
        }
        Data::Registered(_)
        | Data::ContentProvisioned(_)
        | Data::PhaseSkipped(_)
        | Data::PipelineCompleted(_)
        | Data::PipelineDenied(_)
        | Data::PhaseOutcome(_)
        | Data::AssociationsConfirmed(_)
        | Data::EssaysReady(_)
        | Data::Notification(_) => false,
    }
}
