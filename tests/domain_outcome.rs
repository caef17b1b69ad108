//! The pure `step` when an attempt ends: by an outcome, by a deadline, and what the pipeline does then.

mod common;

use std::collections::BTreeMap;

use common::world::{
    OWNER, TICK_MS, World, completions, forced, only_command, only_completion, processed, provider_down, recorded,
    request, retry, retry_essays, rules, text_id, timers, topics,
};
use rephase::contract::{BatchStatus, ErrorCode, PipelineExecutionStatus as Status, Topic};
use rephase::domain::step::PhaseOutcome;
use rephase::domain::{
    AttemptEnd, AttemptOutcome, Category, EssayResult, Input, Phase, PhaseError, PhaseState, Rejected,
};
use uuid::Uuid;

use Phase::{AiFeedback, CjAssessment, Nlp, Spellcheck};

/// The end of the newest attempt in the ledger of `phase`.
fn newest_end(world: &World, phase: Phase) -> AttemptEnd {
    world.newest_attempts(phase)[0].end.clone().expect("an attempt in the ledger has ended")
}

#[test]
fn an_outcome_with_every_essay_is_a_success() {
    let mut world = World::running(3, Nlp);
    let effects = world.succeed(Spellcheck);
    assert_eq!(world.status(Spellcheck), Status::CompletedSuccessfully);
    assert_eq!(world.results(Spellcheck), [0, 1, 2].map(|slot| text_id(Spellcheck, 1, slot)));
    assert_eq!(recorded(&effects), [(Spellcheck, 1)]);
    let expected = AttemptEnd {
        at: world.now,
        outcome: AttemptOutcome::Succeeded,
        successful: 3,
        failed: 0,
        failed_slots: Vec::new(),
        note: None,
        error: None,
    };
    assert_eq!(newest_end(&world, Spellcheck), expected);
    let PhaseState::Succeeded { attempt } = &world.record(Spellcheck).state else { panic!("a success") };
    assert_eq!(attempt.end, Some(expected), "the record and the ledger say the same");
    assert_eq!(world.in_flight(), Some(Nlp));
}

#[test]
fn dependents_go_on_with_the_essays_that_came_out() {
    let mut world = World::running(4, AiFeedback);
    let nlp = only_command(&world.succeed_in_part(Spellcheck, &[0, 1, 3]));
    assert_eq!(world.status(Spellcheck), Status::CompletedWithPartialSuccess);
    assert_eq!(nlp.text_ids, [0, 1, 3].map(|slot| text_id(Spellcheck, 1, slot)));
    let ai_feedback = only_command(&world.succeed_in_part(Nlp, &[3, 1]));
    assert_eq!(ai_feedback.text_ids, [1, 3].map(|slot| text_id(Nlp, 1, slot)));
    assert_eq!(world.results(Nlp), ["failed".to_owned(), text_id(Nlp, 1, 1), "-".to_owned(), text_id(Nlp, 1, 3)]);
    let effects = world.succeed(AiFeedback);
    assert_eq!(world.status(AiFeedback), Status::CompletedSuccessfully, "it did all that it got");
    let completed = only_completion(&effects);
    assert_eq!(completed.final_status, BatchStatus::CompletedWithFailures);
    assert_eq!((completed.successful_essay_count, completed.failed_essay_count), (2, 2));
    assert_eq!(completed.completed_phases, ["spellcheck", "nlp", "ai_feedback"]);
    let end = newest_end(&world, Nlp);
    assert_eq!((end.outcome, end.successful, end.failed), (AttemptOutcome::PartiallySucceeded, 2, 1));
}

#[test]
fn an_essay_that_an_outcome_does_not_name_has_failed() {
    for status in [BatchStatus::CompletedSuccessfully, BatchStatus::CompletedWithFailures] {
        let mut world = World::running(3, Spellcheck);
        let outcome = world.outcome(Spellcheck, status, &[0, 2]);
        world.apply(Input::PhaseOutcome(outcome));
        assert_eq!(world.status(Spellcheck), Status::CompletedWithPartialSuccess, "{status}");
        assert_eq!(world.results(Spellcheck)[1], "failed");

        let mut world = World::running(3, Nlp);
        let outcome = world.outcome(Spellcheck, status, &[]);
        let effects = world.apply(Input::PhaseOutcome(outcome));
        assert_eq!(world.status(Spellcheck), Status::Failed, "a success without essays is none");
        assert_eq!(only_completion(&effects).failed_essay_count, 3);
    }
}

