//! Regular batches: whose the essays are is known, or nobody said so in time, before the first pipeline.

mod common;

use common::world::{self, OWNER, TICK_MS, World, essay_id, prompt_ref, request};
use rephase::contract::BatchStatus;
use rephase::domain::step::{Data, RetryRequest};
use rephase::domain::{Effect, Input, Phase, Rejected, Timer};
use serde_json::json;

const DAY_MS: u64 = 24 * 3_600 * 1_000;

fn class() -> serde_json::Value {
    json!({ "class_id": "class-9", "student_prompt_ref": prompt_ref() })
}

/// A regular batch whose essays are all there.
fn awaiting() -> World {
    let mut world = World::registered(2, class());
    world.provide(0..2);
    world
}

fn confirmed(class_id: &str, essays: &[String], timeout_triggered: bool) -> Input {
    Input::AssociationsConfirmed { class_id: class_id.to_owned(), essay_ids: essays.to_vec(), timeout_triggered }
}

fn both() -> Vec<String> {
    vec![essay_id(0), essay_id(1)]
}

/// The names of what is published.
fn published(effects: &[Effect]) -> Vec<&'static str> {
    let name = |effect: &Effect| match effect {
        Effect::Publish(outgoing) => Some(outgoing.data.topic().event_name().as_str()),
        _ => None,
    };
    effects.iter().filter_map(name).collect()
}

#[test]
fn the_students_are_looked_for_once_every_essay_is_there() {
    let mut world = World::registered(2, class());
    assert_eq!(world.provide(0..1), [], "one is missing");
    let effects = world.provide(1..2);
    assert_eq!(world.batch().status, BatchStatus::AwaitingStudentValidation);
    let names = ["batch.student.matching.initiate.command", "batch.content.provisioning.completed"];
    assert_eq!(published(&effects), names);
    assert_eq!(world.armed, [Timer::student_validation(world.now.plus(DAY_MS))]);
    let Some(Data::StudentMatching(command)) = effects.iter().find_map(|effect| match effect {
        Effect::Publish(outgoing) => Some(&outgoing.data),
        _ => None,
    }) else {
        panic!("{effects:#?}")
    };
    assert_eq!((command.class_id.as_str(), command.base.essays_to_process.len()), ("class-9", 2));

    let not_ready = Rejected::NotReady { status: BatchStatus::AwaitingStudentValidation };
    assert_eq!(world.refuse(request(Phase::Nlp)), not_ready);
    let retry = RetryRequest::whole(OWNER.to_owned(), Phase::Nlp, "now".to_owned());
    world.refuse(Input::RetryPhase(retry));
}

#[test]
fn a_confirmed_batch_is_ready_once_its_essays_are_stored() {
    let mut world = awaiting();
    let effects = world.apply(confirmed("class-9", &both(), false));
    assert_eq!(world.batch().status, BatchStatus::StudentValidationCompleted);
    assert_eq!((published(&effects), world.armed.as_slice()), (vec!["batch.essays.ready"], &[][..]));
    world.change_nothing(confirmed("class-9", &both(), false));
    world.apply(Input::EssaysReady);
    assert_eq!(world.batch().status, BatchStatus::ReadyForPipelineExecution);
    world.change_nothing(Input::EssaysReady);
    world.change_nothing(confirmed("class-9", &both(), true));

    let effects = world.apply(request(Phase::CjAssessment));
    assert!(!effects.is_empty());
    world.succeed(Phase::Spellcheck);
    assert_eq!(world::only_command(&world_commands(&world)).data["class_type"], "REGULAR");
}

/// The newest command, as effects.
fn world_commands(world: &World) -> Vec<Effect> {
    world.published.last().cloned().map(|outgoing| Effect::Publish(Box::new(outgoing))).into_iter().collect()
}

#[test]
fn what_does_not_fit_the_batch_confirms_nothing() {
    let world = awaiting();
    for (class_id, essays) in [("class-8", both()), ("", both()), ("class-9", vec!["essay-2".to_owned()])] {
        assert!(matches!(world.refuse(confirmed(class_id, &essays, false)), Rejected::Inconsistent { .. }));
    }
    assert!(matches!(world.refuse(Input::EssaysReady), Rejected::Inconsistent { .. }));
    let early = World::registered(2, class());
    assert!(matches!(early.refuse(confirmed("class-9", &[], false)), Rejected::Inconsistent { .. }));
    let guest = World::ready(2);
    assert!(matches!(guest.refuse(confirmed("class-9", &both(), false)), Rejected::Inconsistent { .. }));
}

#[test]
fn a_batch_that_nobody_confirms_goes_on_after_a_day() {
    let mut world = awaiting();
    assert!(matches!(world.refuse(Input::StudentValidationExpired), Rejected::Inconsistent { .. }));
    world.now = world.now.plus(DAY_MS - 2 * TICK_MS);
    assert!(
        matches!(world.refuse(Input::StudentValidationExpired), Rejected::Inconsistent { .. }),
        "a moment too early"
    );
    world.now = world.now.plus(TICK_MS);
    let effects = world.apply(Input::StudentValidationExpired);
    assert_eq!(world.batch().status, BatchStatus::ValidationTimeoutProcessed);
    assert_eq!(published(&effects), ["student.associations.confirmed", "batch.essays.ready"]);
    // Its own announcement comes back to it.
    world.change_nothing(confirmed("class-9", &both(), true));
    world.apply(Input::EssaysReady);
    assert_eq!(world.batch().status, BatchStatus::ReadyForPipelineExecution);
    assert!(matches!(world.refuse(Input::StudentValidationExpired), Rejected::Inconsistent { .. }), "it is over");
}
