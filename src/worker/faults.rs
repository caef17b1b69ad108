//! Failures on demand: a list of rules, of which the first that matches an attempt decides.

use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::contract::ErrorCode;
use crate::crash::Point;
use crate::domain::{Category, MAX_ESSAYS, Phase, PhaseError, Slot};

/// The longest delay, in milliseconds: an hour. An attempt that is delayed holds a place of its worker.
const MAX_DELAY_MS: u64 = 3_600_000;

/// The most rules of one list.
const MAX_RULES: usize = 1_000;

/// One rule, as it stands in a `--faults` file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// The phase it is about.
    phase: String,
    /// The attempts it is about, from 1; all of them where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<u32>>,
    /// The essays that fail, by slot from 0; the whole phase where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    essays: Option<Vec<Slot>>,
    /// The error; a rule without one only delays.
    #[serde(default, deserialize_with = "known_code", skip_serializing_if = "Option::is_none")]
    error_code: Option<ErrorCode>,
    /// Whether trying again may help; by the error code where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<Category>,
    /// What a person reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// How long to wait at least before the phase is tried again by itself, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    /// How long the attempt takes, in milliseconds, in place of the usual latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    /// Whether its outcome is cut in half, so that nobody can read it.
    #[serde(default, skip_serializing_if = "is_not")]
    garbled: bool,
    /// Whether its outcome is delivered twice.
    #[serde(default, skip_serializing_if = "is_not")]
    duplicate: bool,
    /// A point at which the process dies the next time it gets there. For tests: the process may not be alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    crash: Option<Point>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
const fn is_not(flag: &bool) -> bool {
    !*flag
}

/// The rules in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(Vec<(Phase, FaultRule)>);

/// Why a list of rules is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no JSON list of rules.
    #[error("it is not a JSON list of fault rules")]
    Malformed(#[source] serde_json::Error),
    /// A rule says something that cannot be.
    #[error("fault rule {number}: {reason}")]
    Rule {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// There are too many.
    #[error("{count} fault rules are more than {MAX_RULES}")]
    TooMany {
        /// How many.
        count: usize,
    },
}

/// Reads an error code, and does not list all that there are where it is none of them.
fn known_code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ErrorCode>, D::Error> {
    let code = Option::<String>::deserialize(deserializer)?;
    code.map(|code| code.parse().map_err(|_| serde::de::Error::custom("error_code is not a code of the contract")))
        .transpose()
}

impl Faults {
    /// Reads a list of rules.
    ///
    /// # Errors
    /// [`Error`], with the number of the rule that is wrong.
    pub fn parse(json: &str) -> Result<Self, Error> {
        let rules: Vec<Value> = serde_json::from_str(json).map_err(Error::Malformed)?;
        let read = |(number, rule): (usize, Value)| {
            // A struct would also be read from an array of its fields, which nobody means.
            let rule = if rule.is_object() {
                serde_json::from_value(rule)
            } else {
                Err(serde::de::Error::custom("it is not an object"))
            };
            rule.map_err(|error: serde_json::Error| Self::wrong(number, error))
        };
        Self::new((1..).zip(rules).map(read).collect::<Result<_, _>>()?)
    }

    fn wrong(number: usize, reason: impl std::fmt::Display) -> Error {
        Error::Rule { number, reason: reason.to_string() }
    }

    /// Checks a list of rules.
    ///
    /// # Errors
    /// As [`Faults::parse`].
    pub fn new(rules: Vec<FaultRule>) -> Result<Self, Error> {
        if rules.len() > MAX_RULES {
            return Err(Error::TooMany { count: rules.len() });
        }
        let check = |(number, rule): (usize, FaultRule)| {
            let wrong = |reason: String| Self::wrong(number, reason);
            let phase: Phase = rule.phase.parse().map_err(|error| wrong(format!("{error}")))?;
            if rule.attempts.as_ref().is_some_and(|attempts| attempts.is_empty() || attempts.contains(&0)) {
                return Err(wrong("attempts count from 1, and an empty list would never match".to_owned()));
            }
            if let Some(essays) = &rule.essays {
                if essays.is_empty() || essays.iter().any(|slot| usize::from(*slot) >= MAX_ESSAYS) {
                    return Err(wrong(format!("essays are slots from 0 to {}, at least one", MAX_ESSAYS - 1)));
                }
                if rule.error_code.is_none() {
                    return Err(wrong("essays fail with an error_code; there is none".to_owned()));
                }
            }
            if rule.delay_ms.is_some_and(|delay_ms| delay_ms > MAX_DELAY_MS) {
                return Err(wrong(format!("delay_ms is at most {MAX_DELAY_MS}")));
            }
            let does_more = rule.garbled || rule.duplicate || rule.crash.is_some();
            if rule.error_code.is_none() && rule.delay_ms.is_none() && !does_more {
                let reason = "it has no error_code, delay_ms, garbled, duplicate or crash, so it would do nothing";
                return Err(wrong(reason.to_owned()));
            }
            Ok((phase, rule))
        };
        (1..).zip(rules).map(check).collect::<Result<_, _>>().map(Self)
    }

    /// The rules, in order, as they can be read again.
    pub fn rules(&self) -> impl Iterator<Item = &FaultRule> {
        self.0.iter().map(|(_, rule)| rule)
    }

    /// Whether one of them ends the process.
    #[must_use]
    pub fn can_crash(&self) -> bool {
        self.rules().any(|rule| rule.crash.is_some())
    }

    /// The first rule about this attempt of `phase` at the essays in `slots`.
    pub(super) fn find(&self, phase: Phase, attempt: u32, slots: &[Slot]) -> Option<&FaultRule> {
        let is_about = |rule: &FaultRule| {
            rule.attempts.as_ref().is_none_or(|attempts| attempts.contains(&attempt))
                && rule.essays.as_ref().is_none_or(|essays| essays.iter().any(|slot| slots.contains(slot)))
        };
        self.0.iter().find(|(about, rule)| *about == phase && is_about(rule)).map(|(_, rule)| rule)
    }
}

/// The rules that workers go by, which may be replaced while they run. Its clones share them.
#[derive(Debug, Clone, Default)]
pub struct InForce(Arc<RwLock<Arc<Faults>>>);

impl InForce {
    /// These, until they are replaced.
    #[must_use]
    pub fn new(faults: Faults) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(faults))))
    }

    /// The rules as they are now.
    #[must_use]
    pub fn get(&self) -> Arc<Faults> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on these. An attempt that has begun goes on by those that it began with.
    pub fn replace(&self, faults: Faults) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(faults);
    }
}

