//! What a message asks of a batch.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::contract::events::{
    BatchContentProvisioningCompleted, BatchEssaysReady, BatchPhaseOutcome, StudentAssociationsConfirmed,
};
use crate::contract::requests::ClientBatchPipelineRequest;
use crate::contract::{Envelope, Message, Topic, is_traceparent, metadata};
use crate::domain::step::{PhaseOutcome, RetryRequest};
use crate::domain::{BatchId, Input, Origin, Phase, PhaseError};

/// The reason a retry has where its user gave none (contract, HTTP, retry-phase).
pub const DEFAULT_RETRY_REASON: &str = "User initiated retry";

/// Why a message cannot be turned into an input. It would not be turned into one the next time either.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("the envelope does not fit its type: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("'{0}' is not the id of a batch")]
    NoBatchId(String),
    #[error("{0}")]
    NoPhase(String),
    #[error("nothing here consumes {0}")]
    NotConsumed(Topic),
}

/// A message, understood.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) batch: BatchId,
    pub(super) input: Input,
    pub(super) correlation_id: Uuid,
    pub(super) origin: Origin,
}

pub(super) fn read(message: &Message) -> Result<Inbound, Unreadable> {
    match message.topic {
        Topic::ClientBatchPipelineRequest => pipeline_request(message),
        Topic::ElsBatchPhaseOutcome => phase_outcome(envelope(message)?),
        Topic::BatchContentProvisioningCompleted => content_provisioned(message),
        Topic::StudentAssociationsConfirmed => associations_confirmed(message),
        Topic::BatchEssaysReady => essays_ready(message),
        Topic::BatchAiFeedbackInitiateCommand
        | Topic::BatchCjAssessmentInitiateCommand
        | Topic::BatchEssaysRegistered
        | Topic::BatchNlpInitiateCommandV2
        | Topic::BatchPhaseSkipped
        | Topic::BatchPipelineCompleted
        | Topic::BatchSpellcheckInitiateCommand
        | Topic::BatchStudentMatchingInitiateCommand
        | Topic::BatchValidationErrors
        | Topic::EssayContentProvisioned
        | Topic::PipelineDenied
        | Topic::TeacherNotificationRequested => Err(Unreadable::NotConsumed(message.topic)),
    }
}

/// Whether the orchestrator would understand `message`: the batch it is about, or why it would become a dead letter.
///
/// # Errors
/// Where the message says nothing that could be done, in words for people.
pub fn readable(message: &Message) -> Result<BatchId, String> {
    read(message).map(|inbound| inbound.batch).map_err(|unreadable| unreadable.to_string())
}

fn envelope<T: DeserializeOwned>(message: &Message) -> Result<Envelope<T>, Unreadable> {
    Ok(serde_json::from_slice(&message.body)?)
}

fn batch_id(text: &str) -> Result<BatchId, Unreadable> {
    text.parse().map_err(|_| Unreadable::NoBatchId(text.chars().take(100).collect()))
}

/// What connects the message with its cause. One that says nothing is connected with itself.
fn correlation_id<T>(envelope: &Envelope<T>) -> Uuid {
    envelope.correlation_id.or(envelope.event_id).unwrap_or(Uuid::nil())
}

/// What the sender of a message says of it.
fn origin<T>(envelope: &Envelope<T>) -> Origin {
    let traceparent = envelope.metadata.as_ref().and_then(|said| said.get(metadata::TRACEPARENT)?.as_str());
    let traceparent = traceparent.filter(|text| is_traceparent(text)).map(str::to_owned);
    Origin { idempotency_key: None, traceparent }
}

fn pipeline_request(message: &Message) -> Result<Inbound, Unreadable> {
    let envelope = envelope::<ClientBatchPipelineRequest>(message)?;
    let correlation_id = envelope.data.client_correlation_id.unwrap_or_else(|| correlation_id(&envelope));
    let origin = origin(&envelope);
    let request = envelope.data;
    let batch = batch_id(request.batch_id.as_str())?;
    let phase: Phase =
        request.requested_pipeline.as_str().parse().map_err(|error| Unreadable::NoPhase(format!("{error}")))?;
    let by = request.user_id.into_string();
    let input = if request.is_retry {
        let reason = request.retry_reason.filter(|reason| !reason.as_str().is_empty());
        let reason = reason.map_or_else(|| DEFAULT_RETRY_REASON.to_owned(), crate::contract::Text::into_string);
        Input::RetryPhase(RetryRequest::whole(by, phase, reason))
    } else {
        Input::RequestPipeline { by, last: phase, prompt: request.prompt_payload }
    };
    Ok(Inbound { batch, input, correlation_id, origin })
}

