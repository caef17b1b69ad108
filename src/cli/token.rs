//! `rephase token`: tokens for development, as the identity service of the full stack signs them.

use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::SignedDuration;
use serde_json::{Value, json};
use sha2::Sha256;
use uuid::Uuid;

use super::common::read_bounded;
use super::failure::Failure;
use super::filter::duration_s;
use super::output::{Output, remark};
use crate::clock::Clock;

/// Whom a token is for, and who gives them out (contract, HTTP).
const AUDIENCE: &str = "huleedu-platform";
const ISSUER: &str = "huleedu-identity-service";

/// The largest secret, in bytes.
const MAX_SECRET_BYTES: u64 = 4 * 1_024;

/// From how many bytes on a secret is as good as its signatures (RFC 7518, section 3.2).
const GOOD_SECRET_BYTES: usize = 32;

/// The longest that a token is good for, in seconds: a year.
const MAX_EXPIRES_IN_S: i64 = 365 * 86_400;

/// Arguments of `token`.
#[derive(Debug, Args)]
pub struct TokenArguments {
    /// Whose token it is: its sub.
    #[arg(value_name = "USER", value_parser = user)]
    user: String,
    /// File with the secret, as for `serve --jwt-secret-file`. A secret is never an argument: others could read it in
    /// the process list.
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
    /// The organisation: its `org_id`.
    #[arg(long, value_name = "ORG", value_parser = user)]
    org: Option<String>,
    /// How long it is good for, as 45s, 30m, 12h or 7d; at most a year.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = expires_in)]
    expires_in: i64,
    /// JSON for machines: an object with the token and when it expires.
    #[arg(long)]
    pub(super) json: bool,
}

fn user(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_fit = (1..=255).contains(&text.chars().count());
    if is_fit { Ok(text.to_owned()) } else { Err("give 1 to 255 characters".to_owned()) }
}

fn expires_in(text: &str) -> Result<i64, String> {
    let seconds = duration_s(text)?;
    if seconds <= MAX_EXPIRES_IN_S { Ok(seconds) } else { Err("a token is good for a year at the most".to_owned()) }
}

pub(super) fn run(arguments: &TokenArguments) -> Result<(), Failure> {
    let path = &arguments.secret_file;
    let bytes = read_bounded(path, MAX_SECRET_BYTES)?;
    let secret = bytes.trim_ascii();
    if secret.is_empty() {
        return Err(Failure::usage(format!("{} is empty, and anybody could sign with that", path.display())));
    }
    if secret.len() < GOOD_SECRET_BYTES {
        let size = secret.len();
        remark(
            arguments.json,
            &format!("warning: the secret has {size} bytes, and one of less than {GOOD_SECRET_BYTES}"),
        );
        remark(arguments.json, "         can be found from a single token by trying: whoever has it is every user.");
        remark(arguments.json, "         A good one: head -c 32 /dev/urandom | base64 > FILE");
    }
    let now = Clock::system().now().to_timestamp();
    let expires = now.checked_add(SignedDuration::from_secs(arguments.expires_in));
    let expires = expires.map_err(|_| Failure::usage("--expires-in is later than time goes"))?;
    let mut claims = json!({
        "sub": arguments.user, "aud": AUDIENCE, "iss": ISSUER, "jti": Uuid::new_v4(),
        "iat": now.as_second(), "exp": expires.as_second(),
    });
    if let Some(org) = &arguments.org {
        claims["org_id"] = org.as_str().into();
    }
    let token = sign(secret, &claims)?;
    let output = Output::new(arguments.json);
    if output.is_json {
        output.json(&json!({ "token": token, "expires_at": expires.to_string() }));
    } else {
        output.line(&token);
    }
    output.finish()
}

/// A JSON web token (RFC 7519) with these claims, signed with HMAC-SHA-256.
fn sign(secret: &[u8], claims: &Value) -> Result<String, Failure> {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(claims));
    let mac = Hmac::<Sha256>::new_from_slice(secret).map_err(|_| Failure::failed("the secret cannot be used"))?;
    let signature = mac.chain_update(&signed).finalize().into_bytes();
    Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
}
