//! What can happen to a batch, as it is drawn: who and which, in terms of what happened before, made concrete when its
//! turn comes.

use std::collections::BTreeMap;
use std::fmt;

use proptest::prelude::*;
use proptest::sample::select;
use rephase::contract::requests::PromptPayload;
use rephase::contract::{BatchStatus, ErrorCode, EssayRef, StorageReferences, Text};
use rephase::domain::step::{
    Done, NewEssay, NewLease, PhaseOutcome, Registration, RetryRequest, ReturnedEssay, ReturnedText, ReturnedWork,
    Selection,
};
use rephase::domain::{Batch, Category, Input, Phase, PhaseError, RetryPolicy, Rules, Slot, TimerKind};
use serde_json::json;
use uuid::Uuid;

use crate::common::world::{
    OWNER, START, STRANGER, World, batch_id, essay_id, prompt_ref, registration_request, rules,
};

/// The most essays of a batch; enough for some that fail, some that come out and some that nobody asks for.
const MOST_ESSAYS: Slot = 4;
/// The most happenings of a sequence, besides those that make the batch ready.
const MOST_HAPPENINGS: usize = 100;

/// A life of a batch.
#[derive(Clone)]
pub struct Sequence {
    max_attempts: u32,
    max_user_retries: u32,
    retry_cooldown_ms: u64,
    pub happenings: Vec<Happening>,
}

/// One line for each happening, so that the shortest failure can be read.
impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max_attempts, max_user_retries, retry_cooldown_ms, happenings } = self;
        write!(f, "{max_attempts} attempts, {max_user_retries} retries, every {retry_cooldown_ms} ms:")?;
        happenings.iter().enumerate().try_for_each(|(at, happening)| write!(f, "\n  {}. {happening:?}", at + 1))
    }
}

impl Sequence {
    pub fn rules(&self) -> Rules {
        let retry = std::array::from_fn(|_| RetryPolicy { max_attempts: self.max_attempts, ..RetryPolicy::default() });
        let (max_user_retries, retry_cooldown_ms) = (self.max_user_retries, self.retry_cooldown_ms);
        Rules { retry, max_user_retries, retry_cooldown_ms, ..rules() }
    }
}

/// One thing that happens. `back` counts from the newest: 0 is the last command, or message, that there was.
#[derive(Debug, Clone)]
pub enum Happening {
    Register {
        essays: Slot,
        prompt: bool,
    },
    Essays {
        stranger: bool,
        count: Slot,
    },
    Provisioned {
        slots: Vec<Slot>,
    },
    Amend {
        stranger: bool,
        empty: bool,
    },
    Pipeline {
        stranger: bool,
        last: Phase,
        prompt: Prompt,
    },
    /// Of that phase, or with `asked` of one of those that somebody asked for.
    Retry {
        stranger: bool,
        phase: Phase,
        asked: bool,
        which: Which,
        force: bool,
        downstream: bool,
    },
    Cancel {
        stranger: bool,
    },
    /// Workers speak while they have something to do, or with `late` at any time.
    Started {
        back: usize,
        ahead: u32,
        late: bool,
    },
    Answered {
        back: usize,
        answer: Answer,
        late: bool,
    },
    /// A worker of somebody else's gets an attempt.
    Leased {
        back: usize,
        ahead: u32,
        seconds: u16,
    },
    /// It lives, and has done so many.
    Extended {
        back: usize,
        wrong: bool,
        done: Option<u32>,
    },
    /// It brings something: what came out, or failed in that way; of the whole where there is a category. With `odd` one
    /// essay too few or too many.
    Returned {
        back: usize,
        wrong: bool,
        came_out: [bool; MOST_ESSAYS as usize],
        failure: Option<Category>,
        odd: bool,
    },
    /// A message that came before comes again.
    Again {
        back: usize,
    },
    /// Everybody waits until the timer that is armed is due.
    Due,
    /// A timer's message at a time when no timer says it.
    Untimely {
        kind: TimerKind,
        phase: Phase,
        attempt: u32,
    },
    Later {
        seconds: u32,
    },
    ClockSetBack {
        seconds: u32,
    },
    Restart,
    /// The next request comes with the correlation id of the one before.
    SameId,
}

/// The `prompt_payload` of a pipeline request.
#[derive(Debug, Clone, Copy)]
pub enum Prompt {
    None,
    Reference,
    Assignment,
    Both,
    Neither,
    EmptyReference,
    EmptyAssignment,
}

