//! What is logged, and how it is written.

use std::ffi::OsStr;
use std::io::IsTerminal as _;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Arguments of every command that are about its log, which goes to standard error.
#[derive(Debug, Args)]
pub struct LogArguments {
    /// How the log is written: for people, or as a JSON object a line.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Human, global = true)]
    log_format: LogFormat,
    /// What is logged: a level, or TARGET=LEVEL with commas between; of what is not named it is as much as without this.
    /// The environment's `RUST_LOG` says it where this does not. At debug there are spans for requests, steps, commits and dispatches, with how long each took.
    #[arg(long, value_name = "FILTER", value_parser = parse_filter, global = true)]
    log: Option<String>,
}

/// What the server logs where nobody says anything.
pub const SERVE_LEVEL: &str = "info";

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Human,
    /// A JSON object a line.
    Json,
}

fn parse_filter(text: &str) -> Result<String, String> {
    EnvFilter::builder().parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// What `RUST_LOG` says, where that can be read.
pub(super) fn rust_log() -> Option<String> {
    std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.is_empty() && parse_filter(text).is_ok())
}

/// Whether the log has colours: `NO_COLOR`, where it is not empty, says that nothing has.
fn is_coloured(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

impl LogArguments {
    /// Logs from now on: at `default_level` where nobody says anything.
    pub fn start(&self, default_level: &str) {
        let named = self.log.clone().or_else(rust_log);
        let filter = named.map_or_else(|| default_level.to_owned(), |named| format!("{default_level},{named}"));
        let filter = EnvFilter::new(filter);
        let is_coloured = is_coloured(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref());
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        // A log that cannot be written is no reason to stop working.
        let log = log.with_span_events(FmtSpan::CLOSE).log_internal_errors(false);
        match self.log_format {
            LogFormat::Human => log.with_ansi(is_coloured).init(),
            LogFormat::Json => log.json().flatten_event(true).with_span_list(false).init(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_whose_user_likes_colours_gets_them() {
        for (is_terminal, no_color, coloured) in
            [(true, None, true), (true, Some(""), true), (true, Some("1"), false), (false, None, false)]
        {
            assert_eq!(is_coloured(is_terminal, no_color.map(OsStr::new)), coloured, "{no_color:?}");
        }
    }
}
