//! The file, in TOML: the options under their own names, with - or _.

use std::any::TypeId;
use std::fs::File;
use std::io::Read as _;
use std::ops::RangeInclusive;
use std::path::Path;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::{Error, FILE, options};
use crate::likeness::{did_you_mean, nearest};

/// The largest file, in bytes.
const MAX_BYTES: u64 = 1_024 * 1_024;

/// What the file says of one option.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) line: usize,
    /// As on the command line; several where the option can be given several times.
    pub(super) values: Vec<String>,
}

/// Reads the file. Everything that is wrong with it is said at once.
pub(super) fn read(path: &Path, command: &Command, chosen: &str) -> Result<Vec<Entry>, Error> {
    let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if u64::try_from(text.len()).is_ok_and(|size| size > MAX_BYTES) {
        return Err(Error::Wrong(format!("{} is larger than a configuration can be", path.display())));
    }
    let line_of = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    let wrong = |line: usize, reason: &str| format!("{} line {line}: {reason}", path.display());
    let table = DeTable::parse(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(span.start));
        Error::Wrong(wrong(line, &format!("this is no TOML: {}", error.message())))
    })?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut reasons = Vec::new();
    for (key, value) in table.get_ref() {
        let (name, line) = (key.get_ref().as_ref(), line_of(key.span().start));
        match entry((command, chosen), name, (line, &line_of), value) {
            Ok(entry) if entries.iter().any(|other| other.id == entry.id) => {
                reasons.push((line, format!("{name} is said twice")));
            }
            Ok(entry) => entries.push(entry),
            Err(reason) => reasons.push(reason),
        }
    }
    reasons.sort();
    let reasons: Vec<_> = reasons.iter().map(|(line, reason)| wrong(*line, reason)).collect();
    if reasons.is_empty() { Ok(entries) } else { Err(Error::Wrong(reasons.join("\n"))) }
}

/// What the file says of one option, as the command of the name `chosen` has it; else in which line it is wrong, and why.
fn entry(
    (command, chosen): (&Command, &str),
    name: &str,
    (line, line_of): (usize, &dyn Fn(usize) -> usize),
    value: &Spanned<DeValue<'_>>,
) -> Result<Entry, (usize, String)> {
    let long = name.replace('_', "-");
    if long == FILE {
        return Err((line, "a configuration cannot name another one".to_owned()));
    }
    // The command that shows the options has one of its own, which is none of them.
    let known = || options(command, chosen).filter(|arg| arg.get_env().is_some());
    let Some(arg) = known().find(|arg| arg.get_long() == Some(&long)) else {
        let question = did_you_mean(nearest(&long, known().filter_map(Arg::get_long).filter(|name| *name != FILE)));
        return Err((line, format!("there is no option {name}{question}")));
    };
    let (places, values): (Vec<_>, Vec<_>) = values(arg, name, (line, line_of), value.get_ref())?.into_iter().unzip();
    let checked = |values: &[String]| check((command, chosen), arg, &long, values);
    if let Err(reason) = checked(&values) {
        // Which of them it is: each is read by itself.
        let wrong = places
            .iter()
            .zip(&values)
            .find_map(|(place, value)| Some((*place, checked(std::slice::from_ref(value)).err()?)));
        let (line, reason) = wrong.unwrap_or((line, reason));
        return Err((line, format!("{name}: {reason}")));
    }
    Ok(Entry { id: arg.get_id().as_str().to_owned(), line, values })
}

fn is_by_phase(arg: &Arg) -> bool {
    arg.get_value_names().is_some_and(|names| names[0].starts_with("PHASE="))
}

