//! Stored values: one version byte, then bincode. The only file that names bincode.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;

/// The version of every value written today.
const VERSION: u8 = 1;

const LAYOUT: bincode::config::Configuration = bincode::config::standard();

/// Encodes a stored type.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut bytes, LAYOUT)
        .map_err(|error| Error::Corrupt(error.to_string()))?;
    Ok(bytes)
}

/// Decodes a stored type.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let (version, body) = bytes.split_first().ok_or_else(|| Error::Corrupt("it is empty".to_owned()))?;
    if *version != VERSION {
        return Err(Error::Corrupt(format!("it has the unknown version {version}")));
    }
    let (value, length) =
        bincode::serde::decode_from_slice(body, LAYOUT).map_err(|error| Error::Corrupt(error.to_string()))?;
    if length != body.len() {
        return Err(Error::Corrupt("it has bytes behind its end".to_owned()));
    }
    Ok(value)
}
