//! Settled events, in files of their own.
//!
//! Events come in order, are read in order and go in order, so a database would only write them more often. What a
//! settlement has of them is appended as a [file](Segment), `events/NUMBER` in hexadecimal, named by the first event in
//! it; a file whose events are all too old is removed.
//!
//! A file is there whole or not at all, and is durable before the journal forgets what is in it. After a crash the journal
//! may say it once more; then it is not written again.
//!
//! Events may get too old before they are settled, so that a file begins behind a hole. It has another magic then: all
//! before it is too old, and goes next. A crash in between leaves both. A hole before any other file is a loss.

mod segment;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use sled::IVec;

use super::{Options, Sequence};
use segment::{Segment, path_of};

/// Up to how many bytes a file grows with the next settlement, instead of there being another: a server that is started
/// often and does little has few files.
const SMALL_BYTES: u64 = 1_024 * 1_024;

/// The files. Clones share them.
#[derive(Clone)]
pub(super) struct Archive {
    directory: PathBuf,
    is_durable: bool,
    /// In order.
    segments: Arc<RwLock<Vec<Segment>>>,
    /// What is before this is too old, and not read any more.
    oldest: Arc<AtomicU64>,
}

impl Archive {
    /// Finds the files of the store.
    pub(super) fn open(options: &Options) -> io::Result<Self> {
        let directory = options.directory.join("events");
        let mut segments = Vec::new();
        for entry in listed(&directory)? {
            let name = entry?.file_name();
            let Some(first) = name.to_str().and_then(|name| u64::from_str_radix(name, 16).ok()) else { continue };
            segments.push(Segment::open(&directory, first)?);
        }
        segments.sort_unstable_by_key(|segment| segment.first);
        // A crash may leave one behind that has grown into the next, without what was forgotten.
        let next: Vec<_> = segments.iter().skip(1).map(|next: &Segment| next.first).chain([Sequence::MAX]).collect();
        let mut next = next.into_iter();
        segments.retain(|segment| next.next().is_some_and(|next| segment.end <= next));
        let anew = segments.iter().rev().find(|segment| segment.begins_anew).map_or(0, |segment| segment.first);
        let (segments, oldest) = (Arc::new(RwLock::new(segments)), Arc::new(AtomicU64::new(anew)));
        Ok(Self { directory, is_durable: options.durable, segments, oldest })
    }

    /// The number of the first event that is in a file, and that behind the last.
    pub(super) fn bounds(&self) -> Option<(Sequence, Sequence)> {
        let segments = self.segments();
        Some((segments.first()?.first, segments.last()?.end))
    }

    /// From now on nothing before `oldest` is read.
    pub(super) fn forget_before(&self, oldest: Sequence) {
        self.oldest.fetch_max(oldest, Ordering::Release);
    }

    /// Removes the files that nothing is read from any more. A crash leaves some of them, for the next time.
    pub(super) fn remove_forgotten(&self) -> io::Result<()> {
        let oldest = self.oldest.load(Ordering::Acquire);
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let count = segments.iter().take_while(|segment| segment.end <= oldest).count();
        // The newest stays, however old: it says how far the files go, and without it they would count as lost.
        let count = count.min(segments.len().saturating_sub(1));
        let gone: Vec<_> = segments.drain(..count).collect();
        drop(segments);
        gone.into_iter().try_for_each(|segment| fs::remove_file(self.path(segment.first)))
    }

