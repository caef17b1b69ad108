//! `rephase batch show`.

use serde_json::{Value, json};

use super::super::common::Session;
use super::super::failure::Failure;
use super::super::ids::BATCH;
use super::super::output::{Table, Tone, cell, status, toned};
use super::super::retry::RETRIED;
use super::super::values::{NOTHING, counted, list, text, time, took, words};
use super::super::watch::STATUS;
use crate::domain::{Phase, needs_prompt};

/// How many attempts of one phase are shown to people; the newest.
const SHOWN_ATTEMPTS: usize = 10;

/// How many pages of attempts of one phase are read.
const MAX_PAGES: usize = 50;

/// A phase of the batch, with its attempts, oldest first.
struct Shown<'a> {
    name: &'static str,
    detail: &'a Value,
    attempts: Vec<Value>,
}

pub(super) async fn run(session: &Session, batch: &str) -> Result<(), Failure> {
    let batch = BATCH.resolve(&session.client, batch).await?;
    let batch_status = session.client.get(&format!("/v1/batches/{batch}/status"), STATUS).await;
    let batch_status = batch_status.map_err(|failure| BATCH.missing(&session.client, failure))?;
    let mut phases = Vec::new();
    for phase in Phase::ALL {
        let name = phase.name().as_str();
        let detail = &batch_status["pipeline_state"][name];
        if detail.is_object() {
            phases.push(Shown { name, detail, attempts: attempts(session, &batch, name).await? });
        }
    }
    let next = next(session, &batch, &batch_status, &phases).await?;
    if session.output.is_json {
        let attempts: serde_json::Map<_, _> =
            phases.into_iter().map(|phase| (phase.name.to_owned(), phase.attempts.into())).collect();
        let mut all = batch_status.clone();
        all["attempts"] = attempts.into();
        all["next"] = next.iter().map(|(command, why)| json!({ "command": command, "why": why })).collect();
        session.output.json(&all);
        return Ok(());
    }
    head(session, &batch_status);
    if !phases.is_empty() {
        show_phases(session, &phases, &batch_status);
        show_failures(session, &phases);
        show_attempts(session, &phases);
    }
    show_next(session, &next);
    Ok(())
}

async fn attempts(session: &Session, batch: &str, phase: &str) -> Result<Vec<Value>, Failure> {
    let path = format!("/v1/batches/{batch}/phases/{phase}/attempts");
    let (mut attempts, mut from) = (Vec::new(), 1);
    for _ in 0..MAX_PAGES {
        let mut page =
            session.client.query(&path, &[("from", from.to_string())], &[("attempts", Value::is_array)]).await?;
        if let Value::Array(members) = page["attempts"].take() {
            attempts.extend(members);
        }
        match page["next_from"].as_u64() {
            Some(next) if next > from => from = next,
            Some(_) | None => break,
        }
    }
    Ok(attempts)
}

fn head(session: &Session, batch: &Value) {
    let output = &session.output;
    let (context, details) = (&batch["batch_context"], &batch["details"]);
    let client_status = text(&batch["status"]);
    output.toned(Tone::Bold, &format!("batch {}", text(&batch["batch_id"])));
    let stands = format!("({})", text(&details["batch_status"]));
    output.marked(Tone::of_status(&client_status), &client_status, &stands);
    let essays = counted(text(&context["expected_essay_count"]), "essay");
    let essays = format!("{} of {essays}", text(&details["essays_received"]));
    let (course, owner) = (text(&context["course_code"]), text(&context["user_id"]));
    output.line(&format!("{course}, {essays}, owned by {owner}"));
    let (registered, updated) = (time(&details["registered_at"]), time(&details["updated_at"]));
    output.toned(Tone::Dim, &format!("registered {registered}, last changed {updated}"));
    if batch["stuck_since"].is_string() {
        let since = time(&batch["stuck_since"]);
        output.toned(Tone::Bad, &format!("stuck: a phase has been over half its deadline since {since}"));
    }
    if !list(&batch["stale"]).is_empty() {
        let stale = words(&batch["stale"]);
        output.toned(Tone::Bad, &format!("stale: {stale} has not seen what a phase above made later"));
    }
}

