//! Stored values: one version byte, then bincode. The only file that names bincode.
//!
//! A type begins with version 1. Where it changes it becomes [`Versioned`], and what it was stays, to be read.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;

/// The version of a type that has not changed.
const VERSION: u8 = 1;

/// A stored type that was another one in the version before.
pub(super) trait Versioned: Serialize + DeserializeOwned + From<Self::Before> {
    /// The version that is written, from 2.
    const VERSION: u8;
    /// What version 1 was.
    type Before: DeserializeOwned;
}

/// Encodes a stored type in its newest version.
pub(super) fn encode_newest<T: Versioned>(value: &T) -> Result<Vec<u8>, Error> {
    encode_as(T::VERSION, value)
}

/// Decodes a stored type of any of its versions.
pub(super) fn decode_any<T: Versioned>(bytes: &[u8]) -> Result<T, Error> {
    if bytes.first() == Some(&VERSION) { decode::<T::Before>(bytes).map(T::from) } else { decode_as(T::VERSION, bytes) }
}

/// A list with one element more behind the `count` that it has; none where it has not so many. A value of version 1 is
/// one element, and a list in the newest. Neither is decoded.
pub(super) fn append<T: Versioned>(list: &[u8], count: u8, element: &[u8]) -> Option<Vec<u8>> {
    let elements = match list.split_first()? {
        (&VERSION, one) if count == 1 => one,
        (version, list) if *version == T::VERSION => list.strip_prefix(&[count])?,
        _ => return None,
    };
    let element = element.strip_prefix(&[VERSION])?;
    let longer = count.checked_add(1).filter(|count| *count <= MAX_COUNT)?;
    Some([&[T::VERSION, longer], elements, element].concat())
}

/// How many elements a list has that was written in the newest version; none where it was not, or they are too many to
/// tell without decoding.
pub(super) fn count<T: Versioned>(list: &[u8]) -> Option<u8> {
    let (version, list) = list.split_first()?;
    list.first().copied().filter(|count| *version == T::VERSION && *count <= MAX_COUNT)
}

/// The greatest count of elements that is written in one byte.
const MAX_COUNT: u8 = 250;

const LAYOUT: bincode::config::Configuration = bincode::config::standard();

/// How many bytes one encoded byte may at most claim: an integer of eight bytes is written in one where it is small.
const CLAIM: usize = 8;

/// Sizes of values, in bytes. Lengths inside a damaged value can say anything, and memory is asked for before there are
/// bytes to fill it; so a value may claim what the longest of its size could. A limit of the library is part of a type,
/// hence these steps: most records, those of large batches, messages and answers about them, and what no value exceeds.
const SMALL: usize = 4 * 1_024;
const MEDIUM: usize = 256 * 1_024;
const LARGE: usize = 8 * 1_024 * 1_024;
const LARGEST: usize = 256 * 1_024 * 1_024;

/// How many bytes most values fit into, so that they are not moved while they are encoded.
const USUAL: usize = 512;

/// Encodes a stored type.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    encode_as(VERSION, value)
}

/// Encodes a stored type most of which is `size` bytes of something.
pub(super) fn encode_sized<T: Serialize>(size: usize, value: &T) -> Result<Vec<u8>, Error> {
    encode_into(Vec::with_capacity(size + USUAL), VERSION, value)
}

fn encode_as<T: Serialize>(version: u8, value: &T) -> Result<Vec<u8>, Error> {
    encode_into(Vec::with_capacity(USUAL), version, value)
}

fn encode_into<T: Serialize>(mut bytes: Vec<u8>, version: u8, value: &T) -> Result<Vec<u8>, Error> {
    bytes.push(version);
    bincode::serde::encode_into_std_write(value, &mut bytes, LAYOUT)
        .map_err(|error| Error::Corrupt(error.to_string()))?;
    Ok(bytes)
}

/// Decodes a stored type.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    decode_as(VERSION, bytes)
}

