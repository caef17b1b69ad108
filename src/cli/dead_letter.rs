//! `rephase dead-letter`: messages that no consumer could handle.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::common::{Common, Session};
use super::failure::{EXIT_CODES, Exit, Failure};
use super::ids::{DEAD_LETTER, pages};
use super::output::{Table, Tone, cell, remark, status, toned};
use super::values::{list, text, time};

/// How many letters the server decides about in one request.
const MAX_DECISIONS: usize = 200;

/// The most letters that are found for one decision.
const MAX_FOUND: usize = 10_000;

/// How long a letter that was redriven is looked after, and how often.
const MOMENT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

/// Arguments of `dead-letter`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct DeadLetterArguments {
    #[command(subcommand)]
    command: DeadLetterCommand,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Subcommand)]
enum DeadLetterCommand {
    /// List dead letters of every user, the newest first.
    List(ListArguments),
    /// Show one with its message, and all that happened to it.
    Show {
        /// Its id, or the beginning of it.
        #[arg(value_name = "LETTER")]
        letter: String,
    },
    /// Send them on their way again, as the same messages to the same consumers. Exits with 1 where one is refused again
    /// within a second.
    Redrive(Decided),
    /// Close them.
    Discard(Decided),
}

#[derive(Debug, Args)]
struct ListArguments {
    /// Where they stand.
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(["open", "redriven", "discarded"]))]
    state: Option<String>,
    /// The topic of the message.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// How many at the most.
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    limit: usize,
}

#[derive(Debug, Args)]
struct Decided {
    /// Their ids, or the beginnings of them.
    #[arg(value_name = "LETTER", required_unless_present = "all", conflicts_with = "all")]
    letters: Vec<String>,
    /// All that are open.
    #[arg(long)]
    all: bool,
    /// With --all: those of this topic.
    #[arg(long, value_name = "TOPIC", requires = "all")]
    topic: Option<String>,
}

pub(super) async fn run(arguments: DeadLetterArguments) -> Result<(), Failure> {
    let session = arguments.common.session()?;
    match arguments.command {
        DeadLetterCommand::List(arguments) => list_letters(&session, &arguments).await,
        DeadLetterCommand::Show { letter } => show(&session, &letter).await,
        DeadLetterCommand::Redrive(decided) => decide(&session, &decided, "redrive").await,
        DeadLetterCommand::Discard(decided) => decide(&session, &decided, "discard").await,
    }?;
    session.output.finish()
}

async fn list_letters(session: &Session, arguments: &ListArguments) -> Result<(), Failure> {
    let output = &session.output;
    let is_filtered = arguments.state.is_some() || arguments.topic.is_some();
    let query = [("state", &arguments.state), ("topic", &arguments.topic)];
    let query = query.into_iter().filter_map(|(name, value)| value.clone().map(|value| (name, value))).collect();
    let mut table = Table::new(&["LETTER", "STATE", "TOPIC", "LAST", "ERROR"]);
    let has_more = pages(&session.client, &DEAD_LETTER, query, arguments.limit, |letter| {
        if output.is_json {
            output.json(letter);
        } else {
            table.row([
                cell(text(&letter["id"])),
                status(&text(&letter["state"])),
                cell(text(&letter["topic"])),
                cell(time(&letter["last_at"])),
                toned(Tone::Bad, text(&letter["error"])),
            ]);
        }
        !output.is_closed()
    });
    let has_more = has_more.await?;
    if table.is_empty() {
        remark(output.is_json, if is_filtered { "no dead letter fits" } else { "there are no dead letters" });
    } else {
        output.table(table);
    }
    if has_more {
        remark(output.is_json, &format!("there are more than {}; --limit NUMBER shows them", arguments.limit));
    }
    Ok(())
}

async fn show(session: &Session, letter: &str) -> Result<(), Failure> {
    let id = DEAD_LETTER.resolve(&session.client, letter).await?;
    let letter = session.client.get(&format!("/internal/v1/dead-letters/{id}"), &[("history", Value::is_array)]).await;
    let letter = letter.map_err(|failure| DEAD_LETTER.missing(&session.client, failure))?;
    let output = &session.output;
    if output.is_json {
        output.json(&letter);
        return Ok(());
    }
    output.toned(Tone::Bold, &format!("dead letter {}", text(&letter["id"])));
    let state = text(&letter["state"]);
    output.marked(Tone::of_status(&state), &state, &format!("for {}", text(&letter["service"])));
    output.line(&format!("{}, key {}", text(&letter["topic"]), text(&letter["key"])));
    let mut table = Table::new(&["WHEN", "WHAT", "BY", "WHY"]);
    for event in list(&letter["history"]) {
        table.row([
            cell(time(&event["at"])),
            status(&text(&event["what"])),
            cell(text(&event["by"])),
            cell(text(&event["error"])),
        ]);
    }
    output.gap();
    output.table(table);
    output.gap();
    let envelope = &letter["message"]["envelope"];
    let pretty = serde_json::to_string_pretty(envelope).unwrap_or_default();
    pretty.lines().for_each(|line| output.line(line));
    if state == "open" {
        output.gap();
        for decision in ["redrive", "discard"] {
            output.marked(Tone::Good, &format!("  {}", session.command(&format!("dead-letter {decision} {id}"))), "");
        }
    }
    Ok(())
}

