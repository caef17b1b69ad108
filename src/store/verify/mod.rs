//! The checker: reads a store that nobody has open, and says what is not as it should be. Nothing is written.
//!
//! Every key has a known shape and every value decodes; records are legal, with their ledgers; timers, listings and
//! expiries are exactly those that the records ask for; nothing belongs to a batch that is not there.

mod credits;
mod events;
mod indexes;
mod queues;

use super::archive::Archive;
use super::disk::DirectoryLock;
use super::keys::Aged;
use super::layers::Tree;
use super::ledger::{decode_attempts, decode_volume};
use super::migrate::FORMAT_VERSION;
use super::open::{self, Opened};
use super::read::{self, failed};
use super::stored::StoredLate;
use super::{Error, Options, codec, keys};
use crate::domain::{Attempt, Batch, BatchId, Millis, Phase};

/// What was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Batches.
    pub batches: u64,
    /// Attempts that have ended.
    pub attempts: u64,
    /// Messages that wait for a consumer.
    pub messages: u64,
    /// Idempotency keys, of messages and of requests.
    pub keys: u64,
    /// Timers.
    pub timers: u64,
    /// Bulk retries.
    pub jobs: u64,
    /// Dead letters.
    pub letters: u64,
    /// Texts.
    pub contents: u64,
    /// Events in the log.
    pub events: u64,
    /// Balances of credits.
    pub balances: u64,
    /// Pipelines that were charged for.
    pub charges: u64,
    /// What is wrong.
    pub violations: u64,
}

/// Checks the store in its directory, and tells each violation as it is found.
///
/// # Errors
/// Where the store cannot be opened, or is of another format than this version's.
pub fn verify(options: &Options, tell: &mut dyn FnMut(&str)) -> Result<Checked, Error> {
    let path = options.directory.join("store");
    if !path.join("db").is_file() {
        let reason = "there is no store in it".to_owned();
        return Err(Error::Directory { directory: options.directory.clone(), reason });
    }
    let _lock = DirectoryLock::acquire(&options.directory)?;
    let archive = open::archive(options)?;
    let Opened { database: _database, state: tree, contents, .. } = open::open(options)?;
    match tree.get(keys::FORMAT).map_err(failed)?.map(|bytes| bytes.as_ref().try_into().map(u32::from_be_bytes)) {
        Some(Ok(FORMAT_VERSION)) => {}
        Some(Ok(found)) if found > FORMAT_VERSION => {
            return Err(Error::NewerFormat { found, known: FORMAT_VERSION });
        }
        Some(Ok(found)) => return Err(Error::OlderFormat { found, known: FORMAT_VERSION }),
        Some(Err(_)) | None => return Err(Error::Corrupt("the format version of the store".to_owned())),
    }
    let mut check = Check { tree, contents, archive, tell, checked: Checked::default(), timers: 0, listed: 0, ages: 0 };
    check.every_batch()?;
    check.volumes()?;
    check.prefixes()?;
    check.outbox()?;
    check.timers()?;
    check.listings()?;
    check.expiries()?;
    check.jobs()?;
    check.letters()?;
    check.counts()?;
    check.ages()?;
    check.contents()?;
    check.events()?;
    check.credits()?;
    Ok(check.checked)
}

struct Check<'a> {
    tree: Tree,
    contents: Tree,
    archive: Archive,
    tell: &'a mut dyn FnMut(&str),
    checked: Checked,
    /// Timers and listing entries that the records ask for and that are there.
    timers: u64,
    listed: u64,
    /// Ages that batches, bulk retries and letters ask for and that are there.
    ages: u64,
}

type Entry = (sled::IVec, sled::IVec);

