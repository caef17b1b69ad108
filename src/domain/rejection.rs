//! Why a step was refused. A refusal changes nothing.

use super::batch::Slot;
use super::credits::{Denial, DenialReason};
use super::phase::Phase;
use crate::contract::{BatchStatus, PipelineExecutionStatus};

/// An input that the batch, as it stands, does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Nobody registered this batch.
    #[error("there is no such batch")]
    NoSuchBatch,
    /// The id is taken.
    #[error("the batch is registered already")]
    AlreadyRegistered,
    /// The batch is not in the version that the request is about.
    #[error("the batch has moved: it is in version {version} now")]
    Moved {
        /// Its version.
        version: u64,
    },
    /// The registration asks for something that cannot be.
    #[error("{field}: {reason}")]
    InvalidRegistration {
        /// The member of the request.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Somebody else owns the batch.
    #[error("only the owner of the batch may do this")]
    NotOwner,
    /// Not a phase of a pipeline.
    #[error("there is no phase '{name}'; there are spellcheck, cj_assessment, nlp and ai_feedback")]
    UnknownPhase {
        /// The name, shortened.
        name: String,
    },
    /// More essays than there are empty slots.
    #[error("{sent} essay(s) were sent and {left} slot(s) are left; none was taken")]
    TooManyEssays {
        /// Essays sent.
        sent: usize,
        /// Slots left.
        left: usize,
    },
    /// The essays are not all there, or the batch cannot be worked on at all.
    #[error("the batch is {status}; a pipeline needs all of its essays first")]
    NotReady {
        /// Where the batch stands.
        status: BatchStatus,
    },
    /// One pipeline at a time.
    #[error("a pipeline of this batch is running; wait until it has completed")]
    PipelineActive,
    /// There are not enough credits, or the user asks for too many pipelines.
    #[error("{}", .0.message())]
    Denied(Denial),
    /// A phase of the pipeline needs to know what the students were asked to write.
    #[error("{phase} needs a prompt: register the batch with student_prompt_ref, or send prompt_payload")]
    PromptMissing {
        /// The first such phase.
        phase: Phase,
    },
    /// `prompt_payload` must have exactly one of its members.
    #[error("prompt_payload needs exactly one of assignment_id and cms_prompt_ref")]
    PromptAmbiguous,
    /// The reference to the prompt is larger than a reference can be.
    #[error(
        "the prompt reference has more than {max_members} members in one place, or a string of more than {max_chars} characters"
    )]
    PromptTooLarge {
        /// The most members of one content type.
        max_members: usize,
        /// The most characters of one string.
        max_chars: usize,
    },
    /// Nothing is running.
    #[error("no pipeline of this batch is running, so there is nothing to cancel")]
    NothingToCancel,
    /// The prompt can be amended only before the first pipeline.
    #[error("processing has begun; the prompt can no longer be changed")]
    ProcessingHasBegun,
    /// No pipeline was ever asked for.
    #[error("no pipeline of this batch was ever requested, so there is nothing to retry")]
    NoPipelineState,
    /// The phase was never asked for.
    #[error("{phase} was never requested for this batch; request the pipeline {phase} instead")]
    PhaseNeverRequested {
        /// The phase.
        phase: Phase,
    },
    /// The phase is on its way or running.
    #[error("{phase} is {status}; it can be retried once it has ended")]
    PhaseRunning {
        /// The phase.
        phase: Phase,
        /// Its status.
        status: PipelineExecutionStatus,
    },
    /// A phase before it has not completed.
    #[error("{phase} needs {dependency}, which is {status}; {}", advice(*dependency, *status))]
    DependencyMissing {
        /// The phase asked for.
        phase: Phase,
        /// The phase it needs.
        dependency: Phase,
        /// Where that one stands.
        status: PipelineExecutionStatus,
    },
    /// The phase, or each essay asked for, completed.
    #[error("{phase} has completed for what was asked; only a retry with \"force\": true runs it again")]
    AlreadyCompleted {
        /// The phase.
        phase: Phase,
    },
    /// The phase judges the batch as a whole.
    #[error(
        "{phase} ranks the whole batch against itself and is only ever retried whole; leave essay_ids and only_failed out"
    )]
    WholeBatchOnly {
        /// The phase.
        phase: Phase,
    },
    /// Essays of another batch, or of none.
    #[error("the batch has no essay '{essay_id}'")]
    UnknownEssay {
        /// The first of them, shortened.
        essay_id: String,
    },
    /// No essay failed there.
    #[error("no essay failed in {phase}, and none is missing")]
    NothingFailed {
        /// The phase.
        phase: Phase,
    },
    /// Users have retried the phase as often as they can.
    #[error("{phase} of this batch was retried {limit} times by its user; that is the limit of this server")]
    TooManyRetries {
        /// The phase.
        phase: Phase,
        /// How many there can be.
        limit: u32,
    },
    /// Users have to wait between retries.
    #[error("{phase} of this batch was retried a moment ago; wait {wait_ms} ms")]
    RetriedJustNow {
        /// The phase.
        phase: Phase,
        /// How much longer, in milliseconds.
        wait_ms: u64,
        /// How many retries there can be.
        limit: u32,
    },
    /// An empty list says nothing.
    #[error("essay_ids is empty; leave it out to retry the whole phase")]
    NoEssays,
    /// The essay did not come through the phases before.
    #[error("the essay in slot {slot} has not come through the phases that {phase} needs")]
    EssayNotThrough {
        /// The phase asked for.
        phase: Phase,
        /// The essay's slot.
        slot: Slot,
    },
    /// The outcome, start or deadline of an attempt that is not the open one.
    #[error("{phase} has no open attempt that this belongs to")]
    StaleAttempt {
        /// The phase.
        phase: Phase,
    },
    /// A word of a worker whose lease is over.
    #[error("this lease of {phase} is over: it ran out, its attempt has ended, or there is a newer one")]
    LeaseOver {
        /// The phase.
        phase: Phase,
    },
    /// Work that is not what the task was.
    #[error("essays: {essay_id} {reason}")]
    NotTheTask {
        /// The first such essay, shortened.
        essay_id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More essays than the task has.
    #[error("progress: the task has {essays} essays")]
    TooMuchDone {
        /// How many it has.
        essays: usize,
    },
    /// A message that contradicts the batch.
    #[error("the message does not fit the batch: {reason}")]
    Inconsistent {
        /// In which way.
        reason: &'static str,
    },
}

