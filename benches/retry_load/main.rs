//! What a retry costs, over HTTP, on a real disk: each figure beside what it can be held against, an axum echo of the
//! same body and a write with fdatasync, in the same run.
//!
//! `cargo bench --bench retry_load` runs everything but the largest stores; `-- --full` those too. `-- --only NAME` runs
//! one part (see [`Part`]).

mod client;
mod load;
mod parts;
mod report;
mod seed;
mod server;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// One kind of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// How fast retries are accepted, over one connection and over 64.
    Accept,
    /// How fast retries complete.
    Complete,
    /// How fast batches are read while retries run.
    Mixed,
    /// How long the server takes to be ready.
    Ready,
    /// What memory and disk many retries take.
    Space,
    /// How accepting slows as batches, essays and connections grow.
    Growth,
    /// What becomes of those who are accepted when more is asked than can be done.
    Overload,
}

/// What to measure, and how long.
#[derive(Debug, Parser)]
pub struct Options {
    /// Run only these parts.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// The largest stores too: a million batches.
    #[arg(long)]
    full: bool,
    /// How often each rate is measured; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// How many retries the memory and the disk are measured after.
    #[arg(long, default_value_t = 200_000)]
    retries: usize,
    /// For how many seconds the memory is watched after that.
    #[arg(long, default_value_t = 0)]
    soak: u64,
    /// Where stores are made, on a real disk.
    #[arg(long, default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/retry_load"))]
    directory: PathBuf,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
    /// The process is the echo.
    #[arg(long = "be-the-echo", hide = true)]
    be_the_echo: bool,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.be_the_echo {
        return server::be_the_echo().await;
    }
    let report = parts::run(&options).await?;
    let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/../retry_load.json");
    report.finish(file.as_ref())
}
