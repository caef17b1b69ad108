//! Events: what has happened to a batch.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::enums::{BatchStatus, CourseCode, NotificationCategory, NotificationPriority, PhaseName, ValidationMethod};
use super::names::{ErrorCode, EventName};
use super::shared::{EssayRef, StorageReferences, SystemMetadata};

/// Default of an `event` or `event_name` member: the event's own name.
macro_rules! default_names {
    ($($function:ident -> $name:expr;)+) => {
        $(fn $function() -> String { $name.to_owned() })+
    };
}

default_names! {
    registered -> EventName::BatchEssaysRegistered.as_str();
    provisioned -> EventName::EssayContentProvisioned.as_str();
    provisioning_completed -> EventName::BatchContentProvisioningCompleted.as_str();
    ready -> EventName::BatchEssaysReady.as_str();
    validation_errors -> "batch.validation.errors.v1";
    phase_skipped -> EventName::BatchPhaseSkipped.as_str();
    pipeline_completed -> EventName::BatchPipelineCompleted.as_str();
}

fn pipeline_denied() -> EventName {
    EventName::PipelineDenied
}

fn associations_confirmed() -> EventName {
    EventName::StudentAssociationsConfirmed
}

fn already_completed() -> String {
    "already_completed".to_owned()
}

/// `BatchEssaysRegistered`: a batch with N essay slots exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchEssaysRegistered {
    /// The event's name.
    #[serde(default = "registered")]
    pub event: String,
    /// The batch.
    pub entity_id: String,
    /// How many essays are expected.
    pub expected_essay_count: u32,
    /// Their ids.
    pub essay_ids: Vec<String>,
    /// What the event is about.
    pub metadata: SystemMetadata,
    /// The course.
    pub course_code: CourseCode,
    /// What the students were asked to write.
    #[serde(default)]
    pub student_prompt_ref: Option<StorageReferences>,
    /// The owner.
    pub user_id: String,
    /// The owner's organisation.
    #[serde(default)]
    pub org_id: Option<String>,
    /// The class of a regular batch.
    #[serde(default)]
    pub class_id: Option<String>,
}

/// `EssayContentProvisionedV1`: one slot has text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EssayContentProvisioned {
    /// The event's name.
    #[serde(default = "provisioned")]
    pub event: String,
    /// The batch.
    pub entity_id: String,
    /// The upload.
    pub file_upload_id: String,
    /// The file's name, as the user had it.
    pub original_file_name: String,
    /// Where the file is stored.
    pub raw_file_storage_id: String,
    /// Where its text is stored.
    pub text_storage_id: String,
    /// The file's size, in bytes.
    pub file_size_bytes: u64,
    /// MD5 of the content, in hex.
    #[serde(default)]
    pub content_md5_hash: Option<String>,
    /// What connects all that one request caused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Uuid>,
    /// When it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
}

/// `BatchContentProvisioningCompletedV1`: all slots are filled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchContentProvisioningCompleted {
    /// The event's name.
    #[serde(default = "provisioning_completed")]
    pub event: String,
    /// The batch.
    pub batch_id: String,
    /// Essays that have text.
    pub provisioned_count: u32,
    /// Essays that were expected.
    pub expected_count: u32,
    /// The course.
    pub course_code: CourseCode,
    /// The owner.
    pub user_id: String,
    /// The essays, in the order of their slots.
    pub essays_for_processing: Vec<EssayRef>,
    /// What connects all that one request caused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Uuid>,
    /// When it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
}

/// `BatchEssaysReady`: the essays of a regular batch are stored, with their students.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchEssaysReady {
    /// The event's name.
    #[serde(default = "ready")]
    pub event: String,
    /// The batch.
    pub batch_id: String,
    /// The essays.
    pub ready_essays: Vec<EssayRef>,
    /// What the event is about.
    pub metadata: SystemMetadata,
    /// The course.
    pub course_code: CourseCode,
    /// The language of the course.
    pub course_language: String,
    /// What the students were asked to write.
    #[serde(default)]
    pub student_prompt_ref: Option<StorageReferences>,
    /// `GUEST` or `REGULAR`.
    pub class_type: String,
}

/// `BatchValidationErrorsV1`: some essays could not be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchValidationErrors {
    /// The event's name.
    #[serde(default = "validation_errors")]
    pub event: String,
    /// The batch.
    pub batch_id: String,
    /// The essays that could not be read.
    pub failed_essays: Vec<EssayValidationError>,
    /// How many, and of which kinds.
    pub error_summary: BatchErrorSummary,
    /// What connects all that one request caused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Uuid>,
    /// What the event is about.
    pub metadata: SystemMetadata,
}

/// One essay of [`BatchValidationErrors`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EssayValidationError {
    /// The essay.
    pub essay_id: String,
    /// Its file.
    pub file_name: String,
    /// What is wrong with it.
    pub error_detail: ErrorDetail,
    /// When that was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
}

/// An error as the services of the full stack pass it on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// Which error it is.
    pub error_code: ErrorCode,
    /// What a person reads.
    pub message: String,
    /// What connects all that one request caused.
    pub correlation_id: Uuid,
    /// When it happened.
    pub timestamp: Timestamp,
    /// Where it happened.
    pub service: String,
    /// What was being done.
    pub operation: String,
    /// Free in form.
    #[serde(default)]
    pub details: Map<String, Value>,
    /// Of a debug build only.
    #[serde(default)]
    pub stack_trace: Option<String>,
    /// W3C trace id.
    #[serde(default)]
    pub trace_id: Option<String>,
    /// W3C span id.
    #[serde(default)]
    pub span_id: Option<String>,
}

