//! How many batches, phases and dead letters stand where.
//!
//! Nothing on disk says so. After the start somebody counts what there is, a page at a time, in the order of the keys;
//! what is written meanwhile to keys that were counted already is added or taken away by the committer, and so is
//! everything from then on. Both hold one lock until everything was counted; after that nobody does.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::journal::Write;
use super::layers::Tree;
use super::stored::StoredLetter;
use super::{Error, Store, codec, keys, read};
use crate::contract::{BatchClientStatus, PipelineExecutionStatus};
use crate::domain::{Facet, LetterState, Phase};

/// How many keys are counted at once: few enough that no commit waits for long.
const PAGE: usize = 256;

/// The counts. Their clones share them.
#[derive(Clone, Default)]
pub(super) struct Census(Arc<Counts>);

#[derive(Default)]
struct Counts {
    /// Everything was counted.
    is_whole: AtomicBool,
    /// The last key that was counted.
    place: Mutex<Vec<u8>>,
    batches: [AtomicI64; BatchClientStatus::ALL.len()],
    phases: [[AtomicI64; PipelineExecutionStatus::ALL.len()]; Phase::ALL.len()],
    letters: [AtomicI64; LetterState::ALL.len()],
}

/// How many stand where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standings {
    /// Batches, by where they stand for clients.
    pub batches: Vec<(BatchClientStatus, u64)>,
    /// Phases that were asked for, by where they stand.
    pub phases: Vec<(Phase, PipelineExecutionStatus, u64)>,
    /// Dead letters, by their state.
    pub letters: Vec<(LetterState, u64)>,
}

/// What one key counts for.
enum Counted {
    Batch(BatchClientStatus),
    Phase(Phase, PipelineExecutionStatus),
    Letter(LetterState),
}

impl Counts {
    fn add(&self, counted: &Counted, change: i64) {
        let count = match counted {
            Counted::Batch(status) => &self.batches[*status as usize],
            Counted::Phase(phase, status) => &self.phases[phase.index()][*status as usize],
            Counted::Letter(state) => &self.letters[*state as usize],
        };
        count.fetch_add(change, Ordering::Relaxed);
    }
}

fn counted(key: &[u8], value: &[u8]) -> Option<Counted> {
    match *key.first()? {
        keys::LISTING => match keys::facet_of(key)? {
            Facet::Status(status) => Some(Counted::Batch(status)),
            Facet::Phase(phase, status) => Some(Counted::Phase(phase, status)),
            Facet::Any | Facet::Error(..) => None,
        },
        // One that cannot be read is no reason to stop; reading it says so.
        keys::LETTER => Some(Counted::Letter(codec::decode::<StoredLetter>(value).ok()?.state())),
        _ => None,
    }
}

impl Census {
    /// Lets readers see a group by `apply`, and counts what that changes. Keys of listings never change their value, and
    /// are only written where they are new and removed where they are there.
    pub(super) fn apply<E>(
        &self,
        tree: &Tree,
        writes: Vec<Write>,
        apply: impl FnOnce(Vec<Write>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self(counts) = self;
        let place = if counts.is_whole.load(Ordering::Acquire) {
            None
        } else {
            let place = counts.place.lock().unwrap_or_else(PoisonError::into_inner);
            // It may have become whole while this waited.
            Some(place).filter(|_| !counts.is_whole.load(Ordering::Acquire))
        };
        let is_counted = |key: &[u8]| place.as_ref().is_none_or(|place| key <= place.as_slice());
        let mut letters = HashMap::new();
        for Write { key, value, .. } in writes.iter().filter(|write| is_counted(&write.key)) {
            match key.first() {
                Some(&keys::LISTING) => {
                    if let Some(counted) = counted(key, &[]) {
                        counts.add(&counted, if value.is_some() { 1 } else { -1 });
                    }
                }
                Some(&keys::LETTER) => {
                    // The last of a group counts.
                    letters.insert(key.clone(), value.clone());
                }
                _ => {}
            }
        }
        for (key, value) in letters {
            let before = tree.get(&key).ok().flatten();
            let before = before.and_then(|before| counted(&key, &before));
            let after = value.and_then(|value| counted(&key, &value));
            for (counted, change) in
                before.iter().map(|before| (before, -1)).chain(after.iter().map(|after| (after, 1)))
            {
                counts.add(counted, change);
            }
        }
        apply(writes)
    }

    /// Counts the next page, and says whether everything was counted.
    fn count_page(&self, tree: &Tree) -> Result<bool, Error> {
        let Self(counts) = self;
        if counts.is_whole.load(Ordering::Acquire) {
            return Ok(true);
        }
        let mut place = counts.place.lock().unwrap_or_else(PoisonError::into_inner);
        let prefix = if place.first() == Some(&keys::LETTER) { keys::LETTER } else { keys::LISTING };
        let start =
            if place.first() == Some(&prefix) { Bound::Excluded(place.clone()) } else { Bound::Included(vec![prefix]) };
        let (mut found, mut last) = (0, None);
        for entry in tree.range::<Vec<u8>>((start, Bound::Excluded(vec![prefix + 1]))).take(PAGE) {
            let (key, value) = entry.map_err(read::failed)?;
            if let Some(counted) = counted(&key, &value) {
                counts.add(&counted, 1);
            }
            (found, last) = (found + 1, Some(key.to_vec()));
        }
        if found == PAGE {
            *place = last.unwrap_or_default();
        } else if prefix == keys::LISTING {
            // Everything below the letters was counted, or is none of these.
            *place = vec![keys::LETTER];
        } else {
            counts.is_whole.store(true, Ordering::Release);
            return Ok(true);
        }
        Ok(false)
    }

    fn standings(&self) -> Option<Standings> {
        let Self(counts) = self;
        if !counts.is_whole.load(Ordering::Acquire) {
            return None;
        }
        let read = |count: &AtomicI64| u64::try_from(count.load(Ordering::Relaxed)).unwrap_or(0);
        let batches = BatchClientStatus::ALL.iter().map(|status| (*status, read(&counts.batches[*status as usize])));
        let phases = Phase::ALL.into_iter().flat_map(|phase| {
            let of_phase = &counts.phases[phase.index()];
            PipelineExecutionStatus::ALL.iter().map(move |status| (phase, *status, read(&of_phase[*status as usize])))
        });
        let letters = LetterState::ALL.into_iter().map(|state| (state, read(&counts.letters[state as usize])));
        Some(Standings { batches: batches.collect(), phases: phases.collect(), letters: letters.collect() })
    }
}

impl Store {
    /// Counts a little more of what the store has, and says whether everything was counted. Blocks, and commits wait for
    /// it, for some hundred microseconds.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn count_on(&self) -> Result<bool, Error> {
        self.shared.census.count_page(&self.shared.state)
    }

