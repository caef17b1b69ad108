//! Who runs the phases: for each of them a simulated worker, workers of somebody else's that lease its attempts, or
//! somebody who hears of its commands by the events; and who finds the students of a regular batch.
//!
//! A simulated worker consumes the initiate commands of its phase and answers with `ELSBatchPhaseOutcomeV1`. It owns its
//! latency, its faults and what it makes of a text; it never touches a batch's record, and asks the engine for
//! everything.

pub mod faults;
mod outside;
mod simulated;
mod spelling;
mod students;

use std::ops::RangeInclusive;

pub use faults::{FaultRule, Faults, InForce};

use crate::bus;
use crate::contract::Group;
use crate::domain::Phase;
use crate::engine::Engine;

/// Who runs a phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Runner {
    /// A simulated worker, in this process.
    #[default]
    Simulated,
    /// Workers of somebody else's, by lease.
    Remote,
    /// Somebody who sees the command on the event stream, and answers with an outcome as an event.
    Events,
}

/// A name that is none of a [`Runner`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a phase is run by simulated, remote or events")]
pub struct NoRunner;

impl std::str::FromStr for Runner {
    type Err = NoRunner;

    fn from_str(name: &str) -> Result<Self, NoRunner> {
        match name {
            "simulated" => Ok(Self::Simulated),
            "remote" => Ok(Self::Remote),
            "events" => Ok(Self::Events),
            _ => Err(NoRunner),
        }
    }
}

/// Who runs the phases, and how simulated workers behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who runs each phase, by [`Phase::index`].
    pub runners: [Runner; 4],
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
        Self {
            runners: Default::default(),
            latency_ms: 20..=80,
            seed: 0,
            faults: Faults::default(),
            student_matching: StudentMatching::default(),
        }
    }
}

/// The group that gets the commands of `phase`.
const fn group_of(phase: Phase) -> Group {
    match phase {
        Phase::Spellcheck => Group::Spellcheck,
        Phase::CjAssessment => Group::CjAssessment,
        Phase::Nlp => Group::Nlp,
        Phase::AiFeedback => Group::AiFeedback,
    }
}

/// Starts what each phase is run by, and answers the fault rules that simulated workers go by. All of it ends with the
/// engine.
///
/// # Errors
/// [`bus::Error::AlreadySubscribed`] where somebody runs one of the phases already.
pub fn start(engine: &Engine, options: &Options) -> Result<InForce, bus::Error> {
    let faults = InForce::new(options.faults.clone());
    students::start(engine, options)?;
    for phase in Phase::ALL {
        let commands = engine.bus().subscribe(group_of(phase))?;
        let stop = engine.stopping().clone();
        let handle = engine.clone();
        match options.runners[phase.index()] {
            Runner::Simulated => {
                let worker = simulated::Worker::new(handle, phase, options, faults.clone());
                engine.spawn(async move {
                    stop.run_until_cancelled(worker.run(commands)).await;
                });
            }
            Runner::Remote => {
                engine.open_desk(phase);
                engine.spawn(async move {
                    stop.run_until_cancelled(outside::offer(handle, phase, commands)).await;
                });
            }
            Runner::Events => engine.spawn(async move {
                stop.run_until_cancelled(outside::leave_to_events(handle, commands)).await;
            }),
        }
    }
    Ok(faults)
}