async fn decide(session: &Session, decided: &Decided, decision: &str) -> Result<(), Failure> {
    let ids = letters(session, decided).await?;
    let mut results = Vec::new();
    let (mut done, mut closed, mut missing) = (0, 0, 0);
    for ids in ids.chunks(MAX_DECISIONS) {
        let path = format!("/internal/v1/dead-letters/{decision}");
        let answer = session.client.post(&path, &json!({ "ids": ids }), &[("results", Value::is_array)]).await?;
        for result in list(&answer["results"]) {
            match (&result["error"], &result["state"]) {
                (Value::Null, _) => done += 1,
                (_, Value::Null) => missing += 1,
                _ => closed += 1,
            }
            results.push(result.clone());
        }
    }
    let came_back = if decision == "redrive" { came_back(session, &mut results).await? } else { 0 };
    show_results(session, &results);
    if closed + missing == 0 && came_back > 0 {
        let message =
            format!("{came_back} of {done} came back at once: refused again for the same, or another, reason");
        let hint = format!("mend the cause first: {}", session.command("dead-letter show LETTER"));
        return Err(Failure::failed(message).hint(hint));
    }
    if closed + missing == 0 {
        return Ok(());
    }
    let exit = if missing > 0 { Exit::NotFound } else { Exit::Refused };
    let message = format!("{done} decided; {closed} are not open, {missing} are not there");
    Err(Failure::new(exit, message).hint(session.command("dead-letter list --state open")))
}

fn show_results(session: &Session, results: &[Value]) {
    let output = &session.output;
    let mut table = Table::new(&["LETTER", "STATE", "WHY"]);
    for result in results {
        if output.is_json {
            output.json(result);
        } else {
            let why = result["error"].as_str().unwrap_or_default();
            table.row([cell(text(&result["id"])), status(&text(&result["state"])), toned(Tone::Bad, why)]);
        }
    }
    if !table.is_empty() {
        output.table(table);
    } else if results.is_empty() {
        remark(output.is_json, "no dead letter is open");
    }
}

/// Marks those of the redriven letters that their consumer has refused again within a moment, and says how many. Letters
/// have no sign for that they were taken, so nothing is waited for but that moment.
async fn came_back(session: &Session, results: &mut [Value]) -> Result<usize, Failure> {
    let is_on_its_way = |result: &Value| result["error"].is_null() && result["state"] == "redriven";
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < MOMENT && results.iter().any(is_on_its_way) {
        tokio::time::sleep(PAUSE).await;
        let mut open = HashMap::new();
        let query = vec![("state", "open".to_owned())];
        pages(&session.client, &DEAD_LETTER, query, MAX_FOUND, |letter| {
            open.extend(letter["id"].as_str().map(|id| (id.to_owned(), letter["error"].clone())));
            true
        })
        .await?;
        for result in results.iter_mut().filter(|result| is_on_its_way(result)) {
            let Some(error) = result["id"].as_str().and_then(|id| open.remove(id)) else { continue };
            result["state"] = "open".into();
            result["error"] = format!("it came back: {}", text(&error)).into();
            count += 1;
        }
    }
    Ok(count)
}

async fn letters(session: &Session, decided: &Decided) -> Result<Vec<String>, Failure> {
    let mut ids = Vec::new();
    if decided.all {
        let mut query = vec![("state", "open".to_owned())];
        query.extend(decided.topic.clone().map(|topic| ("topic", topic)));
        pages(&session.client, &DEAD_LETTER, query, MAX_FOUND, |letter| {
            ids.extend(letter["id"].as_str().map(str::to_owned));
            true
        })
        .await?;
        return Ok(ids);
    }
    for letter in &decided.letters {
        ids.push(DEAD_LETTER.resolve(&session.client, letter).await?);
    }
    Ok(ids)
}
