//! What whoever watches the server reads: `GET /metrics`, in the text format of Prometheus.
//!
//! Requests are counted here, as they are answered; everything else others have counted, and it is only shown. Every
//! label has a fixed set of values: nothing that a client sends becomes one.

mod families;
mod requests;

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::prometheus_text::{CONTENT_TYPE as PROMETHEUS_TEXT, encode};
use prometheus_client::registry::Registry;

pub(super) use requests::{Requests, method_name};

use super::{Gateway, Problem};
use crate::engine::{Engine, Survey};

/// What is shown at one time.
struct Scrape {
    requests: Requests,
    listeners: usize,
    streams: usize,
    memory_bytes: Option<u64>,
    /// None while it recovers.
    engine: Option<Engine>,
    /// None where the store cannot be read.
    survey: Option<Arc<Survey>>,
}

/// Everything, as it is now. It is answered while the server recovers too, and when its store has failed.
pub(super) async fn read(State(gateway): State<Gateway>) -> Result<Response, Problem> {
    let engine = gateway.engine().ok().cloned();
    let survey = match &engine {
        Some(engine) => engine.survey().await.inspect_err(|error| tracing::warn!(%error, "there is no survey")).ok(),
        None => None,
    };
    let scrape = Scrape {
        requests: gateway.requests.clone(),
        listeners: gateway.audience.listeners(),
        streams: gateway.streams.open(),
        memory_bytes: memory_bytes(),
        engine,
        survey,
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|_| Problem::broken())?;
    Ok(([(CONTENT_TYPE, PROMETHEUS_TEXT), (CACHE_CONTROL, "no-store")], text).into_response())
}

/// How much memory the process has in use, where the system says so.
fn memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1_024)
}
