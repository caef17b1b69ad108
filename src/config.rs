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
use clap::{Arg, ArgAction, ArgMatches, Command};

pub use environment::{fault_of_variable, unknown_variables};
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
    let names: Vec<_> = options(&command, COMMANDS[0]).filter_map(Arg::get_long).map(str::to_owned).collect();
    let is_option = |arg: &Arg| arg.get_long().is_some_and(|long| names.iter().any(|name| name == long));
    let command = command.mut_args(|arg| if is_option(&arg) { with_variable(arg) } else { arg });
    COMMANDS.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |command| {
            command.mut_args(|arg| if is_option(&arg) { with_variable(arg) } else { arg })
        })
    })
}

/// The option as a variable, as far as it has none of its own.
fn with_variable(arg: Arg) -> Arg {
    let arg = match arg.get_action() {
        ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
        ArgAction::Append if arg.get_value_delimiter().is_none() => arg.value_delimiter(DELIMITER),
        _ => arg,
    };
    let own = arg.get_env().map(ToOwned::to_owned);
    let variable = own.unwrap_or_else(|| environment::variable(arg.get_long().unwrap_or_default()).into());
    arg.env(variable).hide_env_values(true)
}

/// The options that the command of this name has: its own, and those that every command has.
fn options<'a>(command: &'a Command, name: &str) -> impl Iterator<Item = &'a Arg> {
    let own = command.find_subcommand(name).into_iter().flat_map(Command::get_arguments);
    let all = own.chain(command.get_arguments().filter(|arg| arg.is_global_set()));
    all.filter(|arg| arg.get_long().is_some())
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
    let Some(path) = chosen.get_one::<PathBuf>(FILE) else {
        let settings = Settings::of(options(&command, COMMANDS[0]), chosen, None);
        return Ok((matches, settings));
    };
    let entries = file::read(path, &command, name)?;
    let command = with_defaults(command, name, &entries);
    let matches = parse(command.clone())?;
    let settings = match matches.subcommand() {
        Some((_, chosen)) => Settings::of(options(&command, COMMANDS[0]), chosen, Some((path, &entries))),
        None => Settings::default(),
    };
    Ok((matches, settings))
}

/// What the file says is in force where neither a flag nor a variable says otherwise.
fn with_defaults(command: Command, name: &str, entries: &[Entry]) -> Command {
    let set = |command: Command, entry: &Entry| {
        command.mut_arg(&entry.id, |arg| arg.default_values(entry.values.iter().cloned()))
    };
    let is_global = |entry: &&Entry| command.get_arguments().any(|arg| *arg.get_id() == *entry.id);
    let (global, own): (Vec<_>, Vec<_>) = entries.iter().partition(is_global);
    let command = global.into_iter().fold(command, set);
    command.mut_subcommand(name, |command| own.into_iter().fold(command, set))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let global = Arg::new("log").long("log").global(true).default_value("human");
        let own = || {
            [
                Arg::new("seed").long("seed"),
                Arg::new("config").long("config").value_parser(clap::value_parser!(PathBuf)),
            ]
        };
        let commands = COMMANDS.map(|name| Command::new(name).args(own()));
        Command::new("toy").arg(global).subcommands(commands)
    }

    #[test]
    fn an_option_of_every_command_can_be_in_the_file_too() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "log = 'json'\nseed = 'a'\n").expect("written");
        let path = file.path().to_str().expect("UTF-8");
        for (arguments, log) in [
            (vec!["toy", "serve", "--config", path], "json"),
            (vec!["toy", "serve", "--config", path, "--log", "flag"], "flag"),
            (vec!["toy", "--log", "flag", "serve", "--config", path], "flag"),
            (vec!["toy", "serve"], "human"),
        ] {
            let parse = |command: Command| Ok::<_, Error>(command.try_get_matches_from(&arguments).expect("arguments"));
            let (matches, settings) = read(command(), parse).expect("it is read");
            assert_eq!(matches.get_one::<String>("log").map(String::as_str), Some(log), "{arguments:?}");
            assert_eq!(settings.to_json()["log"]["value"], log, "{arguments:?}");
        }
        std::fs::write(file.path(), "lgo = 'json'").expect("written");
        let parse = |command: Command| {
            Ok::<_, Error>(command.try_get_matches_from(["toy", "config", "--config", path]).expect("arguments"))
        };
        let error = read(command(), parse).expect_err("a slip").to_string();
        assert!(error.contains("did you mean log?"), "{error}");
    }
}
