//! The journal: what is durable and not yet settled in the database.
//!
//! A group of commits is one [`frame`], appended and synced; that, and nothing else, is what an answer waits for.
//! When enough has come together a new segment begins, and what the old one says is written to the database, where a key
//! that was written many times is written once. Then the old segment goes.
//!
//! A segment is a file `journal/NUMBER` in hexadecimal. Its header (32 bytes) says how many commits there were before
//! it, as a big-endian integer; frames follow.
//!
//! A segment that has gone is kept as `journal/spare`, and the next is written over it: a file that does not grow is
//! synced in half the time. What it said before lies behind the new frames, and is known by its commits, which are older.
//!
//! A crash can leave a torn frame at the end of a segment: nobody was told of it, so it counts as not written.

mod frame;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use frame::{Cursor, encode};
pub(super) use frame::{Which, Write, bytes_of};

/// A version that does not know what may lie behind the last frame does not know this one either.
const MAGIC: [u8; 8] = *b"rephaseK";

/// Nothing lies behind the last frame.
const OLD_MAGIC: [u8; 8] = *b"rephaseJ";

const HEADER_BYTES: usize = 32;

/// How much memory for frames is kept from one to the next.
const MAX_KEPT_BYTES: usize = 1_024 * 1_024;

fn header(magic: [u8; 8], after: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&magic);
    bytes[8..16].copy_from_slice(&after.to_be_bytes());
    let checksum = crc32fast::hash(&bytes[..16]);
    bytes[16..20].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// The journal of one store, open for writing.
pub(super) struct Journal {
    directory: PathBuf,
    number: u64,
    file: File,
    /// The last frame: the next takes its place, and asks for no memory.
    frame: Vec<u8>,
}

impl Journal {
    /// Begins a new segment behind those that are there; `after` so many commits.
    pub(super) fn begin(directory: &Path, after: u64) -> io::Result<Self> {
        let directory = directory_of(directory);
        fs::create_dir_all(&directory)?;
        let last = segments(&directory)?.last().copied();
        let number = last.map_or(0, |last| last + 1);
        let file = make(&directory, number, after)?;
        // Without a segment it is new, or as good as that.
        if last.is_none()
            && let Some(parent) = directory.parent()
        {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self { directory, number, file, frame: Vec::new() })
    }

    /// Appends a group of writes. It is durable once [`Journal::sync`] has returned.
    pub(super) fn append(&mut self, commit: u64, writes: &[Write]) -> io::Result<()> {
        encode(&mut self.frame, commit, writes).map_err(io::Error::other)?;
        self.file.write_all(&self.frame)?;
        // A large one is rare, and so is the memory for it.
        self.frame.clear();
        self.frame.shrink_to(MAX_KEPT_BYTES);
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Begins the next segment, and gives the number up to which segments may go once what they say is settled.
    pub(super) fn rotate(&mut self, after: u64) -> io::Result<u64> {
        let old = self.number;
        self.file = make(&self.directory, old + 1, after)?;
        self.number = old + 1;
        Ok(old)
    }

    /// Keeps nothing for the next segment.
    pub(super) fn remove_spare(&self) -> io::Result<()> {
        found(fs::remove_file(self.directory.join(SPARE))).map(drop)
    }
}

fn make(directory: &Path, number: u64, after: u64) -> io::Result<File> {
    let (segment, spare) = (path_of(directory, number), directory.join(SPARE));
    let file = if let Some(mut file) = found(OpenOptions::new().write(true).open(&spare))? {
        // It must not be a segment any more, after a power loss either, when its header is overwritten.
        File::open(directory)?.sync_all()?;
        file.write_all(&header(MAGIC, after))?;
        file.sync_all()?;
        fs::rename(spare, segment)?;
        file
    } else {
        let mut file = OpenOptions::new().create_new(true).write(true).open(segment)?;
        file.write_all(&header(MAGIC, after))?;
        file.sync_all()?;
        file
    };
    File::open(directory)?.sync_all()?;
    Ok(file)
}

/// What is there; none where nothing is.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(thing) => Ok(Some(thing)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The name of the file that the next segment is written over.
const SPARE: &str = "spare";

fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016x}"))
}

fn directory_of(store: &Path) -> PathBuf {
    store.join("journal")
}

