//! The pure `step` when one phase is retried: promise 4, nothing else of the batch is run again.

mod common;

use common::world::{
    OWNER, STRANGER, World, commands, completions, essay_id, forced, only_command, only_completion, provider_down,
    recorded, request, retry, retry_essays, text_id, topics,
};
use rephase::contract::{BatchStatus, PipelineExecutionStatus as Status, Topic};
use rephase::domain::step::{RetryRequest, Selection};
use rephase::domain::{AttemptOutcome, Input, Phase, PhaseRecord, PhaseState, Rejected, RejectionKind, Scope, Trigger};
use serde_json::json;

use Phase::{AiFeedback, CjAssessment, Nlp, Spellcheck};

/// Retries as the owner; the retry must be allowed.
fn user_retries(world: &mut World, request: RetryRequest) -> Vec<rephase::domain::Effect> {
    world.apply(Input::RetryPhase(request))
}

/// The records of all phases but one.
fn others(world: &World, but: Phase) -> Vec<Option<PhaseRecord>> {
    Phase::ALL.into_iter().filter(|&phase| phase != but).map(|phase| world.batch().phase(phase).cloned()).collect()
}

/// A batch in which `spellcheck` and `cj_assessment` succeeded and `nlp` failed.
fn with_failed_nlp() -> World {
    let mut world = World::completed(3, CjAssessment);
    world.apply(request(Nlp));
    world.fail(Nlp);
    world
}

/// A batch whose `cj_assessment` is in flight while its `nlp` waits for its turn to be retried.
fn with_nlp_queued() -> World {
    let mut world = World::running(3, Nlp);
    world.succeed(Spellcheck);
    world.fail(Nlp);
    world.apply(request(CjAssessment));
    user_retries(&mut world, retry(Nlp));
    world
}

#[test]
fn a_retry_runs_one_phase_and_leaves_the_others_as_they_are() {
    let mut world = with_failed_nlp();
    let before = others(&world, Nlp);
    let correlation_id = world.correlation_id();
    let effects = user_retries(&mut world, retry(Nlp));
    let command = only_command(&effects);
    assert_eq!(topics(&effects), [Topic::BatchNlpInitiateCommandV2], "nothing else is sent");
    assert_eq!((command.phase, command.correlation_id), (Nlp, correlation_id));
    assert_eq!(command.text_ids, [0, 1, 2].map(|slot| text_id(Spellcheck, 1, slot)));
    assert_eq!(command.metadata["attempt"], 2);
    assert_eq!(world.batch().status, BatchStatus::ProcessingPipelines);
    assert_eq!(others(&world, Nlp), before);
    let effects = world.succeed(Nlp);
    assert_eq!(others(&world, Nlp), before);
    assert_eq!(world.status(Nlp), Status::CompletedSuccessfully);
    let completed = only_completion(&effects);
    assert_eq!(completed.final_status, BatchStatus::CompletedSuccessfully);
    assert_eq!((completed.successful_essay_count, completed.failed_essay_count), (3, 0));
    assert_eq!(completed.correlation_id, correlation_id);
}

#[test]
fn a_retry_is_an_attempt_of_its_own_and_the_earlier_ones_stay_on_record() {
    let mut world = with_failed_nlp();
    let first = world.newest_attempts(Nlp)[0].clone();
    user_retries(&mut world, RetryRequest { reason: "the server was down".to_owned(), ..retry(Nlp) });
    let asked_at = world.now;
    let attempt = world.open(Nlp).clone();
    assert_eq!((attempt.number, attempt.trigger, attempt.requested_by.as_str()), (2, Trigger::User, OWNER));
    assert_eq!(attempt.reason.as_deref(), Some("the server was down"));
    assert_eq!((attempt.scope, attempt.slots), (Scope::Whole, vec![0, 1, 2]));
    assert_eq!((attempt.enqueued_at, attempt.dispatched_at), (asked_at, Some(asked_at)));
    assert_eq!(attempt.end, None);
    assert_eq!(recorded(&world.fail(Nlp)), [(Nlp, 2)]);
    user_retries(&mut world, retry(Nlp));
    assert_eq!(recorded(&world.succeed(Nlp)), [(Nlp, 3)]);
    let attempts = world.newest_attempts(Nlp);
    assert_eq!(attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(attempts[2], first);
    let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.end.as_ref().expect("an end").outcome).collect();
    assert_eq!(outcomes, [AttemptOutcome::Succeeded, AttemptOutcome::Failed, AttemptOutcome::Failed]);
    assert_eq!(world.record(Nlp).attempts, 3);
}

