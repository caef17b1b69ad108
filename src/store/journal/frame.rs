//! A frame: one group of commits, as bytes.
//!
//! A CRC-32 of the rest, the length of the body, and the body: the number of the commit, then for each write a byte for
//! its kind, the length of the key (u16) and the key, and the length of the value (u32) and the value where there is one
//! of its own. Integers are big-endian.
//!
//! | kind | |
//! | --- | --- |
//! | 0, 2 | puts a value, of the state or of the contents |
//! | 1, 3 | removes one |
//! | 4 | puts into the state the value of the write before: a message lies in an outbox and in the log of events |

use sled::IVec;

use crate::store::keys;

/// The checksum and the length before the body of a frame.
const FRAME_HEADER_BYTES: usize = 8;

/// Which tree a write is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Which {
    /// Everything but the texts.
    State,
    /// The texts.
    Contents,
}

/// A key, and what is under it from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Write {
    pub(in crate::store) which: Which,
    pub(in crate::store) key: IVec,
    pub(in crate::store) value: Option<IVec>,
}

impl Write {
    /// How many bytes it takes behind `before`.
    fn bytes(&self, before: Option<&Self>) -> u64 {
        let value = if self.repeats(before) { None } else { self.value.as_ref() };
        (7 + self.key.len() + value.map_or(0, |value| value.len())) as u64
    }

    /// Whether it has the very value of `before`.
    fn repeats(&self, before: Option<&Self>) -> bool {
        let values = self.value.as_ref().zip(before.and_then(|before| before.value.as_ref()));
        self.which == Which::State
            && values.is_some_and(|(value, before)| std::ptr::eq(&raw const **value, &raw const **before))
    }

    pub(in crate::store) fn into_pair(self) -> (IVec, Option<IVec>) {
        (self.key, self.value)
    }

    /// The same, under the key that it has in this version.
    pub(in crate::store) fn under_newest_key(self) -> Self {
        match keys::newest(&self.key) {
            Some(newest) if self.which == Which::State => Self { key: newest.into(), ..self },
            Some(_) | None => self,
        }
    }
}

/// Each write with the one before it.
fn with_before(writes: &[Write]) -> impl Iterator<Item = (Option<&Write>, &Write)> {
    std::iter::once(None).chain(writes.iter().map(Some)).zip(writes)
}

/// How many bytes a group of writes takes.
pub(in crate::store) fn bytes_of(writes: &[Write]) -> u64 {
    with_before(writes).map(|(before, write)| write.bytes(before)).sum()
}

/// The kind of a write that repeats the value of the one before.
const REPEATS: u8 = 4;

/// Turns a group of writes into a frame, in place of what was in `bytes`. One that is too long to be written is an error.
pub(super) fn encode(bytes: &mut Vec<u8>, commit: u64, writes: &[Write]) -> Result<(), String> {
    bytes.clear();
    bytes.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    bytes.extend_from_slice(&commit.to_be_bytes());
    for (before, write) in with_before(writes) {
        let repeats = write.repeats(before);
        let Write { which, key, value } = write;
        let kind = match which {
            Which::State => 0,
            Which::Contents => 2,
        };
        bytes.push(if repeats { REPEATS } else { kind + u8::from(value.is_none()) });
        let length = u16::try_from(key.len()).map_err(|_| "a key is too long".to_owned())?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(key);
        if let Some(value) = value.as_ref().filter(|_| !repeats) {
            let length = u32::try_from(value.len()).map_err(|_| "a value is too long".to_owned())?;
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(value);
        }
    }
    let length = u32::try_from(bytes.len() - FRAME_HEADER_BYTES).map_err(|_| "a commit is too large".to_owned())?;
    bytes[4..8].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

/// What is left of a file that is being read.
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.number()?)).ok()
    }

    /// The next frame: its commit and its writes; none where it is torn, or there is none.
    pub(super) fn frame(&mut self) -> Option<(u64, Vec<Write>)> {
        let checksum = u32::from_be_bytes(self.number()?);
        let covered = self.0;
        let length = self.length()?;
        let body = self.take(length)?;
        if crc32fast::hash(&covered[..4 + length]) != checksum {
            return None;
        }
        let mut body = Cursor(body);
        let commit = u64::from_be_bytes(body.number()?);
        let mut writes = Vec::new();
        while !body.0.is_empty() {
            let write = body.write(writes.last())?;
            writes.push(write);
        }
        Some((commit, writes))
    }

    fn write(&mut self, before: Option<&Write>) -> Option<Write> {
        let [kind] = self.number()?;
        let which = match kind {
            0 | 1 | REPEATS => Which::State,
            2 | 3 => Which::Contents,
            _ => return None,
        };
        let length = u16::from_be_bytes(self.number()?);
        let key = self.take(length.into())?.into();
        let value = if kind == REPEATS {
            Some(before?.value.clone()?)
        } else if kind & 1 == 0 {
            let length = self.length()?;
            Some(self.take(length)?.into())
        } else {
            None
        };
        Some(Write { which, key, value })
    }
}
