//! Is it alive, is it ready, how is it.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{Gateway, Problem};

/// The process serves HTTP.
pub(super) async fn livez() -> Json<serde_json::Value> {
    Json(json!({ "status": "alive" }))
}

/// Recovery is done, and the store takes commits.
pub(super) async fn readyz(State(gateway): State<Gateway>) -> Result<Response, Problem> {
    let engine = gateway.engine()?;
    if engine.failed().is_cancelled() {
        return Err(Problem::broken());
    }
    Ok(Json(json!({ "status": "ready" })).into_response())
}

/// What the services of the full stack answer (contract, HTTP), 503 where this one cannot work.
pub(super) async fn healthz(State(gateway): State<Gateway>) -> Response {
    let engine = gateway.engine().ok();
    let is_recovered = engine.is_some();
    let is_sound = engine.is_none_or(|engine| !engine.failed().is_cancelled());
    let is_healthy = is_recovered && is_sound;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let counters = engine.map(crate::engine::Engine::counters);
    let answer = json!({
        "service": "rephase",
        "status": if is_healthy { "healthy" } else { "unhealthy" },
        "message": if is_healthy { "serving" } else if is_sound { "recovering" } else { "the store failed" },
        "version": env!("CARGO_PKG_VERSION"),
        "checks": { "recovered": is_recovered, "store": is_sound },
        "dependencies": {},
        "environment": "standalone",
        "counters": counters.map(|counters| json!({
            "steps": count(&counters.steps),
            "duplicate_messages": count(&counters.duplicates),
            "refused_messages": count(&counters.refused_messages),
            "late_outcomes": count(&counters.late_outcomes),
            "broken_timers": count(&counters.broken_timers),
            "swept_keys": count(&counters.swept_keys),
            "removed": count(&counters.removed),
        })),
    });
    let status = if is_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(answer)).into_response()
}
