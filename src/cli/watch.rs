//! Waits until nothing of a batch waits or runs, and shows what moves meanwhile.

use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use serde_json::Value;

use super::client::Members;
use super::common::Session;
use super::failure::Failure;
use super::ids::BATCH;
use super::progress::Bars;
use super::timeline::{Mark, phase_move};
use super::values::text;
use crate::domain::Phase;

/// How long the server is asked to wait before it says where the batch stands, in milliseconds. At rest it says so at
/// once.
const POLL_MS: u64 = 250;

/// The shortest time between two questions: a server that is about to end does not wait.
const SHORTEST: Duration = Duration::from_millis(25);

/// What the status of a batch has.
pub(super) const STATUS: Members = &[("status", Value::is_string), ("pipeline_state", Value::is_object)];

/// Whether to wait.
#[derive(Debug, Args)]
pub struct WaitArguments {
    /// Wait until the batch is at rest, for so many seconds at the most where that is said, and end by how that went.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true,
          value_parser = clap::value_parser!(u64).range(1..))]
    #[expect(clippy::option_option, reason = "a flag that may have a value")]
    wait: Option<Option<u64>>,
}

impl WaitArguments {
    pub(super) const fn is_wanted(&self) -> bool {
        self.wait.is_some()
    }

    /// For how long, where there is an end to it.
    pub(super) fn limit(&self) -> Option<Duration> {
        self.wait.flatten().map(Duration::from_secs)
    }
}

/// What is shown of a batch that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shows {
    /// Each move of a phase; for a machine the status, each time that it has changed.
    Moves,
    /// For people the same; for a machine nothing.
    MovesForPeople,
}

/// Waits until `batch` is at rest, and answers its status then.
pub(super) async fn until_rest(
    session: &Session,
    batch: &str,
    shows: Shows,
    limit: Option<Duration>,
) -> Result<Value, Failure> {
    until_rest_of(session, batch, shows, limit, &Phase::ALL).await
}

/// The same, and shows no phase but these.
pub(super) async fn until_rest_of(
    session: &Session,
    batch: &str,
    shows: Shows,
    limit: Option<Duration>,
    about: &[Phase],
) -> Result<Value, Failure> {
    let (bars, phases) = (Bars::new(), Default::default());
    let mut watcher = Watcher { session, shows, about, bars, phases, last: Value::Null };
    let (began, mut wait_ms) = (Instant::now(), 0);
    let path = format!("/v1/batches/{batch}/status");
    loop {
        let asked = Instant::now();
        let status = session.client.query(&path, &[("wait_ms", wait_ms.to_string())], STATUS).await;
        let status = status.map_err(|failure| BATCH.missing(&session.client, failure))?;
        watcher.show(&status);
        if status["status"] != "processing" || session.output.is_closed() {
            return Ok(status);
        }
        if limit.is_some_and(|limit| began.elapsed() >= limit) {
            let message = format!("batch {batch} has not come to rest within {} s", began.elapsed().as_secs());
            return Err(Failure::failed(message).hint(session.command(&format!("batch watch {batch}"))));
        }
        if wait_ms > 0 {
            tokio::time::sleep(SHORTEST.saturating_sub(asked.elapsed())).await;
        }
        wait_ms = POLL_MS;
    }
}

/// Whether a batch at rest is as one would have it.
pub(super) fn verdict(session: &Session, batch: &str, status: &Value) -> Result<(), Failure> {
    match text(&status["status"]).as_str() {
        "completed_with_failures" | "failed" | "cancelled" => {
            let failure = Failure::failed(format!("batch {batch} ended as {}", text(&status["status"])));
            Err(failure.hint(session.command(&format!("batch show {batch}"))))
        }
        _ => Ok(()),
    }
}

struct Watcher<'a> {
    session: &'a Session,
    shows: Shows,
    about: &'a [Phase],
    bars: Bars,
    /// The status of each phase that was shown last, and its bar.
    phases: [Option<(String, ProgressBar)>; 4],
    last: Value,
}

impl Watcher<'_> {
    fn show(&mut self, status: &Value) {
        for phase in self.about.iter().copied() {
            let detail = &status["pipeline_state"][phase.name().as_str()];
            if detail.is_object() {
                let expected = status["batch_context"]["expected_essay_count"].as_u64().unwrap_or(0);
                self.show_phase(phase, detail, expected);
            }
        }
        let output = &self.session.output;
        if output.is_json && self.shows == Shows::Moves && *status != self.last {
            self.bars.aside(|| output.json(status));
        }
        self.last = status.clone();
    }

    fn show_phase(&mut self, phase: Phase, detail: &Value, expected: u64) {
        let name = phase.name().as_str();
        let counts = &detail["essay_counts"];
        // A phase that has not begun has no essays yet.
        let total = counts["total"].as_u64().filter(|total| *total > 0).unwrap_or(expected);
        let status = text(&detail["status"]);
        let seen = &mut self.phases[phase.index()];
        let is_new = seen.as_ref().is_none_or(|(seen, _)| *seen != status);
        let (seen, bar) = seen.get_or_insert_with(|| (String::new(), self.bars.bar(name, total)));
        bar.set_length(total);
        bar.set_position(settled(detail, total));
        bar.set_message(super::output::plain(&said(detail, &status)).into_owned());
        if is_new {
            seen.clone_from(&status);
            let (mark, text) = phase_move(&status, counts);
            let output = &self.session.output;
            if !output.is_json {
                self.bars.aside(|| print(output, mark, name, &text));
            }
        }
    }
}

fn print(output: &super::output::Output, mark: Mark, name: &str, text: &str) {
    output.marked(mark.tone(), &format!("{} {name:<13}", mark.sign()), text);
}

/// How many essays of the phase are done, as far as its worker has said.
fn settled(detail: &Value, total: u64) -> u64 {
    let counts = &detail["essay_counts"];
    let ended = ["successful", "failed"].iter().filter_map(|name| counts[name].as_u64()).fold(0, u64::saturating_add);
    let percentage = detail["progress_percentage"].as_f64().unwrap_or(0.0).clamp(0.0, 100.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a number of essays, which is small and not negative"
    )]
    let done = (total.min(1_000_000) as f64 * percentage / 100.0).round() as u64;
    ended.max(done).min(total)
}

fn said(detail: &Value, status: &str) -> String {
    match detail["error_info"]["next_retry_at"].as_str() {
        Some(at) => format!("{status}, again at {at}"),
        None => status.to_owned(),
    }
}
