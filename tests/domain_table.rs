//! The whole table: what `step` answers for every state of a phase and every kind of input.
//!
//! The phase is nlp. In every state the rest of the batch is such that, as far as it is possible, nothing but nlp's own
//! state decides: the essays are there, the prompt is, the owner asks.

mod common;

use std::collections::BTreeMap;

use common::world::{
    OWNER, START, STRANGER, World, batch_id, essay_id, forced, new_essays, processed, prompt_ref, provider_down,
    registration_request, request, retry, retry_essays,
};
use rephase::contract::{BatchStatus, PipelineExecutionStatus as Status};
use rephase::domain::step::{PhaseOutcome, Registration, RetryRequest, Selection};
use rephase::domain::{Input, Phase, PhaseState, Rejected, RetryPolicy, Slot};
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
    /// It failed for a transient reason and waits for its next attempt by itself.
    BackingOff,
    Succeeded,
    /// The essay in slot 0 came out, the one in slot 1 failed.
    PartiallySucceeded,
    Failed,
    Cancelled,
    SkippedDependency,
}

/// How many columns there are.
const COLUMNS: usize = 12;

const STATES: [State; COLUMNS] = [
    State::NoPipeline,
    State::NeverRequested,
    State::PendingDependencies,
    State::Requested,
    State::Dispatched,
    State::InProgress,
    State::BackingOff,
    State::Succeeded,
    State::PartiallySucceeded,
    State::Failed,
    State::Cancelled,
    State::SkippedDependency,
];

/// How long nlp waits where it waits for its next attempt: long enough for messages that come before its time.
const WAIT_MS: u64 = 60_000;

fn cancel(by: &str) -> Input {
    Input::Cancel { by: by.to_owned(), reason: "wrong class".to_owned() }
}

/// Later than every deadline and every wait.
fn much_later(world: &mut World) {
    world.now = world.now.plus(3_600_000);
}

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
        State::BackingOff => {
            let mut world = spellchecked();
            world.rules.retry[Nlp.index()] = RetryPolicy::default();
            let outcome = PhaseOutcome {
                error: Some(provider_down()),
                retry_after_ms: Some(WAIT_MS),
                ..world.outcome(Nlp, BatchStatus::FailedCritically, &[])
            };
            world.apply(Input::PhaseOutcome(outcome));
            assert!(matches!(world.record(Nlp).state, PhaseState::BackingOff { .. }), "it does not wait");
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
        State::Cancelled => {
            let mut world = spellchecked();
            world.apply(cancel(OWNER));
            (world, Some(Status::Cancelled))
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
fn row(what: &str, input: impl Fn(&World) -> Input, expected: [Answer; COLUMNS]) {
    row_after(|_| (), what, input, expected);
}

/// The same, after something else.
fn row_after(prepare: impl Fn(&mut World), what: &str, input: impl Fn(&World) -> Input, expected: [Answer; COLUMNS]) {
    for (state, expected) in STATES.into_iter().zip(expected) {
        assert_eq!(answer(state, &prepare, &input), expected, "{what} while nlp is {state:?}");
    }
}

/// The same answer whatever the state.
fn always(answer: &Answer) -> [Answer; COLUMNS] {
    std::array::from_fn(|_| answer.clone())
}

const fn running(status: Status) -> Answer {
    No(Rejected::PhaseRunning { phase: Nlp, status })
}

const STALE: Answer = No(Rejected::StaleAttempt { phase: Nlp });
const COMPLETED: Answer = No(Rejected::AlreadyCompleted { phase: Nlp });
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
    row("EssaysReady", |_| Input::EssaysReady, always(&Nothing));
    let of_nobody = |_: &World| Input::AssociationsConfirmed {
        class_id: "class-9".to_owned(),
        essay_ids: Vec::new(),
        timeout_triggered: false,
    };
    let no_class = No(Rejected::Inconsistent { reason: "the batch has no class" });
    row("AssociationsConfirmed", of_nobody, always(&no_class));
    let nobody = No(Rejected::Inconsistent { reason: "nobody is waited for, or not for that long yet" });
    row_after(much_later, "StudentValidationExpired", |_| Input::StudentValidationExpired, always(&nobody));
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
            ACTIVE,
            Now(Some(Status::CompletedSuccessfully)),
            Now(Some(Status::CompletedWithPartialSuccess)),
            DISPATCHED,
            DISPATCHED,
            Now(Some(Status::PendingDependencies)),
        ],
    );
}