fn show_phases(session: &Session, phases: &[Shown<'_>], batch: &Value) {
    let mut table = Table::new(&["PHASE", "STATUS", "CAME OUT", "FAILED", "OF", "ATTEMPTS"]);
    for Shown { name, detail, attempts } in phases {
        let counts = &detail["essay_counts"];
        table.row([
            cell(*name),
            status(&text(&detail["status"])),
            cell(text(&counts["successful"])),
            cell(text(&counts["failed"])),
            cell(text(&counts["total"])),
            cell(attempts.len().to_string()),
        ]);
    }
    session.output.gap();
    session.output.table(table);
    // What is long stands below, where a terminal may break it as it likes.
    for Shown { name, detail, .. } in phases {
        let info = &detail["error_info"];
        let is_stale = list(&batch["stale"]).iter().any(|stale| stale == name);
        let mut said = said(info);
        said.extend(info["next_retry_at"].as_str().map(|_| format!("again at {}", time(&info["next_retry_at"]))));
        said.extend(is_stale.then(|| "stale".to_owned()));
        if !said.is_empty() {
            session.output.marked(Tone::Bad, &format!(" {name}:"), &said.join(", "));
        }
    }
}

/// What is said of an error.
fn said(error: &Value) -> Vec<String> {
    let members = ["error_code", "category", "message", "note"];
    members.iter().map(|name| &error[name]).filter(|said| !said.is_null()).map(text).collect()
}

fn show_failures(session: &Session, phases: &[Shown<'_>]) {
    let mut table = Table::new(&["ESSAY", "PHASE", "ERROR", "MESSAGE"]);
    for Shown { name, detail, .. } in phases {
        // Where the whole phase failed, its essays have nothing of their own to say.
        let says_why = |essay: &&Value| !essay["error_code"].is_null() || !essay["message"].is_null();
        for essay in list(&detail["error_info"]["failed_essays"]).iter().filter(says_why) {
            let (id, message) = (cell(text(&essay["essay_id"])), cell(text(&essay["message"])));
            table.row([id, cell(*name), toned(Tone::Bad, text(&essay["error_code"])), message]);
        }
    }
    if !table.is_empty() {
        session.output.gap();
        session.output.table(table);
    }
}

fn show_attempts(session: &Session, phases: &[Shown<'_>]) {
    let header = ["ATTEMPT", "BY", "BECAUSE", "ASKED FOR", "WAITED", "TOOK", "ESSAYS", "ENDED"];
    let mut table = Table::new(&header);
    let (mut errors, mut left_out) = (Vec::new(), 0);
    for Shown { name, attempts, .. } in phases {
        left_out += attempts.len().saturating_sub(SHOWN_ATTEMPTS);
        for attempt in attempts.iter().skip(attempts.len().saturating_sub(SHOWN_ATTEMPTS)) {
            let trigger = text(&attempt["trigger"]);
            let reason = attempt["reason"].as_str().map_or(trigger.clone(), |reason| format!("{trigger}: {reason}"));
            let said = said(attempt);
            if !said.is_empty() {
                errors.push((format!(" {name} {}:", text(&attempt["attempt"])), said.join(", ")));
            }
            table.row([
                cell(format!("{name} {}", text(&attempt["attempt"]))),
                cell(text(&attempt["requested_by"])),
                cell(reason),
                cell(time(&attempt["enqueued_at"])),
                cell(took(&attempt["enqueued_at"], &attempt["dispatched_at"])),
                cell(took(&attempt["dispatched_at"], &attempt["ended_at"])),
                cell(text(&attempt["essay_count"])),
                attempt["outcome"].as_str().map_or_else(|| toned(Tone::Moving, "not yet"), status),
            ]);
        }
    }
    session.output.gap();
    session.output.table(table);
    for (attempt, said) in errors {
        session.output.marked(Tone::Bad, &attempt, &said);
    }
    if left_out > 0 {
        session.output.toned(Tone::Dim, &format!("{left_out} earlier attempts are left out; --json has all of them"));
    }
}

/// What can be done about the batch now: commands, each with its reason. Whether a retry is possible the server says,
/// who is asked for nothing but a preview.
async fn next(
    session: &Session,
    batch: &str,
    status: &Value,
    phases: &[Shown<'_>],
) -> Result<Vec<(String, String)>, Failure> {
    let mut next = Vec::new();
    for Shown { name, detail, .. } in phases {
        let is_stale = list(&status["stale"]).iter().any(|stale| stale == name);
        let (flags, why) = match text(&detail["status"]).as_str() {
            "failed" => ("", format!("{name} failed")),
            "completed_with_partial_success" if *name == "cj_assessment" => {
                ("", format!("some essays failed in {name}"))
            }
            "completed_with_partial_success" => (" --only-failed", format!("some essays failed in {name}")),
            "cancelled" => ("", format!("{name} was cancelled")),
            "in_progress" if detail["error_info"]["next_retry_at"].is_string() => {
                ("", format!("now, not later by itself: {name}"))
            }
            "completed_successfully" if is_stale => (" --force", format!("{name} is stale")),
            _ => continue,
        };
        let body = json!({
            "phase_name": name, "dry_run": true,
            "only_failed": flags.contains("only-failed"), "force": flags.contains("force"),
        });
        // Whoever may not, or a state that does not allow it, is no reason not to show the rest.
        if session.client.post(&format!("/v1/batches/{batch}/retry-phase"), &body, RETRIED).await.is_ok() {
            next.push((session.command(&format!("retry {batch} {name}{flags} --wait")), why));
        }
    }
    let may_change = session.client.speaks_for(&text(&status["batch_context"]["user_id"]));
    match text(&status["status"]).as_str() {
        "processing" => {
            next.push((session.command(&format!("batch watch {batch}")), "it is being processed".to_owned()));
            if may_change {
                next.push((session.command(&format!("batch cancel {batch}")), "to stop it".to_owned()));
            }
        }
        "ready" if may_change => {
            // Whether there is a prompt an older server does not say.
            let has_prompt = status["details"]["has_prompt"].as_bool().unwrap_or(true);
            let can_be_last = |phase: &&Phase| has_prompt || !needs_prompt(**phase);
            if let Some(last) = Phase::ALL.iter().rfind(can_be_last) {
                let command = session.command(&format!("batch run {batch} {last} --wait"));
                let why = if has_prompt { "" } else { ", and has no prompt, which other phases need" };
                next.push((command, format!("it is ready for a pipeline{why}")));
            }
        }
        _ => {}
    }
    Ok(next)
}

fn show_next(session: &Session, next: &[(String, String)]) {
    if next.is_empty() {
        return;
    }
    session.output.gap();
    session.output.toned(Tone::Bold, "next");
    for (command, why) in next {
        session.output.marked(Tone::Good, &format!("  {command}"), &format!(" {NOTHING} {why}"));
    }
}
