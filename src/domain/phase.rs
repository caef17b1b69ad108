//! A phase of a batch: its state, and how its essays came out.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;
use uuid::Uuid;

use super::attempt::{Attempt, Scope};
use super::errors::PhaseError;
use super::rejection::Rejected;
use super::time::Millis;
use crate::contract::{PhaseName, PipelineExecutionStatus};

/// A phase that a pipeline can have, in the order in which phases run (that of the pipeline `comprehensive`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Corrects spelling; hands on new texts.
    Spellcheck,
    /// Ranks the essays of the whole batch against each other.
    CjAssessment,
    /// Analyses the language.
    Nlp,
    /// Writes feedback.
    AiFeedback,
}

impl JsonSchema for Phase {
    fn schema_name() -> Cow<'static, str> {
        "Phase".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": Self::ALL.map(|phase| phase.name().as_str()) })
    }
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Spellcheck, Self::CjAssessment, Self::Nlp, Self::AiFeedback];

    /// Its place in [`Phase::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> PhaseName {
        match self {
            Self::Spellcheck => PhaseName::Spellcheck,
            Self::CjAssessment => PhaseName::CjAssessment,
            Self::Nlp => PhaseName::Nlp,
            Self::AiFeedback => PhaseName::AiFeedback,
        }
    }

    /// The phase of this name; none for `student_matching`, which belongs to readiness.
    #[must_use]
    pub const fn from_name(name: PhaseName) -> Option<Self> {
        match name {
            PhaseName::Spellcheck => Some(Self::Spellcheck),
            PhaseName::CjAssessment => Some(Self::CjAssessment),
            PhaseName::Nlp => Some(Self::Nlp),
            PhaseName::AiFeedback => Some(Self::AiFeedback),
            PhaseName::StudentMatching => None,
        }
    }

    /// Whether the phase judges a batch as a whole, so that it is only ever retried whole.
    #[must_use]
    pub const fn is_whole_batch_only(self) -> bool {
        match self {
            Self::CjAssessment => true,
            Self::Spellcheck | Self::Nlp | Self::AiFeedback => false,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name().as_str())
    }
}

/// Reads a phase's name in any case (contract, HTTP, retry-phase).
impl FromStr for Phase {
    type Err = Rejected;

    fn from_str(name: &str) -> Result<Self, Rejected> {
        Self::ALL
            .into_iter()
            .find(|phase| phase.name().as_str().eq_ignore_ascii_case(name))
            .ok_or_else(|| Rejected::UnknownPhase { name: name.chars().take(100).collect() })
    }
}

/// What is known of one phase of one batch, once it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct PhaseRecord {
    /// Where it stands.
    pub state: PhaseState,
    /// How many attempts it has had, the open one included. Attempts are numbered from 1 without holes.
    pub attempts: u32,
    /// How many of the attempts users asked for.
    pub user_retries: u32,
    /// When a user last did.
    pub retried_at: Option<Millis>,
    /// Traces of the newest attempts' correlation ids, the newest last. Two different ids seldom have the same trace,
    /// and then one is derived without need.
    pub id_traces: Vec<u32>,
    /// How each essay came out, by slot. Shared between versions of the record that did not touch it, which is how the
    /// store knows what to write.
    pub results: Arc<Vec<EssayResult>>,
}

impl PhaseRecord {
    /// How many attempts have ended.
    #[must_use]
    pub fn ended_attempts(&self) -> u32 {
        self.attempts.saturating_sub(u32::from(self.state.open_attempt().is_some()))
    }

    /// A phase that was just asked for, in a batch of `essays` essays.
    #[must_use]
    pub fn untried(essays: usize) -> Self {
        let results = Arc::new(vec![EssayResult::NotRun; essays]);
        Self {
            state: PhaseState::PendingDependencies { scope: Scope::Whole, before: None },
            attempts: 0,
            user_retries: 0,
            retried_at: None,
            id_traces: Vec::new(),
            results,
        }
    }

    /// What the phase failed with last: the last attempt's error, else that of the first essay that failed.
    #[must_use]
    pub fn error(&self) -> Option<&PhaseError> {
        let last = self.state.attempt().and_then(|attempt| attempt.end.as_ref()).and_then(|end| end.error.as_ref());
        last.or_else(|| {
            self.results.iter().find_map(|result| match result {
                EssayResult::Failed { error, .. } => error.as_ref(),
                EssayResult::NotRun | EssayResult::Succeeded(_) => None,
            })
        })
    }

