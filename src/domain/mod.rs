//! What a batch is and how it moves: phases, pipelines, retry rules, and [`step()`], which everything goes through.
//!
//! Owns every decision. Pure: no I/O, no clock, no randomness, nothing asynchronous; `now` and every id come in with
//! the input, effects go out as data. It knows the contract's types and nothing else of the program.

mod attempt;
mod audit;
mod batch;
mod credits;
mod dead_letter;
mod errors;
mod essays;
mod event_log;
pub mod history;
mod listing;
mod phase;
mod pipeline;
mod rejection;
mod retry_job;
pub mod step;
mod time;
pub mod view;

pub use attempt::{Attempt, AttemptEnd, AttemptOutcome, Lease, Origin, Scope, Trigger};
pub use batch::{Batch, BatchDetails, BatchId, Class, Essay, EssayContent, Run, Slot};
pub use credits::{
    Account, Balance, Balances, Charge, Cost, Denial, DenialReason, Funds, MAX_BALANCES, MAX_CREDITS, Preflight, Quote,
};
pub use dead_letter::{DeadLetter, Decision, LetterChange, LetterEvent, LetterId, LetterState};
pub use errors::{Category, MAX_ERROR_MESSAGE_CHARS, PhaseError, RetryPolicy};
pub use essays::EssayCounts;
pub use event_log::{EventGroup, EventId, GroupPlace, NoEventGroup, NoEventId};
pub use listing::{Facet, Filter};
pub use phase::{EssayOutput, EssayResult, Phase, PhaseRecord, PhaseState};
pub use pipeline::{ResolveError, dependencies, dependents, needs_prompt, resolve};
pub use rejection::{Rejected, RejectionKind};
pub use retry_job::{JobId, JobMember, JobState, MemberOutcome, MemberResult, RetryJob};
pub use step::{Context, Effect, Input, LateOutcome, Outgoing, Rules, Step, Timer, TimerKind, denied, step};
pub use time::Millis;

/// The most essays that a batch can have. A comparative judgement of so many already takes half a million comparisons,
/// and one command with all of them stays below a megabyte.
pub const MAX_ESSAYS: usize = 1_000;
