//! Whoever finds the students of a regular batch, simulated: every essay is of a student of its own.

use serde_json::Value;
use uuid::Uuid;

use super::outside::leave_to_events;
use super::{Options, StudentMatching};
use crate::bus::{self, Delivery, Subscription};
use crate::contract::commands::StudentMatchingInitiate;
use crate::contract::enums::ValidationMethod;
use crate::contract::events::{StudentAssociation, StudentAssociationsConfirmed};
use crate::contract::{
    Envelope, EventName, Group, Message, SCHEMA_VERSION, Topic, metadata, services, span_of, traceparent_of_span,
};
use crate::domain::Millis;
use crate::engine::{Claim, Engine};

/// Starts the consumer of the commands. It ends with the engine.
pub(super) fn start(engine: &Engine, options: &Options) -> Result<(), bus::Error> {
    let commands = engine.bus().subscribe(Group::StudentMatching)?;
    let (stop, handle) = (engine.stopping().clone(), engine.clone());
    match options.student_matching {
        StudentMatching::Simulated => engine.spawn(async move {
            stop.run_until_cancelled(run(handle, commands)).await;
        }),
        StudentMatching::Events => engine.spawn(async move {
            stop.run_until_cancelled(leave_to_events(handle, commands)).await;
        }),
    }
    Ok(())
}

async fn run(engine: Engine, mut commands: Subscription) {
    while let Some(delivery) = commands.next().await {
        answer(&engine, delivery).await;
    }
}

async fn answer(engine: &Engine, delivery: Delivery) {
    match engine.claim(&delivery).await {
        Ok(Claim::Granted) => {}
        Ok(Claim::Duplicate) => return settle(engine, delivery, Vec::new()).await,
        Ok(Claim::Busy { .. }) => return delivery.reject("somebody is handling it"),
        Err(error) => return delivery.reject(&error.to_string()),
    }
    match confirmed(delivery.message(), engine.clock().now()) {
        Ok(message) => settle(engine, delivery, vec![message]).await,
        Err(error) => {
            tracing::warn!(key = %delivery.message().key, %error, "a command was refused");
            engine.refuse(delivery, &error.to_string()).await;
        }
    }
}

async fn settle(engine: &Engine, delivery: Delivery, publish: Vec<Message>) {
    if let Err(error) = engine.finish(delivery, publish, Vec::new()).await {
        tracing::warn!(%error, "a confirmation was not committed; its command comes again");
    }
}

/// What those who know the class would say, had a person confirmed nothing. Its id is made of the command's.
fn confirmed(command: &Message, now: Millis) -> serde_json::Result<Message> {
    let command: Envelope<StudentMatchingInitiate> = serde_json::from_slice(&command.body)?;
    let batch_id = command.data.base.entity_id.unwrap_or_default();
    let student_of = |essay_id: &str| Uuid::new_v5(&Uuid::nil(), format!("student/{essay_id}").as_bytes()).to_string();
    let associations: Vec<_> = command
        .data
        .base
        .essays_to_process
        .iter()
        .map(|essay| StudentAssociation {
            essay_id: essay.essay_id.clone(),
            student_id: Some(student_of(&essay.essay_id)),
            confidence_score: 1.0,
            validation_method: ValidationMethod::Auto,
            validated_by: None,
            validated_at: Some(now.to_timestamp()),
        })
        .collect();
    let count = i64::try_from(associations.len()).unwrap_or(i64::MAX);
    let topic = Topic::StudentAssociationsConfirmed;
    let event_id = Uuid::new_v5(&command.event_id.unwrap_or(Uuid::nil()), b"confirmed");
    let correlation_id = command.correlation_id.unwrap_or(event_id);
    let said = command.metadata.as_ref().and_then(|said| said.get(metadata::TRACEPARENT)?.as_str());
    let traceparent = said.and_then(|parent| traceparent_of_span(parent, span_of(event_id)));
    let traced = traceparent.map(|traceparent| {
        [(metadata::TRACEPARENT.to_owned(), traceparent.into())].into_iter().collect::<serde_json::Map<String, Value>>()
    });
    let envelope = Envelope {
        event_id: Some(event_id),
        event_type: topic.as_str().to_owned(),
        event_timestamp: Some(now.to_timestamp()),
        source_service: services::CLASSES.to_owned(),
        schema_version: SCHEMA_VERSION,
        correlation_id: Some(correlation_id),
        data_schema_uri: None,
        data: StudentAssociationsConfirmed {
            event_name: EventName::StudentAssociationsConfirmed,
            entity_id: Some(batch_id.clone()),
            entity_type: Some("batch".to_owned()),
            parent_id: None,
            timestamp: Some(now.to_timestamp()),
            batch_id: batch_id.clone(),
            class_id: command.data.class_id,
            course_code: command.data.course_code,
            associations,
            timeout_triggered: false,
            validation_summary: [(ValidationMethod::Auto.as_str().to_owned(), count)].into(),
        },
        metadata: traced,
    };
    Message::new(topic, batch_id, &envelope)
}
