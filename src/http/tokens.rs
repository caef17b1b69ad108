//! Tokens of users: JSON web tokens (RFC 7519) of the stack's identity service, signed with HS256, RS256 or ES256.

mod keys;
mod signatures;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};
use serde_json::{Map, Value};

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

    /// Those that are signed with one of the keys of this set (RFC 7517), which a token names by its `kid`; without one,
    /// the only one of its algorithm.
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
        let header = decode_header(token).map_err(|_| Problem::bad_token(why_unreadable(token)))?;
        if header.crit.is_some() {
            // Whoever does not know what is critical has to refuse it (RFC 7515, section 4.1.11).
            return Err(Problem::bad_token("the token has critical members that are not known here"));
        }
        let key = self.key(&header).map_err(Problem::bad_token)?;
        let decoded = decode::<Map<String, Value>>(token, &key.value, &rules(key.algorithm));
        let claims = decoded.map_err(|error| Problem::bad_token(reason(error.kind())))?.claims;
        self.check_times(&claims, now).map_err(Problem::bad_token)?;
        let user = named(&claims, "sub")?.ok_or_else(|| Problem::bad_token("the token has no sub"))?;
        Ok(Caller { user, organisation: named(&claims, "org_id")? })
    }

    /// The key that has to have signed a token with this header. Which algorithm it is for, the key says; the header's
    /// can only be that one. Where the token names none (RFC 7515, section 4.1.4, leaves that to whoever signs), it is the
    /// only one of its algorithm: which of several it would be is not found by trying.
    fn key(&self, header: &Header) -> Result<&Key, String> {
        let of_algorithm = || self.keys.iter().filter(|key| key.algorithm == header.alg);
        let named = of_algorithm().find(|key| key.id.is_some() && key.id == header.kid);
        let mut others = of_algorithm().filter(|key| header.kid.is_none() || key.id.is_none());
        let only = || others.next().filter(|_| others.next().is_none());
        named.or_else(only).ok_or_else(|| {
            let algorithm = header.alg;
            match (of_algorithm().next(), &header.kid) {
                (None, _) => format!("the token is signed with {algorithm:?}, and no key here is for that"),
                (Some(_), None) => format!("the token names no key (kid), and here are several for {algorithm:?}"),
                (Some(_), Some(_)) => "no key here has the name (kid) that the token says".to_owned(),
            }
        })
    }

    fn check_times(&self, claims: &Map<String, Value>, now: Millis) -> Result<(), String> {
        let ends = time(claims, "exp")?.ok_or("the token has no exp")?;
        if ends.0.saturating_add(self.leeway_ms) <= now.0 {
            return Err("the token has expired".to_owned());
        }
        let latest = Millis(now.0.saturating_add(self.leeway_ms));
        if time(claims, "nbf")?.is_some_and(|from| from > latest) {
            return Err("the token is not valid yet".to_owned());
        }
        Ok(())
    }
}

/// What the library checks of a token beside its signature. Its times are compared with the clock of the program, and who
/// it is about is read here.
fn rules(algorithm: Algorithm) -> Validation {
    let mut rules = Validation::new(algorithm);
    rules.set_audience(&[AUDIENCE]);
    rules.set_issuer(&[ISSUER]);
    rules.set_required_spec_claims(&["aud", "iss"]);
    rules.validate_exp = false;
    rules
}

/// A claim, where it says anything.
fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    claims.get(name).filter(|value| !value.is_null())
}

/// Whom a claim names.
fn named(claims: &Map<String, Value>, name: &str) -> Result<Option<String>, Problem> {
    let Some(value) = claim(claims, name) else { return Ok(None) };
    let wrong = |why: &str| Problem::bad_token(format!("{name} of the token {why}"));
    let text = value.as_str().ok_or_else(|| wrong("is no text"))?;
    let text = ClientId::new(text).map_err(|error| wrong(&error.to_string()))?;
    Ok(Some(text.into_string()))
}

/// When a claim says, in seconds, perhaps with a fraction (RFC 7519, section 2).
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<Millis>, String> {
    let Some(value) = claim(claims, name) else { return Ok(None) };
    let time = value.as_f64().and_then(millis);
    time.map(Some).ok_or_else(|| format!("{name} of the token is no time in seconds since 1970"))
}

/// A time as tokens have it, in seconds.
fn millis(seconds: f64) -> Option<Millis> {
    let since_epoch = Duration::try_from_secs_f64(seconds).ok()?;
    Some(Millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)))
}

/// Why the head of a token cannot be read: mostly because of how it is signed.
fn why_unreadable(token: &str) -> &'static str {
    let head = token.split_once('.').and_then(|(head, _)| BASE64_URL_SAFE_NO_PAD.decode(head).ok());
    let head = head.and_then(|head| serde_json::from_slice::<Value>(&head).ok());
    match head {
        Some(head) if head["alg"].is_string() => "the token is not signed with HS256, RS256 or ES256",
        Some(head) if head.is_object() => "the head of the token does not say how it is signed (alg)",
        Some(_) | None => "this is no JSON web token",
    }
}

/// What is wrong with a token, as far as whoever sent it may know.
fn reason(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::InvalidSignature => "the token's signature is not right".to_owned(),
        ErrorKind::InvalidAudience => format!("the token is for somebody else: aud is not {AUDIENCE}"),
        ErrorKind::InvalidIssuer => format!("the token is from somebody else: iss is not {ISSUER}"),
        ErrorKind::MissingRequiredClaim(name) => format!("the token has no {name}"),
        _ => "the token's claims cannot be read".to_owned(),
    }
}
