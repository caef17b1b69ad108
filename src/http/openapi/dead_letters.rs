//! Dead letters.

use schemars::JsonSchema;
use serde_json::{Value, json};
use uuid::Uuid;

use super::operation::{Audience, Operation, REPLAYED};
use super::schemas::{AT, BATCH_ID, CORRELATION_ID, Time, Word};
use crate::contract::Topic;
use crate::http::dead_letters::{DecisionRequest, DecisionsRequest, LettersQuery, StateName};

pub(super) fn operations() -> Vec<Operation> {
    let mut all = vec![
        Operation::get("/internal/v1/dead-letters", "listDeadLetters", "List dead letters")
            .text("Of every user, the newest first.")
            .audience(Audience::Operator)
            .query::<LettersQuery>()
            .answer::<Letters>(200, "A page.", json!({ "dead_letters": [letter("open")], "next_cursor": null }))
            .leads("letter_id", "/dead_letters/0/id", &["readDeadLetter", "redriveDeadLetter", "discardDeadLetter"]),
        Operation::get("/internal/v1/dead-letters/{letter_id}", "readDeadLetter", "Read a dead letter")
            .text("With its message, and all that happened to it.")
            .audience(Audience::Operator)
            .answer::<LetterRead>(200, "The letter.", letter_in_full())
            .not_found("there is no such letter"),
    ];
    all.extend([
        one(
            "/internal/v1/dead-letters/{letter_id}/redrive",
            "redriveDeadLetter",
            "Send a message on its way again",
            "redriven",
        ),
        one("/internal/v1/dead-letters/{letter_id}/discard", "discardDeadLetter", "Close a dead letter", "discarded"),
        many("/internal/v1/dead-letters/redrive", "redriveDeadLetters", "Send messages on their way again", "redriven"),
        many("/internal/v1/dead-letters/discard", "discardDeadLetters", "Close dead letters", "discarded"),
    ]);
    all
}

fn one(path: &'static str, id: &'static str, summary: &'static str, state: &str) -> Operation {
    Operation::post(path, id, summary)
        .text("Who decides is `X-User-ID`, or the body's `user_id`.")
        .audience(Audience::Operator)
        .once()
        .optional_body::<DecisionRequest>(json!({ "user_id": "operator-1" }))
        .answer::<Letter>(200, "It is decided.", letter(state))
        .with(&[REPLAYED])
        .not_found("there is no such letter")
        .conflict("the letter is not open")
}

fn many(path: &'static str, id: &'static str, summary: &'static str, state: &str) -> Operation {
    Operation::post(path, id, summary)
        .text("Up to 200 at once: what became of each is in `results`.")
        .audience(Audience::Operator)
        .once()
        .body::<DecisionsRequest>(json!({ "ids": [BATCH_ID], "user_id": "operator-1" }))
        .answer::<Decided>(
            200,
            "Those that were open are decided about.",
            json!({
                "decided": 1, "results": [{ "id": BATCH_ID, "state": state }],
            }),
        )
        .with(&[REPLAYED])
}

#[derive(JsonSchema)]
#[schemars(rename = "DeadLetters")]
struct Letters {
    dead_letters: Vec<Letter>,
    next_cursor: Option<Uuid>,
}

#[derive(JsonSchema)]
#[schemars(rename = "DeadLetter")]
struct Letter {
    id: Uuid,
    state: StateName,
    topic: Topic,
    /// The batch, or whoever else the message is about.
    key: String,
    /// The consumer that refused it.
    service: String,
    /// Why it was refused last.
    error: String,
    /// How often it was refused.
    attempts: u32,
    #[schemars(with = "Option<Time>")]
    first_at: Option<String>,
    #[schemars(with = "Option<Time>")]
    last_at: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename = "DeadLetterRead")]
struct LetterRead {
    #[serde(flatten)]
    letter: Letter,
    message: LetterMessage,
    history: Vec<LetterHappening>,
}

#[derive(JsonSchema)]
#[schemars(rename = "DeadLetterMessage")]
struct LetterMessage {
    topic: Topic,
    key: String,
    headers: Option<MessageHeaders>,
    /// What is no JSON is shown as text.
    envelope: Value,
}

#[derive(JsonSchema)]
struct MessageHeaders {
    event_id: Uuid,
    event_type: Topic,
    trace_id: Uuid,
}

#[derive(JsonSchema)]
#[schemars(rename = "DeadLetterEvent")]
struct LetterHappening {
    #[schemars(with = "Time")]
    at: String,
    #[schemars(extend("enum" = ["refused", "redriven", "discarded"]))]
    what: Word,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<u32>,
    /// Who decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename = "DeadLetterDecisions")]
struct Decided {
    decided: usize,
    results: Vec<Decision>,
}

#[derive(JsonSchema)]
#[schemars(rename = "DeadLetterDecision")]
struct Decision {
    id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<StateName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn letter(state: &str) -> Value {
    json!({
        "id": BATCH_ID, "state": state, "topic": "huleedu.els.batch.phase.outcome.v1", "key": BATCH_ID,
        "service": "batch-service", "error": "the message is not JSON", "attempts": 1, "first_at": AT, "last_at": AT,
    })
}

fn letter_in_full() -> Value {
    let mut letter = letter("open");
    letter["message"] = json!({
        "topic": letter["topic"], "key": BATCH_ID, "envelope": "{\"event_id\":",
        "headers": { "event_id": CORRELATION_ID, "event_type": letter["topic"], "trace_id": CORRELATION_ID },
    });
    letter["history"] = json!([{ "at": AT, "what": "refused", "error": letter["error"], "deliveries": 1 }]);
    letter
}
