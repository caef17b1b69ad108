//! The contract's idempotency keys: the same message gives the same key as in the full stack, and lives as long.

mod common;

use common::fixtures::json as fixture;
use rephase::contract::idempotency::{Key, PROCESSING_TTL_S, completed_ttl_s};
use rephase::contract::{Group, Headers, Message, Topic};
use serde_json::{Value, json};

fn topic_of(envelope: &Value) -> Topic {
    envelope["event_type"].as_str().expect("an event_type").parse().expect("a topic")
}

fn message(envelope: &Value, headers: Option<Headers>) -> Message {
    Message { topic: topic_of(envelope), key: "batch-1".to_owned(), headers, body: envelope.to_string().into() }
}

fn key(message: &Message) -> String {
    Key::of(Group::Orchestrator.service(), message).to_string()
}

/// A message that nobody has seen before, from a vector.
fn outcome() -> Value {
    fixture("samples/els_batch_phase_outcome_success.json")
}

#[test]
fn the_vectors_come_out_as_their_keys() {
    let vectors = fixture("idempotency_vectors.json");
    let vectors = vectors.as_array().expect("a list");
    let with_headers = vectors.iter().filter(|vector| vector["headers"].is_object()).count();
    assert!(with_headers > 0 && with_headers < vectors.len(), "the vectors show only one kind");
    for vector in vectors {
        let headers = vector["headers"].as_object().map(|headers| {
            assert_eq!(headers["event_type"], vector["message"]["event_type"]);
            let event_id = headers["event_id"].as_str().expect("an id").parse().expect("a UUID");
            Headers { event_id, trace_id: uuid::Uuid::nil() }
        });
        assert_eq!(key(&message(&vector["message"], headers)), vector["key"].as_str().expect("a key"), "{vector:#}");
    }
}

#[test]
fn with_complete_headers_only_the_event_id_counts() {
    let event_id = uuid::Uuid::from_u128(1);
    let headers = |trace_id| Some(Headers { event_id, trace_id: uuid::Uuid::from_u128(trace_id) });
    let first = key(&message(&outcome(), headers(1)));
    let mut other = outcome();
    other["data"] = json!({});
    assert_eq!(key(&message(&other, headers(2))), first);
    let mut unreadable = message(&outcome(), headers(1));
    unreadable.body = "{".into();
    assert_eq!(key(&unreadable), first, "the body is not even read");
    let other_id = Some(Headers { event_id: uuid::Uuid::from_u128(2), trace_id: event_id });
    assert_ne!(key(&message(&outcome(), other_id)), first);
}

#[test]
fn without_headers_data_and_event_id_count_and_nothing_else() {
    let first = key(&message(&outcome(), None));
    let changed = |pointer: &str, value: Value| {
        let mut envelope = outcome();
        *envelope.pointer_mut(pointer).expect("a member") = value;
        key(&message(&envelope, None))
    };
    assert_eq!(changed("/event_timestamp", json!("2027-01-01T00:00:00Z")), first);
    assert_eq!(changed("/metadata", json!({ "traceparent": "00-1-2-01" })), first);
    assert_ne!(changed("/event_id", json!("6dcb2602-7a22-5185-ab27-2b7d8ec5c45c")), first);
    assert_ne!(changed("/data/processed_essays/0/text_storage_id", json!("text-9")), first);
    let nothing = changed("/event_id", json!(""));
    assert_ne!(nothing, first);
    assert_eq!(changed("/event_id", Value::Null), nothing, "an empty event_id is none");
}

#[test]
fn the_order_of_members_and_white_space_do_not_count() {
    let with_body = |body: &str| {
        let topic = Topic::ElsBatchPhaseOutcome;
        key(&Message { topic, key: String::new(), headers: None, body: body.to_owned().into() })
    };
    let first = with_body(r#"{"event_id":"e","data":{"b":[1,{"y":2,"x":"å"}],"a":null}}"#);
    assert_eq!(
        with_body("{ \"data\" : {\"a\":null,\n\"b\":[ 1, {\"x\":\"\\u00e5\",\"y\":2} ]}, \"event_id\":\"e\" }"),
        first
    );
    assert_ne!(with_body(r#"{"event_id":"e","data":{"b":[{"y":2,"x":"å"},1],"a":null}}"#), first, "lists are ordered");
}

#[test]
fn a_body_that_is_no_envelope_is_known_by_its_bytes() {
    let with_body = |body: &'static str| {
        let topic = Topic::ElsBatchPhaseOutcome;
        key(&Message { topic, key: String::new(), headers: None, body: body.into() })
    };
    assert_eq!(with_body("no JSON"), with_body("no JSON"));
    assert_ne!(with_body("no JSON"), with_body("no JSON either"));
    assert_ne!(with_body("[1]"), with_body("[2]"));
}

#[test]
fn services_and_topics_have_keys_of_their_own() {
    let first = message(&outcome(), None);
    let elsewhere = Message { topic: Topic::BatchEssaysReady, ..first.clone() };
    assert_ne!(key(&first), key(&elsewhere));
    let of_worker = Key::of(Group::Nlp.service(), &first).to_string();
    assert_ne!(key(&first), of_worker);
    assert!(
        of_worker.starts_with("huleedu:idempotency:v2:essay_lifecycle_service:huleedu_els_batch_phase_outcome_v1:")
    );
}

#[test]
fn keys_live_as_long_as_in_the_full_stack() {
    assert_eq!(PROCESSING_TTL_S, 300);
    for &topic in Topic::ALL {
        let expected = match topic.as_str() {
            "huleedu.file.essay.content.provisioned.v1" => 3_600,
            "huleedu.batch.essays.registered.v1"
            | "huleedu.els.batch.essays.ready.v1"
            | "huleedu.els.batch.phase.outcome.v1" => 43_200,
            _ => 86_400,
        };
        assert_eq!(completed_ttl_s(topic), expected, "{topic}");
    }
}
