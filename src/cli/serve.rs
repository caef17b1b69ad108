//! `rephase serve`.

use std::io::Write as _;

use anyhow::Context as _;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::args::ServeArguments;
use crate::app::{App, DataDirectory, Options};
use crate::clock::Clock;
use crate::worker::{self, Faults};

/// The largest file of faults, in bytes.
const MAX_FAULTS_BYTES: u64 = 1_024 * 1_024;

pub(super) async fn run(arguments: ServeArguments) -> anyhow::Result<()> {
    let faults = match &arguments.faults {
        None => Faults::default(),
        Some(path) => {
            let unreadable = || format!("the fault rules in {} cannot be used", path.display());
            let size = std::fs::metadata(path).with_context(unreadable)?.len();
            anyhow::ensure!(size <= MAX_FAULTS_BYTES, "{} is larger than a list of faults can be", path.display());
            Faults::parse(&std::fs::read_to_string(path).with_context(unreadable)?).with_context(unreadable)?
        }
    };
    let data =
        if arguments.ephemeral { DataDirectory::Ephemeral } else { DataDirectory::Kept(arguments.data_dir.clone()) };
    let workers = worker::Options { latency_ms: arguments.latency_ms, seed: arguments.seed, faults };
    // Before anything is started, so that a signal during recovery is not lost.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be waited for")?;

    let app = App::start(Options { listen: arguments.listen, data, workers }, Clock::system()).await?;
    let url = format!("http://{}", app.address());
    tracing::info!(url, "serving");
    let ready = json!({ "ready": true, "url": url, "pid": std::process::id() });
    let mut output = std::io::stdout();
    writeln!(output, "{ready}").and_then(|()| output.flush()).context("standard output is closed")?;

    app.run_until(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
    .await
}
