//! Bytes that are text nearly always: as they are in the store, as a string in a backup.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Begins a string that stands for bytes which are no text.
const HEX: &str = "\0hex:";

pub(super) fn serialize<S: Serializer>(bytes: &impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    let bytes = bytes.as_ref();
    if !serializer.is_human_readable() {
        return serializer.serialize_bytes(bytes);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.starts_with(HEX) => text.serialize(serializer),
        Ok(_) | Err(_) => format!("{HEX}{}", hex::encode(bytes)).serialize(serializer),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>, B: From<Bytes>>(deserializer: D) -> Result<B, D::Error> {
    if !deserializer.is_human_readable() {
        return Bytes::deserialize(deserializer).map(B::from);
    }
    let text = String::deserialize(deserializer)?;
    let bytes = match text.strip_prefix(HEX) {
        Some(digits) => hex::decode(digits).map_err(serde::de::Error::custom)?,
        None => text.into_bytes(),
    };
    Ok(Bytes::from(bytes).into())
}

/// The same for bytes that may be absent.
pub(super) mod option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Present(#[serde(with = "super")] Vec<u8>);

    #[expect(clippy::ref_option, reason = "it is called by what serde makes of an attribute")]
    pub(in super::super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.clone().map(Present).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Present>::deserialize(deserializer)?.map(|Present(bytes)| bytes))
    }
}