#[test]
fn what_was_skipped_because_of_the_phase_waits_again_and_goes_on_after_a_success() {
    let mut world = World::running(3, AiFeedback);
    world.fail(Spellcheck);
    let effects = user_retries(&mut world, retry(Spellcheck));
    assert_eq!(only_command(&effects).phase, Spellcheck);
    for waiting in [Nlp, AiFeedback] {
        assert_eq!(world.record(waiting), &PhaseRecord::untried(3), "{waiting}");
    }
    assert_eq!(world.batch().phase(CjAssessment), None, "nobody asked for it");
    assert_eq!(only_command(&world.succeed(Spellcheck)).phase, Nlp);
    assert_eq!(world.open(Nlp).trigger, Trigger::Pipeline);
    assert_eq!(only_command(&world.succeed(Nlp)).phase, AiFeedback);
    let effects = world.succeed(AiFeedback);
    assert_eq!(only_completion(&effects).final_status, BatchStatus::CompletedSuccessfully);
}

#[test]
fn what_waits_again_is_skipped_again_after_another_failure() {
    let mut world = World::running(3, AiFeedback);
    world.fail(Spellcheck);
    user_retries(&mut world, retry(Spellcheck));
    let effects = world.fail(Spellcheck);
    assert_eq!(commands(&effects), []);
    for skipped in [Nlp, AiFeedback] {
        assert_eq!(world.status(skipped), Status::SkippedDueToDependencyFailure);
    }
    assert_eq!(only_completion(&effects).final_status, BatchStatus::CompletedWithFailures);
}

#[test]
fn what_still_lacks_another_phase_does_not_wait_again() {
    let mut world = World::running(3, AiFeedback);
    world.succeed(Spellcheck);
    world.fail(Nlp);
    user_retries(&mut world, RetryRequest { force: true, ..retry(Spellcheck) });
    let skipped = PhaseState::SkippedDependency { because: Nlp };
    assert_eq!(world.record(AiFeedback).state, skipped, "nlp has failed and is not retried");
    let effects = world.succeed(Spellcheck);
    assert_eq!(commands(&effects), [], "and a phase that failed is not run by the retry of another");
    assert_eq!((world.status(Nlp), &world.record(AiFeedback).state), (Status::Failed, &skipped));
}

#[test]
fn only_the_owner_retries() {
    let world = with_failed_nlp();
    let theirs = RetryRequest { by: STRANGER.to_owned(), ..retry(Nlp) };
    assert_eq!(world.refuse(Input::RetryPhase(theirs.clone())), Rejected::NotOwner);
    assert_eq!(world.refuse(forced(theirs)), Rejected::NotOwner, "force is no key");
    let unknown = RetryRequest {
        by: STRANGER.to_owned(),
        selection: Selection::Essays(vec!["essay-9".to_owned()]),
        ..retry(Nlp)
    };
    assert_eq!(world.refuse(Input::RetryPhase(unknown)), Rejected::NotOwner, "a stranger learns nothing about essays");
}

