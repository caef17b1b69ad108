//! A view of the store as it was at one moment, while commits go on.
//!
//! The database has none. So while a view is open the committer keeps, of every key that it writes for the first time
//! since then, what was there before; and the reader puts that in the place of what it finds. Both hold one lock, the
//! one while it writes a group, the other while it reads a page.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use super::layers::Tree;
use super::read::failed;
use super::{Error, Store, keys};

/// The most that an open view may keep of what was overwritten, in bytes. Beyond it the view is lost, and the store
/// goes on.
const MAX_KEPT_BYTES: usize = 256 * 1_024 * 1_024;

/// How many keys are read at once: few enough that no commit waits for long.
const PAGE: usize = 128;

/// What the committer and an open view share.
#[derive(Clone, Default)]
pub(super) struct Overwritten(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    /// Nobody looks.
    #[default]
    Closed,
    /// What was there before.
    Open { before: BTreeMap<Vec<u8>, Option<sled::IVec>>, bytes: usize },
    /// There was too much of it.
    Lost,
}

impl Overwritten {
    /// Lets readers see a group, and keeps what it overwrites where somebody looks.
    pub(super) fn apply(&self, tree: &Tree, writes: Vec<(sled::IVec, Option<sled::IVec>)>) -> sled::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Open { before, bytes } = &mut *state {
            // A backup has no events, and many of them come and go.
            for (key, _) in writes.iter().filter(|(key, _)| !key.starts_with(keys::EVENTS)) {
                if let Entry::Vacant(unknown) = before.entry(key.to_vec()) {
                    let value = tree.get(key)?;
                    *bytes += key.len() + value.as_ref().map_or(0, |value| value.len());
                    unknown.insert(value);
                }
            }
            if *bytes > MAX_KEPT_BYTES {
                *state = State::Lost;
            }
        }
        tree.apply(writes);
        Ok(())
    }

    /// Whether somebody looks.
    pub(super) fn is_open(&self) -> bool {
        matches!(*self.0.lock().unwrap_or_else(PoisonError::into_inner), State::Open { .. })
    }
}

/// The store as it was when this was opened. There is one at a time.
pub struct Snapshot {
    store: Store,
}

impl Store {
    /// Opens a view of the store as it is now; none where there is one already.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        let mut state = self.shared.overwritten.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Closed => *state = State::Open { before: BTreeMap::new(), bytes: 0 },
            State::Open { .. } | State::Lost => return None,
        }
        drop(state);
        Some(Snapshot { store: self.clone() })
    }

    /// Whether somebody looks at the store as it was.
    #[must_use]
    pub fn has_snapshot(&self) -> bool {
        self.shared.overwritten.is_open()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        *self.store.shared.overwritten.0.lock().unwrap_or_else(PoisonError::into_inner) = State::Closed;
    }
}

/// A key and its value.
pub(super) type Pair = (Vec<u8>, sled::IVec);

impl Snapshot {
    pub(super) const fn store(&self) -> &Store {
        &self.store
    }

    /// Whether there is a key with this prefix, or was one.
    pub(super) fn has_any(&self, prefix: &[u8]) -> Result<bool, Error> {
        let state = self.store.shared.overwritten.0.lock().unwrap_or_else(PoisonError::into_inner);
        let had = match &*state {
            State::Open { before, .. } => {
                let behind = before.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
                behind.take_while(|(key, _)| key.starts_with(prefix)).any(|(_, value)| value.is_some())
            }
            State::Closed | State::Lost => false,
        };
        let now = self.store.shared.state.scan_prefix(prefix).next().transpose().map_err(failed)?;
        Ok(had || now.is_some())
    }

    /// The next keys with `prefix` behind `after`, in order, and behind which to go on; none where there are no more.
    pub(super) fn page(&self, prefix: u8, after: Option<&[u8]>) -> Result<(Vec<Pair>, Option<Vec<u8>>), Error> {
        let state = self.store.shared.overwritten.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match &*state {
            State::Open { before, .. } => before,
            State::Closed | State::Lost => {
                return Err(Error::Failed("too much was written while the backup was made; try again".into()));
            }
        };
        let start = match after {
            Some(after) => Bound::Excluded(after.to_vec()),
            None => Bound::Included(vec![prefix]),
        };
        let last = Bound::Excluded(vec![prefix + 1]);
        let mut found = BTreeMap::new();
        for entry in self.store.shared.state.range::<Vec<u8>>((start.clone(), last.clone())).take(PAGE) {
            let (key, value) = entry.map_err(failed)?;
            found.insert(key.to_vec(), value);
        }
        // What is there now ends the page, unless there is no more; what was there and is gone lies between.
        let end = if found.len() == PAGE { found.last_key_value().map(|(key, _)| key.clone()) } else { None };
        let until = end.clone().map_or(last, Bound::Included);
        for (key, value) in before.range::<Vec<u8>, _>((start, until)) {
            match value {
                Some(value) => found.insert(key.clone(), value.clone()),
                None => found.remove(key),
            };
        }
        Ok((found.into_iter().collect(), end))
    }
}
