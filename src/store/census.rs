//! How many batches, phases and dead letters stand where.
//!
//! It lies in the store under one key, written with whatever changes it: the [committer](super::committer), the only
//! writer, sees under what a batch is listed from now on and under what no longer, and adds that up. So it is known as
//! soon as a store is open, however large that is.

use std::collections::HashMap;

use super::journal::{Which, Write};
use super::layers::Tree;
use super::read::failed;
use super::stored::{StoredCounts, StoredLetter};
use super::{Error, Store, codec, keys};
use crate::contract::{BatchClientStatus, PipelineExecutionStatus};
use crate::domain::{Facet, LetterState, Phase};

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

/// The counts, by the places of what they count in the lists of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) batches: [u64; BatchClientStatus::ALL.len()],
    pub(super) phases: [[u64; PipelineExecutionStatus::ALL.len()]; Phase::ALL.len()],
    pub(super) letters: [u64; LetterState::ALL.len()],
}

/// What one key counts for.
#[derive(Clone, Copy)]
enum Counted {
    Batch(BatchClientStatus),
    Phase(Phase, PipelineExecutionStatus),
    Letter(LetterState),
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

impl Counts {
    /// What the store says; nothing where it says nothing.
    pub(super) fn read(tree: &Tree) -> Result<Self, Error> {
        let value = tree.get(keys::COUNTS).map_err(failed)?;
        value.map_or_else(|| Ok(Self::default()), |value| codec::decode::<StoredCounts<String>>(&value)?.into_counts())
    }

    /// Counts all that there is.
    pub(super) fn of_all(tree: &Tree) -> Result<Self, Error> {
        let mut counts = Self::default();
        for entry in tree.scan_prefix([keys::LISTING]).chain(tree.scan_prefix([keys::LETTER])) {
            let (key, value) = entry.map_err(failed)?;
            counts.change(counted(&key, &value), 1);
        }
        Ok(counts)
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, Error> {
        codec::encode(&StoredCounts::of(self))
    }

    /// Counts what these writes change, before anybody sees them, and gives the write that says so; none where they
    /// change nothing. A listing's key never changes its value, and is only written where it is new and removed where it
    /// is there.
    pub(super) fn follow(&mut self, tree: &Tree, writes: &[Write]) -> Result<Option<Write>, Error> {
        let before = self.clone();
        let mut letters = HashMap::new();
        for Write { key, value, .. } in writes.iter().filter(|write| write.which == Which::State) {
            match key.first() {
                Some(&keys::LISTING) => self.change(counted(key, &[]), if value.is_some() { 1 } else { -1 }),
                Some(&keys::LETTER) => {
                    // The last of a group counts.
                    letters.insert(key, value);
                }
                _ => {}
            }
        }
        for (key, value) in letters {
            let old = tree.get(key).map_err(failed)?;
            self.change(old.and_then(|old| counted(key, &old)), -1);
            self.change(value.as_ref().and_then(|new| counted(key, new)), 1);
        }
        if *self == before {
            return Ok(None);
        }
        self.write().map(Some)
    }

    /// The write that says them.
    pub(super) fn write(&self) -> Result<Write, Error> {
        Ok(Write { which: Which::State, key: keys::COUNTS.into(), value: Some(self.encode()?.into()) })
    }

    fn change(&mut self, counted: Option<Counted>, by: i64) {
        let count = match counted {
            None => return,
            Some(Counted::Batch(status)) => &mut self.batches[status as usize],
            Some(Counted::Phase(phase, status)) => &mut self.phases[phase.index()][status as usize],
            Some(Counted::Letter(state)) => &mut self.letters[state as usize],
        };
        *count = count.saturating_add_signed(by);
    }

    fn standings(&self) -> Standings {
        let batches = BatchClientStatus::ALL.iter().map(|status| (*status, self.batches[*status as usize]));
        let phases = Phase::ALL.into_iter().flat_map(|phase| {
            let of_phase = &self.phases[phase.index()];
            PipelineExecutionStatus::ALL.iter().map(move |status| (phase, *status, of_phase[*status as usize]))
        });
        let letters = LetterState::ALL.into_iter().map(|state| (state, self.letters[state as usize]));
        Standings { batches: batches.collect(), phases: phases.collect(), letters: letters.collect() }
    }
}

impl Store {
    /// How many stand where, by what is durable.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn standings(&self) -> Result<Standings, Error> {
        Counts::read(&self.shared.state).map(|counts| counts.standings())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::contract::{Group, Message, Topic};
    use crate::domain::{BatchId, DeadLetter, LetterId, Millis};

    fn tree() -> Tree {
        let database = sled::Config::new().temporary(true).open().expect("a database");
        Tree::new(database.open_tree("state").expect("a tree"))
    }

    struct Writer {
        tree: Tree,
        counts: Counts,
        random: fastrand::Rng,
    }

    impl Writer {
        fn write(&mut self, mut writes: Vec<Write>) {
            writes.extend(self.counts.follow(&self.tree, &writes).expect("it can be read"));
            self.tree.apply(writes.into_iter().map(Write::into_pair));
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
    fn what_is_added_up_is_what_there_is() {
        let tree = tree();
        let mut writer = Writer { tree: tree.clone(), counts: Counts::default(), random: fastrand::Rng::with_seed(7) };
        assert_eq!(Counts::read(&tree).expect("nothing yet"), Counts::default());
        for _ in 0..30 {
            (0..100).for_each(|_| writer.change());
            let all = Counts::of_all(&tree).expect("it can be read");
            assert_eq!(Counts::read(&tree).expect("it was written"), all);
            assert_eq!(writer.counts, all);
        }
        assert!(writer.counts.letters.iter().all(|count| *count > 10), "{:?}", writer.counts);
        assert!(writer.counts.batches.iter().all(|count| *count > 0), "{:?}", writer.counts);
        assert!(writer.counts.phases[Phase::Nlp.index()].iter().sum::<u64>() > 10, "{:?}", writer.counts);
        let nothing = Write { which: Which::State, key: b"b".into(), value: None };
        assert_eq!(writer.counts.follow(&tree, &[nothing]).expect("it can be read"), None);
    }
}