#[test]
fn the_essays_of_a_retry_must_be_there_and_through() {
    let mut world = World::running(3, Nlp);
    world.succeed_in_part(Spellcheck, &[0, 1]);
    world.fail(Nlp);
    let with = |ids: &[&str]| {
        let selection = Selection::Essays(ids.iter().map(|&id| id.to_owned()).collect());
        Input::RetryPhase(RetryRequest { selection, ..retry(Nlp) })
    };
    assert_eq!(world.refuse(with(&[])), Rejected::NoEssays);
    let unknown = Rejected::UnknownEssay { essay_id: "essay-9".to_owned() };
    assert_eq!(world.refuse(with(&["essay-0", "essay-9"])), unknown);
    let long = "å".repeat(300);
    let Rejected::UnknownEssay { essay_id } = world.refuse(with(&[&long])) else { panic!("unknown") };
    assert_eq!(essay_id, "å".repeat(100), "a foreign string is not repeated at length");
    assert_eq!(world.refuse(with(&["essay-0", "essay-2"])), Rejected::EssayNotThrough { phase: Nlp, slot: 2 });
    let command = only_command(&world.apply(with(&["essay-1", "essay-0", "essay-1"])));
    assert_eq!(command.essay_ids, ["essay-0", "essay-1"], "each once, in order");
    assert_eq!(world.open(Nlp).scope, Scope::Essays(vec![0, 1]));
}

#[test]
fn cj_assessment_is_only_retried_whole() {
    let mut world = World::running(3, CjAssessment);
    world.succeed(Spellcheck);
    world.fail(CjAssessment);
    for slots in [&[0][..], &[0, 1, 2], &[]] {
        let request = retry_essays(CjAssessment, slots);
        assert_eq!(world.refuse(forced(request)), Rejected::WholeBatchOnly { phase: CjAssessment });
    }
    assert_eq!(Rejected::WholeBatchOnly { phase: CjAssessment }.kind(), RejectionKind::Invalid);
    assert_eq!(only_command(&user_retries(&mut world, retry(CjAssessment))).essay_ids.len(), 3);
}

#[test]
fn a_retry_of_some_essays_runs_those_alone_and_merges() {
    let mut world = World::running(4, Nlp);
    world.succeed(Spellcheck);
    world.succeed_in_part(Nlp, &[0]);
    let spellcheck = world.record(Spellcheck).clone();

    let command = only_command(&user_retries(&mut world, retry_essays(Nlp, &[3, 1])));
    assert_eq!(command.essay_ids, [essay_id(1), essay_id(3)]);
    assert_eq!(command.text_ids, [text_id(Spellcheck, 1, 1), text_id(Spellcheck, 1, 3)]);
    assert_eq!(command.metadata["slots"], json!([1, 3]));
    let effects = world.succeed_in_part(Nlp, &[3]);
    let failed = || "failed".to_owned();
    assert_eq!(world.results(Nlp), [text_id(Nlp, 1, 0), failed(), failed(), text_id(Nlp, 2, 3)]);
    assert_eq!(world.status(Nlp), Status::CompletedWithPartialSuccess);
    let end = world.newest_attempts(Nlp)[0].end.clone().expect("an end");
    assert_eq!((end.outcome, end.successful, end.failed), (AttemptOutcome::PartiallySucceeded, 1, 1));
    let completed = only_completion(&effects);
    assert_eq!((completed.successful_essay_count, completed.failed_essay_count), (2, 2));

    user_retries(&mut world, retry_essays(Nlp, &[1, 2]));
    let effects = world.succeed(Nlp);
    let attempts = [(1, 0), (3, 1), (3, 2), (2, 3)];
    assert_eq!(world.results(Nlp), attempts.map(|(attempt, slot)| text_id(Nlp, attempt, slot)));
    assert_eq!(world.status(Nlp), Status::CompletedSuccessfully, "the phase, not only the attempt");
    assert_eq!(only_completion(&effects).final_status, BatchStatus::CompletedSuccessfully);
    assert_eq!(world.record(Spellcheck), &spellcheck);
}

#[test]
fn a_failed_retry_of_some_essays_does_not_undo_the_others() {
    let mut world = World::running(3, Nlp);
    world.succeed(Spellcheck);
    world.succeed_in_part(Nlp, &[0, 1]);
    user_retries(&mut world, retry_essays(Nlp, &[2]));
    world.fail(Nlp);
    assert_eq!(world.status(Nlp), Status::CompletedWithPartialSuccess);
    assert_eq!(world.results(Nlp), [text_id(Nlp, 1, 0), text_id(Nlp, 1, 1), "failed".to_owned()]);
    let newest = &world.newest_attempts(Nlp)[0];
    let end = newest.end.as_ref().expect("an end");
    assert_eq!((end.outcome, end.error.clone()), (AttemptOutcome::Failed, Some(provider_down())));
}

