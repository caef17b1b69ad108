//! Credits: what a pipeline would cost, and balances for whoever runs the server.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use uuid::Uuid;

use super::amiss::Asked;
use super::batches::batch_id;
use super::context::{Body, CorrelationId, page_size, respond};
use super::limit::Exceeded;
use super::{Gateway, Problem};
use crate::contract::requests::ClientId;
use crate::domain::{Account, Balance, BatchId, Input, MAX_CREDITS, Phase, Rejected};
use crate::engine::{self, Answer, BalanceChange, Changed, Engine, Submission, Unchanged};

/// How many balances a page has where nobody says.
const DEFAULT_PAGE: usize = 50;

/// Whether the pipeline would be let through: what it costs, and what there is. Whether the batch is ready for it is
/// another question. Nothing is charged, and no request is counted.
pub(super) async fn preflight(
    State(gateway): State<Gateway>,
    CorrelationId(correlation_id): CorrelationId,
    Path((id, phase)): Path<(String, String)>,
    _: Body<IgnoredAny>,
) -> Result<Response, Problem> {
    let batch = batch_id(&id)?;
    let (preflight, owner) = gateway.engine()?.preflight(batch, phase.parse()?).await?;
    let denial = preflight.denial(gateway.pipelines.glimpse(&owner));
    let mut body = json!({
        "allowed": denial.is_none(),
        "batch_id": batch.to_string(),
        "requested_pipeline": preflight.requested.name(),
        "resolved_pipeline": preflight.resolved(),
        "required_credits": preflight.quote.cost.total(),
        "available_credits": preflight.funds.available(),
        "resource_breakdown": preflight.quote.cost.breakdown(),
        "correlation_id": correlation_id,
    });
    match denial {
        None => Ok(Json(body).into_response()),
        Some(denial) => {
            body["denial_reason"] = denial.reason.as_str().into();
            Err(Problem::denied(&denial).with_members(body))
        }
    }
}

/// The answer to a request for a pipeline too many. That it was denied is told, where the batch is the user's.
pub(super) async fn deny(
    engine: &Engine,
    batch: BatchId,
    (by, last, is_retry): (String, Phase, bool),
    exceeded: Exceeded,
    correlation_id: Uuid,
) -> Problem {
    let Exceeded { limit, wait_ms, is_told } = exceeded;
    if !is_told {
        return exceeded.into();
    }
    let input = Input::DenyPipeline { by, last, is_retry, limit, wait_ms };
    match engine.submit(batch, Submission::new(input, correlation_id)).await {
        Err(engine::Error::Rejected(denied @ Rejected::Denied(_))) => denied.into(),
        // Whatever else is wrong with it, it is one too many.
        Ok(_) | Err(_) => exceeded.into(),
    }
}

fn account(kind: &str, id: &str) -> Result<Account, Problem> {
    let id = ClientId::new(id).map_err(|error| Problem::invalid(format!("the id {error}")))?.into_string();
    match kind {
        "users" => Ok(Account::User(id)),
        "organisations" => Ok(Account::Organisation(id)),
        _ => Err(Problem::not_found("there are balances of users and of organisations")),
    }
}

/// As a path has it.
fn path_of(account: &Account) -> String {
    match account {
        Account::User(id) => format!("users/{id}"),
        Account::Organisation(id) => format!("organisations/{id}"),
    }
}

fn view(account: &Account, balance: &Balance) -> Value {
    let kind = match account {
        Account::User(_) => "user",
        Account::Organisation(_) => "organisation",
    };
    json!({
        "type": kind,
        "id": account.id(),
        "credits": balance.left(),
        "charged": balance.charged,
        "changed_at": balance.changed_at.to_timestamp(),
    })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BalancesQuery {
    #[schemars(range(min = 1, max = 200))]
    limit: Option<usize>,
    /// The last balance of the page before.
    cursor: Option<String>,
}

pub(super) async fn list(
    State(gateway): State<Gateway>,
    query: Result<Asked<BalancesQuery>, Problem>,
) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    let Asked(query) = query?;
    let limit = page_size(query.limit, DEFAULT_PAGE)?;
    let after = |cursor: String| cursor.split_once('/').and_then(|(kind, id)| account(kind, id).ok());
    let after = query
        .cursor
        .map(|cursor| after(cursor).ok_or_else(|| Problem::invalid("cursor is not one that this server gave")));
    let mut balances = engine.balances(after.transpose()?, limit + 1).await?;
    let has_more = balances.len() > limit;
    balances.truncate(limit);
    let next = balances.last().filter(|_| has_more).map(|(account, _)| path_of(account));
    let balances: Vec<_> = balances.iter().map(|(account, balance)| view(account, balance)).collect();
    Ok(Json(json!({ "balances": balances, "next_cursor": next })).into_response())
}

pub(super) async fn read(
    State(gateway): State<Gateway>,
    Path((kind, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let account = account(&kind, &id)?;
    let balance = gateway.engine()?.balance(account.clone()).await?;
    let balance = balance.ok_or_else(|| Problem::not_found(Unchanged::Missing.to_string()))?;
    Ok(Json(view(&account, &balance)).into_response())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["credits"]))]
pub(super) struct SetRequest {
    /// Has to be there, since nothing and null are far from the same.
    #[serde(deserialize_with = "number_or_null")]
    #[schemars(range(max = MAX_CREDITS))]
    credits: Option<u64>,
}

fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Option::deserialize(deserializer)
}

pub(super) async fn set(
    State(gateway): State<Gateway>,
    Path((kind, id)): Path<(String, String)>,
    Body { value: SetRequest { credits }, .. }: Body<SetRequest>,
) -> Result<Response, Problem> {
    if credits.is_some_and(|credits| credits > MAX_CREDITS) {
        return Err(Problem::invalid(format!("credits: at most {MAX_CREDITS}, or null")));
    }
    let change = gateway.engine()?.change_balance(account(&kind, &id)?, BalanceChange::Set(credits), None, answer);
    respond_changed(change.await?)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AdjustRequest {
    credits: i64,
}

pub(super) async fn adjust(
    State(gateway): State<Gateway>,
    Path((kind, id)): Path<(String, String)>,
    Body { value: AdjustRequest { credits }, named }: Body<AdjustRequest>,
) -> Result<Response, Problem> {
    let (account, change) = (account(&kind, &id)?, BalanceChange::Adjust(credits));
    respond_changed(gateway.engine()?.change_balance(account, change, named.key, answer).await?)
}

fn answer(account: &Account, balance: &Balance) -> Answer {
    let body = view(account, balance).to_string().into_bytes();
    Answer { fingerprint: [0; 32], status: StatusCode::OK.as_u16(), headers: Vec::new(), body }
}

fn respond_changed(changed: Changed) -> Result<Response, Problem> {
    match changed {
        Changed::Made(answer) => Ok(respond(answer, false)),
        Changed::Repeated(answer) => Ok(respond(answer, true)),
        Changed::Refused(unchanged @ Unchanged::Missing) => Err(Problem::not_found(unchanged.to_string())),
        Changed::Refused(unchanged @ (Unchanged::Unlimited | Unchanged::OutOfRange { .. } | Unchanged::TooMany)) => {
            Err(Problem::conflict(unchanged.to_string()))
        }
    }
}
