//! The whole table: what `step` answers for every state of a phase and every kind of input.
//!
//! The phase is nlp. In every state the rest of the batch is such that, as far as it is possible, nothing but nlp's own
//! state decides: the essays are there, the prompt is, the owner asks.

mod common;

use std::collections::BTreeMap;

use common::world::{
    OWNER, START, STRANGER, World, batch_id, forced, new_essays, processed, prompt_ref, registration_request, request,
    retry,
};
use rephase::contract::{BatchStatus, PipelineExecutionStatus as Status};
use rephase::domain::step::{PhaseOutcome, Registration, RetryRequest};
use rephase::domain::{Input, Phase, Rejected};
use serde_json::json;

use Phase::{CjAssessment, Nlp, Spellcheck};

/// What nlp can be in, in the order of the columns below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody asked for any phase.
    NoPipeline,
    /// Nobody asked for nlp, but for spellcheck, which succeeded.
    NeverRequested,
    PendingDependencies,
    Requested,
    Dispatched,
    InProgress,
    Succeeded,
    PartiallySucceeded,
    Failed,
    SkippedDependency,
}

const STATES: [State; 10] = [
    State::NoPipeline,
    State::NeverRequested,
    State::PendingDependencies,
    State::Requested,
    State::Dispatched,
    State::InProgress,
    State::Succeeded,
    State::PartiallySucceeded,
    State::Failed,
    State::SkippedDependency,
];

/// A batch whose nlp is in this state, and the status that shows it.
fn world_in(state: State) -> (World, Option<Status>) {
    let spellchecked = || {
        let mut world = World::running(2, Nlp);
        world.succeed(Spellcheck);
        world
    };
    match state {
        State::NoPipeline => (World::ready(2), None),
        State::NeverRequested => (World::completed(2, Spellcheck), None),
        State::PendingDependencies => (World::running(2, Nlp), Some(Status::PendingDependencies)),
        State::Requested => {
            let mut world = spellchecked();
            world.fail(Nlp);
            world.apply(request(CjAssessment));
            world.apply(Input::RetryPhase(retry(Nlp)));
            (world, Some(Status::RequestedByUser))
        }
        State::Dispatched => (spellchecked(), Some(Status::DispatchInitiated)),
        State::InProgress => {
            let mut world = spellchecked();
            world.apply(Input::PhaseStarted { phase: Nlp, attempt: 1 });
            (world, Some(Status::InProgress))
        }
        State::Succeeded => (World::completed(2, Nlp), Some(Status::CompletedSuccessfully)),
        State::PartiallySucceeded => {
            let mut world = spellchecked();
            world.succeed_in_part(Nlp, &[0]);
            (world, Some(Status::CompletedWithPartialSuccess))
        }
        State::Failed => {
            let mut world = spellchecked();
            world.fail(Nlp);
            (world, Some(Status::Failed))
        }
        State::SkippedDependency => {
            let mut world = World::running(2, Nlp);
            world.fail(Spellcheck);
            (world, Some(Status::SkippedDueToDependencyFailure))
        }
    }
}

/// What a step answers.
#[derive(Debug, Clone, PartialEq)]
enum Answer {
    /// Allowed, and something changes; nlp is then this on the wire.
    Now(Option<Status>),
    /// Allowed, and nothing changes.
    Nothing,
    /// Refused.
    No(Rejected),
}

use Answer::{No, Nothing, Now};

fn nlp_status(world: &World) -> Option<Status> {
    world.batch().phase(Nlp).map(|record| record.state.status())
}

fn answer(state: State, prepare: impl Fn(&mut World), input: impl Fn(&World) -> Input) -> Answer {
    let (mut world, status) = world_in(state);
    prepare(&mut world);
    assert_eq!(nlp_status(&world), status, "{state:?} is not what it is called");
    let before = world.batch().clone();
    match world.try_apply(input(&world)) {
        Err(rejected) => {
            assert_eq!(*world.batch(), before, "a refusal changed the record");
            No(rejected)
        }
        Ok(_) if *world.batch() == before => Nothing,
        Ok(_) => Now(nlp_status(&world)),
    }
}

/// One row: the answer to `input` in each of [`STATES`].
fn row(what: &str, input: impl Fn(&World) -> Input, expected: [Answer; 10]) {
    row_after(|_| (), what, input, expected);
}

/// The same, after something else.
fn row_after(prepare: impl Fn(&mut World), what: &str, input: impl Fn(&World) -> Input, expected: [Answer; 10]) {
    for (state, expected) in STATES.into_iter().zip(expected) {
        assert_eq!(answer(state, &prepare, &input), expected, "{what} while nlp is {state:?}");
    }
}

/// The same answer whatever the state.
fn always(answer: &Answer) -> [Answer; 10] {
    std::array::from_fn(|_| answer.clone())
}

const fn running(status: Status) -> Answer {
    No(Rejected::PhaseRunning { phase: Nlp, status })
}

const STALE: Answer = No(Rejected::StaleAttempt { phase: Nlp });
const ACTIVE: Answer = No(Rejected::PipelineActive);
const DISPATCHED: Answer = Now(Some(Status::DispatchInitiated));
const SPELLCHECK_FAILED: Answer =
    No(Rejected::DependencyMissing { phase: Nlp, dependency: Spellcheck, status: Status::Failed });

/// The number that a message about nlp's newest attempt would have.
fn newest(world: &World) -> u32 {
    world.batch().phase(Nlp).map_or(1, |record| record.attempts.max(1))
}

