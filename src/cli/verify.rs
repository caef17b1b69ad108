//! `rephase verify`.

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::VerifyArguments;
use super::output::plain;
use super::progress::Bars;
use crate::app::{self, Checked};

/// The exit code where the store could not be checked.
const UNREADABLE: u8 = 2;

pub(super) async fn run(arguments: VerifyArguments) -> anyhow::Result<ExitCode> {
    let is_json = arguments.json;
    let check = move || {
        let mut output = std::io::stdout().lock();
        // Nobody reads on; the exit code still says it.
        let mut tell = |violation: &str| {
            let _ = if is_json {
                writeln!(output, "{}", json!({ "violation": violation }))
            } else {
                writeln!(output, "{}", plain(violation))
            };
        };
        app::verify(&arguments.data_dir, &mut tell)
    };
    let bars = Bars::new();
    let spinner = bars.spinner("the state is being checked");
    let checked = tokio::task::spawn_blocking(check).await;
    spinner.finish_and_clear();
    match checked? {
        Ok(checked) => {
            let _ = writeln!(
                std::io::stdout(),
                "{}",
                if is_json { as_json(&checked).to_string() } else { as_text(&checked) }
            );
            Ok(if checked.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "rephase: {error:#}");
            Ok(ExitCode::from(UNREADABLE))
        }
    }
}

pub(super) fn as_json(checked: &Checked) -> Value {
    let counts = counts(checked).into_iter().map(|(member, _, count)| (member.to_owned(), count.into()));
    let violations = ("violations".to_owned(), checked.violations.into());
    Value::Object(counts.chain([violations]).collect())
}

pub(super) fn as_text(checked: &Checked) -> String {
    let violations = checked.violations;
    let verdict = if violations == 0 { "sound".to_owned() } else { format!("{violations} violation(s)") };
    let counts = counts(checked).map(|(_, what, count)| format!("{count} {what}"));
    format!("{verdict}: {}", counts.join(", "))
}

/// What was counted: its member in JSON, what people call it, and how many there are.
fn counts(checked: &Checked) -> [(&'static str, &'static str, u64); 11] {
    let Checked {
        batches,
        attempts,
        messages,
        keys,
        timers,
        jobs,
        letters,
        contents,
        events,
        balances,
        charges,
        violations: _,
    } = *checked;
    [
        ("batches", "batches", batches),
        ("attempts", "ended attempts", attempts),
        ("messages", "messages on their way", messages),
        ("timers", "timers", timers),
        ("keys", "idempotency keys", keys),
        ("retry_jobs", "retry jobs", jobs),
        ("dead_letters", "dead letters", letters),
        ("contents", "texts", contents),
        ("events", "events", events),
        ("balances", "balances", balances),
        ("charges", "charges", charges),
    ]
}
