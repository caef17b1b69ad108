//! The pure `step` before the first pipeline: registration, essays and the prompt.

mod common;

use std::collections::BTreeSet;

use common::world::{
    OWNER, START, STRANGER, TICK_MS, World, batch_id, essay_id, new_essays, prompt_ref, provisionings, published,
    registration_request, request, retry, topics,
};
use rephase::contract::{BatchStatus, EssayRef, StorageReferences, Topic};
use rephase::domain::step::{Data, PhaseOutcome, Registration};
use rephase::domain::{Batch, Input, MAX_ESSAYS, Phase, Rejected, RejectionKind, Slot};
use serde_json::{Value, json};

fn essay_ids(batch: &Batch) -> Vec<&str> {
    batch.essays.iter().map(|essay| essay.id.as_str()).collect()
}

/// The id of each essay's text, or `-`.
fn texts(batch: &Batch) -> Vec<&str> {
    batch.essays.iter().map(|essay| essay.content.as_ref().map_or("-", |content| &content.text_storage_id)).collect()
}

#[test]
fn registration_makes_slots_and_announces_them() {
    let mut world = World::empty();
    let effects = world.register(3, json!({ "student_prompt_ref": prompt_ref(), "course_code": "SV2" }));
    let batch = world.batch();
    assert_eq!((batch.id, batch.version, batch.status), (batch_id(), 1, BatchStatus::AwaitingContentValidation));
    assert_eq!(essay_ids(batch), ["essay-0", "essay-1", "essay-2"]);
    assert_eq!((texts(batch), batch.essays_received), (vec!["-"; 3], 0));
    assert_eq!((batch.run.as_ref(), batch.requested_phases().count()), (None, 0));
    assert_eq!((batch.details.user_id.as_str(), batch.details.registered_at), (OWNER, START));

    assert_eq!(effects.len(), 1);
    let said = published(&effects)[0];
    assert_eq!((said.data.topic(), said.data.source_service()), (Topic::BatchEssaysRegistered, "batch-service"));
    let data = serde_json::to_value(&said.data).expect("JSON");
    assert_eq!(data["entity_id"], batch_id().to_string());
    assert_eq!(data["expected_essay_count"], 3);
    assert_eq!(data["essay_ids"], json!(["essay-0", "essay-1", "essay-2"]));
    assert_eq!(
        (&data["course_code"], &data["user_id"], &data["org_id"]),
        (&json!("SV2"), &json!(OWNER), &json!("school-1"))
    );
    assert_eq!(data["student_prompt_ref"], json!(prompt_ref()));
}

#[test]
fn essay_ids_are_made_of_the_batch_id_where_the_client_chose_none() {
    let first = World::registered(MAX_ESSAYS, json!({ "essay_ids": null }));
    let ids: BTreeSet<_> = essay_ids(first.batch()).into_iter().collect();
    assert_eq!(ids.len(), MAX_ESSAYS, "every one is another");
    let second = World::registered(MAX_ESSAYS, json!({ "essay_ids": null }));
    assert_eq!(essay_ids(first.batch()), essay_ids(second.batch()), "the same batch has the same ids");

    let request = registration_request(1, json!({ "essay_ids": null }));
    let other = rephase::domain::BatchId(uuid::Uuid::from_u128(7));
    let mut elsewhere = World::empty();
    let registration = Registration::new(other, request, START).expect("a registration");
    elsewhere.apply(Input::Register(Box::new(registration)));
    assert!(!ids.contains(essay_ids(elsewhere.batch())[0]), "another batch has other ids");
}

#[test]
fn registrations_that_cannot_be_are_refused_with_the_member_that_is_wrong() {
    let ids = |count: usize| (0..count).map(|index| format!("e{index}")).collect::<Vec<_>>();
    for (essays, members, wrong) in [
        (0, json!({ "essay_ids": null }), "expected_essay_count"),
        (3, json!({ "expected_essay_count": -1 }), "expected_essay_count"),
        (3, json!({ "expected_essay_count": i64::MAX }), "expected_essay_count"),
        (MAX_ESSAYS + 1, json!({ "essay_ids": null }), "expected_essay_count"),
        (3, json!({ "essay_ids": ids(2) }), "essay_ids"),
        (3, json!({ "essay_ids": ids(4) }), "essay_ids"),
        (3, json!({ "essay_ids": [] }), "essay_ids"),
        (3, json!({ "essay_ids": ["a", "b", "a"] }), "essay_ids"),
        (3, json!({ "essay_ids": ["a", "b", " a "] }), "essay_ids"),
        (3, json!({ "cj_default_temperature": -0.1 }), "cj_default_temperature"),
        (3, json!({ "cj_default_temperature": 2.1 }), "cj_default_temperature"),
    ] {
        let shown = members.to_string();
        let refused = Registration::new(batch_id(), registration_request(essays, members), START);
        let rejected = refused.expect_err(&shown);
        assert_eq!(rejected.kind(), RejectionKind::Invalid);
        let Rejected::InvalidRegistration { field, .. } = rejected else { panic!("{shown}: {rejected}") };
        assert_eq!(field, wrong, "{shown}");
    }
    for (essays, members) in [
        (1, json!({})),
        (MAX_ESSAYS, json!({})),
        (3, json!({ "class_id": "class-9" })),
        (3, json!({ "cj_default_temperature": 0 })),
        (3, json!({ "cj_default_temperature": 2 })),
    ] {
        let shown = format!("{essays} {members}");
        assert!(Registration::new(batch_id(), registration_request(essays, members), START).is_ok(), "{shown}");
    }
}