#[test]
fn what_completed_is_retried_only_by_force() {
    let already = Rejected::AlreadyCompleted { phase: Nlp };
    let mut world = World::completed(2, Nlp);
    assert_eq!(world.refuse(Input::RetryPhase(retry(Nlp))), already);
    assert_eq!(world.refuse(Input::RetryPhase(retry_essays(Nlp, &[0]))), already);
    assert_eq!(only_command(&world.apply(forced(retry(Nlp)))).essay_ids.len(), 2);
    world.succeed(Nlp);
    assert_eq!(world.results(Nlp), [0, 1].map(|slot| text_id(Nlp, 2, slot)), "the newer result counts");

    let mut partial = World::running(3, Nlp);
    partial.succeed(Spellcheck);
    partial.succeed_in_part(Nlp, &[0]);
    for slots in [&[0][..], &[0, 1]] {
        assert_eq!(partial.refuse(Input::RetryPhase(retry_essays(Nlp, slots))), already, "{slots:?}");
    }
    let mut by_force = partial.clone();
    assert_eq!(only_command(&by_force.apply(forced(retry_essays(Nlp, &[0, 1])))).essay_ids.len(), 2);
    let mut whole = partial.clone();
    assert_eq!(only_command(&user_retries(&mut whole, retry(Nlp))).essay_ids.len(), 3);
    assert_eq!(only_command(&user_retries(&mut partial, retry_essays(Nlp, &[1, 2]))).essay_ids.len(), 2);
}

#[test]
fn an_essay_that_a_completed_phase_never_got_is_retried_without_force() {
    let mut world = World::running(3, Nlp);
    world.succeed_in_part(Spellcheck, &[0, 1]);
    world.succeed(Nlp);
    user_retries(&mut world, retry_essays(Spellcheck, &[2]));
    let effects = world.succeed(Spellcheck);
    assert_eq!(commands(&effects), [], "nothing else of the batch is run again");
    assert_eq!((world.status(Nlp), world.results(Nlp)[2].as_str()), (Status::CompletedSuccessfully, "-"));
    let completed = only_completion(&effects);
    assert_eq!(completed.failed_essay_count, 1, "the essay has not come out of nlp");
    assert_eq!(completed.final_status, BatchStatus::CompletedWithFailures, "though every phase succeeded");
    let command = only_command(&user_retries(&mut world, retry_essays(Nlp, &[2])));
    assert_eq!((command.essay_ids, command.text_ids), (vec![essay_id(2)], vec![text_id(Spellcheck, 2, 2)]));
    let effects = world.succeed(Nlp);
    assert_eq!(only_completion(&effects).final_status, BatchStatus::CompletedSuccessfully);
    assert_eq!(only_completion(&effects).successful_essay_count, 3);
}

#[test]
fn a_phase_that_waits_or_runs_is_not_retried() {
    let running = |status| Rejected::PhaseRunning { phase: Nlp, status };
    let refused = |world: &World, status| {
        assert_eq!(world.status(Nlp), status);
        for request in [retry(Nlp), retry_essays(Nlp, &[0])] {
            assert_eq!(world.refuse(Input::RetryPhase(request.clone())), running(status));
            assert_eq!(world.refuse(forced(request)), running(status));
        }
    };
    let mut world = World::running(3, Nlp);
    let pending = world.refuse(Input::RetryPhase(retry(Nlp)));
    assert_eq!(pending, running(Status::PendingDependencies));
    world.succeed(Spellcheck);
    refused(&world, Status::DispatchInitiated);
    world.apply(Input::PhaseStarted { phase: Nlp, attempt: 1 });
    refused(&world, Status::InProgress);
    refused(&with_nlp_queued(), Status::RequestedByUser);
}