/// The answers to a retry that differ only where nlp had come to something: while it waits for its next attempt,
/// succeeded, partially succeeded, failed, was cancelled.
fn retried([backing_off, succeeded, partially, failed, cancelled]: [Answer; 5]) -> [Answer; COLUMNS] {
    [
        No(Rejected::NoPipelineState),
        No(Rejected::PhaseNeverRequested { phase: Nlp }),
        running(Status::PendingDependencies),
        running(Status::RequestedByUser),
        running(Status::DispatchInitiated),
        running(Status::InProgress),
        backing_off,
        succeeded,
        partially,
        failed,
        cancelled,
        SPELLCHECK_FAILED,
    ]
}

#[test]
fn a_retry() {
    let unforced = || retried([DISPATCHED, COMPLETED, DISPATCHED, DISPATCHED, DISPATCHED]);
    let by_force = || retried([DISPATCHED; 5]);
    row("RetryPhase", |_| Input::RetryPhase(retry(Nlp)), unforced());
    row("RetryPhase by force", |_| forced(retry(Nlp)), by_force());
    let downstream = || RetryRequest { downstream: true, ..retry(Nlp) };
    row("RetryPhase downstream", |_| Input::RetryPhase(downstream()), unforced());
    row("RetryPhase downstream by force", |_| forced(downstream()), by_force());
}

#[test]
fn a_retry_of_single_essays() {
    let named = |slots: &'static [Slot]| move |_: &World| Input::RetryPhase(retry_essays(Nlp, slots));
    let named_by_force = |slots: &'static [Slot]| move |_: &World| forced(retry_essays(Nlp, slots));
    let mends = || retried([DISPATCHED, COMPLETED, DISPATCHED, DISPATCHED, DISPATCHED]);
    let touches = || retried([DISPATCHED, COMPLETED, COMPLETED, DISPATCHED, DISPATCHED]);
    row("RetryPhase of what did not come out of a partial success", named(&[1]), mends());
    row("RetryPhase of what did", named(&[0]), touches());
    row("RetryPhase of both", named(&[1, 0, 1]), touches());
    for slots in [&[0][..], &[1], &[0, 1]] {
        row("RetryPhase of essays by force", named_by_force(slots), retried([DISPATCHED; 5]));
    }
    let by_ids = |essay_ids: &[String]| {
        let selection = Selection::Essays(essay_ids.to_vec());
        move |_: &World| forced(RetryRequest { selection: selection.clone(), ..retry(Nlp) })
    };
    row("RetryPhase of no essay", by_ids(&[]), always(&No(Rejected::NoEssays)));
    let unknown = No(Rejected::UnknownEssay { essay_id: essay_id(2) });
    row("RetryPhase of an unknown essay", by_ids(&[essay_id(0), essay_id(2)]), always(&unknown));
}

#[test]
fn a_retry_of_what_failed() {
    let none = No(Rejected::NothingFailed { phase: Nlp });
    let expected = || retried([DISPATCHED, none.clone(), DISPATCHED, DISPATCHED, DISPATCHED]);
    let failed = |phase: Phase| RetryRequest { selection: Selection::Failed, ..retry(phase) };
    row("RetryPhase of what failed", move |_| Input::RetryPhase(failed(Nlp)), expected());
    row("RetryPhase of what failed, by force", move |_| forced(failed(Nlp)), expected());
    let downstream = move |_: &World| Input::RetryPhase(RetryRequest { downstream: true, ..failed(Nlp) });
    row("RetryPhase of what failed, downstream", downstream, expected());

    let whole_only = No(Rejected::WholeBatchOnly { phase: CjAssessment });
    row("RetryPhase of what failed in cj_assessment", move |_| forced(failed(CjAssessment)), always(&whole_only));
    let named = |_: &World| forced(retry_essays(CjAssessment, &[0, 1]));
    row("RetryPhase of essays in cj_assessment", named, always(&whole_only));
}

