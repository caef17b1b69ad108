//! The shapes of stored values, apart from the domain's and the wire's, so that those can change without these.
//!
//! Enumerations of the wire are stored by their names; parts that are free in form as JSON.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

mod attempt;
mod counts;
mod credits;
mod job;
mod letter;
mod message;
mod place;
mod readable;
mod start;
mod text;

use super::codec::Versioned;
use super::{Error, keys};
use crate::domain::{
    Batch, BatchDetails, BatchId, Class, Essay, EssayContent, EssayOutput, EssayResult, Millis, Phase, PhaseRecord,
    PhaseState, Run, Slot,
};
use attempt::{Runs, StoredError, StoredOrigin};
pub(in crate::store) use attempt::{StoredAttempt, StoredAttempts, StoredLate};
pub(in crate::store) use counts::StoredCounts;
pub(in crate::store) use credits::{StoredBalance, StoredCharge};
pub(in crate::store) use job::{StoredJob, StoredMember};
pub(in crate::store) use letter::StoredLetter;
pub use message::StoredAnswer;
pub(in crate::store) use message::StoredMessage;
pub(in crate::store) use place::StoredPlace;
pub use readable::readable;

fn corrupt(error: impl std::fmt::Display) -> Error {
    Error::Corrupt(error.to_string())
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str) -> Result<T, Error> {
    name.parse().map_err(corrupt)
}

fn from_json<T: serde::de::DeserializeOwned>(json: Option<Vec<u8>>) -> Result<Option<T>, Error> {
    json.map(|json| serde_json::from_slice(&json).map_err(corrupt)).transpose()
}

fn to_json<T: Serialize>(value: Option<&T>) -> Result<Option<Vec<u8>>, Error> {
    value.map(|value| serde_json::to_vec(value).map_err(corrupt)).transpose()
}

/// The small part of a batch's record.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct StoredBatch {
    version: u64,
    status: String,
    essays_received: Slot,
    phases: [Option<StoredPhase>; 4],
    run: Option<StoredRun>,
    updated_at: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredPhase {
    attempts: u32,
    user_retries: u32,
    retried_at: Option<u64>,
    id_traces: Vec<u32>,
    state: StoredState,
}

#[derive(Serialize, Deserialize)]
enum StoredState {
    PendingDependencies { scope: Option<Runs>, before: Option<StoredAttempt> },
    Requested { attempt: StoredAttempt },
    Dispatched { attempt: StoredAttempt, deadline: u64 },
    InProgress { attempt: StoredAttempt, deadline: u64 },
    BackingOff { attempt: StoredAttempt, scope: Option<Runs>, again_at: u64 },
    Succeeded { attempt: StoredAttempt },
    PartiallySucceeded { attempt: StoredAttempt },
    Failed { attempt: StoredAttempt },
    Cancelled { attempt: Option<StoredAttempt> },
    SkippedDependency { because: u8 },
}

#[derive(Serialize, Deserialize)]
struct StoredRun {
    correlation_id: Uuid,
    origin: StoredOrigin,
    requested_by: String,
    started_at: u64,
    queue: Vec<u8>,
}

impl StoredBatch {
    pub(in crate::store) fn of(batch: &Batch) -> Self {
        Self {
            version: batch.version,
            status: batch.status.as_str().to_owned(),
            essays_received: batch.essays_received,
            phases: batch.phases.each_ref().map(|record| record.as_ref().map(StoredPhase::of)),
            run: batch.run.as_ref().map(StoredRun::of),
            updated_at: batch.updated_at.0,
        }
    }

    /// The phases that have a record, and so results.
    pub(in crate::store) fn phases(&self) -> impl Iterator<Item = Phase> {
        Phase::ALL.into_iter().filter(|phase| self.phases[phase.index()].is_some())
    }

