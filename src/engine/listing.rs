//! Which batches a user has, by what is true of them.

use std::sync::Arc;

use super::{Engine, Error};
use crate::domain::{Batch, Filter, Millis};
pub use crate::store::Listed as Place;
use crate::store::{self, Store};

/// How many batches of the index are looked at for one page, at the most. Where a filter lets few of them through the
/// page is short, and the next one goes on behind it.
const MAX_EXAMINED: usize = 2_000;

/// How many places are read from the index at once.
const BITE: usize = 256;

/// One page of a listing.
#[derive(Debug)]
pub struct Page {
    /// The batches, the newest first.
    pub batches: Vec<Arc<Batch>>,
    /// Where the next page begins; none where there is none.
    pub next: Option<Place>,
    /// The time by which the filter was read.
    pub now: Millis,
}

impl Engine {
    /// Batches of `owner` that `filter` lets through, the newest first, at most `limit`, behind `after` where there is
    /// one. All of what it shows is durable.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn list(&self, owner: String, filter: Filter, after: Option<Place>, limit: usize) -> Result<Page, Error> {
        let (store, now) = (self.shared.store.clone(), self.clock().now());
        self.read(move || Walk::new(store, owner, filter, now, after).page(limit)).await
    }
}

/// A way through the index, the newest batch first.
pub(super) struct Walk {
    store: Store,
    owner: String,
    filter: Filter,
    now: Millis,
    /// The place that was looked at last.
    after: Option<Place>,
    bite: std::vec::IntoIter<Place>,
}

impl Walk {
    pub(super) fn new(store: Store, owner: String, filter: Filter, now: Millis, after: Option<Place>) -> Self {
        Self { store, owner, filter, now, after, bite: Vec::new().into_iter() }
    }

    fn page(mut self, limit: usize) -> Result<Page, store::Error> {
        let (mut batches, mut examined) = (Vec::new(), 0);
        while batches.len() < limit && examined < MAX_EXAMINED {
            let Some(place) = self.next_place()? else { break };
            batches.extend(self.look(place));
            examined += 1;
        }
        let next = self.after;
        let is_last = self.next_place()?.is_none();
        Ok(Page { batches, next: next.filter(|_| !is_last), now: self.now })
    }

    /// The next place that the index has.
    pub(super) fn next_place(&mut self) -> Result<Option<Place>, store::Error> {
        if self.bite.len() == 0 {
            let registered = self.filter.since.unwrap_or_default()..self.filter.until.unwrap_or(Millis(u64::MAX));
            let facets = self.filter.facets();
            self.bite = self.store.listed(&self.owner, &facets, &registered, self.after, BITE)?.into_iter();
        }
        let place = self.bite.next();
        self.after = place.or(self.after);
        Ok(place)
    }

    /// The batch of a place, if the filter lets it through.
    pub(super) fn look(&self, place: Place) -> Option<Arc<Batch>> {
        match self.store.batch_of_another(place.batch) {
            Ok(batch) => batch.filter(|batch| self.filter.allows(batch, self.now)).map(Arc::new),
            // It holds up none of the others.
            Err(error) => {
                tracing::error!(batch = %place.batch, %error, "a batch cannot be read, so it is not listed");
                None
            }
        }
    }
}