/// What to do about a dependency that is not there.
fn advice(dependency: Phase, status: PipelineExecutionStatus) -> String {
    match status {
        PipelineExecutionStatus::RequestedByUser
        | PipelineExecutionStatus::PendingDependencies
        | PipelineExecutionStatus::DispatchInitiated
        | PipelineExecutionStatus::InProgress => format!("wait until {dependency} has completed"),
        PipelineExecutionStatus::CompletedSuccessfully
        | PipelineExecutionStatus::CompletedWithPartialSuccess
        | PipelineExecutionStatus::Failed
        | PipelineExecutionStatus::SkippedDueToDependencyFailure
        | PipelineExecutionStatus::SkippedByUserConfig
        | PipelineExecutionStatus::Cancelled => format!("retry {dependency} first"),
    }
}

/// What a caller can do about a [`Rejected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionKind {
    /// Send something else.
    Invalid,
    /// Be somebody else.
    Forbidden,
    /// Name something else.
    NotFound,
    /// Wait, or change something first.
    Conflict,
    /// Look again.
    Moved,
    /// Have more credits.
    Unpaid,
    /// Ask less often.
    Limited {
        /// How many there can be.
        limit: u32,
        /// How long to wait, in milliseconds, where that helps.
        wait_ms: Option<u64>,
    },
}

impl Rejected {
    /// What a caller can do about it.
    #[must_use]
    pub const fn kind(&self) -> RejectionKind {
        match self {
            Self::NotOwner => RejectionKind::Forbidden,
            Self::Moved { .. } => RejectionKind::Moved,
            Self::Denied(Denial { reason: DenialReason::InsufficientCredits, .. }) => RejectionKind::Unpaid,
            Self::TooManyRetries { limit, .. } => RejectionKind::Limited { limit: *limit, wait_ms: None },
            Self::Denied(Denial { reason: DenialReason::RateLimitExceeded { limit, wait_ms }, .. })
            | Self::RetriedJustNow { limit, wait_ms, .. } => {
                RejectionKind::Limited { limit: *limit, wait_ms: Some(*wait_ms) }
            }
            Self::NoSuchBatch | Self::NoPipelineState => RejectionKind::NotFound,
            Self::InvalidRegistration { .. }
            | Self::UnknownPhase { .. }
            | Self::PromptMissing { .. }
            | Self::PromptAmbiguous
            | Self::PromptTooLarge { .. }
            | Self::WholeBatchOnly { .. }
            | Self::UnknownEssay { .. }
            | Self::NotTheTask { .. }
            | Self::TooMuchDone { .. }
            | Self::NoEssays => RejectionKind::Invalid,
            Self::AlreadyRegistered
            | Self::TooManyEssays { .. }
            | Self::NotReady { .. }
            | Self::PipelineActive
            | Self::NothingToCancel
            | Self::ProcessingHasBegun
            | Self::PhaseNeverRequested { .. }
            | Self::PhaseRunning { .. }
            | Self::DependencyMissing { .. }
            | Self::AlreadyCompleted { .. }
            | Self::EssayNotThrough { .. }
            | Self::NothingFailed { .. }
            | Self::StaleAttempt { .. }
            | Self::LeaseOver { .. }
            | Self::Inconsistent { .. } => RejectionKind::Conflict,
        }
    }
}
