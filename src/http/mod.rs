//! The gateway: routes, identity, limits, and one form for every error.
//!
//! Owns what HTTP looks like and nothing of what a batch allows: a handler reads a request, asks the engine, and shows
//! the answer. Every error is a problem (RFC 9457) with the string member `error`, an error code and the correlation
//! id; every answer carries `X-Correlation-ID`.

mod backup;
mod batches;
mod body;
mod content;
mod context;
mod dead_letters;
mod direct;
mod essays;
mod events;
mod health;
mod internal;
mod limit;
mod listing;
mod notifications;
mod openapi;
mod page;
mod phases;
mod problem;
mod retry_jobs;
mod serve;
mod socket;
pub mod test_api;
mod tokens;
mod views;
mod workers;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{delete, get, patch, post};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use body::Bodies;
pub use direct::Answered;
use events::Streams;
use limit::PipelineLimit;
use notifications::Audience;
pub use problem::Problem;
pub use serve::{Limits, serve};
pub use test_api::{Backstage, Front, Refusal, test_refusals, test_router};
pub use tokens::Tokens;
use views::Views;

use crate::engine::Engine;

/// The largest body of a request that carries no essays, in bytes. A registration with a thousand ids of 255 characters
/// fits.
const MAX_BODY_BYTES: usize = 2 * 1_024 * 1_024;

/// The largest body of a request that carries essays, in bytes. Larger batches come in several requests.
const MAX_ESSAYS_BODY_BYTES: usize = 16 * 1_024 * 1_024;

/// What handlers share. The engine is there once recovery is done.
#[derive(Clone)]
pub struct Gateway {
    engine: Arc<OnceLock<Engine>>,
    pipelines: PipelineLimit,
    bodies: Bodies,
    views: Views,
    audience: Audience,
    streams: Streams,
    /// Is cancelled when nothing new is to be waited for.
    drain: CancellationToken,
}

impl Gateway {
    /// A gateway that lets one user request so many pipelines in a minute; 0 is no limit. Once `drain` is cancelled,
    /// whoever waits for something to happen is answered.
    #[must_use]
    pub fn new(pipelines_a_minute: u32, limits: &Limits, drain: CancellationToken) -> Self {
        let pipelines = PipelineLimit::new(pipelines_a_minute);
        let (bodies, audience, streams) = (Bodies::new(limits), Audience::new(limits), Streams::new(limits));
        Self { engine: Arc::default(), pipelines, bodies, views: Views::new(), audience, streams, drain }
    }

    /// Whoever listens for notifications has to show a token.
    #[must_use]
    pub fn with_tokens(mut self, tokens: Option<Tokens>) -> Self {
        self.audience.tokens = tokens;
        self
    }

    /// From now on requests are served.
    pub fn open(&self, engine: Engine) {
        // A second engine would be a mistake of this program's composition; the first one stays.
        let _ = self.engine.set(engine);
    }

    /// Is cancelled when nothing new is to be waited for.
    #[must_use]
    pub const fn drain(&self) -> &CancellationToken {
        &self.drain
    }

    fn engine(&self) -> Result<&Engine, Problem> {
        self.engine.get().ok_or_else(Problem::recovering)
    }
}

/// Every route.
pub fn router(gateway: Gateway) -> Router {
    let essays = post(batches::provide_essays).get(essays::list);
    let essays = essays.layer(DefaultBodyLimit::max(MAX_ESSAYS_BODY_BYTES));
    let event = post(events::publish).layer(DefaultBodyLimit::max(events::MAX_EVENT_BYTES));
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
        .route("/v1/notifications/stream", get(notifications::stream))
        .route("/ws", get(notifications::socket))
        .merge(worker_routes())
        .route("/v1/events", event)
        .route("/v1/events/stream", get(events::stream))
        .route("/v1/events/groups", get(events::list))
        .route("/v1/events/groups/{group}", delete(events::forget))
        .route("/v1/events/groups/{group}/ack", post(events::acknowledge))
        .route("/internal/v1/batches/{batch_id}/pipeline-state", get(internal::pipeline_state))
        .route("/internal/v1/pipelines/define", post(internal::define_pipeline))
        .route("/internal/v1/backup", get(backup::read))
        .route("/internal/v1/dead-letters", get(dead_letters::list))
        .route("/internal/v1/dead-letters/redrive", post(dead_letters::redrive_many))
        .route("/internal/v1/dead-letters/discard", post(dead_letters::discard_many))
        .route("/internal/v1/dead-letters/{letter_id}", get(dead_letters::read))
        .route("/internal/v1/dead-letters/{letter_id}/redrive", post(dead_letters::redrive))
        .route("/internal/v1/dead-letters/{letter_id}/discard", post(dead_letters::discard))
        .merge(page::routes())
        .merge(openapi::routes())
        .merge(health_routes())
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn(context::correlate))
        .with_state(gateway)
}

fn worker_routes() -> Router<Gateway> {
    let complete = post(workers::complete).layer(DefaultBodyLimit::max(MAX_ESSAYS_BODY_BYTES));
    Router::new()
        .route("/v1/workers/lease", post(workers::lease))
        .route("/v1/workers/tasks/{task_id}/heartbeat", post(workers::heartbeat))
        .route("/v1/workers/tasks/{task_id}/complete", complete)
        .route("/v1/workers/tasks/{task_id}/fail", post(workers::fail))
}

/// What connections past the limit get: health, and else that the server is full.
pub fn refusals(gateway: Gateway) -> Router {
    health_routes().fallback(problem::full).layer(middleware::from_fn(context::correlate)).with_state(gateway)
}

fn health_routes() -> Router<Gateway> {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
}
