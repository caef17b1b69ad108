//! What every request has: a correlation id, perhaps a user, perhaps a JSON body.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument as _;
use uuid::Uuid;

use super::Gateway;
use super::access::Rule;
use super::amiss::in_words;
use super::body::Received;
use super::browsers::{self, Browsers};
pub(super) use super::identity::Identity;
use super::metrics::{Requests, method_name};
use super::problem::{self, Problem};
use super::whole;
use crate::contract::{is_traceparent, metadata, traceparent_of_span};
use crate::domain::{Batch, BatchId, Origin};
use crate::engine::{Answer, Engine, RequestKey, Submission};

const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What connects the request with all that it causes.
#[derive(Debug, Clone, Copy)]
pub(super) struct CorrelationId(pub(super) Uuid);

/// What is around the routes of one audience.
struct Around {
    browsers: Browsers,
    requests: Requests,
    rule: Rule,
}

/// Puts `routes`, and their fallback, under `rule`, and all that every request needs around them. It is one layer, since
/// each is boxed and cloned for every request.
pub(super) fn around<S>(routes: Router<S>, browsers: &Browsers, requests: &Requests, rule: Rule) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let around = Arc::new(Around { browsers: browsers.clone(), requests: requests.clone(), rule });
    routes.method_not_allowed_fallback(problem::wrong_method).layer(middleware::from_fn_with_state(around, correlate))
}

/// Lets the request on where its audience's rule does. Gives it a correlation id, its own where it has one that is a UUID,
/// and puts that on the answer and into the body of an error. Goes on with its trace on the answer, where it has one, counts
/// it, and tells browsers what they may do with the answer.
async fn correlate(State(around): State<Arc<Around>>, mut request: Request, next: Next) -> Response {
    let Around { browsers: pages, requests, rule } = &*around;
    let began = Instant::now();
    let template = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let (route, method) = (requests.route(template), method_name(request.method()));
    let traceparent = sent_traceparent(request.headers());
    let traceparent = traceparent.and_then(|parent| traceparent_of_span(parent, fastrand::u64(..)));
    let sent = request.headers().get(CORRELATION_ID).and_then(|value| value.to_str().ok());
    let correlation_id = sent.and_then(|text| Uuid::parse_str(text.trim()).ok()).unwrap_or_else(fresh_id);
    request.extensions_mut().insert(CorrelationId(correlation_id));
    let span = tracing::debug_span!("request", method, route = route.template(), %correlation_id, traceparent);
    let answer = async move {
        match pages.admit(request.method(), request.headers()).and_then(|()| rule.admit(&mut request)) {
            Ok(()) => next.run(request).await,
            Err(problem) => problem.into_response(),
        }
    };
    let answered = AssertUnwindSafe(answer.instrument(span.clone())).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|panic| problem::panicked(panic.as_ref()));
    let problem = response.extensions_mut().remove::<Problem>().or_else(|| Problem::of_plain(&response));
    if let Some(problem) = problem {
        let rendered = problem.render(correlation_id);
        let (mut head, body) = rendered.into_parts();
        // What a layer said beside the status, such as which methods are allowed, is still true.
        if let Some(allowed) = response.headers_mut().remove(ALLOW) {
            head.headers.insert(ALLOW, allowed);
        }
        response = Response::from_parts(head, body);
    }
    if let Ok(value) = HeaderValue::from_str(&correlation_id.to_string()) {
        response.headers_mut().insert(CORRELATION_ID, value);
    }
    if let Some(value) = traceparent.and_then(|traceparent| HeaderValue::try_from(traceparent).ok()) {
        response.headers_mut().insert(metadata::TRACEPARENT, value);
    }
    browsers::protect(response.headers_mut());
    route.count(method, response.status(), began.elapsed());
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), "a request was answered"));
    response
}

/// An id that nobody has used. It connects and opens nothing, so it may be guessed, and the system need not be asked.
fn fresh_id() -> Uuid {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid()
}

/// The trace that a request says it belongs to.
fn sent_traceparent(headers: &HeaderMap) -> Option<&str> {
    headers.get(metadata::TRACEPARENT)?.to_str().ok().filter(|text| is_traceparent(text))
}

