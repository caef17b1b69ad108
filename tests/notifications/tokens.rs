//! Tokens as the identity service gives them out, made here with nothing of the program.
#![allow(dead_code, reason = "each test file uses another part")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::harness::{OWNER, START};

pub const SECRET: &str = "a secret of thirty-two bytes, or so";

/// The claims of a token of [`OWNER`] that is valid for an hour from [`START`].
pub fn claims() -> Value {
    json!({
        "sub": OWNER, "aud": "huleedu-platform", "iss": "huleedu-identity-service",
        "exp": START.0 / 1_000 + 3_600, "org_id": "school-1",
    })
}

/// The same with one of them replaced, or left out where it is null.
pub fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let members = claims.as_object_mut().expect("an object");
    if value.is_null() {
        members.remove(name)
    } else {
        members.insert(name.to_owned(), value)
    };
    claims
}

pub fn token(claims: &Value) -> String {
    signed(&json!({ "alg": "HS256", "typ": "JWT" }), claims, SECRET)
}

pub fn signed(header: &Value, claims: &Value, secret: &str) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any secret will do");
    let signature = mac.chain_update(&message).finalize().into_bytes();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}
