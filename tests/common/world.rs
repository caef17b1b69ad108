//! One batch, driven through `step` with a clock that moves on by a second for each input.

use std::collections::BTreeMap;
use std::sync::Arc;

use rephase::contract::events::{BatchContentProvisioningCompleted, BatchPipelineCompleted};
use rephase::contract::requests::BatchRegistrationRequest;
use rephase::contract::{BatchStatus, ErrorCode, EssayRef, PipelineExecutionStatus, StorageReferences, Topic};
use rephase::domain::step::{Data, NewEssay, Outgoing, PhaseOutcome, Registration, RetryRequest, Selection};
use rephase::domain::{
    Attempt, Batch, BatchId, Category, Context, Effect, EssayResult, Funds, Input, Millis, Phase, PhaseError,
    PhaseRecord, Rejected, RetryPolicy, Rules, Slot, Step, Timer, step,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// The owner of the batch.
pub const OWNER: &str = "teacher-7";
/// Somebody else.
pub const STRANGER: &str = "teacher-8";
/// When the world begins.
pub const START: Millis = Millis(1_772_440_200_000);
/// What passes between two inputs.
pub const TICK_MS: u64 = 1_000;

/// The id of the batch.
pub fn batch_id() -> BatchId {
    BatchId(Uuid::from_u128(0x3f0e_6f8a_52a5_4a55_9d3c_0d6a_4f7f_9b10))
}

/// The id of the essay in `slot`.
pub fn essay_id(slot: Slot) -> String {
    format!("essay-{slot}")
}

/// The rules of the tests: every phase has another deadline, so that a mix-up shows.
pub fn rules() -> Rules {
    let retry = std::array::from_fn(|_| RetryPolicy::never());
    Rules { retry, phase_deadline_ms: [60_000, 120_000, 180_000, 240_000], ..Rules::default() }
}

/// A registration of `essays` essays with ids of the client's choice, and with `members` besides or instead.
pub fn registration_request(essays: usize, members: Value) -> BatchRegistrationRequest {
    let mut request = json!({
        "expected_essay_count": essays,
        "essay_ids": (0..essays).map(|slot| format!("essay-{slot}")).collect::<Vec<_>>(),
        "course_code": "ENG5",
        "user_id": OWNER,
        "org_id": "school-1",
    });
    let Value::Object(members) = members else { panic!("members are an object") };
    request.as_object_mut().expect("an object").extend(members);
    serde_json::from_value(request).expect("a registration that can be read")
}

/// The prompt that a world with a prompt has.
pub fn prompt_ref() -> StorageReferences {
    serde_json::from_value(json!({ "references": { "student_prompt_text": { "storage_id": "prompt-1", "path": "" } } }))
        .expect("a prompt")
}

/// A pipeline that the owner asks for, without a prompt.
pub fn request(last: Phase) -> Input {
    Input::RequestPipeline { by: OWNER.to_owned(), last, prompt: None }
}

/// A retry of a whole phase by the owner.
pub fn retry(phase: Phase) -> RetryRequest {
    RetryRequest::whole(OWNER.to_owned(), phase, "once more".to_owned())
}

/// A retry of the essays in `slots`.
pub fn retry_essays(phase: Phase, slots: &[Slot]) -> RetryRequest {
    RetryRequest { selection: Selection::Essays(slots.iter().copied().map(essay_id).collect()), ..retry(phase) }
}

/// The same retry, forced.
pub fn forced(request: RetryRequest) -> Input {
    Input::RetryPhase(RetryRequest { force: true, ..request })
}

/// A batch and the world around it.
#[derive(Clone)]
pub struct World {
    /// The record after the last step; none before the registration.
    pub batch: Option<Batch>,
    /// The time of the last step.
    pub now: Millis,
    /// Since when the program runs.
    pub up_since: Millis,
    /// The rules in force.
    pub rules: Rules,
    /// How many inputs there were. Their correlation ids count with it.
    pub inputs: u32,
    /// What there is to pay with, which nothing is taken from.
    pub funds: Funds,
    /// What each phase's ledger holds, oldest first.
    pub ledger: BTreeMap<Phase, Vec<Attempt>>,
    /// The timers that are armed.
    pub armed: Vec<Timer>,
    /// Everything published so far.
    pub published: Vec<Outgoing>,
}

impl World {
    /// Before anything happened.
    pub fn empty() -> Self {
        Self {
            batch: None,
            now: START,
            up_since: START,
            rules: rules(),
            funds: Funds::Unlimited,
            inputs: 0,
            ledger: BTreeMap::new(),
            armed: Vec::new(),
            published: Vec::new(),
        }
    }

    /// A registered batch without any text.
    pub fn registered(essays: usize, members: Value) -> Self {
        let mut world = Self::empty();
        world.register(essays, members);
        world
    }

    /// A batch with all of its essays, without a prompt.
    pub fn without_prompt(essays: Slot) -> Self {
        let mut world = Self::registered(usize::from(essays), json!({}));
        world.provide(0..essays);
        world
    }

    /// A batch with all of its essays and a prompt.
    pub fn ready(essays: Slot) -> Self {
        let mut world = Self::registered(usize::from(essays), json!({ "student_prompt_ref": prompt_ref() }));
        world.provide(0..essays);
        world
    }

    /// A ready batch whose pipeline `last` is dispatched.
    pub fn running(essays: Slot, last: Phase) -> Self {
        let mut world = Self::ready(essays);
        world.apply(request(last));
        world
    }

    /// A ready batch in which every phase of the pipeline `last` succeeded.
    pub fn completed(essays: Slot, last: Phase) -> Self {
        let mut world = Self::running(essays, last);
        while let Some(phase) = world.in_flight() {
            world.succeed(phase);
        }
        assert_eq!(world.batch().status, BatchStatus::CompletedSuccessfully);
        world
    }

    /// The record.
    pub fn batch(&self) -> &Batch {
        self.batch.as_ref().expect("the batch is registered")
    }

    /// The record of a phase that somebody asked for.
    pub fn record(&self, phase: Phase) -> &PhaseRecord {
        self.batch().phase(phase).expect("somebody asked for the phase")
    }

    /// The status of a phase that somebody asked for.
    pub fn status(&self, phase: Phase) -> PipelineExecutionStatus {
        self.record(phase).state.status()
    }

    /// How the essays came out of a phase: the text's id, `failed` or `-` where it was never run.
    pub fn results(&self, phase: Phase) -> Vec<String> {
        let shown = |result: &EssayResult| match result {
            EssayResult::NotRun => "-".to_owned(),
            EssayResult::Succeeded(output) => output.text_storage_id.clone(),
            EssayResult::Failed { .. } => "failed".to_owned(),
        };
        self.record(phase).results.iter().map(shown).collect()
    }

    /// The attempt that a phase has open.
    pub fn open(&self, phase: Phase) -> &Attempt {
        self.record(phase).state.open_attempt().expect("an open attempt")
    }

    /// The phase that a worker has, if any. There is never more than one.
    pub fn in_flight(&self) -> Option<Phase> {
        let running: Vec<_> = self
            .batch()
            .requested_phases()
            .filter(|(_, record)| record.state.in_flight().is_some())
            .map(|(phase, _)| phase)
            .collect();
        assert!(running.len() <= 1, "{running:?} run at once");
        running.first().copied()
    }

    /// Registers the batch.
    pub fn register(&mut self, essays: usize, members: Value) -> Vec<Effect> {
        let registration = Registration::new(batch_id(), registration_request(essays, members), START);
        self.apply(Input::Register(Box::new(registration.expect("a registration that can be"))))
    }

    /// The owner sends the essays for these slots.
    pub fn provide(&mut self, slots: std::ops::Range<Slot>) -> Vec<Effect> {
        self.apply(Input::ProvideEssays { by: OWNER.to_owned(), essays: new_essays(slots) })
    }

    /// What the next input is told.
    pub fn correlation_id(&self) -> Uuid {
        Uuid::from_u128(0xc0de_0000 + u128::from(self.inputs) + 1)
    }

    fn decide(&self, input: Input) -> Result<Step, Rejected> {
        let now = self.now.plus(TICK_MS);
        let (up_since, origin) = (self.up_since, std::sync::Arc::default());
        let correlation_id = self.correlation_id();
        let (rules, funds) = (&self.rules, self.funds);
        let context = Context { now, up_since, correlation_id, origin: &origin, rules, funds };
        step(self.batch.as_ref(), input, &context)
    }

    /// Takes a step that must be allowed.
    pub fn apply(&mut self, input: Input) -> Vec<Effect> {
        let shown = format!("{input:?}");
        self.try_apply(input).unwrap_or_else(|rejected| panic!("{shown} was refused: {rejected}"))
    }

    /// Takes a step, and holds it to what is true of every step: the same input gives the same step again; a refusal
    /// changes nothing; the version grows by one where anything changed, and where it does not grow nothing changed; no
    /// two phases are in flight; the one that is has its deadline armed and nothing else is; the ledger numbers the
    /// attempts from 1 without holes, each with its end.
    pub fn try_apply(&mut self, input: Input) -> Result<Vec<Effect>, Rejected> {
        let before = self.batch.clone();
        let decided = self.decide(input.clone());
        assert_eq!(self.batch, before, "a step changed what it was given");
        assert_eq!(self.decide(input), decided, "the same input decided something else");
        let step = decided?;
        self.now = self.now.plus(TICK_MS);
        self.inputs += 1;
        let version = before.as_ref().map_or(0, |batch| batch.version);
        if step.batch.version == version {
            assert_eq!(Some(&step.batch), before.as_ref(), "changed without a new version");
            assert_eq!(step.effects, [], "nothing changed and still something is told");
        } else {
            assert_eq!(step.batch.version, version + 1);
            assert_eq!(step.batch.updated_at, self.now);
        }
        self.batch = Some(step.batch);
        for effect in &step.effects {
            self.carry_out(effect);
        }
        let batch = self.batch();
        assert_eq!(batch.violations(), [""; 0], "{batch:#?}");
        for phase in Phase::ALL {
            let ledger = self.ledger.get(&phase).map_or(&[][..], Vec::as_slice);
            assert_eq!(batch.ledger_violations(phase, ledger), [""; 0], "{batch:#?}");
        }
        assert_eq!(self.armed, batch.timers(), "exactly what is in flight has a deadline, and what waits its time");
        Ok(step.effects)
    }

    fn carry_out(&mut self, effect: &Effect) {
        match effect {
            Effect::Publish(outgoing) => self.published.push((**outgoing).clone()),
            Effect::Show(outgoing) => assert!(matches!(outgoing.data, Data::PhaseOutcome(_)), "{outgoing:?}"),
            Effect::Charge { cost, .. } => assert!(cost.total() <= self.funds.available(), "more than there is"),
            Effect::RecordAttempt { phase, attempt } => {
                let attempts = self.ledger.entry(*phase).or_default();
                attempts.push((**attempt).clone());
                assert_eq!(usize::try_from(attempt.number), Ok(attempts.len()), "{phase}: a hole in the ledger");
                assert!(attempt.end.is_some(), "{phase}: an attempt without its end is in the ledger");
            }
            Effect::ArmTimer(timer) => self.armed.push(*timer),
            Effect::DisarmTimer(timer) => {
                let armed = self.armed.iter().position(|armed| armed == timer);
                self.armed.remove(armed.expect("only an armed timer is disarmed"));
            }
            Effect::Recall { phase, attempt } => {
                let last = self.ledger.get(phase).and_then(|attempts| attempts.last());
                assert_eq!(last.map(|last| last.number), Some(*attempt), "only what has just ended is recalled");
            }
            Effect::TellOwner(concluded) => {
                let phase = Phase::from_name(concluded.phase).expect("a phase");
                assert!(!self.record(phase).state.is_running(), "{phase} is told to have ended and runs");
            }
        }
    }

    /// Takes a step that must be refused. The record is then as it was.
    pub fn refuse(&self, input: Input) -> Rejected {
        let shown = format!("{input:?}");
        let mut probe = self.clone();
        let Err(rejected) = probe.try_apply(input) else { panic!("{shown} was allowed and led to {:#?}", probe.batch) };
        assert_eq!(probe.batch, self.batch, "a refusal changed the record");
        rejected
    }

    /// Takes a step that must be allowed and change nothing.
    pub fn change_nothing(&mut self, input: Input) {
        let before = self.batch.clone();
        assert_eq!(self.apply(input), []);
        assert_eq!(self.batch, before);
    }

    /// What a worker that got the command of the open attempt would answer.
    pub fn outcome(&self, phase: Phase, status: BatchStatus, succeeded: &[Slot]) -> PhaseOutcome {
        let attempt = self.open(phase);
        PhaseOutcome {
            phase,
            status,
            processed: succeeded.iter().map(|&slot| processed(phase, attempt.number, slot)).collect(),
            attempt: Some(attempt.number),
            correlation_id: Some(attempt.correlation_id),
            error: None,
            retry_after_ms: None,
            essay_errors: BTreeMap::new(),
        }
    }

    /// All essays of the open attempt come out.
    pub fn succeed(&mut self, phase: Phase) -> Vec<Effect> {
        let slots = self.open(phase).slots.clone();
        let outcome = self.outcome(phase, BatchStatus::CompletedSuccessfully, &slots);
        self.apply(Input::PhaseOutcome(outcome))
    }

    /// Only these come out.
    pub fn succeed_in_part(&mut self, phase: Phase, succeeded: &[Slot]) -> Vec<Effect> {
        let outcome = self.outcome(phase, BatchStatus::CompletedWithFailures, succeeded);
        self.apply(Input::PhaseOutcome(outcome))
    }

    /// None comes out.
    pub fn fail(&mut self, phase: Phase) -> Vec<Effect> {
        let error = Some(provider_down());
        let outcome = PhaseOutcome { error, ..self.outcome(phase, BatchStatus::FailedCritically, &[]) };
        self.apply(Input::PhaseOutcome(outcome))
    }

    /// The attempts in the ledger of a phase, newest first, as the store gives them.
    pub fn newest_attempts(&self, phase: Phase) -> Vec<Arc<Attempt>> {
        self.ledger.get(&phase).into_iter().flatten().rev().cloned().map(Arc::new).collect()
    }
}

/// A passing fault.
pub fn provider_down() -> PhaseError {
    PhaseError::new(ErrorCode::LlmProviderUnavailable, Category::Transient, "the provider is down")
}

/// What an essay comes out of a phase with. The text's id tells where it comes from.
pub fn processed(phase: Phase, attempt: u32, slot: Slot) -> EssayRef {
    EssayRef {
        essay_id: essay_id(slot),
        text_storage_id: text_id(phase, attempt, slot),
        spellcheck_metrics: (phase == Phase::Spellcheck).then(|| json!({ "corrections": slot })),
    }
}

/// The id of the text that an attempt made of an essay.
pub fn text_id(phase: Phase, attempt: u32, slot: Slot) -> String {
    format!("{phase}-{attempt}-of-{slot}")
}

/// The essays for these slots, as they arrive.
pub fn new_essays(slots: std::ops::Range<Slot>) -> Vec<NewEssay> {
    let essay =
        |slot| NewEssay { file_name: format!("file-{slot}.txt"), text_storage_id: format!("original-of-{slot}") };
    slots.map(essay).collect()
}

/// A command, as far as the tests look at it.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// The phase.
    pub phase: Phase,
    /// The ids of the essays.
    pub essay_ids: Vec<String>,
    /// The ids of their texts.
    pub text_ids: Vec<String>,
    /// The envelope's metadata.
    pub metadata: Value,
    /// The correlation id.
    pub correlation_id: Uuid,
    /// The whole message.
    pub data: Value,
}

