//! How a record looks on the wire.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::attempt::Attempt;
use super::batch::{Batch, Slot};
use super::errors::Category;
use super::phase::{EssayResult, Phase, PhaseRecord, PhaseState};
use super::time::Millis;
use crate::contract::{
    ErrorCode, PhaseName, PipelineExecutionStatus, PipelineStateDetail, ProcessingPipelineState, Time,
};

/// The most attempts that `retry_history` shows; the newest. The attempts' own route has all of them.
pub const RETRY_HISTORY: usize = 5;

/// The most essays that `failed_essays` names. The attempts name all of them.
pub const FAILED_ESSAYS: usize = 100;

/// `ProcessingPipelineState` of `batch`. `ledger` gives the attempts of a phase that have ended, newest first, at least
/// [`RETRY_HISTORY`] of them where there are so many; it is asked only where they are shown.
///
/// # Errors
/// Those of `ledger`.
pub fn pipeline_state<E>(
    batch: &Batch,
    ledger: impl Fn(Phase) -> Result<Vec<Arc<Attempt>>, E>,
) -> Result<ProcessingPipelineState<ErrorInfo>, E> {
    let detail =
        |phase: Phase| batch.phase(phase).map(|record| phase_detail(batch, phase, record, &ledger)).transpose();
    Ok(ProcessingPipelineState {
        batch_id: batch.id.to_string(),
        requested_pipelines: batch.requested_phases().map(|(phase, _)| phase.to_string()).collect(),
        spellcheck: detail(Phase::Spellcheck)?,
        nlp: detail(Phase::Nlp)?,
        ai_feedback: detail(Phase::AiFeedback)?,
        cj_assessment: detail(Phase::CjAssessment)?,
        last_updated: Some(batch.updated_at.to_timestamp()),
    })
}

fn phase_detail<E>(
    batch: &Batch,
    phase: Phase,
    record: &PhaseRecord,
    ledger: impl Fn(Phase) -> Result<Vec<Arc<Attempt>>, E>,
) -> Result<PipelineStateDetail<ErrorInfo>, E> {
    let essay_counts = record.counts();
    let attempt = record.state.attempt();
    let lease = record.state.in_flight().and_then(|(attempt, _)| attempt.lease.as_deref());
    let done = lease.map_or(0, |lease| lease.essays_done.min(essay_counts.pending_dispatch_or_processing));
    let settled = essay_counts.successful + essay_counts.failed + done;
    Ok(PipelineStateDetail {
        status: record.state.status(),
        essay_counts,
        started_at: attempt.and_then(|attempt| attempt.dispatched_at).map(Millis::to_timestamp),
        completed_at: attempt
            .filter(|_| !record.state.is_running())
            .and_then(|attempt| attempt.end.as_ref())
            .map(|end| end.at.to_timestamp()),
        error_info: error_info(batch, phase, record, ledger)?,
        progress_percentage: (essay_counts.total > 0)
            .then(|| f64::from(settled) * 100.0 / f64::from(essay_counts.total)),
    })
}

/// What went wrong, and what was tried. Members that say nothing are left out.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ErrorInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<ErrorCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<Category>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// The phase that failed, and that this one depends on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Phase>")]
    dependency: Option<PhaseName>,
    /// When it is tried again by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    next_retry_at: Option<Timestamp>,
    /// The first hundred.
    failed_essays: Vec<FailedEssay>,
    /// Attempts after the first.
    retry_count: u32,
    /// The newest attempts that have ended, the newest first.
    #[serde(serialize_with = "without_essays")]
    #[schemars(with = "Vec<AttemptView<'_>>")]
    retry_history: Vec<Arc<Attempt>>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct FailedEssay {
    essay_id: String,
    error_code: Option<ErrorCode>,
    message: Option<String>,
}

