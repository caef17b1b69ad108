//! `rephase retry`.

use clap::Args;
use serde_json::{Value, json};

use super::batch::look;
use super::client::Members;
use super::common::{Common, Session};
use super::failure::{EXIT_CODES, Exit, Failure};
use super::filter::phase;
use super::ids::BATCH;
use super::output::Tone;
use super::values::{list, text, words};
use super::watch::{Shows, WaitArguments, until_rest_of};
use crate::domain::Phase;

/// What the answer to a retry has, and a preview of one.
pub(super) const RETRIED: Members = &[("phase", Value::is_string), ("attempt", Value::is_number)];

/// Arguments of `retry`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct RetryArguments {
    /// The batch's id, or the beginning of it.
    #[arg(value_name = "BATCH")]
    batch: String,
    /// The phase to run again.
    #[arg(value_name = "PHASE", value_parser = phase(), ignore_case = true)]
    phase: String,
    /// Only the essays that failed, or never arrived and could now.
    #[arg(long, conflicts_with = "essay")]
    only_failed: bool,
    /// Only this essay; repeatable, or with commas.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    essay: Vec<String>,
    /// Why; at most 500 characters.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Run what has completed, too.
    #[arg(long)]
    force: bool,
    /// Run the completed phases below again after success.
    #[arg(long)]
    downstream: bool,
    /// Say what would happen, and change nothing.
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitArguments,
    #[command(flatten)]
    pub(super) common: Common,
}

impl RetryArguments {
    fn body(&self) -> Value {
        let mut body = json!({ "phase_name": self.phase });
        let flags = [
            ("only_failed", self.only_failed),
            ("force", self.force),
            ("downstream", self.downstream),
            ("dry_run", self.dry_run),
        ];
        for (name, _) in flags.into_iter().filter(|(_, is_set)| *is_set) {
            body[name] = true.into();
        }
        if !self.essay.is_empty() {
            body["essay_ids"] = self.essay.clone().into();
        }
        if let Some(reason) = &self.reason {
            body["retry_reason"] = reason.as_str().into();
        }
        body
    }
}

pub(super) async fn run(arguments: RetryArguments) -> Result<(), Failure> {
    let session = arguments.common.session()?;
    let batch = BATCH.resolve(&session.client, &arguments.batch).await?;
    let answer = session.client.post(&format!("/v1/batches/{batch}/retry-phase"), &arguments.body(), RETRIED).await;
    let answer = answer.map_err(|failure| {
        let failure = failure.in_options();
        let wants_force = failure.is(Exit::Refused) && failure.to_string().contains("--force");
        let failure = if wants_force { failure.hint("--force runs it again all the same") } else { failure };
        look(&session, &batch, failure)
    })?;
    if session.output.is_json {
        session.output.json(&answer);
    } else {
        tell(&session, &answer, arguments.dry_run);
    }
    if arguments.wait.is_wanted() {
        // Others of its phases came out before, and would look as if they just had.
        let about: Vec<Phase> = concerned(&answer).filter_map(|phase| phase.parse().ok()).collect();
        let limit = arguments.wait.limit();
        let status = until_rest_of(&session, &batch, Shows::MovesForPeople, limit, &about).await?;
        if session.output.is_json {
            session.output.json(&status);
        }
        verdict(&session, &batch, &answer, &status)?;
    }
    session.output.finish()
}

fn tell(session: &Session, answer: &Value, is_preview: bool) {
    let output = &session.output;
    let (tone, mark) = if is_preview { (Tone::Moving, "would be:") } else { (Tone::Good, "accepted:") };
    output.marked(tone, mark, &text(&answer["message"]));
    output.line(&format!("  attempt    {}", text(&answer["attempt"])));
    for (name, member) in [("goes on", "goes_on"), ("runs again", "runs_again"), ("turns stale", "stale")] {
        if !list(&answer[member]).is_empty() {
            output.line(&format!("  {name:<10} {}", words(&answer[member])));
        }
    }
    if !list(&answer["essay_ids"]).is_empty() {
        output.line(&format!("  essays     {}", words(&answer["essay_ids"])));
    }
}

/// The phases that run because of a retry: its own, and those that go on or run again after it.
fn concerned(answer: &Value) -> impl Iterator<Item = String> {
    let others = ["goes_on", "runs_again"].into_iter().flat_map(|member| list(&answer[member]).iter().map(text));
    std::iter::once(text(&answer["phase"])).chain(others)
}

/// A retry went well where its phase has completed, and so has every phase that went on because of it. Other phases of
/// the batch may have failed before.
fn verdict(session: &Session, batch: &str, answer: &Value, status: &Value) -> Result<(), Failure> {
    let state = |phase: &String| text(&status["pipeline_state"][phase]["status"]);
    let ended = concerned(answer).map(|phase| (state(&phase), phase));
    let mut short = ended.filter(|(state, _)| state != "completed_successfully");
    let Some((state, phase)) = short.next() else { return Ok(()) };
    let info = &status["pipeline_state"][&phase]["error_info"];
    let why = info["message"].as_str().map(|message| format!(": {message}")).unwrap_or_default();
    let failure = Failure::failed(format!("{phase} ended as {state}{why}"));
    Err(failure.hint(session.command(&format!("batch show {batch}"))))
}
