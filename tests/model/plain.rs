//! What a batch should be after each input, in plain maps: one entry a phase and one mark an essay, no records of attempts
//! and no effects but what others are told.

use std::collections::{BTreeMap, BTreeSet};

use rephase::contract::requests::PromptPayload;
use rephase::contract::{BatchStatus, EssayRef, PipelineExecutionStatus as Status};
use rephase::domain::step::{Done, NewEssay, NewLease, PhaseOutcome, RetryRequest, ReturnedWork, Selection};
use rephase::domain::{AttemptOutcome, Category, Input, Phase, Rules, Slot, TimerKind};
use uuid::Uuid;

use crate::common::world::{OWNER, essay_id};

/// What should come of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Refused,
    Nothing,
    Changed,
}

use Verdict::{Changed, Nothing, Refused};

/// How an essay came out of a phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    NotRun,
    /// With this text. The numbers say what was made when: this, and what the phases before had made by then.
    Out {
        text: String,
        made: u32,
        from: Vec<u32>,
    },
    /// With what the phases before had made by then.
    Failed {
        from: Vec<u32>,
    },
}

/// When a phase is woken: at a time between these two, which are the same where nothing is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alarm {
    pub kind: TimerKind,
    pub earliest: u64,
    pub latest: u64,
}

/// A phase that somebody asked for.
#[derive(Debug, Clone)]
pub struct PlainPhase {
    pub status: Status,
    pub attempts: u32,
    pub marks: Vec<Mark>,
    /// The slots that the next attempt is for, all where there is none.
    pub only: Option<BTreeSet<Slot>>,
    /// What a worker has, or is about to get, and what went in.
    pub in_flight: Option<BTreeMap<Slot, Vec<u32>>>,
    /// Whether a worker said that it began since the program runs; what it said before is forgotten by a restart.
    pub began: bool,
    /// What the worker has it by, where it is somebody else's.
    pub lease: Option<PlainLease>,
    pub in_a_row: u32,
    pub downstream: bool,
    pub alarm: Option<Alarm>,
    pub user_retries: u32,
    pub retried_at: Option<u64>,
}

/// What a worker of somebody else's has an attempt by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainLease {
    pub token: Uuid,
    pub lease_ms: u64,
    /// When it ends whatever the worker says.
    pub until: u64,
}

/// What others are told about a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The commands: phase, attempt, and the texts by slot.
    pub commands: Vec<(Phase, u32, BTreeMap<Slot, String>)>,
    /// The attempts that ended, with how many essays came out and how many did not.
    pub ended: Vec<(Phase, u32, AttemptOutcome, u32, u32)>,
    /// The end of a run: its status, the completed phases, and how many essays came out of all phases, and how many not.
    pub completions: Vec<(BatchStatus, Vec<Phase>, u32, u32)>,
    /// The phases that are left out.
    pub left_out: Vec<Phase>,
    pub registered: bool,
    pub provisioned: bool,
}

/// A batch.
#[derive(Debug, Clone)]
pub struct Plain {
    pub rules: Rules,
    /// The texts that arrived, by slot; no slots before the registration.
    pub texts: Vec<Option<String>>,
    pub has_reference: bool,
    pub has_assignment: bool,
    pub phases: BTreeMap<Phase, PlainPhase>,
    pub running: bool,
    pub queue: BTreeSet<Phase>,
    pub status: BatchStatus,
    /// The correlation id of each command that was sent; they are found out, not foretold.
    pub ids: BTreeMap<(Phase, u32), Uuid>,
    /// How many inputs there were, to tell older results from newer ones.
    inputs: u32,
    now: u64,
    up_since: u64,
    pub told: Told,
}

/// What a phase needs directly (contract, Phases and pipelines).
pub const fn needs(phase: Phase) -> &'static [Phase] {
    match phase {
        Phase::Spellcheck => &[],
        Phase::CjAssessment | Phase::Nlp => &[Phase::Spellcheck],
        Phase::AiFeedback => &[Phase::Spellcheck, Phase::Nlp],
    }
}

/// The phases that need this one. With these four phases the direct ones are all there are.
const fn below(phase: Phase) -> &'static [Phase] {
    match phase {
        Phase::Spellcheck => &[Phase::CjAssessment, Phase::Nlp, Phase::AiFeedback],
        Phase::Nlp => &[Phase::AiFeedback],
        Phase::CjAssessment | Phase::AiFeedback => &[],
    }
}

