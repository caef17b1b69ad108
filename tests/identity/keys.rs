//! Keys, and tokens that are signed with them, made here with nothing of the program.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

/// An RSA key of nobody, for tests alone; and its public half.
const RSA: &[u8] = include_bytes!("../fixtures/keys/rsa.pk8");
pub const RSA_PUBLIC: &str = include_str!("../fixtures/keys/rsa.pub.pem");

fn part(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Header and claims, with what `sign` makes of them.
fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", part(header.to_string()), part(claims.to_string()));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", part(signature))
}

pub fn rs256(header: &Value, claims: &Value) -> String {
    let key = RsaKeyPair::from_pkcs8(RSA).expect("a key");
    token(header, claims, |message| {
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).expect("signed");
        signature
    })
}

pub fn hs256(secret: &[u8], header: &Value, claims: &Value) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    token(header, claims, |message| ring::hmac::sign(&key, message).as_ref().to_vec())
}

/// Parts of the public RSA key, as a key set has them.
pub fn rsa_jwk(id: &str) -> Value {
    let key = RsaKeyPair::from_pkcs8(RSA).expect("a key");
    let parts: PublicKeyComponents<Vec<u8>> = key.public().into();
    json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": id, "n": part(parts.n), "e": part(parts.e) })
}

/// A key of the curve P-256.
pub struct Ec(KeyPair);

impl Ec {
    pub fn new() -> Self {
        Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key"))
    }

    pub fn public_pem(&self) -> String {
        self.0.public_key_pem()
    }

    pub fn jwk(&self, id: &str) -> Value {
        let (x, y) = self.0.der_bytes()[1..].split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": part(x), "y": part(y) })
    }

    pub fn es256(&self, header: &Value, claims: &Value) -> String {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.0.serialize_der(), &random);
        let key = key.expect("a key");
        token(header, claims, |message| key.sign(&random, message).expect("signed").as_ref().to_vec())
    }
}

/// A token without a signature.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    token(header, claims, |_| Vec::new())
}