    /// How many stand where, by what is durable; none before everything was counted.
    #[must_use]
    pub fn standings(&self) -> Option<Standings> {
        self.shared.census.standings()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::contract::{Group, Message, Topic};
    use crate::domain::{BatchId, DeadLetter, LetterId, Millis};
    use crate::store::journal::Which;

    fn tree() -> Tree {
        let database = sled::Config::new().temporary(true).open().expect("a database");
        Tree::new(database.open_tree("state").expect("a tree"))
    }

    /// What there is, counted at once.
    fn plain(tree: &Tree) -> Standings {
        let census = Census::default();
        for entry in tree.iter() {
            let (key, value) = entry.expect("it can be read");
            if let Some(counted) = counted(&key, &value) {
                census.0.add(&counted, 1);
            }
        }
        census.0.is_whole.store(true, Ordering::Release);
        census.standings().expect("it is whole")
    }

    struct Writer {
        tree: Tree,
        census: Census,
        random: fastrand::Rng,
    }

    impl Writer {
        fn write(&self, writes: Vec<Write>) {
            let applied: Result<(), ()> = self.census.apply(&self.tree, writes, |writes| {
                self.tree.apply(writes.into_iter().map(Write::into_pair));
                Ok(())
            });
            applied.expect("nothing fails");
        }

        /// A batch is listed anew, under something else or no longer; a letter is decided about, or is gone.
        fn change(&mut self) {
            let batch = self.random.u128(0..1_000);
            let facet = match self.random.usize(0..3) {
                0 => Facet::Any,
                1 => Facet::Status(BatchClientStatus::ALL[self.random.usize(0..BatchClientStatus::ALL.len())]),
                _ => Facet::Phase(Phase::Nlp, PipelineExecutionStatus::ALL[self.random.usize(0..4)]),
            };
            let listing = keys::listing(&format!("user-{}", batch % 7), facet);
            let listed = keys::listed(listing, Millis(9), BatchId(Uuid::from_u128(batch)));
            let is_there = self.tree.contains_key(&listed).expect("it can be read");
            let value = if is_there { None } else { Some(sled::IVec::default()) };
            let mut writes = vec![Write { which: Which::State, key: listed.into(), value }];
            // Now and then twice in one group.
            for _ in 0..self.random.usize(0..3) {
                writes.push(self.letter());
            }
            self.write(writes);
        }

        fn letter(&mut self) -> Write {
            let id = LetterId(Uuid::from_u128(self.random.u128(0..300)));
            let message =
                Message { topic: Topic::PipelineDenied, key: String::new(), headers: None, body: "{}".into() };
            let letter = DeadLetter::new(id, Group::Nlp, message).refused(Millis(1), "no", 1);
            let decided = |decision| letter.clone().decided(Millis(2), "somebody".to_owned(), decision);
            let letter = match self.random.usize(0..4) {
                0 => None,
                1 => Some(letter),
                2 => decided(crate::domain::Decision::Redrive),
                _ => decided(crate::domain::Decision::Discard),
            };
            let value = letter.map(|letter| codec::encode(&StoredLetter::of(&letter)).expect("encoded").into());
            Write { which: Which::State, key: keys::letter(id).into(), value }
        }
    }

    #[test]
    fn what_changes_while_it_is_counted_is_counted_once() {
        let (tree, census) = (tree(), Census::default());
        // What there is before anybody counts is written past the census.
        let mut writer = Writer { tree: tree.clone(), census: Census::default(), random: fastrand::Rng::with_seed(7) };
        (0..3_000).for_each(|_| writer.change());
        writer.census = census.clone();
        let mut pages = 0;
        while !census.count_page(&tree).expect("it can be read") {
            assert_eq!(census.standings(), None, "what is not whole is not shown");
            (0..20).for_each(|_| writer.change());
            pages += 1;
        }
        assert!(pages > 5, "{pages}");
        assert_eq!(census.standings(), Some(plain(&tree)));
        (0..500).for_each(|_| writer.change());
        assert_eq!(census.standings(), Some(plain(&tree)));
        assert!(plain(&tree).letters.iter().all(|(_, count)| *count > 10), "{:?}", plain(&tree).letters);
    }
}
