//! The index of batches: those of one owner, by what is true of them, the newest first.

use std::iter::Peekable;
use std::ops::Range;

use uuid::Uuid;

use super::read::failed;
use super::{Error, Store, keys};
use crate::domain::{BatchId, Facet, Millis};

/// A batch of a listing, in the order of listings: by when it was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// When it was registered.
    pub registered_at: Millis,
    /// The batch.
    pub batch: BatchId,
}

impl Store {
    /// Batches of `owner` that have at least one of `facets` and were registered in `registered`, each once, the newest
    /// first, at most `limit`; where there is a `before`, only those behind it in this order.
    ///
    /// # Errors
    /// As [`Store::batch`].
    pub fn listed(
        &self,
        owner: &str,
        facets: &[Facet],
        registered: &Range<Millis>,
        before: Option<Listed>,
        limit: usize,
    ) -> Result<Vec<Listed>, Error> {
        let first = |at: Millis| Listed { registered_at: at, batch: BatchId(Uuid::nil()) };
        let (start, end) = (first(registered.start), first(registered.end));
        let end = before.map_or(end, |before| before.min(end));
        if start >= end {
            return Ok(Vec::new());
        }
        let mut lists = Vec::with_capacity(facets.len());
        for facet in facets {
            let prefix = keys::listing(owner, *facet);
            let key = |place: Listed| keys::listed(prefix.clone(), place.registered_at, place.batch);
            let keys = self.shared.state.range(key(start)..key(end)).keys().rev();
            lists.push(keys.map(|key| entry(&key.map_err(failed)?)).peekable());
        }
        newest(lists, limit)
    }
}

fn entry(key: &[u8]) -> Result<Listed, Error> {
    let (registered_at, batch) = keys::listed_of(key)?;
    Ok(Listed { registered_at, batch })
}

/// Merges lists that are each in order.
fn newest<I>(mut lists: Vec<Peekable<I>>, limit: usize) -> Result<Vec<Listed>, Error>
where
    I: Iterator<Item = Result<Listed, Error>>,
{
    let mut merged = Vec::new();
    while merged.len() < limit {
        let mut next: Option<Listed> = None;
        for list in &mut lists {
            if let Some(head) = list.peek() {
                next = next.max(Some(head.clone()?));
            }
        }
        let Some(next) = next else { break };
        for list in &mut lists {
            list.next_if(|head| matches!(head, Ok(head) if *head == next));
        }
        merged.push(next);
    }
    Ok(merged)
}
