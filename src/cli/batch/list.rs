//! `rephase batch list`.

use clap::Args;
use serde_json::Value;

use super::super::common::Session;
use super::super::failure::Failure;
use super::super::filter::{FilterArguments, phase};
use super::super::ids::{BATCH, pages};
use super::super::output::{Entry, Table, cell, remark, status};
use super::super::values::{NOTHING, list, text, time};
use crate::domain::Phase;

/// Arguments of `batch list`.
#[derive(Debug, Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// A phase that was asked for; what is said of a phase is about this one.
    #[arg(long, value_name = "PHASE", value_parser = phase(), ignore_case = true)]
    phase: Option<String>,
    /// How many at the most.
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    limit: usize,
}

pub(super) async fn run(session: &Session, arguments: &ListArguments) -> Result<(), Failure> {
    let mut query = arguments.filter.members();
    query.extend(arguments.phase.clone().map(|phase| ("phase", phase)));
    let is_filtered = !query.is_empty();
    let mut table = Table::new(&["BATCH", "STATUS", "ESSAYS", "REGISTERED", "PHASES"]);
    let output = &session.output;
    let has_more = pages(&session.client, &BATCH, query, arguments.limit, |batch| {
        if output.is_json {
            output.json(batch);
        } else {
            table.row(row(batch));
        }
        !output.is_closed()
    });
    let has_more = has_more.await?;
    if !output.is_json && !table.is_empty() {
        output.table(table);
    } else if !output.is_json {
        let none = if is_filtered { "no batch fits" } else { "this user has no batches" };
        let submit = session.command("batch submit DIRECTORY --course COURSE");
        remark(output.is_json, &if is_filtered { none.to_owned() } else { format!("{none}; {submit}") });
    }
    if has_more {
        remark(output.is_json, &format!("there are more than {}; --limit NUMBER shows them", arguments.limit));
    }
    Ok(())
}

fn row(batch: &Value) -> [Entry; 5] {
    let (course, received) = (text(&batch["course_code"]), text(&batch["essays_received"]));
    [
        cell(text(&batch["batch_id"])),
        status(&text(&batch["status"])),
        cell(format!("{course} {received}/{}", text(&batch["expected_essay_count"]))),
        cell(time(&batch["registered_at"])),
        cell(format!("{}{}", phases(&batch["phases"]), note(batch))),
    ]
}

/// Each phase with a sign for where it stands.
fn phases(phases: &Value) -> String {
    let sign = |status: &str| match status {
        "completed_successfully" => "✓",
        "completed_with_partial_success" => "◐",
        "failed" => "✗",
        "dispatch_initiated" | "in_progress" => "…",
        "cancelled" => "⊘",
        "skipped_due_to_dependency_failure" | "skipped_by_user_config" => "↷",
        _ => "·",
    };
    let named = Phase::ALL.iter().filter_map(|phase| {
        let name = phase.name().as_str();
        phases[name]["status"].as_str().map(|status| format!("{name} {}", sign(status)))
    });
    let named: Vec<_> = named.collect();
    if named.is_empty() { NOTHING.to_owned() } else { named.join("  ") }
}

/// What is not as it should be.
fn note(batch: &Value) -> String {
    let stale: Vec<_> = list(&batch["stale"]).iter().map(text).collect();
    let stale = (!stale.is_empty()).then(|| format!(" (stale: {})", stale.join(", ")));
    let stuck = batch["stuck_since"].is_string().then(|| " (stuck)".to_owned());
    [stuck, stale].into_iter().flatten().collect()
}