#[test]
fn a_phase_whose_dependency_has_not_completed_is_not_retried() {
    let missing = |phase, dependency, status| Rejected::DependencyMissing { phase, dependency, status };
    let mut world = World::running(3, AiFeedback);
    world.fail(Spellcheck);
    for phase in [Nlp, AiFeedback] {
        assert_eq!(world.refuse(forced(retry(phase))), missing(phase, Spellcheck, Status::Failed));
    }
    user_retries(&mut world, retry(Spellcheck));
    world.succeed(Spellcheck);
    world.fail(Nlp);
    assert_eq!(world.refuse(forced(retry(AiFeedback))), missing(AiFeedback, Nlp, Status::Failed));

    let mut rerun = World::completed(3, Nlp);
    rerun.apply(forced(retry(Spellcheck)));
    let status = Status::DispatchInitiated;
    assert_eq!(rerun.refuse(forced(retry(Nlp))), missing(Nlp, Spellcheck, status), "it runs again just now");
}

#[test]
fn without_a_pipeline_there_is_nothing_to_retry() {
    for world in [World::registered(2, json!({})), World::ready(2)] {
        for request in [retry(Nlp), retry_essays(Nlp, &[0])] {
            assert_eq!(world.refuse(Input::RetryPhase(request.clone())), Rejected::NoPipelineState);
            assert_eq!(world.refuse(forced(request)), Rejected::NoPipelineState);
        }
    }
    assert_eq!(Rejected::NoPipelineState.kind(), RejectionKind::NotFound);
    let world = World::completed(2, Nlp);
    for phase in [CjAssessment, AiFeedback] {
        assert_eq!(world.refuse(forced(retry(phase))), Rejected::PhaseNeverRequested { phase });
    }
}

#[test]
fn a_retry_waits_for_the_phase_that_runs() {
    let mut world = with_nlp_queued();
    assert_eq!((world.in_flight(), world.status(Nlp)), (Some(CjAssessment), Status::RequestedByUser));
    let queued = world.open(Nlp).clone();
    assert_eq!((queued.number, queued.dispatched_at, queued.trigger), (2, None, Trigger::User));
    assert_eq!(world.batch().run.as_ref().expect("a run").queue, [Nlp]);
    let of_nobody = Input::PhaseStarted { phase: Nlp, attempt: 2 };
    assert_eq!(world.refuse(of_nobody), Rejected::StaleAttempt { phase: Nlp }, "nobody was told to run it yet");

    let effects = world.succeed(CjAssessment);
    assert_eq!(completions(&effects), Vec::<&_>::new());
    let command = only_command(&effects);
    assert_eq!((command.phase, command.correlation_id), (Nlp, queued.correlation_id));
    let dispatched = world.open(Nlp);
    assert_eq!((dispatched.number, dispatched.enqueued_at), (2, queued.enqueued_at), "the same attempt");
    assert_eq!(dispatched.dispatched_at, Some(world.now));
    let effects = world.succeed(Nlp);
    assert_eq!(only_completion(&effects).final_status, BatchStatus::CompletedSuccessfully);
}

#[test]
fn a_retry_waits_also_for_a_phase_that_fails() {
    let mut world = with_nlp_queued();
    assert_eq!(only_command(&world.fail(CjAssessment)).phase, Nlp, "nlp does not depend on it");
    let effects = world.succeed(Nlp);
    assert_eq!(only_completion(&effects).final_status, BatchStatus::CompletedWithFailures);
}

#[test]
fn a_queued_retry_of_some_essays_still_runs_those_alone() {
    let mut world = World::running(3, Nlp);
    world.succeed(Spellcheck);
    world.succeed_in_part(Nlp, &[0]);
    world.apply(request(CjAssessment));
    user_retries(&mut world, retry_essays(Nlp, &[2]));
    let command = only_command(&world.succeed(CjAssessment));
    assert_eq!((command.phase, command.essay_ids), (Nlp, vec![essay_id(2)]));
}

