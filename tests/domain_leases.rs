//! The step of a lease, where it is decided: who has an attempt, until when, and what is still heard of its worker.

mod common;

use common::fixtures::assert_valid;
use common::world::{World, processed, retry};
use rephase::contract::BatchStatus;
use rephase::domain::step::{Data, Done, NewLease, ReturnedEssay, ReturnedText, ReturnedWork};
use rephase::domain::view::AttemptView;
use rephase::domain::{Category, Effect, Input, Phase, PhaseError, Rejected};
use serde_json::json;
use uuid::Uuid;

use Phase::Spellcheck;

const OVER: Rejected = Rejected::LeaseOver { phase: Spellcheck };
const STALE: Rejected = Rejected::StaleAttempt { phase: Spellcheck };

fn token(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn leased(attempt: u32, number: u128) -> Input {
    let lease = NewLease { worker_id: format!("w{number}"), token: token(number), lease_ms: 20_000 };
    Input::PhaseLeased { phase: Spellcheck, attempt, lease }
}

fn extended(number: u128) -> Input {
    Input::LeaseExtended { phase: Spellcheck, attempt: 1, token: token(number), done: None }
}

fn returned(number: u128, essays: Vec<ReturnedEssay>) -> Input {
    Input::LeaseReturned { phase: Spellcheck, attempt: 1, token: token(number), work: ReturnedWork::Essays(essays) }
}

fn came_out(slot: u16) -> ReturnedEssay {
    let essay = processed(Spellcheck, 1, slot);
    let text = ReturnedText { text_storage_id: Some(essay.text_storage_id), metrics: essay.spellcheck_metrics };
    ReturnedEssay { essay_id: essay.essay_id, result: Ok(text) }
}

#[test]
fn what_somebody_has_nobody_else_gets() {
    let mut world = World::running(2, Spellcheck);
    assert_eq!(world.refuse(leased(2, 1)), STALE, "of another attempt");
    world.apply(leased(1, 1));
    assert_eq!(world.refuse(leased(1, 2)), STALE);
    assert_eq!(world.refuse(leased(1, 1)), STALE, "the same twice");
    assert_eq!(world.refuse(Input::PhaseStarted { phase: Spellcheck, attempt: 1 }), STALE);
    let mut world = World::running(2, Spellcheck);
    world.apply(Input::PhaseStarted { phase: Spellcheck, attempt: 1 });
    assert_eq!(world.refuse(leased(1, 1)), STALE, "a worker of this process has it");
    // After a restart its command comes again, and may come to somebody else.
    world.up_since = world.now.plus(1);
    world.now = world.up_since;
    world.apply(leased(1, 1));
}

#[test]
fn a_lease_ends_in_time_unless_its_worker_lives_and_with_the_deadline_all_the_same() {
    let mut world = World::running(2, Spellcheck);
    world.apply(leased(1, 1));
    let (began, due) = (world.now, world.armed[0].due);
    assert_eq!(due, began.plus(20_000));
    world.now = world.now.plus(18_000);
    world.apply(extended(1));
    assert_eq!(world.armed[0].due, world.now.plus(20_000));
    // Whoever is late by half of the attempt's own time is stuck, however short the lease.
    assert_eq!(world.batch().stuck_since(began.plus(29_999)), None);
    assert_eq!(world.batch().stuck_since(began.plus(30_000)), Some(began.plus(30_000)));
    assert_eq!(world.refuse(Input::DeadlineExpired { phase: Spellcheck, attempt: 1 }), STALE, "it was extended");
    for _ in 0..2 {
        world.now = world.now.plus(17_000);
        world.apply(extended(1));
    }
    assert_eq!(world.armed[0].due, began.plus(60_000), "the deadline of the spellcheck in these tests");
    // A lease whose timer has not been handled yet is over too.
    let mut late = world.clone();
    late.now = began.plus(60_000);
    assert_eq!((late.refuse(extended(1)), late.refuse(returned(1, vec![came_out(0), came_out(1)]))), (OVER, OVER));
    late.apply(Input::DeadlineExpired { phase: Spellcheck, attempt: 1 });
    let attempt = &late.ledger[&Spellcheck][0];
    assert_eq!(json!(AttemptView::of(attempt))["worker_id"], "w1");
    let error = attempt.end.as_ref().and_then(|end| end.error.as_ref()).expect("an error");
    assert_eq!(error.category, Category::Transient);
}

#[test]
fn a_worker_that_could_not_reach_us_gets_one_more_lease() {
    let mut world = World::running(2, Spellcheck);
    world.apply(leased(1, 1));
    world.up_since = world.now.plus(3_600_000);
    world.now = world.up_since;
    let mut heard = world.clone();
    heard.apply(extended(1));
    assert_eq!(heard.armed[0].due, heard.now.plus(20_000), "heard before the timer was");
    world.apply(Input::DeadlineExpired { phase: Spellcheck, attempt: 1 });
    assert_eq!(world.armed[0].due, world.up_since.plus(20_000));
    world.now = world.now.plus(20_000);
    assert_eq!(world.refuse(extended(1)), OVER);
    world.apply(Input::DeadlineExpired { phase: Spellcheck, attempt: 1 });
    assert_eq!(world.ledger[&Spellcheck].len(), 1, "and then no more");
}

#[test]
fn what_a_worker_brings_is_all_of_its_task_and_nothing_else() {
    let mut world = World::completed(3, Spellcheck);
    world.apply(common::world::forced(common::world::retry_essays(Spellcheck, &[0, 2])));
    let lease = NewLease { worker_id: "w".to_owned(), token: token(1), lease_ms: 20_000 };
    world.apply(Input::PhaseLeased { phase: Spellcheck, attempt: 2, lease });
    let bring = |essays: Vec<ReturnedEssay>| Input::LeaseReturned {
        phase: Spellcheck,
        attempt: 2,
        token: token(1),
        work: ReturnedWork::Essays(essays),
    };
    let wrong = |slot: u16, reason| Rejected::NotTheTask { essay_id: common::world::essay_id(slot), reason };
    assert_eq!(world.refuse(bring(vec![came_out(0)])), wrong(2, "is missing"));
    let all = vec![came_out(0), came_out(1), came_out(2)];
    assert_eq!(world.refuse(bring(all)), wrong(1, "is not an essay of the task"));
    assert_eq!(world.refuse(bring(vec![came_out(0), came_out(0), came_out(2)])), wrong(0, "is there twice"));
    let done = |done| Input::LeaseExtended { phase: Spellcheck, attempt: 2, token: token(1), done: Some(done) };
    assert_eq!(world.refuse(done(Done::Count(3))), Rejected::TooMuchDone { essays: 2 });
    assert_eq!(world.refuse(done(Done::Essays(vec!["essay-1".to_owned()]))), wrong(1, "is not an essay of the task"));
    let effects = world.apply(bring(vec![came_out(2), came_out(0)]));
    let shown = effects.iter().find_map(|effect| match effect {
        Effect::Show(outgoing) => Some(outgoing),
        Effect::Publish(_)
        | Effect::Charge { .. }
        | Effect::RecordAttempt { .. }
        | Effect::ArmTimer(_)
        | Effect::DisarmTimer(_)
        | Effect::Recall { .. }
        | Effect::TellOwner(_) => None,
    });
    let Some(Data::PhaseOutcome(outcome)) = shown.map(|outgoing| &outgoing.data) else { panic!("{effects:#?}") };
    assert_eq!((outcome.phase_status, outcome.processed_essays.len()), (BatchStatus::CompletedSuccessfully, 2));
    assert_valid("ELSBatchPhaseOutcomeV1", &serde_json::to_value(outcome).expect("JSON"), "what is shown");
}

#[test]
fn what_failed_is_shown_with_its_reasons() {
    let mut world = World::running(2, Spellcheck);
    world.apply(leased(1, 1));
    let error = PhaseError::new(rephase::contract::ErrorCode::ContentTooShort, Category::Permanent, "one word");
    let failed = ReturnedEssay { essay_id: common::world::essay_id(1), result: Err(error) };
    let effects = world.apply(returned(1, vec![came_out(0), failed]));
    let Some(Effect::Show(shown)) = effects.first() else { panic!("{effects:#?}") };
    let reason = json!({ "error_code": "CONTENT_TOO_SHORT", "category": "permanent", "message": "one word" });
    let said = serde_json::to_value(&shown.metadata).expect("JSON");
    assert_eq!(said, json!({ "attempt": 1, "essay_errors": { "essay-1": reason } }));
    assert_eq!(world.results(Spellcheck), ["spellcheck-1-of-0", "failed"]);
    world.apply(Input::RetryPhase(retry(Spellcheck)));
    assert!(world.open(Spellcheck).lease.is_none(), "the next attempt is nobody's");
}