/// What an outcome's envelope may say beyond the contract.
#[derive(Default, Deserialize)]
#[serde(default)]
struct OutcomeMetadata {
    attempt: Option<u32>,
    error: Option<PhaseError>,
    retry_after_ms: Option<u64>,
    essay_errors: BTreeMap<String, PhaseError>,
}

/// What the outcome of a phase asks for.
pub(super) fn phase_outcome(envelope: Envelope<BatchPhaseOutcome>) -> Result<Inbound, Unreadable> {
    let correlation_id = correlation_id(&envelope);
    let mut outcome = envelope.data;
    // An essay in both lists did not come out.
    let failed: HashSet<_> = outcome.failed_essay_ids.iter().collect();
    outcome.processed_essays.retain(|essay| !failed.contains(&essay.essay_id));
    let phase = Phase::from_name(outcome.phase_name)
        .ok_or_else(|| Unreadable::NoPhase(format!("{} is not a phase of a pipeline", outcome.phase_name)))?;
    let said = envelope.metadata.map(serde_json::Value::Object);
    let said: OutcomeMetadata = said.map(serde_json::from_value).transpose()?.unwrap_or_default();
    let input = Input::PhaseOutcome(PhaseOutcome {
        phase,
        status: outcome.phase_status,
        processed: outcome.processed_essays,
        attempt: said.attempt,
        correlation_id: outcome.correlation_id.or(envelope.correlation_id),
        error: said.error,
        retry_after_ms: said.retry_after_ms,
        essay_errors: said.essay_errors,
    });
    Ok(Inbound { batch: batch_id(&outcome.batch_id)?, input, correlation_id, origin: Origin::default() })
}

fn content_provisioned(message: &Message) -> Result<Inbound, Unreadable> {
    let envelope = envelope::<BatchContentProvisioningCompleted>(message)?;
    let correlation_id = correlation_id(&envelope);
    let batch = batch_id(&envelope.data.batch_id)?;
    let origin = origin(&envelope);
    let input = Input::ContentProvisioned { essays: envelope.data.essays_for_processing };
    Ok(Inbound { batch, input, correlation_id, origin })
}

fn associations_confirmed(message: &Message) -> Result<Inbound, Unreadable> {
    let envelope = envelope::<StudentAssociationsConfirmed>(message)?;
    let (correlation_id, origin) = (correlation_id(&envelope), origin(&envelope));
    let StudentAssociationsConfirmed { batch_id: batch, class_id, associations, timeout_triggered, .. } = envelope.data;
    let essay_ids = associations.into_iter().map(|association| association.essay_id).collect();
    let input = Input::AssociationsConfirmed { class_id, essay_ids, timeout_triggered };
    Ok(Inbound { batch: batch_id(&batch)?, input, correlation_id, origin })
}

fn essays_ready(message: &Message) -> Result<Inbound, Unreadable> {
    let envelope = envelope::<BatchEssaysReady>(message)?;
    let correlation_id = correlation_id(&envelope);
    let (batch, origin) = (batch_id(&envelope.data.batch_id)?, origin(&envelope));
    Ok(Inbound { batch, input: Input::EssaysReady, correlation_id, origin })
}

/// The names that [`OutcomeMetadata`] reads are those that the contract room publishes.
const _: () = {
    assert!(matches!(metadata::ATTEMPT.as_bytes(), b"attempt"));
    assert!(matches!(metadata::RETRY_AFTER_MS.as_bytes(), b"retry_after_ms"));
    assert!(matches!(metadata::ERROR.as_bytes(), b"error"));
    assert!(matches!(metadata::ESSAY_ERRORS.as_bytes(), b"essay_errors"));
};
