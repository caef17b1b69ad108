//! Workers of somebody else's: they lease attempts, say that they live, and bring what came of them.

use std::str::FromStr;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::batches::MAX_TEXT_BYTES;
use super::context::{Body, CorrelationId, LARGE_BODY_BYTES, answer, respond};
use super::openapi::schemas::{Time, one_result, written};
use super::{Gateway, Problem};
use crate::contract::requests::ClientId;
use crate::contract::{ErrorCode, Message, PhaseName, Text};
use crate::domain::step::{Done, ReturnedEssay, ReturnedText, ReturnedWork};
use crate::domain::{
    Attempt, Batch, BatchId, Category, Input, Lease, MAX_ESSAYS, Millis, Phase, PhaseError, needs_prompt,
};
use crate::engine::{self, Engine, LeaseRequest, Leased, MAX_LEASES, RequestKey, Submission, content_id};

/// How long a worker may wait for a command, in milliseconds: shorter than proxies wait for an answer.
const MAX_WAIT_MS: u64 = 30_000;

/// How long a lease may last without a sign of life, in milliseconds: a second to an hour, a minute where nothing is
/// said. The phase's deadline ends it all the same.
const LEASE_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;
const DEFAULT_LEASE_MS: u64 = 60_000;

/// The longest that a worker can ask to wait before the next attempt, in milliseconds.
const MAX_RETRY_AFTER_MS: u64 = 3_600_000;

/// The largest metrics of one essay, in bytes. The command of the next phase carries those of all essays.
const MAX_METRICS_BYTES: usize = 1_024;

/// Names an attempt: batch, phase and number.
struct TaskId {
    batch: BatchId,
    phase: Phase,
    attempt: u32,
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.batch, self.phase, self.attempt)
    }
}

impl FromStr for TaskId {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().unwrap_or_default();
        let (batch, phase, attempt) = (part().parse(), part().parse(), part().parse());
        match (batch, phase, attempt) {
            (Ok(batch), Ok(phase), Ok(attempt)) => Ok(Self { batch, phase, attempt }),
            _ => Err(Problem::not_found("there is no such task")),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct LeaseBody {
    /// How the worker names itself; on record with its attempts.
    worker_id: ClientId,
    /// What it can do: `remote` phases of this server.
    #[schemars(with = "Vec<Phase>", length(min = 1, max = Phase::ALL.len()))]
    phases: Vec<Text<1, 100>>,
    /// How many tasks it takes at once.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = MAX_LEASES))]
    max: usize,
    /// How long to wait for something to do, in milliseconds.
    #[serde(default)]
    #[schemars(range(max = MAX_WAIT_MS))]
    wait_ms: u64,
    /// How long the lease lasts without a sign of life, in milliseconds; a minute where nothing is said.
    #[schemars(range(min = *LEASE_MS.start(), max = *LEASE_MS.end()))]
    lease_ms: Option<u64>,
}

const fn one() -> usize {
    1
}

impl LeaseBody {
    fn into_request(self, engine: &Engine) -> Result<(LeaseRequest, Duration), Problem> {
        let Self { worker_id, phases: named, max, wait_ms, lease_ms } = self;
        if named.is_empty() || named.len() > Phase::ALL.len() {
            return Err(Problem::invalid(format!("phases: name between 1 and {}", Phase::ALL.len())));
        }
        let mut phases = Vec::new();
        for name in named {
            let phase: Phase = name.as_str().parse()?;
            if !engine.is_offered(phase) {
                let error =
                    format!("phases: {phase} is not run by remote workers here (serve --workers {phase}=remote)");
                return Err(Problem::invalid(error));
            }
            if !phases.contains(&phase) {
                phases.push(phase);
            }
        }
        if !(1..=MAX_LEASES).contains(&max) {
            return Err(Problem::invalid(format!("max is between 1 and {MAX_LEASES}")));
        }
        if wait_ms > MAX_WAIT_MS {
            return Err(Problem::invalid(format!("wait_ms is a number up to {MAX_WAIT_MS}")));
        }
        let lease_ms = lease_ms.unwrap_or(DEFAULT_LEASE_MS);
        if !LEASE_MS.contains(&lease_ms) {
            return Err(Problem::invalid(format!("lease_ms is between {} and {}", LEASE_MS.start(), LEASE_MS.end())));
        }
        let request = LeaseRequest { worker_id: worker_id.into_string(), phases, max, lease_ms };
        Ok((request, Duration::from_millis(wait_ms)))
    }
}

/// Gives a worker something to do, as soon as there is something.
pub(super) async fn lease(
    State(gateway): State<Gateway>,
    Body { value, named: _named }: Body<LeaseBody>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let (request, wait) = value.into_request(engine)?;
    let ends_at = Instant::now() + wait;
    let leased = loop {
        let leased = engine.lease(&request).await?;
        if !leased.is_empty() || wait.is_zero() {
            break leased;
        }
        tokio::select! {
            biased;
            // A worker that is told nothing asks the next server.
            () = gateway.drain.cancelled() => break leased,
            offered = engine.offered(&request.phases) => offered?,
            () = tokio::time::sleep_until(ends_at) => break leased,
        }
    };
    let size: usize = leased.iter().map(|leased| leased.command.body.len()).sum();
    let shown = if size < LARGE_BODY_BYTES {
        shown(&leased)?
    } else {
        tokio::task::spawn_blocking(move || shown(&leased)).await.map_err(|_| Problem::broken())??
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], shown).into_response())
}

