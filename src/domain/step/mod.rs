//! The one function that everything goes through: a record and an input give a new record and effects.
//!
//! `step` serves live work, redelivery and recovery alike. It changes nothing but its result: what it decides becomes
//! true when the store has committed it, and is told to others only after that.

mod announce;
mod cancel;
mod denial;
mod lease;
mod notify;
mod outcome;
mod progress;
mod readiness;
mod request;
mod retry;
mod students;

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

pub use announce::{Data, Outgoing};
pub use denial::denied;
pub use lease::{Done, NewLease, ReturnedEssay, ReturnedText, ReturnedWork};
pub use readiness::{NewEssay, Registration};
pub use retry::{RetryPlan, RetryRequest, Selection};

use super::attempt::{Attempt, Origin};
use super::batch::Batch;
use super::credits::{Cost, DenialReason, Funds};
use super::errors::{PhaseError, RetryPolicy};
use super::phase::{Phase, PhaseRecord, PhaseState};
use super::rejection::Rejected;
use super::time::Millis;
use crate::contract::notifications::PhaseConcluded;
use crate::contract::requests::PromptPayload;
use crate::contract::{BatchStatus, EssayRef, StorageReferences};

/// Something that happened to a batch, or is asked of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A batch with so many slots shall exist.
    Register(Box<Registration>),
    /// Essays fill the next empty slots.
    ProvideEssays {
        /// Who sends them.
        by: String,
        /// The essays, in order.
        essays: Vec<NewEssay>,
    },
    /// The lifecycle service says that every slot has text.
    ContentProvisioned {
        /// All essays.
        essays: Vec<EssayRef>,
    },
    /// Somebody who knows the class says which essay is whose.
    AssociationsConfirmed {
        /// The class.
        class_id: String,
        /// The essays that have a student now, or are known to have none.
        essay_ids: Vec<String>,
        /// Whether nobody had confirmed it in time.
        timeout_triggered: bool,
    },
    /// The lifecycle service says that the essays are stored with their students.
    EssaysReady,
    /// Nobody has confirmed in time which essay is whose.
    StudentValidationExpired,
    /// The prompt shall be another.
    AmendPrompt {
        /// Who asks.
        by: String,
        /// The prompt from now on.
        student_prompt_ref: StorageReferences,
    },
    /// A phase shall run, with all that it depends on.
    RequestPipeline {
        /// Who asks.
        by: String,
        /// The last phase of the pipeline.
        last: Phase,
        /// A prompt, where the batch has none.
        prompt: Option<PromptPayload>,
    },
    /// The gateway denies a pipeline, because its user asks for too many. Nothing comes of it but that it is told.
    DenyPipeline {
        /// Who asked.
        by: String,
        /// The phase asked for.
        last: Phase,
        /// Whether it was the retry of that phase, which costs nothing.
        is_retry: bool,
        /// How many there can be in a minute.
        limit: u32,
        /// When the next can be, in milliseconds from now.
        wait_ms: u64,
    },
    /// A phase shall run again, alone.
    RetryPhase(RetryRequest),
    /// Whatever waits or runs shall stop.
    Cancel {
        /// Who asks.
        by: String,
        /// Why.
        reason: String,
    },
    /// A worker has taken the command of an attempt.
    PhaseStarted {
        /// The phase.
        phase: Phase,
        /// The number of the attempt.
        attempt: u32,
    },
    /// A worker of somebody else's has taken the command of an attempt.
    PhaseLeased {
        /// The phase.
        phase: Phase,
        /// The number of the attempt.
        attempt: u32,
        /// By what it has it.
        lease: NewLease,
    },
    /// A worker of somebody else's is still at an attempt.
    LeaseExtended {
        /// The phase.
        phase: Phase,
        /// The number of the attempt.
        attempt: u32,
        /// The lease's token.
        token: Uuid,
        /// What it has done so far, where it says so.
        done: Option<Done>,
    },
    /// A worker of somebody else's is through with an attempt.
    LeaseReturned {
        /// The phase.
        phase: Phase,
        /// The number of the attempt.
        attempt: u32,
        /// The lease's token.
        token: Uuid,
        /// What came of it.
        work: ReturnedWork,
    },
    /// An attempt is over.
    PhaseOutcome(PhaseOutcome),
    /// An attempt has taken too long.
    DeadlineExpired {
        /// The phase.
        phase: Phase,
        /// The number of the attempt.
        attempt: u32,
    },
    /// A phase has waited long enough after a transient failure.
    RetryDue {
        /// The phase.
        phase: Phase,
        /// The number of the attempt that failed.
        attempt: u32,
    },
}

