//! The routes below `/_test`, which are only there for tests: time, faults, events, whole states.
//!
//! They stand before the gateway and not in it: what is behind the gateway may be put aside and another put in its place,
//! and whoever is being served meanwhile keeps the one that was there.

mod seed;

use std::sync::{Arc, PoisonError, RwLock};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Rule;
use super::body::{Bodies, Received};
use super::context::around;
use super::metrics::Requests;
use super::whole::parse;
use super::{Access, Gateway, Limits, Problem, Role, backup, problem, router};
use crate::contract::Topic;
use crate::domain::Millis;
use crate::engine::{Engine, EventFilter, EventLog, EventPage};

/// The largest snapshot, in bytes. It is in memory while it is received.
const MAX_SNAPSHOT_BYTES: usize = 64 * 1_024 * 1_024;

/// The largest list of faults and the largest seed, in bytes.
const MAX_BODY_BYTES: usize = 16 * 1_024 * 1_024;

/// How far the time can be moved at once, in milliseconds: ten years.
const MAX_ADVANCE_MS: u64 = 315_360_000_000;

/// How many events there are on a page where nobody says, and how many there can be.
const DEFAULT_EVENTS: usize = 1_000;
const MAX_EVENTS: usize = 10_000;

/// How large a page of events may get, in bytes.
const MAX_PAGE_BYTES: usize = 16 * 1_024 * 1_024;

/// What is behind the gateway, and what tests may do to it.
pub trait Backstage: Clone + Send + Sync + 'static {
    /// The engine that is there now.
    ///
    /// # Errors
    /// [`Refusal::Failed`] where it is not there yet.
    fn engine(&self) -> Result<Engine, Refusal>;

    /// What it has published; none where nobody listens.
    fn events(&self) -> Option<EventLog>;

    /// The time.
    fn now(&self) -> Millis;

    /// The fault rules in force, as a list.
    fn faults(&self) -> Value;

    /// Other ones, from now on.
    ///
    /// # Errors
    /// [`Refusal::Invalid`]; those that are there stay.
    fn replace_faults(&self, json: &str) -> Result<(), Refusal>;

    /// Moves the time by so many milliseconds, and lets everything happen that is due until then; answers the time.
    fn advance(&self, duration_ms: u64) -> impl Future<Output = Result<Millis, Refusal>> + Send;

    /// Puts an empty store in the place of the one that is there.
    fn reset(&self) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Puts what is in a backup in the place of the store that is there.
    fn restore(&self, backup: Bytes) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What was sent is wrong.
    #[error("{0}")]
    Invalid(String),
    /// This server is not made for it.
    #[error("{0}")]
    Conflict(String),
    /// It took too long.
    #[error("{0}")]
    Unfinished(String),
    /// It went wrong here.
    #[error("{0}")]
    Failed(String),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(error) => Self::invalid(error),
            Refusal::Conflict(error) => Self::conflict(error),
            Refusal::Unfinished(error) => Self::timed_out(error),
            Refusal::Failed(error) => Self::failed(error),
        }
    }
}

/// Where requests go: to the router of the gateway that is shown. Its clones share it.
#[derive(Clone)]
pub struct Front(Arc<RwLock<TowerToHyperService<Router>>>);

impl Front {
    /// A front that shows `gateway`.
    #[must_use]
    pub fn new(gateway: Gateway) -> Self {
        Self(Arc::new(RwLock::new(TowerToHyperService::new(router(gateway)))))
    }

