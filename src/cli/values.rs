//! How values of the server's answers look to people.

use std::fmt;

use jiff::Timestamp;
use serde_json::Value;

/// What stands where there is nothing.
pub(super) const NOTHING: &str = "–";

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// So many of something, whose name has an s where there are several.
pub(super) fn counted(count: impl fmt::Display, name: &str) -> String {
    let count = count.to_string();
    let ending = if count == "1" { "" } else { "s" };
    format!("{count} {name}{ending}")
}

/// A list of words.
pub(super) fn words(value: &Value) -> String {
    let words: Vec<_> = value.as_array().into_iter().flatten().map(text).collect();
    if words.is_empty() { NOTHING.to_owned() } else { words.join(", ") }
}

/// The members of a list.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn timestamp(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// A time, to the second. What is none is shown as it came.
pub(super) fn time(value: &Value) -> String {
    timestamp(value).map_or_else(|| text(value), |time| time.strftime("%F %TZ").to_string())
}

/// How long it was from one time to another.
pub(super) fn took(from: &Value, to: &Value) -> String {
    let (Some(from), Some(to)) = (timestamp(from), timestamp(to)) else { return NOTHING.to_owned() };
    let took = to.duration_since(from);
    let seconds = took.as_secs();
    match seconds {
        ..1 => format!("{} ms", took.as_millis()),
        1..60 => format!("{:.1} s", took.as_secs_f64()),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}
