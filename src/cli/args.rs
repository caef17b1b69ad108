//! The arguments.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Runs batches of essays through pipelines of phases, and re-runs a single failed phase when asked.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the HTTP API, with simulated workers for every phase.
    Serve(ServeArguments),
    /// Show a phase fail and be retried, with a sample class on a server of its own.
    Demo(DemoArguments),
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Address to listen on, as HOST:PORT; port 0 lets the system choose one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = parse_address)]
    pub(super) listen: SocketAddr,
    /// Directory that keeps the state; made where it does not exist.
    #[arg(long, value_name = "DIR", default_value = "rephase-data", conflicts_with = "ephemeral")]
    pub(super) data_dir: PathBuf,
    /// Keep nothing: the state goes with the process.
    #[arg(long)]
    pub(super) ephemeral: bool,
    /// JSON list of faults for the simulated workers.
    #[arg(long, value_name = "FILE")]
    pub(super) faults: Option<PathBuf>,
    /// Seed of everything the simulated workers draw.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(super) seed: u64,
    /// How long a simulated phase takes, in milliseconds: a number, or a range to draw from. 0 is none.
    #[arg(long, value_name = "MS", default_value = "20..80", value_parser = parse_range)]
    pub(super) latency_ms: RangeInclusive<u64>,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {
    /// One JSON object a line instead of the timeline.
    #[arg(long)]
    pub(super) json: bool,
}

/// The longest latency, in milliseconds: ten minutes. An attempt that takes longer than its deadline always fails.
const MAX_LATENCY_MS: u64 = 600_000;

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
