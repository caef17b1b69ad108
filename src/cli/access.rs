//! Who may use the server: the options, and the files and variables with secrets behind them.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use crate::app::{Access, Bearers, Browsers, Role, Tls, Tokens};
use crate::config::Settings;

/// The largest secret, and the largest file with a key or certificates, in bytes.
const MAX_SECRET_BYTES: u64 = 4 * 1_024;
const MAX_FILE_BYTES: u64 = 256 * 1_024;

/// From how many bytes on a secret is as good as its signatures (RFC 7518, section 3.2).
const GOOD_SECRET_BYTES: usize = 32;

/// The shortest token of a role, in bytes: shorter ones are found by trying.
const MIN_TOKEN_BYTES: usize = 16;

/// The variable with the secret of tokens, in place of a file.
const JWT_SECRET: &str = "REPHASE_JWT_SECRET";

/// The variables that have secrets themselves. They are no options: the arguments of a process are shown to everybody.
pub(super) const SECRETS: [&str; 5] =
    [JWT_SECRET, "REPHASE_ADMIN_TOKEN", "REPHASE_WORKER_TOKEN", "REPHASE_EVENTS_TOKEN", "REPHASE_METRICS_TOKEN"];

/// How users say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Auth {
    /// By name: X-User-ID is believed.
    Dev,
    /// By a token of the identity service.
    Jwt,
}

/// Options of `serve` that say who may use it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Who may use it")]
pub(super) struct AccessArguments {
    /// How users say who they are: dev, by X-User-ID, which is believed; jwt, by a token. The default is jwt where there
    /// is a secret or a key, else dev.
    #[arg(long, value_name = "MODE", value_enum)]
    auth: Option<Auth>,
    /// Allow --auth dev on an address that others can reach.
    #[arg(long)]
    anybody_may_say_who_they_are: bool,
    /// File with the secret that tokens are signed with (HS256). Or `REPHASE_JWT_SECRET`, the secret itself.
    #[arg(long, value_name = "FILE")]
    jwt_secret_file: Option<PathBuf>,
    /// File with the public key of those who sign tokens, in PEM: RSA (RS256) or P-256 (ES256).
    #[arg(long, value_name = "FILE")]
    jwt_public_key_file: Option<PathBuf>,
    /// File with the public keys of those who sign tokens, a JSON web key set; a token names its key by kid.
    #[arg(long, value_name = "FILE")]
    jwks_file: Option<PathBuf>,
    /// How far the clock of whoever gives out tokens may be off, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=600))]
    jwt_leeway: u64,
    /// File with the bearer token of whoever runs the server: for /internal, /_test, and all that the next three open.
    /// Or `REPHASE_ADMIN_TOKEN`, the token itself. Where there is none, these routes are open on loopback and closed
    /// elsewhere.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// File with the bearer token of workers. Or `REPHASE_WORKER_TOKEN`.
    #[arg(long, value_name = "FILE")]
    worker_token_file: Option<PathBuf>,
    /// File with the bearer token of services that speak events. Or `REPHASE_EVENTS_TOKEN`.
    #[arg(long, value_name = "FILE")]
    events_token_file: Option<PathBuf>,
    /// File with the bearer token for /metrics. Or `REPHASE_METRICS_TOKEN`.
    #[arg(long, value_name = "FILE")]
    metrics_token_file: Option<PathBuf>,
    /// Origin whose pages may use the API, as `https://school.example`. Repeatable, or with commas.
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',')]
    cors_origin: Vec<String>,
    /// Name that the server goes by, without a port, as rephase.school.example. On loopback it goes by localhost and the
    /// addresses of loopback anyway, and by any name elsewhere; where this is given, by these and no others. Asked of
    /// requests that need no token. Repeatable, or with commas.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    host: Vec<String>,
    /// File with the certificate to speak TLS with, and those that vouch for it, in PEM.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// File with the key of the certificate, in PEM.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

impl AccessArguments {
    /// What the options say. `is_free` where whoever reaches the server may do anything anyway.
    pub(super) fn read(&self, listen: SocketAddr, is_free: bool) -> anyhow::Result<(Access, Option<Tls>)> {
        let is_reachable = !listen.ip().to_canonical().is_loopback();
        let tokens = self.tokens()?;
        anyhow::ensure!(
            tokens.is_some() || !is_reachable || self.anybody_may_say_who_they_are,
            "--auth dev believes whatever name is sent, and others than this machine's users reach {listen}; use --auth \
             jwt, listen on 127.0.0.1, or say --anybody-may-say-who-they-are"
        );
        let bearers = self.bearers()?;
        let bearers = if is_reachable && !is_free { bearers.closed() } else { bearers };
        warn_of_closed(&bearers);
        let browsers = Browsers::of(self.cors_origin.iter().map(String::as_str)).context("--cors-origin")?;
        let browsers = browsers.with_hosts(self.host.iter().map(String::as_str)).context("--host")?;
        Ok((Access { tokens, bearers, browsers }, self.tls()?))
    }