#[test]
fn any_other_status_is_a_failure_of_every_essay() {
    for &status in BatchStatus::ALL {
        let completed = [BatchStatus::CompletedSuccessfully, BatchStatus::CompletedWithFailures].contains(&status);
        let mut world = World::running(2, Spellcheck);
        let outcome = world.outcome(Spellcheck, status, &[0, 1]);
        world.apply(Input::PhaseOutcome(outcome));
        let expected = if completed { Status::CompletedSuccessfully } else { Status::Failed };
        assert_eq!(world.status(Spellcheck), expected, "{status}");
        assert_eq!(world.results(Spellcheck)[0] == "failed", !completed, "{status}");
        assert_eq!(newest_end(&world, Spellcheck).error.is_some(), !completed, "{status}");
    }
}

#[test]
fn a_failure_keeps_the_workers_reasons() {
    let corrupt = PhaseError::new(ErrorCode::TextExtractionFailed, Category::Permanent, "not a text");
    let essay_errors = BTreeMap::from([("essay-1".to_owned(), corrupt.clone())]);

    let mut world = World::running(2, Spellcheck);
    let outcome = world.outcome(Spellcheck, BatchStatus::CompletedWithFailures, &[0]);
    let error = Some(provider_down());
    world.apply(Input::PhaseOutcome(PhaseOutcome { error, essay_errors: essay_errors.clone(), ..outcome }));
    assert_eq!(newest_end(&world, Spellcheck).error, Some(provider_down()), "the phase's own reason comes first");
    let EssayResult::Failed { error, .. } = &world.record(Spellcheck).results[1] else { panic!("it failed") };
    assert_eq!(error.as_ref(), Some(&corrupt));

    let mut world = World::running(2, Spellcheck);
    let outcome = world.outcome(Spellcheck, BatchStatus::CompletedWithFailures, &[0]);
    world.apply(Input::PhaseOutcome(PhaseOutcome { essay_errors, ..outcome }));
    assert_eq!(newest_end(&world, Spellcheck).error, Some(corrupt), "else an essay's");

    let mut world = World::running(2, Spellcheck);
    world.succeed_in_part(Spellcheck, &[0]);
    let error = newest_end(&world, Spellcheck).error.expect("a reason all the same");
    assert_eq!((error.error_code, error.category), (ErrorCode::UnknownError, Category::Transient));
    assert!(error.message.contains("spellcheck reported completed_with_failures"), "{}", error.message);
    assert!(matches!(world.record(Spellcheck).results[1], EssayResult::Failed { error: None, .. }));

    let mut world = World::running(2, Spellcheck);
    let outcome = world.outcome(Spellcheck, BatchStatus::CompletedSuccessfully, &[0, 1]);
    world.apply(Input::PhaseOutcome(PhaseOutcome { error: Some(provider_down()), ..outcome }));
    assert_eq!(newest_end(&world, Spellcheck).error, None, "where nothing failed there is no reason to keep");
}

#[test]
fn an_outcome_with_an_essay_of_another_batch_is_refused() {
    let world = World::running(2, Spellcheck);
    for status in [BatchStatus::CompletedSuccessfully, BatchStatus::FailedCritically] {
        let mut outcome = world.outcome(Spellcheck, status, &[0]);
        outcome.processed.push(processed(Spellcheck, 1, 7));
        assert!(matches!(world.refuse(Input::PhaseOutcome(outcome)), Rejected::Inconsistent { .. }));
    }
}

#[test]
fn an_essay_that_the_attempt_did_not_have_is_not_taken() {
    let mut world = World::running(3, Spellcheck);
    world.succeed_in_part(Spellcheck, &[0, 1]);
    world.apply(Input::RetryPhase(retry_essays(Spellcheck, &[2])));
    let outcome = world.outcome(Spellcheck, BatchStatus::CompletedSuccessfully, &[0, 2]);
    world.apply(Input::PhaseOutcome(outcome));
    let expected = [(1, 0), (1, 1), (2, 2)].map(|(attempt, slot)| text_id(Spellcheck, attempt, slot));
    assert_eq!(world.results(Spellcheck), expected);
}

