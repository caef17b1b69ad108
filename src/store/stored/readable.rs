//! Whether bytes can be read as a stored value. The store reads through the same types; this is for tools that try them
//! on bytes of any kind.

use super::{StoredAnswer, StoredBatch, StoredDetails, StoredEssay, StoredResult, parse};
use super::{
    StoredAttempt, StoredBalance, StoredCharge, StoredJob, StoredLate, StoredLetter, StoredMember, StoredMessage,
};
use crate::contract::BatchStatus;
use crate::domain::LetterId;
use crate::store::{Error, codec};

/// Reads `bytes` as a value of the keys that begin with `prefix`, down to what the domain would get.
///
/// # Errors
/// [`Error::Corrupt`] where they are none, or where under such keys there is no encoded value.
pub fn readable(prefix: u8, bytes: &[u8]) -> Result<(), Error> {
    match prefix {
        b'b' => batch(codec::decode(bytes)?),
        b'd' => codec::decode_any::<StoredDetails>(bytes)?.into_details().map(drop),
        b'e' => {
            let essays: Vec<StoredEssay> = codec::decode(bytes)?;
            essays.into_iter().map(StoredEssay::into_essay).for_each(drop);
            Ok(())
        }
        b'r' => {
            codec::decode::<Vec<StoredResult>>(bytes)?.into_iter().try_for_each(|result| result.into_result().map(drop))
        }
        b'a' => codec::decode::<StoredAttempt>(bytes)?.into_attempt().map(drop),
        b'l' => codec::decode::<StoredLate>(bytes)?.into_late().map(drop),
        b'o' => codec::decode::<StoredMessage>(bytes)?.into_message().map(drop),
        b'h' => codec::decode::<StoredAnswer>(bytes).map(drop),
        b'j' => codec::decode::<StoredJob>(bytes)?.into_job().map(drop),
        b'm' => codec::decode::<StoredMember>(bytes).map(|member| drop(member.into_member())),
        b'z' => codec::decode::<StoredLetter>(bytes)?.into_letter(LetterId(uuid::Uuid::nil())).map(drop),
        b's' => codec::decode::<StoredBalance>(bytes).map(drop),
        b'p' => codec::decode::<StoredCharge>(bytes)?.into_charge().map(drop),
        _ => Err(Error::Corrupt("no encoded value is stored under such keys".to_owned())),
    }
}

fn batch(stored: StoredBatch) -> Result<(), Error> {
    parse::<BatchStatus>(&stored.status)?;
    for phase in stored.phases.into_iter().flatten() {
        phase.into_record(Vec::new())?;
    }
    stored.run.map_or(Ok(()), |run| run.into_run().map(drop))
}
