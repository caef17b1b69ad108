//! What is logged, and how it is written.

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
    /// What is logged: a level, or TARGET=LEVEL with commas between. The environment's `RUST_LOG` says it where this does
    /// not. At debug there are spans for requests, steps, commits and dispatches, with how long each took.
    #[arg(long, value_name = "FILTER", value_parser = parse_filter, global = true)]
    log: Option<String>,
}

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

impl LogArguments {
    /// Logs from now on: at `default_level` where nobody says anything.
    pub fn start(&self, default_level: &str) {
        let named = self.log.as_deref().and_then(|filter| EnvFilter::builder().parse(filter).ok());
        let filter = named.or_else(|| EnvFilter::try_from_default_env().ok());
        let filter = filter.unwrap_or_else(|| EnvFilter::new(default_level));
        let is_terminal = std::io::stderr().is_terminal();
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        // A log that cannot be written is no reason to stop working.
        let log = log.with_span_events(FmtSpan::CLOSE).log_internal_errors(false);
        match self.log_format {
            LogFormat::Human => log.with_ansi(is_terminal).init(),
            LogFormat::Json => log.json().flatten_event(true).with_span_list(false).init(),
        }
    }
}
