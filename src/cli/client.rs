//! A client of the server, over HTTP. A request whose answer was lost is sent again, and takes effect once.

use std::error::Error as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Method, Response, Url};
use serde_json::Value;
use uuid::Uuid;

use super::failure::{Exit, Failure};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often one request is sent at the most.
const MAX_TRIES: u32 = 10;

/// The first wait before a request is sent again, and the longest. In between it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1_024 * 1_024;

pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    user: Option<HeaderValue>,
    token: Option<HeaderValue>,
    /// How long one request may take with all its repetitions.
    patience: Duration,
    /// Whether the server has been there. Before, there is nothing to wait for.
    is_reached: AtomicBool,
}

/// An answer, read whole.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

/// Why there is no answer.
struct Lost {
    reason: String,
    /// Whether the server cannot have seen the request.
    is_unsent: bool,
    /// Whether it makes no sense to try again.
    is_final: bool,
}

/// One request, as it is sent as often as needed.
struct Asked<'a> {
    method: Method,
    url: Url,
    body: Option<&'a Value>,
    /// Under which it takes effect once.
    key: Option<String>,
}

fn header(what: &str, text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| Failure::usage(format!("{what} cannot be sent in a header")))
}

/// Where a server is, as its users write it.
fn base_of(url: &str) -> Result<Url, Failure> {
    let unusable = |reason: &str| Failure::usage(format!("--url {url}: {reason}")).hint("as in http://127.0.0.1:8080");
    let mut base = Url::parse(url).map_err(|error| unusable(&error.to_string()))?;
    if !matches!(base.scheme(), "http" | "https") {
        return Err(unusable("only http and https can be asked"));
    }
    if !base.username().is_empty() || base.password().is_some() {
        let failure = Failure::usage("--url has a name or a password in it, which others can read in the process list");
        return Err(failure.hint("put a token into a file and give --token-file FILE"));
    }
    if base.query().is_some() || base.fragment().is_some() {
        return Err(unusable("it ends before ? and #"));
    }
    let path = base.path().trim_end_matches('/').to_owned();
    base.set_path(&path);
    Ok(base)
}

impl Client {
    /// A client of the server at `url` that speaks for `user`, or shows `token`. `ca` has the certificates to trust in
    /// place of the system's.
    pub(super) fn new(
        url: &str,
        user: Option<String>,
        token: Option<String>,
        ca: Option<&[u8]>,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let base = base_of(url)?;
        // Whoever is around this program may have chosen another one, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let builder = builder.connect_timeout(CONNECT_TIMEOUT.min(patience)).read_timeout(patience);
        let builder = match ca {
            Some(pem) => {
                let certificates = Certificate::from_pem_bundle(pem).ok().filter(|found| !found.is_empty());
                let no_pem = || Failure::usage("--ca-file has no certificate in PEM form");
                builder.tls_certs_only(certificates.ok_or_else(no_pem)?)
            }
            // The system's are read only for a server that needs them.
            None if base.scheme() == "http" => builder.tls_certs_only([]),
            None => builder,
        };
        let http =
            builder.build().map_err(|error| Failure::failed(format!("no HTTP client: {}", reason_of(&error))))?;
        let user = user.map(|user| header("the user", &user)).transpose()?;
        let mut token = token.map(|token| header("the token", &format!("Bearer {token}"))).transpose()?;
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        Ok(Self { http, base, user, token, patience, is_reached: AtomicBool::new(false) })
    }

    /// Whether others on the way could read the token.
    pub(super) fn exposes_token(&self) -> bool {
        let host = self.base.host_str().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        self.token.is_some() && self.base.scheme() == "http" && !is_here
    }