/// What the file says, as the command line would, each with its line.
fn values(
    arg: &Arg,
    name: &str,
    (line, line_of): (usize, &dyn Fn(usize) -> usize),
    value: &DeValue<'_>,
) -> Result<Vec<(usize, String)>, (usize, String)> {
    let read =
        |line: usize, value: &DeValue<'_>| Ok((line, scalar(arg, name, value).map_err(|reason| (line, reason))?));
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    match value {
        DeValue::Array(members) if is_list => {
            members.iter().map(|member| read(line_of(member.span().start), member.get_ref())).collect()
        }
        DeValue::Table(members) if is_list && is_by_phase(arg) => members
            .iter()
            .map(|(phase, value)| {
                let (line, value) = read(line_of(phase.span().start), value.get_ref())?;
                Ok((line, format!("{}={value}", phase.get_ref())))
            })
            .collect(),
        value => Ok(vec![read(line, value)?]),
    }
}

fn scalar(arg: &Arg, name: &str, value: &DeValue<'_>) -> Result<String, String> {
    let wanted = wanted(arg);
    match (wanted, value) {
        (Wanted::Boolean, DeValue::Boolean(value)) => Ok(value.to_string()),
        (Wanted::Number | Wanted::Text, DeValue::Integer(number)) if is_number(arg) => {
            decimal(number).ok_or_else(|| format!("{name} is a number that is too large"))
        }
        (Wanted::Text, DeValue::String(text)) => Ok(text.to_string()),
        (wanted, value) => {
            let wanted = match wanted {
                Wanted::Boolean => "true or false",
                Wanted::Number => "an integer",
                Wanted::Text if is_time(arg) => "a string with its unit, as \"90d\" or \"12h\"",
                Wanted::Text => "a string",
            };
            let article = if matches!(value, DeValue::Integer(_) | DeValue::Array(_)) { "an" } else { "a" };
            Err(format!("{name} is {wanted}, not {article} {}", value.type_str()))
        }
    }
}

/// Whether a value may be a number alone: it is one, or a range of them, or one for a phase.
fn is_number(arg: &Arg) -> bool {
    let is_range = arg.get_value_parser().type_id() == TypeId::of::<RangeInclusive<u64>>();
    wanted(arg) == Wanted::Number || is_range || is_by_phase(arg)
}

fn is_time(arg: &Arg) -> bool {
    arg.get_value_names().is_some_and(|names| names[0] == "TIME")
}

fn decimal(number: &DeInteger<'_>) -> Option<String> {
    let digits: String = number.as_str().chars().filter(|digit| *digit != '_').collect();
    Some(i128::from_str_radix(&digits, number.radix()).ok()?.to_string())
}

/// Which kind of value an option has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Boolean,
    Number,
    Text,
}

pub(super) fn wanted(arg: &Arg) -> Wanted {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return Wanted::Boolean;
    }
    // To the program it is a number.
    if is_time(arg) {
        return Wanted::Text;
    }
    let numbers = [TypeId::of::<u16>(), TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>()];
    let of = arg.get_value_parser().type_id();
    if numbers.iter().any(|number| of == *number) { Wanted::Number } else { Wanted::Text }
}

/// Reads the values as the command line would, and says what is wrong with them.
fn check((command, chosen): (&Command, &str), arg: &Arg, long: &str, values: &[String]) -> Result<(), String> {
    if wanted(arg) == Wanted::Boolean {
        return Ok(());
    }
    let alone = |command: Command| command.mut_args(|arg| arg.env(Resettable::Reset));
    let command = alone(command.clone()).no_binary_name(true).mut_subcommand(chosen, alone);
    let said = values.iter().map(|value| format!("--{long}={value}"));
    let Err(error) = command.try_get_matches_from([chosen.to_owned()].into_iter().chain(said)) else {
        return Ok(());
    };
    // How options go together is seen once all of them are there.
    if matches!(error.kind(), ErrorKind::ArgumentConflict | ErrorKind::MissingRequiredArgument) {
        return Ok(());
    }
    let text = error.to_string();
    let said: Vec<_> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    Err(said.join(" ").trim_start_matches("error: ").to_owned())
}