    /// From now on requests go to `gateway`.
    pub fn show(&self, gateway: Gateway) {
        let next = TowerToHyperService::new(router(gateway));
        let before = std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), next);
        drop(before);
    }

    /// Serves one request.
    pub(super) async fn serve(&self, request: Request) -> Response {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        match shown.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// What the routes share.
#[derive(Clone)]
struct Tests<B> {
    backstage: B,
    bodies: Bodies,
}

/// Every route, with those for tests before them.
pub fn test_router<B: Backstage>(backstage: B, front: &Front, limits: &Limits, access: &Access) -> Router {
    let front = front.clone();
    let snapshot = put(restore::<B>).layer(DefaultBodyLimit::max(MAX_SNAPSHOT_BYTES)).get(snapshot::<B>);
    let routes = Router::new()
        .route("/_test/reset", post(reset::<B>))
        .route("/_test/clock", get(clock::<B>))
        .route("/_test/clock/advance", post(advance::<B>))
        .route("/_test/faults", get(faults::<B>).put(replace_faults::<B>))
        .route("/_test/events", get(events::<B>))
        .route("/_test/seed", post(seed::seed::<B>))
        .route("/_test/snapshot", snapshot);
    let routes = routes.layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
    around(routes, &access.browsers, &Requests::default(), Rule::of_role(Role::Operator, access))
        .with_state(Tests { backstage, bodies: Bodies::new(limits) })
        .fallback(move |request: Request| {
            let front = front.clone();
            async move { front.serve(request).await }
        })
}

/// What connections past the limit get, as [`super::refusals`]; of what is behind `front` now, so that nothing that was
/// put aside is kept.
pub fn test_refusals(front: &Front, access: &Access) -> Router {
    let front = front.clone();
    let health = get(move |request: Request| {
        let front = front.clone();
        async move { front.serve(request).await }
    });
    let full = Router::new().fallback(problem::full);
    let full = around(full, &access.browsers, &Requests::default(), Rule::Open);
    let routes = ["/healthz", "/livez", "/readyz", "/metrics"].into_iter();
    routes.fold(Router::new(), |router, path| router.route(path, health.clone())).fallback_service(full)
}

async fn reset<B: Backstage>(State(tests): State<Tests<B>>) -> Result<Json<Value>, Problem> {
    tests.backstage.reset().await?;
    Ok(Json(json!({ "status": "empty" })))
}

async fn clock<B: Backstage>(State(tests): State<Tests<B>>) -> Json<Value> {
    Json(json!({ "now": tests.backstage.now().to_timestamp() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdvanceRequest {
    ms: u64,
}

async fn advance<B: Backstage>(State(tests): State<Tests<B>>, request: Request) -> Result<Json<Value>, Problem> {
    let Received { bytes, share: _share } = tests.bodies.receive(request).await?;
    let AdvanceRequest { ms } = parse(&bytes)?;
    if ms > MAX_ADVANCE_MS {
        return Err(Problem::invalid(format!("ms is at most {MAX_ADVANCE_MS}")));
    }
    let now = tests.backstage.advance(ms).await?;
    Ok(Json(json!({ "now": now.to_timestamp() })))
}

async fn faults<B: Backstage>(State(tests): State<Tests<B>>) -> Json<Value> {
    Json(tests.backstage.faults())
}

async fn replace_faults<B: Backstage>(State(tests): State<Tests<B>>, request: Request) -> Result<Json<Value>, Problem> {
    let Received { bytes, share: _share } = tests.bodies.receive(request).await?;
    let json = std::str::from_utf8(&bytes).map_err(|_| Problem::bad_request("the body is not UTF-8"))?;
    tests.backstage.replace_faults(json)?;
    Ok(Json(tests.backstage.faults()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    topic: Option<Topic>,
    batch_id: Option<String>,
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

async fn events<B: Backstage>(
    State(tests): State<Tests<B>>,
    query: Result<Query<EventsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let unknown = "the query has topic (the name of one), batch_id, after and limit (numbers)";
    let Query(EventsQuery { topic, batch_id, after, limit }) = query.map_err(|_| Problem::invalid(unknown))?;
    let limit = limit.unwrap_or(DEFAULT_EVENTS);
    if !(1..=MAX_EVENTS).contains(&limit) {
        return Err(Problem::invalid(format!("limit is between 1 and {MAX_EVENTS}")));
    }
    let log = tests.backstage.events().ok_or_else(Problem::recovering)?;
    let filter = EventFilter { topic, key: batch_id, after, limit, max_bytes: MAX_PAGE_BYTES };
    let EventPage { events, next_after, published, dropped } = log.read(&filter);
    let shown: Vec<_> = events
        .into_iter()
        .map(|event| {
            // One that is no JSON, because a fault rule says so, is shown as the text that it is.
            let message = serde_json::from_slice(&event.message.body)
                .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&event.message.body)));
            let (topic, batch_id) = (event.message.topic, event.message.key);
            json!({ "number": event.number, "topic": topic, "batch_id": batch_id, "message": message })
        })
        .collect();
    Ok(Json(json!({ "events": shown, "next_after": next_after, "published": published, "dropped": dropped })))
}

async fn snapshot<B: Backstage>(State(tests): State<Tests<B>>) -> Result<Response, Problem> {
    backup::stream(&tests.backstage.engine()?)
}

async fn restore<B: Backstage>(State(tests): State<Tests<B>>, request: Request) -> Result<Json<Value>, Problem> {
    let Received { bytes, share: _share } = tests.bodies.receive(request).await?;
    tests.backstage.restore(bytes).await?;
    Ok(Json(json!({ "status": "restored" })))
}
