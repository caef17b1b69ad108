//! `rephase serve`.

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::args::ServeArguments;
use super::ready::{ReadyFile, end_of_input};
use super::signals::Signals;
use crate::app::{App, DataDirectory, Options};
use crate::clock::{Clock, ManualClock};
use crate::config::{Settings, Source};
use crate::domain::{Balances, Rules};
use crate::worker::{self, Faults};

/// How many pipelines the gateway of the full stack lets one user request in a minute (contract, HTTP).
const PIPELINE_LIMIT: u32 = 20;

/// The largest file of faults, in bytes.
const MAX_FAULTS_BYTES: u64 = 1_024 * 1_024;

/// The largest file of balances, in bytes: as many as there can be, each with a long name.
const MAX_CREDITS_BYTES: u64 = 32 * 1_024 * 1_024;

/// The `what` that `parse` makes of the JSON in the file at `path`, which is no larger than `limit`.
fn read<T>(
    path: &Path,
    (what, limit): (&str, u64),
    parse: impl FnOnce(&str) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let unreadable = || format!("the {what} in {} cannot be used", path.display());
    let mut json = String::new();
    let file = std::fs::File::open(path).with_context(unreadable)?;
    file.take(limit + 1).read_to_string(&mut json).with_context(unreadable)?;
    let is_too_large = u64::try_from(json.len()).is_ok_and(|size| size > limit);
    anyhow::ensure!(!is_too_large, "{} is larger than a list of {what} can be", path.display());
    parse(&json).with_context(unreadable)
}

fn read_credits(path: &Path) -> anyhow::Result<Balances> {
    read(path, ("credits", MAX_CREDITS_BYTES), |json| Balances::parse(json).map_err(anyhow::Error::msg))
}

fn read_faults(path: &Path) -> anyhow::Result<Faults> {
    read(path, ("fault rules", MAX_FAULTS_BYTES), |json| Ok(Faults::parse(json)?))
}

/// What the arguments say, where they can be followed.
pub(super) fn options(arguments: &ServeArguments, settings: &Settings) -> anyhow::Result<Options> {
    let faults = arguments.faults.as_deref().map(read_faults).transpose()?.unwrap_or_default();
    let credits = arguments.credits.as_deref().map(read_credits).transpose()?.unwrap_or_default();
    let is_reachable = !arguments.listen.ip().to_canonical().is_loopback();
    anyhow::ensure!(
        !arguments.test_api || !is_reachable || arguments.test_api_anywhere,
        "--test-api lets whoever reaches {} do anything; listen on 127.0.0.1, or say --test-api-anywhere",
        arguments.listen
    );
    anyhow::ensure!(arguments.test_api || !arguments.test_api_anywhere, "--test-api-anywhere needs --test-api");
    anyhow::ensure!(arguments.test_api || !faults.can_crash(), "a fault rule with crash needs --test-api");
    let (access, tls) = arguments.access.read(arguments.listen, arguments.test_api_anywhere)?;
    let mut workers = worker::Options {
        latency_ms: arguments.latency_ms.clone(),
        seed: arguments.seed,
        faults,
        student_matching: arguments.student_matching,
        ..worker::Options::default()
    };
    for (phases, runner) in &arguments.workers {
        for phase in phases {
            workers.runners[phase.index()] = *runner;
        }
    }
    let data = data(arguments, settings)?;
    let default_limit = if matches!(data, DataDirectory::Ephemeral) { 0 } else { PIPELINE_LIMIT };
    Ok(Options {
        listen: arguments.listen,
        journal_bytes: arguments.journal_mib * 1_024 * 1_024,
        rules: rules(arguments),
        pipeline_limit: arguments.pipeline_limit.unwrap_or(default_limit),
        credits,
        retain_ms: arguments.retain,
        retain_events: arguments.retain_events,
        workers,
        access,
        tls,
        ..Options::new(data)
    })
}

/// Where the state is kept: as whoever has said the stronger thing wants it.
fn data(arguments: &ServeArguments, settings: &Settings) -> anyhow::Result<DataDirectory> {
    let is_ephemeral = arguments.ephemeral && !settings.outranks("data-dir", "ephemeral");
    anyhow::ensure!(
        !is_ephemeral || settings.source("data-dir") == Source::Default || settings.outranks("ephemeral", "data-dir"),
        "--data-dir keeps what --ephemeral does not; give one of them"
    );
    let directory = &arguments.data_dir;
    Ok(if is_ephemeral { DataDirectory::Ephemeral } else { DataDirectory::Kept(directory.clone()) })
}

fn rules(arguments: &ServeArguments) -> Rules {
    let mut rules = Rules {
        max_user_retries: arguments.max_retries,
        retry_cooldown_ms: arguments.retry_cooldown_ms,
        student_validation_ms: arguments.student_validation,
        ..Rules::default()
    };
    for (phases, policy) in &arguments.retry_policy {
        for phase in phases {
            rules.retry[phase.index()] = policy.clone();
        }
    }
    for (phases, deadline_ms) in &arguments.deadline {
        for phase in phases {
            rules.phase_deadline_ms[phase.index()] = *deadline_ms;
        }
    }
    rules
}

pub(super) async fn run(
    arguments: &ServeArguments,
    settings: &Settings,
    signals: Option<Signals>,
) -> anyhow::Result<()> {
    // Before anything is begun: a signal during recovery is not lost.
    let mut signals = signals.map_or_else(Signals::new, Ok)?;
    for slip in super::config::slips() {
        tracing::warn!("{slip}");
    }
    let options = options(arguments, settings)?;
    let end_of_input = if arguments.end_with_stdin { Some(end_of_input()?) } else { None };
    let app = if arguments.test_api {
        App::start_for_tests(options, ManualClock::following()).await?
    } else {
        App::start(options, Clock::system()).await?
    };
    let _ready_file = match announce(&app, arguments.ready_file.as_deref()) {
        Ok(ready_file) => ready_file,
        Err(error) => {
            app.stop().await;
            return Err(error);
        }
    };

    let (told, drained) = tokio::sync::oneshot::channel();
    let signals = async {
        match end_of_input {
            Some(end_of_input) => tokio::select! {
                () = signals.next() => {}
                () = end_of_input => tracing::info!("standard input has ended"),
            },
            None => signals.next().await,
        }
        // The server may have come to its end by itself in the same moment.
        let _ = told.send(());
        signals.next().await;
    };
    let served = app.run_until(async {
        let _ = drained.await;
    });
    tokio::select! {
        ended = served => ended,
        () = signals => anyhow::bail!("told to end twice; not everything was drained"),
    }
}

/// Says on standard output, and in a file where one is wanted, that the server is ready.
fn announce(app: &App, file: Option<&Path>) -> anyhow::Result<Option<ReadyFile>> {
    let url = app.url();
    tracing::info!(url, "serving");
    let ready = json!({ "ready": true, "url": url, "pid": std::process::id() }).to_string();
    let file = file.map(|path| ReadyFile::write(path, &ready)).transpose()?;
    let mut output = std::io::stdout();
    writeln!(output, "{ready}").and_then(|()| output.flush()).context("standard output is closed")?;
    Ok(file)
}
