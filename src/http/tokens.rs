//! Tokens of users: JSON web tokens (RFC 7519) of the stack's identity service, signed with HS256, RS256 or ES256.

mod keys;
mod signatures;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};
use serde::Deserialize;

pub use keys::KeyError;
use keys::{Key, from_pem, from_set};

use super::Problem;
use crate::contract::requests::ClientId;
use crate::domain::Millis;

/// Whom a token is for, and who gives them out (contract, HTTP).
const AUDIENCE: &str = "huleedu-platform";
const ISSUER: &str = "huleedu-identity-service";

/// The longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1_024;

/// What a token has to be.
#[derive(Clone)]
pub struct Tokens {
    keys: Arc<[Key]>,
    leeway_ms: u64,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.keys.iter().map(|key| (&key.id, key.algorithm)).collect();
        f.debug_struct("Tokens").field("keys", &keys).field("leeway_ms", &self.leeway_ms).finish()
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
    #[serde(default)]
    org_id: Option<ClientId>,
}

/// Somebody who has shown who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) user: String,
    pub(super) organisation: Option<String>,
}

impl Tokens {
    /// Those that are signed with `secret` (HS256).
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self::signed_with(vec![Key::secret(secret)])
    }

    /// Those that are signed with the private half of this public key, in PEM: RS256 for an RSA key, ES256 for one of the
    /// curve P-256.
    ///
    /// # Errors
    /// Where this is no such key.
    pub fn from_public_key(pem: &[u8]) -> Result<Self, KeyError> {
        Ok(Self::signed_with(vec![from_pem(pem)?]))
    }

    /// Those that are signed with one of the keys of this set (RFC 7517), which a token names by its `kid`.
    ///
    /// # Errors
    /// Where this is no set, or nothing in it is of use.
    pub fn from_key_set(json: &[u8]) -> Result<Self, KeyError> {
        Ok(Self::signed_with(from_set(json)?))
    }

    fn signed_with(keys: Vec<Key>) -> Self {
        // Where the program around this one has chosen another, that knows the algorithms too.
        let _ = signatures::PROVIDER.install_default();
        Self { keys: keys.into(), leeway_ms: 0 }
    }

    /// Clocks may differ by so much.
    #[must_use]
    pub fn with_leeway_ms(self, leeway_ms: u64) -> Self {
        Self { leeway_ms, ..self }
    }

    /// Whose token this is.
    pub(super) fn caller(&self, token: &str, now: Millis) -> Result<Caller, Problem> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Problem::bad_token("the token is too long"));
        }
        let unreadable = |error: jsonwebtoken::errors::Error| Problem::bad_token(reason(error.kind()));
        let header = decode_header(token).map_err(unreadable)?;
        if header.crit.is_some() {
            // Whoever does not know what is critical has to refuse it (RFC 7515, section 4.1.11).
            return Err(Problem::bad_token("the token has critical members that are not known here"));
        }
        let key =
            self.key(&header).ok_or_else(|| Problem::bad_token("no key that is known here has signed the token"))?;
        let claims = decode::<Claims>(token, &key.value, &rules(key.algorithm)).map_err(unreadable)?.claims;
        self.check_times(&claims, now)?;
        let organisation = claims.org_id.map(ClientId::into_string);
        Ok(Caller { user: claims.sub.into_string(), organisation })
    }

    /// The key that has to have signed a token with this header. Which algorithm it is for, the key says; the header's
    /// can only be that one.
    fn key(&self, header: &Header) -> Option<&Key> {
        let of_algorithm = || self.keys.iter().filter(|key| key.algorithm == header.alg);
        let named = of_algorithm().find(|key| key.id.is_some() && key.id == header.kid);
        let mut others = of_algorithm().filter(|key| header.kid.is_none() || key.id.is_none());
        named.or_else(|| others.next().filter(|_| others.next().is_none()))
    }

    fn check_times(&self, claims: &Claims, now: Millis) -> Result<(), Problem> {
        let ends = millis(claims.exp).map(|ends| ends.0.saturating_add(self.leeway_ms));
        if ends.is_none_or(|ends| ends <= now.0) {
            return Err(Problem::bad_token("the token has expired"));
        }
        let latest = Millis(now.0.saturating_add(self.leeway_ms));
        if claims.nbf.is_some_and(|from| millis(from).is_none_or(|from| from > latest)) {
            return Err(Problem::bad_token("the token is not valid yet"));
        }
        Ok(())
    }
}

/// What is checked of a token beside its signature and its times: those are compared with the clock of the program.
fn rules(algorithm: Algorithm) -> Validation {
    let mut rules = Validation::new(algorithm);
    rules.set_audience(&[AUDIENCE]);
    rules.set_issuer(&[ISSUER]);
    rules.set_required_spec_claims(&["exp", "sub", "aud", "iss"]);
    rules.validate_exp = false;
    rules
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
