//! The arguments.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::access::AccessArguments;
use super::batch::BatchArguments;
use super::common::Common;
use super::dead_letter::DeadLetterArguments;
use super::failure::EXIT_CODES;
use super::health::HealthArguments;
use super::log::LogArguments;
use super::retry::RetryArguments;
use super::retry_job::RetryJobArguments;
use super::shell::{CompletionsArguments, ManArguments};
use super::token::TokenArguments;
use crate::config::Settings;
use crate::domain::{Phase, RetryPolicy};
use crate::likeness::{did_you_mean, nearest};
use crate::worker::{NoRunner, Runner, StudentMatching};

/// Runs batches of essays through pipelines of phases, and re-runs a single failed phase when asked.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What is logged, and how.
    #[command(flatten)]
    pub log: LogArguments,
    /// Where the options of `serve` come from.
    #[arg(skip)]
    pub(super) settings: Settings,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the HTTP API, with simulated workers for every phase that nobody else runs.
    Serve(Box<ServeArguments>),
    /// Show what is in force for serve, and where each value comes from. Exits with 2 where serve would not start.
    Config(Box<ConfigArguments>),
    /// Batches: list, show, watch, submit, run a pipeline, cancel.
    Batch(Box<BatchArguments>),
    /// Run one phase of one batch again.
    Retry(Box<RetryArguments>),
    /// Bulk retries: create, list, show, watch, stop.
    RetryJob(Box<RetryJobArguments>),
    /// Messages that no consumer could handle: list, show, redrive, discard.
    DeadLetter(Box<DeadLetterArguments>),
    /// Ask a server how it is. Exits with 0 where it is healthy.
    #[command(visible_alias = "ping")]
    Health(HealthArguments),
    /// Write the state of a server, as it is at one moment, into a file.
    Backup(BackupArguments),
    /// Make a data directory out of a backup.
    Restore(RestoreArguments),
    /// Check the state of a stopped server. Exits with 1 where something is wrong, with 2 where it cannot be read.
    Verify(VerifyArguments),
    /// Show a phase fail and be retried, with a sample class on a server of its own.
    Demo(DemoArguments),
    /// Sign a token for development.
    Token(TokenArguments),
    /// Print the completions of a shell.
    Completions(CompletionsArguments),
    /// Print the manual page, or write one for each command.
    Man(ManArguments),
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct ServeArguments {
    /// File with options, in TOML: every option of this command under its own name. A variable REPHASE_… counts before
    /// it, and a flag before both.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Address to listen on, as HOST:PORT; port 0 lets the system choose one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = parse_address)]
    pub(super) listen: SocketAddr,
    /// Directory that keeps the state; made where it does not exist.
    #[arg(long, value_name = "DIR", default_value = "rephase-data")]
    pub(super) data_dir: PathBuf,
    /// Keep nothing: the state goes with the process.
    #[arg(long)]
    pub(super) ephemeral: bool,
    /// Who runs a phase: simulated, in this process; remote, workers that lease its attempts over HTTP; events, somebody
    /// who sees its commands on the event stream and answers with events. PHASE may be all. Later ones win. All are
    /// simulated where this is not given.
    #[arg(long, value_name = "PHASE=WHO", default_value = "all=simulated", value_delimiter = ',', value_parser = parse_runner)]
    pub(super) workers: Vec<(Phases, Runner)>,
    /// File to write the ready line into as well; it appears whole, and is removed when the server ends.
    #[arg(long, value_name = "FILE")]
    pub(super) ready_file: Option<PathBuf>,
    /// End when standard input does, so that nothing is left of a test whose runner dies.
    #[arg(long)]
    pub(super) end_with_stdin: bool,
    /// Offer tests the routes below /_test: time, faults, events, reset, seeds, snapshots. Whoever reaches the port can
    /// do anything with them.
    #[arg(long)]
    pub(super) test_api: bool,
    /// Allow --test-api on an address that others can reach.
    #[arg(long)]
    pub(super) test_api_anywhere: bool,
    /// JSON list of faults for the simulated workers.
    #[arg(long, value_name = "FILE")]
    pub(super) faults: Option<PathBuf>,
    /// Seed of everything the simulated workers draw.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(super) seed: u64,
    /// How long a simulated phase takes, in milliseconds: a number, or a range to draw from. 0 is none.
    #[arg(long, value_name = "MS", default_value = "20..80", value_parser = parse_range)]
    pub(super) latency_ms: RangeInclusive<u64>,
    /// When a phase that failed for a transient reason is tried again by itself: how many attempts in a row, and the
    /// first wait, its factor and the longest wait; PHASE may be all. Later ones win. 1 attempt is none by itself.
    #[arg(long, value_name = "PHASE=ATTEMPTS[,BASE_MS[,FACTOR[,MAX_MS]]]", default_value = "all=3,1000,2,60000", value_parser = parse_policy)]
    pub(super) retry_policy: Vec<(Phases, RetryPolicy)>,
    /// How many times users can retry one phase of one batch.
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    pub(super) max_retries: u32,
    /// How long a user has to wait between two retries of one phase, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(super) retry_cooldown_ms: u64,
    /// How many pipelines one user can request in a minute; 0 is no limit. The default is 20, and none with --ephemeral.
    #[arg(long, value_name = "NUMBER")]
    pub(super) pipeline_limit: Option<u32>,
    /// JSON file with the credits that users and organisations begin with. One that has a balance already keeps that;
    /// one that is not named pays nothing.
    #[arg(long, value_name = "FILE")]
    pub(super) credits: Option<PathBuf>,
    /// How long a batch that is over is kept after its last change, with all that belongs to it; bulk retries and dead
    /// letters too. A number of days or hours, as 90d or 12h. Everything is kept where this is not given.
    #[arg(long, value_name = "TIME", value_parser = parse_retention)]
    pub(super) retain: Option<u64>,
    /// How many published messages stay readable as events; the oldest go first. 0 keeps no log of events.
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub(super) retain_events: u64,
    /// How much the journal holds before that is settled in the database, in MiB. More is less to write, more memory,
    /// and more to read at a start after a crash.
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1_024))]
    pub(super) journal_mib: u64,
    /// Who finds the students of a regular batch, one with a class: somebody simulated here, or somebody outside, by
    /// events.
    #[arg(long, value_name = "WHO", default_value = "simulated", value_parser = parse_student_matching)]
    pub(super) student_matching: StudentMatching,
    /// After which time a regular batch goes on without a confirmation of its students: days or hours, as 1d or 12h.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_retention)]
    pub(super) student_validation: u64,
    /// How long a worker may take for a phase, in seconds; PHASE may be all. Later ones win.
    #[arg(long, value_name = "PHASE=SECONDS", default_value = "all=900", value_delimiter = ',', value_parser = parse_deadline)]
    pub(super) deadline: Vec<(Phases, u64)>,
    #[command(flatten)]
    pub(super) access: AccessArguments,
}

