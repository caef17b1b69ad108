//! What many operations have in common: times, parameters, headers, problems, and how a request says who asks.

use schemars::{Schema, json_schema};
use serde_json::{Value, json};

pub(in crate::http) use crate::contract::Time;

/// The ids of the examples.
pub(super) const BATCH_ID: &str = "01999f3c-7c1e-7a30-9d51-4f0a6c2b8e11";
pub(super) const CORRELATION_ID: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
pub(super) const ESSAY_ID: &str = "3f0b4c9e-58d3-5f54-9b0a-0c5b1a7d2e60";
pub(super) const STORAGE_ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
pub(super) const AT: &str = "2026-03-02T08:30:00Z";

/// What a place of an answer of JSON has that says what kind of answer it is.
pub(super) type Word = String;

/// A text that is not empty, of an essay or of a prompt.
pub(in crate::http) fn written(schema: &mut Schema) {
    schema.insert("pattern".to_owned(), json!("\\S"));
    schema.insert("maxLength".to_owned(), json!(crate::http::batches::MAX_TEXT_BYTES));
}

/// Makes a schema demand exactly one of `text` and `text_storage_id`.
pub(in crate::http) fn one_text(schema: &mut Schema) {
    let one = |there: &str, not: &str| json!({ "required": [there], "properties": { there: { "type": "string" }, not: { "type": "null" } } });
    schema.insert("oneOf".to_owned(), json!([one("text", "text_storage_id"), one("text_storage_id", "text")]));
}

/// Forbids two members that are both of such a kind.
fn not_both(schema: &mut Schema, one: (&str, &Value), other: (&str, &Value)) {
    let both = json!({ "not": { "required": [one.0, other.0], "properties": { one.0: one.1, other.0: other.1 } } });
    if let Some(all) = schema.ensure_object().entry("allOf").or_insert_with(|| json!([])).as_array_mut() {
        all.push(both);
    }
}

/// What a worker brings of an essay is another text, where it is stored, or an error.
pub(in crate::http) fn one_result(schema: &mut Schema) {
    let (text, there) = (json!({ "type": "string" }), json!({ "not": { "type": "null" } }));
    not_both(schema, ("text", &text), ("text_storage_id", &text));
    for other in ["text", "text_storage_id", "metrics"] {
        not_both(schema, ("error", &there), (other, &there));
    }
}

/// A retry is of these essays, of the failed ones, or of all.
pub(in crate::http) fn one_scope(schema: &mut Schema) {
    not_both(schema, ("essay_ids", &json!({ "type": "array" })), ("only_failed", &json!({ "const": true })));
}

/// Stands for an error.
#[derive(Debug)]
pub(super) enum ProblemDetails {}

pub(super) fn problem() -> Schema {
    json_schema!({
        "type": "object",
        "description": "Problem details (RFC 9457).",
        "required": ["type", "title", "status", "detail", "error", "error_code", "correlation_id"],
        "properties": {
            "type": { "const": "about:blank" },
            "title": { "type": "string", "description": "What the status is called." },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string", "description": "The same as `error`." },
            "error": { "type": "string", "minLength": 1, "maxLength": 500, "description": "For people." },
            "error_code": {
                "type": "string", "pattern": "^[A-Z][A-Z_]*$",
                "description": "For programs. There may be others one day: go by the status where one is unknown.",
            },
            "correlation_id": { "type": "string", "format": "uuid", "description": "What to look for in the log." },
        },
    })
}

fn in_path(name: &str, description: &str, schema: &Value, example: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema,
            "example": example })
}

fn in_header(name: &str, description: &str, schema: &Value) -> Value {
    json!({ "name": name, "in": "header", "description": description, "schema": schema })
}

