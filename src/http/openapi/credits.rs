//! Credits: what a pipeline would cost, and balances.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::{Value, json};
use uuid::Uuid;

use super::operation::{Audience, Operation, REPLAYED};
use super::schemas::{AT, BATCH_ID, CORRELATION_ID, Time, Word};
use crate::domain::Phase;
use crate::http::credits::{AdjustRequest, BalancesQuery, SetRequest};

const BALANCE: &str = "/internal/v1/credits/{kind}/{id}";

pub(super) fn operations() -> Vec<Operation> {
    let operator = Audience::Operator;
    vec![
        Operation::post(
            "/internal/v1/batches/{batch_id}/pipelines/{phase}/preflight",
            "preflight",
            "Ask whether a pipeline would be let through",
        )
        .text(
            "It charges nothing, counts as no request, and does not judge whether the batch is ready. Where the pipeline \
             would be denied the problem has the members of the answer too, with `allowed: false` and `denial_reason`.",
        )
        .audience(operator)
        .optional_body::<PreflightRequest>(json!({}))
        .answer::<LetThrough>(
            200,
            "It would.",
            json!({
                "allowed": true, "batch_id": BATCH_ID, "requested_pipeline": "ai_feedback",
                "resolved_pipeline": ["nlp", "ai_feedback"], "required_credits": 12, "available_credits": 40,
                "resource_breakdown": { "ai_feedback_generation": 12 }, "correlation_id": CORRELATION_ID,
            }),
        )
        .fails(402, "INSUFFICIENT_CREDITS", "it costs more credits than are left")
        .not_found("there is no such batch")
        .limited("the owner has requested as many pipelines in a minute as a user can"),
        Operation::get("/internal/v1/credits", "listBalances", "List balances")
            .text("Users before organisations, by id.")
            .audience(operator)
            .query::<BalancesQuery>()
            .answer::<Balances>(200, "A page.", json!({ "balances": [balance()], "next_cursor": null })),
        Operation::get(BALANCE, "readBalance", "Read a balance")
            .audience(operator)
            .answer::<Balance>(200, "The balance.", balance())
            .not_found("there is no such balance"),
        Operation::put(BALANCE, "setBalance", "Set a balance, or make one")
            .audience(operator)
            .body::<SetRequest>(json!({ "credits": 40 }))
            .answer::<Balance>(200, "The balance since.", balance())
            .not_found("there are balances of `users` and of `organisations` only")
            .conflict("there are as many balances as there can be"),
        Operation::post("/internal/v1/credits/{kind}/{id}/adjust", "adjustBalance", "Give credits, or take some")
            .audience(operator)
            .once()
            .body::<AdjustRequest>(json!({ "credits": -5 }))
            .answer::<Balance>(200, "The balance since.", balance())
            .with(&[REPLAYED])
            .not_found("there is no such balance")
            .conflict("less than nothing would be left, or more than there can be, or nothing is counted there"),
    ]
}

fn balance() -> Value {
    json!({ "type": "user", "id": "teacher-7", "credits": 40, "charged": 12, "changed_at": AT })
}

#[derive(JsonSchema)]
struct PreflightRequest {}

#[derive(JsonSchema)]
#[schemars(rename = "Preflight")]
struct LetThrough {
    allowed: bool,
    batch_id: Uuid,
    requested_pipeline: Phase,
    resolved_pipeline: Vec<Phase>,
    required_credits: u64,
    /// 10^12 where nothing is counted.
    available_credits: u64,
    resource_breakdown: BTreeMap<String, u64>,
    correlation_id: Uuid,
}

#[derive(JsonSchema)]
struct Balances {
    balances: Vec<Balance>,
    next_cursor: Option<String>,
}

#[derive(JsonSchema)]
struct Balance {
    #[schemars(extend("enum" = ["user", "organisation"]))]
    r#type: Word,
    id: String,
    /// None where it is as many as it takes.
    credits: Option<i64>,
    charged: u64,
    #[schemars(with = "Time")]
    changed_at: String,
}
