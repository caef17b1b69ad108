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
    /// The options that another command for the same server needs.
    options: String,
    /// Whether the caller has said whose signature is trusted.
    has_ca: bool,
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

/// Members that an answer has to have, each with what it has to be. Whatever else answers at the address has others.
pub(super) type Members = &'static [(&'static str, fn(&Value) -> bool)];

/// What was in the way of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    /// The server cannot have seen the request.
    Unsent,
    /// It may have.
    Unheard,
    /// Its certificate is not trusted.
    Certificate,
    /// One of the two speaks TLS, and the other does not.
    OtherProtocol,
    /// What came is not an answer of this server's.
    Strange,
}

/// Why there is no answer.
struct Lost {
    reason: String,
    obstacle: Obstacle,
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
    /// What its answer has, where all went well.
    members: Members,
}

impl Asked<'_> {
    const fn reading(url: Url, members: Members) -> Self {
        Self { method: Method::GET, url, body: None, key: None, members }
    }
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
        let (options, is_reached) = (String::new(), AtomicBool::new(false));
        Ok(Self { http, base, user, token, options, has_ca: ca.is_some(), patience, is_reached })
    }

    /// The same, for somebody who has given these options.
    #[must_use]
    pub(super) fn with_options(self, options: String) -> Self {
        Self { options, ..self }
    }

    /// A command for the same server that the user can give next.
    pub(super) fn command(&self, arguments: &str) -> String {
        format!("rephase {arguments}{}", self.options)
    }

    /// Whether the server takes this client for the owner of what it was shown. A token shows nobody what is another's.
    pub(super) fn speaks_for(&self, owner: &str) -> bool {
        let user = self.user.as_ref().map(|user| user.as_bytes().trim_ascii());
        self.token.is_some() || user == Some(owner.trim().as_bytes())
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

    pub(super) async fn get(&self, path: &str, members: Members) -> Result<Value, Failure> {
        self.query(path, &[], members).await
    }

    /// A GET with a query.
    pub(super) async fn query(&self, path: &str, query: &[(&str, String)], members: Members) -> Result<Value, Failure> {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.ask(Asked::reading(url, members)).await
    }

    /// A POST that takes effect once, however often it has to be sent.
    pub(super) async fn post(&self, path: &str, body: &Value, members: Members) -> Result<Value, Failure> {
        let key = Some(Uuid::new_v4().to_string());
        self.ask(Asked { method: Method::POST, url: self.url(path), body: Some(body), key, members }).await
    }

    pub(super) async fn delete(&self, path: &str, members: Members) -> Result<Value, Failure> {
        self.ask(Asked { method: Method::DELETE, ..Asked::reading(self.url(path), members) }).await
    }

    /// Whatever is answered to a GET that is sent once.
    pub(super) async fn ask_once(&self, path: &str) -> Result<Answer, Failure> {
        let asked = Asked::reading(self.url(path), &[]);
        let answered = self.answer(&asked, self.patience).await;
        answered.map(|(answer, _)| answer).map_err(|lost| self.unreachable(&asked, &lost))
    }

    /// An answer that is read piece by piece. Each piece has its time.
    pub(super) async fn open(&self, path: &str) -> Result<Response, Failure> {
        let asked = Asked::reading(self.url(path), &[]);
        let response = self.send(&asked, None).await.map_err(|lost| self.unreachable(&asked, &lost))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (answer, _) = read(response).await.map_err(|lost| self.unreachable(&asked, &lost))?;
        Err(self.refused(&asked, &answer))
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
                Ok((answer, _)) if (200..300).contains(&answer.status) => return self.known(&asked, answer.body),
                Ok((answer, retry_after)) => {
                    let failure = self.refused(&asked, &answer);
                    if !is_temporary(&answer, tries) {
                        return Err(failure);
                    }
                    (failure, retry_after)
                }
                Err(lost) => {
                    // A server that was never there is not waited for; one that was may be starting again.
                    let was_there = self.is_reached.load(Ordering::Relaxed) || lost.obstacle != Obstacle::Unsent;
                    let failure = self.unreachable(&asked, &lost);
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

    /// The answer, where it is one of this server's.
    fn known(&self, asked: &Asked<'_>, body: Value) -> Result<Value, Failure> {
        let missing = asked.members.iter().find(|(name, is_it)| !is_it(&body[name]));
        let Some((name, _)) = missing else { return Ok(body) };
        let reason = format!("its answer has no `{name}` as it should be; is this a server of rephase?");
        Err(self.unreachable(asked, &Lost { reason, obstacle: Obstacle::Strange, is_final: true }))
    }

    /// What the server answered in place of what was asked for, with what to do about it.
    fn refused(&self, asked: &Asked<'_>, answer: &Answer) -> Failure {
        let failure = Failure::answered(answer.status, &answer.body);
        let is_operators = asked.url.path().contains("/internal/");
        let said = answer.body["error"].as_str().unwrap_or_default();
        let hint = match (answer.status, &self.token, &self.user) {
            // The operator's token names nobody, and a decision wants a name.
            (400..=403, ..) if is_operators && said.contains("X-User-ID") => "say who decides: --user USER",
            (401 | 403, ..) if is_operators => {
                "this is for who runs the server: show the admin's token, --token-file FILE (or REPHASE_TOKEN)"
            }
            (401, None, _) => "say who asks: --user USER (or REPHASE_USER), or --token-file FILE (or REPHASE_TOKEN)",
            (401, Some(_), _) => "show another token: --token-file FILE (or REPHASE_TOKEN)",
            (403, Some(_), Some(_)) if said.contains("different users") => {
                "the token says who asks: leave --user (and REPHASE_USER) away"
            }
            (403, Some(_), _) => "show its owner's token: --token-file FILE (or REPHASE_TOKEN)",
            (403, None, _) => "ask as its owner: --user USER",
            _ => return failure,
        };
        failure.hint(hint)
    }

    fn unreachable(&self, asked: &Asked<'_>, lost: &Lost) -> Failure {
        let Lost { reason, obstacle, .. } = lost;
        let what = if *obstacle == Obstacle::Strange { "" } else { " does not answer" };
        let message = format!("{}{what}: {reason}", self.base.as_str().trim_end_matches('/'));
        let failure = Failure::new(Exit::Unreachable, message);
        let is_read = asked.method == Method::GET;
        match obstacle {
            Obstacle::Unsent => failure.hint(
                "is the server running? Start it with `rephase serve`, or say where it is: --url URL (or REPHASE_URL)",
            ),
            Obstacle::Certificate if reason.contains("CaUsedAsEndEntity") => failure.hint(
                "the server shows the certificate of an authority (CA:TRUE); it needs one of its own: `openssl req -x509` \
                 makes one with -addext basicConstraints=critical,CA:FALSE",
            ),
            Obstacle::Certificate if is_unfit(reason) => {
                failure.hint("the server needs a certificate for this address that is valid now")
            }
            Obstacle::Certificate if self.has_ca => {
                failure.hint("who signed the server's certificate is not in the file of --ca-file")
            }
            Obstacle::Certificate => failure
                .hint("say whose signature to trust: --ca-file FILE with the certificate that signs the server's"),
            Obstacle::OtherProtocol if self.base.scheme() == "http" => failure.hint("does it speak TLS? Try https://"),
            Obstacle::OtherProtocol => failure.hint("does it speak TLS? If not, try http://"),
            Obstacle::Unheard | Obstacle::Strange if !is_read => {
                failure.hint("it may have been done all the same: look before you ask again")
            }
            Obstacle::Unheard => {
                failure.hint("`rephase health` says how the server is; --timeout SECONDS waits longer")
            }
            Obstacle::Strange => failure.hint("say where the server is: --url URL (or REPHASE_URL)"),
        }
    }
}

/// Whether the certificate is no good, whoever has signed it.
fn is_unfit(reason: &str) -> bool {
    ["Expired", "NotValidYet", "NotValidForName", "expired", "not valid yet", "not valid for name"]
        .iter()
        .any(|said| reason.contains(said))
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
        let has = |text: &str| causes(error).any(|cause| cause.to_string().contains(text));
        let obstacle = if has("certificate") {
            Obstacle::Certificate
        } else if has("invalid HTTP version") || has("InvalidContentType") {
            Obstacle::OtherProtocol
        } else if error.is_connect() {
            Obstacle::Unsent
        } else {
            Obstacle::Unheard
        };
        // A certificate that is not trusted will not be the next time.
        let is_final = error.is_builder() || matches!(obstacle, Obstacle::Certificate | Obstacle::OtherProtocol);
        Self { reason: reason_of(error), obstacle, is_final }
    }

    fn strange(reason: &str) -> Self {
        Self { reason: reason.to_owned(), obstacle: Obstacle::Strange, is_final: true }
    }
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// The innermost cause says what happened; those around it only where.
fn reason_of(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long (--timeout SECONDS)".to_owned();
    }
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}
