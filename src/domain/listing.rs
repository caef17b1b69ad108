//! Which batches a listing is about: filters, and the facets under which an index finds what they let through.

use super::batch::Batch;
use super::phase::{Phase, PhaseRecord};
use super::time::Millis;
use crate::contract::{BatchClientStatus, ErrorCode, PipelineExecutionStatus};

/// What the batches of a listing have in common. Nothing set lets everything through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Where the batch stands, as a client sees it.
    pub status: Option<BatchClientStatus>,
    /// A phase that was asked for. What is said of the phase below is about this one, where it is set, and about any
    /// otherwise.
    pub phase: Option<Phase>,
    /// Where the phase stands.
    pub phase_status: Option<PipelineExecutionStatus>,
    /// What the phase failed with last.
    pub error_code: Option<ErrorCode>,
    /// Registered then or later.
    pub since: Option<Millis>,
    /// Registered before.
    pub until: Option<Millis>,
    /// Whether the phase has been over half its deadline.
    pub stuck: bool,
}

/// Something that an index lists a batch under, as long as it is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facet {
    /// It exists.
    Any,
    /// It stands there.
    Status(BatchClientStatus),
    /// One of its phases stands there.
    Phase(Phase, PipelineExecutionStatus),
    /// One of its phases failed with this last.
    Error(Phase, ErrorCode),
}

impl Batch {
    /// Everything that an index lists this batch under, each once.
    #[must_use]
    pub fn facets(&self) -> Vec<Facet> {
        let mut facets = vec![Facet::Any, Facet::Status(self.status.for_client())];
        for (phase, record) in self.requested_phases() {
            facets.push(Facet::Phase(phase, record.state.status()));
            facets.extend(record.error().map(|error| Facet::Error(phase, error.error_code)));
        }
        facets
    }
}

impl Filter {
    /// Whether `batch` is let through at `now`.
    #[must_use]
    pub fn allows(&self, batch: &Batch, now: Millis) -> bool {
        let registered_at = batch.details.registered_at;
        self.status.is_none_or(|status| batch.status.for_client() == status)
            && self.since.is_none_or(|since| registered_at >= since)
            && self.until.is_none_or(|until| registered_at < until)
            && (!self.is_about_a_phase()
                || batch.requested_phases().any(|(phase, record)| self.fits(phase, record, now)))
    }

    const fn is_about_a_phase(&self) -> bool {
        self.phase.is_some() || self.phase_status.is_some() || self.error_code.is_some() || self.stuck
    }

    fn fits(&self, phase: Phase, record: &PhaseRecord, now: Millis) -> bool {
        self.phase.is_none_or(|wanted| phase == wanted)
            && self.phase_status.is_none_or(|status| record.state.status() == status)
            && self.error_code.is_none_or(|code| record.error().is_some_and(|error| error.error_code == code))
            && (!self.stuck || record.state.stuck_since(now).is_some())
    }

    /// Facets that together list every batch that is let through, and as few others as can be.
    #[must_use]
    pub fn facets(&self) -> Vec<Facet> {
        let phases = || Phase::ALL.into_iter().filter(|phase| self.phase.is_none_or(|wanted| *phase == wanted));
        if let Some(code) = self.error_code {
            phases().map(|phase| Facet::Error(phase, code)).collect()
        } else if let Some(status) = self.phase_status {
            phases().map(|phase| Facet::Phase(phase, status)).collect()
        } else if self.stuck {
            let in_flight = [PipelineExecutionStatus::DispatchInitiated, PipelineExecutionStatus::InProgress];
            phases().flat_map(|phase| in_flight.map(|status| Facet::Phase(phase, status))).collect()
        } else if let Some(status) = self.status {
            vec![Facet::Status(status)]
        } else {
            vec![Facet::Any]
        }
    }
}
