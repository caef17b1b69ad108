//! Random lives of a batch, step by step beside a plain model of it: whatever happens, in whatever order and however
//! often, the two agree, and what is true of every batch stays true.
//!
//! `REPHASE_MODEL_SEQUENCES` says how many lives; with `-- --nocapture` the counts of what happened are printed.

mod common;
#[path = "model/inputs.rs"]
mod inputs;
#[path = "model/plain.rs"]
mod plain;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use common::world::{START, STRANGER, TICK_MS, World, commands, completions, essay_id, provisionings, published};
use inputs::{Happening, Order, Past, Sequence, sequences};
use plain::{Alarm, Mark, Plain, Told, Verdict};
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use proptest::{prop_assert, prop_assert_eq};
use rephase::domain::step::{Data, RetryRequest};
use rephase::domain::{Batch, Effect, EssayResult, Input, Millis, Rejected, Slot};

/// How many lives `cargo test` tries.
const SEQUENCES: u32 = 300;
/// Where the program starts: so long ago that a clock that is set back does not come before it.
const UP_SINCE: Millis = Millis(START.0 - 7 * 24 * 3_600 * 1_000);
/// The most timers that go off one after the other when nobody does anything any more: four phases, each of them once more
/// because of a phase above, with three attempts, and for each a deadline, that deadline counted anew, and a wait.
const MOST_TIMERS: usize = 4 * 2 * 3 * 3;

/// How often inputs of a kind changed something, changed nothing, and were refused.
type Tally = BTreeMap<&'static str, BTreeMap<Verdict, u64>>;

/// A batch, what should have become of it, and what happened.
struct Life<'a> {
    world: World,
    plain: Plain,
    past: Past,
    /// The latest time that the clock has shown.
    latest: Millis,
    tally: &'a RefCell<Tally>,
}

type Outcome = Result<(), TestCaseError>;