    fn tokens(&self) -> anyhow::Result<Option<Tokens>> {
        let secret = secret(self.jwt_secret_file.as_deref(), JWT_SECRET)?;
        let given = [secret.is_some(), self.jwt_public_key_file.is_some(), self.jwks_file.is_some()];
        let given = given.into_iter().filter(|is_given| *is_given).count();
        let ways = "--jwt-secret-file (or REPHASE_JWT_SECRET), --jwt-public-key-file and --jwks-file";
        match (self.auth, given) {
            (Some(Auth::Dev) | None, 0) => return Ok(None),
            (Some(Auth::Dev), _) => {
                anyhow::bail!("--auth dev asks for no tokens, and there is a key for them; use --auth jwt")
            }
            (Some(Auth::Jwt), 0) => anyhow::bail!("--auth jwt needs one of {ways}"),
            (Some(Auth::Jwt) | None, 1) => {}
            (Some(Auth::Jwt) | None, _) => anyhow::bail!("give only one of {ways}"),
        }
        let unusable = |path: &Path| format!("the key in {} cannot be used", path.display());
        let tokens = match (secret, &self.jwt_public_key_file, &self.jwks_file) {
            (Some(secret), ..) => {
                if secret.len() < GOOD_SECRET_BYTES {
                    tracing::warn!("the secret has less than {GOOD_SECRET_BYTES} bytes and can be guessed");
                }
                Tokens::new(&secret)
            }
            (None, Some(path), _) => {
                Tokens::from_public_key(&contents(path, MAX_FILE_BYTES)?).with_context(|| unusable(path))?
            }
            (None, None, Some(path)) => {
                Tokens::from_key_set(&contents(path, MAX_FILE_BYTES)?).with_context(|| unusable(path))?
            }
            (None, None, None) => return Ok(None),
        };
        Ok(Some(tokens.with_leeway_ms(self.jwt_leeway * 1_000)))
    }

    fn bearers(&self) -> anyhow::Result<Bearers> {
        let mut bearers = Bearers::default();
        for role in Role::ALL {
            let (name, variable) = (role.name(), variable(role));
            let Some(token) = secret(self.file(role), &variable)? else { continue };
            let is_fit = token.len() >= MIN_TOKEN_BYTES && token.iter().all(u8::is_ascii_graphic);
            anyhow::ensure!(
                is_fit,
                "the {name} token is not fit: it has at least {MIN_TOKEN_BYTES} characters of ASCII, and no space"
            );
            bearers = bearers.with(role, &token);
        }
        Ok(bearers)
    }

    fn file(&self, role: Role) -> Option<&Path> {
        match role {
            Role::Operator => self.admin_token_file.as_deref(),
            Role::Worker => self.worker_token_file.as_deref(),
            Role::Events => self.events_token_file.as_deref(),
            Role::Metrics => self.metrics_token_file.as_deref(),
        }
    }

    fn tls(&self) -> anyhow::Result<Option<Tls>> {
        let (certificates, key) = match (&self.tls_cert, &self.tls_key) {
            (None, None) => return Ok(None),
            (Some(certificates), Some(key)) => (certificates, key),
            (Some(_), None) => anyhow::bail!("--tls-cert needs --tls-key"),
            (None, Some(_)) => anyhow::bail!("--tls-key needs --tls-cert"),
        };
        let unusable = || format!("{} and {} cannot be used", certificates.display(), key.display());
        let (chain, key) = (contents(certificates, MAX_FILE_BYTES)?, contents(key, MAX_FILE_BYTES)?);
        Ok(Some(Tls::new(&chain, &key).with_context(unusable)?))
    }
}

/// Says which routes nobody can use: whoever wants to will be told so by a 403 alone.
fn warn_of_closed(bearers: &Bearers) {
    let closed: Vec<_> = Role::ALL.into_iter().filter(|role| bearers.is_shut(*role)).collect();
    if closed.is_empty() {
        return;
    }
    let routes: Vec<_> = closed.iter().map(|role| role.routes()).collect();
    let routes = routes.join(", ");
    tracing::warn!(
        "nobody can use {routes} (403): others reach this address, and there is no token; --admin-token-file opens all of \
         them"
    );
}

/// The variable with the token of a role.
fn variable(role: Role) -> String {
    format!("REPHASE_{}_TOKEN", role.name().to_uppercase())
}

/// Says which secrets come from variables.
pub(super) fn note_secrets(settings: &mut Settings) {
    for variable in SECRETS.into_iter().filter(|variable| std::env::var_os(variable).is_some()) {
        let name = variable.trim_start_matches("REPHASE_").to_lowercase().replace('_', "-");
        settings.note_secret(&name, variable);
    }
}

/// The secret in a file, else in a variable, white space around it left out.
fn secret(file: Option<&Path>, variable: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let (bytes, place) = match (file, std::env::var_os(variable)) {
        (None, None) => return Ok(None),
        (Some(file), Some(_)) => {
            anyhow::bail!("there is a secret in {} and one in {variable}; give one", file.display())
        }
        (Some(file), None) => (contents(file, MAX_SECRET_BYTES)?, file.display().to_string()),
        (None, Some(value)) => (value.into_encoded_bytes(), variable.to_owned()),
    };
    let secret = bytes.trim_ascii();
    anyhow::ensure!(!secret.is_empty(), "{place} is empty, and that is no secret");
    Ok(Some(secret.to_owned()))
}

fn contents(path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    let unreadable = || format!("{} cannot be used", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(unreadable)?;
    file.take(limit + 1).read_to_end(&mut bytes).with_context(unreadable)?;
    let is_too_large = u64::try_from(bytes.len()).is_ok_and(|size| size > limit);
    anyhow::ensure!(!is_too_large, "{} is larger than a secret, a key or a certificate can be", path.display());
    Ok(bytes)
}
