//! Errors on the wire: problem details (RFC 9457), with what clients of the full stack read (contract, HTTP).

use std::any::Any;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::contract::ErrorCode;
use crate::domain::{Denial, DenialReason, Rejected, RejectionKind};
use crate::engine;

/// How long a client is asked to wait before it tries again, in seconds.
const RETRY_AFTER_S: &str = "1";

/// When a place for a bulk retry may be free again, in milliseconds.
const JOB_WAIT_MS: u64 = 10_000;

/// The most characters of an error. Some repeat what the client sent.
const MAX_ERROR_CHARS: usize = 500;

/// An error for a client. What went wrong inside is logged, not sent.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    error: String,
    /// Headers that say when to come again.
    limits: Vec<(HeaderName, String)>,
    /// Members of the body beside those that every problem has.
    members: Option<Box<Map<String, Value>>>,
}

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The name of the limit of pipelines of one user.
pub(super) const PIPELINES: &str = "pipelines";

/// The name of the limit of retries by users.
const RETRIES: &str = "retries";

/// Codes beside those of the contract, which has none for these.
mod codes {
    pub(super) const CONFLICT: &str = "CONFLICT";
    pub(super) const INSUFFICIENT_CREDITS: &str = "INSUFFICIENT_CREDITS";
    pub(super) const IDEMPOTENCY_KEY_REUSED: &str = "IDEMPOTENCY_KEY_REUSED";
    pub(super) const METHOD_NOT_ALLOWED: &str = "METHOD_NOT_ALLOWED";
    pub(super) const PRECONDITION_FAILED: &str = "PRECONDITION_FAILED";
    pub(super) const PAYLOAD_TOO_LARGE: &str = "PAYLOAD_TOO_LARGE";
    pub(super) const REQUEST_TIMEOUT: &str = "REQUEST_TIMEOUT";
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, error: impl Into<String>) -> Self {
        let error = error.into();
        let shown = |character: char| if character.is_control() { ' ' } else { character };
        let error = error.chars().take(MAX_ERROR_CHARS).map(shown).collect();
        Self { status, code, error, limits: Vec::new(), members: None }
    }

    /// With these members in the body. Those that every problem has stay what they are.
    pub(super) fn with_members(mut self, members: Value) -> Self {
        if let Value::Object(members) = members {
            self.members = Some(Box::new(members));
        }
        self
    }

    /// A pipeline that was denied.
    pub(super) fn denied(denial: &Denial) -> Self {
        let Denial { requested, reason, cost, funds } = denial;
        let problem = match reason {
            DenialReason::InsufficientCredits => {
                Self::new(StatusCode::PAYMENT_REQUIRED, codes::INSUFFICIENT_CREDITS, denial.message())
            }
            DenialReason::RateLimitExceeded { limit, wait_ms } => {
                Self::limited(denial.message(), PIPELINES, *limit, Some(*wait_ms))
            }
        };
        problem.with_members(json!({
            "requested_pipeline": requested.name(),
            "denial_reason": reason.as_str(),
            "required_credits": cost.total(),
            "available_credits": funds.available(),
            "resource_breakdown": cost.breakdown(),
        }))
    }

    /// A field that is there and wrong.
    pub(super) fn invalid(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::ValidationError.as_str(), error)
    }

    /// A request that makes no sense as a whole.
    pub(super) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidRequest.as_str(), error)
    }

    pub(super) fn missing_field(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::MissingRequiredField.as_str(), error)
    }

    pub(super) fn unauthenticated() -> Self {
        let error = "who are you? Send the header X-User-ID";
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::AuthenticationError.as_str(), error)
    }

    /// A token that was shown, and is no good.
    pub(super) fn bad_token(error: impl Into<String>) -> Self {
        Self::challenge(error, r#"Bearer realm="rephase", error="invalid_token""#)
    }

    /// No token was shown, and one has to be.
    pub(super) fn no_token(error: impl Into<String>) -> Self {
        Self::challenge(error, r#"Bearer realm="rephase""#)
    }

    /// What has to be shown is said as programs read it, too (RFC 6750, section 3).
    fn challenge(error: impl Into<String>, wanted: &str) -> Self {
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, ErrorCode::AuthenticationError.as_str(), error);
        problem.limits.push((header::WWW_AUTHENTICATE, wanted.to_owned()));
        problem
    }

    pub(super) fn no_listeners() -> Self {
        Self::unavailable("as many connections listen for notifications as there can be; try again in a moment")
    }

    /// What people read.
    pub(super) fn error(&self) -> &str {
        &self.error
    }

    pub(super) fn forbidden(error: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::AuthorizationError.as_str(), error)
    }

    pub(super) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::ResourceNotFound.as_str(), error)
    }

    /// A request that what it is about does not allow now.
    pub(super) fn conflict(error: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, codes::CONFLICT, error)
    }

    fn unavailable(error: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::ServiceUnavailable.as_str(), error)
    }

    /// Too many of something: `policy` names what is limited (IETF draft-ietf-httpapi-ratelimit-headers), `quota` how many
    /// there can be, and `wait_ms` how long to wait where waiting helps.
    pub(super) fn limited(error: impl Into<String>, policy: &str, quota: u32, wait_ms: Option<u64>) -> Self {
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::RateLimit.as_str(), error);
        let seconds = wait_ms.map(|wait_ms| wait_ms.div_ceil(1_000));
        let reset = seconds.map(|seconds| format!(";t={seconds}")).unwrap_or_default();
        problem.limits.push((RATE_LIMIT_POLICY, format!("\"{policy}\";q={quota}")));
        problem.limits.push((RATE_LIMIT, format!("\"{policy}\";r=0{reset}")));
        problem.limits.extend(seconds.map(|seconds| (header::RETRY_AFTER, seconds.to_string())));
        problem
    }

    pub(super) fn too_large() -> Self {
        let error = "the body is larger than this route takes";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, codes::PAYLOAD_TOO_LARGE, error)
    }

    pub(super) fn too_slow() -> Self {
        let error = "the body took too long to arrive";
        Self::new(StatusCode::REQUEST_TIMEOUT, codes::REQUEST_TIMEOUT, error)
    }

    /// What was asked for takes too long.
    pub(super) fn timed_out(error: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, ErrorCode::Timeout.as_str(), error)
    }

    pub(super) fn failed(error: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::ProcessingError.as_str(), error)
    }

    pub(super) fn no_room() -> Self {
        Self::unavailable("too many large requests are being served; try again in a moment")
    }

    pub(super) fn too_many_streams() -> Self {
        Self::unavailable("there are as many streams of events as there can be; try again in a moment")
    }

    pub(super) fn recovering() -> Self {
        Self::unavailable("the store is being opened; try again in a moment")
    }

    pub(super) fn broken() -> Self {
        Self::unavailable("the store failed; the server cannot go on")
    }

    /// The problem behind an error that a library answered in plain text.
    pub(super) fn of_plain(response: &Response) -> Option<Self> {
        let status = response.status();
        let is_plain = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_none_or(|value| value.to_str().is_ok_and(|content_type| content_type.starts_with("text/plain")));
        let is_error = status.is_client_error() || status.is_server_error();
        (is_error && is_plain).then(|| {
            let code = if status.is_client_error() { ErrorCode::InvalidRequest } else { ErrorCode::ProcessingError };
            Self::new(status, code.as_str(), "the request could not be understood")
        })
    }

    /// The body with the correlation id of the request.
    pub(super) fn render(&self, correlation_id: Uuid) -> Response {
        let title = self.status.canonical_reason().unwrap_or("error");
        let mut body = self.members.as_deref().cloned().unwrap_or_default();
        body.extend([
            ("type".to_owned(), "about:blank".into()),
            ("title".to_owned(), title.into()),
            ("status".to_owned(), self.status.as_u16().into()),
            ("detail".to_owned(), self.error.as_str().into()),
            ("error".to_owned(), self.error.as_str().into()),
            ("error_code".to_owned(), self.code.into()),
            ("correlation_id".to_owned(), correlation_id.to_string().into()),
        ]);
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        for (name, value) in &self.limits {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// Leaves the body to the outermost layer, which knows the correlation id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<engine::Error> for Problem {
    fn from(error: engine::Error) -> Self {
        match error {
            engine::Error::Rejected(rejected) => rejected.into(),
            engine::Error::KeyInFlight | engine::Error::BackupRunning => Self::conflict(error.to_string()),
            engine::Error::KeyReused => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, codes::IDEMPOTENCY_KEY_REUSED, error.to_string())
            }
            engine::Error::TooManyBatches { .. } => Self::invalid(error.to_string()),
            engine::Error::TooManyJobs { limit } => {
                let limit = u32::try_from(limit).unwrap_or(u32::MAX);
                Self::limited(error.to_string(), "retry-jobs", limit, Some(JOB_WAIT_MS))
            }
            engine::Error::Overloaded => Self::unavailable(error.to_string()),
            engine::Error::Unavailable(reason) => {
                tracing::error!(reason, "a request could not be served");
                Self::unavailable("the server cannot do this now; try again in a moment")
            }
        }
    }
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        if let Rejected::Denied(denial) = &rejected {
            return Self::denied(denial);
        }
        let error = rejected.to_string();
        match rejected.kind() {
            RejectionKind::Invalid => Self::invalid(error),
            RejectionKind::Forbidden => Self::forbidden(error),
            RejectionKind::Unpaid => Self::new(StatusCode::PAYMENT_REQUIRED, codes::INSUFFICIENT_CREDITS, error),
            RejectionKind::Moved => Self::new(StatusCode::PRECONDITION_FAILED, codes::PRECONDITION_FAILED, error),
            RejectionKind::Limited { limit, wait_ms } => Self::limited(error, RETRIES, limit, wait_ms),
            RejectionKind::NotFound => Self::not_found(error),
            RejectionKind::Conflict => {
                let is_dependency = matches!(rejected, Rejected::DependencyMissing { .. });
                let dependency = ErrorCode::BcsPipelineDependencyResolutionFailed.as_str();
                Self::new(StatusCode::CONFLICT, if is_dependency { dependency } else { codes::CONFLICT }, error)
            }
        }
    }
}

/// The answer on a connection past the limit.
pub(super) async fn full() -> Problem {
    Problem::unavailable("there are as many connections as there can be; try again in a moment")
}

pub(super) async fn no_route() -> Problem {
    Problem::not_found("there is no such route")
}

pub(super) async fn wrong_method() -> Problem {
    let error = "this route has another method";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, codes::METHOD_NOT_ALLOWED, error)
}

/// The answer of a handler that panicked.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Response {
    let reason = panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref().cloned());
    tracing::error!(reason = reason.unwrap_or_default(), "a handler panicked");
    let error = "the server made a mistake; nothing was promised";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::ProcessingError.as_str(), error).into_response()
}
