//! The pure `step` when a pipeline is requested: which phases run, in which order, and what each is told.

mod common;

use common::world::{
    OWNER, STRANGER, TICK_MS, World, batch_id, commands, completions, forced, only_command, only_completion,
    prompt_ref, published, request, retry, retry_essays, rules, text_id, timers, topics,
};
use rephase::contract::requests::PromptPayload;
use rephase::contract::{BatchStatus, PipelineExecutionStatus as Status, StorageReferences, Topic};
use rephase::domain::step::Data;
use rephase::domain::{
    Effect, Input, Phase, PhaseState, Rejected, Scope, Slot, Timer, TimerKind, Trigger, dependencies, resolve,
};
use serde_json::{Value, json};

use Phase::{AiFeedback, CjAssessment, Nlp, Spellcheck};

/// The phases left out among the effects.
fn skips(effects: &[Effect]) -> Vec<String> {
    let skipped = |data: &Data| match data {
        Data::PhaseSkipped(skipped) => {
            assert_eq!(
                (skipped.skip_reason.as_str(), skipped.batch_id.clone()),
                ("already_completed", batch_id().to_string())
            );
            Some(skipped.phase_name.clone())
        }
        Data::Registered(_)
        | Data::ContentProvisioned(_)
        | Data::PipelineCompleted(_)
        | Data::Notification(_)
        | Data::Spellcheck(_)
        | Data::CjAssessment(_)
        | Data::Nlp(_)
        | Data::AiFeedback(_)
        | Data::StudentMatching(_)
        | Data::AssociationsConfirmed(_)
        | Data::EssaysReady(_)
        | Data::PipelineDenied(_)
        | Data::PhaseOutcome(_) => None,
    };
    published(effects).into_iter().filter_map(|outgoing| skipped(&outgoing.data)).collect()
}

/// The order in which phases are dispatched when all succeed, from the first effects on.
fn run_to_the_end(world: &mut World, first: Vec<Effect>) -> (Vec<Phase>, Vec<Effect>) {
    let mut order = Vec::new();
    let mut effects = first;
    loop {
        let dispatched = commands(&effects);
        assert!(dispatched.len() <= 1, "one phase at a time");
        let Some(command) = dispatched.first() else { return (order, effects) };
        assert_eq!(world.in_flight(), Some(command.phase));
        assert_eq!(completions(&effects), Vec::<&_>::new(), "not complete while a phase is dispatched");
        order.push(command.phase);
        effects = world.succeed(command.phase);
    }
}