#[test]
fn what_comes_before_a_pipeline() {
    let register = |_: &World| {
        let registration = Registration::new(batch_id(), registration_request(2, json!({})), START);
        Input::Register(Box::new(registration.expect("a registration that can be")))
    };
    row("Register", register, always(&No(Rejected::AlreadyRegistered)));
    let essay = |_: &World| Input::ProvideEssays { by: OWNER.to_owned(), essays: new_essays(2..3) };
    row("ProvideEssays", essay, always(&No(Rejected::TooManyEssays { sent: 1, left: 0 })));
    row("ContentProvisioned", |_| Input::ContentProvisioned { essays: Vec::new() }, always(&Nothing));
    let amend = |_: &World| Input::AmendPrompt { by: OWNER.to_owned(), student_prompt_ref: prompt_ref() };
    let begun = No(Rejected::ProcessingHasBegun);
    row("AmendPrompt", amend, {
        let mut expected = always(&begun);
        expected[0] = Now(None);
        expected
    });
}

#[test]
fn a_pipeline_request() {
    row(
        "RequestPipeline",
        |_| request(Nlp),
        [
            Now(Some(Status::PendingDependencies)),
            DISPATCHED,
            ACTIVE,
            ACTIVE,
            ACTIVE,
            ACTIVE,
            Now(Some(Status::CompletedSuccessfully)),
            Now(Some(Status::CompletedWithPartialSuccess)),
            DISPATCHED,
            Now(Some(Status::PendingDependencies)),
        ],
    );
}

#[test]
fn a_retry() {
    let refused_in_flight = |succeeded: Answer| {
        [
            No(Rejected::NoPipelineState),
            No(Rejected::PhaseNeverRequested { phase: Nlp }),
            running(Status::PendingDependencies),
            running(Status::RequestedByUser),
            running(Status::DispatchInitiated),
            running(Status::InProgress),
            succeeded,
            DISPATCHED,
            DISPATCHED,
            SPELLCHECK_FAILED,
        ]
    };
    let completed = No(Rejected::AlreadyCompleted { phase: Nlp });
    row("RetryPhase", |_| Input::RetryPhase(retry(Nlp)), refused_in_flight(completed));
    row("RetryPhase by force", |_| forced(retry(Nlp)), refused_in_flight(DISPATCHED));
}

#[test]
fn what_a_stranger_asks() {
    let by = || STRANGER.to_owned();
    let no = always(&No(Rejected::NotOwner));
    row("ProvideEssays", |_| Input::ProvideEssays { by: by(), essays: new_essays(2..3) }, no.clone());
    row("AmendPrompt", |_| Input::AmendPrompt { by: by(), student_prompt_ref: prompt_ref() }, no.clone());
    row("RequestPipeline", |_| Input::RequestPipeline { by: by(), last: Nlp, prompt: None }, no.clone());
    row("RetryPhase", |_| forced(RetryRequest { by: by(), ..retry(Nlp) }), no);
}

/// Only what is in flight can start, end or be late; everything else is about an attempt that is over or yet to come.
fn only_in_flight(dispatched: Answer, in_progress: Answer) -> [Answer; 10] {
    [STALE, STALE, STALE, STALE, dispatched, in_progress, STALE, STALE, STALE, STALE]
}

#[test]
fn a_start() {
    let started = |world: &World| Input::PhaseStarted { phase: Nlp, attempt: newest(world) };
    row("PhaseStarted", started, only_in_flight(Now(Some(Status::InProgress)), Nothing));
    let of_another = |world: &World| Input::PhaseStarted { phase: Nlp, attempt: newest(world) + 1 };
    row("PhaseStarted of another attempt", of_another, always(&STALE));
}

#[test]
fn an_outcome() {
    let outcome = |status: BatchStatus, attempt: Option<u32>| {
        Input::PhaseOutcome(PhaseOutcome {
            phase: Nlp,
            status,
            processed: vec![processed(Nlp, 1, 0), processed(Nlp, 1, 1)],
            attempt,
            correlation_id: None,
            error: None,
            retry_after_ms: None,
            essay_errors: BTreeMap::new(),
        })
    };
    for (status, becomes) in [
        (BatchStatus::CompletedSuccessfully, Status::CompletedSuccessfully),
        (BatchStatus::CompletedWithFailures, Status::CompletedSuccessfully),
        (BatchStatus::FailedCritically, Status::Failed),
        (BatchStatus::Cancelled, Status::Failed),
    ] {
        let expected = only_in_flight(Now(Some(becomes)), Now(Some(becomes)));
        row("PhaseOutcome", |world| outcome(status, Some(newest(world))), expected.clone());
        row("PhaseOutcome without a number", |_| outcome(status, None), expected);
        row("PhaseOutcome of another attempt", |world| outcome(status, Some(newest(world) + 1)), always(&STALE));
    }
}

#[test]
fn a_deadline() {
    let failed = || Now(Some(Status::Failed));
    let expired = |world: &World| Input::DeadlineExpired { phase: Nlp, attempt: newest(world) };
    let in_time = |world: &mut World| world.now = world.now.plus(3_600_000);
    row_after(in_time, "DeadlineExpired", expired, only_in_flight(failed(), failed()));
    row("DeadlineExpired before the deadline", expired, always(&STALE));
    let of_another = |world: &World| Input::DeadlineExpired { phase: Nlp, attempt: newest(world) + 1 };
    row_after(in_time, "DeadlineExpired of another attempt", of_another, always(&STALE));
}