#[test]
fn an_outcome_of_another_attempt_is_refused() {
    let mut world = World::running(2, Spellcheck);
    let first = world.outcome(Spellcheck, BatchStatus::CompletedSuccessfully, &[0, 1]);
    world.fail(Spellcheck);
    world.apply(Input::RetryPhase(retry(Spellcheck)));
    let second = world.outcome(Spellcheck, BatchStatus::CompletedSuccessfully, &[0, 1]);
    assert_ne!(first.correlation_id, second.correlation_id);
    let stale = Rejected::StaleAttempt { phase: Spellcheck };
    for (attempt, correlation_id, why) in [
        (first.attempt, first.correlation_id, "both say the first attempt"),
        (first.attempt, None, "the number alone"),
        (None, first.correlation_id, "the correlation id alone"),
        (first.attempt, second.correlation_id, "only the number"),
        (second.attempt, first.correlation_id, "only the correlation id"),
        (Some(3), None, "an attempt that is yet to come"),
        (None, Some(Uuid::nil()), "nobody's correlation id"),
    ] {
        let outcome = PhaseOutcome { attempt, correlation_id, ..second.clone() };
        assert_eq!(world.refuse(Input::PhaseOutcome(outcome)), stale, "{why}");
    }
    for (attempt, correlation_id) in
        [(second.attempt, second.correlation_id), (second.attempt, None), (None, second.correlation_id), (None, None)]
    {
        let outcome = PhaseOutcome { attempt, correlation_id, ..second.clone() };
        let mut world = world.clone();
        world.apply(Input::PhaseOutcome(outcome));
        assert_eq!(world.status(Spellcheck), Status::CompletedSuccessfully, "what is not said cannot be wrong");
    }
}

#[test]
fn an_outcome_counts_once() {
    let mut world = World::running(2, Nlp);
    let outcome = world.outcome(Spellcheck, BatchStatus::CompletedSuccessfully, &[0, 1]);
    world.apply(Input::PhaseOutcome(outcome.clone()));
    let stale = Rejected::StaleAttempt { phase: Spellcheck };
    assert_eq!(world.refuse(Input::PhaseOutcome(outcome.clone())), stale, "while the next phase runs");
    world.succeed(Nlp);
    assert_eq!(world.refuse(Input::PhaseOutcome(outcome)), stale, "and when all is over");
}

#[test]
fn attempts_have_correlation_ids_of_their_own_even_where_a_client_uses_one_twice() {
    let mut world = World::running(2, Spellcheck);
    let first = world.open(Spellcheck).correlation_id;
    let mut seen = vec![first];
    for number in 2..6 {
        world.fail(Spellcheck);
        world.inputs = 2;
        assert_eq!(world.correlation_id(), first, "the client sends the same again");
        // By a retry and by a pipeline in turn.
        world.apply(if number % 2 == 0 { Input::RetryPhase(retry(Spellcheck)) } else { request(Spellcheck) });
        let attempt = world.open(Spellcheck);
        assert_eq!(attempt.number, number);
        assert!(!seen.contains(&attempt.correlation_id), "attempt {number} has the id of an earlier one");
        seen.push(attempt.correlation_id);
        assert_eq!(world.batch().run.as_ref().expect("a run").correlation_id, first, "the run keeps the client's");
    }
}

#[test]
fn what_depends_on_a_failed_phase_is_skipped_and_the_completion_announced() {
    let mut world = World::running(2, AiFeedback);
    let effects = world.fail(Spellcheck);
    assert_eq!(world.status(Spellcheck), Status::Failed);
    for dependent in [Nlp, AiFeedback] {
        assert_eq!(world.status(dependent), Status::SkippedDueToDependencyFailure);
        assert_eq!(world.record(dependent).attempts, 0);
    }
    assert_eq!(world.record(Nlp).state, PhaseState::SkippedDependency { because: Spellcheck });
    assert_eq!(topics(&effects), [Topic::BatchPipelineCompleted, Topic::TeacherNotificationRequested]);
    let completed = only_completion(&effects);
    assert_eq!(completed.final_status, BatchStatus::CompletedWithFailures);
    assert_eq!(completed.completed_phases, Vec::<String>::new());
    assert_eq!((completed.successful_essay_count, completed.failed_essay_count), (0, 2));
    assert_eq!(world.batch().run, None);

    let mut later = World::running(2, AiFeedback);
    later.succeed(Spellcheck);
    let effects = later.fail(Nlp);
    assert_eq!(later.record(AiFeedback).state, PhaseState::SkippedDependency { because: Nlp });
    assert_eq!(only_completion(&effects).completed_phases, ["spellcheck"]);
}