#[test]
fn a_pipeline_runs_its_last_phase_after_all_it_depends_on_one_after_the_other() {
    for (last, expected) in [
        (Spellcheck, vec![Spellcheck]),
        (CjAssessment, vec![Spellcheck, CjAssessment]),
        (Nlp, vec![Spellcheck, Nlp]),
        (AiFeedback, vec![Spellcheck, Nlp, AiFeedback]),
    ] {
        let mut world = World::ready(2);
        let first = world.apply(request(last));
        assert_eq!(world.batch().status, BatchStatus::ProcessingPipelines);
        for &phase in &expected[1..] {
            assert_eq!(world.status(phase), Status::PendingDependencies);
        }
        let (order, effects) = run_to_the_end(&mut world, first);
        assert_eq!(order, expected);
        let completed = only_completion(&effects);
        assert_eq!(completed.completed_phases, expected.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(completed.final_status, BatchStatus::CompletedSuccessfully);
        assert_eq!((completed.successful_essay_count, completed.failed_essay_count), (2, 0));
        assert_eq!((world.batch().status, world.batch().run.as_ref()), (BatchStatus::CompletedSuccessfully, None));
        assert_eq!(resolve(last.name().as_str()), Ok(expected));
        let asked_for = world.batch().requested_phases().count();
        assert_eq!(asked_for, order.len(), "phases nobody asked for have no record");
    }
}

#[test]
fn what_an_earlier_pipeline_completed_is_left_out_and_said_so() {
    let mut world = World::completed(2, Nlp);
    let nlp = world.record(Nlp).clone();
    let spellcheck = world.record(Spellcheck).clone();
    let effects = world.apply(request(AiFeedback));
    assert_eq!(skips(&effects), ["spellcheck", "nlp"]);
    assert_eq!(only_command(&effects).phase, AiFeedback);
    assert_eq!((world.record(Nlp), world.record(Spellcheck)), (&nlp, &spellcheck));

    let mut partial = World::running(2, Spellcheck);
    partial.succeed_in_part(Spellcheck, &[1]);
    let effects = partial.apply(request(Nlp));
    assert_eq!(skips(&effects), ["spellcheck"], "a partial success is one that others can go on with");
    assert_eq!(only_command(&effects).essay_ids, ["essay-1"]);
}

#[test]
fn what_failed_or_was_skipped_earlier_runs_again() {
    let mut world = World::running(2, AiFeedback);
    world.succeed(Spellcheck);
    world.fail(Nlp);
    assert_eq!(world.status(AiFeedback), Status::SkippedDueToDependencyFailure);
    let first = world.apply(request(AiFeedback));
    assert_eq!(skips(&first), ["spellcheck"]);
    assert_eq!(world.open(Nlp).number, 2);
    let (order, effects) = run_to_the_end(&mut world, first);
    assert_eq!(order, [Nlp, AiFeedback]);
    assert_eq!(only_completion(&effects).final_status, BatchStatus::CompletedSuccessfully);
    assert_eq!(world.record(AiFeedback).attempts, 1, "the skipped phase had no attempt");
}

#[test]
fn a_pipeline_of_which_all_is_complete_announces_its_completion_at_once() {
    let mut world = World::completed(2, Nlp);
    let correlation_id = world.correlation_id();
    let effects = world.apply(request(Nlp));
    let expected = [
        Topic::BatchPhaseSkipped,
        Topic::BatchPhaseSkipped,
        Topic::BatchPipelineCompleted,
        Topic::TeacherNotificationRequested,
    ];
    assert_eq!(topics(&effects), expected);
    assert_eq!(effects.len(), expected.len(), "nothing is dispatched, no timer armed");
    for outgoing in published(&effects) {
        assert_eq!(outgoing.correlation_id, correlation_id);
    }
    let completed = only_completion(&effects);
    assert_eq!(completed.correlation_id, correlation_id);
    assert!(completed.processing_duration_seconds.abs() < f64::EPSILON);
    assert_eq!((world.batch().status, world.batch().run.as_ref()), (BatchStatus::CompletedSuccessfully, None));
}

#[test]
fn a_pipeline_is_refused_until_all_essays_are_there() {
    let mut world = World::registered(2, json!({}));
    let not_ready = Rejected::NotReady { status: BatchStatus::AwaitingContentValidation };
    assert_eq!(world.refuse(request(Spellcheck)), not_ready);
    world.provide(0..1);
    assert_eq!(world.refuse(request(Spellcheck)), not_ready);
    world.provide(1..2);
    world.apply(request(Spellcheck));
}

#[test]
fn only_the_owner_requests_a_pipeline_and_one_at_a_time() {
    let theirs = Input::RequestPipeline { by: STRANGER.to_owned(), last: Spellcheck, prompt: None };
    let mut world = World::ready(2);
    assert_eq!(world.refuse(theirs.clone()), Rejected::NotOwner);
    world.apply(request(Nlp));
    while let Some(phase) = world.in_flight() {
        for last in Phase::ALL {
            assert_eq!(world.refuse(request(last)), Rejected::PipelineActive);
        }
        assert_eq!(world.refuse(theirs.clone()), Rejected::NotOwner, "a stranger learns nothing about the run");
        world.succeed(phase);
    }
    world.apply(request(CjAssessment));
}

fn with_prompt(last: Phase, assignment_id: Option<&str>, cms_prompt_ref: Option<&StorageReferences>) -> Input {
    let payload = json!({ "assignment_id": assignment_id, "cms_prompt_ref": cms_prompt_ref });
    let payload: PromptPayload = serde_json::from_value(payload).expect("a payload");
    Input::RequestPipeline { by: OWNER.to_owned(), last, prompt: Some(payload) }
}

#[test]
fn phases_that_need_a_prompt_are_refused_without_one() {
    let world = World::without_prompt(2);
    for (last, first_in_need) in [(CjAssessment, CjAssessment), (Nlp, Nlp), (AiFeedback, Nlp)] {
        assert_eq!(world.refuse(request(last)), Rejected::PromptMissing { phase: first_in_need });
    }
    let mut spellcheck = world.clone();
    spellcheck.apply(request(Spellcheck));
    let mut assigned = World::registered(2, json!({ "assignment_id": "assignment-1" }));
    assigned.provide(0..2);
    let missing = Rejected::PromptMissing { phase: Nlp };
    assert_eq!(assigned.refuse(request(Nlp)), missing, "an assignment alone is no prompt until a request says so");
}

#[test]
fn a_prompt_comes_from_the_registration_or_with_the_request() {
    let mut registered = World::ready(2);
    registered.apply(request(Nlp));
    assert_eq!(only_command(&registered.succeed(Spellcheck)).data["student_prompt_ref"], json!(prompt_ref()));

    let mut stored = World::without_prompt(2);
    stored.apply(with_prompt(Nlp, None, Some(&prompt_ref())));
    assert_eq!(only_command(&stored.succeed(Spellcheck)).data["student_prompt_ref"], json!(prompt_ref()));

    let mut assigned = World::without_prompt(2);
    assigned.apply(with_prompt(CjAssessment, Some("assignment-1"), None));
    let command = only_command(&assigned.succeed(Spellcheck));
    assert_eq!(
        (&command.data["assignment_id"], &command.data["student_prompt_ref"]),
        (&json!("assignment-1"), &Value::Null)
    );

    for mut world in [stored, assigned] {
        let phase = world.in_flight().expect("one is in flight");
        world.succeed(phase);
        world.apply(request(AiFeedback));
        assert_eq!(world.batch().status, BatchStatus::ProcessingPipelines, "the prompt stays with the batch");
    }
}

#[test]
fn a_prompt_payload_has_exactly_one_of_its_members() {
    for world in [World::without_prompt(2), World::ready(2)] {
        for (assignment_id, prompt) in
            [(Some("assignment-1"), Some(&prompt_ref())), (None, None), (Some(""), None), (Some("  "), None)]
        {
            let input = with_prompt(Nlp, assignment_id, prompt);
            assert_eq!(world.refuse(input), Rejected::PromptAmbiguous);
        }
    }
}

#[test]
fn a_command_goes_to_its_phase_with_the_owner_and_the_attempt() {
    let mut world = World::ready(2);
    let mut effects = world.apply(request(AiFeedback));
    for (phase, topic) in [
        (Spellcheck, Topic::BatchSpellcheckInitiateCommand),
        (Nlp, Topic::BatchNlpInitiateCommandV2),
        (AiFeedback, Topic::BatchAiFeedbackInitiateCommand),
    ] {
        // The owner is told once that it begins.
        let told = &[Topic::TeacherNotificationRequested][..usize::from(phase == Spellcheck)];
        assert_eq!(topics(&effects), [told, &[topic]].concat());
        let command = published(&effects)[told.len()];
        assert_eq!(command.data.source_service(), "batch-orchestrator-service");
        let command = only_command(&effects);
        assert_eq!(command.metadata, json!({ "user_id": OWNER, "org_id": "school-1", "attempt": 1 }));
        assert_eq!(command.correlation_id, world.batch().run.as_ref().expect("a run").correlation_id);
        effects = world.succeed(phase);
    }
    let command = only_command(&world.apply(request(CjAssessment)));
    assert_eq!(command.phase, CjAssessment);
    assert_eq!(command.data["event_name"], "batch.cj_assessment.initiate.command");

    let mut alone = World::registered(1, json!({ "org_id": null }));
    alone.provide(0..1);
    let metadata = only_command(&alone.apply(request(Spellcheck))).metadata;
    assert_eq!(metadata, json!({ "user_id": OWNER, "org_id": null, "attempt": 1 }), "a null is written");
}

#[test]
fn a_command_carries_what_the_phase_before_handed_on() {
    let mut world = World::running(2, AiFeedback);
    let metrics = |slot: Slot| json!({ "corrections": slot });
    let nlp = only_command(&world.succeed(Spellcheck));
    assert_eq!(nlp.text_ids, [text_id(Spellcheck, 1, 0), text_id(Spellcheck, 1, 1)]);
    assert_eq!(nlp.data["essays_to_process"][1]["spellcheck_metrics"], metrics(1));
    let ai_feedback = only_command(&world.succeed(Nlp));
    assert_eq!(ai_feedback.text_ids, [text_id(Nlp, 1, 0), text_id(Nlp, 1, 1)], "the last phase before it counts");
    world.succeed(AiFeedback);
    let cj_assessment = only_command(&world.apply(request(CjAssessment)));
    assert_eq!(
        cj_assessment.text_ids,
        [text_id(Spellcheck, 1, 0), text_id(Spellcheck, 1, 1)],
        "nothing from phases it does not depend on"
    );

    let mut first = World::ready(2);
    let spellcheck = only_command(&first.apply(request(Spellcheck)));
    assert_eq!(spellcheck.text_ids, ["original-of-0", "original-of-1"]);
    assert_eq!(spellcheck.essay_ids, ["essay-0", "essay-1"]);
}

#[test]
fn slots_are_named_only_where_a_command_has_a_part_of_the_batch() {
    let mut world = World::running(3, Nlp);
    let nlp = only_command(&world.succeed_in_part(Spellcheck, &[2, 0]));
    assert_eq!(nlp.essay_ids, ["essay-0", "essay-2"], "in the order of the slots");
    assert_eq!(nlp.metadata["slots"], json!([0, 2]));
    world.succeed(Nlp);
    let whole = only_command(&world.apply(Input::RetryPhase(retry(Spellcheck))));
    assert_eq!(whole.metadata.get("slots"), None);
    world.succeed(Spellcheck);
    let part = only_command(&world.apply(forced(retry_essays(Spellcheck, &[1]))));
    assert_eq!((part.metadata["slots"].clone(), part.metadata["attempt"].clone()), (json!([1]), json!(3)));
}

#[test]
fn a_dispatch_arms_its_deadline_and_the_outcome_disarms_it() {
    let mut world = World::ready(2);
    let mut effects = world.apply(request(AiFeedback));
    let mut before = None;
    for (phase, deadline_ms) in [(Spellcheck, 60_000), (Nlp, 180_000), (AiFeedback, 240_000)] {
        let timer = Timer { kind: TimerKind::Deadline, due: world.now.plus(deadline_ms), phase, attempt: 1 };
        assert_eq!(timers(&effects), (vec![timer], Vec::from_iter(before)));
        let PhaseState::Dispatched { attempt, deadline } = &world.record(phase).state else { panic!("{phase}") };
        assert_eq!((*deadline, attempt.dispatched_at), (timer.due, Some(world.now)));
        before = Some(timer);
        effects = world.succeed(phase);
    }
    assert_eq!(timers(&effects), (vec![], Vec::from_iter(before)), "no timer outlives the pipeline");
}

#[test]
fn an_attempt_of_a_pipeline_says_who_asked_and_when() {
    let mut world = World::ready(2);
    let correlation_id = world.correlation_id();
    world.apply(request(Nlp));
    let asked_at = world.now;
    world.succeed(Spellcheck);
    let attempt = world.open(Nlp);
    assert_eq!((attempt.number, attempt.trigger, attempt.requested_by.as_str()), (1, Trigger::Pipeline, OWNER));
    assert_eq!((attempt.reason.as_ref(), &attempt.scope, &attempt.slots), (None, &Scope::Whole, &vec![0, 1]));
    assert_eq!((attempt.correlation_id, attempt.enqueued_at), (correlation_id, asked_at));
    assert_eq!((attempt.dispatched_at, attempt.started_at), (Some(asked_at.plus(TICK_MS)), None));
    assert_eq!(attempt.end, None);
}

#[test]
fn every_phase_finds_all_its_dependencies_complete_when_it_is_dispatched() {
    for last in Phase::ALL {
        let mut world = World::running(2, last);
        while let Some(phase) = world.in_flight() {
            for &dependency in dependencies(phase) {
                assert!(world.batch().has_completed(dependency), "{phase} runs without {dependency}");
            }
            world.succeed(phase);
        }
    }
}

#[test]
fn a_worker_that_takes_a_command_moves_the_phase_on_once() {
    let mut world = World::running(2, Nlp);
    let started = |attempt| Input::PhaseStarted { phase: Spellcheck, attempt };
    let stale = Rejected::StaleAttempt { phase: Spellcheck };
    assert_eq!(world.refuse(started(2)), stale, "an attempt that is yet to come");
    assert_eq!(world.refuse(started(0)), stale);
    assert_eq!(world.refuse(Input::PhaseStarted { phase: Nlp, attempt: 1 }), Rejected::StaleAttempt { phase: Nlp });
    let effects = world.apply(started(1));
    assert_eq!(
        (timers(&effects).0.len(), timers(&effects).1.len(), effects.len()),
        (1, 1, 2),
        "only its deadline moves"
    );
    assert_eq!(world.status(Spellcheck), Status::InProgress);
    assert_eq!(world.open(Spellcheck).started_at, Some(world.now));
    let deadline = |world: &World| world.record(Spellcheck).state.in_flight().expect("in flight").1;
    let time = rules().phase_deadline_ms[Spellcheck.index()];
    assert_eq!(deadline(&world), world.now.plus(time), "waiting for a worker is not the worker's time");
    world.change_nothing(started(1));
    world.up_since = world.now.plus(50);
    world.apply(started(1));
    assert_eq!(deadline(&world), world.now.plus(time), "after a restart it begins anew");
    assert_eq!(world.refuse(started(2)), stale);
    world.fail(Spellcheck);
    assert_eq!(world.refuse(started(1)), stale, "an attempt that is over");
    world.apply(Input::RetryPhase(retry(Spellcheck)));
    assert_eq!(world.refuse(started(1)), stale, "the attempt before");
    world.apply(started(2));
}

#[test]
fn an_empty_reference_does_not_take_the_prompt_away() {
    let mut world = World::completed(1, Nlp);
    let empty = StorageReferences::default();
    let prompt = Some(PromptPayload { assignment_id: None, cms_prompt_ref: Some(empty) });
    let asked = Input::RequestPipeline { by: OWNER.to_owned(), last: Spellcheck, prompt };
    assert_eq!(world.refuse(asked), Rejected::PromptAmbiguous);
    world.apply(forced(retry(Nlp)));
    assert!(world.batch().details.has_prompt());
}
