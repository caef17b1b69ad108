//! Dead letters, for whoever runs the server.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::amiss::Asked;
use super::context::{Body, Identity, MAX_PAGE, Named, page_size, respond};
use super::{Gateway, Problem};
use crate::contract::Topic;
use crate::contract::requests::ClientId;
use crate::domain::{DeadLetter, Decision, LetterChange, LetterEvent, LetterId, LetterState};
use crate::engine::{Answer, Decided, Decisions, LetterFilter, MAX_DECISIONS, Undecided};

/// How many letters a page has where nobody says.
const DEFAULT_PAGE: usize = 50;

/// Where a letter stands, as clients write it.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "DeadLetterState")]
pub(super) enum StateName {
    Open,
    Redriven,
    Discarded,
}

impl From<StateName> for LetterState {
    fn from(name: StateName) -> Self {
        match name {
            StateName::Open => Self::Open,
            StateName::Redriven => Self::Redriven,
            StateName::Discarded => Self::Discarded,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LettersQuery {
    /// Where the letter stands.
    state: Option<StateName>,
    /// The topic of its message.
    topic: Option<Topic>,
    /// How many to list at the most; 50 where nothing is said.
    #[schemars(range(min = 1, max = MAX_PAGE))]
    limit: Option<usize>,
    /// The id of the last letter of the page before.
    #[schemars(with = "Option<Uuid>")]
    cursor: Option<String>,
}

pub(super) async fn list(
    State(gateway): State<Gateway>,
    query: Result<Asked<LettersQuery>, Problem>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let Asked(query) = query?;
    let limit = page_size(query.limit, DEFAULT_PAGE)?;
    let after = query.cursor.map(|cursor| cursor.parse::<LetterId>()).transpose();
    let after = after.map_err(|_| Problem::invalid("cursor is not one that this server gave"))?;
    let filter = LetterFilter { state: query.state.map(LetterState::from), topic: query.topic };
    let (letters, next) = engine.dead_letters(filter, after, limit).await?;
    let letters: Vec<_> = letters.iter().map(summary).collect();
    Ok(Json(json!({ "dead_letters": letters, "next_cursor": next.map(|id| id.to_string()) })).into_response())
}

/// A letter's id out of a path. What is no id is the id of no letter.
fn letter_id(text: &str) -> Result<LetterId, Problem> {
    text.parse().map_err(|_| no_such_letter())
}

fn no_such_letter() -> Problem {
    Problem::not_found("there is no such dead letter")
}

pub(super) async fn read(State(gateway): State<Gateway>, Path(id): Path<String>) -> Result<Response, Problem> {
    let letter = gateway.engine()?.dead_letter(letter_id(&id)?).await?.ok_or_else(no_such_letter)?;
    let mut body = summary(&letter);
    let message = &letter.message;
    body["message"] = json!({
        "topic": message.topic,
        "key": message.key,
        "headers": message.headers.as_ref().map(|headers| json!({
            "event_id": headers.event_id, "event_type": message.topic, "trace_id": headers.trace_id,
        })),
        // What is no JSON is shown as text, as far as it is that.
        "envelope": serde_json::from_slice::<Value>(&message.body)
            .unwrap_or_else(|_| String::from_utf8_lossy(&message.body).into()),
    });
    body["history"] = letter.history.iter().map(event_view).collect();
    Ok(Json(body).into_response())
}

fn summary(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id.to_string(),
        "state": letter.state().as_str(),
        "topic": letter.message.topic,
        "key": letter.message.key,
        "service": letter.group.service(),
        "error": letter.error(),
        "attempts": letter.attempts,
        "first_at": letter.history.first().map(|event| event.at.to_timestamp()),
        "last_at": letter.history.last().map(|event| event.at.to_timestamp()),
    })
}

fn event_view(event: &LetterEvent) -> Value {
    let at = event.at.to_timestamp();
    match &event.what {
        LetterChange::Refused { error, deliveries } => {
            json!({ "at": at, "what": "refused", "error": error, "deliveries": deliveries })
        }
        LetterChange::Redriven { by } => json!({ "at": at, "what": "redriven", "by": by }),
        LetterChange::Discarded { by } => json!({ "at": at, "what": "discarded", "by": by }),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DecisionRequest {
    user_id: Option<ClientId>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DecisionsRequest {
    #[schemars(with = "Vec<Uuid>", length(min = 1, max = MAX_DECISIONS))]
    ids: Vec<ClientId>,
    user_id: Option<ClientId>,
}

pub(super) async fn redrive(
    gateway: State<Gateway>,
    id: Path<String>,
    identity: Identity,
    body: Body<DecisionRequest>,
) -> Result<Response, Problem> {
    decide_one(gateway, id, identity, body, Decision::Redrive).await
}

pub(super) async fn discard(
    gateway: State<Gateway>,
    id: Path<String>,
    identity: Identity,
    body: Body<DecisionRequest>,
) -> Result<Response, Problem> {
    decide_one(gateway, id, identity, body, Decision::Discard).await
}

pub(super) async fn redrive_many(
    gateway: State<Gateway>,
    identity: Identity,
    body: Body<DecisionsRequest>,
) -> Result<Response, Problem> {
    decide_many(gateway, identity, body, Decision::Redrive).await
}

pub(super) async fn discard_many(
    gateway: State<Gateway>,
    identity: Identity,
    body: Body<DecisionsRequest>,
) -> Result<Response, Problem> {
    decide_many(gateway, identity, body, Decision::Discard).await
}

async fn decide_one(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    identity: Identity,
    Body { value: request, named }: Body<DecisionRequest>,
    decision: Decision,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let by = identity.user(request.user_id.as_ref())?;
    let id = letter_id(&id)?;
    let render = |decided: &Decided| {
        let letter = decided.first().and_then(|(_, result)| result.as_ref().ok());
        plain(&letter.map_or(Value::Null, summary))
    };
    match engine.decide(vec![id], by, decision, named.key, render).await? {
        Decisions::Repeated(answer) => Ok(respond(answer, true)),
        Decisions::Made(decided, answer) => match decided.first().map(|(_, result)| result) {
            Some(Ok(_)) => Ok(respond(answer, false)),
            Some(Err(Undecided::Closed(state))) => {
                let error = format!("the dead letter is {}; only an open one can be decided about", state.as_str());
                Err(Problem::conflict(error))
            }
            Some(Err(Undecided::Missing)) | None => Err(no_such_letter()),
        },
    }
}

async fn decide_many(
    State(gateway): State<Gateway>,
    identity: Identity,
    Body { value: request, named }: Body<DecisionsRequest>,
    decision: Decision,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let by = identity.user(request.user_id.as_ref())?;
    if request.ids.is_empty() || request.ids.len() > MAX_DECISIONS {
        return Err(Problem::invalid(format!("ids: send between 1 and {MAX_DECISIONS}")));
    }
    let id = |(index, id): (usize, ClientId)| {
        id.as_str().parse().map_err(|_| Problem::invalid(format!("ids[{index}] is not the id of a dead letter")))
    };
    let ids = request.ids.into_iter().enumerate().map(id).collect::<Result<Vec<LetterId>, _>>()?;
    let Named { key, .. } = named;
    let render = |decided: &Decided| {
        let count = decided.iter().filter(|(_, result)| result.is_ok()).count();
        let results: Vec<_> = decided.iter().map(|(id, result)| result_view(*id, result.as_ref())).collect();
        plain(&json!({ "decided": count, "results": results }))
    };
    match engine.decide(ids, by, decision, key, render).await? {
        Decisions::Repeated(answer) => Ok(respond(answer, true)),
        Decisions::Made(_, answer) => Ok(respond(answer, false)),
    }
}

fn result_view(id: LetterId, result: Result<&DeadLetter, &Undecided>) -> Value {
    match result {
        Ok(letter) => json!({ "id": id.to_string(), "state": letter.state().as_str() }),
        Err(Undecided::Closed(state)) => {
            json!({ "id": id.to_string(), "state": state.as_str(), "error": "it is not open" })
        }
        Err(Undecided::Missing) => json!({ "id": id.to_string(), "error": "there is no such dead letter" }),
    }
}

fn plain(body: &Value) -> Answer {
    let (status, body) = (StatusCode::OK.as_u16(), body.to_string().into_bytes());
    Answer { fingerprint: [0; 32], status, headers: Vec::new(), body }
}
