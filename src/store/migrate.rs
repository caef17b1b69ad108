//! Formats of the store: a new one is written into an empty store, an older one brought up to it, version by version.
//!
//! | version | what it brought |
//! | --- | --- |
//! | 1 | the first |
//! | 2 | the listing of batches; which texts a batch refers to; since when it rests; from what a failed essay was tried |
//! | 3 | the journal |
//! | 4 | idempotency keys with half of their hash; leases of attempts; classes of batches; the log of events |
//! | 5 | settled events in files of their own; those in the database are read there until they are too old |
//! | 6 | what lies under a batch has neighbouring keys |
//! | 7 | older attempts of a phase are put together in one value |
//! | 8 | eight attempts of a phase share a value from the first on; how many stand where |
//! | 9 | older attempts of a phase are put away, apart from their batch |

use std::path::Path;

use super::census::Counts;
use super::commit::Commit;
use super::disk::Durability;
use super::layers::Tree;
use super::read::{self, failed};
use super::{Error, keys};

/// The format of a store made by this version.
pub(super) const FORMAT_VERSION: u32 = 9;

/// How many keys, or batches, are migrated in one write.
const BITE: usize = 256;

/// Checks the format of the store, brings an older one up to this version's, and writes it into a new one.
pub(super) fn prepare(
    database: &sled::Db,
    state: &Tree,
    durability: &mut Durability,
    directory: &Path,
) -> Result<(), Error> {
    let tree = state.settled();
    let damaged = |reason: String| Error::Damaged { directory: directory.to_owned(), reason };
    match tree.get(keys::FORMAT).map_err(failed)?.map(|bytes| bytes.as_ref().try_into().map(u32::from_be_bytes)) {
        Some(Ok(FORMAT_VERSION)) => return Ok(()),
        None if tree.is_empty() => {}
        Some(Ok(found @ 1..FORMAT_VERSION)) => {
            tracing::info!(from = found, to = FORMAT_VERSION, "the store is brought up to this version's format");
            if found < 6 {
                renew_every_key(tree)?;
            }
            if found == 1 {
                index_every_batch(&Tree::new(tree.clone()))?;
            }
            if found < 8 {
                // With what its journal says.
                tree.insert(keys::COUNTS, Counts::of_all(state)?.encode()?).map_err(failed)?;
            }
        }
        Some(Ok(found)) if found > FORMAT_VERSION => {
            return Err(Error::NewerFormat { found, known: FORMAT_VERSION });
        }
        Some(_) | None => {
            return Err(damaged("it has no format version of rephase's, so it was not written by it".to_owned()));
        }
    }
    tree.insert(keys::FORMAT, &FORMAT_VERSION.to_be_bytes()).map_err(failed)?;
    database.flush().map_err(failed)?;
    durability.sync().map(drop).map_err(|error| damaged(error.to_string()))
}

/// To 4 and to 6. A crash in the middle leaves the version as it was, and the next start goes on with the keys that are
/// still old.
fn renew_every_key(tree: &sled::Tree) -> Result<(), Error> {
    let mut writes = sled::Batch::default();
    let mut count = 0;
    for prefix in [b'k', keys::EXPIRIES[0]].into_iter().chain(keys::old_prefixes()) {
        for entry in tree.scan_prefix([prefix]) {
            let (key, value) = entry.map_err(failed)?;
            let Some(newest) = keys::newest(&key) else { continue };
            writes.insert(newest, value);
            writes.remove(key);
            count += 1;
            if count % BITE == 0 {
                tree.apply_batch(std::mem::take(&mut writes)).map_err(failed)?;
            }
        }
    }
    tree.apply_batch(writes).map_err(failed)
}

/// 1 to 2, with the keys of this version. A crash in the middle leaves version 1, and the next start writes the same
/// again.
fn index_every_batch(tree: &Tree) -> Result<(), Error> {
    let mut writes = sled::Batch::default();
    for (number, key) in tree.scan_prefix(keys::BATCHES).keys().enumerate() {
        let Some(id) = keys::batch_of(&key.map_err(failed)?) else { continue };
        let mut commit = Commit::new();
        match read::batch(tree, id) {
            Ok(Some(batch)) => commit.index(None, &batch),
            Ok(None) => {}
            // One that is damaged was no obstacle to the others before, and is none now.
            Err(error) => tracing::error!(batch = %id, %error, "a batch cannot be read, so it is not listed"),
        }
        for (key, value) in commit.into_writes() {
            writes.insert(key, value.unwrap_or_default());
        }
        if number % BITE == BITE - 1 {
            tree.settled().apply_batch(std::mem::take(&mut writes)).map_err(failed)?;
        }
    }
    tree.settled().apply_batch(writes).map_err(failed)
}