/// The parameters that operations refer to; those of a path by the name that the path has for them.
pub(super) fn parameters() -> Value {
    let uuid = json!({ "type": "string", "format": "uuid" });
    let phase = json!({ "$ref": "#/components/schemas/Phase" });
    let group = json!({ "type": "string", "pattern": "^[a-z0-9._-]{1,100}$" });
    let text = |max: u16| json!({ "type": "string", "minLength": 1, "maxLength": max });
    json!({
        "batch_id": in_path("batch_id", "The batch.", &uuid, BATCH_ID),
        "phase": in_path("phase", "The phase.", &phase, "nlp"),
        "job_id": in_path("job_id", "The bulk retry.", &uuid, BATCH_ID),
        "letter_id": in_path("letter_id", "The dead letter.", &uuid, BATCH_ID),
        "storage_id": in_path("storage_id", "What the text is stored under.", &text(255), STORAGE_ID),
        "task_id": in_path("task_id", "The task, as the lease named it.", &text(255), &format!("{BATCH_ID}.nlp.1")),
        "kind": in_path("kind", "Whose balance.", &json!({ "type": "string", "enum": ["users", "organisations"] }), "users"),
        "id": in_path("id", "The id of the user or the organisation.", &text(255), "teacher-7"),
        "group": in_path("group", "The group of readers.", &group, "reports"),
        "CorrelationId": in_header("X-Correlation-ID", "What connects the request with all that it causes. Another \
            one is made where it is missing or no UUID.", &json!({ "type": "string" })),
        "IdempotencyKey": in_header("Idempotency-Key", "Names the request: it takes effect once, and a repetition \
            within 24 hours gets the first answer again.", &json!({
            "type": "string", "pattern": "^[\\t -~]*[!-~][\\t -~]*$", "maxLength": 255,
        })),
        "IfMatch": in_header("If-Match", "The versions of the batch that the request is about, as `ETag` says them; up \
            to 16, or `*` for any.", &json!({
            "type": "string", "pattern": "^(\\*|\"[0-9]{1,19}\"(, ?\"[0-9]{1,19}\"){0,15})$",
        })),
        "IfNoneMatch": in_header("If-None-Match", "What is there already.", &json!({ "type": "string" })),
        "LastEventId": in_header("Last-Event-ID", "The last event that is known; the stream goes on behind it.", &json!({
            "type": "string", "pattern": "^[0-9a-f]{16}-(0|[1-9][0-9]{0,17})$",
        })),
    })
}

/// The headers of answers.
pub(super) fn headers() -> Value {
    let header = |description: &str, is_required: bool, schema: &Value| json!({ "description": description, "required": is_required, "schema": schema });
    let text = json!({ "type": "string" });
    json!({
        "X-Correlation-ID": header("The request's, or the one that was made for it.", true,
            &json!({ "type": "string", "format": "uuid" })),
        "ETag": header("The version of the batch, for `If-Match`.", true,
            &json!({ "type": "string", "pattern": "^\"[0-9a-f]+\"$" })),
        "Location": header("Where what was made, or what becomes of it, can be read.", true, &text),
        "Idempotent-Replayed": header("There where the answer is one that was given before.", false,
            &json!({ "type": "string", "enum": ["true"] })),
        "Retry-After": header("When to ask again, in seconds; absent where waiting does not help.", false,
            &json!({ "type": "integer", "minimum": 0 })),
        "RateLimit": header("What is left of the limit.", false, &text),
        "RateLimit-Policy": header("The limit.", false, &text),
    })
}

/// How a request says who asks.
pub(super) fn security_schemes() -> Value {
    let bearer = |description: &str| json!({ "type": "http", "scheme": "bearer", "description": description });
    json!({
        "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "A user's token: `sub` is the user; audience `huleedu-platform`, issuer \
                `huleedu-identity-service`." },
        "user": { "type": "apiKey", "in": "header", "name": "X-User-ID",
            "description": "Where the server wants no tokens: the name of the user, 1 to 255 characters. A body's \
                `user_id` does as well; two different ones are 403." },
        "tokenInQuery": { "type": "apiKey", "in": "query", "name": "token",
            "description": "A user's token, for browsers, which can send no header here." },
        "userInQuery": { "type": "apiKey", "in": "query", "name": "user_id",
            "description": "The name of the user, where the server wants no tokens." },
        "operator": bearer("The token of whoever runs the server. None is needed where it has none and listens on \
            loopback."),
        "worker": bearer("The workers' token. None is needed where the server has none and listens on loopback."),
        "events": bearer("The token of services that speak events. None is needed where the server has none and \
            listens on loopback."),
        "metrics": bearer("The token of whoever watches. None is needed where the server has none and listens on \
            loopback."),
    })
}