/// The sum of a [`BatchValidationErrors`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchErrorSummary {
    /// How many essays failed.
    pub total_errors: u32,
    /// How many of each kind.
    pub error_categories: BTreeMap<String, i64>,
    /// Whether the batch has no essay left.
    #[serde(default)]
    pub critical_failure: bool,
}

/// `StudentAssociationsConfirmedV1`: the essays of a regular batch have students.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudentAssociationsConfirmed {
    /// The event's name.
    #[serde(default = "associations_confirmed")]
    pub event_name: EventName,
    /// The batch, again.
    #[serde(default)]
    pub entity_id: Option<String>,
    /// `batch`.
    #[serde(default)]
    pub entity_type: Option<String>,
    /// Nothing, for a batch.
    #[serde(default)]
    pub parent_id: Option<String>,
    /// When it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// The batch.
    pub batch_id: String,
    /// The class.
    pub class_id: String,
    /// The course.
    pub course_code: CourseCode,
    /// Which essay is whose.
    pub associations: Vec<StudentAssociation>,
    /// Whether nobody confirmed in time.
    #[serde(default)]
    pub timeout_triggered: bool,
    /// How many by each method.
    pub validation_summary: BTreeMap<String, i64>,
}

/// One essay of [`StudentAssociationsConfirmed`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudentAssociation {
    /// The essay.
    pub essay_id: String,
    /// Its student, where one was found.
    pub student_id: Option<String>,
    /// How sure the match is, 0 to 1.
    pub confidence_score: f64,
    /// How it was confirmed.
    pub validation_method: ValidationMethod,
    /// By whom.
    pub validated_by: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validated_at: Option<Timestamp>,
}

/// `ELSBatchPhaseOutcomeV1`: a phase is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchPhaseOutcome {
    /// The batch.
    pub batch_id: String,
    /// The phase.
    pub phase_name: PhaseName,
    /// `completed_successfully`, `completed_with_failures`, or anything else: failed (contract, Who sends what).
    pub phase_status: BatchStatus,
    /// The essays that came out, with where their text lies now.
    pub processed_essays: Vec<EssayRef>,
    /// The essays that did not.
    pub failed_essay_ids: Vec<String>,
    /// The correlation id of the command this answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Uuid>,
}

/// `PhaseSkippedV1`: a phase left out because an earlier pipeline completed it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseSkipped {
    /// The event's name.
    #[serde(default = "phase_skipped")]
    pub event: String,
    /// The batch.
    pub batch_id: String,
    /// The phase.
    pub phase_name: String,
    /// Why.
    #[serde(default = "already_completed")]
    pub skip_reason: String,
    /// Where the earlier result lies, where it is one thing.
    #[serde(default)]
    pub storage_id: Option<String>,
    /// What connects all that one request caused.
    pub correlation_id: Uuid,
    /// What the event is about.
    pub metadata: SystemMetadata,
}

/// `BatchPipelineCompletedV1`: no phase is left to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchPipelineCompleted {
    /// The event's name.
    #[serde(default = "pipeline_completed")]
    pub event: String,
    /// The batch.
    pub batch_id: String,
    /// The phases that are complete, in the order they run.
    pub completed_phases: Vec<String>,
    /// How the batch came out.
    pub final_status: BatchStatus,
    /// From the request to now, in seconds.
    pub processing_duration_seconds: f64,
    /// Essays that came out of every phase asked for.
    pub successful_essay_count: u32,
    /// The others.
    pub failed_essay_count: u32,
    /// What connects all that one request caused.
    pub correlation_id: Uuid,
    /// What the event is about.
    pub metadata: SystemMetadata,
}

/// `PipelineDeniedV1`: not enough credits, or too many requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineDenied {
    /// The event's name.
    #[serde(default = "pipeline_denied")]
    pub event_name: EventName,
    /// The batch, again.
    #[serde(default)]
    pub entity_id: Option<String>,
    /// `batch`.
    #[serde(default)]
    pub entity_type: Option<String>,
    /// Nothing, for a batch.
    #[serde(default)]
    pub parent_id: Option<String>,
    /// When it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// The batch.
    pub batch_id: String,
    /// The owner.
    pub user_id: String,
    /// The owner's organisation.
    #[serde(default)]
    pub org_id: Option<String>,
    /// What was asked for.
    pub requested_pipeline: String,
    /// `insufficient_credits` or `rate_limit_exceeded`.
    pub denial_reason: String,
    /// What it would have cost, in credits.
    pub required_credits: i64,
    /// What was there, in credits.
    pub available_credits: i64,
    /// The cost by resource.
    #[serde(default)]
    pub resource_breakdown: Option<BTreeMap<String, i64>>,
    /// When it was denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_at: Option<Timestamp>,
}

/// `TeacherNotificationRequestedV1`: one line for one user. Its payload is open in form; those that are written here are
/// [`Payload`](super::notifications::Payload).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TeacherNotificationRequested<P = Map<String, Value>> {
    /// Whom it is for.
    pub teacher_id: String,
    /// What it says (contract, Notifications).
    pub notification_type: String,
    /// What it is about.
    pub category: NotificationCategory,
    /// How urgent it is.
    pub priority: NotificationPriority,
    /// The details.
    pub payload: P,
    /// Whether the user has to do something.
    #[serde(default)]
    pub action_required: bool,
    /// Until when.
    #[serde(default)]
    pub deadline_timestamp: Option<Timestamp>,
    /// What connects all that one request caused.
    pub correlation_id: String,
    /// The batch.
    #[serde(default)]
    pub batch_id: Option<String>,
    /// The class.
    #[serde(default)]
    pub class_id: Option<String>,
    /// When it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
}
