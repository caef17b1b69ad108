//! A backup: the store as it was at one moment, as lines of JSON with a checksum.

use sha2::{Digest, Sha256};

use super::lines::{BACKUP_VERSION, KINDS, Line, name_of, to_json};
use super::migrate::FORMAT_VERSION;
use super::read::failed;
use super::{Error, Snapshot, keys};

/// Hands the lines of a backup to `write`, in order, until it says that nobody wants more. Commits go on meanwhile.
///
/// # Errors
/// Where a value cannot be read, or too much was written meanwhile.
pub fn backup(snapshot: &Snapshot, created_at: &str, write: &mut dyn FnMut(Vec<u8>) -> bool) -> Result<(), Error> {
    let mut lines = Lines { write, count: 0, digest: Sha256::new() };
    let header = Line::Header {
        backup_version: BACKUP_VERSION,
        store_format: FORMAT_VERSION,
        created_at: created_at.to_owned(),
    };
    if !lines.add(&header)? {
        return Ok(());
    }
    for prefix in KINDS.iter().map(|(letter, _)| *letter).filter(|letter| keys::PREFIXES.contains(letter)) {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let (page, next) = snapshot.page(prefix, after.as_deref())?;
            for (key, value) in page {
                let (letter, key) = keys::with_its_letter(&key)?;
                for (key, value) in to_json(letter, key, &value)? {
                    let kind = name_of(letter)?.to_owned();
                    if !lines.add(&Line::Record { kind, key: hex::encode(key), value })? {
                        return Ok(());
                    }
                }
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    if contents(snapshot, &mut lines)? {
        let (count, sha256) = (lines.count, hex::encode(lines.digest.clone().finalize()));
        lines.add(&Line::Trailer { lines: count, sha256 })?;
    }
    Ok(())
}

/// Every text that somebody refers to or did when the snapshot was opened. No text is removed since then, so none is
/// missing.
fn contents(snapshot: &Snapshot, lines: &mut Lines<'_>) -> Result<bool, Error> {
    let shared = &snapshot.store().shared;
    let mut after: Option<[u8; 32]> = None;
    loop {
        let next = match after {
            None => shared.contents.iter().next(),
            Some(after) => shared.contents.range([&after[..], &[u8::MAX; 5]].concat()..).next(),
        };
        let Some(entry) = next else { return Ok(true) };
        let (key, _) = entry.map_err(failed)?;
        let hash = key.first_chunk::<32>().ok_or_else(|| Error::Corrupt("a text's key is too short".to_owned()))?;
        after = Some(*hash);
        if !snapshot.has_any(&keys::references(hash))? {
            continue;
        }
        let text = snapshot.store().content(hash)?.unwrap_or_default();
        if !lines.add(&Line::Content { storage_id: hex::encode(hash), text })? {
            return Ok(false);
        }
    }
}

struct Lines<'a> {
    write: &'a mut dyn FnMut(Vec<u8>) -> bool,
    count: u64,
    digest: Sha256,
}

impl Lines<'_> {
    /// Writes a line, and says whether more are wanted.
    fn add(&mut self, line: &Line) -> Result<bool, Error> {
        let mut bytes = serde_json::to_vec(line).map_err(|error| Error::Corrupt(error.to_string()))?;
        bytes.push(b'\n');
        self.count += 1;
        self.digest.update(&bytes);
        Ok((self.write)(bytes))
    }
}