impl FaultRule {
    /// Whether the outcome is to be delivered twice.
    pub(super) const fn is_duplicate(&self) -> bool {
        self.duplicate
    }

    /// The point at which the process is to die.
    pub(super) const fn crash(&self) -> Option<Point> {
        self.crash
    }

    /// Whether the outcome is to be one that nobody can read.
    pub(super) const fn is_garbled(&self) -> bool {
        self.garbled
    }

    /// The error of the whole phase, or of the essay in `slot`.
    pub(super) fn error_of(&self, slot: Slot) -> Option<PhaseError> {
        if self.essays.as_ref().is_some_and(|essays| !essays.contains(&slot)) {
            return None;
        }
        self.error()
    }

    /// The error of the attempt.
    pub(super) fn error(&self) -> Option<PhaseError> {
        let message = self.message.as_deref().unwrap_or("a fault rule says so");
        self.error_code.map(|error_code| {
            let category = self.category.unwrap_or_else(|| Category::of(error_code));
            PhaseError::new(error_code, category, message)
        })
    }

    pub(super) const fn retry_after_ms(&self) -> Option<u64> {
        self.retry_after_ms
    }

    pub(super) const fn delay_ms(&self) -> Option<u64> {
        self.delay_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"[
        {"phase": "NLP", "attempts": [1, 2], "error_code": "TIMEOUT", "category": "permanent", "message": "slow"},
        {"phase": "nlp", "essays": [0, 2], "error_code": "NLP_SERVICE_ERROR"},
        {"phase": "nlp", "error_code": "UNKNOWN_ERROR"},
        {"phase": "spellcheck", "delay_ms": 5}
    ]"#;

    #[test]
    fn the_first_matching_rule_decides() {
        let faults = Faults::parse(RULES).expect("valid rules");
        let code = |phase, attempt, slots: &[Slot]| {
            faults.find(phase, attempt, slots).and_then(FaultRule::error).map(|error| error.error_code)
        };
        assert_eq!(code(Phase::Nlp, 2, &[0, 1]), Some(ErrorCode::Timeout));
        assert_eq!(code(Phase::Nlp, 3, &[0, 1]), Some(ErrorCode::NlpServiceError));
        assert_eq!(code(Phase::Nlp, 3, &[1]), Some(ErrorCode::UnknownError));
        assert_eq!(code(Phase::AiFeedback, 1, &[0]), None);
        let delayed = faults.find(Phase::Spellcheck, 9, &[0]).expect("the last rule");
        assert_eq!((delayed.delay_ms(), delayed.error()), (Some(5), None));
    }

    #[test]
    fn a_rule_for_essays_fails_only_these() {
        let faults = Faults::parse(RULES).expect("valid rules");
        let rule = faults.find(Phase::Nlp, 3, &[0, 1, 2]).expect("the second rule");
        let failing: Vec<Slot> = (0..3).filter(|slot| rule.error_of(*slot).is_some()).collect();
        assert_eq!(failing, [0, 2]);
    }

    #[test]
    fn rules_that_cannot_be_are_refused() {
        for json in [
            "{}",
            r#"[{"phase": "grading", "error_code": "TIMEOUT"}]"#,
            r#"[{"phase": "nlp"}]"#,
            r#"[{"phase": "nlp", "error_code": "NO_SUCH_CODE"}]"#,
            r#"[{"phase": "nlp", "error_code": "TIMEOUT", "attempts": [0]}]"#,
            r#"[{"phase": "nlp", "error_code": "TIMEOUT", "essays": []}]"#,
            r#"[{"phase": "nlp", "delay_ms": 3, "essays": [1]}]"#,
            r#"[{"phase": "nlp", "error_code": "TIMEOUT", "atempts": [1]}]"#,
        ] {
            assert!(Faults::parse(json).is_err(), "{json}");
        }
    }
}
