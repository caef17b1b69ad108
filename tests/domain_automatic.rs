//! The pure `step`: what failed for a transient reason is tried again by itself, and what is permanent waits for a user.

mod common;

use common::world::{World, commands, essay_id, only_command, provider_down, request, retry, retry_essays, timers};
use rephase::contract::{BatchStatus, ErrorCode, PipelineExecutionStatus as Status};
use rephase::domain::Phase::{AiFeedback, CjAssessment, Nlp, Spellcheck};
use rephase::domain::step::PhaseOutcome;
use rephase::domain::{
    Category, Effect, Input, Phase, PhaseError, PhaseState, Rejected, RetryPolicy, Slot, TimerKind, Trigger,
};

/// A world in which every phase is tried three times.
fn world(last: Phase) -> World {
    let mut world = World::ready(3);
    world.rules.retry = std::array::from_fn(|_| RetryPolicy::default());
    world.apply(request(last));
    world
}

fn fail_with(world: &mut World, phase: Phase, succeeded: &[Slot], category: Category) -> Vec<Effect> {
    let status = if succeeded.is_empty() { BatchStatus::FailedCritically } else { BatchStatus::CompletedWithFailures };
    let error = Some(PhaseError::new(ErrorCode::ServiceUnavailable, category, "down"));
    let outcome = PhaseOutcome { error, ..world.outcome(phase, status, succeeded) };
    world.apply(Input::PhaseOutcome(outcome))
}

/// Lets the wait be over.
fn again(world: &mut World, phase: Phase) -> Vec<Effect> {
    let PhaseState::BackingOff { attempt, again_at, .. } = &world.record(phase).state else {
        panic!("{phase} does not wait: {:?}", world.record(phase).state)
    };
    let due = Input::RetryDue { phase, attempt: attempt.number };
    let wait_ms = again_at.since(world.now);
    if wait_ms > 2 * common::world::TICK_MS {
        assert_eq!(world.refuse(due.clone()), Rejected::StaleAttempt { phase }, "before its time");
    }
    world.now = world.now.max(*again_at);
    world.apply(due)
}

#[test]
fn a_transient_failure_is_tried_again_until_the_attempts_are_used_up() {
    let mut world = world(Nlp);
    for attempt in 1..3 {
        let effects = fail_with(&mut world, Spellcheck, &[], Category::Transient);
        assert_eq!(world.status(Spellcheck), Status::InProgress, "to others it is not over");
        assert_eq!(commands(&effects), [], "nothing goes on while it waits");
        assert_eq!(timers(&effects).0.iter().map(|timer| timer.kind).collect::<Vec<_>>(), [TimerKind::Retry]);
        let command = only_command(&again(&mut world, Spellcheck));
        assert_eq!((command.phase, command.essay_ids.len()), (Spellcheck, 3));
        let open = world.open(Spellcheck);
        assert_eq!((open.number, open.trigger, open.in_a_row), (attempt + 1, Trigger::Automatic, attempt + 1));
    }
    fail_with(&mut world, Spellcheck, &[], Category::Transient);
    assert_eq!(world.status(Spellcheck), Status::Failed);
    assert_eq!(world.status(Nlp), Status::SkippedDueToDependencyFailure);
    assert_eq!(world.newest_attempts(Spellcheck).len(), 3);

    world.apply(Input::RetryPhase(retry(Spellcheck)));
    assert_eq!(world.open(Spellcheck).in_a_row, 1, "a user's retry begins anew");
    fail_with(&mut world, Spellcheck, &[], Category::Transient);
    again(&mut world, Spellcheck);
    world.succeed(Spellcheck);
    world.succeed(Nlp);
    assert_eq!(world.batch().status, BatchStatus::CompletedSuccessfully);
}

#[test]
fn a_permanent_failure_waits_for_a_user() {
    let mut world = world(Nlp);
    fail_with(&mut world, Spellcheck, &[], Category::Permanent);
    assert_eq!(world.status(Spellcheck), Status::Failed);
    assert_eq!(world.in_flight(), None);
}

#[test]
fn only_the_essays_that_failed_for_a_transient_reason_are_tried_again() {
    let mut world = world(Nlp);
    let mut outcome = world.outcome(Spellcheck, BatchStatus::CompletedWithFailures, &[0]);
    let permanent = PhaseError::new(ErrorCode::EmptyContent, Category::Permanent, "empty");
    outcome.essay_errors = [(essay_id(1), permanent), (essay_id(2), provider_down())].into();
    world.apply(Input::PhaseOutcome(outcome));
    assert_eq!(only_command(&again(&mut world, Spellcheck)).essay_ids, [essay_id(2)]);
    let effects = world.succeed(Spellcheck);
    assert_eq!(world.status(Spellcheck), Status::CompletedWithPartialSuccess);
    assert_eq!(only_command(&effects).essay_ids, [essay_id(0), essay_id(2)], "nlp gets both");
}

#[test]
fn the_whole_batch_is_judged_again_or_not_at_all() {
    let mut world = world(CjAssessment);
    world.succeed(Spellcheck);
    fail_with(&mut world, CjAssessment, &[0, 1], Category::Transient);
    assert_eq!(only_command(&again(&mut world, CjAssessment)).essay_ids.len(), 3);
}

#[test]
fn a_worker_can_ask_for_a_longer_wait_but_not_for_ever() {
    for (asked_ms, waited_ms) in [(600_000, 600_000), (u64::MAX, 3_600_000)] {
        let mut world = world(Spellcheck);
        let error = Some(PhaseError::new(ErrorCode::RateLimit, Category::Transient, "later"));
        let outcome = world.outcome(Spellcheck, BatchStatus::FailedCritically, &[]);
        world.apply(Input::PhaseOutcome(PhaseOutcome { error, retry_after_ms: Some(asked_ms), ..outcome }));
        let PhaseState::BackingOff { again_at, .. } = world.record(Spellcheck).state else { panic!("it waits") };
        assert_eq!(again_at.since(world.now), waited_ms);
    }
}

