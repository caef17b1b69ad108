//! Volumes: older attempts, eight by eight as they lay before, compressed. A volume is written once.
//!
//! A version byte; how long the eights were before they were compressed, u32; and an LZ4 block. In it each eight, behind
//! its length, u16. Integers are big-endian.

use lz4_flex::block::{compress, decompress_into};

use super::{Eight, IN_VOLUME, MAX_TOGETHER_BYTES, TOGETHER};
use crate::store::Error;

const VERSION: u8 = 1;

/// How many bytes a volume of several eights may have: pages of such values stay below the size from which the database
/// would put them into files of their own.
const MAX_BYTES: usize = 7 * 1_024;

/// How long the eights of a volume can be before they are compressed, each with its length.
const MAX_EIGHTS_BYTES: usize = (IN_VOLUME / TOGETHER) as usize * (size_of::<u16>() + MAX_TOGETHER_BYTES);

/// Puts eights into volumes, as few as have room for them, each with the number of its first attempt.
pub(super) fn volumes(eights: &[Eight]) -> Vec<(u32, Vec<u8>)> {
    let Some(first) = eights.first() else { return Vec::new() };
    let volume = volume(eights);
    if volume.len() <= MAX_BYTES || eights.len() == 1 {
        return vec![(first.first, volume)];
    }
    let (older, newer) = eights.split_at(eights.len() / 2);
    [volumes(older), volumes(newer)].concat()
}

fn volume(eights: &[Eight]) -> Vec<u8> {
    let mut raw = Vec::new();
    for Eight { value, .. } in eights {
        // No value has so many bytes that this does not say it.
        raw.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        raw.extend_from_slice(value);
    }
    let length = u32::try_from(raw.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[VERSION][..], &length, &compress(&raw)].concat()
}

/// The eights of a volume, as they lay before.
pub(super) fn eights(volume: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let unfit = |what: &str| Error::Corrupt(format!("older attempts {what}"));
    let (&[version, a, b, c, d], compressed) = volume.split_first_chunk().ok_or_else(|| unfit("are cut short"))?;
    if version != VERSION {
        return Err(unfit(&format!("have the unknown version {version}")));
    }
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok().filter(|length| *length <= MAX_EIGHTS_BYTES);
    let mut raw = vec![0; length.ok_or_else(|| unfit("are longer than there is room for"))?];
    let found = decompress_into(compressed, &mut raw).map_err(|error| unfit(&format!("are damaged: {error}")))?;
    let mut rest =
        raw.get(..found).filter(|_| found == raw.len()).ok_or_else(|| unfit("are shorter than they were"))?;
    let mut eights = Vec::new();
    while !rest.is_empty() {
        let eight = rest.split_first_chunk().and_then(|(length, rest)| {
            let length = u16::from_be_bytes(*length);
            rest.split_at_checked(length.into())
        });
        let (eight, behind) = eight.ok_or_else(|| unfit("are cut short"))?;
        eights.push(eight.to_vec());
        rest = behind;
    }
    Ok(eights)
}