#[test]
fn queued_retries_run_in_the_order_of_the_phases() {
    let mut world = World::completed(2, AiFeedback);
    world.apply(request(CjAssessment));
    world.apply(forced(retry(AiFeedback)));
    let missing = Rejected::DependencyMissing { phase: AiFeedback, dependency: Nlp, status: Status::RequestedByUser };
    world.apply(forced(retry(Nlp)));
    assert_eq!(world.batch().run.as_ref().expect("a run").queue, [Nlp, AiFeedback]);
    assert_eq!(only_command(&world.succeed(CjAssessment)).phase, Nlp);
    let ai_feedback = only_command(&world.succeed(Nlp));
    assert_eq!(ai_feedback.phase, AiFeedback);
    assert_eq!(ai_feedback.text_ids, [0, 1].map(|slot| text_id(Nlp, 2, slot)), "with the newer result");

    let mut other_way = World::completed(2, AiFeedback);
    other_way.apply(request(CjAssessment));
    other_way.apply(forced(retry(Nlp)));
    assert_eq!(other_way.refuse(forced(retry(AiFeedback))), missing);
}

#[test]
fn a_queued_retry_goes_on_with_what_there_was_when_a_forced_one_before_it_fails() {
    let mut world = World::completed(2, AiFeedback);
    world.apply(request(CjAssessment));
    world.apply(forced(retry(AiFeedback)));
    world.apply(forced(retry(Nlp)));
    world.succeed(CjAssessment);
    let ai_feedback = only_command(&world.fail(Nlp));
    assert_eq!(ai_feedback.text_ids, [0, 1].map(|slot| text_id(Nlp, 1, slot)), "with the earlier result");
}

/// nlp and what is below it, after an nlp that failed for one of three essays.
fn partial() -> World {
    let mut world = World::running(3, AiFeedback);
    world.succeed(Spellcheck);
    world.succeed_in_part(Nlp, &[0, 2]);
    world.succeed(AiFeedback);
    world
}

#[test]
fn only_failed_takes_the_essays_that_failed_or_never_arrived() {
    let failed = |phase| RetryRequest { selection: Selection::Failed, ..retry(phase) };
    let mut world = partial();
    assert_eq!(world.refuse(Input::RetryPhase(failed(Spellcheck))), Rejected::NothingFailed { phase: Spellcheck });
    assert_eq!(
        world.refuse(Input::RetryPhase(failed(AiFeedback))),
        Rejected::EssayNotThrough { phase: AiFeedback, slot: 1 },
        "the essay has not come through nlp"
    );
    assert_eq!(world.refuse(Input::RetryPhase(failed(CjAssessment))), Rejected::WholeBatchOnly { phase: CjAssessment });
    assert_eq!(only_command(&user_retries(&mut world, failed(Nlp))).essay_ids, [essay_id(1)]);
    world.succeed(Nlp);
    assert_eq!(world.status(Nlp), Status::CompletedSuccessfully);
    let missing = only_command(&user_retries(&mut world, failed(AiFeedback)));
    assert_eq!(missing.essay_ids, [essay_id(1)], "it never arrived there, and has come through now");
}

#[test]
fn completed_phases_below_are_stale_until_they_run_again() {
    let mut world = World::completed(3, AiFeedback);
    assert_eq!(world.batch().stale_phases(), []);
    world.apply(forced(retry_essays(Spellcheck, &[1])));
    let plan = world.batch().retry_plan(Spellcheck);
    assert_eq!((plan.attempt, &plan.essay_ids, plan.waits), (2, &vec![essay_id(1)], false));
    assert_eq!((plan.goes_on, plan.runs_again, plan.stale), (vec![], vec![], vec![Nlp, AiFeedback]));
    assert_eq!(world.batch().stale_phases(), [], "not before it has come out");
    world.succeed(Spellcheck);
    assert_eq!(world.batch().stale_phases(), [Nlp, AiFeedback]);
    world.apply(forced(retry_essays(Nlp, &[0])));
    world.succeed(Nlp);
    assert_eq!(world.batch().stale_phases(), [Nlp, AiFeedback], "another essay ran again");
    world.apply(forced(retry_essays(Nlp, &[1])));
    world.succeed(Nlp);
    assert_eq!(world.batch().stale_phases(), [AiFeedback]);
    world.apply(forced(retry(AiFeedback)));
    world.succeed(AiFeedback);
    assert_eq!(world.batch().stale_phases(), []);
}

