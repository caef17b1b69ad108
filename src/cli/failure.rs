//! Why a command did not do what was asked, as an exit code, and in words that say what to do next.

use std::fmt;
use std::process::ExitCode;

use serde_json::{Value, json};

/// How a command ends. Scripts read these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// What was asked for was tried, and failed.
    Failed = 1,
    /// What was asked for makes no sense.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// It is not possible now.
    Refused = 4,
    /// This user may not.
    NotAllowed = 5,
    /// The server does not answer, or cannot serve.
    Unreachable = 6,
}

/// What the options and files of `serve` say is wrong, and will be wrong the next time: it ends as wrong usage does.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(super) struct Misconfigured(pub(super) anyhow::Error);

/// Which code the program ends with, where a command only says why.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_configuration = error.is::<Misconfigured>() || error.is::<crate::config::Error>();
    ExitCode::from(if is_configuration { Exit::Usage } else { Exit::Failed } as u8)
}

/// Those numbers, for people.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  what was asked for was tried and failed: a batch that was waited for, say
  2  wrong usage
  3  there is no such thing
  4  refused, as it stands now
  5  not allowed
  6  the server cannot be reached, or cannot serve";

/// Why a command failed.
#[derive(Debug)]
pub(super) struct Failure {
    exit: Exit,
    message: String,
    /// The server's code for it.
    code: Option<String>,
    correlation_id: Option<String>,
    hint: Option<String>,
    /// The batch that is there all the same.
    batch: Option<Box<str>>,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), code: None, correlation_id: None, hint: None, batch: None }
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// What the server answered in place of what was asked for.
    pub(super) fn answered(status: u16, body: &Value) -> Self {
        let member = |name: &str| body[name].as_str().map(str::to_owned);
        let exit = match status {
            401 | 403 => Exit::NotAllowed,
            404 | 410 => Exit::NotFound,
            402 | 409 | 412 | 422 | 423 | 429 => Exit::Refused,
            400..=499 => Exit::Usage,
            502..=504 => Exit::Unreachable,
            _ => Exit::Failed,
        };
        let message = member("error").or_else(|| member("detail"));
        let message = message.unwrap_or_else(|| format!("the server answered with {status} and did not say why"));
        let (code, correlation_id) = (member("error_code"), member("correlation_id"));
        let hint = match status {
            429 => Some("wait a while, then ask again"),
            502..=504 => Some("`rephase health` says how the server is"),
            _ => None,
        };
        Self { exit, message, code, correlation_id, hint: hint.map(str::to_owned), batch: None }
    }

    /// Says what to do next, where nothing better was said.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Names the batch that is there all the same.
    #[must_use]
    pub(super) fn of_batch(mut self, batch: &str) -> Self {
        self.batch = Some(batch.into());
        self
    }

    /// Says what to do next where the failure is that there is no such thing, or that it is not possible now.
    #[must_use]
    pub(super) fn hint_where(self, exit: Exit, hint: impl Into<String>) -> Self {
        if self.is(exit) { self.hint(hint) } else { self }
    }

    /// In the words of the command line, where the server names members of a body.
    #[must_use]
    pub(super) fn in_options(mut self) -> Self {
        self.message = in_options(&self.message);
        self
    }

    pub(super) fn is(&self, exit: Exit) -> bool {
        self.exit == exit
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }

    /// What to do next.
    pub(super) fn next(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// As a machine reads it.
    pub(super) fn to_json(&self) -> Value {
        let mut object = json!({
            "error": self.message,
            "error_code": self.code,
            "correlation_id": self.correlation_id,
            "hint": self.hint,
            "exit_code": self.exit as u8,
        });
        if let Some(batch) = &self.batch {
            object["batch_id"] = (**batch).into();
        }
        object
    }
}

/// What the server says of the members of a body, said of the options that become these.
pub(super) fn in_options(said: &str) -> String {
    let options = [("\"force\": true", "--force"), ("essay_ids", "--essay"), ("only_failed", "--only-failed")];
    options.into_iter().fold(said.to_owned(), |said, (member, option)| said.replace(member, option))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match (&self.code, &self.correlation_id) {
            (Some(code), Some(id)) => write!(f, " ({code}, correlation id {id})"),
            (Some(said), None) | (None, Some(said)) => write!(f, " ({said})"),
            (None, None) => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format!("{error:#}"))
    }
}
