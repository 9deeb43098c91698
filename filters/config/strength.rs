//! What a secret must look like before it is used: well formed, and not to be guessed.
//!
//! No message holds a secret or a part of one.

use crate::accounts::PasswordHash;
use crate::accounts::keys::check_strength;

use super::store::{FORMS, StorePlace};

/// What is wrong with a secret, and how to mend it.
pub(super) type Flaw = (String, String);

pub(super) fn flaw(wrong: impl Into<String>, help: impl Into<String>) -> Flaw {
    (wrong.into(), help.into())
}

/// How to mend a weak key.
pub(super) const MAKE_KEY: &str =
    "make a good one: openssl rand -base64 48 > FILE && chmod 600 FILE";

/// How to mend a signing key.
const MAKE_SIGNING_KEY: &str = "make a good one: \
     openssl genpkey -algorithm ed25519 -out signing.pem && chmod 600 signing.pem";

/// Refuses keys that can be guessed (RFC 8725 section 3.5).
pub(super) fn symmetric_key(value: &str) -> Result<(), Flaw> {
    check_strength(value.as_bytes()).map_err(|error| flaw(format!("is a {error}"), MAKE_KEY))
}

/// The base64 of the DER between version and key, the same in PKCS#8 version 1 and 2
/// (RFC 8410 section 7, RFC 5958): it names Ed25519.
const ED25519_DER: &str = "BQYDK2VwBCIEI";

/// Tells an Ed25519 private key in PKCS#8 PEM from other files; it is decoded where it is used.
pub(super) fn signing_key(value: &str) -> Result<(), Flaw> {
    let pem = value.starts_with("-----BEGIN PRIVATE KEY-----")
        && value.trim_end().ends_with("-----END PRIVATE KEY-----");
    if pem && value.contains(ED25519_DER) {
        return Ok(());
    }
    Err(flaw("is not an Ed25519 private key in PKCS#8 PEM", MAKE_SIGNING_KEY))
}

/// Accepts what can stand in an `Authorization` header.
pub(super) fn header_value(value: &str) -> Result<(), Flaw> {
    if value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(flaw("holds more than one word", "put the key alone into it, without `Bearer`"))
}

/// A password of a server that is not ours to judge.
#[expect(clippy::unnecessary_wraps, reason = "a check like the others")]
pub(super) const fn anything(_: &str) -> Result<(), Flaw> {
    Ok(())
}

/// Accepts what a store can be opened with.
pub(super) fn store_url(value: &str) -> Result<(), Flaw> {
    StorePlace::parse(value).map(drop).map_err(|wrong| flaw(format!("is refused: {wrong}"), FORMS))
}

/// Accepts what a login can be checked against.
pub(super) fn password_hash(value: &str) -> Result<(), Flaw> {
    let help = "make one: portcullis user hash; in a shell or a compose file quote its `$`";
    let refused = |error| flaw(format!("is refused: {error}"), help);
    PasswordHash::parse(value).map(drop).map_err(refused)
}