#[test]
fn what_does_not_depend_on_a_failed_phase_goes_on() {
    // One run with cj_assessment and nlp in it: a retry of the spellcheck revives both.
    let mut world = World::ready(2);
    world.apply(request(CjAssessment));
    world.fail(Spellcheck);
    world.apply(request(AiFeedback));
    world.fail(Spellcheck);
    for skipped in [CjAssessment, Nlp, AiFeedback] {
        assert_eq!(world.status(skipped), Status::SkippedDueToDependencyFailure);
    }
    world.apply(Input::RetryPhase(retry(Spellcheck)));
    assert_eq!(only_command(&world.succeed(Spellcheck)).phase, CjAssessment);
    let effects = world.fail(CjAssessment);
    assert_eq!(completions(&effects), Vec::<&_>::new(), "nlp is still to run");
    assert_eq!(only_command(&effects).phase, Nlp, "nlp does not need cj_assessment");
    assert_eq!(only_command(&world.succeed(Nlp)).phase, AiFeedback);
    let effects = world.succeed(AiFeedback);
    let completed = only_completion(&effects);
    assert_eq!(completed.completed_phases, ["spellcheck", "nlp", "ai_feedback"]);
    assert_eq!(completed.final_status, BatchStatus::CompletedWithFailures);
    assert_eq!(
        (completed.successful_essay_count, completed.failed_essay_count),
        (0, 2),
        "none came out of every phase"
    );
}

#[test]
fn an_earlier_success_is_left_alone_when_another_pipeline_fails() {
    let mut world = World::completed(3, CjAssessment);
    let judged = world.record(CjAssessment).clone();
    world.apply(request(Nlp));
    let effects = world.succeed_in_part(Nlp, &[1]);
    assert_eq!(world.record(CjAssessment), &judged);
    let completed = only_completion(&effects);
    assert_eq!(completed.final_status, BatchStatus::CompletedWithFailures);
    assert_eq!((completed.successful_essay_count, completed.failed_essay_count), (1, 2));
    assert_eq!(completed.completed_phases, ["spellcheck", "cj_assessment", "nlp"]);
}

#[test]
fn what_came_out_well_is_kept_when_another_try_fails() {
    let mut world = World::completed(3, Nlp);
    let before = world.record(Spellcheck).clone();
    world.apply(forced(retry(Spellcheck)));
    let effects = world.fail(Spellcheck);
    assert_eq!(world.record(Spellcheck).results, before.results);
    assert_eq!(world.status(Spellcheck), Status::CompletedSuccessfully);
    let end = newest_end(&world, Spellcheck);
    assert_eq!((end.outcome, end.successful, end.failed), (AttemptOutcome::Failed, 0, 3), "the attempt did fail");
    assert_eq!(end.failed_slots, [0, 1, 2]);
    assert_eq!(only_completion(&effects).final_status, BatchStatus::CompletedSuccessfully);

    let mut partial = World::running(3, Nlp);
    partial.succeed(Spellcheck);
    partial.succeed_in_part(Nlp, &[0, 1]);
    partial.apply(Input::RetryPhase(retry(Nlp)));
    partial.succeed_in_part(Nlp, &[2]);
    assert_eq!(partial.status(Nlp), Status::CompletedSuccessfully, "each essay came out once");
    assert_eq!(newest_end(&partial, Nlp).failed_slots, [0, 1]);
}

#[test]
fn a_completion_says_how_long_the_run_took_and_whose_it_was() {
    let mut world = World::ready(2);
    let correlation_id = world.correlation_id();
    world.apply(request(Nlp));
    world.succeed(Spellcheck);
    world.apply(Input::PhaseStarted { phase: Nlp, attempt: 1 });
    let effects = world.succeed(Nlp);
    let completed = only_completion(&effects);
    let seconds = f64::from(u32::try_from(3 * TICK_MS).expect("small")) / 1_000.0;
    assert!((completed.processing_duration_seconds - seconds).abs() < 1e-9, "{completed:?}");
    assert_eq!(completed.correlation_id, correlation_id);
}

