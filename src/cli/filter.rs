//! Which batches: the filter of the listing and of bulk retries. And the words of the wire, for arguments.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use jiff::{SignedDuration, Timestamp};

use crate::clock::Clock;
use crate::contract::{BatchClientStatus, CourseCode, ErrorCode, PipelineExecutionStatus};
use crate::domain::Phase;
use crate::likeness::{did_you_mean, nearest_name};

/// The names of the phases. Case does not matter.
pub(super) fn phase() -> impl TypedValueParser<Value = String> {
    let names = Phase::ALL.map(|phase| phase.name().as_str());
    PossibleValuesParser::new(names).map(|name| name.to_ascii_lowercase())
}

/// The courses.
pub(super) fn course() -> PossibleValuesParser {
    PossibleValuesParser::new(CourseCode::ALL.iter().map(|course| course.as_str()))
}

fn batch_status() -> PossibleValuesParser {
    PossibleValuesParser::new(BatchClientStatus::ALL.iter().map(|status| status.as_str()))
}

fn phase_status() -> PossibleValuesParser {
    PossibleValuesParser::new(PipelineExecutionStatus::ALL.iter().map(|status| status.as_str()))
}

/// The error codes of phases.
pub(super) fn error_codes() -> Vec<&'static str> {
    ErrorCode::ALL.iter().map(|code| code.as_str()).collect()
}

fn error_code(text: &str) -> Result<String, String> {
    let code = text.parse::<ErrorCode>().map_err(|_| {
        let question = did_you_mean(nearest_name(text, &error_codes()));
        format!("not an error code of a phase, as NLP_SERVICE_ERROR or TIMEOUT{question}")
    })?;
    Ok(code.as_str().to_owned())
}

/// A number of seconds, minutes, hours or days.
pub(super) fn duration_s(text: &str) -> Result<i64, String> {
    let (number, unit_s) = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((number, "s")) => (number, 1),
        Some((number, "m")) => (number, 60),
        Some((number, "h")) => (number, 3_600),
        Some((number, "d")) => (number, 86_400),
        Some(_) | None => ("", 0),
    };
    let seconds = number.parse::<u32>().ok().filter(|number| *number > 0).map(|number| i64::from(number) * unit_s);
    seconds.ok_or_else(|| "give a number with its unit, as 45s, 30m, 12h or 7d".to_owned())
}

/// A time, or how long ago.
fn moment(text: &str) -> Result<String, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.to_string());
    }
    let ago = duration_s(text).map_err(|_| "give a time (RFC 3339), or how long ago, as 30m, 12h or 7d".to_owned())?;
    let now = Clock::system().now().to_timestamp();
    let time = now.checked_sub(SignedDuration::from_secs(ago)).map_err(|_| "that is too long ago".to_owned())?;
    Ok(time.to_string())
}

/// What the batches have in common.
#[derive(Debug, Args)]
pub struct FilterArguments {
    /// Where the batch stands.
    #[arg(long, value_name = "STATUS", value_parser = batch_status())]
    status: Option<String>,
    /// Where the phase stands.
    #[arg(long, value_name = "STATUS", value_parser = phase_status())]
    phase_status: Option<String>,
    /// What the phase failed with last.
    #[arg(long, value_name = "CODE", value_parser = error_code)]
    error_code: Option<String>,
    /// Registered then or later: a time (RFC 3339), or how long ago (30m, 12h, 7d).
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<String>,
    /// Registered before: a time, or how long ago.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<String>,
    /// A phase has been over half its deadline.
    #[arg(long)]
    stuck: bool,
}

impl FilterArguments {
    /// The members that are set, by their names on the wire.
    pub(super) fn members(&self) -> Vec<(&'static str, String)> {
        let mut members: Vec<_> = [
            ("status", &self.status),
            ("phase_status", &self.phase_status),
            ("error_code", &self.error_code),
            ("since", &self.since),
            ("until", &self.until),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.clone().map(|value| (name, value)))
        .collect();
        members.extend(self.stuck.then(|| ("stuck", "true".to_owned())));
        members
    }
}