fn decode_as<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, Error> {
    let (found, body) = bytes.split_first().ok_or_else(|| Error::Corrupt("it is empty".to_owned()))?;
    if *found != version {
        return Err(Error::Corrupt(format!("it has the unknown version {found}")));
    }
    let decode = match body.len() {
        size if size <= SMALL => decode_within::<T, { CLAIM * SMALL }>,
        size if size <= MEDIUM => decode_within::<T, { CLAIM * MEDIUM }>,
        size if size <= LARGE => decode_within::<T, { CLAIM * LARGE }>,
        size if size <= LARGEST => decode_within::<T, { CLAIM * LARGEST }>,
        _ => return Err(Error::Corrupt("it is larger than any value".to_owned())),
    };
    let (value, length) = decode(body)?;
    if length != body.len() {
        return Err(Error::Corrupt("it has bytes behind its end".to_owned()));
    }
    Ok(value)
}

fn decode_within<T: DeserializeOwned, const LIMIT: usize>(body: &[u8]) -> Result<(T, usize), Error> {
    let decoded = bincode::serde::decode_from_slice(body, LAYOUT.with_limit::<LIMIT>());
    decoded.map_err(|error| Error::Corrupt(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_is_not_there_is_an_error_and_asks_for_no_memory() {
        // A text whose length is written in eight bytes: 2^40 would be a terabyte, the last more than any memory.
        for length in [1_u64 << 40, 1 << 60, u64::MAX] {
            let mut bytes = vec![VERSION, 253];
            bytes.extend(length.to_le_bytes());
            bytes.extend([b'x'; 100]);
            assert!(matches!(decode::<String>(&bytes), Err(Error::Corrupt(_))), "{length}");
            assert!(matches!(decode::<Vec<String>>(&bytes), Err(Error::Corrupt(_))), "{length}");
            assert!(matches!(decode::<Vec<u8>>(&bytes), Err(Error::Corrupt(_))), "{length}");
        }
    }

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Names(Vec<String>);

    impl Versioned for Names {
        const VERSION: u8 = 2;
        type Before = String;
    }

    impl From<String> for Names {
        fn from(name: String) -> Self {
            Self(vec![name])
        }
    }

    #[test]
    fn what_is_appended_to_is_what_is_encoded_as_a_whole() {
        let names: Vec<_> = (0..300).map(|number| format!("name {number}")).collect();
        let mut list = encode(&names[0]).expect("encoded");
        for (count, name) in (1..250).zip(&names[1..]) {
            let name = encode(name).expect("encoded");
            assert_eq!(append::<Names>(&list, count + 1, &name), None, "it has not so many");
            assert_eq!(append::<Names>(&list, count - 1, &name), None, "it has more");
            list = append::<Names>(&list, count, &name).expect("appended");
            let whole = Names(names[..=usize::from(count)].to_vec());
            assert_eq!(list, encode_newest(&whole).expect("encoded"));
            assert_eq!(decode_any::<Names>(&list).expect("decoded"), whole);
        }
        let one = encode(&names[0]).expect("encoded");
        assert_eq!(append::<Names>(&list, 250, &one), None, "the count of the next has more bytes");
        assert_eq!(append::<Names>(&one, 1, b"\x02not one element"), None);
        assert_eq!(append::<Names>(b"", 0, &one), None);
    }

    #[test]
    fn whatever_was_encoded_fits_the_limit_of_its_size() {
        for count in [0, SMALL - 3, SMALL, SMALL + 1, MEDIUM, MEDIUM + 1] {
            // Eight bytes each in memory, one when written: what claims most.
            let small = vec![1_u64; count];
            assert_eq!(decode::<Vec<u64>>(&encode(&small).expect("encoded")).expect("decoded"), small);
            let text = "x".repeat(count);
            assert_eq!(decode::<String>(&encode(&text).expect("encoded")).expect("decoded"), text);
        }
    }
}
