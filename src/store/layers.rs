//! A tree in two layers: what the journal holds lies over what is settled in the database.
//!
//! The committer puts what is durable into the upper layer, all of a group at once. From time to time the upper layer is
//! frozen and a new one begins; the frozen one is written to the database, and then it goes. Readers look from above, so
//! they never notice: whatever leaves the upper layer is below before it does.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use sled::{IVec, Result};

/// What was written: the value, or that there is none any more.
pub(super) type Layer = BTreeMap<IVec, Option<IVec>>;

/// A key and its value.
pub(super) type Pair = (IVec, IVec);

/// How many entries a scan reads at once: a few at first, since most scans look for little.
const FIRST_BITE: usize = 8;
const BITE: usize = 128;

/// A tree. Its clones share it.
#[derive(Clone)]
pub(super) struct Tree {
    settled: sled::Tree,
    recent: Arc<RwLock<Recent>>,
}

/// The upper layers.
#[derive(Default)]
struct Recent {
    active: Layer,
    /// What is being written to the database.
    frozen: Arc<Layer>,
}

impl Tree {
    /// A tree whose upper layer is empty.
    pub(super) fn new(settled: sled::Tree) -> Self {
        Self { settled, recent: Arc::default() }
    }

    /// The lower layer.
    pub(super) const fn settled(&self) -> &sled::Tree {
        &self.settled
    }

    /// Writes to the upper layer, all at once.
    pub(super) fn apply(&self, writes: impl IntoIterator<Item = (IVec, Option<IVec>)>) {
        self.write().active.extend(writes);
    }

    /// Freezes the upper layer, and gives it to be written. What was frozen before has to be gone.
    pub(super) fn freeze(&self) -> Arc<Layer> {
        let mut recent = self.write();
        recent.frozen = Arc::new(std::mem::take(&mut recent.active));
        Arc::clone(&recent.frozen)
    }

    /// What was frozen has been written.
    pub(super) fn thaw(&self) {
        let frozen = std::mem::take(&mut self.write().frozen);
        // It may be large, and nobody waits while it is freed.
        drop(frozen);
    }

    pub(super) fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<IVec>> {
        let key = key.as_ref();
        {
            let recent = self.read();
            if let Some(value) = recent.active.get(key).or_else(|| recent.frozen.get(key)) {
                return Ok(value.clone());
            }
        }
        self.settled.get(key)
    }

    pub(super) fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// All entries in order.
    pub(super) fn iter(&self) -> Scan {
        self.range::<&[u8]>(..)
    }

    /// The entries whose key begins with `prefix`, in order.
    pub(super) fn scan_prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
        let prefix = prefix.as_ref();
        let mut end = prefix.to_vec();
        // The first key behind all that begin so: the last byte that can be counted up, is.
        while end.pop_if(|last| *last == u8::MAX).is_some() {}
        let end =
            end.split_last().map_or(Bound::Unbounded, |(last, rest)| Bound::Excluded([rest, &[last + 1]].concat()));
        Scan::new(self.clone(), Bound::Included(prefix.to_vec()), end)
    }

    /// The entries in a range of keys, in order.
    pub(super) fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Scan {
        let owned = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        Scan::new(self.clone(), owned(range.start_bound()), owned(range.end_bound()))
    }

    fn read(&self) -> RwLockReadGuard<'_, Recent> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Recent> {
        self.recent.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the upper layers have in a range, from the `end` given, up to about `limit` entries; and the key up to which
    /// that is all of it, where there is more.
    fn recent(&self, (start, until): &Range, end: End, limit: usize) -> (Layer, Option<IVec>) {
        let mut found = Layer::new();
        let mut cut: Option<IVec> = None;
        let recent = self.read();
        // From below, so that what lies above wins.
        for layer in [&*recent.frozen, &recent.active] {
            if is_empty(start, until) {
                break;
            }
            let mut entries = layer.range::<[u8], _>((as_slice(start), as_slice(until)));
            for count in 1.. {
                let Some((key, value)) = end.next_of(&mut entries) else { break };
                found.insert(key.clone(), value.clone());
                if count == limit {
                    cut = Some(match cut {
                        Some(other) => end.nearer(other, key.clone()),
                        None => key.clone(),
                    });
                    break;
                }
            }
        }
        (found, cut)
    }

    /// The next entries of a range from the `end` given, about `limit` of them, and what is left of the range.
    fn bite(&self, range: Range, end: End, limit: usize) -> Result<(Layer, Option<Range>)> {
        // The upper layers first: what leaves them meanwhile is found below.
        let (mut found, mut cut) = self.recent(&range, end, limit);
        let narrowed = end.up_to(range.clone(), cut.as_ref());
        if !is_empty(&narrowed.0, &narrowed.1) {
            let mut entries = self.settled.range::<Vec<u8>, _>(narrowed);
            for count in 1..=limit {
                let Some(entry) = end.next_of(&mut entries) else { break };
                let (key, value) = entry?;
                if count == limit {
                    cut = Some(key.clone());
                }
                found.entry(key).or_insert(Some(value));
            }
        }
        let Some(cut) = cut else { return Ok((found, None)) };
        // Beyond it something may lie below that is not known yet.
        found.retain(|key, _| end.reaches(&cut, key));
        Ok((found, Some(end.behind(range, &cut))))
    }
}