fn shown(leased: &[Leased]) -> Result<Vec<u8>, Problem> {
    let tasks = leased.iter().map(TaskView::of).collect::<Result<_, _>>()?;
    serde_json::to_vec(&Tasks { tasks }).map_err(|_| Problem::broken())
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Tasks<'a> {
    tasks: Vec<TaskView<'a>>,
}

/// An attempt, as its worker reads it.
#[derive(Serialize, JsonSchema)]
pub(super) struct TaskView<'a> {
    task_id: String,
    batch_id: Uuid,
    phase: PhaseName,
    attempt: u32,
    essays: Vec<EssayView>,
    /// What the students were asked to write, where the phase needs it.
    #[schemars(with = "Option<Map<String, Value>>")]
    prompt: Value,
    correlation_id: Uuid,
    /// The trace of the request that caused the attempt, for a worker that has one of its own to go on with.
    traceparent: Option<String>,
    lease_token: Uuid,
    #[schemars(with = "Time")]
    lease_expires_at: Timestamp,
    /// When the attempt ends, whatever its worker says.
    #[schemars(with = "Time")]
    deadline: Timestamp,
    /// The envelope of the command, as it was sent.
    #[schemars(with = "Map<String, Value>")]
    command: &'a RawValue,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct EssayView {
    essay_id: String,
    slot: u16,
    text_storage_id: String,
    spellcheck_metrics: Option<Value>,
}

impl<'a> TaskView<'a> {
    fn of(Leased { batch, phase, command }: &'a Leased) -> Result<Self, Problem> {
        let (attempt, lease, expires_at) = open_lease(batch, *phase).ok_or_else(Problem::broken)?;
        let essay = |&slot: &u16| {
            let essay = batch.input_of(*phase, slot)?;
            let (essay_id, text_storage_id) = (essay.essay_id, essay.text_storage_id);
            Some(EssayView { essay_id, slot, text_storage_id, spellcheck_metrics: essay.spellcheck_metrics })
        };
        let prompt = match (&batch.details.student_prompt_ref, &batch.details.assignment_id) {
            _ if !needs_prompt(*phase) => Value::Null,
            (Some(reference), _) => json!({ "student_prompt_ref": reference }),
            (None, Some(assignment_id)) => json!({ "assignment_id": assignment_id }),
            (None, None) => Value::Null,
        };
        Ok(Self {
            task_id: TaskId { batch: batch.id, phase: *phase, attempt: attempt.number }.to_string(),
            batch_id: batch.id.0,
            phase: phase.name(),
            attempt: attempt.number,
            essays: attempt.slots.iter().filter_map(essay).collect(),
            prompt,
            correlation_id: attempt.correlation_id,
            traceparent: traceparent_of(command),
            lease_token: lease.token,
            lease_expires_at: expires_at.to_timestamp(),
            deadline: lease.until.to_timestamp(),
            command: serde_json::from_slice(&command.body).map_err(|_| Problem::broken())?,
        })
    }
}

/// The trace that a command says it belongs to.
fn traceparent_of(command: &Message) -> Option<String> {
    #[derive(Deserialize)]
    struct Command {
        metadata: Said,
    }
    #[derive(Deserialize)]
    struct Said {
        traceparent: Option<String>,
    }
    let Command { metadata } = serde_json::from_slice(&command.body).ok()?;
    metadata.traceparent
}