impl Life<'_> {
    fn happen(&mut self, happening: &Happening) -> Outcome {
        match happening {
            Happening::Later { seconds } => self.world.now = self.world.now.plus(u64::from(*seconds) * 1_000),
            Happening::ClockSetBack { seconds } => {
                // Not to before the start of the program: what a start means that is yet to come, this model does not say.
                let back_to = Millis(self.world.now.0 - u64::from(*seconds) * 1_000);
                self.world.now = back_to.max(self.world.up_since);
            }
            Happening::Restart => {
                // Nor what one means that the clock puts before what a worker said earlier.
                self.world.now = self.world.now.max(self.latest).plus(1);
                self.world.up_since = self.world.now;
                self.plain.restart();
            }
            Happening::SameId => self.world.inputs = self.world.inputs.saturating_sub(1),
            Happening::Due => {
                let due = self.world.armed.first().map_or(Millis(0), |timer| timer.due);
                self.world.now = self.world.now.max(Millis(due.0.saturating_sub(TICK_MS)));
            }
            Happening::Register { .. }
            | Happening::Essays { .. }
            | Happening::Provisioned { .. }
            | Happening::Amend { .. }
            | Happening::Pipeline { .. }
            | Happening::Retry { .. }
            | Happening::Cancel { .. }
            | Happening::Started { .. }
            | Happening::Answered { .. }
            | Happening::Leased { .. }
            | Happening::Extended { .. }
            | Happening::Returned { .. }
            | Happening::Again { .. }
            | Happening::Untimely { .. } => {}
        }
        let Some(input) = happening.input(&mut self.past, &self.world) else { return Ok(()) };
        let registration =
            if let Happening::Register { essays, prompt } = happening { Some((*essays, *prompt)) } else { None };
        self.past.inputs.push(input.clone());
        self.take(input, registration)
    }

    /// Takes the input on both sides.
    fn take(&mut self, input: Input, registration: Option<(Slot, bool)>) -> Outcome {
        let kind = kind_of(&input);
        let is_stranger = asker(&input) == Some(STRANGER);
        let was_registered = self.plain.is_registered();
        let mut next = self.plain.clone();
        let verdict = next.take(&input, registration, self.world.now.plus(TICK_MS).0, self.world.up_since.0);
        *self.tally.borrow_mut().entry(kind).or_default().entry(verdict).or_default() += 1;
        self.latest = self.latest.max(self.world.now.plus(TICK_MS));
        let before = self.world.batch.clone();
        let shown = format!("{input:?}");
        match self.world.try_apply(input) {
            Err(rejected) => {
                prop_assert_eq!(Verdict::Refused, verdict, "{} was refused: {}", shown, rejected);
                prop_assert_eq!(rejected == Rejected::NotOwner, is_stranger && was_registered);
            }
            Ok(effects) => {
                let version = |batch: &Option<Batch>| batch.as_ref().map_or(0, |batch| batch.version);
                let changed = version(&self.world.batch) > version(&before);
                let found = if changed { Verdict::Changed } else { Verdict::Nothing };
                prop_assert_eq!(found, verdict, "{}", shown);
                prop_assert!(!is_stranger, "a stranger may not: {}", shown);
                if changed {
                    prop_assert_eq!(self.told(&effects)?, std::mem::take(&mut next.told), "{}", shown);
                    self.plain = next;
                }
            }
        }
        self.nothing_is_lost(before.as_ref())?;
        self.agree()
    }

    /// What the effects tell others, as the model tells it. The worker gets the commands.
    fn told(&mut self, effects: &[Effect]) -> Result<Told, TestCaseError> {
        let mut told = Told::default();
        for command in commands(effects) {
            let attempt = self.world.open(command.phase);
            prop_assert_eq!(command.metadata["attempt"].as_u64(), Some(u64::from(attempt.number)));
            let slots = command.essay_ids.iter().map(|id| slot_of(id));
            let order = Order { phase: command.phase, attempt: attempt.number, correlation_id: command.correlation_id };
            let same_id = self
                .past
                .orders
                .iter()
                .find(|earlier| earlier.phase == order.phase && earlier.correlation_id == order.correlation_id);
            prop_assert!(same_id.is_none(), "{:?} has the correlation id of {:?}", order, same_id);
            told.commands.push((order.phase, order.attempt, slots.zip(command.text_ids).collect()));
            self.past.orders.push(order);
        }
        for effect in effects {
            if let Effect::RecordAttempt { phase, attempt } = effect {
                let end = attempt.end.as_ref().expect("the world saw to it that it has one");
                prop_assert_eq!(end.failed_slots.len(), usize::try_from(end.failed).expect("a few"));
                told.ended.push((*phase, attempt.number, end.outcome, end.successful, end.failed));
            }
        }
        for completed in completions(effects) {
            let phases = completed.completed_phases.iter().map(|name| name.parse().expect("a phase"));
            let counts = (completed.successful_essay_count, completed.failed_essay_count);
            told.completions.push((completed.final_status, phases.collect(), counts.0, counts.1));
        }
        told.provisioned = !provisionings(effects).is_empty();
        for outgoing in published(effects) {
            match &outgoing.data {
                Data::Registered(_) => told.registered = true,
                Data::PhaseSkipped(skipped) => told.left_out.push(skipped.phase_name.parse().expect("a phase")),
                Data::ContentProvisioned(_)
                | Data::PipelineCompleted(_)
                | Data::PipelineDenied(_)
                | Data::Notification(_)
                | Data::Spellcheck(_)
                | Data::CjAssessment(_)
                | Data::Nlp(_)
                | Data::AiFeedback(_)
                | Data::StudentMatching(_)
                | Data::AssociationsConfirmed(_)
                | Data::EssaysReady(_)
                | Data::PhaseOutcome(_) => {}
            }
        }
        Ok(told)
    }

    /// An essay that came out of a phase once has a result there for ever.
    fn nothing_is_lost(&self, before: Option<&Batch>) -> Outcome {
        let Some(earlier) = before else { return Ok(()) };
        for (phase, record) in earlier.requested_phases() {
            for (slot, result) in record.results.iter().enumerate() {
                let now = &self.world.record(phase).results[slot];
                let is_kept = matches!(now, EssayResult::Succeeded(_)) || !matches!(result, EssayResult::Succeeded(_));
                prop_assert!(is_kept, "{} lost essay {}", phase, slot);
            }
        }
        Ok(())
    }

    /// The batch is what the model says. The world has seen to versions, the ledger's holes and timers of nobody.
    fn agree(&mut self) -> Outcome {
        let Some(batch) = &self.world.batch else {
            prop_assert!(!self.plain.is_registered());
            return Ok(());
        };
        prop_assert!(self.plain.is_registered());
        prop_assert_eq!(batch.status, self.plain.status);
        let received = self.plain.texts.iter().flatten().count();
        prop_assert_eq!(usize::from(batch.essays_received), received);
        let queue = batch.run.as_ref().map(|run| run.queue.clone());
        prop_assert_eq!(queue, self.plain.running.then(|| self.plain.queue.iter().copied().collect::<Vec<_>>()));
        prop_assert_eq!(batch.stale_phases(), self.plain.stale_phases());
        let statuses: Vec<_> = batch.requested_phases().map(|(phase, record)| (phase, record.state.status())).collect();
        let expected: Vec<_> = self.plain.phases.iter().map(|(phase, record)| (*phase, record.status)).collect();
        prop_assert_eq!(statuses, expected);
        let mut alarms = Vec::new();
        for (&phase, plain) in &mut self.plain.phases {
            let record = batch.phase(phase).expect("it has a status");
            prop_assert_eq!(record.attempts, plain.attempts, "{}", phase);
            prop_assert_eq!(record.user_retries, plain.user_retries, "{}", phase);
            let marks: Vec<_> = record.results.iter().map(shown_result).collect();
            prop_assert_eq!(marks, plain.marks.iter().map(shown_mark).collect::<Vec<_>>(), "{}", phase);
            let in_flight = record.state.in_flight().map(|(attempt, _)| attempt);
            let slots = in_flight.map(|attempt| attempt.slots.clone());
            prop_assert_eq!(slots, plain.in_flight.as_ref().map(|slots| slots.keys().copied().collect()));
            if let Some(attempt) = in_flight {
                let said = (attempt.number, attempt.in_a_row, attempt.downstream);
                prop_assert_eq!(said, (plain.attempts, plain.in_a_row, plain.downstream), "{}", phase);
            }
            let ended = self.world.ledger.get(&phase).map_or(0, Vec::len);
            let open = usize::from(record.state.open_attempt().is_some());
            prop_assert_eq!(ended + open, usize::try_from(plain.attempts).expect("a few"), "{}", phase);
            alarms.extend(plain.alarm.as_mut().map(|alarm| (phase, plain.attempts, alarm)));
        }
        prop_assert!(alarms.len() <= 1, "more than one phase has its turn");
        prop_assert_eq!(self.world.armed.len(), alarms.len());
        for ((phase, attempt, alarm), timer) in alarms.into_iter().zip(&self.world.armed) {
            prop_assert_eq!((timer.kind, timer.phase, timer.attempt), (alarm.kind, phase, attempt));
            let due = timer.due.0;
            prop_assert!((alarm.earliest..=alarm.latest).contains(&due), "{} is not in {:?}", due, alarm);
            // What was drawn is known from now on.
            *alarm = Alarm { earliest: due, latest: due, ..*alarm };
        }
        let waits_for_ever = batch.run.is_some() && self.world.armed.is_empty();
        prop_assert!(!waits_for_ever, "a run is open and nothing will end it");
        self.plain.ids =
            self.past.orders.iter().map(|order| ((order.phase, order.attempt), order.correlation_id)).collect();
        Ok(())
    }

    /// Nobody does anything any more: what waits or runs comes to its end by itself.
    fn come_to_rest(&mut self) -> Outcome {
        for _ in 0..MOST_TIMERS {
            if self.world.armed.is_empty() {
                return Ok(());
            }
            self.happen(&Happening::Due)?;
        }
        prop_assert!(self.world.armed.is_empty(), "timers go on for ever: {:?}", self.world.armed);
        Ok(())
    }
}

