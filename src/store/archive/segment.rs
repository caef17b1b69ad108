//! A file of events.
//!
//! A header (24 bytes: a magic, the number of the first event, how many there are, a CRC-32 of these), where each event
//! ends (u64, counted from the first), and the events, each a CRC-32 and the stored message. Integers are big-endian.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::store::Sequence;

const MAGIC: [u8; 8] = *b"rephaseE";

/// Of a file that begins behind a hole.
const ANEW_MAGIC: [u8; 8] = *b"rephaseH";

const HEADER_BYTES: usize = 24;

const END_BYTES: usize = 8;

const CRC_BYTES: usize = 4;

/// The name under which a file is written before it is whole.
pub(super) const UNFINISHED: &str = "unfinished";

/// The events of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) first: Sequence,
    /// The number behind the last.
    pub(super) end: Sequence,
    pub(super) bytes: u64,
    /// What is in the files before it is too old, and some behind that is in none.
    pub(super) begins_anew: bool,
}

impl Segment {
    /// What the file that begins with the event `first` has.
    ///
    /// # Errors
    /// Where it cannot be read, or is not whole.
    pub(super) fn open(directory: &Path, first: Sequence) -> io::Result<Self> {
        let path = path_of(directory, first);
        let file = File::open(&path)?;
        let mut found = [0; HEADER_BYTES];
        let read = file.read_exact_at(&mut found, 0);
        let count = u32::from_be_bytes([found[16], found[17], found[18], found[19]]);
        let begins_anew = found.starts_with(&ANEW_MAGIC);
        let magic = if begins_anew { ANEW_MAGIC } else { MAGIC };
        let is_whole = usize::try_from(count).is_ok_and(|count| header(magic, first, count) == found);
        let unfit = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{} {what}", path.display()));
        if read.is_err() || !is_whole {
            return Err(unfit("has no header"));
        }
        let begin = HEADER_BYTES as u64 + u64::from(count) * END_BYTES as u64;
        let mut end = [0; END_BYTES];
        if count > 0 {
            file.read_exact_at(&mut end, begin - END_BYTES as u64).map_err(|_| unfit("was cut short"))?;
        }
        let bytes = file.metadata()?.len();
        if begin.checked_add(u64::from_be_bytes(end)).is_none_or(|end| end > bytes) {
            return Err(unfit("was cut short"));
        }
        Ok(Self { first, end: first + u64::from(count), bytes, begins_anew })
    }

    /// Events from the number `first` on, which is in it, as they are stored: at most `limit`, and no more once they have
    /// `bytes`.
    ///
    /// # Errors
    /// Where the file is gone, or an event in it is damaged.
    pub(super) fn read(
        self,
        directory: &Path,
        first: Sequence,
        limit: usize,
        bytes: usize,
    ) -> io::Result<Vec<(Sequence, Vec<u8>)>> {
        let file = File::open(path_of(directory, self.first))?;
        let begin = HEADER_BYTES as u64 + (self.end - self.first) * END_BYTES as u64;
        let end_of = |sequence: Sequence| -> io::Result<u64> {
            let mut end = [0; END_BYTES];
            file.read_exact_at(&mut end, HEADER_BYTES as u64 + (sequence - self.first) * END_BYTES as u64)?;
            Ok(u64::from_be_bytes(end))
        };
        let (mut found, mut size) = (Vec::new(), 0);
        let mut at = if first == self.first { 0 } else { end_of(first - 1)? };
        for sequence in (first..self.end).take(limit) {
            let end = end_of(sequence)?;
            let length = end.checked_sub(at).filter(|length| *length <= self.bytes).ok_or_else(|| damaged(sequence))?;
            let mut event = vec![0; usize::try_from(length).map_err(|_| damaged(sequence))?];
            file.read_exact_at(&mut event, begin + at)?;
            let (checksum, stored) = event.split_first_chunk::<CRC_BYTES>().ok_or_else(|| damaged(sequence))?;
            if crc32fast::hash(stored).to_be_bytes() != *checksum {
                return Err(damaged(sequence));
            }
            let stored = event.split_off(CRC_BYTES);
            size += stored.len();
            found.push((sequence, stored));
            at = end;
            if size >= bytes {
                break;
            }
        }
        Ok(found)
    }

    /// Writes the file, which is there whole when this returns, and durable where that is asked.
    pub(super) fn write(
        directory: &Path,
        first: Sequence,
        events: &[&[u8]],
        begins_anew: bool,
        is_durable: bool,
    ) -> io::Result<Self> {
        match fs::create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut bytes = header(if begins_anew { ANEW_MAGIC } else { MAGIC }, first, events.len()).to_vec();
        let mut end = 0;
        for stored in events {
            end += (CRC_BYTES + stored.len()) as u64;
            bytes.extend_from_slice(&end.to_be_bytes());
        }
        for stored in events {
            bytes.extend_from_slice(&crc32fast::hash(stored).to_be_bytes());
            bytes.extend_from_slice(stored);
        }
        let unfinished = directory.join(UNFINISHED);
        let mut file = File::create(&unfinished)?;
        file.write_all(&bytes)?;
        if is_durable {
            file.sync_all()?;
        }
        fs::rename(&unfinished, path_of(directory, first))?;
        if is_durable {
            File::open(directory)?.sync_all()?;
            if let Some(parent) = directory.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self { first, end: first + events.len() as u64, bytes: bytes.len() as u64, begins_anew })
    }
}

/// Where the file lies that begins with the event `first`.
pub(super) fn path_of(directory: &Path, first: Sequence) -> PathBuf {
    directory.join(format!("{first:016x}"))
}

fn header(magic: [u8; 8], first: Sequence, count: usize) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&magic);
    bytes[8..16].copy_from_slice(&first.to_be_bytes());
    // A settlement has fewer than four thousand million events.
    bytes[16..20].copy_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    let checksum = crc32fast::hash(&bytes[..20]);
    bytes[20..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn damaged(sequence: Sequence) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the event {sequence} is damaged"))
}
