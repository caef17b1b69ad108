//! Questions about the essays of a batch: what a phase would get, and how they came out.

use super::attempt::Scope;
use super::batch::{Batch, Slot};
use super::phase::{EssayResult, Phase, PhaseRecord, PhaseState};
use super::pipeline::dependencies;
use crate::contract::{EssayProcessingCounts, EssayRef};

/// How the essays of a batch came out of all the phases that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EssayCounts {
    /// Essays that came out of every one of them.
    pub successful: u32,
    /// The others.
    pub failed: u32,
}

impl Batch {
    /// The essay in `slot` as it arrived.
    #[must_use]
    pub fn original_essay(&self, slot: Slot) -> Option<EssayRef> {
        let essay = self.essays.get(usize::from(slot))?;
        Some(EssayRef {
            essay_id: essay.id.clone(),
            text_storage_id: essay.content.as_ref()?.text_storage_id.clone(),
            spellcheck_metrics: None,
        })
    }

    /// The essay in `slot` as `phase` would get it: from the last phase it depends on, if it came out of all of them.
    #[must_use]
    pub fn input_of(&self, phase: Phase, slot: Slot) -> Option<EssayRef> {
        let mut essay = self.original_essay(slot)?;
        for &dependency in dependencies(phase) {
            match self.phase(dependency)?.results.get(usize::from(slot))? {
                EssayResult::Succeeded(output) => {
                    essay.text_storage_id.clone_from(&output.text_storage_id);
                    // A worker that has nothing to say about the spellcheck does not unsay it.
                    if output.spellcheck_metrics.is_some() {
                        essay.spellcheck_metrics.clone_from(&output.spellcheck_metrics);
                    }
                }
                EssayResult::NotRun | EssayResult::Failed { .. } => return None,
            }
        }
        Some(essay)
    }

    /// The slots in `scope` whose essays `phase` could get now, in order.
    #[must_use]
    pub fn slots_through(&self, phase: Phase, scope: &Scope) -> Vec<Slot> {
        let is_through = |slot: &Slot| self.input_of(phase, *slot).is_some();
        match scope {
            Scope::Whole => self.slots().filter(is_through).collect(),
            Scope::Essays(slots) => slots.iter().copied().filter(is_through).collect(),
        }
    }

    /// All slots, in order.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        0..Slot::try_from(self.essays.len()).unwrap_or(Slot::MAX)
    }

    /// How the essays came out of every phase that was asked for.
    #[must_use]
    pub fn essay_counts(&self) -> EssayCounts {
        let successful = self
            .slots()
            .filter(|&slot| {
                self.requested_phases()
                    .all(|(_, record)| matches!(record.results[usize::from(slot)], EssayResult::Succeeded(_)))
            })
            .count();
        let count = |essays: usize| u32::try_from(essays).unwrap_or(u32::MAX);
        EssayCounts { successful: count(successful), failed: count(self.essays.len() - successful) }
    }
}

impl PhaseRecord {
    /// The slots of the essays that are on their way: those of the open attempt, or of the one that comes by itself.
    #[must_use]
    pub fn pending_slots(&self) -> &[Slot] {
        match &self.state {
            PhaseState::BackingOff { scope: Scope::Essays(slots), .. } => slots,
            PhaseState::BackingOff { attempt, scope: Scope::Whole, .. } => &attempt.slots,
            state => state.open_attempt().map_or(&[][..], |attempt| &attempt.slots),
        }
    }

    /// How the essays that this phase got came out so far; those of an open attempt count as pending.
    #[must_use]
    pub fn counts(&self) -> EssayProcessingCounts {
        let mut counts = EssayProcessingCounts::default();
        // Both are in the order of the slots, so one walk over the two is enough.
        let mut running = self.pending_slots().iter().copied().peekable();
        for (slot, result) in self.results.iter().enumerate() {
            if running.next_if(|&next| usize::from(next) == slot).is_some() {
                counts.pending_dispatch_or_processing += 1;
            } else {
                match result {
                    EssayResult::NotRun => continue,
                    EssayResult::Succeeded(_) => counts.successful += 1,
                    EssayResult::Failed { .. } => counts.failed += 1,
                }
            }
            counts.total += 1;
        }
        counts
    }
}