/// The essays of a retry.
#[derive(Debug, Clone)]
pub enum Which {
    Whole,
    Failed,
    Named(Vec<Slot>),
}

/// What a worker says about an attempt.
#[derive(Debug, Clone)]
pub struct Answer {
    status: BatchStatus,
    came_out: [bool; MOST_ESSAYS as usize],
    foreign_essay: bool,
    number: Echo,
    id: Echo,
    error: Option<Category>,
    essay_errors: [Option<Category>; MOST_ESSAYS as usize],
    retry_after_ms: Option<u64>,
}

/// Whether a worker says which attempt it means.
#[derive(Debug, Clone, Copy)]
enum Echo {
    Right,
    Missing,
    Wrong,
}

/// A command, as a worker has it.
#[derive(Debug, Clone)]
pub struct Order {
    pub phase: Phase,
    pub attempt: u32,
    pub correlation_id: Uuid,
}

/// What happened before.
#[derive(Debug, Default)]
pub struct Past {
    pub orders: Vec<Order>,
    pub inputs: Vec<Input>,
    /// The leases that were asked for: phase, attempt, token.
    leases: Vec<(Phase, u32, Uuid)>,
    /// How many outcomes there were, so that each brings texts of its own.
    outcomes: u32,
}

impl Happening {
    /// The input that this is now; none where nobody sends one.
    pub fn input(&self, past: &mut Past, world: &World) -> Option<Input> {
        match self {
            Self::Register { essays, prompt } => Some(registration(*essays, *prompt)),
            Self::Essays { stranger, count } => {
                let essay = |at| NewEssay { file_name: format!("{at}.txt"), text_storage_id: format!("sent-{at}") };
                let sent = u64::try_from(past.inputs.len()).expect("a few") * u64::from(MOST_ESSAYS);
                let essays = (0..u64::from(*count)).map(|at| essay(sent + at)).collect();
                Some(Input::ProvideEssays { by: by(*stranger), essays })
            }
            Self::Provisioned { slots } => {
                let essays = slots.iter().map(|slot| essay(*slot, format!("provisioned-{slot}"))).collect();
                Some(Input::ContentProvisioned { essays })
            }
            Self::Amend { stranger, empty } => {
                let student_prompt_ref = if *empty { StorageReferences::default() } else { prompt_ref() };
                Some(Input::AmendPrompt { by: by(*stranger), student_prompt_ref })
            }
            Self::Pipeline { stranger, last, prompt } => {
                Some(Input::RequestPipeline { by: by(*stranger), last: *last, prompt: prompt.payload() })
            }
            Self::Retry { stranger, phase, asked, which, force, downstream } => {
                let phases: Vec<_> = world.batch.iter().flat_map(Batch::requested_phases).collect();
                let phase = match phases.len() {
                    number @ 1.. if *asked => phases[phase.index() % number].0,
                    _ => *phase,
                };
                let selection = match which {
                    Which::Whole => Selection::Whole,
                    Which::Failed => Selection::Failed,
                    Which::Named(slots) => Selection::Essays(slots.iter().copied().map(essay_id).collect()),
                };
                let (by, reason) = (by(*stranger), "once more".to_owned());
                let (force, downstream) = (*force, *downstream);
                Some(Input::RetryPhase(RetryRequest { by, phase, selection, force, downstream, reason }))
            }
            Self::Cancel { stranger } => Some(Input::Cancel { by: by(*stranger), reason: "enough".to_owned() }),
            Self::Started { late, .. } | Self::Answered { late, .. } if !late && !is_at_work(world) => None,
            Self::Started { back, ahead, .. } => {
                let order = newest(&past.orders, *back)?;
                Some(Input::PhaseStarted { phase: order.phase, attempt: order.attempt + ahead })
            }
            Self::Answered { back, answer, .. } => {
                past.outcomes += 1;
                Some(answer.to(newest(&past.orders, *back)?, world.batch().essays.len(), past.outcomes))
            }
            Self::Leased { ahead: 0, .. } if !is_at_work(world) || is_leased(world) => None,
            Self::Extended { wrong: false, .. } | Self::Returned { wrong: false, .. } if !is_leased(world) => None,
            Self::Leased { back, ahead, seconds } => {
                let order = newest(&past.orders, *back)?;
                let (phase, attempt) = (order.phase, order.attempt + ahead);
                let token = Uuid::from_u128(0x1ea5_0000 + u128::try_from(past.leases.len()).expect("a few"));
                past.leases.push((phase, attempt, token));
                let lease_ms = u64::from(*seconds) * 1_000;
                let lease = NewLease { worker_id: "somebody".to_owned(), token, lease_ms };
                Some(Input::PhaseLeased { phase, attempt, lease })
            }
            Self::Extended { back, wrong, done } => {
                let (phase, attempt, token) = *newest(&past.leases, *back)?;
                let token = if *wrong { Uuid::from_u128(1) } else { token };
                Some(Input::LeaseExtended { phase, attempt, token, done: done.map(Done::Count) })
            }
            Self::Returned { back, wrong, came_out, failure, odd } => {
                past.outcomes += 1;
                let (phase, attempt, token) = *newest(&past.leases, *back)?;
                let token = if *wrong { Uuid::from_u128(1) } else { token };
                let error = |category| PhaseError::new(ErrorCode::ServiceUnavailable, category, "down");
                let work = if let Some(category) = failure {
                    ReturnedWork::Failure { error: error(*category), retry_after_ms: Some(5_000) }
                } else {
                    let in_flight = world.batch().phase_state(phase).and_then(|state| state.in_flight());
                    let slots = in_flight.map_or_else(Vec::new, |(attempt, _)| attempt.slots.clone());
                    let returned = |slot: Slot| {
                        let text = format!("{phase}-of-{slot}-{}", past.outcomes);
                        let text = ReturnedText { text_storage_id: Some(text), metrics: None };
                        let came_out = came_out.get(usize::from(slot)).is_some_and(|came_out| *came_out);
                        let result = if came_out { Ok(text) } else { Err(error(Category::Permanent)) };
                        ReturnedEssay { essay_id: essay_id(slot), result }
                    };
                    let mut essays: Vec<_> = slots.into_iter().map(returned).collect();
                    if *odd && essays.pop().is_none() {
                        essays.push(returned(0));
                    }
                    ReturnedWork::Essays(essays)
                };
                Some(Input::LeaseReturned { phase, attempt, token, work })
            }
            Self::Again { back } => newest(&past.inputs, *back).cloned(),
            Self::Due => world.armed.first().map(|timer| timer.input()),
            Self::Untimely { kind: TimerKind::Deadline, phase, attempt } => {
                Some(Input::DeadlineExpired { phase: *phase, attempt: *attempt })
            }
            Self::Untimely { kind: TimerKind::Retry, phase, attempt } => {
                Some(Input::RetryDue { phase: *phase, attempt: *attempt })
            }
            Self::Untimely { kind: TimerKind::StudentValidation, .. } => Some(Input::StudentValidationExpired),
            Self::Later { .. } | Self::ClockSetBack { .. } | Self::Restart | Self::SameId => None,
        }
    }
}

