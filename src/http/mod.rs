//! The gateway: routes by audience, identity, limits, and one form for every error.
//!
//! Owns what HTTP looks like and nothing of what a batch allows: a handler reads a request, asks the engine, and shows
//! the answer. Every error is a problem (RFC 9457) with the string member `error`, an error code and the correlation
//! id; every answer carries `X-Correlation-ID`.

mod access;
mod amiss;
mod backup;
mod batches;
mod body;
mod browsers;
mod content;
mod context;
mod credits;
mod dead_letters;
mod direct;
mod essays;
mod events;
mod health;
mod identity;
mod internal;
mod limit;
mod listing;
mod metrics;
mod notifications;
mod openapi;
mod page;
mod phases;
mod problem;
mod retry_jobs;
mod serve;
mod socket;
pub mod test_api;
mod tls;
mod tokens;
mod views;
mod wait;
mod whole;
mod workers;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, patch, post};
use tokio_util::sync::CancellationToken;

use access::Rule;
pub use access::{Access, Bearers, Role};
use body::Bodies;
pub use browsers::{Browsers, NoHost, NoOrigin};
use context::around;
pub use direct::Answered;
use events::Streams;
use limit::PipelineLimit;
use metrics::Requests;
use notifications::Audience;
pub use problem::Problem;
pub use serve::{Limits, serve};
pub use test_api::{Backstage, Front, Refusal, test_refusals, test_router};
pub use tls::{Tls, TlsError};
pub use tokens::{KeyError, Tokens};
use views::Views;

use crate::engine::Engine;

/// The largest body of a request that carries essays, in bytes. Larger batches come in several requests. Every other
/// has at most axum's 2 MiB, into which a registration with a thousand ids of 255 characters fits.
const MAX_ESSAYS_BODY_BYTES: usize = 16 * 1_024 * 1_024;

/// What handlers share. Its clones, of which every request has several, are one.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

/// The one that they are. What it has is for handlers alone.
#[derive(Clone)]
pub struct Shared {
    /// There once recovery is done.
    engine: Arc<OnceLock<Engine>>,
    pipelines: PipelineLimit,
    bodies: Bodies,
    views: Views,
    audience: Audience,
    access: Access,
    streams: Streams,
    requests: Requests,
    /// Is cancelled when nothing new is to be waited for.
    drain: CancellationToken,
}

impl std::ops::Deref for Gateway {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Gateway {
    /// A gateway that lets one user request so many pipelines in a minute; 0 is no limit. Once `drain` is cancelled,
    /// whoever waits for something to happen is answered.
    #[must_use]
    pub fn new(pipelines_a_minute: u32, limits: &Limits, drain: CancellationToken) -> Self {
        let pipelines = PipelineLimit::new(pipelines_a_minute);
        let (bodies, audience, streams) = (Bodies::new(limits), Audience::new(limits), Streams::new(limits));
        let (views, access, requests) = (Views::new(), Access::default(), Requests::default());
        let engine = Arc::default();
        Self(Arc::new(Shared { engine, pipelines, bodies, views, audience, access, streams, requests, drain }))
    }

    /// With these rules of who may use what. Without, whoever asks is believed.
    #[must_use]
    pub fn with_access(self, access: Access) -> Self {
        Self(Arc::new(Shared { access, ..Shared::clone(&self) }))
    }

    /// From now on requests are served.
    pub fn open(&self, engine: Engine) {
        // A second engine would be a mistake of this program's composition; the first one stays.
        let _ = self.engine.set(engine);
    }

    /// Is cancelled when nothing new is to be waited for.
    #[must_use]
    pub fn drain(&self) -> &CancellationToken {
        &self.drain
    }

    fn around(&self, rule: Rule, routes: Router<Self>) -> Router<Self> {
        around(routes, &self.access.browsers, &self.requests, rule)
    }