/// Arguments of `config`.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    #[command(flatten)]
    pub(super) serve: ServeArguments,
    /// One JSON object instead of TOML.
    #[arg(long)]
    pub(super) json: bool,
}

/// The phases that a setting is about.
type Phases = Vec<Phase>;

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub struct BackupArguments {
    /// File to write; one that is there is replaced once the backup is whole.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Directory of a stopped server, in place of one that runs.
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    pub(super) data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// The backup.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Directory to make; it must be empty, or not be there.
    #[arg(long, value_name = "DIR", default_value = "rephase-data")]
    pub(super) data_dir: PathBuf,
    /// One JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Directory that keeps the state.
    #[arg(long, value_name = "DIR", default_value = "rephase-data")]
    pub(super) data_dir: PathBuf,
    /// One JSON object a line.
    #[arg(long)]
    pub(super) json: bool,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {
    /// One JSON object a line instead of the timeline.
    #[arg(long)]
    pub(super) json: bool,
}

/// The longest wait before an automatic retry, in milliseconds: a day.
const MAX_WAIT_MS: u64 = 86_400_000;

/// The longest deadline, in seconds: a week.
const MAX_DEADLINE_S: u64 = 604_800;

/// The longest latency, in milliseconds: ten minutes. An attempt that takes longer than its deadline always fails.
const MAX_LATENCY_MS: u64 = 600_000;

fn parse_setting(text: &str) -> Result<(Phases, &str), String> {
    let (phase, value) = text.split_once('=').ok_or("give PHASE=VALUE")?;
    let phases = match phase {
        "all" => Phase::ALL.to_vec(),
        name => vec![name.parse::<Phase>().map_err(|error| {
            let known = Phase::ALL.iter().map(|phase| phase.name().as_str());
            format!("{error}{}", did_you_mean(nearest(name, known)))
        })?],
    };
    Ok((phases, value))
}

fn parse_policy(text: &str) -> Result<(Phases, RetryPolicy), String> {
    let (phases, values) = parse_setting(text)?;
    let mut numbers =
        values.split(',').map(|text| text.parse::<u64>().map_err(|_| format!("'{text}' is not a number")));
    let mut next = |default: u64| numbers.next().unwrap_or(Ok(default));
    let defaults = RetryPolicy::default();
    let small = |number: u64| u32::try_from(number).ok().filter(|number| (1..=100).contains(number));
    let policy = RetryPolicy {
        max_attempts: small(next(0)?).ok_or("give between 1 and 100 attempts")?,
        base_ms: next(defaults.base_ms)?,
        factor: small(next(u64::from(defaults.factor))?).ok_or("give a factor between 1 and 100")?,
        max_ms: next(defaults.max_ms)?,
    };
    if numbers.next().is_some() || policy.max_ms > MAX_WAIT_MS {
        return Err(format!("give ATTEMPTS[,BASE_MS[,FACTOR[,MAX_MS]]], no wait longer than {MAX_WAIT_MS} ms"));
    }
    Ok((phases, policy))
}

fn parse_runner(text: &str) -> Result<(Phases, Runner), String> {
    let (phases, name) = parse_setting(text)?;
    Ok((phases, name.parse().map_err(|error: NoRunner| error.to_string())?))
}

fn parse_deadline(text: &str) -> Result<(Phases, u64), String> {
    let (phases, seconds) = parse_setting(text)?;
    let seconds = seconds.parse::<u64>().ok().filter(|seconds| (1..=MAX_DEADLINE_S).contains(seconds));
    let seconds = seconds.ok_or_else(|| format!("give between 1 and {MAX_DEADLINE_S} seconds"))?;
    Ok((phases, seconds * 1_000))
}

fn parse_student_matching(text: &str) -> Result<StudentMatching, String> {
    match text {
        "simulated" => Ok(StudentMatching::Simulated),
        "events" => Ok(StudentMatching::Events),
        _ => Err("give simulated or events".to_owned()),
    }
}

/// In milliseconds.
fn parse_retention(text: &str) -> Result<u64, String> {
    let (number, unit_ms) = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((number, "d")) => (number, 86_400_000),
        Some((number, "h")) => (number, 3_600_000),
        Some(_) | None => ("", 0),
    };
    let number = number.parse::<u64>().ok().filter(|number| *number > 0);
    number.and_then(|number| number.checked_mul(unit_ms)).ok_or_else(|| "give days or hours, as 90d or 12h".to_owned())
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let mut addresses = text.to_socket_addrs().map_err(|error| format!("not a HOST:PORT to listen on: {error}"))?;
    addresses.next().ok_or_else(|| "this host has no address".to_owned())
}

fn parse_range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| format!("'{text}' is not a number"));
    let (least, most) = match text.split_once("..") {
        Some((least, most)) => (number(least)?, number(most.trim_start_matches('='))?),
        None => (number(text)?, number(text)?),
    };
    if least > most || most > MAX_LATENCY_MS {
        return Err(format!("give a range like 20..80, of at most {MAX_LATENCY_MS} ms"));
    }
    Ok(least..=most)
}
