//! Bytes that are text nearly always: as they are in the store, as a string in a backup.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Begins a string that stands for bytes which are no text.
const HEX: &str = "\0hex:";

pub(super) fn serialize<S: Serializer>(bytes: &Vec<u8>, serializer: S) -> Result<S::Ok, S::Error> {
    if !serializer.is_human_readable() {
        return bytes.serialize(serializer);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.starts_with(HEX) => text.serialize(serializer),
        Ok(_) | Err(_) => format!("{HEX}{}", hex::encode(bytes)).serialize(serializer),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    if !deserializer.is_human_readable() {
        return Vec::deserialize(deserializer);
    }
    let text = String::deserialize(deserializer)?;
    match text.strip_prefix(HEX) {
        Some(digits) => hex::decode(digits).map_err(serde::de::Error::custom),
        None => Ok(text.into_bytes()),
    }
}

/// The same for bytes that may be absent.
pub(super) mod option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Bytes(#[serde(with = "super")] Vec<u8>);

    #[expect(clippy::ref_option, reason = "it is called by what serde makes of an attribute")]
    pub(in super::super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.clone().map(Bytes).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Bytes>::deserialize(deserializer)?.map(|Bytes(bytes)| bytes))
    }
}