    pub(in crate::store) fn into_batch(
        self,
        id: BatchId,
        details: StoredDetails,
        essays: Vec<StoredEssay>,
        mut results: [Vec<StoredResult>; 4],
    ) -> Result<Batch, Error> {
        let mut phases: [Option<PhaseRecord>; 4] = Default::default();
        for (index, phase) in self.phases.into_iter().enumerate() {
            if let Some(phase) = phase {
                phases[index] = Some(phase.into_record(std::mem::take(&mut results[index]))?);
            }
        }
        Ok(Batch {
            id,
            version: self.version,
            details: Arc::new(details.into_details()?),
            status: parse(&self.status)?,
            essays: Arc::new(essays.into_iter().map(StoredEssay::into_essay).collect()),
            essays_received: self.essays_received,
            phases,
            run: self.run.map(StoredRun::into_run).transpose()?,
            updated_at: Millis(self.updated_at),
        })
    }
}

impl StoredPhase {
    fn of(record: &PhaseRecord) -> Self {
        let state = match &record.state {
            PhaseState::PendingDependencies { scope, before } => StoredState::PendingDependencies {
                scope: Runs::of_scope(scope),
                before: before.as_ref().map(|attempt| StoredAttempt::of(attempt)),
            },
            PhaseState::Requested { attempt } => StoredState::Requested { attempt: StoredAttempt::of(attempt) },
            PhaseState::Dispatched { attempt, deadline } => {
                StoredState::Dispatched { attempt: StoredAttempt::of(attempt), deadline: deadline.0 }
            }
            PhaseState::InProgress { attempt, deadline } => {
                StoredState::InProgress { attempt: StoredAttempt::of(attempt), deadline: deadline.0 }
            }
            PhaseState::BackingOff { attempt, scope, again_at } => StoredState::BackingOff {
                attempt: StoredAttempt::of(attempt),
                scope: Runs::of_scope(scope),
                again_at: again_at.0,
            },
            PhaseState::Succeeded { attempt } => StoredState::Succeeded { attempt: StoredAttempt::of(attempt) },
            PhaseState::PartiallySucceeded { attempt } => {
                StoredState::PartiallySucceeded { attempt: StoredAttempt::of(attempt) }
            }
            PhaseState::Failed { attempt } => StoredState::Failed { attempt: StoredAttempt::of(attempt) },
            PhaseState::Cancelled { attempt } => {
                StoredState::Cancelled { attempt: attempt.as_ref().map(|attempt| StoredAttempt::of(attempt)) }
            }
            PhaseState::SkippedDependency { because } => {
                StoredState::SkippedDependency { because: keys::phase_byte(*because) }
            }
        };
        Self {
            attempts: record.attempts,
            user_retries: record.user_retries,
            retried_at: record.retried_at.map(|at| at.0),
            id_traces: record.id_traces.clone(),
            state,
        }
    }

    fn into_record(self, results: Vec<StoredResult>) -> Result<PhaseRecord, Error> {
        let attempt = |stored: StoredAttempt| stored.into_attempt().map(Arc::new);
        let state = match self.state {
            StoredState::PendingDependencies { scope, before } => PhaseState::PendingDependencies {
                scope: Runs::into_scope(scope)?,
                before: before.map(attempt).transpose()?,
            },
            StoredState::Requested { attempt: stored } => PhaseState::Requested { attempt: attempt(stored)? },
            StoredState::Dispatched { attempt: stored, deadline } => {
                PhaseState::Dispatched { attempt: attempt(stored)?, deadline: Millis(deadline) }
            }
            StoredState::InProgress { attempt: stored, deadline } => {
                PhaseState::InProgress { attempt: attempt(stored)?, deadline: Millis(deadline) }
            }
            StoredState::BackingOff { attempt: stored, scope, again_at } => PhaseState::BackingOff {
                attempt: attempt(stored)?,
                scope: Runs::into_scope(scope)?,
                again_at: Millis(again_at),
            },
            StoredState::Succeeded { attempt: stored } => PhaseState::Succeeded { attempt: attempt(stored)? },
            StoredState::PartiallySucceeded { attempt: stored } => {
                PhaseState::PartiallySucceeded { attempt: attempt(stored)? }
            }
            StoredState::Failed { attempt: stored } => PhaseState::Failed { attempt: attempt(stored)? },
            StoredState::Cancelled { attempt: stored } => {
                PhaseState::Cancelled { attempt: stored.map(attempt).transpose()? }
            }
            StoredState::SkippedDependency { because } => {
                PhaseState::SkippedDependency { because: keys::phase_of(because)? }
            }
        };
        let results = results.into_iter().map(StoredResult::into_result).collect::<Result<_, _>>()?;
        Ok(PhaseRecord {
            state,
            attempts: self.attempts,
            user_retries: self.user_retries,
            retried_at: self.retried_at.map(Millis),
            id_traces: self.id_traces,
            results: Arc::new(results),
        })
    }
}

