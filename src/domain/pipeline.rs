//! Which phases a pipeline has, and what depends on what (contract, Phases and pipelines).
//!
//! The definitions are data, `data/pipelines.json`, embedded and checked once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::phase::Phase;
use crate::contract::PhaseName;

#[derive(Deserialize)]
struct File {
    phases: BTreeMap<PhaseName, PhaseEntry>,
    pipelines: BTreeMap<String, Vec<PhaseName>>,
}

#[derive(Deserialize)]
struct PhaseEntry {
    depends_on: Vec<PhaseName>,
    needs_prompt: bool,
}

struct Definitions {
    /// By [`Phase::index`]: what the phase depends on directly, in running order.
    depends_on: [Vec<Phase>; 4],
    needs_prompt: [bool; 4],
    pipelines: BTreeMap<String, Vec<Phase>>,
}

static DEFINITIONS: LazyLock<Definitions> = LazyLock::new(|| {
    Definitions::parse(include_str!("../../data/pipelines.json"))
        .unwrap_or_else(|reason| panic!("data/pipelines.json, which is part of this program, is wrong: {reason}"))
});

impl Definitions {
    fn parse(json: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let phases_of = |names: &[PhaseName]| -> Result<Vec<Phase>, String> {
            let mut phases = names
                .iter()
                .map(|&name| Phase::from_name(name).ok_or_else(|| format!("{name} is not a phase of a pipeline")))
                .collect::<Result<Vec<_>, _>>()?;
            phases.sort_unstable();
            Ok(phases)
        };
        let mut depends_on: [Vec<Phase>; 4] = Default::default();
        let mut needs_prompt = [false; 4];
        for phase in Phase::ALL {
            let entry = file.phases.get(&phase.name()).ok_or_else(|| format!("{phase} is missing"))?;
            depends_on[phase.index()] = phases_of(&entry.depends_on)?;
            needs_prompt[phase.index()] = entry.needs_prompt;
            // Phases run in one fixed order; with every dependency before its dependent there can be no cycle.
            if depends_on[phase.index()].iter().any(|&dependency| dependency >= phase) {
                return Err(format!("{phase} depends on a phase that does not run before it"));
            }
        }
        let pipelines = file
            .pipelines
            .iter()
            .map(|(name, phases)| Ok((name.clone(), phases_of(phases)?)))
            .collect::<Result<_, String>>()?;
        Ok(Self { depends_on, needs_prompt, pipelines })
    }
}

/// The phases that `phase` depends on directly, in the order in which they run.
#[must_use]
pub fn dependencies(phase: Phase) -> &'static [Phase] {
    &DEFINITIONS.depends_on[phase.index()]
}

/// The phases that depend on `phase`, directly or through others, in the order in which they run.
#[must_use]
pub fn dependents(phase: Phase) -> Vec<Phase> {
    let mut found = Vec::new();
    for candidate in Phase::ALL {
        if dependencies(candidate).iter().any(|dependency| *dependency == phase || found.contains(dependency)) {
            found.push(candidate);
        }
    }
    found
}

/// Whether `phase` needs to know what the students were asked to write.
#[must_use]
pub fn needs_prompt(phase: Phase) -> bool {
    DEFINITIONS.needs_prompt[phase.index()]
}

/// Why a name is no pipeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no pipeline '{name}'")]
pub struct ResolveError {
    /// The name, shortened.
    pub name: String,
}

/// The phases of the pipeline `name`, in the order in which they run: a phase with all that it depends on, or one of
/// the named pipelines. Any case will do.
///
/// # Errors
/// [`ResolveError`] where there is no such pipeline.
pub fn resolve(name: &str) -> Result<Vec<Phase>, ResolveError> {
    if let Ok(last) = name.parse::<Phase>() {
        return Ok(with_dependencies(last));
    }
    DEFINITIONS
        .pipelines
        .get(&name.to_ascii_lowercase())
        .cloned()
        .ok_or_else(|| ResolveError { name: name.chars().take(100).collect() })
}

/// `last` and all that it depends on, in the order in which they run.
pub(super) fn with_dependencies(last: Phase) -> Vec<Phase> {
    let mut needed = vec![last];
    // Dependencies run before their dependents, so one walk backwards finds them all.
    for phase in Phase::ALL.into_iter().rev() {
        if needed.iter().any(|dependent| dependencies(*dependent).contains(&phase)) {
            needed.push(phase);
        }
    }
    needed.sort_unstable();
    needed
}

#[cfg(test)]
mod tests {
    use super::*;
    use Phase::{AiFeedback, CjAssessment, Nlp, Spellcheck};

    #[test]
    fn a_pipeline_is_its_last_phase_with_all_it_depends_on() {
        for (name, phases) in [
            ("spellcheck", vec![Spellcheck]),
            ("nlp", vec![Spellcheck, Nlp]),
            ("cj_assessment", vec![Spellcheck, CjAssessment]),
            ("AI_Feedback", vec![Spellcheck, Nlp, AiFeedback]),
            ("comprehensive", vec![Spellcheck, CjAssessment, Nlp, AiFeedback]),
        ] {
            assert_eq!(resolve(name), Ok(phases), "{name}");
        }
        assert!(resolve("student_matching").is_err());
        assert!(resolve("").is_err());
    }

    #[test]
    fn dependents_are_found_through_others() {
        assert_eq!(dependents(Spellcheck), [CjAssessment, Nlp, AiFeedback]);
        assert_eq!(dependents(Nlp), [AiFeedback]);
        assert_eq!(dependents(CjAssessment), []);
    }

    #[test]
    fn definitions_that_cannot_run_are_refused() {
        let json = include_str!("../../data/pipelines.json");
        let cyclic = json.replacen("\"depends_on\": []", "\"depends_on\": [\"nlp\"]", 1);
        assert!(Definitions::parse(&cyclic).is_err());
        assert!(Definitions::parse(&json.replacen("\"nlp\": {", "\"student_matching\": {", 1)).is_err());
    }
}
