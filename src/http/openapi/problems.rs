//! The errors of an operation: what it takes decides most of them, and it adds its own.

use serde_json::{Map, Value, json};

use super::operation::{Audience, Failure, IDEMPOTENCY_KEY, IF_MATCH, Operation};

const WRONG: Failure = Failure { status: 400, code: "VALIDATION_ERROR", why: "a member is there and wrong" };
const SENSELESS: Failure =
    Failure { status: 400, code: "INVALID_REQUEST", why: "the request makes no sense as a whole" };
const INCOMPLETE: Failure = Failure { status: 400, code: "MISSING_REQUIRED_FIELD", why: "a member is missing" };
const NOBODY: Failure = Failure { status: 401, code: "AUTHENTICATION_ERROR", why: "nobody knows who asks" };
const STRANGER: Failure = Failure { status: 403, code: "AUTHORIZATION_ERROR", why: "whoever asks may not do this" };
const SLOW: Failure = Failure { status: 408, code: "REQUEST_TIMEOUT", why: "the body took too long to arrive" };
const IN_FLIGHT: Failure =
    Failure { status: 409, code: "CONFLICT", why: "a request with the same Idempotency-Key is being served" };
const MOVED: Failure = Failure {
    status: 412,
    code: "PRECONDITION_FAILED",
    why: "the batch has moved: it is in another version than If-Match says",
};
const LARGE: Failure =
    Failure { status: 413, code: "PAYLOAD_TOO_LARGE", why: "the body is larger than this route takes" };
const REUSED: Failure =
    Failure { status: 422, code: "IDEMPOTENCY_KEY_REUSED", why: "the Idempotency-Key was used for another request" };
const MISTAKE: Failure = Failure { status: 500, code: "PROCESSING_ERROR", why: "the server made a mistake" };
const BUSY: Failure = Failure {
    status: 503,
    code: "SERVICE_UNAVAILABLE",
    why: "too much is waiting, or the store is being opened, or it failed",
};

/// What goes wrong with any operation that takes what this one takes.
fn implied(operation: &Operation) -> Vec<Failure> {
    let is_named = operation.audience != Audience::Everybody;
    let takes_something = operation.path.contains('{') || operation.query.is_some() || operation.body.is_some();
    let mut failures = Vec::new();
    if takes_something || operation.audience == Audience::User || operation.audience == Audience::Listener {
        failures.extend([WRONG, SENSELESS]);
    }
    if operation.body.is_some() {
        failures.extend([INCOMPLETE, SLOW, LARGE]);
    }
    if is_named {
        failures.extend([NOBODY, STRANGER]);
    }
    if operation.parameters.contains(&IDEMPOTENCY_KEY) {
        failures.extend([IN_FLIGHT, REUSED]);
    }
    if operation.parameters.contains(&IF_MATCH) {
        failures.push(MOVED);
    }
    failures.push(MISTAKE);
    if operation.needs_store {
        failures.push(BUSY);
    }
    failures
}

/// The error answers of an operation, by status. Those that it has in common with others are put into `common`, and
/// referred to.
pub(super) fn of(operation: &Operation, common: &mut Map<String, Value>) -> Map<String, Value> {
    let implied = implied(operation);
    let mut all: Vec<&Failure> = operation.failures.iter().chain(&implied).collect();
    // The stable order keeps an operation's own words before those that it has in common with others.
    all.sort_by_key(|failure| failure.status);
    let groups = all.chunk_by(|one, other| one.status == other.status);
    let mut described = |failures: &[&Failure]| {
        let status = failures[0].status;
        if operation.failures.iter().any(|own| own.status == status) {
            return answer(failures);
        }
        let codes: Vec<_> = failures.iter().map(|failure| failure.code).collect();
        let name = codes.join("-");
        let reference = json!({ "$ref": format!("#/components/responses/{name}") });
        common.entry(name).or_insert_with(|| answer(failures));
        reference
    };
    groups.map(|failures| (failures[0].status.to_string(), described(failures))).collect()
}

fn answer(failures: &[&Failure]) -> Value {
    let status = failures[0].status;
    let examples: Map<String, Value> =
        failures.iter().rev().map(|failure| (failure.code.to_owned(), json!({ "value": example(failure) }))).collect();
    let why: Vec<_> = failures.iter().map(|failure| format!("`{}`: {}", failure.code, failure.why)).collect();
    let mut headers = Map::new();
    let mut header = |name: &str| {
        headers.insert(name.to_owned(), json!({ "$ref": format!("#/components/headers/{name}") }));
    };
    header("X-Correlation-ID");
    match status {
        429 => ["Retry-After", "RateLimit", "RateLimit-Policy"].into_iter().for_each(header),
        503 => header("Retry-After"),
        _ => {}
    }
    json!({
        "description": why.join("; "),
        "headers": headers,
        "content": { "application/problem+json": {
            "schema": { "$ref": "#/components/schemas/Problem" },
            "examples": examples,
        } },
    })
}

fn example(failure: &Failure) -> Value {
    let status = axum::http::StatusCode::from_u16(failure.status).unwrap_or_default();
    json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("error"),
        "status": failure.status,
        "detail": failure.why,
        "error": failure.why,
        "error_code": failure.code,
        "correlation_id": super::schemas::CORRELATION_ID,
    })
}