type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// Whether no key can be between the two. Ranges of this kind make others panic.
fn is_empty(start: &Bound<Vec<u8>>, end: &Bound<Vec<u8>>) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => start >= end,
    }
}

/// From which end a range is read.
#[derive(Clone, Copy)]
enum End {
    Front,
    Back,
}

impl End {
    fn next_of<I: DoubleEndedIterator>(self, entries: &mut I) -> Option<I::Item> {
        match self {
            Self::Front => entries.next(),
            Self::Back => entries.next_back(),
        }
    }

    /// Of two keys that which comes first.
    fn nearer(self, one: IVec, other: IVec) -> IVec {
        match self {
            Self::Front => one.min(other),
            Self::Back => one.max(other),
        }
    }

    /// Whether `key` comes no later than `cut`.
    fn reaches(self, cut: &IVec, key: &IVec) -> bool {
        match self {
            Self::Front => key <= cut,
            Self::Back => key >= cut,
        }
    }

    /// The part of a range up to and with `cut`.
    fn up_to(self, (start, end): Range, cut: Option<&IVec>) -> Range {
        match (self, cut) {
            (_, None) => (start, end),
            (Self::Front, Some(cut)) => (start, Bound::Included(cut.to_vec())),
            (Self::Back, Some(cut)) => (Bound::Included(cut.to_vec()), end),
        }
    }

    /// The part of a range behind `cut`.
    fn behind(self, (start, end): Range, cut: &IVec) -> Range {
        match self {
            Self::Front => (Bound::Excluded(cut.to_vec()), end),
            Self::Back => (start, Bound::Excluded(cut.to_vec())),
        }
    }
}

/// The entries of a range, from both ends.
pub(super) struct Scan {
    tree: Tree,
    /// What is not read yet; none where everything is.
    rest: Option<Range>,
    front: VecDeque<Pair>,
    back: VecDeque<Pair>,
    bite: usize,
}

impl Scan {
    fn new(tree: Tree, start: Bound<Vec<u8>>, end: Bound<Vec<u8>>) -> Self {
        let rest = (!is_empty(&start, &end)).then_some((start, end));
        Self { tree, rest, front: VecDeque::new(), back: VecDeque::new(), bite: FIRST_BITE }
    }

    pub(super) fn keys(self) -> impl DoubleEndedIterator<Item = Result<IVec>> + use<> {
        self.map(|entry| entry.map(|(key, _)| key))
    }

    pub(super) fn values(self) -> impl DoubleEndedIterator<Item = Result<IVec>> + use<> {
        self.map(|entry| entry.map(|(_, value)| value))
    }

    /// Reads on from one end until there is something or all is read.
    fn fill(&mut self, end: End) -> Result<()> {
        loop {
            let is_filled = match end {
                End::Front => !self.front.is_empty(),
                End::Back => !self.back.is_empty(),
            };
            if is_filled {
                return Ok(());
            }
            let Some(range) = self.rest.take() else { return Ok(()) };
            let (found, rest) = self.tree.bite(range, end, self.bite)?;
            self.rest = rest;
            self.bite = BITE;
            let live = found.into_iter().filter_map(|(key, value)| Some((key, value?)));
            match end {
                End::Front => self.front.extend(live),
                End::Back => self.back = live.collect(),
            }
        }
    }
}

