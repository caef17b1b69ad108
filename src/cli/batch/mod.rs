//! `rephase batch`.

mod list;
mod show;
mod submit;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::common::{Common, Session};
use super::failure::{EXIT_CODES, Exit, Failure, in_options};
use super::filter::phase;
use super::ids::BATCH;
use super::output::remark;
use super::values::{text, words};
use super::watch::{Shows, WaitArguments, until_rest, verdict};

/// Arguments of `batch`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct BatchArguments {
    #[command(subcommand)]
    command: BatchCommand,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Subcommand)]
enum BatchCommand {
    /// List the user's batches, the newest first.
    List(list::ListArguments),
    /// Show a batch: its phases, what failed and why, every attempt, and what can be done next.
    Show(OneBatch),
    /// Show what moves until nothing of the batch waits or runs any more. Exits with 1 where it ended with failures.
    Watch(WatchArguments),
    /// Register a batch, send its texts, and run a pipeline if one is named.
    Submit(submit::SubmitArguments),
    /// Run a pipeline on a batch that has its texts.
    Run(RunArguments),
    /// Cancel what waits or runs of a batch.
    Cancel(CancelArguments),
}

/// Which batch.
#[derive(Debug, Args)]
struct OneBatch {
    /// The batch's id, or the beginning of it.
    #[arg(value_name = "BATCH")]
    batch: String,
}

#[derive(Debug, Args)]
struct WatchArguments {
    #[command(flatten)]
    one: OneBatch,
    /// Give up after so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    within: Option<u64>,
}

#[derive(Debug, Args)]
struct RunArguments {
    #[command(flatten)]
    one: OneBatch,
    /// The last phase of the pipeline: it runs with all that it depends on, less what is complete.
    #[arg(value_name = "PIPELINE", value_parser = phase(), ignore_case = true)]
    pipeline: String,
    #[command(flatten)]
    wait: WaitArguments,
}

#[derive(Debug, Args)]
struct CancelArguments {
    #[command(flatten)]
    one: OneBatch,
    /// Why; at most 500 characters.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) async fn run(arguments: BatchArguments) -> Result<(), Failure> {
    let session = arguments.common.session()?;
    match arguments.command {
        BatchCommand::List(arguments) => list::run(&session, &arguments).await,
        BatchCommand::Show(OneBatch { batch }) => show::run(&session, &batch).await,
        BatchCommand::Watch(arguments) => watch(&session, &arguments).await,
        BatchCommand::Submit(arguments) => submit::run(&session, arguments).await,
        BatchCommand::Run(arguments) => run_pipeline(&session, &arguments).await,
        BatchCommand::Cancel(arguments) => cancel(&session, &arguments).await,
    }?;
    session.output.finish()
}

async fn watch(session: &Session, arguments: &WatchArguments) -> Result<(), Failure> {
    let batch = BATCH.resolve(&session.client, &arguments.one.batch).await?;
    let limit = arguments.within.map(std::time::Duration::from_secs);
    let status = until_rest(session, &batch, Shows::Moves, limit).await?;
    if session.output.is_closed() {
        return Ok(());
    }
    if !session.output.is_json {
        session.output.line(&at_rest(&status));
    }
    verdict(session, &batch, &status)
}

/// One line about a batch that is waited for no longer.
fn at_rest(status: &Value) -> String {
    format!("batch {}: {}", text(&status["batch_id"]), text(&status["status"]))
}

async fn run_pipeline(session: &Session, arguments: &RunArguments) -> Result<(), Failure> {
    let batch = BATCH.resolve(&session.client, &arguments.one.batch).await?;
    let answer = request_pipeline(session, &batch, &arguments.pipeline).await?;
    if session.output.is_json {
        session.output.json(&answer);
    } else {
        let message = in_options(&text(&answer["message"]));
        session.output.line(&message);
        if message.contains("--force") {
            remark(false, &session.command(&format!("retry {batch} {} --force", arguments.pipeline)));
        }
    }
    conclude(session, &batch, &arguments.wait).await
}

async fn request_pipeline(session: &Session, batch: &str, pipeline: &str) -> Result<Value, Failure> {
    let body = json!({ "requested_pipeline": pipeline });
    let answer =
        session.client.post(&format!("/v1/batches/{batch}/pipelines"), &body, &[("message", Value::is_string)]).await;
    answer.map_err(|failure| look(session, batch, failure))
}

/// Says what to look at where a batch does not allow what was asked for.
pub(super) fn look(session: &Session, batch: &str, failure: Failure) -> Failure {
    let hint = session.command(&format!("batch show {batch}"));
    BATCH.missing(&session.client, failure).hint_where(Exit::Refused, format!("see where it stands: {hint}"))
}

/// Waits for the batch where that is wanted, and ends by how it went.
async fn conclude(session: &Session, batch: &str, wait: &WaitArguments) -> Result<(), Failure> {
    if !wait.is_wanted() {
        return Ok(());
    }
    let status = until_rest(session, batch, Shows::MovesForPeople, wait.limit()).await?;
    if session.output.is_json {
        session.output.json(&status);
    } else {
        session.output.line(&at_rest(&status));
    }
    verdict(session, batch, &status)
}

async fn cancel(session: &Session, arguments: &CancelArguments) -> Result<(), Failure> {
    let batch = BATCH.resolve(&session.client, &arguments.one.batch).await?;
    let body = arguments.reason.as_ref().map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    let answer =
        session.client.post(&format!("/v1/batches/{batch}/cancel"), &body, &[("phases", Value::is_array)]).await;
    let answer = answer.map_err(|failure| look(session, &batch, failure))?;
    if session.output.is_json {
        session.output.json(&answer);
    } else {
        session.output.line(&format!("batch {batch} is cancelled: {}", words(&answer["phases"])));
    }
    Ok(())
}