#[test]
fn an_attempt_past_its_deadline_has_failed() {
    for started in [false, true] {
        let mut world = World::running(2, Nlp);
        if started {
            world.apply(Input::PhaseStarted { phase: Spellcheck, attempt: 1 });
        }
        let late = world.outcome(Spellcheck, BatchStatus::CompletedSuccessfully, &[0, 1]);
        let due = world.record(Spellcheck).state.in_flight().expect("in flight").1;
        world.now = due;
        let effects = world.apply(Input::DeadlineExpired { phase: Spellcheck, attempt: 1 });
        assert_eq!(world.status(Spellcheck), Status::Failed);
        assert_eq!(timers(&effects).1.len(), 1);
        let end = newest_end(&world, Spellcheck);
        let error = end.error.expect("a reason");
        assert_eq!((error.error_code, error.category), (ErrorCode::Timeout, Category::Transient));
        assert_eq!(error.message, "no outcome of spellcheck came within 61 s");
        assert_eq!((end.outcome, end.successful, end.failed), (AttemptOutcome::Failed, 0, 2));
        assert_eq!(world.status(Nlp), Status::SkippedDueToDependencyFailure);
        assert_eq!(only_completion(&effects).final_status, BatchStatus::CompletedWithFailures);

        let stale = Rejected::StaleAttempt { phase: Spellcheck };
        assert_eq!(world.refuse(Input::PhaseOutcome(late.clone())), stale, "an outcome that comes too late");
        let again = Input::DeadlineExpired { phase: Spellcheck, attempt: 1 };
        assert_eq!(world.refuse(again.clone()), stale);
        world.apply(Input::RetryPhase(retry(Spellcheck)));
        assert_eq!(world.refuse(again), stale, "the deadline of the attempt before");
        assert_eq!(world.refuse(Input::PhaseOutcome(late)), stale);
        assert_eq!(world.open(Spellcheck).requested_by, OWNER);
    }
}

#[test]
fn a_deadline_that_passed_while_the_program_was_down_counts_from_its_start() {
    for started in [false, true] {
        let mut world = World::running(2, Nlp);
        if started {
            world.apply(Input::PhaseStarted { phase: Spellcheck, attempt: 1 });
        }
        let deadline = |world: &World| world.record(Spellcheck).state.in_flight().expect("in flight").1;
        world.now = deadline(&world).plus(100_000);
        world.up_since = world.now;
        let expired = Input::DeadlineExpired { phase: Spellcheck, attempt: 1 };
        world.apply(expired.clone());
        assert_eq!(world.status(Spellcheck), Status::InProgress, "nobody was there to hear of an outcome");
        assert_eq!(deadline(&world), world.up_since.plus(rules().phase_deadline_ms[0]));
        world.now = deadline(&world);
        world.apply(expired);
        assert_eq!(world.status(Spellcheck), Status::Failed);
    }
}

#[test]
fn a_deadline_of_an_attempt_that_is_not_in_flight_is_stale() {
    let mut world = World::running(2, Nlp);
    for (phase, attempt) in [(Spellcheck, 0), (Spellcheck, 2), (Nlp, 1), (CjAssessment, 1)] {
        let input = Input::DeadlineExpired { phase, attempt };
        assert_eq!(world.refuse(input), Rejected::StaleAttempt { phase });
    }
    world.succeed(Spellcheck);
    let input = Input::DeadlineExpired { phase: Spellcheck, attempt: 1 };
    assert_eq!(world.refuse(input), Rejected::StaleAttempt { phase: Spellcheck });
}

#[test]
fn a_worker_that_begins_after_a_restart_has_its_whole_time() {
    let mut world = World::running(2, Spellcheck);
    let deadline = |world: &World| world.record(Spellcheck).state.in_flight().expect("in flight").1;
    world.now = deadline(&world);
    world.up_since = world.now;
    world.apply(Input::DeadlineExpired { phase: Spellcheck, attempt: 1 });
    world.now = world.now.plus(50_000);
    world.apply(Input::PhaseStarted { phase: Spellcheck, attempt: 1 });
    assert_eq!(deadline(&world), world.now.plus(rules().phase_deadline_ms[0]), "it waited for a worker until now");
}
