//! `rephase config`, and how the arguments are read.

use std::io::Write as _;

use clap::{CommandFactory as _, FromArgMatches as _};

use super::access::{self, SECRETS};
use super::args::{Arguments, ConfigArguments};
use crate::config::{self, Settings};

/// Reads the arguments, the variables, and the file that they name.
///
/// # Errors
/// Where the file is wrong. Where an argument is, the program ends as programs do then.
pub fn parse() -> anyhow::Result<Arguments> {
    let parse = |command: clap::Command| Ok::<_, config::Error>(command.get_matches());
    let (matches, mut settings) = config::read(Arguments::command(), parse)?;
    access::note_secrets(&mut settings);
    let mut arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    arguments.settings = settings;
    Ok(arguments)
}

/// Says which variables have no effect, since a slip in a name would go unnoticed.
pub(super) fn warn_of_unknown_variables() {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for (name, nearest) in config::unknown_variables(&Arguments::command(), &SECRETS, names) {
        tracing::warn!("nothing reads the variable {name}; did you mean {nearest}?");
    }
}

/// Prints what is in force, and checks it as `serve` would.
pub(super) fn run(arguments: &ConfigArguments, settings: &Settings) -> anyhow::Result<()> {
    warn_of_unknown_variables();
    let text = if arguments.json { format!("{:#}\n", settings.to_json()) } else { settings.to_toml() };
    std::io::stdout().write_all(text.as_bytes())?;
    super::serve::options(&arguments.serve, settings).map(|_| ())
}