impl<S: Sync> FromRequestParts<S> for CorrelationId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(parts.extensions.get().copied().unwrap_or_else(|| Self(Uuid::new_v4())))
    }
}

/// A JSON body. Its content type is not looked at: a client that sends JSON means it.
#[derive(Debug)]
pub(super) struct Body<T> {
    /// What it says.
    pub(super) value: T,
    /// What the request says of itself.
    pub(super) named: Named,
}

/// What a request says of itself: the headers Idempotency-Key and traceparent.
#[derive(Debug)]
pub(super) struct Named {
    /// The key, with what makes the request this one.
    pub(super) key: Option<RequestKey>,
    /// What goes on record.
    pub(super) origin: Origin,
    /// The body's share of the memory, for as long as it is being served.
    _share: Option<OwnedSemaphorePermit>,
}

/// From how many bytes on a body is read beside the runtime: it takes about a millisecond then.
pub(super) const LARGE_BODY_BYTES: usize = 256 * 1_024;

impl<T: DeserializeOwned + Send + 'static> FromRequest<Gateway> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, gateway: &Gateway) -> Result<Self, Problem> {
        let (name, user) = (key_of(request.headers()), Identity::of(request.extensions(), request.headers()));
        let traceparent = sent_traceparent(request.headers()).map(str::to_owned);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let Received { mut bytes, share } = gateway.bodies.receive(request).await?;
        // Only now: a connection whose request was not read to its end cannot be used again.
        let (name, user) = (name?, user?);
        if bytes.is_empty() {
            // Where every member may be left out, so may the object.
            bytes = Bytes::from_static(b"{}");
        }
        let size = bytes.len();
        let read = move || {
            let user = user.as_deref().unwrap_or_default();
            let parts = [method.as_str().as_bytes(), path.as_bytes(), user.as_bytes(), &bytes];
            let key = name.as_deref().map(|name| RequestKey::new(name, &parts));
            let origin = Origin { idempotency_key: name, traceparent };
            whole::parse(&bytes).map(|value| Self { value, named: Named { key, origin, _share: share } })
        };
        if size < LARGE_BODY_BYTES {
            return read();
        }
        tokio::task::spawn_blocking(read).await.map_err(|_| Problem::bad_request("the body could not be read"))?
    }
}

/// The header Idempotency-Key: 1 to 255 characters, with or without quotes around them.
fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let malformed =
        || Problem::bad_request("Idempotency-Key has between 1 and 255 characters of ASCII, and is sent once");
    let text = value.to_str().map_err(|_| malformed())?.trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_fit = (1..=255).contains(&text.len()) && values.next().is_none();
    if is_fit { Ok(Some(text.to_owned())) } else { Err(malformed()) }
}

/// Does what a request asks for, once where it named itself. The answer is what `render` makes of the record, for the
/// first time or again.
pub(super) async fn submit(
    engine: &Engine,
    batch: BatchId,
    submission: Submission,
    Named { key, origin, .. }: Named,
    render: impl FnOnce(&Batch) -> Answer + Send + 'static,
) -> Result<(Answer, bool), Problem> {
    let submission = submission.from_origin(origin);
    match key {
        Some(key) => Ok(engine.submit_once(batch, submission, key, render).await?),
        None => Ok((render(&*engine.submit(batch, submission).await?), false)),
    }
}

/// The same, and answers at once.
pub(super) async fn change(
    engine: &Engine,
    batch: BatchId,
    submission: Submission,
    named: Named,
    render: impl FnOnce(&Batch) -> Answer + Send + 'static,
) -> Result<Response, Problem> {
    let (answer, is_replayed) = submit(engine, batch, submission, named, render).await?;
    Ok(respond(answer, is_replayed))
}

