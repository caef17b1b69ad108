//! Variables of the environment.

use std::collections::BTreeSet;

use clap::builder::Resettable;
use clap::{Arg, Command};

use super::{COMMANDS, PREFIX, options};
use crate::likeness::nearest;

/// The variable of an option.
pub(super) fn variable(long: &str) -> String {
    format!("{PREFIX}{}", long.to_uppercase().replace('-', "_"))
}

/// The variable of this program that nothing here reads, of `variables`, each with the one that is nearest to it, if any
/// is near. `others` are read besides those of the options.
pub fn unknown_variables(
    command: &Command,
    others: &[&str],
    variables: impl Iterator<Item = String>,
) -> Vec<(String, Option<String>)> {
    let mut known: BTreeSet<String> = others.iter().map(|name| (*name).to_owned()).collect();
    collect(&super::with_environment(command.clone()), &mut known);
    let ours = variables.filter(|name| name.starts_with(PREFIX) && !known.contains(name));
    ours.map(|name| {
        // What all of them begin with makes none of them more alike.
        let nearest = nearest(&name[PREFIX.len()..], known.iter().filter_map(|known| known.strip_prefix(PREFIX)));
        let nearest = nearest.map(|nearest| format!("{PREFIX}{nearest}"));
        (name, nearest)
    })
    .collect()
}

fn collect(command: &Command, known: &mut BTreeSet<String>) {
    known.extend(command.get_arguments().filter_map(|arg| arg.get_env()?.to_str().map(str::to_owned)));
    for command in command.get_subcommands() {
        collect(command, known);
    }
}

/// What is wrong with a variable, where the command line is right without them.
#[must_use]
pub fn fault_of_variable(command: &Command, error: &clap::Error) -> Option<String> {
    let alone = |command: Command| command.mut_args(|arg| arg.env(Resettable::Reset));
    let without =
        COMMANDS.into_iter().fold(alone(command.clone()), |command, name| command.mut_subcommand(name, alone));
    let matches = without.try_get_matches_from(std::env::args_os()).ok()?;
    let chosen = matches.subcommand_name().filter(|name| COMMANDS.contains(name))?;
    let text = error.to_string();
    let reason = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let at_fault = |arg: &&Arg| arg.get_long().is_some_and(|long| reason.contains(&format!("'--{long}")));
    let longest = options(command, chosen).filter(at_fault).max_by_key(|arg| arg.get_long().map(str::len));
    let variable = longest.and_then(Arg::get_env).map(|name| format!("{}: ", name.to_string_lossy()));
    Some(format!("{}{reason}", variable.unwrap_or_default()))
}
