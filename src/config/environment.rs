//! Variables of the environment.

use std::collections::BTreeSet;

use clap::Command;

use super::PREFIX;

/// The variable of an option.
pub(super) fn variable(long: &str) -> String {
    format!("{PREFIX}{}", long.to_uppercase().replace('-', "_"))
}

/// The variable of this program that nothing here reads, of `variables`, each with the one that is nearest to it. `others`
/// are read besides those of the options.
pub fn unknown_variables(
    command: &Command,
    others: &[&str],
    variables: impl Iterator<Item = String>,
) -> Vec<(String, String)> {
    let mut known: BTreeSet<String> = others.iter().map(|name| (*name).to_owned()).collect();
    collect(&super::with_environment(command.clone()), &mut known);
    let ours = variables.filter(|name| name.starts_with(PREFIX) && !known.contains(name));
    ours.map(|name| {
        let nearest = nearest(&name, known.iter().map(String::as_str)).to_owned();
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

/// The name that is most like `name`.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
    known.max_by(|one, other| likeness(one).total_cmp(&likeness(other))).unwrap_or_default()
}