impl StoredRun {
    fn of(run: &Run) -> Self {
        Self {
            correlation_id: run.correlation_id,
            origin: StoredOrigin::of(&run.origin),
            requested_by: run.requested_by.clone(),
            started_at: run.started_at.0,
            queue: run.queue.iter().map(|phase| keys::phase_byte(*phase)).collect(),
        }
    }

    fn into_run(self) -> Result<Run, Error> {
        Ok(Run {
            correlation_id: self.correlation_id,
            origin: self.origin.into_origin(),
            requested_by: self.requested_by,
            started_at: Millis(self.started_at),
            queue: self.queue.into_iter().map(keys::phase_of).collect::<Result<_, _>>()?,
        })
    }
}

/// What registration fixed, and who is waited for before the first pipeline.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct StoredDetails {
    user_id: String,
    org_id: Option<String>,
    course_code: String,
    #[serde(with = "text::option")]
    student_prompt_ref: Option<Vec<u8>>,
    assignment_id: Option<String>,
    assignment_is_prompt: bool,
    cj_default_llm_model: Option<String>,
    cj_default_temperature: Option<f64>,
    registered_at: u64,
    /// Missing from the JSON of older backups.
    #[serde(default)]
    class: Option<StoredClass>,
}

#[derive(Serialize, Deserialize)]
struct StoredClass {
    id: String,
    confirm_by: Option<u64>,
}

/// As it was written before there were regular batches.
#[derive(Deserialize)]
pub(in crate::store) struct GuestDetails {
    user_id: String,
    org_id: Option<String>,
    course_code: String,
    #[serde(with = "text::option")]
    student_prompt_ref: Option<Vec<u8>>,
    assignment_id: Option<String>,
    assignment_is_prompt: bool,
    cj_default_llm_model: Option<String>,
    cj_default_temperature: Option<f64>,
    registered_at: u64,
}

impl Versioned for StoredDetails {
    const VERSION: u8 = 2;
    type Before = GuestDetails;
}

impl From<GuestDetails> for StoredDetails {
    fn from(before: GuestDetails) -> Self {
        Self {
            user_id: before.user_id,
            org_id: before.org_id,
            course_code: before.course_code,
            student_prompt_ref: before.student_prompt_ref,
            assignment_id: before.assignment_id,
            assignment_is_prompt: before.assignment_is_prompt,
            cj_default_llm_model: before.cj_default_llm_model,
            cj_default_temperature: before.cj_default_temperature,
            registered_at: before.registered_at,
            class: None,
        }
    }
}