impl Iterator for Scan {
    type Item = Result<Pair>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.fill(End::Front) {
            return Some(Err(error));
        }
        self.front.pop_front().or_else(|| self.back.pop_front()).map(Ok)
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.fill(End::Back) {
            return Some(Err(error));
        }
        self.back.pop_back().or_else(|| self.front.pop_back()).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What is done to a tree, and to a plain map beside it.
    #[derive(Debug, Clone)]
    enum Act {
        Put(u8, u8),
        Remove(u8),
        Freeze,
        Thaw,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            6 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Act::Put(key, value)),
            3 => any::<u8>().prop_map(Act::Remove),
            1 => Just(Act::Freeze),
            1 => Just(Act::Thaw),
        ]
    }

    fn settle(tree: &Tree, frozen: &Layer) {
        for (key, value) in frozen {
            match value {
                Some(value) => tree.settled().insert(key, value).expect("written"),
                None => tree.settled().remove(key).expect("written"),
            };
        }
        tree.thaw();
    }

    /// Keys of several lengths, so that prefixes have something to find.
    fn key(byte: u8) -> Vec<u8> {
        vec![byte >> 4; usize::from(byte & 3) + 1]
    }

    proptest! {
        #[test]
        fn it_is_a_map_whatever_is_frozen_when(acts in vec(act(), 0..400), from in any::<u8>(), to in any::<u8>()) {
            let database = sled::Config::new().temporary(true).open().expect("a database");
            let tree = Tree::new(database.open_tree("it").expect("a tree"));
            let mut map = BTreeMap::new();
            let mut frozen = None;
            for act in acts {
                match act {
                    Act::Put(at, value) => {
                        tree.apply([(key(at).into(), Some(vec![value].into()))]);
                        map.insert(key(at), vec![value]);
                    }
                    Act::Remove(at) => {
                        tree.apply([(key(at).into(), None)]);
                        map.remove(&key(at));
                    }
                    Act::Freeze if frozen.is_none() => frozen = Some(tree.freeze()),
                    Act::Thaw => if let Some(frozen) = frozen.take() {
                        settle(&tree, &frozen);
                    },
                    Act::Freeze => {}
                }
            }
            let plain = |pairs: Vec<Result<Pair>>| -> Vec<(Vec<u8>, Vec<u8>)> {
                pairs.into_iter().map(|pair| pair.expect("read")).map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
            };
            let all: Vec<_> = map.clone().into_iter().collect();
            prop_assert_eq!(plain(tree.iter().collect()), all.clone());
            let mut backward = plain(tree.iter().rev().collect());
            backward.reverse();
            prop_assert_eq!(backward, all);
            let (from, to) = (key(from), key(to));
            prop_assert_eq!(tree.get(&from).expect("read").map(|value| value.to_vec()), map.get(&from).cloned());
            let within = |map: &BTreeMap<Vec<u8>, Vec<u8>>| -> Vec<_> {
                map.clone().into_iter().filter(|(key, _)| *key >= from && *key < to).collect()
            };
            prop_assert_eq!(plain(tree.range(from.clone()..to.clone()).collect()), within(&map));
            let begins: Vec<_> = map.clone().into_iter().filter(|(key, _)| key.starts_with(&from)).collect();
            prop_assert_eq!(plain(tree.scan_prefix(&from).collect()), begins.clone());
            // From both ends in turn.
            let mut scan = tree.scan_prefix(&from);
            let (mut head, mut tail) = (Vec::new(), Vec::new());
            while let Some(first) = scan.next() {
                head.push(first);
                tail.extend(scan.next_back());
            }
            tail.reverse();
            head.append(&mut tail);
            prop_assert_eq!(plain(head), begins);
        }
    }

    #[test]
    fn a_prefix_of_the_highest_bytes_has_an_end_too() {
        let database = sled::Config::new().temporary(true).open().expect("a database");
        let tree = Tree::new(database.open_tree("it").expect("a tree"));
        let put = |key: &[u8]| (IVec::from(key), Some(IVec::from(&b"x"[..])));
        tree.apply([put(&[1]), put(&[1, 255]), put(&[1, 255, 3]), put(&[2]), put(&[255, 255]), put(&[255, 255, 7])]);
        assert_eq!(tree.scan_prefix([1, 255]).count(), 2);
        assert_eq!(tree.scan_prefix([255, 255]).count(), 2);
        assert_eq!(tree.scan_prefix([]).count(), 6);
        assert!(tree.range(vec![9]..vec![3]).next().is_none());
    }
}
