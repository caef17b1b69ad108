//! Whole numbers that are written with a fraction of nothing: `2.0` is an integer to JSON Schema (2020-12, section
//! 6.1.1), and some languages write each of their numbers so.
//!
//! The types read `2` alone. So a body that they refuse is read once more with its numbers written that way; one that
//! they take is never looked at, and nothing is rounded.

use serde::de::DeserializeOwned;

use super::context;
use super::problem::Problem;

/// Reads `bytes` as [`context::parse`] does, and takes `2.0` where that wants `2`.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    context::parse(bytes).or_else(|problem| match std::str::from_utf8(bytes).ok().and_then(rewritten) {
        Some(whole) => context::parse(whole.as_bytes()),
        None => Err(problem),
    })
}

/// `json` without the fractions of nothing; none where there are none. Where it is no JSON, that is none either.
fn rewritten(json: &str) -> Option<String> {
    let mut whole = String::new();
    let (mut copied, mut number) = (0, None);
    let (mut is_text, mut is_escaped) = (false, false);
    // Whatever ends a number ends the last one.
    for (at, byte) in json.bytes().chain([b' ']).enumerate() {
        if is_text {
            is_text = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
        } else if matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E') {
            number.get_or_insert(at);
        } else {
            is_text = byte == b'"';
            if let Some(begin) = number.take()
                && let Some(integer) = integer_of(&json[begin..at])
            {
                whole.push_str(&json[copied..begin]);
                whole.push_str(integer);
                copied = at;
            }
        }
    }
    (copied > 0).then(|| whole + &json[copied..])
}

/// What is before the fraction of `number`, where there is nothing in it.
fn integer_of(number: &str) -> Option<&str> {
    let (integer, fraction) = number.split_once('.')?;
    let digits = integer.strip_prefix('-').unwrap_or(integer);
    let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_nothing = !fraction.is_empty() && fraction.bytes().all(|byte| byte == b'0');
    (is_integer && is_nothing).then_some(integer)
}

#[cfg(test)]
mod tests {
    use super::rewritten;

    #[test]
    fn only_fractions_of_nothing_go() {
        for (json, whole) in [
            ("2.0", "2"),
            ("-2.000", "-2"),
            (r#"{"a":2.0,"b":[1.0, 1.5,3],"c":0.0 }"#, r#"{"a":2,"b":[1, 1.5,3],"c":0 }"#),
            (r#"{"2.0":"3.0 \" 4.0","a\\":5.0}"#, r#"{"2.0":"3.0 \" 4.0","a\\":5}"#),
            ("[\"ä\",18446744073709551615.0,true]", "[\"ä\",18446744073709551615,true]"),
        ] {
            assert_eq!(rewritten(json).as_deref(), Some(whole), "{json}");
        }
    }

    #[test]
    fn what_is_no_such_number_stays_as_it_is() {
        let numbers =
            ["2", "2.5", "2.", ".0", "-.0", "--2.0", "2.0.0", "2.00e1", "2e1.0", "2.0-", "true.0", "\"2.0", ""];
        for number in numbers {
            assert_eq!(rewritten(number), None, "{number}");
        }
    }
}