#[test]
fn a_batch_is_registered_once_and_nothing_works_before() {
    let registration = Registration::new(batch_id(), registration_request(1, json!({})), START).expect("valid");
    let world = World::registered(1, json!({}));
    assert_eq!(world.refuse(Input::Register(Box::new(registration))), Rejected::AlreadyRegistered);

    let nobody = World::empty();
    let outcome = PhaseOutcome {
        phase: Phase::Nlp,
        status: BatchStatus::CompletedSuccessfully,
        processed: Vec::new(),
        attempt: None,
        correlation_id: None,
        error: None,
        retry_after_ms: None,
        essay_errors: std::collections::BTreeMap::new(),
    };
    for input in [
        Input::ProvideEssays { by: OWNER.to_owned(), essays: Vec::new() },
        Input::ContentProvisioned { essays: Vec::new() },
        Input::AmendPrompt { by: OWNER.to_owned(), student_prompt_ref: prompt_ref() },
        request(Phase::Nlp),
        Input::RetryPhase(retry(Phase::Nlp)),
        Input::PhaseStarted { phase: Phase::Nlp, attempt: 1 },
        Input::PhaseOutcome(outcome),
        Input::DeadlineExpired { phase: Phase::Nlp, attempt: 1 },
    ] {
        assert_eq!(nobody.refuse(input), Rejected::NoSuchBatch);
    }
    assert_eq!(Rejected::NoSuchBatch.kind(), RejectionKind::NotFound);
}

#[test]
fn essays_fill_the_slots_in_order_in_one_call_or_in_several() {
    for filled in [&[0, 3][..], &[0, 1, 3], &[0, 1, 2, 3]] {
        let mut world = World::registered(3, json!({}));
        let mut effects = Vec::new();
        for call in filled.windows(2) {
            assert_eq!(effects, [], "nothing is announced before the last essay");
            assert_eq!(world.batch().essays_received, call[0]);
            assert_eq!(world.batch().status, BatchStatus::AwaitingContentValidation);
            effects = world.provide(call[0]..call[1]);
        }
        assert_eq!(texts(world.batch()), ["original-of-0", "original-of-1", "original-of-2"]);
        assert_eq!(world.batch().status, BatchStatus::ReadyForPipelineExecution);

        assert_eq!(topics(&effects), [Topic::BatchContentProvisioningCompleted]);
        let provisioned = provisionings(&effects)[0];
        assert_eq!((provisioned.provisioned_count, provisioned.expected_count), (3, 3));
        assert_eq!(provisioned.batch_id, batch_id().to_string());
        assert_eq!(provisioned.essays_for_processing, originals(0..3));
    }
}

fn originals(slots: std::ops::Range<Slot>) -> Vec<EssayRef> {
    let essay = |slot| EssayRef {
        essay_id: essay_id(slot),
        text_storage_id: format!("original-of-{slot}"),
        spellcheck_metrics: None,
    };
    slots.map(essay).collect()
}

#[test]
fn more_essays_than_slots_are_refused_and_none_is_taken() {
    let mut world = World::registered(3, json!({}));
    world.provide(0..1);
    let too_many = |by: &str| Input::ProvideEssays { by: by.to_owned(), essays: new_essays(1..4) };
    assert_eq!(world.refuse(too_many(OWNER)), Rejected::TooManyEssays { sent: 3, left: 2 });
    assert_eq!(texts(world.batch()), ["original-of-0", "-", "-"]);
    assert_eq!(world.refuse(too_many(STRANGER)), Rejected::NotOwner, "a stranger learns nothing about the slots");
    world.provide(1..3);
    let one_more = Input::ProvideEssays { by: OWNER.to_owned(), essays: new_essays(3..4) };
    assert_eq!(world.refuse(one_more), Rejected::TooManyEssays { sent: 1, left: 0 });
}

#[test]
fn only_the_owner_provides_essays() {
    let world = World::registered(3, json!({}));
    let input = Input::ProvideEssays { by: STRANGER.to_owned(), essays: new_essays(0..1) };
    assert_eq!(world.refuse(input), Rejected::NotOwner);
    assert_eq!(Rejected::NotOwner.kind(), RejectionKind::Forbidden);
}

#[test]
fn no_essays_change_nothing() {
    let mut world = World::registered(3, json!({}));
    world.change_nothing(Input::ProvideEssays { by: OWNER.to_owned(), essays: Vec::new() });
    let mut full = World::ready(3);
    full.change_nothing(Input::ProvideEssays { by: OWNER.to_owned(), essays: Vec::new() });
}

