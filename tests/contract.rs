//! The promise "same wire": what the full stack writes is read here, and what is written here the full stack reads.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::fixtures::{assert_valid, folder, json, resolved, schema, schema_of, validator};
use common::world::{World, forced, only_command, prompt_ref, request, retry, retry_essays};
use rephase::contract::commands::{
    AiFeedbackInitiate, CjAssessmentInitiate, NlpInitiate, SpellcheckInitiate, StudentMatchingInitiate,
    StudentMatchingRequested,
};
use rephase::contract::enums::{NotificationCategory, NotificationPriority, ProcessingStage, ValidationMethod};
use rephase::contract::events::{
    BatchContentProvisioningCompleted, BatchEssaysReady, BatchEssaysRegistered, BatchPhaseOutcome,
    BatchPipelineCompleted, BatchValidationErrors, EssayContentProvisioned, PhaseSkipped, PipelineDenied,
    StudentAssociationsConfirmed, TeacherNotificationRequested,
};
use rephase::contract::requests::{BatchPromptAmendmentRequest, BatchRegistrationRequest, ClientBatchPipelineRequest};
use rephase::contract::{
    BatchClientStatus, BatchStatus, ContentType, CourseCode, Envelope, EssayRef, Language, PhaseName,
    PipelineExecutionStatus, ProcessingPipelineState, StorageReferences, Topic,
};
use rephase::domain::{Input, Phase};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// What `value` is after it was read as a `T` and written again.
fn again<T: DeserializeOwned + Serialize>(value: &Value) -> serde_json::Result<Value> {
    serde_json::to_value(serde_json::from_str::<T>(&value.to_string())?)
}

/// The same for the `data` of a topic's messages, inside the envelope.
fn envelope_again(topic: Topic, envelope: &Value) -> serde_json::Result<Value> {
    match topic {
        Topic::BatchAiFeedbackInitiateCommand => again::<Envelope<AiFeedbackInitiate>>(envelope),
        Topic::BatchCjAssessmentInitiateCommand => again::<Envelope<CjAssessmentInitiate>>(envelope),
        Topic::BatchContentProvisioningCompleted => again::<Envelope<BatchContentProvisioningCompleted>>(envelope),
        Topic::BatchEssaysReady => again::<Envelope<BatchEssaysReady>>(envelope),
        Topic::BatchEssaysRegistered => again::<Envelope<BatchEssaysRegistered>>(envelope),
        Topic::BatchNlpInitiateCommandV2 => again::<Envelope<NlpInitiate>>(envelope),
        Topic::BatchPhaseSkipped => again::<Envelope<PhaseSkipped>>(envelope),
        Topic::BatchPipelineCompleted => again::<Envelope<BatchPipelineCompleted>>(envelope),
        Topic::BatchSpellcheckInitiateCommand => again::<Envelope<SpellcheckInitiate>>(envelope),
        Topic::BatchStudentMatchingInitiateCommand => again::<Envelope<StudentMatchingInitiate>>(envelope),
        Topic::BatchValidationErrors => again::<Envelope<BatchValidationErrors>>(envelope),
        Topic::ClientBatchPipelineRequest => again::<Envelope<ClientBatchPipelineRequest>>(envelope),
        Topic::ElsBatchPhaseOutcome => again::<Envelope<BatchPhaseOutcome>>(envelope),
        Topic::EssayContentProvisioned => again::<Envelope<EssayContentProvisioned>>(envelope),
        Topic::PipelineDenied => again::<Envelope<PipelineDenied>>(envelope),
        Topic::StudentAssociationsConfirmed => again::<Envelope<StudentAssociationsConfirmed>>(envelope),
        Topic::TeacherNotificationRequested => again::<Envelope<TeacherNotificationRequested>>(envelope),
    }
}

fn topic_of(envelope: &Value) -> Topic {
    let event_type = envelope["event_type"].as_str().expect("an envelope has an event_type");
    event_type.parse().unwrap_or_else(|_| panic!("no topic is called {event_type}"))
}

type Again = fn(&Value) -> serde_json::Result<Value>;