    /// Counts the next attempt: its number, and a correlation id that no other of the newest attempts has. That is
    /// `wanted`, unless a client used one id for several requests.
    pub(super) fn count_attempt(&mut self, phase: Phase, wanted: Uuid) -> (u32, Uuid) {
        self.attempts += 1;
        let mut correlation_id = wanted;
        if self.id_traces.contains(&trace_of(correlation_id)) {
            correlation_id = Uuid::new_v5(&wanted, format!("{phase}/{}", self.attempts).as_bytes());
        }
        if self.id_traces.len() == MAX_TRACES {
            self.id_traces.remove(0);
        }
        self.id_traces.push(trace_of(correlation_id));
        (self.attempts, correlation_id)
    }
}

/// How many attempts back a correlation id is remembered. An outcome that is later than so many attempts is not
/// expected, and one that echoes its attempt's number is recognised all the same.
const MAX_TRACES: usize = 32;

fn trace_of(id: Uuid) -> u32 {
    let words = id.as_bytes().chunks_exact(4);
    words.fold(0, |trace, word| trace ^ u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
}

/// Where a phase stands. Each state carries only what is known in it.
#[derive(Debug, Clone, PartialEq)]
pub enum PhaseState {
    /// It waits for other phases of its pipeline, or for its turn.
    PendingDependencies {
        /// What it will run on.
        scope: Scope,
        /// Its last attempt, where it had completed and runs again because of a phase above.
        before: Option<Arc<Attempt>>,
    },
    /// A user asked for it again, and another phase of the batch is running.
    Requested {
        /// The attempt that is going to be dispatched.
        attempt: Arc<Attempt>,
    },
    /// Its command is on its way to a worker.
    Dispatched {
        /// The open attempt.
        attempt: Arc<Attempt>,
        /// When it counts as failed.
        deadline: Millis,
    },
    /// A worker has it.
    InProgress {
        /// The open attempt.
        attempt: Arc<Attempt>,
        /// When it counts as failed.
        deadline: Millis,
    },
    /// It failed for a transient reason, and is going to be tried again by itself.
    BackingOff {
        /// The last attempt.
        attempt: Arc<Attempt>,
        /// What the next one runs on.
        scope: Scope,
        /// When that is.
        again_at: Millis,
    },
    /// Every essay it got succeeded.
    Succeeded {
        /// The last attempt.
        attempt: Arc<Attempt>,
    },
    /// Some of the essays it got succeeded.
    PartiallySucceeded {
        /// The last attempt.
        attempt: Arc<Attempt>,
    },
    /// None of the essays it got succeeded.
    Failed {
        /// The last attempt.
        attempt: Arc<Attempt>,
    },
    /// A user stopped it.
    Cancelled {
        /// The last attempt, where it had one in this run.
        attempt: Option<Arc<Attempt>>,
    },
    /// A phase it depends on failed.
    SkippedDependency {
        /// That phase.
        because: Phase,
    },
}

impl PhaseState {
    /// The state's name on the wire.
    #[must_use]
    pub const fn status(&self) -> PipelineExecutionStatus {
        match self {
            Self::PendingDependencies { .. } => PipelineExecutionStatus::PendingDependencies,
            Self::Requested { .. } => PipelineExecutionStatus::RequestedByUser,
            Self::Dispatched { .. } => PipelineExecutionStatus::DispatchInitiated,
            // To everybody else the phase is not over, and none of the wire's names says more.
            Self::InProgress { .. } | Self::BackingOff { .. } => PipelineExecutionStatus::InProgress,
            Self::Succeeded { .. } => PipelineExecutionStatus::CompletedSuccessfully,
            Self::PartiallySucceeded { .. } => PipelineExecutionStatus::CompletedWithPartialSuccess,
            Self::Failed { .. } => PipelineExecutionStatus::Failed,
            Self::Cancelled { .. } => PipelineExecutionStatus::Cancelled,
            Self::SkippedDependency { .. } => PipelineExecutionStatus::SkippedDueToDependencyFailure,
        }
    }

    /// Whether what depends on the phase can run.
    #[must_use]
    pub const fn is_completed(&self) -> bool {
        match self {
            Self::Succeeded { .. } | Self::PartiallySucceeded { .. } => true,
            Self::PendingDependencies { .. }
            | Self::Requested { .. }
            | Self::Dispatched { .. }
            | Self::InProgress { .. }
            | Self::BackingOff { .. }
            | Self::Failed { .. }
            | Self::Cancelled { .. }
            | Self::SkippedDependency { .. } => false,
        }
    }

    /// Whether the phase has its turn: a worker has it, is about to get it, or is about to get it again.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        match self {
            Self::Dispatched { .. } | Self::InProgress { .. } | Self::BackingOff { .. } => true,
            Self::PendingDependencies { .. }
            | Self::Requested { .. }
            | Self::Succeeded { .. }
            | Self::PartiallySucceeded { .. }
            | Self::Failed { .. }
            | Self::Cancelled { .. }
            | Self::SkippedDependency { .. } => false,
        }
    }

    /// Whether the phase is to run and has not had its turn.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        match self {
            Self::PendingDependencies { .. } | Self::Requested { .. } => true,
            Self::Dispatched { .. }
            | Self::InProgress { .. }
            | Self::BackingOff { .. }
            | Self::Succeeded { .. }
            | Self::PartiallySucceeded { .. }
            | Self::Failed { .. }
            | Self::Cancelled { .. }
            | Self::SkippedDependency { .. } => false,
        }
    }

    /// The attempt that a worker has or is about to get, with its deadline.
    #[must_use]
    pub const fn in_flight(&self) -> Option<(&Arc<Attempt>, Millis)> {
        match self {
            Self::Dispatched { attempt, deadline } | Self::InProgress { attempt, deadline } => {
                Some((attempt, *deadline))
            }
            Self::PendingDependencies { .. }
            | Self::Requested { .. }
            | Self::BackingOff { .. }
            | Self::Succeeded { .. }
            | Self::PartiallySucceeded { .. }
            | Self::Failed { .. }
            | Self::Cancelled { .. }
            | Self::SkippedDependency { .. } => None,
        }
    }

    /// Since when the phase has been over half its deadline, if it has.
    #[must_use]
    pub fn stuck_since(&self, now: Millis) -> Option<Millis> {
        let (attempt, deadline) = self.in_flight()?;
        let began = attempt.started_at.or(attempt.dispatched_at)?;
        // A lease is short and goes on as long as its worker lives; what it is measured by is the end of the attempt.
        let deadline = attempt.lease.as_ref().map_or(deadline, |lease| lease.until);
        let half = began.plus(deadline.since(began) / 2);
        (half <= now).then_some(half)
    }

    /// The attempt that has not ended, if there is one.
    #[must_use]
    pub const fn open_attempt(&self) -> Option<&Arc<Attempt>> {
        match self {
            Self::Requested { attempt } | Self::Dispatched { attempt, .. } | Self::InProgress { attempt, .. } => {
                Some(attempt)
            }
            Self::PendingDependencies { .. }
            | Self::BackingOff { .. }
            | Self::Succeeded { .. }
            | Self::PartiallySucceeded { .. }
            | Self::Failed { .. }
            | Self::Cancelled { .. }
            | Self::SkippedDependency { .. } => None,
        }
    }

    /// The attempt that the state is about: the open one, or the last.
    #[must_use]
    pub const fn attempt(&self) -> Option<&Arc<Attempt>> {
        match self {
            Self::Requested { attempt }
            | Self::Dispatched { attempt, .. }
            | Self::InProgress { attempt, .. }
            | Self::BackingOff { attempt, .. }
            | Self::Succeeded { attempt }
            | Self::PartiallySucceeded { attempt }
            | Self::Failed { attempt } => Some(attempt),
            Self::Cancelled { attempt } => attempt.as_ref(),
            Self::PendingDependencies { .. } | Self::SkippedDependency { .. } => None,
        }
    }
}

/// How one essay came out of a phase.
#[derive(Debug, Clone, PartialEq)]
pub enum EssayResult {
    /// The phase never got it.
    NotRun,
    /// It came out.
    Succeeded(EssayOutput),
    /// It did not.
    Failed {
        /// The version of the batch in which the phase got the essay: what the phases before made later, it has not seen.
        made_from: u64,
        /// Why, where the worker said so about this essay.
        error: Option<PhaseError>,
    },
}

/// What an essay came out with; the next phase gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct EssayOutput {
    /// The version of the batch that it came with.
    pub made_at: u64,
    /// The version of the batch in which the phase got the essay: what the phases before made later, it has not seen.
    pub made_from: u64,
    /// Where its text lies now.
    pub text_storage_id: String,
    /// What the spellcheck measured; handed on as it came.
    pub spellcheck_metrics: Option<Value>,
}