    fn engine(&self) -> Result<&Engine, Problem> {
        self.engine.get().ok_or_else(Problem::recovering)
    }
}

/// Every route, under the rule of its audience: where a route stands below says who may use it.
pub fn router(gateway: Gateway) -> Router {
    let access = &gateway.access;
    let under = |rule, routes| gateway.around(rule, routes);
    let pages = page::routes().merge(openapi::routes()).layer(browsers::page());
    let routes = Router::new()
        .merge(under(Rule::of_users(&gateway), user_routes()))
        .merge(under(Rule::of_listeners(access), listener_routes()))
        .merge(under(Rule::of_role(Role::Operator, access), operator_routes()))
        .merge(under(Rule::of_role(Role::Worker, access), worker_routes()))
        .merge(under(Rule::of_role(Role::Events, access), event_routes()))
        .merge(under(Rule::of_role(Role::Metrics, access), metrics_routes()))
        .merge(under(Rule::Open, health_routes()))
        .merge(under(Rule::Open, pages))
        .merge(under(Rule::Open, Router::new().fallback(problem::no_route)));
    let cors = access.browsers.layer();
    let routes = routes.with_state(gateway);
    match cors {
        Some(cors) => routes.layer(cors),
        None => routes,
    }
}

/// For users: each is one, by token or by name.
fn user_routes() -> Router<Gateway> {
    let essays = post(batches::provide_essays).get(essays::list);
    let essays = essays.layer(DefaultBodyLimit::max(MAX_ESSAYS_BODY_BYTES));
    Router::new()
        .route("/v1/batches", get(listing::list))
        .route("/v1/batches/register", post(batches::register))
        .route("/v1/batches/{batch_id}/essays", essays)
        .route("/v1/batches/{batch_id}/status", get(batches::status))
        .route("/v1/batches/{batch_id}/prompt", patch(batches::amend_prompt))
        .route("/v1/batches/{batch_id}/pipelines", post(phases::request_pipeline))
        .route("/v1/batches/{batch_id}/retry-phase", post(phases::retry))
        .route("/v1/batches/{batch_id}/cancel", post(phases::cancel))
        .route("/v1/batches/{batch_id}/phases/{phase}/attempts", get(phases::attempts))
        .route("/v1/retry-jobs", post(retry_jobs::create).get(retry_jobs::list))
        .route("/v1/retry-jobs/{job_id}", get(retry_jobs::read).delete(retry_jobs::stop))
        .route("/v1/content", post(content::store).layer(DefaultBodyLimit::max(MAX_ESSAYS_BODY_BYTES)))
        .route("/v1/content/{storage_id}", get(content::read))
}

/// For users who listen. A browser shows a token in the query here, and is refused on the socket itself, so these ask
/// for the token themselves.
fn listener_routes() -> Router<Gateway> {
    Router::new().route("/v1/notifications/stream", get(notifications::stream)).route("/ws", get(notifications::socket))
}

/// For whoever runs the server, and for services that know of every user.
fn operator_routes() -> Router<Gateway> {
    Router::new()
        .route("/internal/v1/batches/{batch_id}/pipeline-state", get(internal::pipeline_state))
        .route("/internal/v1/pipelines/define", post(internal::define_pipeline))
        .route("/internal/v1/batches/{batch_id}/pipelines/{phase}/preflight", post(credits::preflight))
        .route("/internal/v1/credits", get(credits::list))
        .route("/internal/v1/credits/{kind}/{id}", get(credits::read).put(credits::set))
        .route("/internal/v1/credits/{kind}/{id}/adjust", post(credits::adjust))
        .route("/internal/v1/backup", get(backup::read))
        .route("/internal/v1/dead-letters", get(dead_letters::list))
        .route("/internal/v1/dead-letters/redrive", post(dead_letters::redrive_many))
        .route("/internal/v1/dead-letters/discard", post(dead_letters::discard_many))
        .route("/internal/v1/dead-letters/{letter_id}", get(dead_letters::read))
        .route("/internal/v1/dead-letters/{letter_id}/redrive", post(dead_letters::redrive))
        .route("/internal/v1/dead-letters/{letter_id}/discard", post(dead_letters::discard))
}

/// For services that speak events.
fn event_routes() -> Router<Gateway> {
    let event = post(events::publish).layer(DefaultBodyLimit::max(events::MAX_EVENT_BYTES));
    Router::new()
        .route("/v1/events", event)
        .route("/v1/events/stream", get(events::stream))
        .route("/v1/events/groups", get(events::list))
        .route("/v1/events/groups/{group}", delete(events::forget))
        .route("/v1/events/groups/{group}/ack", post(events::acknowledge))
}

/// For whoever watches.
fn metrics_routes() -> Router<Gateway> {
    Router::new().route("/metrics", get(metrics::read))
}

/// For workers that lease their work.
fn worker_routes() -> Router<Gateway> {
    let complete = post(workers::complete).layer(DefaultBodyLimit::max(MAX_ESSAYS_BODY_BYTES));
    Router::new()
        .route("/v1/workers/lease", post(workers::lease))
        .route("/v1/workers/tasks/{task_id}/heartbeat", post(workers::heartbeat))
        .route("/v1/workers/tasks/{task_id}/complete", complete)
        .route("/v1/workers/tasks/{task_id}/fail", post(workers::fail))
}

/// What connections past the limit get: health and metrics, and else that the server is full.
pub fn refusals(gateway: Gateway) -> Router {
    let access = &gateway.access;
    let under = |rule, routes| gateway.around(rule, routes);
    Router::new()
        .merge(under(Rule::of_role(Role::Metrics, access), metrics_routes()))
        .merge(under(Rule::Open, health_routes().fallback(problem::full)))
        .with_state(gateway)
}

/// For everybody.
fn health_routes() -> Router<Gateway> {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
}