/// The messages among the effects.
pub fn published(effects: &[Effect]) -> Vec<&Outgoing> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Publish(outgoing) => Some(&**outgoing),
            Effect::Show(_)
            | Effect::Charge { .. }
            | Effect::RecordAttempt { .. }
            | Effect::ArmTimer(_)
            | Effect::DisarmTimer(_)
            | Effect::Recall { .. }
            | Effect::TellOwner(_) => None,
        })
        .collect()
}

/// The topics of the messages among the effects.
pub fn topics(effects: &[Effect]) -> Vec<Topic> {
    published(effects).iter().map(|outgoing| outgoing.data.topic()).collect()
}

/// The commands among the effects.
pub fn commands(effects: &[Effect]) -> Vec<Command> {
    published(effects).into_iter().filter_map(command).collect()
}

/// The only command among the effects.
pub fn only_command(effects: &[Effect]) -> Command {
    let commands = commands(effects);
    assert_eq!(commands.len(), 1, "{commands:#?}");
    commands[0].clone()
}

fn command(outgoing: &Outgoing) -> Option<Command> {
    let phase = match outgoing.data {
        Data::Spellcheck(_) => Phase::Spellcheck,
        Data::CjAssessment(_) => Phase::CjAssessment,
        Data::Nlp(_) => Phase::Nlp,
        Data::AiFeedback(_) => Phase::AiFeedback,
        Data::Registered(_)
        | Data::ContentProvisioned(_)
        | Data::PhaseSkipped(_)
        | Data::PipelineCompleted(_)
        | Data::StudentMatching(_)
        | Data::AssociationsConfirmed(_)
        | Data::EssaysReady(_)
        | Data::Notification(_)
        | Data::PipelineDenied(_)
        | Data::PhaseOutcome(_) => return None,
    };
    let data = serde_json::to_value(&outgoing.data).expect("a command is JSON");
    let members = |name: &str| -> Vec<String> {
        let essays = data["essays_to_process"].as_array().expect("essays").iter();
        essays.map(|essay| essay[name].as_str().expect("a string").to_owned()).collect()
    };
    Some(Command {
        phase,
        essay_ids: members("essay_id"),
        text_ids: members("text_storage_id"),
        metadata: json!(outgoing.metadata),
        correlation_id: outgoing.correlation_id,
        data: data.clone(),
    })
}