/// What an `ELSBatchPhaseOutcomeV1` and its envelope say.
#[derive(Debug, Clone, PartialEq)]
pub struct PhaseOutcome {
    /// The phase.
    pub phase: Phase,
    /// `completed_successfully`, `completed_with_failures`; anything else: failed.
    pub status: BatchStatus,
    /// The essays that came out.
    pub processed: Vec<EssayRef>,
    /// The number of the attempt, where the worker echoed it.
    pub attempt: Option<u32>,
    /// The correlation id of the command that this answers.
    pub correlation_id: Option<Uuid>,
    /// Why it failed, where the worker said so.
    pub error: Option<PhaseError>,
    /// How long to wait at least before it is tried again by itself, in milliseconds, where the worker said so.
    pub retry_after_ms: Option<u64>,
    /// Why single essays failed, where the worker said so.
    pub essay_errors: BTreeMap<String, PhaseError>,
}

/// An outcome that came when its attempt was not in flight any more: on record, and without effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateOutcome {
    /// When it came.
    pub at: Millis,
    /// The attempt, where the worker echoed it.
    pub attempt: Option<u32>,
    /// The correlation id of the command that it answers.
    pub correlation_id: Option<Uuid>,
    /// What it says.
    pub status: BatchStatus,
}

/// What a step is told besides the input.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The time.
    pub now: Millis,
    /// Since when the program has been running: what it was not there to hear before does not count against a worker.
    pub up_since: Millis,
    /// What connects all that this input causes.
    pub correlation_id: Uuid,
    /// How the request named itself.
    pub origin: &'a Arc<Origin>,
    /// What is configured.
    pub rules: &'a Rules,
    /// What there is to pay a pipeline with.
    pub funds: Funds,
}

/// The configurable rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// For each phase, by [`Phase::index`]: when it is tried again by itself.
    pub retry: [RetryPolicy; 4],
    /// How many times users can retry one phase of one batch.
    pub max_user_retries: u32,
    /// How long a user has to wait between two retries of one phase, in milliseconds; 0 for not at all.
    pub retry_cooldown_ms: u64,
    /// For each phase, by [`Phase::index`]: how long after its dispatch an attempt counts as failed, in milliseconds.
    pub phase_deadline_ms: [u64; 4],
    /// How long a regular batch waits for somebody to confirm which essay is whose, in milliseconds.
    pub student_validation_ms: u64,
}

impl Default for Rules {
    /// For every phase a quarter of an hour, the default of [`RetryPolicy`], and 50 retries by users; a day for the
    /// students.
    fn default() -> Self {
        Self {
            retry: std::array::from_fn(|_| RetryPolicy::default()),
            max_user_retries: 50,
            retry_cooldown_ms: 0,
            phase_deadline_ms: [15 * 60 * 1_000; 4],
            student_validation_ms: 24 * 3_600 * 1_000,
        }
    }
}

/// What a step decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The record from now on. Its version is that of the old record where nothing changed.
    pub batch: Batch,
    /// What has to be committed with it, and told afterwards.
    pub effects: Vec<Effect>,
}

/// Something that a step causes.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Publish a message.
    Publish(Box<Outgoing>),
    /// Show a message to whoever watches. No consumer gets it, because what it would do is this very step.
    Show(Box<Outgoing>),
    /// Charge whoever the funds were of.
    Charge {
        /// The phase asked for.
        requested: Phase,
        /// How much.
        cost: Cost,
    },
    /// Add an attempt that has ended to the ledger.
    RecordAttempt {
        /// Its phase.
        phase: Phase,
        /// The attempt.
        attempt: Arc<Attempt>,
    },
    /// Wake the batch at a time.
    ArmTimer(Timer),
    /// Do not.
    DisarmTimer(Timer),
    /// Tell whoever works on an attempt that nobody waits for it any more.
    Recall {
        /// Its phase.
        phase: Phase,
        /// Its number.
        attempt: u32,
    },
    /// Tell the owner, where they have a connection, that a phase has ended. Nothing is kept of it.
    TellOwner(PhaseConcluded),
}

/// Something that is due at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timer {
    /// What is due.
    pub kind: TimerKind,
    /// When it is due.
    pub due: Millis,
    /// The phase; of a batch that has none yet the first.
    pub phase: Phase,
    /// The number of the attempt; 0 of a batch that has none yet.
    pub attempt: u32,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimerKind {
    /// The attempt counts as failed.
    Deadline,
    /// The attempt failed, and the next one begins.
    Retry,
    /// The batch goes on without a confirmation of its students.
    StudentValidation,
}

impl Timer {
    /// The timer of a batch that waits until `due` for its students to be confirmed.
    #[must_use]
    pub const fn student_validation(due: Millis) -> Self {
        Self { kind: TimerKind::StudentValidation, due, phase: Phase::Spellcheck, attempt: 0 }
    }

