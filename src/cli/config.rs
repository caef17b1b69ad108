//! `rephase config`, and how the arguments are read.

use std::ffi::OsString;
use std::io::Write as _;

use clap::{CommandFactory as _, FromArgMatches as _};

use super::access::{self, SECRETS};
use super::args::{Arguments, ConfigArguments};
use super::failure::Misconfigured;
use super::log::{SERVE_LEVEL, rust_log};
use crate::config::{self, Settings, Source};

/// Reads the arguments, the variables, and the file that they name.
///
/// # Errors
/// Where the file is wrong. Where an argument is, the program ends as programs do then.
pub fn parse() -> anyhow::Result<Arguments> {
    let parse = |mut command: clap::Command| {
        command.try_get_matches_from_mut(in_order(std::env::args_os().collect())).or_else(|error| {
            let reason = config::fault_of_variable(&command, &error);
            reason.map_or_else(|| error.exit(), |reason| Err(config::Error::Wrong(reason)))
        })
    };
    let (matches, mut settings) = config::read(Arguments::command(), parse)?;
    access::note_secrets(&mut settings);
    let mut arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    arguments.settings = settings;
    Ok(arguments)
}

/// The options of every client, and of every command, that have a value; and the one that has none.
const WITH_VALUE: [&str; 7] = ["--url", "--user", "--token-file", "--ca-file", "--timeout", "--log", "--log-format"];
const FLAG: &str = "--json";

/// The arguments, with the options of every client behind the command, where they stand before it: to the parser they
/// belong to the commands that are clients, and so not to `serve`.
fn in_order(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let mut end = 1;
    while let Some(argument) = arguments.get(end).and_then(|argument| argument.to_str()) {
        let has_value = |name: &str| argument.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
        end += match argument {
            _ if WITH_VALUE.contains(&argument) => 2,
            _ if argument == FLAG || WITH_VALUE.iter().any(|name| has_value(name)) => 1,
            _ => break,
        };
    }
    if (2..arguments.len()).contains(&end) && !arguments[end].to_string_lossy().starts_with('-') {
        // The command goes before them.
        arguments[1..=end].rotate_right(1);
    }
    arguments
}

/// The variables of the commands that are clients.
const OF_CLIENTS: [&str; 3] = ["REPHASE_URL", "REPHASE_USER", "REPHASE_TOKEN"];

/// Which variables have no effect, in words for people: a slip in a name would go unnoticed.
pub(super) fn slips() -> impl Iterator<Item = String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let others = [SECRETS.as_slice(), &OF_CLIENTS].concat();
    let unknown = config::unknown_variables(&Arguments::command(), &others, names);
    unknown.into_iter().map(|(name, nearest)| {
        let question = nearest.map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default();
        format!("nothing reads the variable {name}{question}")
    })
}

/// Prints what is in force, and checks it as `serve` would.
pub(super) fn run(arguments: &ConfigArguments, settings: &Settings) -> anyhow::Result<()> {
    for slip in slips() {
        writeln!(std::io::stderr(), "rephase: {slip}")?;
    }
    let options = super::serve::options(&arguments.serve, settings);
    let mut settings = settings.clone();
    if let Ok(options) = &options {
        let auth = if options.access.tokens.is_some() { "jwt" } else { "dev" };
        settings.note("auth", auth, Source::Default);
        settings.note("pipeline-limit", &options.pipeline_limit.to_string(), Source::Default);
    }
    match rust_log() {
        Some(filter) => settings.note("log", &filter, Source::Environment("RUST_LOG".to_owned())),
        None => settings.note("log", SERVE_LEVEL, Source::Default),
    }
    let text = if arguments.json { format!("{:#}\n", settings.to_json()) } else { settings.to_toml() };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(options.map(|_| ()).map_err(Misconfigured)?)
}