impl Answer {
    fn to(&self, order: &Order, essays: usize, serial: u32) -> Input {
        let phase = order.phase;
        let text = |slot: Slot| essay(slot, format!("{phase}-of-{slot}-{serial}"));
        let slots = (0..MOST_ESSAYS).zip(self.came_out).take(essays);
        let mut processed: Vec<_> = slots.filter(|(_, came_out)| *came_out).map(|(slot, _)| text(slot)).collect();
        if self.foreign_essay {
            processed.push(text(MOST_ESSAYS));
        }
        let error = |category: Category| PhaseError::new(ErrorCode::ServiceUnavailable, category, "down");
        let essay_errors = (0..MOST_ESSAYS).zip(self.essay_errors).take(essays);
        let essay_errors: BTreeMap<_, _> =
            essay_errors.filter_map(|(slot, category)| Some((essay_id(slot), error(category?)))).collect();
        Input::PhaseOutcome(PhaseOutcome {
            phase,
            status: self.status,
            processed,
            attempt: self.number.of(order.attempt, order.attempt + 1),
            correlation_id: self.id.of(order.correlation_id, Uuid::from_u128(1)),
            error: self.error.map(error),
            retry_after_ms: self.retry_after_ms,
            essay_errors,
        })
    }
}

impl Echo {
    fn of<T>(self, right: T, wrong: T) -> Option<T> {
        match self {
            Self::Right => Some(right),
            Self::Missing => None,
            Self::Wrong => Some(wrong),
        }
    }
}

