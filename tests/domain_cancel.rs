//! The pure `step` when a user cancels, and when a phase takes long.

mod common;

use common::world::{OWNER, STRANGER, World, only_completion, provider_down, request, retry, topics};
use rephase::contract::{BatchStatus, PipelineExecutionStatus as Status, Topic};
use rephase::domain::Phase::{AiFeedback, CjAssessment, Nlp, Spellcheck};
use rephase::domain::step::PhaseOutcome;
use rephase::domain::{AttemptOutcome, Input, Phase, Rejected, RetryPolicy};

fn cancel() -> Input {
    Input::Cancel { by: OWNER.to_owned(), reason: "wrong class".to_owned() }
}

#[test]
fn what_waits_or_runs_is_cancelled_and_what_is_complete_stays() {
    for started in [false, true] {
        let mut world = World::running(2, AiFeedback);
        world.succeed(Spellcheck);
        let spellcheck = world.record(Spellcheck).clone();
        if started {
            world.apply(Input::PhaseStarted { phase: Nlp, attempt: 1 });
        }
        let late = world.outcome(Nlp, BatchStatus::CompletedSuccessfully, &[0, 1]);
        let effects = world.apply(cancel());
        assert_eq!(world.record(Spellcheck), &spellcheck);
        assert_eq!((world.status(Nlp), world.status(AiFeedback)), (Status::Cancelled, Status::Cancelled));
        assert_eq!(world.batch().status, BatchStatus::Cancelled);
        assert_eq!(topics(&effects), [Topic::BatchPipelineCompleted, Topic::TeacherNotificationRequested]);
        let completed = only_completion(&effects);
        assert_eq!(completed.final_status, BatchStatus::Cancelled);
        assert_eq!(completed.completed_phases, ["spellcheck"]);
        let end = world.newest_attempts(Nlp)[0].end.clone().expect("an end");
        assert_eq!(end.outcome, AttemptOutcome::Cancelled);
        assert_eq!(end.note.as_deref(), Some("cancelled by teacher-7: wrong class"));
        assert_eq!(world.newest_attempts(AiFeedback), [], "it had none");

        assert_eq!(world.refuse(Input::PhaseOutcome(late)), Rejected::StaleAttempt { phase: Nlp });
        assert_eq!(world.refuse(cancel()), Rejected::NothingToCancel);
        let dependency = Rejected::DependencyMissing { phase: AiFeedback, dependency: Nlp, status: Status::Cancelled };
        assert_eq!(world.refuse(Input::RetryPhase(retry(AiFeedback))), dependency);
        world.apply(Input::RetryPhase(retry(Nlp)));
        world.succeed(Nlp);
        assert_eq!(world.status(Nlp), Status::CompletedSuccessfully);
        assert_eq!(world.status(AiFeedback), Status::Cancelled, "a cancelled phase runs when it is asked for");
        world.apply(request(AiFeedback));
        world.succeed(AiFeedback);
        assert_eq!(world.batch().status, BatchStatus::CompletedSuccessfully);
    }
}

#[test]
fn a_queued_retry_and_one_that_waits_for_its_time_are_cancelled_too() {
    let mut world = World::completed(2, Nlp);
    world.apply(request(CjAssessment));
    world.apply(common::world::forced(retry(Nlp)));
    world.apply(cancel());
    assert_eq!(world.status(CjAssessment), Status::Cancelled);
    assert_eq!(world.status(Nlp), Status::CompletedSuccessfully, "what came out before is not taken away");
    assert_eq!(world.newest_attempts(Nlp).len(), 2, "its attempt is on record");

    let mut waiting = World::ready(2);
    waiting.rules.retry = std::array::from_fn(|_| RetryPolicy::default());
    waiting.apply(request(Spellcheck));
    let outcome = waiting.outcome(Spellcheck, BatchStatus::FailedCritically, &[]);
    waiting.apply(Input::PhaseOutcome(PhaseOutcome { error: Some(provider_down()), ..outcome }));
    assert_eq!(waiting.status(Spellcheck), Status::InProgress);
    waiting.apply(cancel());
    assert_eq!(waiting.status(Spellcheck), Status::Cancelled);
    assert_eq!(waiting.armed, [], "nothing wakes it");
}

#[test]
fn only_the_owner_cancels_and_only_what_runs() {
    let mut world = World::ready(1);
    assert_eq!(world.refuse(cancel()), Rejected::NothingToCancel);
    world.apply(request(Spellcheck));
    let theirs = Input::Cancel { by: STRANGER.to_owned(), reason: String::new() };
    assert_eq!(world.refuse(theirs), Rejected::NotOwner);
    assert_eq!(World::empty().refuse(cancel()), Rejected::NoSuchBatch);
}

#[test]
fn a_phase_is_stuck_after_half_its_deadline() {
    let mut world = World::running(1, Spellcheck);
    world.apply(Input::PhaseStarted { phase: Phase::Spellcheck, attempt: 1 });
    let half = world.now.plus(world.rules.phase_deadline_ms[0] / 2);
    assert_eq!(world.batch().stuck_since(world.now), None);
    assert_eq!(world.batch().stuck_since(half), Some(half));
    assert_eq!(world.batch().stuck_since(half.plus(9)), Some(half));
    world.succeed(Spellcheck);
    assert_eq!(world.batch().stuck_since(half.plus(9)), None);
}

#[test]
fn cancelling_a_retry_leaves_what_had_completed() {
    let mut world = World::completed(2, AiFeedback);
    let asked = rephase::domain::step::RetryRequest { downstream: true, ..retry(Spellcheck) };
    world.apply(common::world::forced(asked));
    world.succeed(Spellcheck);
    assert_eq!(world.status(AiFeedback), Status::PendingDependencies);
    world.apply(cancel());
    for phase in [Spellcheck, Nlp, AiFeedback] {
        assert_eq!(world.status(phase), Status::CompletedSuccessfully, "{phase}");
    }
    assert_eq!(world.batch().status, BatchStatus::CompletedSuccessfully, "nothing that was asked for is missing");
    assert_eq!(world.batch().stale_phases(), [Nlp, AiFeedback]);
    world.apply(common::world::forced(retry(Nlp)));
}
