//! Commands: what the orchestrator tells the phase services to do.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::enums::CourseCode;
use super::names::EventName;
use super::shared::{EssayRef, StorageReferences};
use super::text::Text;

/// The members that every command of a phase has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandBase {
    /// Which command it is.
    pub event_name: EventName,
    /// The batch.
    #[serde(default)]
    pub entity_id: Option<String>,
    /// `batch`.
    #[serde(default)]
    pub entity_type: Option<String>,
    /// Nothing, for a batch.
    #[serde(default)]
    pub parent_id: Option<String>,
    /// When the command was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// The essays to run on.
    pub essays_to_process: Vec<EssayRef>,
}

/// `BatchServiceSpellcheckInitiateCommandDataV1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpellcheckInitiate {
    /// What every command has.
    #[serde(flatten)]
    pub base: CommandBase,
    /// The language of the essays.
    pub language: String,
}

/// `BatchServiceNLPInitiateCommandDataV2`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NlpInitiate {
    /// What every command has.
    #[serde(flatten)]
    pub base: CommandBase,
    /// The language of the essays.
    pub language: String,
    /// What the students were asked to write.
    #[serde(default)]
    pub student_prompt_ref: Option<StorageReferences>,
}

/// `BatchServiceCJAssessmentInitiateCommandDataV1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CjAssessmentInitiate {
    /// What every command has.
    #[serde(flatten)]
    pub base: CommandBase,
    /// The language of the essays.
    pub language: String,
    /// The course of the batch.
    pub course_code: CourseCode,
    /// What the students were asked to write.
    #[serde(default)]
    pub student_prompt_ref: Option<StorageReferences>,
    /// `GUEST` or `REGULAR`.
    pub class_type: String,
    /// The assignment, which names a prompt of its own.
    #[serde(default)]
    pub assignment_id: Option<Text<0, 100>>,
}

/// `BatchServiceAIFeedbackInitiateCommandDataV1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AiFeedbackInitiate {
    /// What every command has.
    #[serde(flatten)]
    pub base: CommandBase,
    /// The language of the essays.
    pub language: String,
    /// The course of the batch.
    pub course_code: CourseCode,
    /// What the students were asked to write.
    #[serde(default)]
    pub student_prompt_ref: Option<StorageReferences>,
    /// `GUEST` or `REGULAR`.
    pub class_type: String,
    /// The owner of the batch.
    pub owner_user_id: String,
}

/// `BatchServiceStudentMatchingInitiateCommandDataV1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudentMatchingInitiate {
    /// What every command has.
    #[serde(flatten)]
    pub base: CommandBase,
    /// The class whose students are looked for.
    pub class_id: String,
    /// The course of the batch.
    pub course_code: CourseCode,
}

/// `BatchStudentMatchingRequestedV1`: what the lifecycle service makes of a [`StudentMatchingInitiate`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudentMatchingRequested {
    /// Which command it is.
    #[serde(default = "student_matching_requested")]
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
    /// When the command was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// The batch.
    pub batch_id: String,
    /// The essays to match.
    pub essays_to_process: Vec<EssayRef>,
    /// The class whose students are looked for.
    pub class_id: String,
    /// The course of the batch.
    pub course_code: CourseCode,
}

fn student_matching_requested() -> EventName {
    EventName::BatchStudentMatchingRequested
}