fn live(sequence: &Sequence, tally: &RefCell<Tally>) -> Outcome {
    let mut world = World::empty();
    world.up_since = UP_SINCE;
    world.rules = sequence.rules();
    let mut life = Life { world, plain: Plain::new(sequence.rules()), past: Past::default(), latest: START, tally };
    for happening in &sequence.happenings {
        life.happen(happening)?;
    }
    life.come_to_rest()
}

/// What is left of a sequence that fails when no happening can be left out. The strategy's own shrinking leaves each out
/// once, before it makes the others simpler.
fn shortest(mut sequence: Sequence) -> (Sequence, TestCaseError) {
    // What World asserts is a failure like any other.
    let failure_of = |sequence: &Sequence| -> Option<TestCaseError> {
        let lived = std::panic::catch_unwind(|| live(sequence, &RefCell::default()));
        lived.unwrap_or_else(|_| Err(TestCaseError::fail("it panicked, see above"))).err()
    };
    let mut failure = failure_of(&sequence).expect("it failed before");
    let mut at = 0;
    while at < sequence.happenings.len() {
        let mut shorter = sequence.clone();
        shorter.happenings.remove(at);
        match failure_of(&shorter) {
            Some(found) => (sequence, failure, at) = (shorter, found, 0),
            None => at += 1,
        }
    }
    (sequence, failure)
}