/// The types that travel on no topic, by the name of their schema.
const BARE: [(&str, Again); 6] = [
    ("BatchPromptAmendmentRequest", again::<BatchPromptAmendmentRequest>),
    ("BatchRegistrationRequestV1", again::<BatchRegistrationRequest>),
    ("BatchStudentMatchingRequestedV1", again::<StudentMatchingRequested>),
    ("EssayProcessingInputRefV1", again::<EssayRef>),
    ("ProcessingPipelineState", again::<ProcessingPipelineState>),
    ("StorageReferenceMetadata", again::<StorageReferences>),
];

/// The samples that are no envelopes, by the name of their schema.
fn bare_schema_of(sample: &str) -> Option<&'static str> {
    match sample {
        "processing_pipeline_state" => Some("ProcessingPipelineState"),
        "batch_registration_request" => Some("BatchRegistrationRequestV1"),
        _ => None,
    }
}

fn bare_again(schema: &str, value: &Value) -> serde_json::Result<Value> {
    let (_, again) = BARE.iter().find(|(name, _)| *name == schema).unwrap_or_else(|| panic!("no type for {schema}"));
    again(value)
}

#[test]
fn every_sample_is_read_and_written_again_as_it_was() {
    for (name, sample) in folder("samples") {
        let written = match bare_schema_of(&name) {
            Some(schema) => bare_again(schema, &sample),
            None => envelope_again(topic_of(&sample), &sample),
        };
        assert_eq!(written.unwrap_or_else(|error| panic!("{name}: {error}")), sample, "{name}");
    }
}

#[test]
fn every_sample_fits_its_schema() {
    for (name, sample) in folder("samples") {
        if let Some(schema) = bare_schema_of(&name) {
            assert_valid(schema, &sample, &name);
        } else {
            assert_valid("EventEnvelope", &sample, &name);
            assert_valid(schema_of(topic_of(&sample)), &sample["data"], &name);
        }
    }
}

#[test]
fn every_type_has_a_schema_and_every_schema_a_type() {
    let typed: BTreeSet<String> = Topic::ALL
        .iter()
        .map(|&topic| schema_of(topic))
        .chain(BARE.iter().map(|(name, _)| *name))
        .chain(["EventEnvelope"])
        .map(str::to_owned)
        .collect();
    assert_eq!(typed, folder("schemas").into_keys().collect());
    assert_eq!(typed.len(), Topic::ALL.len() + BARE.len() + 1, "two types share a schema");
}

/// The least that `schema` asks for.
fn least(root: &Value, schema: &Value) -> Value {
    let schema = resolved(root, schema);
    if let Some(values) = schema["enum"].as_array() {
        return values[0].clone();
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("object"), _) => {
            let required = schema["required"].as_array().into_iter().flatten();
            let names = required.map(|name| name.as_str().expect("a name"));
            names.map(|name| (name.to_owned(), least(root, &schema["properties"][name]))).collect()
        }
        (Some("array"), _) => json!([least(root, &schema["items"])]),
        (Some("string"), Some("uuid")) => json!("6f0a2a62-18a3-4a2e-8f6a-6a4d8f5f3c01"),
        (Some("string"), Some("date-time")) => json!("2026-03-02T08:30:00Z"),
        (Some("string"), _) => json!("x"),
        (Some("integer" | "number"), _) => json!(1),
        (Some("boolean"), _) => json!(true),
        (other, _) => panic!("the schemas have no {other:?}"),
    }
}

/// Fails where a member that has a default in `schema` is not that default in `value`.
fn assert_defaults(root: &Value, schema: &Value, value: &Value, path: &str) {
    let schema = resolved(root, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let member = value.get(name);
        if let Some(default) = property.get("default") {
            assert_eq!(member, Some(default), "{path}");
        }
        match member {
            Some(Value::Object(_)) => assert_defaults(root, property, &value[name], &path),
            Some(Value::Array(items)) => {
                for item in items {
                    assert_defaults(root, &resolved(root, property)["items"], item, &path);
                }
            }
            Some(_) | None => {}
        }
    }
}

