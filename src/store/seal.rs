//! A seal on the database: a sum over all its bytes, taken while they are known to be sound and nobody writes them, and
//! how many commits it knows of.
//!
//! A database whose seal is whole is bit for bit what it was then, and needs no trial when it is opened. One without,
//! or that was being written when the process ended, is tried as ever: a broken seal is no sign of damage.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Up to how many bytes a database is sealed, and tried when its seal is broken: some tens of milliseconds.
pub(super) const MAX_BYTES: u64 = 64 * 1_024 * 1_024;

const MAGIC: &[u8; 8] = b"rephaseS";

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 * 1_024;

fn path_of(directory: &Path) -> PathBuf {
    directory.join("SEAL")
}

/// Seals the database of the store in `directory`, which knows of so many commits. A large one is left without.
pub(super) fn seal(directory: &Path, commits: u64) -> io::Result<()> {
    match sum(&directory.join("store"))? {
        Some(sum) => fs::write(path_of(directory), encode(commits, sum)),
        None => remove(directory),
    }
}

/// How many commits the database knows of, where it is what it was when it was sealed.
pub(super) fn unbroken(directory: &Path) -> io::Result<Option<u64>> {
    let mut found = Vec::new();
    match File::open(path_of(directory)) {
        Ok(file) => file.take(SEAL_BYTES as u64 + 1).read_to_end(&mut found)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(commits) = found.get(8..16).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes) else {
        return Ok(None);
    };
    let is_whole = sum(&directory.join("store"))?.is_some_and(|sum| encode(commits, sum)[..] == found);
    Ok(is_whole.then_some(commits))
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_file(path_of(directory)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

const SEAL_BYTES: usize = 20;

fn encode(commits: u64, sum: u32) -> [u8; SEAL_BYTES] {
    let mut bytes = [0; SEAL_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&commits.to_be_bytes());
    bytes[16..].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// A sum over the names, lengths and contents of all files in `directory`; none where they are too much to read.
fn sum(directory: &Path) -> io::Result<Option<u32>> {
    let mut files = Vec::new();
    list(directory, &mut files)?;
    files.sort();
    if files.iter().map(|(_, bytes)| bytes).sum::<u64>() > MAX_BYTES {
        return Ok(None);
    }
    let (mut sum, mut buffer) = (crc32fast::Hasher::new(), vec![0; BUFFER_BYTES]);
    for (path, bytes) in files {
        sum.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        sum.update(&bytes.to_be_bytes());
        let mut file = File::open(&path)?;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            sum.update(&buffer[..read]);
        }
    }
    Ok(Some(sum.finalize()))
}

/// The files in `directory` and below, with their lengths.
pub(super) fn list(directory: &Path, files: &mut Vec<(PathBuf, u64)>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push((entry.path(), metadata.len()));
        }
    }
    Ok(())
}
