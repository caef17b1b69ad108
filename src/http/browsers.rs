//! What browsers are told, and which pages may use them to ask.

use std::net::IpAddr;
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

/// Which pages may ask, and by which names of the server.
#[derive(Debug, Clone, Default)]
pub struct Browsers {
    /// The origins whose pages may, beside the server's own.
    origins: Arc<[HeaderValue]>,
    /// The names that the server goes by beside those of loopback; none where any will do.
    hosts: Option<Arc<[String]>>,
}

/// What is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no origin: give SCHEME://HOST or SCHEME://HOST:PORT, as https://school.example; there is no *")]
pub struct NoOrigin(String);

/// What is no name of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no name of a server: give the name or address alone, without scheme and port, as rephase.school.example"
)]
pub struct NoHost(String);

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
        Ok(Self { origins: origins.into_iter().map(origin).collect::<Result<_, _>>()?, hosts: None })
    }

    /// The server goes by these names and those of loopback, and by no other. Where there are none, by any.
    ///
    /// # Errors
    /// Where one of them is none.
    pub fn with_hosts<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Result<Self, NoHost> {
        let host = |name: &str| {
            let is_part = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            let is_fit = !name.is_empty() && (name.chars().all(is_part) || address_of(name).is_some());
            if is_fit { Ok(name.to_owned()) } else { Err(NoHost(name.to_owned())) }
        };
        let hosts = names.into_iter().map(host).collect::<Result<Arc<[_]>, _>>()?;
        Ok(Self { hosts: Some(hosts).filter(|hosts| !hosts.is_empty()), ..self })
    }

    /// The server listens on loopback, so it goes by no names but those of loopback and those that it was given. A page
    /// that says that its own name is that of this machine (DNS rebinding) could ask as if it were the server's own.
    #[must_use]
    pub fn on_loopback(mut self) -> Self {
        self.hosts.get_or_insert_default();
        self
    }

    /// Answers what a browser asks before it lets another origin's page ask; none where there are none.
    pub(super) fn layer(&self) -> Option<CorsLayer> {
        let headers = ["authorization", "content-type", "idempotency-key", "if-match", "last-event-id", "traceparent"];
        let own = ["x-correlation-id", "x-org-id", "x-user-id"];
        let exposed = ["etag", "idempotent-replayed", "location", "ratelimit", "ratelimit-policy", "retry-after"];
        let names = |names: &[&'static str]| names.iter().map(|name| HeaderName::from_static(name)).collect::<Vec<_>>();
        (!self.origins.is_empty()).then(|| {
            CorsLayer::new()
                .allow_origin(AllowOrigin::list(self.origins.iter().cloned()))
                .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
                .allow_headers(names(&[headers.as_slice(), &own].concat()))
                .expose_headers(names(&[exposed.as_slice(), &own[..1]].concat()))
                .max_age(PREFLIGHT)
        })
    }

    /// Refuses what a page of another origin makes a browser send: a form, a script, a web socket. A link is none of
    /// these. A browser says where the page is from; to a server that is neither https nor on loopback only by `Origin`.
    /// Whoever is no browser sends neither header.
    pub(super) fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
        let (site, origin) = (headers.get(FETCH_SITE), headers.get(header::ORIGIN));
        if *method == Method::OPTIONS || origin.is_some_and(|origin| self.origins.contains(origin)) {
            return Ok(());
        }
        let is_own = match (site, origin) {
            (None, None) => true,
            (None, Some(origin)) => is_of(origin, headers),
            (Some(site), None) => method.is_safe() || is_same(site),
            (Some(site), Some(_)) => is_same(site),
        };
        let refusal = || Problem::forbidden("a page of another origin may not ask here; --cors-origin allows it");
        is_own.then_some(()).ok_or_else(refusal)
    }

    /// The names that the server goes by; none where any will do.
    pub(super) fn names(&self) -> Option<Names> {
        self.hosts.clone().map(Names)
    }
}

/// The names that the server goes by, beside those of loopback.
#[derive(Debug, Clone)]
pub(super) struct Names(Arc<[String]>);

impl Names {
    /// Lets a request on that calls the server by one of them. No browser leaves out the name.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let mut named = headers.get_all(header::HOST).iter();
        let unknown = named.find(|host| !host.to_str().is_ok_and(|host| is_known(&self.0, host)));
        unknown.map_or(Ok(()), |host| {
            let host = String::from_utf8_lossy(host.as_bytes());
            Err(Problem::forbidden(format!("this server does not go by the name '{host}'; --host allows it")))
        })
    }
}

/// Whether the browser says that the page is the server's own, or that there is none.
fn is_same(site: &HeaderValue) -> bool {
    matches!(site.as_bytes(), b"same-origin" | b"none")
}

/// Whether this is the origin of the server as the request names it. A proxy in front of it may speak another scheme.
fn is_of(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    let named = headers.get(header::HOST).and_then(|named| named.to_str().ok());
    host.zip(named).is_some_and(|(host, named)| host.eq_ignore_ascii_case(named))
}

fn is_known(hosts: &[String], host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit());
    let name = host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost")
        || address_of(name).is_some_and(|address| address.to_canonical().is_loopback())
        || hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The address that a name is, as in a URL.
fn address_of(name: &str) -> Option<IpAddr> {
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(name) => name.parse().ok().map(IpAddr::V6),
        None => name.parse().ok().map(IpAddr::V4),
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