impl Check<'_> {
    fn violation(&mut self, said: &str) {
        self.checked.violations += 1;
        (self.tell)(said);
    }

    /// Notes what is wrong with `result`, and gives what is right.
    fn sound<T>(&mut self, what: &str, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.violation(&format!("{what}: {error}"));
                None
            }
        }
    }

    fn entries(&self, prefix: &[u8]) -> impl Iterator<Item = Result<Entry, Error>> + use<> {
        self.tree.scan_prefix(prefix).map(|entry| entry.map_err(failed))
    }

    fn has(&self, key: &[u8]) -> Result<bool, Error> {
        self.tree.contains_key(key).map_err(failed)
    }

    /// Batches and what lies under them: each part, attempt and late outcome of a batch that is there.
    fn every_batch(&mut self) -> Result<(), Error> {
        // A record comes before all that lies under its batch.
        let mut record: Option<sled::IVec> = None;
        for entry in self.entries(keys::BATCHES) {
            let (key, value) = entry?;
            if let Some(id) = keys::batch_of(&key) {
                self.checked.batches += 1;
                record = Some(key);
                let batch = read::batch(&self.tree, id);
                if let Some(Some(batch)) = self.sound(&format!("batch {id}"), batch) {
                    self.batch(&batch)?;
                }
                continue;
            }
            let Some(letter) = self.sound(&shown(&key), keys::letter_of(&key)) else { continue };
            if !record.as_ref().is_some_and(|record| key.starts_with(record)) {
                self.violation(&format!("{}: it belongs to a batch that is not there", shown(&key)));
            }
            if letter == b'l' {
                let late = codec::decode::<StoredLate>(&value).and_then(StoredLate::into_late);
                self.sound(&shown(&key), late);
            }
        }
        Ok(())
    }

    fn batch(&mut self, batch: &Batch) -> Result<(), Error> {
        let id = batch.id;
        for said in batch.violations() {
            self.violation(&format!("batch {id}: {said}"));
        }
        for phase in Phase::ALL {
            let mut ledger = self.attempts(keys::volume, decode_volume, id, phase)?;
            ledger.append(&mut self.attempts(keys::attempt, decode_attempts, id, phase)?);
            // Stores of before there were volumes have some that are older than those.
            ledger.sort_by_key(|attempt| attempt.number);
            for said in batch.ledger_violations(phase, &ledger) {
                self.violation(&format!("batch {id}: {said}"));
            }
        }
        for timer in batch.timers() {
            if self.has(&keys::timer(id, timer))? {
                self.timers += 1;
            } else {
                self.violation(&format!("batch {id}: {} is in flight and has no timer", timer.phase));
            }
        }
        let (owner, registered_at) = (&batch.details.user_id, batch.details.registered_at);
        for facet in batch.facets() {
            if self.has(&keys::listed(keys::listing(owner, facet), registered_at, id))? {
                self.listed += 1;
            } else {
                self.violation(&format!("batch {id} is not listed under {facet:?}"));
            }
        }
        for hash in (0..batch.essays.len()).flat_map(|place| batch.storage_ids(place)).filter_map(keys::hash_of) {
            if !self.has(&keys::reference(&hash, id))? {
                self.violation(&format!("batch {id} is not named as one that refers to text {}", hex::encode(hash)));
            }
        }
        self.age(&format!("batch {id}"), Aged::Batch(id), batch.rests_since())
    }

    /// The attempts at a phase that lie under keys like this.
    fn attempts(
        &mut self,
        key_of: fn(BatchId, Phase, u32) -> Vec<u8>,
        decode: fn(&[u8]) -> Result<Vec<Attempt>, Error>,
        id: BatchId,
        phase: Phase,
    ) -> Result<Vec<Attempt>, Error> {
        let mut found = Vec::new();
        for entry in self.tree.range(key_of(id, phase, 0)..=key_of(id, phase, u32::MAX)) {
            let (key, value) = entry.map_err(failed)?;
            let Some(mut attempts) = self.sound(&shown(&key), decode(&value)) else { continue };
            // The first of those that share a key, or in stores of before the last.
            let is_under =
                |attempt: Option<&Attempt>| attempt.is_some_and(|attempt| key == key_of(id, phase, attempt.number));
            if !is_under(attempts.first()) && !is_under(attempts.last()) {
                self.violation(&format!("batch {id}: an attempt at {phase} lies under another number"));
            }
            self.checked.attempts += attempts.len() as u64;
            found.append(&mut attempts);
        }
        Ok(found)
    }

    /// Volumes belong to batches that are there, which says what is in them.
    fn volumes(&mut self) -> Result<(), Error> {
        for entry in self.entries(keys::VOLUMES) {
            let (key, _) = entry?;
            let Some((id, ..)) = self.sound(&shown(&key), keys::place_in_ledger(&key[1..])) else { continue };
            if !self.has(&keys::batch(id))? {
                self.violation(&format!("{}: it belongs to a batch that is not there", shown(&key)));
            }
        }
        Ok(())
    }

    /// What is over has its age, so that it can be removed once it is old.
    fn age(&mut self, what: &str, aged: Aged, since: Option<Millis>) -> Result<(), Error> {
        let Some(since) = since else { return Ok(()) };
        if self.has(&keys::age(since, aged))? {
            self.ages += 1;
        } else {
            self.violation(&format!("{what} is over and would never be removed"));
        }
        Ok(())
    }

    fn prefixes(&mut self) -> Result<(), Error> {
        for entry in self.tree.iter() {
            let (key, _) = entry.map_err(failed)?;
            if !key.first().is_some_and(|prefix| keys::PREFIXES.contains(prefix)) {
                self.violation(&format!("{}: nothing is stored under such keys", shown(&key)));
            }
        }
        Ok(())
    }
}

/// A key, for people who look for it.
fn shown(key: &[u8]) -> String {
    let (prefix, rest) = key.split_at(key.len().min(1));
    format!("key {}:{}", String::from_utf8_lossy(prefix), hex::encode(rest))
}