#[test]
fn downstream_runs_the_completed_phases_below_again_after_success() {
    let mut world = World::completed(3, AiFeedback);
    world.apply(request(CjAssessment));
    world.succeed(CjAssessment);
    let some = RetryRequest { downstream: true, ..retry_essays(Spellcheck, &[1]) };
    let mut failing = world.clone();
    world.apply(forced(some.clone()));
    let plan = world.batch().retry_plan(Spellcheck);
    assert_eq!((plan.runs_again, plan.stale), (vec![CjAssessment, Nlp, AiFeedback], vec![]));
    assert!(world.batch().has_completed(Nlp), "they stay as they are until then");
    let cj_assessment = only_command(&world.succeed(Spellcheck));
    assert_eq!((cj_assessment.phase, cj_assessment.essay_ids.len()), (CjAssessment, 3), "whole, as always");
    let nlp = only_command(&world.succeed(CjAssessment));
    assert_eq!((nlp.phase, nlp.essay_ids), (Nlp, vec![essay_id(1)]), "the essay that came anew");
    world.succeed(Nlp);
    world.succeed(AiFeedback);
    assert_eq!(world.batch().stale_phases(), []);
    assert_eq!(world.batch().status, rephase::contract::BatchStatus::CompletedSuccessfully);

    failing.apply(forced(some));
    failing.fail(Spellcheck);
    assert_eq!(failing.in_flight(), None, "nothing below runs again after a failure");
    assert_eq!(failing.record(Nlp).attempts, 1);
}

#[test]
fn a_retry_during_a_run_belongs_to_that_run() {
    let mut world = World::completed(2, Nlp);
    let correlation_id = world.correlation_id();
    world.apply(request(CjAssessment));
    let retried = world.correlation_id();
    world.apply(forced(retry(Nlp)));
    assert_eq!(world.open(Nlp).correlation_id, retried, "the attempt is the retry's");
    world.succeed(CjAssessment);
    let effects = world.succeed(Nlp);
    assert_eq!(only_completion(&effects).correlation_id, correlation_id, "the completion is the run's");
}

#[test]
fn a_phase_has_its_name_in_any_case() {
    for phase in Phase::ALL {
        let name = phase.name().as_str();
        let mixed: String =
            name.char_indices().map(|(at, c)| if at % 2 == 0 { c.to_ascii_uppercase() } else { c }).collect();
        for spelled in [name.to_owned(), name.to_uppercase(), mixed] {
            assert_eq!(spelled.parse(), Ok(phase), "{spelled}");
        }
        assert_eq!(phase.to_string(), name);
    }
    for unknown in ["", "student_matching", "comprehensive", "spell check", "nlp2", "ſpellcheck"] {
        assert_eq!(unknown.parse::<Phase>(), Err(Rejected::UnknownPhase { name: unknown.to_owned() }));
    }
    let long = "å".repeat(300).parse::<Phase>();
    assert_eq!(long, Err(Rejected::UnknownPhase { name: "å".repeat(100) }));
}