/// The attempt of `phase` that a worker has, by what, and until when.
fn open_lease(batch: &Batch, phase: Phase) -> Option<(&Attempt, &Lease, Millis)> {
    let (attempt, deadline) = batch.phase_state(phase)?.in_flight()?;
    Some((attempt, attempt.lease.as_deref()?, deadline))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct HeartbeatBody {
    lease_token: Uuid,
    progress: Option<Progress>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "the number of essays that are done, or the list of their ids")]
pub(super) enum Progress {
    Count(#[schemars(range(max = MAX_ESSAYS))] u32),
    Essays(#[schemars(length(max = MAX_ESSAYS))] Vec<ClientId>),
}

/// The worker lives, and goes on.
pub(super) async fn heartbeat(
    State(gateway): State<Gateway>,
    CorrelationId(correlation_id): CorrelationId,
    Path(id): Path<String>,
    Body { value: HeartbeatBody { lease_token, progress }, named: _named }: Body<HeartbeatBody>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let TaskId { batch, phase, attempt } = id.parse()?;
    let done = match progress {
        None => None,
        Some(Progress::Count(count)) => Some(Done::Count(count)),
        Some(Progress::Essays(ids)) if ids.len() > MAX_ESSAYS => {
            return Err(Problem::invalid(format!("progress has more than {MAX_ESSAYS} members")));
        }
        Some(Progress::Essays(ids)) => Some(Done::Essays(ids.into_iter().map(ClientId::into_string).collect())),
    };
    let input = Input::LeaseExtended { phase, attempt, token: lease_token, done };
    let batch = engine.submit(batch, Submission::new(input, correlation_id)).await?;
    let (_, lease, expires_at) = open_lease(&batch, phase).ok_or_else(Problem::broken)?;
    let body = json!({
        "task_id": id,
        "lease_expires_at": expires_at.to_timestamp(),
        "deadline": lease.until.to_timestamp(),
        "essays_done": lease.essays_done,
    });
    Ok(Json(body).into_response())
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct CompleteBody {
    lease_token: Uuid,
    /// Each essay of the task, once.
    #[schemars(length(min = 1, max = MAX_ESSAYS))]
    essays: Vec<EssayBody>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(transform = one_result)]
pub(super) struct EssayBody {
    essay_id: ClientId,
    text_storage_id: Option<ClientId>,
    #[schemars(transform = written)]
    text: Option<String>,
    /// At most 1 KiB; handed on to the next phases.
    metrics: Option<Value>,
    /// Why it did not come out; then nothing else is there.
    error: Option<ErrorBody>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ErrorBody {
    #[schemars(with = "ErrorCode")]
    error_code: Text<1, 100>,
    /// Whether trying again may help; the code decides where nothing is said.
    category: Option<Category>,
    message: Option<String>,
}

impl ErrorBody {
    fn into_error(self, field: &str) -> Result<PhaseError, Problem> {
        let Ok(code) = self.error_code.as_str().parse::<ErrorCode>() else {
            return Err(Problem::invalid(format!("{field}error_code is not a code of the contract")));
        };
        let category = self.category.unwrap_or_else(|| Category::of(code));
        Ok(PhaseError::new(code, category, self.message.as_deref().unwrap_or_default()))
    }
}

impl EssayBody {
    /// What the worker brings of this essay; a text of its own is added to `contents`.
    fn into_returned(self, index: usize, contents: &mut Vec<String>) -> Result<ReturnedEssay, Problem> {
        let Self { essay_id, text_storage_id, text, metrics, error } = self;
        let invalid = |reason: String| Problem::invalid(format!("essays[{index}]{reason}"));
        let essay_id = essay_id.into_string();
        if let Some(error) = error {
            if text.is_some() || text_storage_id.is_some() || metrics.is_some() {
                return Err(invalid(" has an error, and something else besides".to_owned()));
            }
            return Ok(ReturnedEssay { essay_id, result: Err(error.into_error(&format!("essays[{index}].error."))?) });
        }
        let text_storage_id = match (text, text_storage_id) {
            (Some(_), Some(_)) => return Err(invalid(" has text and text_storage_id; send one of them".to_owned())),
            (Some(text), None) if text.trim().is_empty() => return Err(invalid(".text is empty".to_owned())),
            (Some(text), None) if text.len() > MAX_TEXT_BYTES => {
                return Err(invalid(format!(".text has more than {MAX_TEXT_BYTES} bytes")));
            }
            (Some(text), None) => {
                let storage_id = content_id(&text);
                contents.push(text);
                Some(storage_id)
            }
            (None, storage_id) => storage_id.map(ClientId::into_string),
        };
        if metrics.as_ref().is_some_and(|metrics| metrics.to_string().len() > MAX_METRICS_BYTES) {
            return Err(invalid(format!(".metrics has more than {MAX_METRICS_BYTES} bytes")));
        }
        Ok(ReturnedEssay { essay_id, result: Ok(ReturnedText { text_storage_id, metrics }) })
    }
}

/// The attempt is over: each of its essays came out or failed.
pub(super) async fn complete(
    State(gateway): State<Gateway>,
    CorrelationId(correlation_id): CorrelationId,
    Path(id): Path<String>,
    Body { value: CompleteBody { lease_token, essays }, named: _named }: Body<CompleteBody>,
) -> Result<Response, Problem> {
    let task: TaskId = id.parse()?;
    if essays.is_empty() || essays.len() > MAX_ESSAYS {
        return Err(Problem::invalid(format!("essays: send between 1 and {MAX_ESSAYS}")));
    }
    let mut contents = Vec::new();
    let returned = essays.into_iter().enumerate().map(|(index, essay)| essay.into_returned(index, &mut contents));
    let work = ReturnedWork::Essays(returned.collect::<Result<_, _>>()?);
    give_back(gateway.engine()?, task, lease_token, work, contents, correlation_id).await
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct FailBody {
    lease_token: Uuid,
    #[serde(flatten)]
    error: ErrorBody,
    /// The shortest wait before the next attempt.
    #[schemars(range(max = MAX_RETRY_AFTER_MS))]
    retry_after_ms: Option<u64>,
}

/// The attempt is over: nothing came out.
pub(super) async fn fail(
    State(gateway): State<Gateway>,
    CorrelationId(correlation_id): CorrelationId,
    Path(id): Path<String>,
    Body { value: FailBody { lease_token, error, retry_after_ms }, named: _named }: Body<FailBody>,
) -> Result<Response, Problem> {
    let task: TaskId = id.parse()?;
    if retry_after_ms.is_some_and(|wait_ms| wait_ms > MAX_RETRY_AFTER_MS) {
        return Err(Problem::invalid(format!("retry_after_ms is a number up to {MAX_RETRY_AFTER_MS}")));
    }
    let work = ReturnedWork::Failure { error: error.into_error("")?, retry_after_ms };
    give_back(gateway.engine()?, task, lease_token, work, Vec::new(), correlation_id).await
}

/// Ends the attempt with what its worker brings. The same work is answered as it was the first time; that is kept under
/// the lease's token, in the same commit.
async fn give_back(
    engine: &Engine,
    task: TaskId,
    token: Uuid,
    work: ReturnedWork,
    contents: Vec<String>,
    correlation_id: Uuid,
) -> Result<Response, Problem> {
    // No header can have this name, so no client can have it by accident.
    let name = format!("\0lease/{token}");
    let key = RequestKey::new(&name, &[task.to_string().as_bytes(), format!("{work:?}").as_bytes()]);
    let TaskId { batch, phase, attempt } = task;
    let input = Input::LeaseReturned { phase, attempt, token, work };
    let submission = Submission::new(input, correlation_id).with_contents(contents);
    let done = engine.submit_in_turn(batch, submission, key, move |batch| {
        let last = batch.phase_state(phase).and_then(|state| state.attempt()).filter(|last| last.number == attempt);
        let end = last.and_then(|last| last.end.as_ref());
        let body = json!({
            "status": "accepted",
            "task_id": TaskId { batch: batch.id, phase, attempt }.to_string(),
            "batch_id": batch.id.to_string(),
            "phase": phase.name(),
            "attempt": attempt,
            "outcome": end.map(|end| end.outcome.as_str()),
            "correlation_id": correlation_id,
        });
        answer(StatusCode::OK, batch, &body)
    });
    match done.await {
        Ok((answer, is_replayed)) => Ok(respond(answer, is_replayed)),
        Err(engine::Error::KeyReused) => Err(Problem::conflict("the task has ended with other work already")),
        Err(error) => Err(error.into()),
    }
}