    /// Adds events, in order and without a hole. Those that are there already are not added again.
    pub(super) fn put(&self, events: &[(Sequence, &IVec)]) -> io::Result<()> {
        let (before_last, last) = {
            let segments = self.segments();
            (segments.iter().rev().nth(1).copied(), segments.last().copied())
        };
        let known = last.map_or(0, |last| last.end);
        let events = &events[events.partition_point(|(sequence, _)| *sequence < known)..];
        let Some(&(first, _)) = events.first() else { return Ok(()) };
        let added: u64 = events.iter().map(|(_, stored)| stored.len() as u64).sum();
        let oldest = self.oldest.load(Ordering::Acquire);
        let is_small = |last: &Segment| last.end == first && last.bytes + added <= SMALL_BYTES;
        let (grows, before) = match last.filter(is_small) {
            Some(last) if oldest < last.end => {
                match last.read(&self.directory, oldest.max(last.first), usize::MAX, usize::MAX) {
                    Ok(before) => (Some(last), before),
                    // It stays as it is, and whoever reads it is told.
                    Err(error) => {
                        tracing::error!(%error, "a file of events cannot be read, so it does not grow");
                        (None, Vec::new())
                    }
                }
            }
            forgotten => (forgotten, Vec::new()),
        };
        let first = before.first().map_or(first, |(before, _)| *before);
        let begins_anew = match grows {
            Some(old) if old.first == first => old.begins_anew,
            Some(_) => before_last.is_some_and(|before| before.end != first),
            None => last.is_some_and(|last| last.end != first),
        };
        let stored = before.iter().map(|(_, stored)| &stored[..]).chain(events.iter().map(|(_, stored)| &stored[..]));
        let stored: Vec<_> = stored.collect();
        let segment = match Segment::write(&self.directory, first, &stored, begins_anew, self.is_durable) {
            // The directory goes before its store does.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_durable => return Ok(()),
            segment => segment?,
        };
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        if grows.is_some() {
            segments.pop();
        }
        segments.push(segment);
        drop(segments);
        match grows.filter(|old| old.first != first) {
            Some(old) => fs::remove_file(self.path(old.first)),
            None => Ok(()),
        }
    }

    /// Events from the number `first` up to, not including, `end`, as they are stored: at most `limit`, and no more once
    /// they have `bytes`. It ends where a file ends.
    pub(super) fn read(
        &self,
        first: Sequence,
        end: Sequence,
        limit: usize,
        bytes: usize,
    ) -> io::Result<Vec<(Sequence, Vec<u8>)>> {
        let first = first.max(self.oldest.load(Ordering::Acquire));
        let segment = self.segments().iter().find(|segment| segment.end > first).copied();
        let Some(segment) = segment.filter(|segment| segment.first < end) else { return Ok(Vec::new()) };
        let within = usize::try_from(end.saturating_sub(first)).unwrap_or(usize::MAX);
        match segment.read(&self.directory, first.max(segment.first), limit.min(within), bytes) {
            // It was removed meanwhile, with all that is in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read,
        }
    }

    /// Removes everything.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).clear();
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn segments(&self) -> std::sync::RwLockReadGuard<'_, Vec<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, first: Sequence) -> PathBuf {
        path_of(&self.directory, first)
    }
}

