//! How many stand where, as it is stored.

use serde::{Deserialize, Serialize};

use super::super::Error;
use super::super::census::Counts;
use super::{corrupt, keys, parse};
use crate::contract::{BatchClientStatus, PipelineExecutionStatus};
use crate::domain::{LetterState, Phase};

/// Counts by the names of what they count. Where nothing stands is left out.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct StoredCounts<N> {
    batches: Vec<(N, u64)>,
    phases: Vec<(u8, N, u64)>,
    letters: Vec<(N, u64)>,
}

impl StoredCounts<&'static str> {
    pub(in crate::store) fn of(counts: &Counts) -> Self {
        let batches = BatchClientStatus::ALL.iter().map(|status| (status.as_str(), counts.batches[*status as usize]));
        let phases = Phase::ALL.into_iter().flat_map(|phase| {
            let of_phase = &counts.phases[phase.index()];
            let byte = keys::phase_byte(phase);
            PipelineExecutionStatus::ALL.iter().map(move |status| (byte, status.as_str(), of_phase[*status as usize]))
        });
        let letters = LetterState::ALL.into_iter().map(|state| (state.as_str(), counts.letters[state as usize]));
        Self {
            batches: batches.filter(|(_, count)| *count > 0).collect(),
            phases: phases.filter(|(.., count)| *count > 0).collect(),
            letters: letters.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

impl StoredCounts<String> {
    pub(in crate::store) fn into_counts(self) -> Result<Counts, Error> {
        let mut counts = Counts::default();
        for (status, count) in self.batches {
            counts.batches[parse::<BatchClientStatus>(&status)? as usize] = count;
        }
        for (phase, status, count) in self.phases {
            counts.phases[keys::phase_of(phase)?.index()][parse::<PipelineExecutionStatus>(&status)? as usize] = count;
        }
        for (state, count) in self.letters {
            let known = LetterState::ALL.into_iter().find(|known| known.as_str() == state);
            counts.letters[known.ok_or_else(|| corrupt("a state that no letter has"))? as usize] = count;
        }
        Ok(counts)
    }
}