#[test]
fn the_lifecycle_services_word_makes_an_empty_batch_ready() {
    for already in [0, 1] {
        let mut world = World::registered(3, json!({}));
        if already > 0 {
            world.provide(0..already);
        }
        let mut essays = originals(0..3);
        essays.reverse();
        let version = world.batch().version;
        assert_eq!(world.apply(Input::ContentProvisioned { essays }), [], "who said so need not be told");
        assert_eq!(world.batch().version, version + 1);
        assert_eq!(world.batch().status, BatchStatus::ReadyForPipelineExecution);
        assert_eq!(texts(world.batch()), ["original-of-0", "original-of-1", "original-of-2"], "by id, not by order");
        assert!(world.batch().is_provisioned());
    }
}

#[test]
fn the_announcement_that_comes_back_changes_nothing() {
    let mut world = World::ready(3);
    world.change_nothing(Input::ContentProvisioned { essays: originals(0..3) });
    world.apply(request(Phase::Nlp));
    world.change_nothing(Input::ContentProvisioned { essays: originals(0..3) });
}

#[test]
fn a_provisioning_that_does_not_fit_the_batch_is_refused() {
    for already in [0, 1] {
        let mut world = World::registered(3, json!({}));
        if already > 0 {
            world.provide(0..already);
        }
        let twice = [originals(1..2), originals(1..3)].concat();
        let foreign = [originals(0..2), originals(7..8)].concat();
        for (essays, why) in [
            (originals(0..2), "one is missing"),
            (originals(0..4), "one too many"),
            (Vec::new(), "none"),
            (twice, "one twice"),
            (foreign, "one of another batch"),
        ] {
            let rejected = world.refuse(Input::ContentProvisioned { essays });
            assert!(matches!(rejected, Rejected::Inconsistent { .. }), "{why}: {rejected}");
        }
    }
}

fn other_prompt() -> StorageReferences {
    serde_json::from_value(json!({ "references": { "student_prompt_text": { "storage_id": "prompt-2" } } }))
        .expect("a prompt")
}

#[test]
fn the_prompt_can_be_amended_by_the_owner_until_the_first_pipeline() {
    let amend = |by: &str| Input::AmendPrompt { by: by.to_owned(), student_prompt_ref: other_prompt() };
    for mut world in [World::registered(3, json!({})), World::ready(3)] {
        assert_eq!(world.refuse(amend(STRANGER)), Rejected::NotOwner);
        assert_eq!(world.apply(amend(OWNER)), []);
        assert_eq!(world.batch().details.student_prompt_ref, Some(other_prompt()));
    }
    let mut world = World::running(3, Phase::Nlp);
    assert_eq!(world.refuse(amend(OWNER)), Rejected::ProcessingHasBegun);
    world.fail(Phase::Spellcheck);
    assert_eq!(world.refuse(amend(OWNER)), Rejected::ProcessingHasBegun, "it stays so when the pipeline is over");
}

#[test]
fn a_step_leaves_shared_parts_of_the_record_alone() {
    let mut world = World::ready(3);
    let essays = std::sync::Arc::clone(&world.batch().essays);
    let details = std::sync::Arc::clone(&world.batch().details);
    world.apply(request(Phase::Nlp));
    assert!(std::sync::Arc::ptr_eq(&world.batch().essays, &essays), "essays that did not change are not written");
    assert!(std::sync::Arc::ptr_eq(&world.batch().details, &details), "nor are the details");
    let results = std::sync::Arc::clone(&world.record(Phase::Spellcheck).results);
    world.apply(Input::PhaseStarted { phase: Phase::Spellcheck, attempt: 1 });
    assert!(std::sync::Arc::ptr_eq(&world.record(Phase::Spellcheck).results, &results), "nor are the results");
}

#[test]
fn a_change_is_dated() {
    let mut world = World::registered(2, json!({}));
    assert_eq!(world.batch().updated_at, START.plus(TICK_MS));
    world.provide(0..2);
    assert_eq!(world.batch().updated_at, START.plus(2 * TICK_MS));
    let changed_at = world.now;
    world.change_nothing(Input::ContentProvisioned { essays: Vec::new() });
    assert_eq!(world.batch().updated_at, changed_at);
}

#[test]
fn every_message_before_a_pipeline_carries_the_correlation_id_of_its_cause() {
    let mut world = World::empty();
    for act in [
        (|world: &mut World| world.register(1, json!({}))) as fn(&mut World) -> Vec<rephase::domain::Effect>,
        |world| world.provide(0..1),
    ] {
        let correlation_id = world.correlation_id();
        let effects = act(&mut world);
        let said = published(&effects);
        assert_eq!(said.len(), 1);
        assert_eq!(said[0].correlation_id, correlation_id);
        let inside: Value = serde_json::to_value(&said[0].data).expect("JSON");
        if matches!(said[0].data, Data::ContentProvisioned(_)) {
            assert_eq!(inside["correlation_id"], json!(correlation_id));
        }
    }
}