impl Prompt {
    fn payload(self) -> Option<PromptPayload> {
        let assignment = |id| Some(Text::new(id).expect("short enough"));
        let (assignment_id, cms_prompt_ref) = match self {
            Self::None => return None,
            Self::Reference => (None, Some(prompt_ref())),
            Self::Assignment => (assignment("assignment-1"), None),
            Self::Both => (assignment("assignment-1"), Some(prompt_ref())),
            Self::Neither => (None, None),
            Self::EmptyReference => (None, Some(StorageReferences::default())),
            Self::EmptyAssignment => (assignment(""), None),
        };
        Some(PromptPayload { assignment_id, cms_prompt_ref })
    }
}

fn registration(essays: Slot, prompt: bool) -> Input {
    let members = if prompt { json!({ "student_prompt_ref": prompt_ref() }) } else { json!({}) };
    let registration = Registration::new(batch_id(), registration_request(usize::from(essays), members), START);
    Input::Register(Box::new(registration.expect("a registration that can be")))
}

fn by(stranger: bool) -> String {
    if stranger { STRANGER } else { OWNER }.to_owned()
}

fn essay(slot: Slot, text_storage_id: String) -> EssayRef {
    EssayRef { essay_id: essay_id(slot), text_storage_id, spellcheck_metrics: None }
}

fn is_at_work(world: &World) -> bool {
    world.armed.iter().any(|timer| timer.kind == TimerKind::Deadline)
}

fn is_leased(world: &World) -> bool {
    let phases = world.batch.iter().flat_map(Batch::requested_phases);
    phases.filter_map(|(_, record)| record.state.in_flight()).any(|(attempt, _)| attempt.lease.is_some())
}

fn newest<T>(all: &[T], back: usize) -> Option<&T> {
    all.iter().rev().nth(back)
}

/// Lives of batches; most of them are ready soon, so that most of what happens happens to phases.
pub fn sequences() -> impl Strategy<Value = Sequence> {
    let beginning = (1..=MOST_ESSAYS, prop::bool::weighted(0.9), 0..20_u8, 0..MOST_ESSAYS).prop_map(beginning);
    let rest = prop::collection::vec(happening(), 1..MOST_HAPPENINGS);
    // Sometimes users can retry only twice, or have to wait between two retries.
    let max_user_retries = prop_oneof![5 => Just(50_u32), 1 => Just(2_u32)];
    let retry_cooldown_ms = prop_oneof![5 => Just(0_u64), 1 => Just(5_000_u64)];
    (1..=3_u32, max_user_retries, retry_cooldown_ms, beginning, rest).prop_map(
        |(max_attempts, max_user_retries, retry_cooldown_ms, mut happenings, rest)| {
            happenings.extend(rest);
            Sequence { max_attempts, max_user_retries, retry_cooldown_ms, happenings }
        },
    )
}