fn listed(directory: &Path) -> io::Result<Vec<io::Result<fs::DirEntry>>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn stored(numbers: std::ops::Range<Sequence>) -> Vec<(Sequence, IVec)> {
        numbers.map(|number| (number, IVec::from(format!("event {number}").as_bytes()))).collect()
    }

    fn open(directory: &TempDir) -> Archive {
        Archive::open(&Options::new(directory.path())).expect("opened")
    }

    /// An event that fills a file by itself.
    fn large() -> IVec {
        vec![b'x'; usize::try_from(SMALL_BYTES).expect("small")].into()
    }

    fn put(archive: &Archive, numbers: std::ops::Range<Sequence>) {
        let events = stored(numbers);
        archive.put(&events.iter().map(|(number, stored)| (*number, stored)).collect::<Vec<_>>()).expect("put");
    }

    /// Everything from `first` on, read a few at a time.
    fn numbers(archive: &Archive, first: Sequence) -> Vec<Sequence> {
        let (mut next, mut found) = (first, Vec::new());
        loop {
            let page = archive.read(next, Sequence::MAX, 3, 1_000).expect("read");
            let Some((last, _)) = page.last() else { return found };
            next = last + 1;
            for (number, stored) in page {
                assert_eq!(stored, format!("event {number}").as_bytes());
                found.push(number);
            }
        }
    }

    /// A crash comes before what was forgotten is removed.
    #[test]
    fn behind_a_hole_of_what_was_too_old_it_begins_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let archive = open(&directory);
        put(&archive, 1..5);
        archive.forget_before(7);
        put(&archive, 7..9);
        let opened = open(&directory);
        assert_eq!((opened.bounds(), numbers(&opened, 1)), (Some((1, 9)), vec![7, 8]));
        // It grows, and still begins there.
        put(&opened, 9..11);
        let opened = open(&directory);
        assert_eq!((opened.bounds(), numbers(&opened, 1)), (Some((1, 11)), vec![7, 8, 9, 10]));
        opened.remove_forgotten().expect("removed");
        let opened = open(&directory);
        assert_eq!((opened.bounds(), numbers(&opened, 1)), (Some((7, 11)), vec![7, 8, 9, 10]));
    }

    /// The newest file goes on without what was forgotten, and the one before it is still there.
    #[test]
    fn where_a_file_grows_behind_what_was_forgotten_it_begins_anew_too() {
        let directory = tempfile::tempdir().expect("a directory");
        let archive = open(&directory);
        let large = large();
        archive.put(&[(1, &large)]).expect("put");
        put(&archive, 2..6);
        archive.forget_before(4);
        put(&archive, 6..8);
        let opened = open(&directory);
        assert_eq!((opened.bounds(), numbers(&opened, 1)), (Some((1, 8)), vec![4, 5, 6, 7]));
    }

    #[test]
    fn a_file_that_was_lost_is_no_hole_of_its_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let archive = open(&directory);
        let large = large();
        put(&archive, 1..5);
        archive.put(&[(5, &large)]).expect("put");
        put(&archive, 6..8);
        fs::remove_file(directory.path().join("events/0000000000000005")).expect("removed");
        let opened = open(&directory);
        assert_eq!(numbers(&opened, 1), [1, 2, 3, 4, 6, 7], "whoever reads it sees what is missing");
    }

    #[test]
    fn what_was_put_is_read_in_order_after_it_was_opened_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let archive = open(&directory);
        assert_eq!((archive.bounds(), numbers(&archive, 0)), (None, vec![]));
        put(&archive, 5..9);
        // The journal said some of them twice.
        put(&archive, 7..12);
        put(&archive, 7..12);
        for archive in [archive, open(&directory)] {
            assert_eq!(archive.bounds(), Some((5, 12)));
            assert_eq!(numbers(&archive, 0), (5..12).collect::<Vec<_>>());
            assert_eq!(numbers(&archive, 8), (8..12).collect::<Vec<_>>());
            assert_eq!(archive.read(6, 8, 9, 1_000).expect("read").len(), 2);
            assert_eq!(archive.read(6, 12, 9, 1).expect("read").len(), 1, "no more once there are so many bytes");
        }
        assert_eq!(fs::read_dir(directory.path().join("events")).expect("there").count(), 1, "small files grow");
    }

    #[test]
    fn what_grows_leaves_out_what_is_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let archive = open(&directory);
        put(&archive, 1..9);
        let before = fs::read(archive.path(1)).expect("read");
        archive.forget_before(5);
        put(&archive, 9..12);
        assert_eq!((archive.bounds(), numbers(&archive, 0)), (Some((5, 12)), (5..12).collect()));
        assert!(!archive.path(1).exists());
        // As if the process had died before that was removed.
        fs::write(archive.path(1), before).expect("written");
        let archive = open(&directory);
        assert_eq!((archive.bounds(), numbers(&archive, 0)), (Some((5, 12)), (5..12).collect()));
    }

    #[test]
    fn large_files_are_left_and_old_ones_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let archive = open(&directory);
        let large = large();
        for number in 1..4 {
            archive.put(&[(number, &large)]).expect("put");
        }
        archive.forget_before(3);
        assert_eq!(archive.read(1, 9, 9, 1).expect("read")[0].0, 3);
        archive.remove_forgotten().expect("removed");
        assert_eq!((archive.bounds(), fs::read_dir(&archive.directory).expect("there").count()), (Some((3, 4)), 1));
        // What was committed meanwhile has made the newest too old as well.
        archive.forget_before(9);
        archive.remove_forgotten().expect("removed");
        assert_eq!((archive.bounds(), numbers(&archive, 0)), (Some((3, 4)), vec![]), "it says how far the files go");
        assert_eq!(open(&directory).bounds(), Some((3, 4)));
        archive.clear().expect("cleared");
        assert_eq!((archive.bounds(), archive.directory.exists()), (None, false));
    }

    #[test]
    fn damage_is_noticed_and_half_a_file_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let archive = open(&directory);
        put(&archive, 1..4);
        let path = archive.path(1);
        let whole = fs::read(&path).expect("read");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).expect("damaged");
            let read = Archive::open(&Options::new(directory.path())).and_then(|archive| archive.read(1, 4, 9, 1_000));
            assert!(read.is_err(), "{at}");
        }
        fs::write(&path, &whole).expect("whole again");
        fs::write(archive.directory.join(segment::UNFINISHED), &whole[..30]).expect("written");
        assert_eq!(numbers(&open(&directory), 0), [1, 2, 3]);
    }
}