/// An answer as it goes out, for the first time or again.
pub(super) fn respond(answer: Answer, is_replayed: bool) -> Response {
    let mut response = Response::new(answer.body.into());
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if is_replayed {
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// An answer about `batch`, with its version.
pub(super) fn answer(status: StatusCode, batch: &Batch, body: &impl Serialize) -> Answer {
    let headers = etag(batch).map(|(name, value)| (name.as_str().to_owned(), value)).to_vec();
    // Only a map with keys that are no text cannot be written, and no answer has one.
    let body = serde_json::to_vec(body).unwrap_or_default();
    Answer { fingerprint: [0; 32], status: status.as_u16(), headers, body }
}

/// Reads `bytes` as they are, and names the field that is wrong.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // The reader does not look into the texts of members that nobody asks for, and JSON is UTF-8 throughout.
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(Problem::bad_request("the body is not JSON: it is not UTF-8"));
    };
    // A struct would also be read from an array of its fields, which nobody means.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Problem::invalid("the body must be a JSON object"),
            Err(error) => Problem::bad_request(format!("the body is not JSON: {error}")),
        });
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let cause = error.inner();
        if cause.is_syntax() || cause.is_eof() {
            return Problem::bad_request(format!("the body is not JSON: {cause}"));
        }
        let reason = cause.to_string();
        // Where in the body it is, the field says better.
        let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
        // serde names the missing field itself; the path is that of the object around it.
        if reason.starts_with("missing field") {
            return Problem::missing_field(reason);
        }
        let reason = in_words(&reason, "member");
        Problem::invalid(if field == "." { reason } else { format!("{field}: {reason}") })
    })?;
    json.end().map_err(|error| Problem::bad_request(format!("the body is not JSON: {error}")))?;
    Ok(value)
}

/// The version of a batch, as an entity tag (RFC 9110, section 8.8.3).
pub(super) fn etag(batch: &Batch) -> [(HeaderName, String); 1] {
    [(ETAG, format!("\"{}\"", batch.version))]
}

/// The versions that a request is about: the header If-Match (RFC 9110, section 13.1.1). None where it is absent or
/// says that any will do.
#[derive(Debug)]
pub(super) struct IfMatch(pub(super) Option<Vec<u64>>);

/// The most entity tags of one header.
const MAX_TAGS: usize = 16;

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(IF_MATCH) else { return Ok(Self(None)) };
        let malformed = || Problem::bad_request("If-Match is no list of entity tags");
        let tags = value.to_str().map_err(|_| malformed())?.trim();
        if tags == "*" {
            return Ok(Self(None));
        }
        let mut versions = Vec::new();
        for tag in tags.split(',') {
            let tag = tag.trim();
            // A weak tag is well formed and never matches (strong comparison).
            let (tag, is_weak) = tag.strip_prefix("W/").map_or((tag, false), |tag| (tag, true));
            let tag = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).ok_or_else(malformed)?;
            // A tag that this server never gave matches no version.
            versions.extend(tag.parse::<u64>().ok().filter(|_| !is_weak));
            if versions.len() > MAX_TAGS {
                return Err(malformed());
            }
        }
        Ok(Self(Some(versions)))
    }
}

/// The most entries of one page of anything.
pub(super) const MAX_PAGE: usize = 200;

/// How many entries a page has at the most: as asked, else `default`.
pub(super) fn page_size(asked: Option<usize>, default: usize) -> Result<usize, Problem> {
    let limit = asked.unwrap_or(default);
    let is_possible = (1..=MAX_PAGE).contains(&limit);
    if is_possible { Ok(limit) } else { Err(Problem::invalid(format!("limit is between 1 and {MAX_PAGE}"))) }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use http_body_util::BodyExt as _;
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_is_answered_for_like_any_error() {
        async fn breaks() {
            let nothing: [u8; 0] = [];
            let _ = nothing[CORRELATION_ID.as_str().len()];
        }
        let breaks = Router::new().route("/breaks", get(breaks));
        let router = around(breaks, &Browsers::default(), &Requests::default(), Rule::Open);
        let id = Uuid::from_u128(7).to_string();
        let request = Request::get("/breaks").header(CORRELATION_ID, &id).body(Body::empty()).expect("a request");
        let response = router.oneshot(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[CORRELATION_ID], *id);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((&body["correlation_id"], body["error"].is_string()), (&Value::from(id), true), "{body}");
    }
}
