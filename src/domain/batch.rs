//! The record of one batch: all that a step needs to decide.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

use super::attempt::Origin;
use super::phase::{EssayResult, Phase, PhaseRecord, PhaseState};
use super::time::Millis;
use crate::contract::{BatchStatus, CourseCode, StorageReferences};

/// The id of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub Uuid);

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads the form with hyphens, in any case. The others that exist for UUIDs are not the wire's.
impl FromStr for BatchId {
    type Err = NoBatchId;

    fn from_str(text: &str) -> Result<Self, NoBatchId> {
        let id = Uuid::try_parse(text).map_err(|_| NoBatchId)?;
        if text.len() == uuid::fmt::Hyphenated::LENGTH { Ok(Self(id)) } else { Err(NoBatchId) }
    }
}

/// A text that is not the id of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a batch")]
pub struct NoBatchId;

/// The place of an essay in its batch, from 0.
pub type Slot = u16;

/// A batch. Parts that a step leaves alone are shared with the record it came from, and only the others are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Its id.
    pub id: BatchId,
    /// Counts the committed steps, from 1.
    pub version: u64,
    /// What registration fixed.
    pub details: Arc<BatchDetails>,
    /// Where it stands.
    pub status: BatchStatus,
    /// Its essays, by slot.
    pub essays: Arc<Vec<Essay>>,
    /// How many slots have text.
    pub essays_received: Slot,
    /// Its phases, by [`Phase::index`]; none for a phase nobody asked for.
    pub phases: [Option<PhaseRecord>; 4],
    /// The pipeline that is running.
    pub run: Option<Run>,
    /// When it was last changed.
    pub updated_at: Millis,
}

/// What is known of a batch from its registration on.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchDetails {
    /// The owner: the only one who may change the batch.
    pub user_id: String,
    /// The owner's organisation.
    pub org_id: Option<String>,
    /// The course; it fixes the language.
    pub course_code: CourseCode,
    /// What the students were asked to write.
    pub student_prompt_ref: Option<StorageReferences>,
    /// The assignment, which names a prompt too.
    pub assignment_id: Option<String>,
    /// Whether `assignment_id` stands for the prompt, because a pipeline request said so.
    pub assignment_is_prompt: bool,
    /// The model the comparative judgement shall use.
    pub cj_default_llm_model: Option<String>,
    /// Its temperature, 0 to 2.
    pub cj_default_temperature: Option<f64>,
    /// When the batch was registered.
    pub registered_at: Millis,
    /// The class whose students wrote the essays; none for a guest batch.
    pub class: Option<Class>,
}

/// The class of a regular batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Its id, with those who know the classes.
    pub id: String,
    /// Until when somebody has to confirm which essay is whose, once the essays are there.
    pub confirm_by: Option<Millis>,
}

impl BatchDetails {
    /// `REGULAR` for a batch with a class, else `GUEST` (contract, samples).
    #[must_use]
    pub const fn class_type(&self) -> &'static str {
        if self.class.is_some() { "REGULAR" } else { "GUEST" }
    }

    /// Whether the phases that need a prompt have one.
    #[must_use]
    pub fn has_prompt(&self) -> bool {
        let is_referred_to = self.student_prompt_ref.as_ref().is_some_and(|prompt| !prompt.references.is_empty());
        is_referred_to || self.assignment_is_prompt
    }
}

/// One essay of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Essay {
    /// Its id, unique within the batch.
    pub id: String,
    /// Its text, once it has arrived.
    pub content: Option<EssayContent>,
}

/// The text of an essay, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EssayContent {
    /// The name of the file it was in.
    pub file_name: String,
    /// Where it is stored.
    pub text_storage_id: String,
}

/// A pipeline that is running: one phase after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The correlation id of the request that started it.
    pub correlation_id: Uuid,
    /// How the request named itself.
    pub origin: Arc<Origin>,
    /// Who asked for it.
    pub requested_by: String,
    /// When.
    pub started_at: Millis,
    /// The phases that have not been dispatched yet, in the order in which they run.
    pub queue: Vec<Phase>,
}

impl Batch {
    /// The record of `phase`, if anybody asked for it yet.
    #[must_use]
    pub const fn phase(&self, phase: Phase) -> Option<&PhaseRecord> {
        self.phases[phase.index()].as_ref()
    }

    /// The state of `phase`, if anybody asked for it yet.
    #[must_use]
    pub fn phase_state(&self, phase: Phase) -> Option<&PhaseState> {
        self.phase(phase).map(|record| &record.state)
    }

    /// Whether `phase` has results that others can go on with.
    #[must_use]
    pub fn has_completed(&self, phase: Phase) -> bool {
        self.phase_state(phase).is_some_and(PhaseState::is_completed)
    }

    /// The phases that somebody asked for, in order.
    pub fn requested_phases(&self) -> impl Iterator<Item = (Phase, &PhaseRecord)> {
        Phase::ALL.into_iter().filter_map(|phase| self.phase(phase).map(|record| (phase, record)))
    }

    /// The slots of the essays, by id.
    #[must_use]
    pub fn slots_by_id(&self) -> HashMap<&str, Slot> {
        (0..).zip(self.essays.iter()).map(|(slot, essay)| (essay.id.as_str(), slot)).collect()
    }

    /// Since when the phase that is running has been over half its deadline, if it has.
    #[must_use]
    pub fn stuck_since(&self, now: Millis) -> Option<Millis> {
        self.requested_phases().find_map(|(_, record)| record.state.stuck_since(now))
    }

    /// Since when nothing is left to do with it but to retry it, if it is so.
    #[must_use]
    pub const fn rests_since(&self) -> Option<Millis> {
        match self.status {
            BatchStatus::CompletedSuccessfully
            | BatchStatus::CompletedWithFailures
            | BatchStatus::ContentIngestionFailed
            | BatchStatus::FailedCritically
            | BatchStatus::Cancelled => Some(self.updated_at),
            BatchStatus::AwaitingContentValidation
            | BatchStatus::AwaitingPipelineConfiguration
            | BatchStatus::ReadyForPipelineExecution
            | BatchStatus::ProcessingPipelines
            | BatchStatus::AwaitingStudentValidation
            | BatchStatus::StudentValidationCompleted
            | BatchStatus::ValidationTimeoutProcessed => None,
        }
    }

    /// Where the texts of the essay in this place lie: as it arrived, and as it came out of each phase.
    pub fn storage_ids(&self, place: usize) -> impl Iterator<Item = &str> {
        let arrived = self.essays.get(place).and_then(|essay| essay.content.as_ref());
        let made = self.requested_phases().filter_map(move |(_, record)| match record.results.get(place)? {
            EssayResult::Succeeded(output) => Some(output.text_storage_id.as_str()),
            EssayResult::NotRun | EssayResult::Failed { .. } => None,
        });
        arrived.map(|content| content.text_storage_id.as_str()).into_iter().chain(made)
    }

    /// Whether every essay has text.
    #[must_use]
    pub fn is_provisioned(&self) -> bool {
        usize::from(self.essays_received) == self.essays.len()
    }
}
