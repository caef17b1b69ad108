//! Who runs the phases: simulated workers, one for each phase; and who finds the students of a regular batch.
//!
//! A worker consumes the initiate commands of its phase and answers with `ELSBatchPhaseOutcomeV1`. It owns its latency,
//! its faults and what it makes of a text; it never touches a batch's record, and asks the engine for everything.

pub mod faults;
mod simulated;
mod spelling;
mod students;

use std::ops::RangeInclusive;
use std::sync::Arc;

pub use faults::{FaultRule, Faults};

use crate::bus;
use crate::contract::Group;
use crate::domain::Phase;
use crate::engine::Engine;

/// How simulated workers behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a phase takes, in milliseconds; drawn anew for each attempt.
    pub latency_ms: RangeInclusive<u64>,
    /// What the draws begin with: the same seed and the same order of commands give the same latencies.
    pub seed: u64,
    /// What goes wrong, and when.
    pub faults: Faults,
    /// Who finds the students of a regular batch.
    pub student_matching: StudentMatching,
}

/// Who finds the students of a regular batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StudentMatching {
    /// Whoever is simulated here: every essay gets a student of its own at once.
    #[default]
    Simulated,
    /// Somebody outside, who hears of it by the events and confirms by one.
    Events,
}

impl Default for Options {
    fn default() -> Self {
        Self { latency_ms: 20..=80, seed: 0, faults: Faults::default(), student_matching: StudentMatching::default() }
    }
}

/// The groups that run phases.
const GROUPS: [(Group, Phase); 4] = [
    (Group::Spellcheck, Phase::Spellcheck),
    (Group::CjAssessment, Phase::CjAssessment),
    (Group::Nlp, Phase::Nlp),
    (Group::AiFeedback, Phase::AiFeedback),
];

/// Starts a simulated worker for each phase. They end with the engine.
///
/// # Errors
/// [`bus::Error::AlreadySubscribed`] where somebody runs one of the phases already.
pub fn start(engine: &Engine, options: &Options) -> Result<(), bus::Error> {
    let options = Arc::new(options.clone());
    students::start(engine, &options)?;
    for (group, phase) in GROUPS {
        let subscription = engine.bus().subscribe(group)?;
        let worker = simulated::Worker::new(engine.clone(), phase, Arc::clone(&options));
        let stop = engine.stopping().clone();
        engine.spawn(async move {
            stop.run_until_cancelled(worker.run(subscription)).await;
        });
    }
    Ok(())
}
