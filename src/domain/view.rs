//! How a record looks on the wire.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::attempt::Attempt;
use super::batch::{Batch, Essay};
use super::errors::PhaseError;
use super::phase::{EssayResult, Phase, PhaseRecord, PhaseState};
use super::time::Millis;
use crate::contract::{PipelineStateDetail, ProcessingPipelineState};

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
) -> Result<ProcessingPipelineState, E> {
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
) -> Result<PipelineStateDetail, E> {
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

/// What went wrong, and what was tried: none for a phase that never failed and was never retried.
fn error_info<E>(
    batch: &Batch,
    phase: Phase,
    record: &PhaseRecord,
    ledger: impl Fn(Phase) -> Result<Vec<Arc<Attempt>>, E>,
) -> Result<Option<Map<String, Value>>, E> {
    let mut info = Map::new();
    if let PhaseState::SkippedDependency { because } = &record.state {
        info.insert("message".to_owned(), format!("{because}, which {phase} depends on, failed").into());
        info.insert("dependency".to_owned(), because.to_string().into());
    }
    let failed_essays: Vec<(&Essay, &Option<PhaseError>)> = batch
        .essays
        .iter()
        .zip(record.results.iter())
        .filter_map(|(essay, result)| match result {
            EssayResult::Failed { error, .. } => Some((essay, error)),
            EssayResult::NotRun | EssayResult::Succeeded(_) => None,
        })
        .collect();
    if let Some(PhaseError { error_code, category, message }) = record.error() {
        info.insert("error_code".to_owned(), error_code.as_str().into());
        info.insert("category".to_owned(), category.as_str().into());
        info.insert("message".to_owned(), message.as_str().into());
    }
    if info.is_empty() && record.attempts < 2 {
        return Ok(None);
    }
    let named = |(essay, error): &(&Essay, &Option<PhaseError>)| {
        json!({
            "essay_id": essay.id,
            "error_code": error.as_ref().map(|error| error.error_code),
            "message": error.as_ref().map(|error| &error.message),
        })
    };
    let shown = failed_essays.iter().take(FAILED_ESSAYS).map(named).collect::<Vec<_>>();
    info.insert("failed_essays".to_owned(), shown.into());
    if let PhaseState::BackingOff { again_at, .. } = &record.state {
        info.insert("next_retry_at".to_owned(), again_at.to_timestamp().to_string().into());
    }
    info.insert("retry_count".to_owned(), record.attempts.saturating_sub(1).into());
    let mut newest = ledger(phase)?;
    newest.truncate(RETRY_HISTORY);
    let history = newest.iter().map(|attempt| attempt_view(attempt, |_| None)).collect::<Vec<_>>();
    info.insert("retry_history".to_owned(), history.into());
    Ok(Some(info))
}

/// One attempt, as clients read it. `essay_id` names the essay in a slot; where it gives none, the list of essays is
/// left out and only their number shown.
#[must_use]
pub fn attempt_view<'a>(attempt: &Attempt, essay_id: impl Fn(u16) -> Option<&'a str>) -> Value {
    let time = |millis: Option<Millis>| millis.map(Millis::to_timestamp);
    let essay_ids: Option<Vec<&str>> = attempt.slots.iter().map(|&slot| essay_id(slot)).collect();
    let end = attempt.end.as_ref();
    let error = end.and_then(|end| end.error.as_ref());
    let mut view = json!({
        "attempt": attempt.number,
        "trigger": attempt.trigger.as_str(),
        "requested_by": attempt.requested_by,
        "reason": attempt.reason,
        "correlation_id": attempt.correlation_id,
        "idempotency_key": attempt.origin.idempotency_key,
        "traceparent": attempt.origin.traceparent,
        "essay_count": attempt.slots.len(),
        "enqueued_at": attempt.enqueued_at.to_timestamp(),
        "dispatched_at": time(attempt.dispatched_at),
        "started_at": time(attempt.started_at),
        "ended_at": time(end.map(|end| end.at)),
        "outcome": end.map(|end| end.outcome.as_str()),
        "successful": end.map(|end| end.successful),
        "failed": end.map(|end| end.failed),
        "error_code": error.map(|error| error.error_code.as_str()),
        "category": error.map(|error| error.category.as_str()),
        "message": error.map(|error| error.message.as_str()),
        "note": end.and_then(|end| end.note.as_deref()),
    });
    if let (Some(members), Some(lease)) = (view.as_object_mut(), &attempt.lease) {
        members.insert("worker_id".to_owned(), lease.worker_id.as_str().into());
        members.insert("lease_ms".to_owned(), lease.lease_ms.into());
    }
    if let (Some(members), Some(essay_ids)) = (view.as_object_mut(), essay_ids)
        && !essay_ids.is_empty()
    {
        let failed = end.map(|end| end.failed_slots.iter().filter_map(|&slot| essay_id(slot)).collect::<Vec<_>>());
        members.insert("essay_ids".to_owned(), essay_ids.into());
        members.insert("failed_essay_ids".to_owned(), failed.into());
    }
    view
}