/// Most batches get their essays at once, some in two pieces or from the lifecycle service, and some from nobody.
fn beginning((essays, prompt, way, first): (Slot, bool, u8, Slot)) -> Vec<Happening> {
    let registered = Happening::Register { essays, prompt };
    let sent = |count| Happening::Essays { stranger: false, count };
    match way {
        0..14 => vec![registered, sent(essays)],
        14..17 => vec![registered, sent(first.min(essays)), sent(essays - first.min(essays))],
        17..19 => vec![registered, Happening::Provisioned { slots: (0..essays).rev().collect() }],
        _ => Vec::new(),
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    // Strangers, late messages and odd ones are rare, or nothing would ever complete.
    let stranger = || prop::bool::weighted(0.05);
    let late = || prop::bool::weighted(0.05);
    let phase = || select(Phase::ALL.to_vec());
    let slot = || 0..=MOST_ESSAYS;
    let rarely = || prop::bool::weighted(0.05);
    let failure = prop_oneof![
        6 => Just(None),
        1 => Just(Some(Category::Permanent)),
        1 => Just(Some(Category::Transient)),
    ];
    let back = || prop_oneof![14 => Just(0_usize), 1 => 1..6_usize];
    let prompt = prop_oneof![
        8 => Just(Prompt::None),
        2 => select(vec![Prompt::Reference, Prompt::Assignment]),
        1 => select(vec![Prompt::Both, Prompt::Neither, Prompt::EmptyReference, Prompt::EmptyAssignment]),
    ];
    let which = prop_oneof![
        3 => Just(Which::Whole),
        2 => Just(Which::Failed),
        3 => prop::collection::vec(0..MOST_ESSAYS - 1, 0..=3).prop_map(Which::Named),
    ];
    let kind = select(vec![TimerKind::Deadline, TimerKind::Retry, TimerKind::StudentValidation]);
    let provisioned = prop_oneof![
        (1..=MOST_ESSAYS).prop_map(|essays| (0..essays).rev().collect()),
        prop::collection::vec(slot(), 0..=4),
    ];
    prop_oneof![
        1 => (1..=MOST_ESSAYS, any::<bool>()).prop_map(|(essays, prompt)| Happening::Register { essays, prompt }),
        2 => (stranger(), slot()).prop_map(|(stranger, count)| Happening::Essays { stranger, count }),
        1 => provisioned.prop_map(|slots| Happening::Provisioned { slots }),
        1 => (stranger(), any::<bool>()).prop_map(|(stranger, empty)| Happening::Amend { stranger, empty }),
        12 => (stranger(), phase(), prompt)
            .prop_map(|(stranger, last, prompt)| Happening::Pipeline { stranger, last, prompt }),
        20 => (stranger(), phase(), prop::bool::weighted(0.9), which, prop::bool::weighted(0.7), any::<bool>()).prop_map(
            |(stranger, phase, asked, which, force, downstream)| {
                Happening::Retry { stranger, phase, asked, which, force, downstream }
            }
        ),
        2 => stranger().prop_map(|stranger| Happening::Cancel { stranger }),
        7 => (back(), prop_oneof![9 => Just(0_u32), 1 => Just(1_u32)], late())
            .prop_map(|(back, ahead, late)| Happening::Started { back, ahead, late }),
        34 => (back(), answer(), late()).prop_map(|(back, answer, late)| Happening::Answered { back, answer, late }),
        12 => (back(), prop_oneof![9 => Just(0_u32), 1 => Just(1_u32)], 1..200_u16)
            .prop_map(|(back, ahead, seconds)| Happening::Leased { back, ahead, seconds }),
        16 => (back(), rarely(), prop::option::of(0..=u32::from(MOST_ESSAYS)))
            .prop_map(|(back, wrong, done)| Happening::Extended { back, wrong, done }),
        14 => (back(), rarely(), any::<[bool; MOST_ESSAYS as usize]>(), failure, rarely()).prop_map(
            |(back, wrong, came_out, failure, odd)| Happening::Returned { back, wrong, came_out, failure, odd }
        ),
        4 => (0..8_usize).prop_map(|back| Happening::Again { back }),
        10 => Just(Happening::Due),
        2 => (kind, phase(), 0..4_u32)
            .prop_map(|(kind, phase, attempt)| Happening::Untimely { kind, phase, attempt }),
        2 => (1..400_u32).prop_map(|seconds| Happening::Later { seconds }),
        2 => (1..400_u32).prop_map(|seconds| Happening::ClockSetBack { seconds }),
        3 => Just(Happening::Restart),
        1 => Just(Happening::SameId),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let status = prop_oneof![
        6 => Just(BatchStatus::CompletedSuccessfully),
        3 => Just(BatchStatus::CompletedWithFailures),
        2 => select(BatchStatus::ALL.to_vec()),
    ];
    let came_out = prop_oneof![3 => Just([true; MOST_ESSAYS as usize]), 2 => any::<[bool; MOST_ESSAYS as usize]>()];
    let echo = || prop_oneof![16 => Just(Echo::Right), 3 => Just(Echo::Missing), 1 => Just(Echo::Wrong)];
    let category =
        || prop_oneof![2 => Just(None), 2 => Just(Some(Category::Permanent)), 1 => Just(Some(Category::Transient))];
    let essay_errors = prop_oneof![
        1 => Just([None; MOST_ESSAYS as usize]),
        1 => [category(), category(), category(), category()],
    ];
    let retry_after_ms = prop_oneof![8 => Just(None), 1 => (0..90_000_u64).prop_map(Some), 1 => Just(Some(u64::MAX))];
    (status, came_out, prop::bool::weighted(0.03), echo(), echo(), category(), essay_errors, retry_after_ms).prop_map(
        |(status, came_out, foreign_essay, number, id, error, essay_errors, retry_after_ms)| Answer {
            status,
            came_out,
            foreign_essay,
            number,
            id,
            error,
            essay_errors,
            retry_after_ms,
        },
    )
}
