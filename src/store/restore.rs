//! A backup becomes a store: read and checked as a whole first, written then, and checked again.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::census::Counts;
use super::commit::Commit;
use super::committer::CONTENT_PART_BYTES;
use super::disk::{DirectoryLock, Durability, directory_error};
use super::layers::Tree;
use super::ledger::{self, Ended};
use super::lines::{ATTEMPT, BACKUP_VERSION, KINDS, Line, from_json};
use super::migrate::FORMAT_VERSION;
use super::open::{damaged, open_unlocked};
use super::read::{self, failed};
use super::stored::{StoredJob, StoredLetter};
use super::{Checked, Error, Options, codec, keys, verify};
use crate::contract::idempotency::Key;
use crate::domain::Millis;

/// How many values are written at once.
const BITE: usize = 256;

/// What was restored.
#[derive(Debug, Clone)]
pub struct Restored {
    /// When the backup was made.
    pub created_at: String,
    /// What the checker says of the new store.
    pub checked: Checked,
}

/// Makes a store in an empty directory out of the backup in `file`. Where that fails the directory is empty again.
///
/// # Errors
/// Where the file is no whole backup, or the directory is not empty or cannot be written.
pub fn restore(options: &Options, file: &Path) -> Result<Restored, Error> {
    let directory = &options.directory;
    let is_empty = fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none());
    if !is_empty {
        let reason = "it is not empty; a backup is restored into a directory of its own".to_owned();
        return Err(Error::Directory { directory: directory.clone(), reason });
    }
    let created_at = check_backup(file)?;
    let restored = write(options, file).and_then(|()| {
        let mut first = None;
        let checked = verify(options, &mut |said| _ = first.get_or_insert_with(|| said.to_owned()))?;
        match first {
            None => Ok(Restored { created_at, checked }),
            Some(said) => Err(Error::Corrupt(format!("the backup makes no sound store: {said}"))),
        }
    });
    if restored.is_err() {
        // The reason is told; what is left of the attempt would only be in the way of the next.
        let _ = fs::remove_dir_all(directory.join("store"));
        let _ = fs::remove_file(directory.join("LOCK"));
        let _ = fs::remove_file(directory.join("DURABLE"));
    }
    restored
}

fn unfit(file: &Path, reason: impl std::fmt::Display) -> Error {
    Error::Backup { file: file.to_owned(), reason: reason.to_string() }
}

/// Reads the lines of a file.
fn lines(file: &Path, mut take: impl FnMut(&[u8], Line) -> Result<(), Error>) -> Result<(), Error> {
    let mut reader = BufReader::new(File::open(file).map_err(|error| unfit(file, error))?);
    let mut bytes = Vec::new();
    for number in 1_u64.. {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes).map_err(|error| unfit(file, error))? == 0 {
            break;
        }
        let line = serde_json::from_slice(&bytes).map_err(|error| unfit(file, format!("line {number}: {error}")))?;
        take(&bytes, line)?;
    }
    Ok(())
}

/// Checks that the backup in `file` is whole, and says when it was made.
///
/// # Errors
/// Where it is not.
pub fn check_backup(file: &Path) -> Result<String, Error> {
    let (mut digest, mut count) = (Sha256::new(), 0);
    let (mut made, mut is_whole) = (None, false);
    lines(file, |bytes, line| {
        match (line, &made) {
            (Line::Header { backup_version: BACKUP_VERSION, store_format, created_at }, None) => {
                if store_format > FORMAT_VERSION {
                    return Err(Error::NewerFormat { found: store_format, known: FORMAT_VERSION });
                }
                made = Some(created_at);
            }
            (Line::Header { backup_version, .. }, None) => {
                return Err(unfit(file, format!("it has the version {backup_version}, and {BACKUP_VERSION} is known")));
            }
            (_, None) => return Err(unfit(file, "it does not begin with a header")),
            (Line::Trailer { lines, sha256 }, Some(_)) => {
                is_whole = lines == count && sha256 == hex::encode(digest.clone().finalize());
            }
            (Line::Header { .. }, Some(_)) => return Err(unfit(file, "it has a second header")),
            (Line::Record { .. } | Line::Content { .. }, Some(_)) => is_whole = false,
        }
        digest.update(bytes);
        count += 1;
        Ok(())
    })?;
    match made {
        Some(created_at) if is_whole => Ok(created_at),
        Some(_) | None => Err(unfit(file, "it is not whole: its end is missing, or something in it was changed")),
    }
}