const fn is_completed(status: Status) -> bool {
    matches!(status, Status::CompletedSuccessfully | Status::CompletedWithPartialSuccess)
}

impl Plain {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            texts: Vec::new(),
            has_reference: false,
            has_assignment: false,
            phases: BTreeMap::new(),
            running: false,
            queue: BTreeSet::new(),
            status: BatchStatus::AwaitingContentValidation,
            ids: BTreeMap::new(),
            inputs: 0,
            now: 0,
            up_since: 0,
            told: Told::default(),
        }
    }

    pub const fn is_registered(&self) -> bool {
        !self.texts.is_empty()
    }

    /// The program starts again.
    pub fn restart(&mut self) {
        self.phases.values_mut().for_each(|phase| phase.began = false);
    }

    /// What should come of `input`, where `registration` says how many essays one is for and whether it has a prompt.
    /// Where it is refused, nothing of this counts.
    pub fn take(&mut self, input: &Input, registration: Option<(Slot, bool)>, now: u64, up_since: u64) -> Verdict {
        (self.now, self.up_since, self.told) = (now, up_since, Told::default());
        self.inputs += 1;
        if !self.is_registered() {
            return registration.map_or(Refused, |(essays, has_prompt)| self.register(essays, has_prompt));
        }
        match input {
            Input::EssaysReady if self.texts.iter().all(Option::is_some) => Nothing,
            // A guest batch has no students to wait for.
            Input::Register(_)
            | Input::EssaysReady
            | Input::AssociationsConfirmed { .. }
            | Input::DenyPipeline { .. }
            | Input::StudentValidationExpired => Refused,
            Input::ProvideEssays { by, essays } => self.provide(by, essays),
            Input::ContentProvisioned { essays } => self.content_provisioned(essays),
            Input::AmendPrompt { by, .. } if by != OWNER || !self.phases.is_empty() => Refused,
            Input::AmendPrompt { student_prompt_ref, .. } => {
                self.has_reference = !student_prompt_ref.references.is_empty();
                Changed
            }
            Input::RequestPipeline { by, last, prompt } => self.pipeline(by, *last, prompt.as_ref()),
            Input::RetryPhase(request) => self.retry(request),
            Input::Cancel { by, .. } => self.cancel(by),
            Input::PhaseStarted { phase, attempt } => self.started(*phase, *attempt),
            Input::PhaseLeased { phase, attempt, lease } => self.leased(*phase, *attempt, lease),
            Input::LeaseExtended { phase, attempt, token, done } => {
                self.extended(*phase, *attempt, *token, done.as_ref())
            }
            Input::LeaseReturned { phase, attempt, token, work } => self.returned(*phase, *attempt, *token, work),
            Input::PhaseOutcome(outcome) => self.outcome(outcome),
            Input::DeadlineExpired { phase, attempt } => self.expired(*phase, *attempt),
            Input::RetryDue { phase, attempt } => self.tried_again(*phase, *attempt),
        }
    }

    fn register(&mut self, essays: Slot, has_prompt: bool) -> Verdict {
        (self.told.registered, self.has_reference) = (true, has_prompt);
        self.texts = vec![None; usize::from(essays)];
        Changed
    }

    fn provide(&mut self, by: &str, essays: &[NewEssay]) -> Verdict {
        let empty: Vec<usize> = (0..self.texts.len()).filter(|&slot| self.texts[slot].is_none()).collect();
        if by != OWNER || essays.len() > empty.len() {
            return Refused;
        }
        for (slot, essay) in empty.iter().zip(essays) {
            self.texts[*slot] = Some(essay.text_storage_id.clone());
        }
        if essays.is_empty() {
            return Nothing;
        }
        if essays.len() == empty.len() {
            self.status = BatchStatus::ReadyForPipelineExecution;
            self.told.provisioned = true;
        }
        Changed
    }

    fn content_provisioned(&mut self, essays: &[EssayRef]) -> Verdict {
        if self.texts.iter().all(Option::is_some) {
            return Nothing;
        }
        let sent: BTreeMap<&str, &str> =
            essays.iter().map(|essay| (essay.essay_id.as_str(), essay.text_storage_id.as_str())).collect();
        let texts: Option<Vec<_>> = self.slots().map(|slot| sent.get(essay_id(slot).as_str()).copied()).collect();
        match texts {
            Some(texts) if essays.len() == self.texts.len() => {
                self.texts = texts.into_iter().map(|text| Some(text.to_owned())).collect();
                self.status = BatchStatus::ReadyForPipelineExecution;
                Changed
            }
            Some(_) | None => Refused,
        }
    }

    fn pipeline(&mut self, by: &str, last: Phase, prompt: Option<&PromptPayload>) -> Verdict {
        if by != OWNER || self.running || self.texts.iter().any(Option::is_none) {
            return Refused;
        }
        match prompt.map(|prompt| (prompt.assignment_id.as_ref(), prompt.cms_prompt_ref.as_ref())) {
            None => {}
            Some((Some(assignment), None)) if !assignment.as_str().is_empty() => self.has_assignment = true,
            Some((None, Some(reference))) if !reference.references.is_empty() => self.has_reference = true,
            Some(_) => return Refused,
        }
        let mut wanted: BTreeSet<Phase> = needs(last).iter().copied().collect();
        wanted.insert(last);
        (self.told.left_out, wanted) = {
            let (completed, open): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|phase| self.has_completed(*phase));
            (completed, open.into_iter().collect())
        };
        let has_prompt = self.has_reference || self.has_assignment;
        if !has_prompt && wanted.iter().any(|phase| *phase != Phase::Spellcheck) {
            return Refused;
        }
        for &phase in &wanted {
            self.wait_again(phase, None);
        }
        self.start(wanted);
        Changed
    }

    fn retry(&mut self, request: &RetryRequest) -> Verdict {
        let RetryRequest { by, phase, selection, force, downstream, reason: _ } = request;
        let phase = *phase;
        let through: BTreeSet<Slot> = self.slots().filter(|slot| self.goes_in(phase, *slot).is_some()).collect();
        let Some(record) = self.phases.get(&phase) else { return Refused };
        let came_out = |slot: &Slot| matches!(record.marks[usize::from(*slot)], Mark::Out { .. });
        let only: Option<BTreeSet<Slot>> = match selection {
            Selection::Whole => None,
            Selection::Essays(ids) => {
                let named: BTreeSet<_> = self.slots().filter(|slot| ids.contains(&essay_id(*slot))).collect();
                let unknown = ids.iter().any(|id| self.slots().all(|slot| essay_id(slot) != *id));
                if unknown || named.is_empty() || !named.is_subset(&through) {
                    return Refused;
                }
                Some(named)
            }
            Selection::Failed => Some(through.iter().copied().filter(|slot| !came_out(slot)).collect()),
        };
        let waits_by_itself = record.alarm.is_some_and(|alarm| alarm.kind == TimerKind::Retry);
        let is_over = waits_by_itself
            || is_completed(record.status)
            || matches!(record.status, Status::Failed | Status::Cancelled | Status::SkippedDueToDependencyFailure);
        let is_done = match &only {
            None => record.status == Status::CompletedSuccessfully,
            Some(only) => only.is_empty() || only.iter().any(came_out),
        };
        let in_cooldown =
            record.retried_at.is_some_and(|at| (at..at + self.rules.retry_cooldown_ms).contains(&self.now));
        if by != OWNER
            || (only.is_some() && phase == Phase::CjAssessment)
            || !is_over
            || needs(phase).iter().any(|needed| !self.has_completed(*needed))
            || only.as_ref().is_some_and(BTreeSet::is_empty)
            || (is_done && !force)
            || record.user_retries >= self.rules.max_user_retries
            || in_cooldown
        {
            return Refused;
        }
        let now = self.now;
        let record = self.phase(phase);
        record.status = Status::RequestedByUser;
        record.attempts += 1;
        record.user_retries += 1;
        record.retried_at = Some(now);
        record.alarm = None;
        (record.only, record.in_a_row, record.downstream) = (only, 1, *downstream);
        let mut going = BTreeSet::from([phase]);
        for &skipped in below(phase) {
            let is_skipped =
                self.phases.get(&skipped).is_some_and(|it| it.status == Status::SkippedDueToDependencyFailure);
            if is_skipped && needs(skipped).iter().all(|needed| going.contains(needed) || self.has_completed(*needed)) {
                self.wait_again(skipped, None);
                going.insert(skipped);
            }
        }
        self.start(going);
        Changed
    }

    fn cancel(&mut self, by: &str) -> Verdict {
        if by != OWNER || !self.running {
            return Refused;
        }
        let mut any_cancelled = false;
        for phase in self.phases.keys().copied().collect::<Vec<_>>() {
            let record = self.phase(phase);
            let waits_by_itself = record.alarm.is_some_and(|alarm| alarm.kind == TimerKind::Retry);
            match record.status {
                Status::PendingDependencies => {}
                Status::InProgress if waits_by_itself => {}
                Status::RequestedByUser | Status::DispatchInitiated | Status::InProgress => {
                    let attempt = record.attempts;
                    self.told.ended.push((phase, attempt, AttemptOutcome::Cancelled, 0, 0));
                }
                Status::CompletedSuccessfully
                | Status::CompletedWithPartialSuccess
                | Status::Failed
                | Status::Cancelled
                | Status::SkippedByUserConfig
                | Status::SkippedDueToDependencyFailure => continue,
            }
            self.settle(phase, Status::Cancelled);
            any_cancelled |= self.phase(phase).status == Status::Cancelled;
        }
        self.queue.clear();
        self.finish(any_cancelled.then_some(BatchStatus::Cancelled));
        Changed
    }

    fn started(&mut self, phase: Phase, attempt: u32) -> Verdict {
        if !self.is_in_flight(phase, attempt) || self.phase(phase).lease.is_some() {
            return Refused;
        }
        if self.phase(phase).began {
            return Nothing;
        }
        let due = self.now + self.rules.phase_deadline_ms[phase.index()];
        let record = self.phase(phase);
        record.began = true;
        record.status = Status::InProgress;
        record.alarm = Some(Alarm { kind: TimerKind::Deadline, earliest: due, latest: due });
        Changed
    }

    fn leased(&mut self, phase: Phase, attempt: u32, new: &NewLease) -> Verdict {
        if !self.is_in_flight(phase, attempt) || self.phase(phase).lease.is_some() || self.phase(phase).began {
            return Refused;
        }
        let until = self.now + self.rules.phase_deadline_ms[phase.index()];
        let record = self.phase(phase);
        (record.began, record.status) = (true, Status::InProgress);
        self.have(phase, PlainLease { token: new.token, lease_ms: new.lease_ms, until }, self.now);
        Changed
    }

    /// The attempt in flight is had by this lease, which ends so long after `since` unless its worker says something.
    fn have(&mut self, phase: Phase, lease: PlainLease, since: u64) {
        let due = (since + lease.lease_ms).min(lease.until);
        let record = self.phase(phase);
        record.lease = Some(lease);
        record.alarm = Some(Alarm { kind: TimerKind::Deadline, earliest: due, latest: due });
    }

    /// The lease, if it is this one and not over. One that ended while nobody heard its worker is had once more.
    fn lease_of(&self, phase: Phase, attempt: u32, token: Uuid) -> Option<PlainLease> {
        let record = self.phases.get(&phase).filter(|_| self.is_in_flight(phase, attempt))?;
        let (lease, due) = (record.lease.filter(|lease| lease.token == token)?, record.alarm?.latest);
        if due > self.up_since {
            return Some(lease).filter(|_| self.now < due);
        }
        let until = self.up_since + self.rules.phase_deadline_ms[phase.index()];
        let due = (self.up_since + lease.lease_ms).min(until);
        Some(PlainLease { until, ..lease }).filter(|_| self.now < due)
    }

    fn extended(&mut self, phase: Phase, attempt: u32, token: Uuid, done: Option<&Done>) -> Verdict {
        let Some(lease) = self.lease_of(phase, attempt, token) else { return Refused };
        let has = self.phases[&phase].in_flight.as_ref().map_or(0, BTreeMap::len);
        if matches!(done, Some(Done::Count(count)) if usize::try_from(*count).expect("a few") > has) {
            return Refused;
        }
        self.have(phase, lease, self.now);
        Changed
    }

    fn returned(&mut self, phase: Phase, attempt: u32, token: Uuid, work: &ReturnedWork) -> Verdict {
        if self.lease_of(phase, attempt, token).is_none() {
            return Refused;
        }
        let ran: BTreeSet<String> =
            self.phases[&phase].in_flight.iter().flatten().map(|(slot, _)| essay_id(*slot)).collect();
        let (mut processed, mut essay_errors) = (Vec::new(), BTreeMap::new());
        let (error, retry_after_ms) = match work {
            ReturnedWork::Failure { error, retry_after_ms } => (Some(error.clone()), *retry_after_ms),
            ReturnedWork::Essays(essays) => {
                let named: BTreeSet<String> = essays.iter().map(|essay| essay.essay_id.clone()).collect();
                if named != ran || named.len() != essays.len() {
                    return Refused;
                }
                for essay in essays {
                    match &essay.result {
                        Ok(text) => processed.push(EssayRef {
                            essay_id: essay.essay_id.clone(),
                            text_storage_id: text.text_storage_id.clone().expect("the tests name all"),
                            spellcheck_metrics: None,
                        }),
                        Err(error) => drop(essay_errors.insert(essay.essay_id.clone(), error.clone())),
                    }
                }
                (None, None)
            }
        };
        let status =
            if processed.is_empty() { BatchStatus::FailedCritically } else { BatchStatus::CompletedWithFailures };
        let (attempt, correlation_id) = (Some(attempt), None);
        let outcome =
            PhaseOutcome { phase, status, processed, attempt, correlation_id, error, retry_after_ms, essay_errors };
        self.outcome(&outcome)
    }

    fn expired(&mut self, phase: Phase, attempt: u32) -> Verdict {
        let due = self.phases.get(&phase).and_then(|record| record.alarm).map(|alarm| alarm.latest);
        let Some(due) = due.filter(|due| self.is_in_flight(phase, attempt) && *due <= self.now) else { return Refused };
        if due <= self.up_since {
            let due = self.up_since + self.rules.phase_deadline_ms[phase.index()];
            if let Some(lease) = self.phase(phase).lease {
                self.have(phase, PlainLease { until: due, ..lease }, self.up_since);
                return Changed;
            }
            let record = self.phase(phase);
            record.status = Status::InProgress;
            record.alarm = Some(Alarm { kind: TimerKind::Deadline, earliest: due, latest: due });
            return Changed;
        }
        self.end(phase, &BTreeMap::new(), |_| Category::Transient, 0);
        Changed
    }

    fn outcome(&mut self, outcome: &PhaseOutcome) -> Verdict {
        let phase = outcome.phase;
        let attempt = self.phases.get(&phase).map_or(0, |record| record.attempts);
        let texts: BTreeMap<&str, &str> =
            outcome.processed.iter().map(|essay| (essay.essay_id.as_str(), essay.text_storage_id.as_str())).collect();
        if !self.is_in_flight(phase, outcome.attempt.unwrap_or(attempt))
            || outcome.correlation_id.is_some_and(|id| self.ids[&(phase, attempt)] != id)
            || texts.keys().any(|id| self.slots().all(|slot| essay_id(slot) != *id))
        {
            return Refused;
        }
        let has_any = matches!(outcome.status, BatchStatus::CompletedSuccessfully | BatchStatus::CompletedWithFailures);
        let by_slot = |slot: Slot| texts.get(essay_id(slot).as_str()).map(|text| (slot, (*text).to_owned()));
        let came_out: BTreeMap<_, _> = self.slots().filter(|_| has_any).filter_map(by_slot).collect();
        let ran = self.phases[&phase].in_flight.iter().flatten().map(|(slot, _)| *slot);
        let mut own = ran.filter(|slot| !came_out.contains_key(slot)).map(essay_id);
        let of_phase = outcome.error.as_ref().or_else(|| own.find_map(|id| outcome.essay_errors.get(id.as_str())));
        let of_phase = of_phase.map_or(Category::Transient, |error| error.category);
        let category =
            |slot| outcome.essay_errors.get(essay_id(slot).as_str()).map_or(of_phase, |error| error.category);
        self.end(phase, &came_out, category, outcome.retry_after_ms.unwrap_or(0));
        Changed
    }

    /// The attempt in flight is over.
    fn end(
        &mut self,
        phase: Phase,
        came_out: &BTreeMap<Slot, String>,
        category: impl Fn(Slot) -> Category,
        asked_ms: u64,
    ) {
        let (made, now, policy) = (self.inputs, self.now, self.rules.retry[phase.index()].clone());
        let record = self.phase(phase);
        let (mut successful, mut failed, mut transient) = (0, 0, BTreeSet::new());
        for (slot, from) in record.in_flight.take().expect("it is in flight") {
            let mark = &mut record.marks[usize::from(slot)];
            if let Some(text) = came_out.get(&slot) {
                successful += 1;
                *mark = Mark::Out { text: text.clone(), made, from };
            } else {
                failed += 1;
                if category(slot) == Category::Transient {
                    transient.insert(slot);
                }
                if !matches!(mark, Mark::Out { .. }) {
                    *mark = Mark::Failed { from };
                }
            }
        }
        let outcome = match (successful, failed) {
            (0, _) => AttemptOutcome::Failed,
            (_, 0) => AttemptOutcome::Succeeded,
            (_, _) => AttemptOutcome::PartiallySucceeded,
        };
        let (attempt, tried, downstream) = (record.attempts, record.in_a_row, record.downstream);
        record.alarm = None;
        let again = !transient.is_empty() && tried < policy.max_attempts;
        if again {
            let longest = (policy.base_ms * u64::from(policy.factor).pow(tried - 1)).min(policy.max_ms);
            let asked_ms = asked_ms.min(3_600_000);
            let (earliest, latest) = (now + asked_ms, now + asked_ms.max(longest));
            record.alarm = Some(Alarm { kind: TimerKind::Retry, earliest, latest });
            record.status = Status::InProgress;
            record.only = (phase != Phase::CjAssessment).then_some(transient);
        } else {
            self.settle(phase, Status::Failed);
        }
        self.told.ended.push((phase, attempt, outcome, successful, failed));
        if !again && downstream {
            self.run_below(phase);
        }
        self.go_on();
    }

    fn tried_again(&mut self, phase: Phase, attempt: u32) -> Verdict {
        let alarm = self.phases.get(&phase).filter(|record| record.attempts == attempt).and_then(|record| record.alarm);
        match alarm {
            Some(Alarm { kind: TimerKind::Retry, latest, .. }) if latest <= self.now => {
                let record = self.phase(phase);
                record.in_a_row += 1;
                record.attempts += 1;
                self.dispatch(phase);
                Changed
            }
            Some(_) | None => Refused,
        }
    }

    /// The completed phases below wait to run again on what came anew, and on what is going to come anew from one that
    /// they need.
    fn run_below(&mut self, phase: Phase) {
        let mut anew: BTreeMap<Phase, BTreeSet<Slot>> = BTreeMap::new();
        for &dependent in below(phase) {
            let mut slots = self.stale_slots(dependent);
            slots.extend(needs(dependent).iter().filter_map(|needed| anew.get(needed)).flatten());
            if self.has_completed(dependent) && !slots.is_empty() {
                self.wait_again(dependent, (dependent != Phase::CjAssessment).then_some(slots.clone()));
                anew.insert(dependent, slots);
                self.queue.insert(dependent);
            }
        }
    }

    /// The next phase gets its turn, unless one has it.
    fn go_on(&mut self) {
        while self.running && self.phases.values().all(|record| record.alarm.is_none()) {
            let Some(phase) = self.queue.pop_first() else { return self.finish(None) };
            let is_new = self.phase(phase).status == Status::PendingDependencies;
            if needs(phase).iter().any(|needed| !self.has_completed(*needed)) {
                self.phase(phase).status = Status::SkippedDueToDependencyFailure;
            } else if is_new && self.next_slots(phase).is_empty() {
                self.settle(phase, Status::Failed);
            } else {
                let record = self.phase(phase);
                if is_new {
                    record.attempts += 1;
                    (record.in_a_row, record.downstream) = (1, false);
                }
                self.dispatch(phase);
            }
        }
    }

    fn dispatch(&mut self, phase: Phase) {
        let due = self.now + self.rules.phase_deadline_ms[phase.index()];
        let slots = self.next_slots(phase);
        let record = self.phase(phase);
        record.status = Status::DispatchInitiated;
        (record.began, record.lease) = (false, None);
        record.alarm = Some(Alarm { kind: TimerKind::Deadline, earliest: due, latest: due });
        record.in_flight = Some(slots.iter().map(|(slot, (_, from))| (*slot, from.clone())).collect());
        let attempt = record.attempts;
        let texts = slots.into_iter().map(|(slot, (text, _))| (slot, text)).collect();
        self.told.commands.push((phase, attempt, texts));
    }

    fn start(&mut self, phases: BTreeSet<Phase>) {
        self.queue.extend(phases);
        self.running = true;
        self.status = BatchStatus::ProcessingPipelines;
        self.go_on();
    }

    fn finish(&mut self, status: Option<BatchStatus>) {
        let came_out_of_all = |slot: &Slot| {
            self.phases.values().all(|record| matches!(record.marks[usize::from(*slot)], Mark::Out { .. }))
        };
        let successful = u32::try_from(self.slots().filter(came_out_of_all).count()).expect("a few");
        let failed = u32::try_from(self.texts.len()).expect("a few") - successful;
        let is_flawless = self.phases.values().all(|record| record.status == Status::CompletedSuccessfully);
        self.running = false;
        self.status = status.unwrap_or(if is_flawless && failed == 0 {
            BatchStatus::CompletedSuccessfully
        } else {
            BatchStatus::CompletedWithFailures
        });
        let completed = self.phases.keys().copied().filter(|phase| self.has_completed(*phase)).collect();
        self.told.completions.push((self.status, completed, successful, failed));
    }

    /// Nothing of the phase is left to run: it is what its essays say, or `otherwise` where none came out.
    fn settle(&mut self, phase: Phase, otherwise: Status) {
        let record = self.phase(phase);
        let any_out = record.marks.iter().any(|mark| matches!(mark, Mark::Out { .. }));
        let any_failed = record.marks.iter().any(|mark| matches!(mark, Mark::Failed { .. }));
        (record.alarm, record.in_flight) = (None, None);
        record.status = match (any_out, any_failed) {
            (true, false) => Status::CompletedSuccessfully,
            (true, true) => Status::CompletedWithPartialSuccess,
            (false, _) => otherwise,
        };
    }

    fn wait_again(&mut self, phase: Phase, only: Option<BTreeSet<Slot>>) {
        let essays = self.texts.len();
        let record = self.phases.entry(phase).or_insert_with(|| PlainPhase {
            status: Status::PendingDependencies,
            attempts: 0,
            marks: vec![Mark::NotRun; essays],
            only: None,
            in_flight: None,
            began: false,
            lease: None,
            in_a_row: 0,
            downstream: false,
            alarm: None,
            user_retries: 0,
            retried_at: None,
        });
        record.status = Status::PendingDependencies;
        record.only = only;
    }

    /// The slots that an attempt at `phase` runs on now, with what goes in.
    fn next_slots(&self, phase: Phase) -> BTreeMap<Slot, (String, Vec<u32>)> {
        let only = &self.phases[&phase].only;
        let is_meant = |slot: &Slot| only.as_ref().is_none_or(|only| only.contains(slot));
        self.slots().filter(is_meant).filter_map(|slot| Some((slot, self.goes_in(phase, slot)?))).collect()
    }

    /// The text that `phase` would get for an essay, and when the phases before made theirs, if all of them did.
    fn goes_in(&self, phase: Phase, slot: Slot) -> Option<(String, Vec<u32>)> {
        let mut input = (self.texts[usize::from(slot)].clone()?, Vec::new());
        for needed in needs(phase) {
            let Mark::Out { text, made, .. } = &self.phases.get(needed)?.marks[usize::from(slot)] else { return None };
            input.0.clone_from(text);
            input.1.push(*made);
        }
        Some(input)
    }

    /// The essays for which the phases before have something that `phase` has not seen.
    fn stale_slots(&self, phase: Phase) -> BTreeSet<Slot> {
        let is_stale = |slot: &Slot| match (&self.phases[&phase].marks[usize::from(*slot)], self.goes_in(phase, *slot))
        {
            (_, None) => false,
            (Mark::NotRun, Some((_, made))) => !made.is_empty(),
            (Mark::Out { from, .. } | Mark::Failed { from }, Some((_, made))) => *from != made,
        };
        if self.phases.contains_key(&phase) { self.slots().filter(is_stale).collect() } else { BTreeSet::new() }
    }

    /// The completed phases with such essays.
    pub fn stale_phases(&self) -> Vec<Phase> {
        let completed = self.phases.keys().copied().filter(|phase| self.has_completed(*phase));
        completed.filter(|phase| !self.stale_slots(*phase).is_empty()).collect()
    }

    fn is_in_flight(&self, phase: Phase, attempt: u32) -> bool {
        self.phases.get(&phase).is_some_and(|record| record.in_flight.is_some() && record.attempts == attempt)
    }

    fn has_completed(&self, phase: Phase) -> bool {
        self.phases.get(&phase).is_some_and(|record| is_completed(record.status))
    }

    fn phase(&mut self, phase: Phase) -> &mut PlainPhase {
        self.phases.get_mut(&phase).expect("somebody asked for it")
    }

    fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        0..Slot::try_from(self.texts.len()).expect("a few essays")
    }
}
