//! Tokens of users: JSON web tokens (RFC 7519) of the stack's identity service, signed with HMAC-SHA-256.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, errors};
use serde::Deserialize;
use sha2::Sha256;

use super::Problem;
use crate::contract::requests::ClientId;
use crate::domain::Millis;

/// Whom a token is for, and who gives them out (contract, HTTP).
const AUDIENCE: &str = "huleedu-platform";
const ISSUER: &str = "huleedu-identity-service";

/// What a token has to be.
#[derive(Clone)]
pub struct Tokens(Arc<(DecodingKey, Validation)>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

/// What a token says.
#[derive(Deserialize)]
struct Claims {
    sub: ClientId,
    /// In seconds, perhaps with a fraction.
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
}

impl Tokens {
    /// Those that are signed with `secret`.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        // Where the program around this one has chosen another, that knows the algorithm too.
        let _ = HMAC.install_default();
        let mut rules = Validation::new(Algorithm::HS256);
        rules.set_audience(&[AUDIENCE]);
        rules.set_issuer(&[ISSUER]);
        rules.set_required_spec_claims(&["exp", "sub", "aud", "iss"]);
        // Times are compared below, with the clock of the program.
        rules.validate_exp = false;
        Self(Arc::new((DecodingKey::from_secret(secret), rules)))
    }

    /// The user whose token this is.
    pub(super) fn user(&self, token: &str, now: Millis) -> Result<String, Problem> {
        let (key, rules) = &*self.0;
        let Claims { sub, exp, nbf } =
            decode(token, key, rules).map_err(|error| Problem::bad_token(reason(error.kind())))?.claims;
        if millis(exp).is_none_or(|expires| expires <= now) {
            return Err(Problem::bad_token("the token has expired"));
        }
        if nbf.is_some_and(|from| millis(from).is_none_or(|from| from > now)) {
            return Err(Problem::bad_token("the token is not valid yet"));
        }
        Ok(sub.into_string())
    }
}

/// A time as tokens have it, in seconds.
fn millis(seconds: f64) -> Option<Millis> {
    let since_epoch = Duration::try_from_secs_f64(seconds).ok()?;
    Some(Millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)))
}

/// What is wrong with a token, as far as whoever sent it may know.
fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSignature => "the token's signature is not right",
        ErrorKind::InvalidAudience => "the token is for somebody else",
        ErrorKind::InvalidIssuer => "the token is from somebody else",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks one of exp, sub, aud, iss",
        _ => "this is no token that can be read",
    }
}

/// The one algorithm, as the library wants it. Its own providers bring every other one too.
static HMAC: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| no_signer(),
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

fn no_signer() -> errors::Result<Box<dyn JwtSigner>> {
    Err(ErrorKind::InvalidAlgorithm.into())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the library hands a reference over")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> errors::Result<Box<dyn JwtVerifier>> {
    if *algorithm != Algorithm::HS256 {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let mac = Hmac::<Sha256>::new_from_slice(key.try_get_as_bytes()?);
    Ok(Box::new(Hs256(mac.map_err(|_| errors::Error::from(ErrorKind::InvalidKeyFormat))?)))
}

struct Hs256(Hmac<Sha256>);

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        // In constant time.
        self.0.clone().chain_update(message).verify_slice(signature).map_err(signature::Error::from_source)
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}
