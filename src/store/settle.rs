//! Settling: what the journal says is written to the database, and then the journal forgets it.
//!
//! A key that was written many times since it was settled last is written once, with what it says now; most messages,
//! timers and listings come and go within one journal, and are never written at all. A crash anywhere in here costs
//! nothing: the journal still says everything, and it is settled again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, OnceLock};

use super::Sequence;
use super::archive::Archive;
use super::disk::Durability;
use super::guard;
use super::journal;
use super::keys;
use super::layers::{Layer, Tree};
use super::seal;
use crate::crash::{self, Point};

/// What is to be settled: the frozen layers of both trees.
pub(super) struct Settlement {
    pub(super) state: Arc<Layer>,
    pub(super) contents: Arc<Layer>,
    /// How many commits it brings the database up to.
    pub(super) commits: u64,
    /// Up to which segment the journal may be forgotten then; none where there is no journal.
    pub(super) last_segment: Option<u64>,
}

/// The thread that settles.
pub(super) struct Settler {
    pub(super) database: sled::Db,
    pub(super) state: Tree,
    pub(super) contents: Tree,
    pub(super) archive: Archive,
    /// Whether there are events in the database.
    pub(super) has_events: bool,
    pub(super) durability: Durability,
    pub(super) directory: PathBuf,
    /// How long the database's log is.
    pub(super) log_bytes: Arc<AtomicU64>,
    pub(super) failure: Arc<OnceLock<Arc<str>>>,
}

impl Settler {
    /// Settles one after the other, and says when each is done, or that it cannot be.
    pub(super) fn run(mut self, settlements: &Receiver<Settlement>, done: &Sender<()>) {
        self.seal();
        while let Ok(settlement) = settlements.recv() {
            if let Err(reason) = self.settle(settlement) {
                tracing::error!(reason, "the journal cannot be settled; the store takes no more commits");
                // The first failure is the one that is told.
                let _ = self.failure.set(reason.into());
            }
            // The committer may have ended.
            let _ = done.send(());
        }
    }

    fn settle(&mut self, settlement: Settlement) -> Result<(), String> {
        let Settlement { state, contents, commits, last_segment } = settlement;
        crash::reach(Point::SettleFrozen);
        // The texts first, so that a record in the database never refers to one that is not there.
        write(self.contents.settled(), contents.iter())?;
        let is_event = |key: &sled::IVec| key.starts_with(keys::EVENTS);
        let archived_up_to =
            self.archive(state.range(sled::IVec::from(keys::EVENTS)..).take_while(|(key, _)| is_event(key)))?;
        let belongs =
            |(key, value): &(&sled::IVec, &Option<sled::IVec>)| !is_event(key) || (self.has_events && value.is_none());
        write(self.state.settled(), state.iter().filter(belongs))?;
        // Should the files be lost, it is known that there were some. Behind what a log begins with.
        if let Some(end) = archived_up_to {
            self.state.settled().insert(keys::EVENTS_END, &end.to_be_bytes()).map_err(text)?;
        }
        crash::reach(Point::SettleWritten);
        // The log is a sequence: with this, everything before it is there.
        self.state.settled().insert(keys::COMMITS, &commits.to_be_bytes()).map_err(text)?;
        self.database.flush().map_err(text)?;
        let log_bytes = self.durability.sync().map_err(text)?;
        self.log_bytes.store(log_bytes, Ordering::Relaxed);
        crash::reach(Point::SettleDurable);
        self.contents.thaw();
        self.state.thaw();
        self.archive.remove_forgotten().map_err(text)?;
        self.seal();
        if let Some(last) = last_segment {
            journal::retire(&self.directory, last).map_err(text)?;
        }
        Ok(())
    }

    /// Writes the events of a layer into a file of their own, and says up to which number there are files then, where
    /// there were any.
    fn archive<'a>(&self, events: impl Iterator<Item = Written<'a>>) -> Result<Option<Sequence>, String> {
        let present = |(key, value): Written<'a>| {
            let value = value.as_ref()?;
            Some(keys::event_sequence(key).map(|sequence| (sequence, value)))
        };
        let events: Vec<_> = events.filter_map(present).collect::<Result<_, _>>().map_err(text)?;
        self.archive.put(&events).map_err(text)?;
        Ok(self.archive.bounds().filter(|_| !events.is_empty()).map(|(_, end)| end))
    }

    /// Seals the database, which only this thread writes. Without a seal the next start takes longer, and no more.
    fn seal(&self) {
        if matches!(self.durability, Durability::Fdatasync { .. })
            && let Err(error) = guard::commits(self.state.settled())
                .map_err(text)
                .and_then(|commits| seal::seal(&self.directory, commits).map_err(text))
        {
            tracing::warn!(%error, "the database is not sealed");
        }
    }
}

/// An entry of a layer.
type Written<'a> = (&'a sled::IVec, &'a Option<sled::IVec>);

/// Writes one after the other: a batch of the database's would roll its buffers and keep whoever reads waiting.
fn write<'a>(tree: &sled::Tree, mut layer: impl Iterator<Item = Written<'a>>) -> Result<(), String> {
    layer
        .try_for_each(|(key, value)| match value {
            Some(value) => tree.insert(key, value).map(drop),
            None => tree.remove(key).map(drop),
        })
        .map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
