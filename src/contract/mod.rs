//! What the full stack says on the wire: envelope, topics, commands, events, pipeline state, error codes.
//!
//! Owns the names, shapes and limits of messages and of the idempotency keys made from them. Serde only: it knows no
//! domain rule, no clock and no I/O. A consumer ignores fields it does not know and fills the defaults of those that
//! are missing; a producer writes every field, nulls included. A field whose default the producer would have made up
//! (an id, a timestamp) is an `Option` here and stays absent where it was absent.

pub mod commands;
pub mod enums;
mod envelope;
pub mod events;
pub mod idempotency;
mod message;
mod names;
pub mod notifications;
mod pipeline_state;
pub mod requests;
mod shared;
mod text;
mod time;
mod topics;

pub use enums::{
    BatchClientStatus, BatchStatus, ContentType, CourseCode, Language, PhaseName, PipelineExecutionStatus,
};
pub use envelope::{Envelope, SCHEMA_VERSION, is_traceparent, metadata, span_of, traceparent_of_span};
pub use message::{Group, Headers, Message};
pub use names::{ErrorCode, EventName};
pub use notifications::Notice;
pub use pipeline_state::{EssayProcessingCounts, PipelineStateDetail, ProcessingPipelineState};
pub use shared::{EssayRef, MAX_REFERENCE_CHARS, MAX_REFERENCE_MEMBERS, StorageReferences, SystemMetadata};
pub use text::{Text, TextError};
pub use time::Time;
pub use topics::Topic;

/// The names of the services of the full stack, as `source_service` and idempotency keys carry them
/// (contract, Who sends what).
pub mod services {
    /// The orchestrator, when it announces a registration; also its name inside idempotency keys.
    pub const REGISTRATION: &str = "batch-service";
    /// The orchestrator, when it sends a phase command.
    pub const COMMANDS: &str = "batch-orchestrator-service";
    /// The orchestrator, when it sends anything else.
    pub const ORCHESTRATOR: &str = "batch_orchestrator_service";
    /// The conductor, which prunes pipelines.
    pub const CONDUCTOR: &str = "batch_conductor_service";
    /// The essay lifecycle service, which runs the phases.
    pub const LIFECYCLE: &str = "essay_lifecycle_service";
    /// Class management, which knows whose an essay is.
    pub const CLASSES: &str = "class_management_service";
    /// The gateway, which turns client requests into messages.
    pub const GATEWAY: &str = "api_gateway_service";
}