#[test]
fn the_least_of_each_message_is_read_and_the_defaults_are_filled_in() {
    let envelope = |topic: Topic, data: &Value| json!({ "event_type": topic, "source_service": "x", "data": data });
    for &topic in Topic::ALL {
        let root = schema(schema_of(topic));
        let written = envelope_again(topic, &envelope(topic, &least(&root, &root)));
        let written = written.unwrap_or_else(|error| panic!("{topic}: {error}"));
        assert_valid(schema_of(topic), &written["data"], topic.as_str());
        assert_defaults(&root, &root, &written["data"], topic.as_str());
        assert_eq!(written["schema_version"], 1);
        let envelope_schema = schema("EventEnvelope");
        assert_defaults(&envelope_schema, &envelope_schema, &written, "EventEnvelope");
    }
    for (name, again) in BARE {
        let root = schema(name);
        let written = again(&least(&root, &root)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_valid(name, &written, name);
        assert_defaults(&root, &root, &written, name);
    }
}

#[test]
fn a_missing_member_without_a_default_is_an_error() {
    for &topic in Topic::ALL {
        let root = schema(schema_of(topic));
        let whole = least(&root, &root);
        for name in root["required"].as_array().expect("every message requires something") {
            let mut data = whole.as_object().expect("an object").clone();
            data.remove(name.as_str().expect("a name"));
            let envelope = json!({ "event_type": topic, "source_service": "x", "data": data });
            assert!(envelope_again(topic, &envelope).is_err(), "{topic} was read without {name}");
        }
    }
}

/// `value` with a member nobody knows in every object that is a list's item, `data`, `metadata` or the whole.
fn with_unknown_members(value: &Value) -> Value {
    let mut value = value.clone();
    let mut add = |pointer: &str| {
        if let Some(Value::Object(members)) = value.pointer_mut(pointer) {
            members.insert("from_the_future".to_owned(), json!({ "a": [1, null] }));
        }
    };
    for pointer in ["", "/data", "/data/metadata", "/data/essays_to_process/0", "/data/processed_essays/0"] {
        add(pointer);
    }
    for pointer in ["/data/ready_essays/0", "/data/associations/0", "/spellcheck", "/spellcheck/essay_counts"] {
        add(pointer);
    }
    value
}

#[test]
fn unknown_members_are_ignored() {
    for (name, sample) in folder("samples") {
        let extended = with_unknown_members(&sample);
        assert_ne!(extended, sample);
        let written = match bare_schema_of(&name) {
            Some(schema) => bare_again(schema, &extended),
            None => envelope_again(topic_of(&sample), &extended),
        };
        assert_eq!(written.unwrap_or_else(|error| panic!("{name}: {error}")), sample, "{name}");
    }
}

#[test]
fn times_are_written_in_utc_and_ids_in_lower_case() {
    let mut envelope = json("samples/els_batch_phase_outcome_success.json");
    envelope["event_timestamp"] = json!("2026-03-02T10:30:00.123456+02:00");
    envelope["event_id"] = json!("6DCB2602-7A22-5185-AB27-2B7D8EC5C45B");
    let written = envelope_again(Topic::ElsBatchPhaseOutcome, &envelope).expect("a valid envelope");
    assert_eq!(written["event_timestamp"], "2026-03-02T08:30:00.123456Z");
    assert_eq!(written["event_id"], "6dcb2602-7a22-5185-ab27-2b7d8ec5c45b");
}

/// Everything a batch says on a long way: success, partial success, failure, retries, pruning, completion.
fn everything_published() -> Vec<(Topic, Value)> {
    let mut world = World::ready(3);
    world.apply(request(Phase::CjAssessment));
    world.succeed_in_part(Phase::Spellcheck, &[0, 1]);
    world.fail(Phase::CjAssessment);
    world.apply(Input::RetryPhase(retry(Phase::CjAssessment)));
    world.succeed(Phase::CjAssessment);
    world.apply(Input::RetryPhase(retry_essays(Phase::Spellcheck, &[2])));
    world.succeed(Phase::Spellcheck);
    world.apply(request(Phase::AiFeedback));
    world.fail(Phase::Nlp);
    world.apply(forced(retry(Phase::Nlp)));
    world.succeed(Phase::Nlp);
    world.succeed(Phase::AiFeedback);
    world.apply(request(Phase::AiFeedback));
    // A batch with next to nothing that can be left out: every null is written.
    let mut bare = World::registered(1, json!({ "essay_ids": null, "org_id": null }));
    bare.provide(0..1);
    bare.apply(request(Phase::Spellcheck));
    let worlds = [world, bare].into_iter().flat_map(|world| world.published);
    worlds.map(|said| (said.data.topic(), serde_json::to_value(&said.data).expect("a message is JSON"))).collect()
}

/// Fails where `value` leaves out a member that `schema` names.
fn assert_complete(root: &Value, schema: &Value, value: &Value, path: &str) {
    let schema = resolved(root, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match value.get(name).unwrap_or_else(|| panic!("{path} is not written")) {
            member @ Value::Object(_) => assert_complete(root, property, member, &path),
            Value::Array(items) => {
                for item in items {
                    assert_complete(root, &resolved(root, property)["items"], item, &path);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

#[test]
fn what_a_batch_says_fits_the_schemas_and_leaves_nothing_out() {
    let said = everything_published();
    let topics: BTreeSet<Topic> = said.iter().map(|(topic, _)| *topic).collect();
    let expected = [
        Topic::BatchAiFeedbackInitiateCommand,
        Topic::BatchCjAssessmentInitiateCommand,
        Topic::BatchContentProvisioningCompleted,
        Topic::BatchEssaysRegistered,
        Topic::BatchNlpInitiateCommandV2,
        Topic::BatchPhaseSkipped,
        Topic::BatchPipelineCompleted,
        Topic::BatchSpellcheckInitiateCommand,
        Topic::TeacherNotificationRequested,
    ];
    assert_eq!(topics, BTreeSet::from(expected), "the tests say too little");
    for (topic, data) in said {
        let root = schema(schema_of(topic));
        assert_valid(schema_of(topic), &data, topic.as_str());
        assert_complete(&root, &root, &data, topic.as_str());
        let name = data.get("event").or(data.get("event_name")).and_then(Value::as_str);
        // A notification is named by its type alone.
        let own = (topic != Topic::TeacherNotificationRequested).then(|| topic.event_name().as_str());
        assert_eq!(name, own);
        if let Some(metadata) = data.get("metadata") {
            assert_eq!(metadata["event"], topic.event_name().as_str());
        }
    }
}

#[test]
fn a_command_says_what_the_sample_says() {
    let mut world = World::registered(3, json!({ "student_prompt_ref": prompt_ref(), "org_id": null }));
    world.provide(0..3);
    let spellcheck = only_command(&world.apply(request(Phase::AiFeedback)));
    let nlp = only_command(&world.succeed(Phase::Spellcheck));
    let ai_feedback = only_command(&world.succeed(Phase::Nlp));
    let cj_assessment = only_command(&{
        world.succeed(Phase::AiFeedback);
        world.apply(request(Phase::CjAssessment))
    });
    for (command, sample) in [
        (spellcheck, "spellcheck_initiate_command"),
        (nlp, "nlp_initiate_command"),
        (ai_feedback, "ai_feedback_initiate_command"),
        (cj_assessment, "cj_assessment_initiate_command"),
    ] {
        let mut expected = json(&format!("samples/{sample}.json"));
        let expected = expected["data"].as_object_mut().expect("data");
        expected.insert("essays_to_process".to_owned(), command.data["essays_to_process"].clone());
        expected.insert("timestamp".to_owned(), command.data["timestamp"].clone());
        assert_eq!(command.data, Value::Object(expected.clone()), "{sample}");
    }
}

#[test]
fn enums_have_the_contracts_values_in_its_order() {
    let ours = BTreeMap::from([
        ("PhaseName", json!(PhaseName::ALL)),
        ("PipelineExecutionStatus", json!(PipelineExecutionStatus::ALL)),
        ("BatchStatus", json!(BatchStatus::ALL)),
        ("BatchClientStatus", json!(BatchClientStatus::ALL)),
        ("CourseCode", json!(CourseCode::ALL)),
        ("Language", json!(Language::ALL)),
        ("ContentType", json!(ContentType::ALL)),
    ]);
    assert_eq!(json!(ours), json("enums.json"));
    for status in PipelineExecutionStatus::ALL {
        assert_eq!(json!(status), json!(status.as_str()), "the two spellings of a value differ");
        assert_eq!(status.as_str().parse(), Ok(*status));
    }
    assert!("In_Progress".parse::<PipelineExecutionStatus>().is_err(), "the wire's values have one spelling");
}

#[test]
fn the_enums_inside_the_schemas_are_ours() {
    let values = |schema_name: &str, definition: &str| schema(schema_name)["$defs"][definition]["enum"].clone();
    for (theirs, ours) in [
        (values("BatchEssaysReady", "ProcessingStage"), json!(ProcessingStage::ALL)),
        (values("StudentAssociationsConfirmedV1", "AssociationValidationMethod"), json!(ValidationMethod::ALL)),
        (values("TeacherNotificationRequestedV1", "NotificationPriority"), json!(NotificationPriority::ALL)),
        (values("TeacherNotificationRequestedV1", "WebSocketEventCategory"), json!(NotificationCategory::ALL)),
        (values("PipelineDeniedV1", "ProcessingEvent"), json!(rephase::contract::EventName::ALL)),
    ] {
        assert_eq!(ours, theirs);
    }
    let errors = schema("BatchValidationErrorsV1");
    let codes: Vec<&Value> = errors["$defs"]["ErrorDetail"]["properties"]["error_code"]["anyOf"]
        .as_array()
        .expect("several kinds of codes")
        .iter()
        .flat_map(|kind| resolved(&errors, kind)["enum"].as_array().expect("an enum"))
        .collect();
    assert_eq!(json!(rephase::contract::ErrorCode::ALL), json!(codes));
}

#[test]
fn topics_have_the_contracts_names() {
    let ours: Map<String, Value> =
        Topic::ALL.iter().map(|topic| (topic.event_name().as_str().to_owned(), json!(topic.as_str()))).collect();
    assert_eq!(ours.len(), Topic::ALL.len(), "two topics carry the same event");
    assert_eq!(Value::Object(ours), json("topics.json"));
}

#[test]
fn a_client_is_shown_fewer_statuses() {
    use BatchClientStatus as Client;
    use BatchStatus as Status;
    let expected = [
        (Status::AwaitingContentValidation, Client::PendingContent),
        (Status::ContentIngestionFailed, Client::Failed),
        (Status::AwaitingPipelineConfiguration, Client::PendingContent),
        (Status::ReadyForPipelineExecution, Client::Ready),
        (Status::ProcessingPipelines, Client::Processing),
        (Status::AwaitingStudentValidation, Client::Processing),
        (Status::StudentValidationCompleted, Client::Processing),
        (Status::ValidationTimeoutProcessed, Client::Processing),
        (Status::CompletedSuccessfully, Client::CompletedSuccessfully),
        (Status::CompletedWithFailures, Client::CompletedWithFailures),
        (Status::FailedCritically, Client::Failed),
        (Status::Cancelled, Client::Cancelled),
    ];
    assert_eq!(expected.map(|(status, _)| status), BatchStatus::ALL);
    for (status, client) in expected {
        assert_eq!(status.for_client(), client, "{status}");
    }
}

#[test]
fn a_course_fixes_the_language() {
    let languages: Vec<_> = CourseCode::ALL.iter().map(|course| (course.as_str(), course.language())).collect();
    let expected = [
        ("ENG5", Language::En),
        ("ENG6", Language::En),
        ("ENG7", Language::En),
        ("SV1", Language::Sv),
        ("SV2", Language::Sv),
        ("SV3", Language::Sv),
    ];
    assert_eq!(languages, expected);
}

#[test]
fn the_validators_of_these_tests_check_formats() {
    let mut envelope = json("samples/batch_phase_skipped.json");
    assert!(validator("EventEnvelope").is_valid(&envelope));
    envelope["event_timestamp"] = json!("yesterday");
    assert!(!validator("EventEnvelope").is_valid(&envelope));
}
