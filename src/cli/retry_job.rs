//! `rephase retry-job`: bulk retries.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::Members;
use super::common::{Common, Session};
use super::failure::{EXIT_CODES, Failure};
use super::filter::{FilterArguments, phase};
use super::ids::{RETRY_JOB, pages};
use super::output::{Table, Tone, cell, remark, status};
use super::progress::Bars;
use super::values::{list, text, time};

/// How often a running job is asked how far it is.
const POLL: Duration = Duration::from_millis(250);

/// How many pages of a job's batches are read: as many as a job can have.
const MAX_PAGES: usize = 50;

/// What a job has.
const JOB: Members = &[("status", Value::is_string), ("counts", Value::is_object)];

/// Arguments of `retry-job`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct RetryJobArguments {
    #[command(subcommand)]
    command: RetryJobCommand,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Subcommand)]
enum RetryJobCommand {
    /// Retry one phase of every batch that fits, as many as there are now.
    Create(CreateArguments),
    /// List the user's bulk retries, the newest first.
    List {
        /// How many at the most.
        #[arg(long, value_name = "NUMBER", default_value_t = 50)]
        limit: usize,
    },
    /// Show a bulk retry, and what became of each of its batches.
    Show(OneJob),
    /// Show how far it is until it has ended. Exits with 1 where a batch was left alone.
    Watch(OneJob),
    /// Stop it; the batches that wait are left alone.
    Stop(OneJob),
}

