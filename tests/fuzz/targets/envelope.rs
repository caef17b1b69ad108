//! Any bytes as a message of any topic: they are understood or refused, and never make the reader panic. The first byte
//! chooses the topic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rephase::contract::idempotency::Key;
use rephase::contract::{Envelope, Group, Message, Topic};
use rephase::engine;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, body)) = bytes.split_first() else { return };
    let topic = Topic::ALL[usize::from(*first) % Topic::ALL.len()];
    let message = Message { topic, key: "fuzz".to_owned(), headers: None, body: body.to_vec().into() };
    // What a consumer does first with any message, and what the orchestrator does then; either answer will do.
    let _ = Key::of(Group::Orchestrator.service(), &message);
    let _ = engine::readable(&message);
    if let Ok(envelope) = serde_json::from_slice::<Envelope<Value>>(body) {
        let written = serde_json::to_vec(&envelope).expect("an envelope can be written");
        serde_json::from_slice::<Envelope<Value>>(&written).expect("what was written can be read");
    }
});