/// The segments there are, oldest first.
fn segments(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in found(fs::read_dir(directory))?.into_iter().flatten() {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| u64::from_str_radix(name, 16).ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// How many bytes the journal of a store takes, with what is kept for its next segment.
pub(super) fn size_on_disk(store: &Path) -> io::Result<u64> {
    let directory = directory_of(store);
    let files = segments(&directory)?.into_iter().map(|number| path_of(&directory, number));
    files.chain([directory.join(SPARE)]).try_fold(0, |bytes, file| {
        // One may have been settled meanwhile.
        Ok(bytes + found(fs::metadata(file))?.map_or(0, |file| file.len()))
    })
}

/// The segments up to and with `last` are settled: one is kept for the next to be written over, and the others go.
pub(super) fn retire(store: &Path, last: u64) -> io::Result<()> {
    let directory = directory_of(store);
    let spare = directory.join(SPARE);
    for number in segments(&directory)?.into_iter().filter(|number| *number <= last) {
        let segment = path_of(&directory, number);
        if spare.try_exists()? {
            fs::remove_file(segment)?;
        } else {
            fs::rename(segment, &spare)?;
        }
    }
    Ok(())
}

/// What the journal of a store says.
#[derive(Default)]
pub(super) struct Replay {
    /// How many commits were settled before it begins; none where there is no journal.
    pub(super) after: Option<u64>,
    /// The writes of all that it has, in order.
    pub(super) writes: Vec<Write>,
    /// How many commits there have been by its end.
    pub(super) commits: u64,
    /// Its newest segment, where it has one.
    pub(super) last_segment: Option<u64>,
    /// How many segments it has.
    pub(super) segments: usize,
}

/// Reads the journal of a store. It is at most a few segments, so it is read as a whole.
pub(super) fn replay(store: &Path) -> io::Result<Result<Replay, String>> {
    let directory = directory_of(store);
    let mut replay = Replay::default();
    for number in segments(&directory)? {
        let bytes = fs::read(path_of(&directory, number))?;
        replay.last_segment = Some(number);
        replay.segments += 1;
        let mut cursor = Cursor(&bytes);
        let head = cursor.take(HEADER_BYTES);
        let after = head.and_then(|head| Some(u64::from_be_bytes(head.get(8..16)?.try_into().ok()?)));
        let is_header = |after: &u64| [MAGIC, OLD_MAGIC].iter().any(|magic| head == Some(&header(*magic, *after)[..]));
        let Some(after) = after.filter(is_header) else {
            // Nothing is written to a segment before its header is durable.
            if bytes.len() <= HEADER_BYTES {
                continue;
            }
            return Ok(Err(format!("segment {number:x} of its journal has no header")));
        };
        if replay.after.is_some() && after != replay.commits {
            return Ok(Err(format!("its journal has a gap: commit {after} follows {}", replay.commits)));
        }
        replay.after.get_or_insert(after);
        replay.commits = after;
        while let Some((commit, mut writes)) = cursor.frame() {
            if commit <= replay.commits {
                // What the file said before it became this segment.
                break;
            }
            if commit != replay.commits + 1 {
                return Ok(Err(format!("its journal has a gap: commit {commit} follows {}", replay.commits)));
            }
            replay.commits = commit;
            replay.writes.append(&mut writes);
        }
    }
    Ok(Ok(replay))
}

#[cfg(test)]
mod tests {
    use sled::IVec;

    use super::*;

    fn write(key: &[u8], value: Option<&[u8]>) -> Write {
        Write { which: Which::State, key: key.into(), value: value.map(IVec::from) }
    }

    fn journal_of(directory: &Path, groups: &[Vec<Write>]) {
        let mut journal = Journal::begin(directory, 7).expect("begun");
        for (number, group) in (8..).zip(groups) {
            journal.append(number, group).expect("appended");
        }
        journal.sync().expect("synced");
    }

    fn groups() -> Vec<Vec<Write>> {
        let text = Write { which: Which::Contents, key: b"hash".into(), value: Some(vec![b'x'; 70_000].into()) };
        vec![
            vec![write(b"a", Some(b"1")), write(b"b", None)],
            vec![text, Write { which: Which::Contents, key: b"gone".into(), value: None }],
            vec![write(b"a", Some(b""))],
        ]
    }

    #[test]
    fn what_was_written_is_read_in_order() {
        let directory = tempfile::tempdir().expect("a directory");
        journal_of(directory.path(), &groups());
        let replay = replay(directory.path()).expect("read").expect("sound");
        assert_eq!((replay.after, replay.commits), (Some(7), 10));
        assert_eq!(replay.writes, groups().concat());
    }

    #[test]
    fn a_value_that_is_written_twice_takes_its_room_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let value = IVec::from(vec![b'm'; 2_000]);
        let put = |key: &[u8], value: &IVec| Write { which: Which::State, key: key.into(), value: Some(value.clone()) };
        let group = vec![
            put(b"v1", &value),
            put(b"o1", &value),
            put(b"x", &IVec::from(&[b'm'; 2_000][..])),
            write(b"v0", None),
        ];
        assert!((4_000..4_200).contains(&bytes_of(&group)));
        journal_of(directory.path(), std::slice::from_ref(&group));
        let file = directory.path().join("journal/0000000000000000");
        assert!((4_000..4_200).contains(&fs::metadata(file).expect("a segment").len()));
        assert_eq!(replay(directory.path()).expect("read").expect("sound").writes, group);
    }

    #[test]
    fn wherever_its_end_is_torn_whole_groups_are_left() {
        let directory = tempfile::tempdir().expect("a directory");
        journal_of(directory.path(), &groups());
        let file = directory.path().join("journal/0000000000000000");
        let whole = fs::read(&file).expect("read");
        let mut seen = std::collections::BTreeSet::new();
        for length in (0..=whole.len()).filter(|length| length % 97 == 0 || *length < 200 || *length + 99 > whole.len())
        {
            fs::write(&file, &whole[..length]).expect("cut");
            let replay = replay(directory.path()).expect("read").expect("a torn end is no damage");
            let count = replay.commits.saturating_sub(7);
            assert_eq!(replay.writes, groups()[..usize::try_from(count).expect("few")].concat(), "{length}");
            seen.insert(count);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_bit_that_was_turned_ends_it_there() {
        let directory = tempfile::tempdir().expect("a directory");
        journal_of(directory.path(), &groups());
        let file = directory.path().join("journal/0000000000000000");
        let whole = fs::read(&file).expect("read");
        for at in (HEADER_BYTES..whole.len()).step_by(13) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&file, &bytes).expect("damaged");
            let replay = replay(directory.path()).expect("read").expect("what is before it is sound");
            assert!(replay.commits < 10, "{at}");
            let count = usize::try_from(replay.commits - 7).expect("few");
            assert_eq!(replay.writes, groups()[..count].concat());
        }
    }

    #[test]
    fn segments_follow_one_another_without_a_gap() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut journal = Journal::begin(directory.path(), 0).expect("begun");
        journal.append(1, &groups()[0]).expect("appended");
        let old = journal.rotate(1).expect("rotated");
        journal.append(2, &groups()[2]).expect("appended");
        let both = replay(directory.path()).expect("read").expect("sound");
        assert_eq!((both.after, both.commits, both.writes.len()), (Some(0), 2, 3));
        retire(directory.path(), old).expect("retired");
        let rest = replay(directory.path()).expect("read").expect("sound");
        assert_eq!((rest.after, rest.commits, rest.writes.len()), (Some(1), 2, 1));

        let _ = Journal::begin(directory.path(), 9).expect("begun");
        let gap = replay(directory.path()).expect("read").err().expect("a gap");
        assert!(gap.contains("gap"), "{gap}");
    }

    /// The spare has frames of all lengths, so what is written over it ends in the midst of one, or between two.
    #[test]
    fn what_a_segment_is_written_over_is_no_part_of_it() {
        for length in 0..120 {
            let directory = tempfile::tempdir().expect("a directory");
            let mut journal = Journal::begin(directory.path(), 0).expect("begun");
            for commit in 1..=20 {
                journal
                    .append(commit, &[write(b"old", Some(&vec![7; 7 * usize::try_from(commit).expect("few")]))])
                    .expect("appended");
            }
            let file =
                |name: &str| fs::metadata(directory.path().join("journal").join(name)).map(|file| file.len()).ok();
            let size = file("0000000000000000").expect("a segment");
            let first = journal.rotate(20).expect("rotated");
            retire(directory.path(), first).expect("retired");
            assert_eq!(file("spare"), Some(size));

            journal.append(21, &[write(b"between", None)]).expect("appended");
            let second = journal.rotate(21).expect("rotated");
            assert_eq!((file("spare"), file("0000000000000002")), (None, Some(size)));
            assert_eq!(
                replay(directory.path()).expect("read").expect("sound").commits,
                21,
                "nothing is in the new one"
            );
            let new = vec![write(b"new", Some(&vec![9; length]))];
            journal.append(22, &new).expect("appended");
            retire(directory.path(), second).expect("retired");
            let replayed = replay(directory.path()).expect("read").expect("sound");
            assert_eq!((replayed.after, replayed.commits, replayed.writes), (Some(21), 22, new));

            // The next start goes on behind it, over what is spare.
            drop(journal);
            let mut journal = Journal::begin(directory.path(), 22).expect("begun");
            assert_eq!(file("spare"), None);
            journal.append(23, &[write(b"last", None)]).expect("appended");
            let replayed = replay(directory.path()).expect("read").expect("sound");
            assert_eq!((replayed.commits, replayed.writes.len()), (23, 2));
            journal.remove_spare().expect("there is none");
        }
    }
}
