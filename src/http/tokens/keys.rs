//! Keys that tokens are signed with. Each is for one algorithm, whatever a token says of itself: a public key is never
//! taken for a secret.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use tokio_rustls::rustls::pki_types::SubjectPublicKeyInfoDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

/// A key, and the one algorithm that it is for.
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) value: DecodingKey,
}

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No PEM with a public key in it.
    #[error("there is no PUBLIC KEY in PEM in it")]
    NoPublicKey,
    /// A public key, of a kind that is not used here.
    #[error("the key is neither an RSA key of 2,048 to 8,192 bits nor one of the curve P-256")]
    OtherKind,
    /// No JSON web key set.
    #[error("it is no JSON web key set: {0}")]
    NoSet(String),
    /// A set, and nothing in it that can be used.
    #[error("no key in the set is one for RS256 or ES256")]
    NothingOfUse,
}

impl Key {
    pub(super) fn secret(secret: &[u8]) -> Self {
        Self { id: None, algorithm: Algorithm::HS256, value: DecodingKey::from_secret(secret) }
    }
}

/// How many bytes the modulus of an RSA key has.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;

/// What is before the point in a public key of the curve P-256 (RFC 5480), and how long the point is (uncompressed).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P256_POINT_BYTES: usize = 65;

/// The algorithm of an RSA key (RFC 3279, section 2.3.1).
const RSA: [u8; 15] = [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// A public key in PEM.
pub(super) fn from_pem(pem: &[u8]) -> Result<Key, KeyError> {
    let info = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| KeyError::NoPublicKey)?;
    let der = info.as_ref();
    if let Some(point) = der.strip_prefix(&P256).filter(|point| point.len() == P256_POINT_BYTES) {
        return Ok(Key { id: None, algorithm: Algorithm::ES256, value: DecodingKey::from_ec_der(point) });
    }
    let (modulus, exponent) = rsa_parts(der).ok_or(KeyError::OtherKind)?;
    rsa(None, DecodingKey::from_rsa_raw_components(modulus, exponent)).ok_or(KeyError::OtherKind)
}

/// Modulus and exponent out of a public key's information (RFC 5280, section 4.1; RFC 8017, appendix A.1.1).
fn rsa_parts(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let info = whole(der, 0x30)?;
    let bits = whole(info.strip_prefix(&RSA)?, 0x03)?;
    let key = whole(bits.strip_prefix(&[0])?, 0x30)?;
    let (modulus, rest) = element(key, 0x02)?;
    let exponent = whole(rest, 0x02)?;
    // A number whose first bit is set has a zero before it.
    Some((modulus.strip_prefix(&[0]).unwrap_or(modulus), exponent))
}

/// What is in the one element of this kind that `der` is.
fn whole(der: &[u8], tag: u8) -> Option<&[u8]> {
    element(der, tag).filter(|(_, rest)| rest.is_empty()).map(|(content, _)| content)
}

/// What is in the first element of `der`, of this kind, and what comes after it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&size, rest) = der.strip_prefix(&[tag])?.split_first()?;
    let (size, rest) = match size {
        0..=0x7f => (usize::from(size), rest),
        0x81 => rest.split_first().map(|(size, rest)| (usize::from(*size), rest))?,
        0x82 => rest.split_first_chunk().map(|(size, rest)| (usize::from(u16::from_be_bytes(*size)), rest))?,
        _ => return None,
    };
    rest.split_at_checked(size)
}

/// An RSA key, where it is of a size that can be used.
fn rsa(id: Option<String>, value: DecodingKey) -> Option<Key> {
    let is_fit = match value.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => MODULUS_BYTES.contains(&n.len()) && !e.is_empty(),
        DecodingKeyKind::SecretOrDer(_) => false,
    };
    is_fit.then_some(Key { id, algorithm: Algorithm::RS256, value })
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// The keys of a set that can be used. Others are left out, as the standard wants it (RFC 7517, section 5); so is a
/// secret, which has no business among public keys.
pub(super) fn from_set(json: &[u8]) -> Result<Vec<Key>, KeyError> {
    let set: Set = serde_json::from_slice(json).map_err(|error| KeyError::NoSet(error.to_string()))?;
    let keys: Vec<_> = set.keys.into_iter().filter_map(|key| of_set(serde_json::from_value(key).ok()?)).collect();
    if keys.is_empty() { Err(KeyError::NothingOfUse) } else { Ok(keys) }
}

fn of_set(jwk: Jwk) -> Option<Key> {
    if jwk.common.public_key_use.as_ref().is_some_and(|used| *used != PublicKeyUse::Signature) {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let (id, algorithm) = (jwk.common.key_id, jwk.common.key_algorithm);
    match &jwk.algorithm {
        AlgorithmParameters::RSA(_) if matches!(algorithm, None | Some(KeyAlgorithm::RS256)) => rsa(id, key),
        AlgorithmParameters::EllipticCurve(parameters)
            if parameters.curve == EllipticCurve::P256 && matches!(algorithm, None | Some(KeyAlgorithm::ES256)) =>
        {
            let is_point = key.try_get_as_bytes().is_ok_and(|point| point.len() == P256_POINT_BYTES);
            is_point.then_some(Key { id, algorithm: Algorithm::ES256, value: key })
        }
        _ => None,
    }
}
