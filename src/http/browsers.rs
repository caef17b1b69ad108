//! What browsers are told, and which pages may use them to ask.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;

use super::Problem;

/// What the pages of the server may do: use what the server has, and nothing else. No script or style is in the page
/// itself, and no other page shows it in a frame.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
);

/// What everything else may do, where a browser shows it: nothing.
const ANSWER_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const NO_REFERRER: HeaderValue = HeaderValue::from_static("no-referrer");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How long a browser may remember what it was told of the methods and headers that are allowed.
const PREFLIGHT: Duration = Duration::from_mins(10);

/// The origins whose pages may ask, beside the server's own.
#[derive(Debug, Clone, Default)]
pub struct Browsers(Arc<[HeaderValue]>);

/// What is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no origin: give SCHEME://HOST or SCHEME://HOST:PORT, as https://school.example; there is no *")]
pub struct NoOrigin(String);

impl Browsers {
    /// Those of these origins.
    ///
    /// # Errors
    /// Where one of them is none.
    pub fn of<'a>(origins: impl IntoIterator<Item = &'a str>) -> Result<Self, NoOrigin> {
        let origin = |text: &str| {
            let no_origin = || NoOrigin(text.to_owned());
            let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(no_origin)?;
            // As browsers write it, since it is compared with what they send.
            let is_host = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._:[]".contains(c);
            let is_fit = !host.is_empty() && host.chars().all(is_host);
            HeaderValue::from_str(text).ok().filter(|_| is_fit).ok_or_else(no_origin)
        };
        Ok(Self(origins.into_iter().map(origin).collect::<Result<_, _>>()?))
    }

    /// Answers what a browser asks before it lets another origin's page ask; none where there are none.
    pub(super) fn layer(&self) -> Option<CorsLayer> {
        let headers = ["authorization", "content-type", "idempotency-key", "if-match", "last-event-id", "traceparent"];
        let own = ["x-correlation-id", "x-org-id", "x-user-id"];
        let exposed = ["etag", "idempotent-replayed", "location", "ratelimit", "ratelimit-policy", "retry-after"];
        let names = |names: &[&'static str]| names.iter().map(|name| HeaderName::from_static(name)).collect::<Vec<_>>();
        (!self.0.is_empty()).then(|| {
            CorsLayer::new()
                .allow_origin(AllowOrigin::list(self.0.iter().cloned()))
                .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
                .allow_headers(names(&[headers.as_slice(), &own].concat()))
                .expose_headers(names(&[exposed.as_slice(), &own[..1]].concat()))
                .max_age(PREFLIGHT)
        })
    }

    /// Refuses what a page of another origin makes a browser send: a form, a script, a web socket. A link is none of
    /// these. Whoever is no browser does not send the header.
    pub(super) fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(site) = headers.get(FETCH_SITE) else { return Ok(()) };
        if matches!(site.as_bytes(), b"same-origin" | b"none") || *method == Method::OPTIONS {
            return Ok(());
        }
        let origin = headers.get(header::ORIGIN);
        if origin.is_some_and(|origin| self.0.contains(origin)) || (origin.is_none() && method.is_safe()) {
            return Ok(());
        }
        Err(Problem::forbidden("a page of another origin may not ask here; --cors-origin allows it"))
    }
}

/// Tells a browser what it may do with an answer, where nobody has told it already.
pub(super) fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF),
        (header::REFERRER_POLICY, NO_REFERRER),
        (header::CACHE_CONTROL, NO_STORE),
        (header::CONTENT_SECURITY_POLICY, ANSWER_POLICY),
    ] {
        headers.entry(name).or_insert(value);
    }
}

/// What makes an answer one of the server's pages, or a part of one. One that is stricter with itself stays so.
pub(super) fn page() -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)
}
