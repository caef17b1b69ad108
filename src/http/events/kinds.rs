//! What an event has to be: an envelope of the contract, whose data is of the type that its topic carries.

use axum::body::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::contract::commands::{
    AiFeedbackInitiate, CjAssessmentInitiate, NlpInitiate, SpellcheckInitiate, StudentMatchingInitiate,
};
use crate::contract::events::{
    BatchContentProvisioningCompleted, BatchEssaysReady, BatchEssaysRegistered, BatchPhaseOutcome,
    BatchPipelineCompleted, BatchValidationErrors, EssayContentProvisioned, PhaseSkipped, PipelineDenied,
    StudentAssociationsConfirmed, TeacherNotificationRequested,
};
use crate::contract::requests::{ClientBatchPipelineRequest, ClientId};
use crate::contract::{Envelope, Group, Headers, Message, SCHEMA_VERSION, Topic};
use crate::domain::BatchId;
use crate::engine::readable;
use crate::http::context::parse;
use crate::http::problem::Problem;

/// The most characters of the address of a schema.
const MAX_URI_CHARS: usize = 2_000;

/// An event that fits its type.
pub(super) struct Event {
    pub(super) event_id: Uuid,
    pub(super) message: Message,
}

/// As much of an envelope as says what the rest has to be.
#[derive(Deserialize)]
struct Head {
    event_type: String,
}

/// What the gateway has to know of an event.
struct About {
    event_id: Uuid,
    correlation_id: Uuid,
    /// The batch, or whoever else it is about where there is no batch.
    key: String,
}

pub(super) fn read(bytes: &[u8]) -> Result<Event, Problem> {
    let Head { event_type } = parse(bytes)?;
    let topic: Topic =
        event_type.parse().map_err(|_| Problem::invalid("event_type: there is no topic of this name"))?;
    let About { event_id, correlation_id, key } = about(topic, bytes)?;
    let headers = Some(Headers { event_id, trace_id: correlation_id });
    // A copy, since the event stays longer than the memory that its request came in with.
    let message = Message { topic, key, headers, body: Bytes::copy_from_slice(bytes) };
    if Group::of(topic).contains(&Group::Orchestrator) {
        readable(&message).map_err(Problem::invalid)?;
    }
    Ok(Event { event_id, message })
}

fn about(topic: Topic, bytes: &[u8]) -> Result<About, Problem> {
    let (batch, entity) = ("data.batch_id", "data.entity_id");
    match topic {
        Topic::BatchAiFeedbackInitiateCommand => {
            of::<AiFeedbackInitiate>(bytes, |data| batch_id(entity, data.base.entity_id.as_deref()))
        }
        Topic::BatchCjAssessmentInitiateCommand => {
            of::<CjAssessmentInitiate>(bytes, |data| batch_id(entity, data.base.entity_id.as_deref()))
        }
        Topic::BatchNlpInitiateCommandV2 => {
            of::<NlpInitiate>(bytes, |data| batch_id(entity, data.base.entity_id.as_deref()))
        }
        Topic::BatchSpellcheckInitiateCommand => {
            of::<SpellcheckInitiate>(bytes, |data| batch_id(entity, data.base.entity_id.as_deref()))
        }
        Topic::BatchStudentMatchingInitiateCommand => {
            of::<StudentMatchingInitiate>(bytes, |data| batch_id(entity, data.base.entity_id.as_deref()))
        }
        Topic::BatchEssaysRegistered => {
            of::<BatchEssaysRegistered>(bytes, |data| batch_id(entity, Some(&data.entity_id)))
        }
        Topic::EssayContentProvisioned => {
            of::<EssayContentProvisioned>(bytes, |data| batch_id(entity, Some(&data.entity_id)))
        }
        Topic::BatchContentProvisioningCompleted => {
            of::<BatchContentProvisioningCompleted>(bytes, |data| batch_id(batch, Some(&data.batch_id)))
        }
        Topic::BatchEssaysReady => of::<BatchEssaysReady>(bytes, |data| batch_id(batch, Some(&data.batch_id))),
        Topic::BatchPhaseSkipped => of::<PhaseSkipped>(bytes, |data| batch_id(batch, Some(&data.batch_id))),
        Topic::BatchPipelineCompleted => {
            of::<BatchPipelineCompleted>(bytes, |data| batch_id(batch, Some(&data.batch_id)))
        }
        Topic::BatchValidationErrors => {
            of::<BatchValidationErrors>(bytes, |data| batch_id(batch, Some(&data.batch_id)))
        }
        Topic::ClientBatchPipelineRequest => {
            of::<ClientBatchPipelineRequest>(bytes, |data| batch_id(batch, Some(data.batch_id.as_str())))
        }
        Topic::ElsBatchPhaseOutcome => of::<BatchPhaseOutcome>(bytes, |data| batch_id(batch, Some(&data.batch_id))),
        Topic::PipelineDenied => of::<PipelineDenied>(bytes, |data| batch_id(batch, Some(&data.batch_id))),
        Topic::StudentAssociationsConfirmed => {
            of::<StudentAssociationsConfirmed>(bytes, |data| batch_id(batch, Some(&data.batch_id)))
        }
        Topic::TeacherNotificationRequested => of::<TeacherNotificationRequested>(bytes, |data| {
            if data.batch_id.is_some() {
                return batch_id(batch, data.batch_id.as_deref());
            }
            let teacher = ClientId::new(&data.teacher_id);
            let teacher = teacher.map_err(|error| Problem::invalid(format!("data.teacher_id {error}")))?;
            Ok(teacher.into_string())
        }),
    }
}

/// Reads an envelope around a `T`, which `key` is taken from.
fn of<T: DeserializeOwned>(bytes: &[u8], key: impl FnOnce(&T) -> Result<String, Problem>) -> Result<About, Problem> {
    let envelope: Envelope<T> = parse(bytes)?;
    let event_id = envelope.event_id.ok_or_else(|| {
        Problem::missing_field(
            "missing field `event_id`: whoever posts an event names it, so that it is published once",
        )
    })?;
    if event_id.is_nil() {
        return Err(Problem::invalid("event_id: one of zeros names nothing"));
    }
    if envelope.schema_version != SCHEMA_VERSION {
        return Err(Problem::invalid(format!("schema_version: there is only {SCHEMA_VERSION}")));
    }
    ClientId::new(&envelope.source_service).map_err(|error| Problem::invalid(format!("source_service {error}")))?;
    if envelope.data_schema_uri.is_some_and(|uri| uri.chars().count() > MAX_URI_CHARS) {
        return Err(Problem::invalid(format!("data_schema_uri must have at most {MAX_URI_CHARS} characters")));
    }
    let key = key(&envelope.data)?;
    Ok(About { event_id, correlation_id: envelope.correlation_id.unwrap_or(event_id), key })
}

/// The key of a message about the batch with the id `text`, which `field` has.
fn batch_id(field: &str, text: Option<&str>) -> Result<String, Problem> {
    let text = text.ok_or_else(|| Problem::missing_field(format!("missing field `{field}`: the batch")))?;
    let id: BatchId = text.parse().map_err(|_| Problem::invalid(format!("{field}: this is not the id of a batch")))?;
    Ok(id.to_string())
}
