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

/// Which variables have no effect, in words for people: a slip in a name would go unnoticed.
pub(super) fn slips() -> impl Iterator<Item = String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown = config::unknown_variables(&Arguments::command(), &SECRETS, names);
    unknown.into_iter().map(|(name, nearest)| format!("nothing reads the variable {name}; did you mean {nearest}?"))
}

/// Prints what is in force, and checks it as `serve` would.
pub(super) fn run(arguments: &ConfigArguments, settings: &Settings) -> anyhow::Result<()> {
    for slip in slips() {
        writeln!(std::io::stderr(), "rephase: {slip}")?;
    }
    let text = if arguments.json { format!("{:#}\n", settings.to_json()) } else { settings.to_toml() };
    std::io::stdout().write_all(text.as_bytes())?;
    super::serve::options(&arguments.serve, settings).map(|_| ())
}
