//! What is in force: the options of `serve`, from flags, else the environment, else one file, else their defaults.
//!
//! The options are those that the command line has; this room knows none of them by name. Every one can be given in the
//! environment and in the file too, under its own name, and is read and checked there as on the command line: what the
//! file says becomes the default of the option. Secrets are no options, so none can be in a file or in a process list;
//! they are in files of their own, or in variables.

mod environment;
mod file;
mod settings;

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, ArgMatches, Command};

pub use environment::unknown_variables;
use file::Entry;
pub use settings::{Setting, Settings, Source};

/// The commands that have the options: the one that acts on them, and the one that shows them.
const COMMANDS: [&str; 2] = ["serve", "config"];

/// The option that names the file.
const FILE: &str = "config";

/// What separates values in one variable, where the option has commas inside of its values.
const DELIMITER: char = ';';

/// What all variables of this program begin with.
const PREFIX: &str = "REPHASE_";

/// Why it cannot be told what is in force, in words for people.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the configuration {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file says what cannot be: one line for each such thing.
    #[error("{0}")]
    Wrong(String),
}

/// Every option of `serve` can be given as a variable, too.
#[must_use]
pub fn with_environment(command: Command) -> Command {
    let names: Vec<_> = command.find_subcommand(COMMANDS[0]).into_iter().flat_map(options).collect();
    COMMANDS.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |command| {
            command.mut_args(|arg| {
                let Some(long) = arg.get_long().map(str::to_owned).filter(|long| names.contains(long)) else {
                    return arg;
                };
                let arg = match arg.get_action() {
                    ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
                    ArgAction::Append if arg.get_value_delimiter().is_none() => arg.value_delimiter(DELIMITER),
                    _ => arg,
                };
                let variable = arg.get_env().map_or_else(|| environment::variable(&long).into(), ToOwned::to_owned);
                arg.env(variable).hide_env_values(true)
            })
        })
    })
}

/// The names of the options that can be set.
fn options(command: &Command) -> impl Iterator<Item = String> {
    command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned)
}

/// Reads the arguments with `parse`, and what the file says that they name.
///
/// # Errors
/// Where the file is wrong; or whatever `parse` says.
pub fn read<E: From<Error>>(
    command: Command,
    parse: impl Fn(Command) -> Result<ArgMatches, E>,
) -> Result<(ArgMatches, Settings), E> {
    let command = with_environment(command);
    let matches = parse(command.clone())?;
    let Some((name, chosen)) = matches.subcommand().filter(|(name, _)| COMMANDS.contains(name)) else {
        return Ok((matches, Settings::default()));
    };
    let (name, file) = (name.to_owned(), chosen.get_one::<PathBuf>(FILE).cloned());
    let (command, matches, entries) = match &file {
        None => (command, matches, Vec::new()),
        Some(path) => {
            let entries = file::read(path, command.find_subcommand(&name).unwrap_or(&command))?;
            let command = with_defaults(command, &name, &entries);
            let matches = parse(command.clone())?;
            (command, matches, entries)
        }
    };
    let settings = match (command.find_subcommand(COMMANDS[0]), matches.subcommand()) {
        (Some(options), Some((_, matches))) => Settings::of(options, matches, file.as_deref(), &entries),
        _ => Settings::default(),
    };
    Ok((matches, settings))
}

/// What the file says is in force where neither a flag nor a variable says otherwise.
fn with_defaults(command: Command, name: &str, entries: &[Entry]) -> Command {
    command.mut_subcommand(name, |command| {
        entries.iter().fold(command, |command, entry| {
            command.mut_arg(&entry.id, |arg| arg.default_values(entry.values.iter().cloned()))
        })
    })
}