fn write(options: &Options, file: &Path) -> Result<(), Error> {
    let _lock = DirectoryLock::acquire(&options.directory)?;
    let path = options.directory.join("store");
    let config = sled::Config::new().path(&path).cache_capacity(options.cache_bytes).flush_every_ms(None);
    let database = open_unlocked(&config).map_err(|error| damaged(&options.directory, &error))?;
    let tree = database.open_tree("rephase").map_err(failed)?;
    let contents = database.open_tree("contents").map_err(failed)?;
    let tree = Tree::new(tree);
    let mut writer = Writer { tree: tree.clone(), writes: sled::Batch::default(), attempts: Vec::new(), count: 0 };
    lines(file, |_, line| match line {
        Line::Record { kind, key, value } => {
            let known = KINDS.iter().find(|(_, name)| *name == kind);
            let (prefix, _) = known.ok_or_else(|| unfit(file, format!("it has a line of the unknown kind {kind}")))?;
            let unfit_line = |error: Error| unfit(file, format!("{kind} {key}: {error}"));
            let behind_letter = hex::decode(&key).map_err(|error| unfit(file, error))?;
            let value = from_json(*prefix, value).map_err(unfit_line)?;
            if kind == ATTEMPT {
                return writer.add_attempt(Ended::under(&behind_letter, value).map_err(unfit_line)?);
            }
            let key = [&[*prefix][..], &behind_letter].concat();
            writer.put(keys::newest(&key).unwrap_or(key), value)
        }
        Line::Content { storage_id, text } => {
            let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
            if hex::encode(hash) != storage_id {
                return Err(unfit(file, format!("text {storage_id} is not what its name says")));
            }
            let parts =
                if text.is_empty() { vec![&[][..]] } else { text.as_bytes().chunks(CONTENT_PART_BYTES).collect() };
            for (number, part) in (0..).zip(parts) {
                contents.insert(keys::content_part(&hash, number), part).map_err(failed)?;
            }
            Ok(())
        }
        Line::Header { .. } | Line::Trailer { .. } => Ok(()),
    })?;
    writer.flush()?;
    index(&tree, &mut writer)?;
    writer.flush()?;
    writer.put(keys::COUNTS, Counts::of_all(&tree)?.encode()?)?;
    // Last, so that a store of which something is missing is none.
    writer.put(keys::FORMAT.to_vec(), FORMAT_VERSION.to_be_bytes().to_vec())?;
    writer.flush()?;
    database.flush().map_err(failed)?;
    let mut durability = Durability::new(options, &path, true)?;
    durability.sync().map(drop).map_err(|error| directory_error(&options.directory, &error))
}

struct Writer {
    tree: Tree,
    writes: sled::Batch,
    attempts: Vec<Ended>,
    count: usize,
}

impl Writer {
    fn put(&mut self, key: impl Into<sled::IVec>, value: impl Into<sled::IVec>) -> Result<(), Error> {
        self.writes.insert(key, value);
        self.count_one()
    }

    /// Attempts of a phase come in order, and lie then as those that were never in a backup.
    fn add_attempt(&mut self, attempt: Ended) -> Result<(), Error> {
        self.attempts.push(attempt);
        self.count_one()
    }

    fn count_one(&mut self) -> Result<(), Error> {
        self.count += 1;
        if self.count.is_multiple_of(BITE) { self.flush() } else { Ok(()) }
    }

    fn all(&mut self, commit: Commit) -> Result<(), Error> {
        commit.into_writes().into_iter().try_for_each(|(key, value)| self.put(key, value.unwrap_or_default()))
    }

    fn flush(&mut self) -> Result<(), Error> {
        let mut writes = std::mem::take(&mut self.writes);
        for (key, value) in ledger::added(&self.tree, std::mem::take(&mut self.attempts).iter())? {
            match value {
                Some(value) => writes.insert(key, value),
                None => writes.remove(key),
            }
        }
        self.tree.settled().apply_batch(writes).map_err(failed)
    }
}

/// Makes everything that follows from what was written.
fn index(tree: &Tree, writer: &mut Writer) -> Result<(), Error> {
    for key in tree.scan_prefix(keys::BATCHES).keys() {
        let Some(id) = keys::batch_of(&key.map_err(failed)?) else { continue };
        if let Some(batch) = read::batch(tree, id)? {
            let mut commit = Commit::new();
            commit.index(None, &batch);
            batch.timers().into_iter().for_each(|timer| commit.arm_timer(id, timer));
            writer.all(commit)?;
        }
    }
    for entry in tree.scan_prefix(b"k").chain(tree.scan_prefix(b"h")) {
        let (key, value) = entry.map_err(failed)?;
        if let Some((expires, _)) = value.split_first_chunk() {
            writer.put(keys::expiry(Millis(u64::from_be_bytes(*expires)), &key), Vec::new())?;
        }
    }
    for value in tree.scan_prefix(b"j").values() {
        let job = codec::decode::<StoredJob>(&value.map_err(failed)?)?.into_job()?;
        let mut commit = Commit::new();
        commit.put_job(&job)?;
        let puts = commit.into_writes().into_iter().filter_map(|(key, value)| Some((key, value?)));
        puts.into_iter().try_for_each(|(key, value)| writer.put(key, value))?;
    }
    for entry in tree.scan_prefix(b"z") {
        let (key, value) = entry.map_err(failed)?;
        let letter = codec::decode::<StoredLetter>(&value)?.into_letter(keys::letter_id(&key[1..])?)?;
        let message = Key::of(letter.group.service(), &letter.message);
        let mut commit = Commit::new();
        commit.put_letter(&message, &letter)?;
        let puts = commit.into_writes().into_iter().filter_map(|(key, value)| Some((key, value?)));
        puts.into_iter().try_for_each(|(key, value)| writer.put(key, value))?;
    }
    Ok(())
}