#[test]
fn a_retry_while_another_phase_runs() {
    // Where nothing runs, cj_assessment does then. It needs spellcheck, which runs first where it has not completed.
    let waits = Now(Some(Status::RequestedByUser));
    let never = No(Rejected::PhaseNeverRequested { phase: Nlp });
    let spellcheck_runs =
        No(Rejected::DependencyMissing { phase: Nlp, dependency: Spellcheck, status: Status::DispatchInitiated });
    let expected = [
        never.clone(),
        never,
        running(Status::PendingDependencies),
        running(Status::RequestedByUser),
        running(Status::DispatchInitiated),
        running(Status::InProgress),
        DISPATCHED,
        waits.clone(),
        waits.clone(),
        waits.clone(),
        waits,
        spellcheck_runs,
    ];
    row_after(run_another, "RetryPhase by force while another runs", |_| forced(retry(Nlp)), expected);
}

/// Lets another phase of the batch run, where none does.
fn run_another(world: &mut World) {
    if world.batch().run.is_none() {
        world.apply(request(CjAssessment));
    }
}

#[test]
fn a_cancellation() {
    let cancelled = Now(Some(Status::Cancelled));
    let nothing = No(Rejected::NothingToCancel);
    let expected = [
        nothing.clone(),
        nothing.clone(),
        cancelled.clone(),
        cancelled.clone(),
        cancelled.clone(),
        cancelled.clone(),
        cancelled.clone(),
        nothing.clone(),
        nothing.clone(),
        nothing.clone(),
        nothing.clone(),
        nothing,
    ];
    row("Cancel", |_| cancel(OWNER), expected);
    let of_another = [
        Now(None),
        Now(None),
        cancelled.clone(),
        cancelled.clone(),
        cancelled.clone(),
        cancelled.clone(),
        cancelled.clone(),
        Now(Some(Status::CompletedSuccessfully)),
        Now(Some(Status::CompletedWithPartialSuccess)),
        Now(Some(Status::Failed)),
        cancelled,
        Now(Some(Status::SkippedDueToDependencyFailure)),
    ];
    row_after(run_another, "Cancel while another phase runs", |_| cancel(OWNER), of_another);
}

#[test]
fn what_a_stranger_asks() {
    let by = || STRANGER.to_owned();
    let no = always(&No(Rejected::NotOwner));
    row("ProvideEssays", |_| Input::ProvideEssays { by: by(), essays: new_essays(2..3) }, no.clone());
    row("AmendPrompt", |_| Input::AmendPrompt { by: by(), student_prompt_ref: prompt_ref() }, no.clone());
    row("RequestPipeline", |_| Input::RequestPipeline { by: by(), last: Nlp, prompt: None }, no.clone());
    row("RetryPhase", |_| forced(RetryRequest { by: by(), ..retry(Nlp) }), no.clone());
    let essays = |_: &World| forced(RetryRequest { by: by(), downstream: true, ..retry_essays(Nlp, &[9]) });
    row("RetryPhase of single essays", essays, no.clone());
    let failed = |_: &World| forced(RetryRequest { by: by(), selection: Selection::Failed, ..retry(Nlp) });
    row("RetryPhase of what failed", failed, no.clone());
    row("Cancel", |_| cancel(STRANGER), no);
}

/// Only what is in flight can start, end or be late; everything else is about an attempt that is over or yet to come.
fn only_in_flight(dispatched: Answer, in_progress: Answer) -> [Answer; COLUMNS] {
    [STALE, STALE, STALE, STALE, dispatched, in_progress, STALE, STALE, STALE, STALE, STALE, STALE]
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
    row_after(much_later, "DeadlineExpired", expired, only_in_flight(failed(), failed()));
    row("DeadlineExpired before the deadline", expired, always(&STALE));
    let of_another = |world: &World| Input::DeadlineExpired { phase: Nlp, attempt: newest(world) + 1 };
    row_after(much_later, "DeadlineExpired of another attempt", of_another, always(&STALE));
}

#[test]
fn the_end_of_a_wait() {
    let due = |world: &World| Input::RetryDue { phase: Nlp, attempt: newest(world) };
    let mut expected = always(&STALE);
    row("RetryDue before its time", due, expected.clone());
    let of_another = |world: &World| Input::RetryDue { phase: Nlp, attempt: newest(world) + 1 };
    row_after(much_later, "RetryDue of another attempt", of_another, expected.clone());
    expected[State::BackingOff as usize] = DISPATCHED;
    row_after(much_later, "RetryDue", due, expected);
}