#[test]
fn users_retry_a_phase_so_often_and_not_too_fast() {
    let mut world = World::completed(1, Spellcheck);
    (world.rules.max_user_retries, world.rules.retry_cooldown_ms) = (3, 10_000);
    for retries in 1..=3 {
        world.apply(forced(retry(Spellcheck)));
        world.succeed(Spellcheck);
        match world.refuse(forced(retry(Spellcheck))) {
            Rejected::RetriedJustNow { wait_ms, .. } if retries < 3 => world.now = world.now.plus(wait_ms),
            Rejected::TooManyRetries { .. } if retries == 3 => {}
            other => panic!("after {retries}: {other}"),
        }
    }
    world.now = world.now.plus(10_000);
    assert_eq!(world.refuse(forced(retry(Spellcheck))), Rejected::TooManyRetries { phase: Spellcheck, limit: 3 });
    let kind = world.refuse(forced(retry(Spellcheck))).kind();
    assert_eq!(kind, RejectionKind::Limited { limit: 3, wait_ms: None });
    world.apply(request(Nlp));
    world.fail(Nlp);
    world.apply(Input::RetryPhase(retry(Nlp)));
}

/// A retry would have to wait for as long as the clock was ahead, even where there is nothing to wait for.
#[test]
fn a_clock_that_is_set_back_keeps_nobody_from_a_retry() {
    for cooldown_ms in [0, 10_000] {
        let mut world = World::completed(1, Spellcheck);
        world.rules.retry_cooldown_ms = cooldown_ms;
        let right = world.now;
        world.now = right.plus(30 * 24 * 3_600 * 1_000);
        world.apply(forced(retry(Spellcheck)));
        world.succeed(Spellcheck);
        world.now = right;
        world.apply(forced(retry(Spellcheck)));
        world.succeed(Spellcheck);
        match cooldown_ms {
            0 => _ = world.apply(forced(retry(Spellcheck))),
            _ => _ = world.refuse(forced(retry(Spellcheck))),
        }
    }
}

#[test]
fn a_phase_below_keeps_what_it_has_where_nothing_new_comes_through_to_it() {
    let mut world = World::running(2, AiFeedback);
    world.succeed_in_part(Spellcheck, &[0]);
    world.succeed(Nlp);
    world.succeed(AiFeedback);
    let mend = RetryRequest { selection: Selection::Failed, downstream: true, ..retry(Spellcheck) };
    world.apply(Input::RetryPhase(mend));
    let nlp = only_command(&world.succeed(Spellcheck));
    assert_eq!((nlp.phase, nlp.essay_ids), (Nlp, vec![essay_id(1)]));
    world.fail(Nlp);
    assert_eq!(world.status(Nlp), Status::CompletedWithPartialSuccess);
    assert_eq!(world.status(AiFeedback), Status::CompletedSuccessfully);
    assert_eq!(world.record(AiFeedback).attempts, 1, "it was dispatched without an essay");
    assert_eq!(world.in_flight(), None);
}

#[test]
fn an_essay_that_failed_below_runs_there_again_on_its_new_text() {
    let mut world = World::running(2, Nlp);
    world.succeed(Spellcheck);
    world.succeed_in_part(Nlp, &[0]);
    world.apply(forced(RetryRequest { downstream: true, ..retry_essays(Spellcheck, &[1]) }));
    assert_eq!(world.batch().retry_plan(Spellcheck).runs_again, [Nlp], "so its user was told");
    let nlp = only_command(&world.succeed(Spellcheck));
    assert_eq!((nlp.phase, nlp.essay_ids, nlp.text_ids), (Nlp, vec![essay_id(1)], vec![text_id(Spellcheck, 2, 1)]));
}

#[test]
fn what_is_new_to_one_phase_below_does_not_run_again_in_another() {
    let mut world = World::completed(3, CjAssessment);
    world.apply(request(Nlp));
    world.succeed(Nlp);
    world.apply(forced(retry_essays(Spellcheck, &[0])));
    world.succeed(Spellcheck);
    world.apply(forced(retry_essays(Nlp, &[0])));
    world.succeed(Nlp);
    assert_eq!(world.batch().stale_phases(), [CjAssessment]);
    world.apply(forced(RetryRequest { downstream: true, ..retry_essays(Spellcheck, &[1]) }));
    assert_eq!(only_command(&world.succeed(Spellcheck)).phase, CjAssessment);
    let nlp = only_command(&world.succeed(CjAssessment));
    assert_eq!((nlp.phase, nlp.essay_ids), (Nlp, vec![essay_id(1)]), "it has seen the text of the other");
}