#[derive(Debug, Args)]
struct OneJob {
    /// The job's id, or the beginning of it.
    #[arg(value_name = "JOB")]
    job: String,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct CreateArguments {
    /// The phase to run again.
    #[arg(value_name = "PHASE", value_parser = phase(), ignore_case = true)]
    phase: String,
    #[command(flatten)]
    filter: FilterArguments,
    /// The phase that the filter is about, where it is another than PHASE.
    #[arg(long, value_name = "PHASE", value_parser = phase(), ignore_case = true)]
    filter_phase: Option<String>,
    /// Every batch: without a filter this has to be said.
    #[arg(long)]
    all: bool,
    /// Only the essays that failed, or never arrived and could now.
    #[arg(long)]
    only_failed: bool,
    /// Why; at most 500 characters.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How many batches are retried in a second, 1 to 1000. The server's default is 10.
    #[arg(long, value_name = "NUMBER")]
    per_second: Option<u32>,
    /// Say how many would be retried, and change nothing.
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Wait until the job has gone through its batches.
    #[arg(long)]
    wait: bool,
}

impl CreateArguments {
    fn body(&self) -> Result<Value, Failure> {
        let members = self.filter.members();
        if members.is_empty() && self.filter_phase.is_none() && !self.all {
            let hint = "say which, as --phase-status failed; or --all";
            return Err(Failure::usage("without a filter this is about every batch").hint(hint));
        }
        let mut filter: Map<String, Value> =
            members.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        // A flag is text in a query, and a boolean here.
        if let Some(stuck) = filter.get_mut("stuck") {
            *stuck = true.into();
        }
        let about = self.filter_phase.as_ref().unwrap_or(&self.phase);
        filter.insert("phase".to_owned(), about.as_str().into());
        let mut body = json!({ "filter": filter, "phase": self.phase });
        for (name, is_set) in [("only_failed", self.only_failed), ("dry_run", self.dry_run)] {
            if is_set {
                body[name] = true.into();
            }
        }
        if let Some(reason) = &self.reason {
            body["reason"] = reason.as_str().into();
        }
        if let Some(per_second) = self.per_second {
            body["per_second"] = per_second.into();
        }
        Ok(body)
    }
}

pub(super) async fn run(arguments: RetryJobArguments) -> Result<(), Failure> {
    let session = arguments.common.session()?;
    match arguments.command {
        RetryJobCommand::Create(arguments) => create(&session, &arguments).await,
        RetryJobCommand::List { limit } => list_jobs(&session, limit).await,
        RetryJobCommand::Show(OneJob { job }) => show(&session, &job).await,
        RetryJobCommand::Watch(OneJob { job }) => {
            let job = RETRY_JOB.resolve(&session.client, &job).await?;
            watch(&session, &job).await
        }
        RetryJobCommand::Stop(OneJob { job }) => stop(&session, &job).await,
    }?;
    session.output.finish()
}

async fn create(session: &Session, arguments: &CreateArguments) -> Result<(), Failure> {
    let made: Members =
        if arguments.dry_run { &[("total", Value::is_number)] } else { &[("job_id", Value::is_string)] };
    let answer = session.client.post("/v1/retry-jobs", &arguments.body()?, made).await?;
    let output = &session.output;
    if output.is_json {
        output.json(&answer);
    } else if arguments.dry_run {
        preview(session, &answer);
    } else {
        let job = text(&answer["job_id"]);
        output.line(&format!("retry job {job}: {}", batches(&answer["total"])));
        if !arguments.wait {
            remark(output.is_json, &session.command(&format!("retry-job watch {job}")));
        }
    }
    if arguments.wait { watch(session, &text(&answer["job_id"])).await } else { Ok(()) }
}

fn batches(count: &Value) -> String {
    let count = text(count);
    if count == "1" { "1 batch".to_owned() } else { format!("{count} batches") }
}

fn preview(session: &Session, answer: &Value) {
    let output = &session.output;
    let (would, total) = (text(&answer["would_be_retried"]), batches(&answer["total"]));
    output.marked(Tone::Moving, "would be:", &format!("{would} of {total} retried"));
    for refused in list(&answer["would_be_refused"]) {
        let (count, error) = (text(&refused["count"]), text(&refused["error"]));
        output.marked(Tone::Bad, &format!("  {count} refused:"), &error);
    }
    let mut table = Table::new(&["BATCH", "ATTEMPT", "REFUSED BECAUSE"]);
    for batch in list(&answer["batches"]) {
        table.row([
            cell(text(&batch["batch_id"])),
            cell(text(&batch["attempt"])),
            cell(batch["error"].as_str().unwrap_or_default()),
        ]);
    }
    if !table.is_empty() {
        output.table(table);
    }
}

async fn list_jobs(session: &Session, limit: usize) -> Result<(), Failure> {
    let output = &session.output;
    let mut table = Table::new(&["JOB", "STATUS", "PHASE", "BATCHES", "CREATED", "REASON"]);
    let has_more = pages(&session.client, &RETRY_JOB, Vec::new(), limit, |job| {
        if output.is_json {
            output.json(job);
        } else {
            table.row([
                cell(text(&job["job_id"])),
                status(&text(&job["status"])),
                cell(text(&job["phase"])),
                cell(text(&job["total"])),
                cell(time(&job["created_at"])),
                cell(text(&job["reason"])),
            ]);
        }
        !output.is_closed()
    });
    let has_more = has_more.await?;
    if !table.is_empty() {
        output.table(table);
    } else if !output.is_json {
        remark(output.is_json, "there is no retry job");
    }
    if has_more {
        remark(output.is_json, &format!("there are more than {limit}; --limit NUMBER shows them"));
    }
    Ok(())
}

/// The job with all of its batches.
async fn whole(session: &Session, job: &str) -> Result<Value, Failure> {
    let path = format!("/v1/retry-jobs/{job}");
    let mut whole =
        session.client.get(&path, JOB).await.map_err(|failure| RETRY_JOB.missing(&session.client, failure))?;
    for _ in 0..MAX_PAGES {
        let Some(from) = whole["next_from"].as_u64() else { break };
        let mut page = session.client.query(&path, &[("from", from.to_string())], JOB).await?;
        whole["next_from"] = page["next_from"].take();
        if let (Some(batches), Value::Array(more)) = (whole["batches"].as_array_mut(), page["batches"].take()) {
            batches.extend(more);
        }
    }
    Ok(whole)
}

async fn show(session: &Session, job: &str) -> Result<(), Failure> {
    let job = RETRY_JOB.resolve(&session.client, job).await?;
    let job = whole(session, &job).await?;
    let output = &session.output;
    if output.is_json {
        output.json(&job);
        return Ok(());
    }
    output.toned(Tone::Bold, &format!("retry job {}", text(&job["job_id"])));
    let status_now = text(&job["status"]);
    output.marked(Tone::of_status(&status_now), &status_now, &counts(&job));
    output.line(&format!("{} of batches with {}", text(&job["phase"]), text(&job["filter"])));
    let (created, ended) = (time(&job["created_at"]), time(&job["ended_at"]));
    output.toned(Tone::Dim, &format!("created {created}, ended {ended}; {}", text(&job["reason"])));
    let mut table = Table::new(&["BATCH", "OUTCOME", "ATTEMPT", "PHASE NOW", "WHY"]);
    for batch in list(&job["batches"]) {
        table.row([
            cell(text(&batch["batch_id"])),
            status(&text(&batch["outcome"])),
            cell(text(&batch["attempt"])),
            status(&text(&batch["phase_status"])),
            cell(batch["error"].as_str().unwrap_or_default()),
        ]);
    }
    output.gap();
    output.table(table);
    Ok(())
}

/// How many of its batches stand where; nowhere is left out, but for those that were retried.
fn counts(job: &Value) -> String {
    let counts = &job["counts"];
    let is_told = |name: &&&str| **name == "retried" || counts[**name] != 0;
    let told = ["retried", "waiting", "moved", "refused"];
    let is_over = job["status"] != "running";
    // Nobody waits for a job that was stopped.
    let said = |name: &'static str| if name == "waiting" && is_over { "left alone" } else { name };
    let told: Vec<_> =
        told.iter().filter(is_told).map(|name| format!("{} {}", text(&counts[name]), said(name))).collect();
    told.join(", ")
}

async fn watch(session: &Session, job: &str) -> Result<(), Failure> {
    let path = format!("/v1/retry-jobs/{job}");
    let output = &session.output;
    let bars = Bars::new();
    let bar = bars.bar("batches", 0);
    let (mut last, mut state);
    last = Value::Null;
    loop {
        let asked = session.client.query(&path, &[("limit", "1".to_owned())], JOB).await;
        state = asked.map_err(|failure| RETRY_JOB.missing(&session.client, failure))?;
        // The one batch says nothing about the job.
        if let Some(members) = state.as_object_mut() {
            members.remove("batches");
            members.remove("next_from");
        }
        let total = state["total"].as_u64().unwrap_or(0);
        bar.set_length(total);
        bar.set_position(total.saturating_sub(state["counts"]["waiting"].as_u64().unwrap_or(0)));
        bar.set_message(counts(&state));
        if output.is_json && state != last {
            bars.aside(|| output.json(&state));
        }
        if state["status"] != "running" || output.is_closed() {
            break;
        }
        last = state;
        tokio::time::sleep(POLL).await;
    }
    bars.clear();
    let ended = text(&state["status"]);
    if !output.is_json {
        output.marked(Tone::of_status(&ended), &format!("retry job {job} {ended}:"), &counts(&state));
    }
    let is_whole = state["counts"]["retried"] == state["total"];
    if is_whole || output.is_closed() {
        return Ok(());
    }
    let failure = Failure::failed(format!("not every batch was retried: {}", counts(&state)));
    Err(failure.hint(session.command(&format!("retry-job show {job}"))))
}

async fn stop(session: &Session, job: &str) -> Result<(), Failure> {
    let job = RETRY_JOB.resolve(&session.client, job).await?;
    let answer = session.client.delete(&format!("/v1/retry-jobs/{job}"), &[("status", Value::is_string)]).await;
    let answer = answer.map_err(|failure| RETRY_JOB.missing(&session.client, failure))?;
    if session.output.is_json {
        session.output.json(&answer);
    } else {
        session.output.line(&format!("retry job {job} is {}", text(&answer["status"])));
    }
    Ok(())
}
