//! Any bytes as any stored value: they are read or refused, without a panic and without memory for lengths that only
//! the bytes claim. The first byte is the prefix of the key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rephase::store;

fuzz_target!(|bytes: &[u8]| {
    if let Some((prefix, value)) = bytes.split_first() {
        // Either answer will do.
        let _ = store::readable(*prefix, value);
    }
});
