//! What every command that speaks to a server has in common: where it is, who asks, and how it is to be answered.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::client::Client;
use super::failure::Failure;
use super::output::{Output, remark};

const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// The largest token, in bytes: as much as a request's head can be.
const MAX_TOKEN_BYTES: u64 = 16 * 1_024;

/// The largest file with certificates, in bytes.
const MAX_CA_BYTES: u64 = 4 * 1_024 * 1_024;

/// Options of every command that speaks to a server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server and output")]
pub struct Common {
    // The environment is read by hand: clap would take a variable for something that was said, and so for a conflict.
    #[arg(
        long,
        value_name = "URL",
        global = true,
        help = "Where the server is: http or https [env: REPHASE_URL] [default: http://127.0.0.1:8080]"
    )]
    url: Option<String>,
    #[arg(
        long,
        value_name = "USER",
        global = true,
        help = "Who asks, where the server believes names [env: REPHASE_USER]"
    )]
    user: Option<String>,
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        help = "File with the token to show; the token itself may be in REPHASE_TOKEN, and is never an argument"
    )]
    token_file: Option<PathBuf>,
    /// File with the certificates (PEM) that sign for an https server, in place of the system's
    #[arg(long, value_name = "FILE", global = true)]
    ca_file: Option<PathBuf>,
    /// How long one request may take with all its repetitions, in seconds
    #[arg(long, value_name = "SECONDS", global = true, default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout: u64,
    /// JSON for machines: one object a line on standard output, errors as an object on standard error
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// A variable of the environment; an empty one is none.
fn variable(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Failure::usage(format!("{name} is not UTF-8"))),
    }
}

/// The start of the file at `path`, no larger than `limit`.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let unreadable = |error: std::io::Error| Failure::usage(format!("{} cannot be read: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let is_too_large = u64::try_from(bytes.len()).is_ok_and(|size| size > limit);
    if is_too_large {
        Err(Failure::usage(format!("{} has more than {limit} bytes", path.display())))
    } else {
        Ok(bytes)
    }
}

impl Common {
    pub(super) fn url(&self) -> Result<String, Failure> {
        let url = self.url.clone().map_or_else(|| variable("REPHASE_URL"), |url| Ok(Some(url)))?;
        Ok(url.unwrap_or_else(|| DEFAULT_URL.to_owned()))
    }

    fn user(&self) -> Result<Option<String>, Failure> {
        self.user.clone().map_or_else(|| variable("REPHASE_USER"), |user| Ok(Some(user)))
    }

    fn token(&self) -> Result<Option<String>, Failure> {
        let Some(path) = &self.token_file else { return variable("REPHASE_TOKEN") };
        let token = String::from_utf8(read_bounded(path, MAX_TOKEN_BYTES)?);
        // What is in the file is not repeated: it was meant to be a secret.
        let token = token.ok().map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        token.map(Some).ok_or_else(|| Failure::usage(format!("{} has no token", path.display())))
    }

    /// What the user asks of this server, to be repeated in another command. A secret is in a file, and stays there.
    fn repeated(&self) -> String {
        let quoted = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!(" --{name} '{}'", value.replace('\'', r"'\''")))
        };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let (token_file, ca_file) = (path(&self.token_file), path(&self.ca_file));
        let options = [("url", &self.url), ("user", &self.user), ("token-file", &token_file), ("ca-file", &ca_file)];
        options.into_iter().filter_map(|(name, value)| quoted(name, value)).collect()
    }

    pub(super) fn client(&self) -> Result<Client, Failure> {
        let ca = self.ca_file.as_deref().map(|path| read_bounded(path, MAX_CA_BYTES)).transpose()?;
        let patience = Duration::from_secs(self.timeout);
        let client = Client::new(&self.url()?, self.user()?, self.token()?, ca.as_deref(), patience)?;
        let client = client.with_options(self.repeated());
        if client.exposes_token() {
            remark(self.json, "the token goes over the network as it is; https would keep it to the two of you");
        }
        Ok(client)
    }

    pub(super) fn session(&self) -> Result<Session, Failure> {
        Ok(Session { client: self.client()?, output: Output::new(self.json) })
    }
}

/// A server to ask, and somebody to tell.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) output: Output,
}

impl Session {
    /// A command that the user can give next.
    pub(super) fn command(&self, arguments: &str) -> String {
        self.client.command(arguments)
    }
}