    /// What to tell the batch once it is due.
    #[must_use]
    pub const fn input(self) -> Input {
        let Self { kind, due: _, phase, attempt } = self;
        match kind {
            TimerKind::Deadline => Input::DeadlineExpired { phase, attempt },
            TimerKind::Retry => Input::RetryDue { phase, attempt },
            TimerKind::StudentValidation => Input::StudentValidationExpired,
        }
    }
}

/// Decides what `input` does to `batch`, which is none before its registration.
///
/// # Errors
/// [`Rejected`] where the batch, as it stands, does not allow the input; nothing is changed then.
pub fn step(batch: Option<&Batch>, input: Input, context: &Context<'_>) -> Result<Step, Rejected> {
    let Some(batch) = batch else {
        return match input {
            Input::Register(registration) => Ok(readiness::register(*registration, context)),
            Input::ProvideEssays { .. }
            | Input::ContentProvisioned { .. }
            | Input::AssociationsConfirmed { .. }
            | Input::EssaysReady
            | Input::StudentValidationExpired
            | Input::AmendPrompt { .. }
            | Input::RequestPipeline { .. }
            | Input::DenyPipeline { .. }
            | Input::RetryPhase(_)
            | Input::Cancel { .. }
            | Input::PhaseStarted { .. }
            | Input::PhaseLeased { .. }
            | Input::LeaseExtended { .. }
            | Input::LeaseReturned { .. }
            | Input::PhaseOutcome(_)
            | Input::DeadlineExpired { .. }
            | Input::RetryDue { .. } => Err(Rejected::NoSuchBatch),
        };
    };
    let mut draft = Draft::of(batch, context);
    match input {
        Input::Register(_) => return Err(Rejected::AlreadyRegistered),
        Input::ProvideEssays { by, essays } => draft.provide_essays(&by, essays)?,
        Input::ContentProvisioned { essays } => draft.content_provisioned(&essays)?,
        Input::AssociationsConfirmed { class_id, essay_ids, timeout_triggered } => {
            draft.associations_confirmed(&class_id, &essay_ids, timeout_triggered)?;
        }
        Input::EssaysReady => draft.essays_ready()?,
        Input::StudentValidationExpired => draft.student_validation_expired()?,
        Input::AmendPrompt { by, student_prompt_ref } => draft.amend_prompt(&by, student_prompt_ref)?,
        Input::RequestPipeline { by, last, prompt } => draft.request_pipeline(&by, last, prompt)?,
        Input::DenyPipeline { by, last, is_retry, limit, wait_ms } => {
            return Err(draft.deny_pipeline(&by, last, is_retry, DenialReason::RateLimitExceeded { limit, wait_ms }));
        }
        Input::RetryPhase(request) => draft.retry_phase(request)?,
        Input::Cancel { by, reason } => draft.cancel(&by, &reason)?,
        Input::PhaseStarted { phase, attempt } => draft.phase_started(phase, attempt)?,
        Input::PhaseLeased { phase, attempt, lease } => draft.phase_leased(phase, attempt, lease)?,
        Input::LeaseExtended { phase, attempt, token, done } => draft.lease_extended(phase, attempt, token, done)?,
        Input::LeaseReturned { phase, attempt, token, work } => draft.lease_returned(phase, attempt, token, work)?,
        Input::PhaseOutcome(outcome) => draft.phase_outcome(outcome)?,
        Input::DeadlineExpired { phase, attempt } => draft.deadline_expired(phase, attempt)?,
        Input::RetryDue { phase, attempt } => draft.retry_due(phase, attempt)?,
    }
    Ok(draft.finish())
}

/// A step in the making.
struct Draft<'a> {
    batch: Batch,
    effects: Vec<Effect>,
    context: &'a Context<'a>,
    changed: bool,
}

impl<'a> Draft<'a> {
    fn of(batch: &Batch, context: &'a Context<'a>) -> Self {
        Self { batch: batch.clone(), effects: Vec::new(), context, changed: false }
    }

    fn finish(mut self) -> Step {
        if self.changed {
            self.batch.version += 1;
            self.batch.updated_at = self.context.now;
        }
        Step { batch: self.batch, effects: self.effects }
    }

    /// The version that the batch will have after this step.
    const fn next_version(&self) -> u64 {
        self.batch.version + 1
    }

    fn require_owner(&self, user_id: &str) -> Result<(), Rejected> {
        if self.batch.details.user_id == user_id { Ok(()) } else { Err(Rejected::NotOwner) }
    }

    fn set_state(&mut self, phase: Phase, state: PhaseState) {
        self.tell_conclusion(phase, &state);
        let essays = self.batch.essays.len();
        self.batch.phases[phase.index()].get_or_insert_with(|| PhaseRecord::untried(essays)).state = state;
        self.changed = true;
    }
}