    /// How long one request may take.
    pub(super) const fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.query(path, &[]).await
    }

    /// A GET with a query.
    pub(super) async fn query(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.ask(Asked { method: Method::GET, url, body: None, key: None }).await
    }

    /// A POST that takes effect once, however often it has to be sent.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let key = Some(Uuid::new_v4().to_string());
        self.ask(Asked { method: Method::POST, url: self.url(path), body: Some(body), key }).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Asked { method: Method::DELETE, url: self.url(path), body: None, key: None }).await
    }

    /// Whatever is answered to a GET that is sent once.
    pub(super) async fn ask_once(&self, path: &str) -> Result<Answer, Failure> {
        let asked = Asked { method: Method::GET, url: self.url(path), body: None, key: None };
        let answered = self.answer(&asked, self.patience).await;
        answered.map(|(answer, _)| answer).map_err(|lost| self.unreachable(&lost))
    }

    /// An answer that is read piece by piece. Each piece has its time.
    pub(super) async fn open(&self, path: &str) -> Result<Response, Failure> {
        let asked = Asked { method: Method::GET, url: self.url(path), body: None, key: None };
        let response = self.send(&asked, None).await.map_err(|lost| self.unreachable(&lost))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (answer, _) = read(response).await.map_err(|lost| self.unreachable(&lost))?;
        Err(Failure::answered(answer.status, &answer.body))
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }

    async fn ask(&self, asked: Asked<'_>) -> Result<Value, Failure> {
        let began = Instant::now();
        let mut wait = FIRST_WAIT;
        let mut tries = 0;
        loop {
            tries += 1;
            let left = self.patience.saturating_sub(began.elapsed()).max(FIRST_WAIT);
            let (failure, asked_to_wait) = match self.answer(&asked, left).await {
                Ok((answer, _)) if (200..300).contains(&answer.status) => return Ok(answer.body),
                Ok((answer, retry_after)) => {
                    let failure = Failure::answered(answer.status, &answer.body);
                    if !is_temporary(&answer, tries) {
                        return Err(failure);
                    }
                    (failure, retry_after)
                }
                Err(lost) => {
                    // A server that was never there is not waited for; one that was may be starting again.
                    let was_there = self.is_reached.load(Ordering::Relaxed) || !lost.is_unsent;
                    let failure = self.unreachable(&lost);
                    if lost.is_final || !was_there {
                        return Err(failure);
                    }
                    (failure, None)
                }
            };
            let pause = asked_to_wait.unwrap_or(wait).clamp(FIRST_WAIT, LONGEST_WAIT);
            if tries >= MAX_TRIES || began.elapsed() + pause >= self.patience {
                return Err(failure);
            }
            tokio::time::sleep(pause).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn answer(&self, asked: &Asked<'_>, within: Duration) -> Result<(Answer, Option<Duration>), Lost> {
        read(self.send(asked, Some(within)).await?).await
    }

    async fn send(&self, asked: &Asked<'_>, within: Option<Duration>) -> Result<Response, Lost> {
        let mut request = self.http.request(asked.method.clone(), asked.url.clone());
        if let Some(body) = asked.body {
            request = request.json(body);
        }
        if let Some(key) = &asked.key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(user) = &self.user {
            request = request.header("X-User-ID", user);
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        if let Some(within) = within {
            request = request.timeout(within);
        }
        let response = request.send().await.map_err(|error| Lost::of(&error))?;
        self.is_reached.store(true, Ordering::Relaxed);
        Ok(response)
    }

    fn unreachable(&self, lost: &Lost) -> Failure {
        let message = format!("{} does not answer: {}", self.base.as_str().trim_end_matches('/'), lost.reason);
        let hint = if lost.is_unsent {
            "is the server running? Start it with `rephase serve`, or say where it is: --url URL (or REPHASE_URL)"
        } else {
            "it may have been done all the same: look before you ask again"
        };
        Failure::new(Exit::Unreachable, message).hint(hint)
    }
}

/// Whether the same request can do better in a moment: there was no room for it, or its first sending is being served.
fn is_temporary(answer: &Answer, tries: u32) -> bool {
    let is_being_served = || answer.body["error"].as_str().is_some_and(|error| error.contains("Idempotency-Key"));
    answer.status == 503 || (answer.status == 409 && tries > 1 && is_being_served())
}

async fn read(mut response: Response) -> Result<(Answer, Option<Duration>), Lost> {
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut bytes = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| Lost::of(&error))? {
        if bytes.len() + part.len() > MAX_ANSWER_BYTES {
            return Err(Lost::strange("its answer has no end"));
        }
        bytes.extend_from_slice(&part);
    }
    match serde_json::from_slice(&bytes) {
        Ok(body) => Ok((Answer { status, body }, retry_after.map(Duration::from_secs))),
        // The status of an error says enough.
        Err(_) if status >= 400 => Ok((Answer { status, body: Value::Null }, retry_after.map(Duration::from_secs))),
        Err(_) => Err(Lost::strange("its answer is no JSON; is this a server of rephase?")),
    }
}

impl Lost {
    fn of(error: &reqwest::Error) -> Self {
        // A certificate that is not trusted will not be the next time.
        let is_final = error.is_builder() || is_about_certificates(error);
        Self { reason: reason_of(error), is_unsent: error.is_connect(), is_final }
    }

    fn strange(reason: &str) -> Self {
        Self { reason: reason.to_owned(), is_unsent: false, is_final: true }
    }
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

fn is_about_certificates(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| cause.to_string().contains("certificate"))
}

/// The innermost cause says what happened; those around it only where.
fn reason_of(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long (--timeout SECONDS)".to_owned();
    }
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}
