//! Events: posted, and read as they are published.

use schemars::JsonSchema;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::operation::{Audience, LAST_EVENT_ID, Operation};
use super::schemas::{AT, BATCH_ID, CORRELATION_ID, Time};
use crate::contract::Topic;
use crate::http::events::{Acknowledgement, StreamQuery};

const POST: &str = "An envelope of the contract, at most 512 KiB, whose `data` fits its `event_type`. The `event_id` is \
    its key: the same again has no second effect.";
const STREAM: &str = "Server-sent events: `id` is the place in the log, `event` the topic, `data` the envelope. \
    `Last-Event-ID` goes on behind that event. Where events are missing `event: gap` says so.";

pub(super) fn operations() -> Vec<Operation> {
    let (events, place) = (Audience::Events, "00000000000000a1-42");
    let group = json!({ "group": "reports", "after": place, "lag": 0, "moved_at": AT, "connected": false });
    let data = json!({
        "batch_id": BATCH_ID, "phase_name": "spellcheck", "skip_reason": "already_completed",
        "correlation_id": CORRELATION_ID, "metadata": { "entity_id": BATCH_ID, "entity_type": "batch" },
    });
    let topic = "huleedu.batch.phase.skipped.v1";
    vec![
        Operation::post("/v1/events", "publishEvent", "Publish an event")
            .text(POST)
            .audience(events)
            .body::<Envelope>(json!({
                "event_id": CORRELATION_ID, "event_type": topic, "event_timestamp": AT, "source_service": "reports",
                "data": data,
            }))
            .answer::<Published>(
                202,
                "It is published, or was before.",
                json!({
                    "event_id": CORRELATION_ID, "topic": topic, "duplicate": false,
                }),
            )
            .conflict("nobody would hear of it: no log is kept, and nothing here consumes the topic"),
        Operation::get("/v1/events/stream", "streamEvents", "Read events as they are published")
            .text(STREAM)
            .audience(events)
            .query::<StreamQuery>()
            .header(LAST_EVENT_ID)
            .answer_as::<String>(200, "The stream. It does not end by itself.", "text/event-stream", Value::Null)
            .conflict("no log of events is kept, or there are as many groups as there can be"),
        Operation::get("/v1/events/groups", "listGroups", "List the groups of readers")
            .audience(events)
            .answer::<Groups>(200, "Every group, with its place.", json!({ "groups": [group], "newest": place })),
        Operation::delete("/v1/events/groups/{group}", "forgetGroup", "Forget a group")
            .audience(events)
            .empty_answer(204, "It is forgotten.")
            .not_found("there is no such group")
            .conflict("somebody is reading for it"),
        Operation::post("/v1/events/groups/{group}/ack", "acknowledgeEvent", "Say what was taken")
            .text("Everything up to and with this event.")
            .audience(events)
            .body::<Acknowledgement>(json!({ "id": place }))
            .answer::<GroupView>(200, "The group, with its place.", group.clone())
            .not_found("there is no such group")
            .conflict("there is no such event in the log"),
    ]
}

/// An envelope of the contract.
#[derive(JsonSchema)]
#[schemars(rename = "EventEnvelope")]
struct Envelope {
    /// Names the event, so that it is published once.
    event_id: Uuid,
    /// The topic.
    event_type: Topic,
    #[schemars(with = "Option<Time>")]
    #[serde(default)]
    event_timestamp: Option<String>,
    #[schemars(length(min = 1, max = 255), regex(pattern = "\\S"))]
    source_service: String,
    #[serde(default = "version")]
    #[schemars(range(min = 1, max = 1))]
    schema_version: u32,
    correlation_id: Option<Uuid>,
    #[schemars(length(max = 2_000))]
    data_schema_uri: Option<String>,
    /// What the topic carries.
    data: Map<String, Value>,
    metadata: Option<Map<String, Value>>,
}

const fn version() -> u32 {
    crate::contract::SCHEMA_VERSION
}

#[derive(JsonSchema)]
#[schemars(rename = "EventPublished")]
struct Published {
    event_id: Uuid,
    topic: Topic,
    duplicate: bool,
}

#[derive(JsonSchema)]
#[schemars(rename = "EventGroups")]
struct Groups {
    groups: Vec<GroupView>,
    /// The id of the newest event.
    newest: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename = "EventGroup")]
struct GroupView {
    group: String,
    /// The last event that was taken.
    after: String,
    /// How many events are behind; not known where the place is in another log.
    lag: Option<u64>,
    #[schemars(with = "Time")]
    moved_at: String,
    /// Whether somebody reads for it.
    connected: bool,
}