impl StoredDetails {
    pub(in crate::store) fn of(details: &BatchDetails) -> Result<Self, Error> {
        let class = details.class.as_ref();
        Ok(Self {
            user_id: details.user_id.clone(),
            org_id: details.org_id.clone(),
            course_code: details.course_code.as_str().to_owned(),
            student_prompt_ref: to_json(details.student_prompt_ref.as_ref())?,
            assignment_id: details.assignment_id.clone(),
            assignment_is_prompt: details.assignment_is_prompt,
            cj_default_llm_model: details.cj_default_llm_model.clone(),
            cj_default_temperature: details.cj_default_temperature,
            registered_at: details.registered_at.0,
            class: class
                .map(|class| StoredClass { id: class.id.clone(), confirm_by: class.confirm_by.map(|due| due.0) }),
        })
    }

    fn into_details(self) -> Result<BatchDetails, Error> {
        Ok(BatchDetails {
            user_id: self.user_id,
            org_id: self.org_id,
            course_code: parse(&self.course_code)?,
            student_prompt_ref: from_json(self.student_prompt_ref)?,
            assignment_id: self.assignment_id,
            assignment_is_prompt: self.assignment_is_prompt,
            cj_default_llm_model: self.cj_default_llm_model,
            cj_default_temperature: self.cj_default_temperature,
            registered_at: Millis(self.registered_at),
            class: self.class.map(|class| Class { id: class.id, confirm_by: class.confirm_by.map(Millis) }),
        })
    }
}

/// One essay.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct StoredEssay {
    id: String,
    /// File name and storage id.
    content: Option<(String, String)>,
}

impl StoredEssay {
    pub(in crate::store) fn of(essay: &Essay) -> Self {
        let content = essay.content.as_ref();
        Self {
            id: essay.id.clone(),
            content: content.map(|content| (content.file_name.clone(), content.text_storage_id.clone())),
        }
    }

    fn into_essay(self) -> Essay {
        let content = self.content.map(|(file_name, text_storage_id)| EssayContent { file_name, text_storage_id });
        Essay { id: self.id, content }
    }
}

/// How one essay came out of a phase.
#[derive(Serialize, Deserialize)]
pub(in crate::store) enum StoredResult {
    NotRun,
    Succeeded {
        made_at: u64,
        made_from: u64,
        text_storage_id: String,
        #[serde(with = "text::option")]
        spellcheck_metrics: Option<Vec<u8>>,
    },
    /// As it was written before what an essay failed on was kept.
    Failed {
        error: Option<StoredEssayError>,
    },
    FailedFrom {
        made_from: u64,
        error: Option<StoredEssayError>,
    },
}

/// Why one essay failed.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct StoredEssayError(StoredError);

impl StoredResult {
    pub(in crate::store) fn of(result: &EssayResult) -> Result<Self, Error> {
        Ok(match result {
            EssayResult::NotRun => Self::NotRun,
            EssayResult::Succeeded(output) => Self::Succeeded {
                made_at: output.made_at,
                made_from: output.made_from,
                text_storage_id: output.text_storage_id.clone(),
                spellcheck_metrics: to_json(output.spellcheck_metrics.as_ref())?,
            },
            EssayResult::Failed { made_from, error } => Self::FailedFrom {
                made_from: *made_from,
                error: error.as_ref().map(|error| StoredEssayError(StoredError::of(error))),
            },
        })
    }

    fn into_result(self) -> Result<EssayResult, Error> {
        Ok(match self {
            Self::NotRun => EssayResult::NotRun,
            Self::Succeeded { made_at, made_from, text_storage_id, spellcheck_metrics } => {
                EssayResult::Succeeded(EssayOutput {
                    made_at,
                    made_from,
                    text_storage_id,
                    spellcheck_metrics: from_json(spellcheck_metrics)?,
                })
            }
            // What it failed on is not known, and counts as what there is now.
            Self::Failed { error } => EssayResult::Failed {
                made_from: u64::MAX,
                error: error.map(|StoredEssayError(error)| error.into_error()).transpose()?,
            },
            Self::FailedFrom { made_from, error } => EssayResult::Failed {
                made_from,
                error: error.map(|StoredEssayError(error)| error.into_error()).transpose()?,
            },
        })
    }
}