#[test]
fn a_phase_that_waits_for_its_next_attempt_is_running_to_everybody_else() {
    let mut world = world(AiFeedback);
    world.succeed(Spellcheck);
    let late = world.outcome(Nlp, BatchStatus::CompletedSuccessfully, &[0, 1, 2]);
    fail_with(&mut world, Nlp, &[], Category::Transient);
    assert_eq!(world.refuse(request(CjAssessment)), Rejected::PipelineActive);
    let stale = Rejected::StaleAttempt { phase: Nlp };
    assert_eq!(world.refuse(Input::PhaseOutcome(late)), stale, "its attempt has ended");
    assert_eq!(world.refuse(Input::RetryDue { phase: Nlp, attempt: 2 }), stale);
    let other = Input::RetryDue { phase: AiFeedback, attempt: 1 };
    assert_eq!(world.refuse(other), Rejected::StaleAttempt { phase: AiFeedback });
    let now = only_command(&world.apply(Input::RetryPhase(retry(Nlp))));
    assert_eq!(now.phase, Nlp, "its user need not wait");
    world.succeed(Nlp);
    world.succeed(AiFeedback);
    assert_eq!(world.batch().status, BatchStatus::CompletedSuccessfully);
}

#[test]
fn a_deadline_is_a_transient_failure() {
    let mut world = world(Spellcheck);
    world.now = world.record(Spellcheck).state.in_flight().expect("in flight").1;
    world.apply(Input::DeadlineExpired { phase: Spellcheck, attempt: 1 });
    again(&mut world, Spellcheck);
    world.succeed(Spellcheck);
    assert_eq!(world.status(Spellcheck), Status::CompletedSuccessfully);
}

#[test]
fn an_automatic_attempt_keeps_what_its_user_wanted() {
    let mut world = World::completed(3, Nlp);
    world.rules.retry = std::array::from_fn(|_| RetryPolicy::default());
    let asked = rephase::domain::step::RetryRequest { downstream: true, ..retry_essays(Spellcheck, &[2]) };
    world.apply(common::world::forced(asked));
    fail_with(&mut world, Spellcheck, &[], Category::Transient);
    let command = only_command(&again(&mut world, Spellcheck));
    assert_eq!(command.essay_ids, [essay_id(2)]);
    assert_eq!(world.open(Spellcheck).reason.as_deref(), Some("once more"));
    assert_eq!(only_command(&world.succeed(Spellcheck)).phase, Nlp, "what is below runs again");
}

#[test]
fn a_worker_that_does_not_say_the_category_is_judged_by_its_code() {
    let said = |json: &str| serde_json::from_str::<PhaseError>(json).expect("an error");
    assert_eq!(said(r#"{"error_code": "TIMEOUT"}"#).category, Category::Transient);
    assert_eq!(said(r#"{"error_code": "EMPTY_CONTENT", "message": "x"}"#).category, Category::Permanent);
    assert_eq!(said(r#"{"error_code": "TIMEOUT", "category": "permanent"}"#).category, Category::Permanent);
}

#[test]
fn downstream_takes_everything_that_came_anew_however_many_attempts_it_took() {
    for last_succeeds in [true, false] {
        let mut world = World::completed(3, Nlp);
        world.rules.retry = std::array::from_fn(|_| RetryPolicy::default());
        let asked = rephase::domain::step::RetryRequest { downstream: true, ..retry(Spellcheck) };
        world.apply(common::world::forced(asked));
        fail_with(&mut world, Spellcheck, &[0, 1], Category::Transient);
        again(&mut world, Spellcheck);
        let command = if last_succeeds {
            only_command(&world.succeed(Spellcheck))
        } else {
            only_command(&fail_with(&mut world, Spellcheck, &[], Category::Permanent))
        };
        let anew = if last_succeeds { 3 } else { 2 };
        assert_eq!((command.phase, command.essay_ids.len()), (Nlp, anew));
        world.succeed(Nlp);
        assert_eq!(world.batch().stale_phases(), []);
    }
}

#[test]
fn a_phase_that_waits_is_shown_with_its_essays_pending() {
    let mut world = world(Spellcheck);
    fail_with(&mut world, Spellcheck, &[0], Category::Transient);
    let counts = world.record(Spellcheck).counts();
    assert_eq!((counts.total, counts.successful, counts.pending_dispatch_or_processing), (3, 1, 2));
    let state = rephase::domain::view::pipeline_state(world.batch(), |_| Ok::<_, std::convert::Infallible>(Vec::new()));
    let spellcheck = state.expect("it cannot fail").spellcheck.expect("it was asked for");
    assert_eq!((spellcheck.status, spellcheck.completed_at), (Status::InProgress, None));
}

#[test]
fn an_essay_that_keeps_its_result_is_tried_again_only_for_a_transient_reason() {
    let mut world = world(Spellcheck);
    world.succeed(Spellcheck);
    world.apply(common::world::forced(retry(Spellcheck)));
    let permanent = PhaseError::new(ErrorCode::EmptyContent, Category::Permanent, "empty");
    let mut outcome = world.outcome(Spellcheck, BatchStatus::CompletedWithFailures, &[0]);
    outcome.essay_errors = [(essay_id(1), provider_down()), (essay_id(2), permanent)].into();
    world.apply(Input::PhaseOutcome(outcome));
    assert_eq!(only_command(&again(&mut world, Spellcheck)).essay_ids, [essay_id(1)]);
}
