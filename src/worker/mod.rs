//! Who runs the phases: simulated workers, one for each phase.
//!
//! A worker consumes the initiate commands of its phase and answers with `ELSBatchPhaseOutcomeV1`. It owns its latency,
//! its faults and what it makes of a text; it never touches a batch's record, and asks the engine for everything.

pub mod faults;
mod simulated;
mod spelling;

use std::ops::RangeInclusive;
use std::sync::Arc;

pub use faults::{FaultRule, Faults};

use crate::bus;
use crate::contract::Group;
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
}

impl Default for Options {
    fn default() -> Self {
        Self { latency_ms: 20..=80, seed: 0, faults: Faults::default() }
    }
}

/// The groups that run phases.
const GROUPS: [Group; 4] = [Group::Spellcheck, Group::CjAssessment, Group::Nlp, Group::AiFeedback];

/// Starts a simulated worker for each phase. They end with the engine.
///
/// # Errors
/// [`bus::Error::AlreadySubscribed`] where somebody runs one of the phases already.
pub fn start(engine: &Engine, options: &Options) -> Result<(), bus::Error> {
    let options = Arc::new(options.clone());
    for group in GROUPS {
        let subscription = engine.bus().subscribe(group)?;
        let worker = simulated::Worker::new(engine.clone(), group, Arc::clone(&options));
        let stop = engine.stopping().clone();
        engine.spawn(async move {
            stop.run_until_cancelled(worker.run(subscription)).await;
        });
    }
    Ok(())
}