/// Shows each attempt by itself: which essays it was asked for is told elsewhere.
fn without_essays<S: Serializer>(attempts: &[Arc<Attempt>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(attempts.iter().map(|attempt| AttemptView::of(attempt)))
}

/// None for a phase that never failed and was never retried.
fn error_info<E>(
    batch: &Batch,
    phase: Phase,
    record: &PhaseRecord,
    ledger: impl Fn(Phase) -> Result<Vec<Arc<Attempt>>, E>,
) -> Result<Option<ErrorInfo>, E> {
    let error = record.error();
    let because = match &record.state {
        PhaseState::SkippedDependency { because } => Some(because),
        _ => None,
    };
    if error.is_none() && because.is_none() && record.attempts < 2 {
        return Ok(None);
    }
    let message = error.map(|error| error.message.clone());
    let failed = batch.essays.iter().zip(record.results.iter()).filter_map(|(essay, result)| match result {
        EssayResult::Failed { error, .. } => Some(FailedEssay {
            essay_id: essay.id.clone(),
            error_code: error.as_ref().map(|error| error.error_code),
            message: error.as_ref().map(|error| error.message.clone()),
        }),
        EssayResult::NotRun | EssayResult::Succeeded(_) => None,
    });
    let again_at = match &record.state {
        PhaseState::BackingOff { again_at, .. } => Some(again_at.to_timestamp()),
        _ => None,
    };
    let mut newest = ledger(phase)?;
    newest.truncate(RETRY_HISTORY);
    Ok(Some(ErrorInfo {
        error_code: error.map(|error| error.error_code),
        category: error.map(|error| error.category),
        message: message.or_else(|| Some(format!("{}, which {phase} depends on, failed", because?))),
        dependency: because.map(|because| because.name()),
        next_retry_at: again_at,
        failed_essays: failed.take(FAILED_ESSAYS).collect(),
        retry_count: record.attempts.saturating_sub(1),
        retry_history: newest,
    }))
}

/// One attempt at a phase.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Attempt")]
pub struct AttemptView<'a> {
    /// Counts from 1.
    #[schemars(range(min = 1))]
    attempt: u32,
    /// What caused it.
    #[schemars(extend("enum" = ["pipeline", "automatic", "user"]))]
    trigger: &'static str,
    requested_by: &'a str,
    reason: Option<&'a str>,
    correlation_id: Uuid,
    /// The `Idempotency-Key` of the request that caused it.
    idempotency_key: Option<&'a str>,
    /// The `traceparent` of the request that caused it.
    traceparent: Option<&'a str>,
    essay_count: usize,
    #[schemars(with = "Time")]
    enqueued_at: Timestamp,
    #[schemars(with = "Option<Time>")]
    dispatched_at: Option<Timestamp>,
    #[schemars(with = "Option<Time>")]
    started_at: Option<Timestamp>,
    #[schemars(with = "Option<Time>")]
    ended_at: Option<Timestamp>,
    /// None while it is open.
    #[schemars(with = "Option<PipelineExecutionStatus>")]
    outcome: Option<&'static str>,
    successful: Option<u32>,
    failed: Option<u32>,
    error_code: Option<ErrorCode>,
    category: Option<Category>,
    message: Option<&'a str>,
    /// What else is to say.
    note: Option<&'a str>,
    /// The worker that leased it.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_ms: Option<u64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    essays: Option<EssaysOf<'a>>,
}

/// The essays of an attempt.
#[derive(Debug, Serialize, JsonSchema)]
struct EssaysOf<'a> {
    /// Only in the list of the attempts.
    essay_ids: Vec<&'a str>,
    /// Null while it is open.
    failed_essay_ids: Option<Vec<&'a str>>,
}

impl<'a> AttemptView<'a> {
    /// `attempt` with the number of its essays.
    #[must_use]
    pub fn of(attempt: &'a Attempt) -> Self {
        let time = |millis: Option<Millis>| millis.map(Millis::to_timestamp);
        let end = attempt.end.as_ref();
        let error = end.and_then(|end| end.error.as_ref());
        let lease = attempt.lease.as_deref();
        Self {
            attempt: attempt.number,
            trigger: attempt.trigger.as_str(),
            requested_by: &attempt.requested_by,
            reason: attempt.reason.as_deref(),
            correlation_id: attempt.correlation_id,
            idempotency_key: attempt.origin.idempotency_key.as_deref(),
            traceparent: attempt.origin.traceparent.as_deref(),
            essay_count: attempt.slots.len(),
            enqueued_at: attempt.enqueued_at.to_timestamp(),
            dispatched_at: time(attempt.dispatched_at),
            started_at: time(attempt.started_at),
            ended_at: time(end.map(|end| end.at)),
            outcome: end.map(|end| end.outcome.as_str()),
            successful: end.map(|end| end.successful),
            failed: end.map(|end| end.failed),
            error_code: error.map(|error| error.error_code),
            category: error.map(|error| error.category),
            message: error.map(|error| error.message.as_str()),
            note: end.and_then(|end| end.note.as_deref()),
            worker_id: lease.map(|lease| lease.worker_id.as_str()),
            lease_ms: lease.map(|lease| lease.lease_ms),
            essays: None,
        }
    }

    /// `attempt` with its essays by name; `essay_id` gives that of a slot. Where it gives none, and where there are no
    /// essays, only their number is shown.
    #[must_use]
    pub fn with_essays(attempt: &'a Attempt, essay_id: impl Fn(Slot) -> Option<&'a str>) -> Self {
        let essay_ids: Option<Vec<_>> = attempt.slots.iter().map(|&slot| essay_id(slot)).collect();
        let failed =
            attempt.end.as_ref().map(|end| end.failed_slots.iter().filter_map(|&slot| essay_id(slot)).collect());
        let essays = essay_ids.filter(|essay_ids| !essay_ids.is_empty());
        let essays = essays.map(|essay_ids| EssaysOf { essay_ids, failed_essay_ids: failed });
        Self { essays, ..Self::of(attempt) }
    }
}