/// The completions that are announced among the effects.
pub fn completions(effects: &[Effect]) -> Vec<&BatchPipelineCompleted> {
    published(effects)
        .into_iter()
        .filter_map(|outgoing| match &outgoing.data {
            Data::PipelineCompleted(completed) => Some(completed),
            Data::Registered(_)
            | Data::ContentProvisioned(_)
            | Data::PhaseSkipped(_)
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
        })
        .collect()
}

/// The only completion among the effects.
pub fn only_completion(effects: &[Effect]) -> &BatchPipelineCompleted {
    let completions = completions(effects);
    assert_eq!(completions.len(), 1, "{completions:#?}");
    completions[0]
}

/// The announcements among the effects that all slots are filled.
pub fn provisionings(effects: &[Effect]) -> Vec<&BatchContentProvisioningCompleted> {
    published(effects)
        .into_iter()
        .filter_map(|outgoing| match &outgoing.data {
            Data::ContentProvisioned(provisioned) => Some(provisioned),
            Data::Registered(_)
            | Data::PhaseSkipped(_)
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
        })
        .collect()
}

/// The timers that are armed, and those that are disarmed.
pub fn timers(effects: &[Effect]) -> (Vec<Timer>, Vec<Timer>) {
    let (mut armed, mut disarmed) = (Vec::new(), Vec::new());
    for effect in effects {
        match effect {
            Effect::ArmTimer(timer) => armed.push(*timer),
            Effect::DisarmTimer(timer) => disarmed.push(*timer),
            Effect::Publish(_)
            | Effect::Show(_)
            | Effect::Charge { .. }
            | Effect::RecordAttempt { .. }
            | Effect::Recall { .. }
            | Effect::TellOwner(_) => {}
        }
    }
    (armed, disarmed)
}

/// The attempts that are added to the ledger.
pub fn recorded(effects: &[Effect]) -> Vec<(Phase, u32)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::RecordAttempt { phase, attempt } => Some((*phase, attempt.number)),
            Effect::Publish(_)
            | Effect::Show(_)
            | Effect::Charge { .. }
            | Effect::ArmTimer(_)
            | Effect::DisarmTimer(_)
            | Effect::Recall { .. }
            | Effect::TellOwner(_) => None,
        })
        .collect()
}