fn shown_result(result: &EssayResult) -> String {
    match result {
        EssayResult::NotRun => "not run".to_owned(),
        EssayResult::Succeeded(output) => output.text_storage_id.clone(),
        EssayResult::Failed { .. } => "failed".to_owned(),
    }
}

fn shown_mark(mark: &Mark) -> String {
    match mark {
        Mark::NotRun => "not run".to_owned(),
        Mark::Out { text, .. } => text.clone(),
        Mark::Failed { .. } => "failed".to_owned(),
    }
}

fn slot_of(id: &str) -> Slot {
    (0..Slot::MAX).find(|slot| essay_id(*slot) == id).expect("an essay of the batch")
}

/// Who asks, where somebody does.
fn asker(input: &Input) -> Option<&str> {
    match input {
        Input::ProvideEssays { by, .. }
        | Input::AmendPrompt { by, .. }
        | Input::RequestPipeline { by, .. }
        | Input::DenyPipeline { by, .. }
        | Input::RetryPhase(RetryRequest { by, .. })
        | Input::Cancel { by, .. } => Some(by),
        Input::Register(_)
        | Input::ContentProvisioned { .. }
        | Input::AssociationsConfirmed { .. }
        | Input::EssaysReady
        | Input::StudentValidationExpired
        | Input::PhaseStarted { .. }
        | Input::PhaseLeased { .. }
        | Input::LeaseExtended { .. }
        | Input::LeaseReturned { .. }
        | Input::PhaseOutcome(_)
        | Input::DeadlineExpired { .. }
        | Input::RetryDue { .. } => None,
    }
}

const fn kind_of(input: &Input) -> &'static str {
    match input {
        Input::Register(_) => "Register",
        Input::ProvideEssays { .. } => "ProvideEssays",
        Input::ContentProvisioned { .. } => "ContentProvisioned",
        Input::AmendPrompt { .. } => "AmendPrompt",
        Input::RequestPipeline { .. } => "RequestPipeline",
        Input::DenyPipeline { .. } => "DenyPipeline",
        Input::RetryPhase(_) => "RetryPhase",
        Input::Cancel { .. } => "Cancel",
        Input::PhaseStarted { .. } => "PhaseStarted",
        Input::PhaseLeased { .. } => "PhaseLeased",
        Input::LeaseExtended { .. } => "LeaseExtended",
        Input::LeaseReturned { .. } => "LeaseReturned",
        Input::PhaseOutcome(_) => "PhaseOutcome",
        Input::DeadlineExpired { .. } => "DeadlineExpired",
        Input::RetryDue { .. } => "RetryDue",
        Input::AssociationsConfirmed { .. } => "AssociationsConfirmed",
        Input::EssaysReady => "EssaysReady",
        Input::StudentValidationExpired => "StudentValidationExpired",
    }
}

#[test]
fn a_batch_is_what_its_plain_model_says() {
    let sequences_wanted = match std::env::var("REPHASE_MODEL_SEQUENCES") {
        Ok(number) => number.parse().expect("REPHASE_MODEL_SEQUENCES is a number"),
        Err(_) => SEQUENCES,
    };
    // A failure is worth the time that its shortest sequence takes, and no file.
    let config =
        Config { cases: sequences_wanted, max_shrink_iters: 100_000, failure_persistence: None, ..Config::default() };
    let tally = RefCell::default();
    let begun = Instant::now();
    let result = TestRunner::new(config).run(&sequences(), |sequence| live(&sequence, &tally));
    match result {
        Ok(()) => {}
        Err(TestError::Abort(reason)) => panic!("the test could not go on: {reason}"),
        Err(TestError::Fail(_, sequence)) => {
            let (shortest, failure) = shortest(sequence);
            panic!("{} happenings: {shortest:?}\n{failure}", shortest.happenings.len());
        }
    }
    let tally = tally.into_inner();
    let count = |counts: &BTreeMap<Verdict, u64>, verdict| counts.get(&verdict).copied().unwrap_or(0);
    println!("{:20} {:>9} {:>9} {:>9}", "", "changed", "nothing", "refused");
    for (kind, counts) in &tally {
        let [changed, nothing, refused] =
            [Verdict::Changed, Verdict::Nothing, Verdict::Refused].map(|verdict| count(counts, verdict));
        println!("{kind:20} {changed:9} {nothing:9} {refused:9}");
    }
    let steps: u64 = tally.values().flat_map(BTreeMap::values).sum();
    println!("{sequences_wanted} sequences, {steps} steps, {:?}", begun.elapsed());
}
