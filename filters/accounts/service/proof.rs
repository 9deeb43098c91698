//! What a service signs, the signing, and the reading of the four headers of a signature.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;

use super::{AssertionError, CONTENT_SHA256, NONCE, SIGNATURE, TIMESTAMP};
use crate::accounts::keys::KeyError;

const VERSION: &str = "portcullis-v1";

/// What a service signs.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "services make them whole")]
pub struct Signed<'a> {
    /// As in the request line, such as `POST`.
    pub method: &'a str,
    /// Path and query as in the request line.
    pub target: &'a str,
    /// Name of the service.
    pub service: &'a str,
    /// Id of its user.
    pub user: &'a str,
    /// Unix seconds.
    pub timestamp: &'a str,
    /// 16 to 64 characters of base64url.
    pub nonce: &'a str,
    /// SHA-256 of the body in hex or base64url, as it stands in the header.
    pub body_digest: &'a str,
}

impl Signed<'_> {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { method, target, service, user, timestamp, nonce, body_digest } = *self;
        [VERSION, method, target, service, user, timestamp, nonce, body_digest].join("\n")
    }
}

/// Signs as a service does: the value of `X-Portcullis-Signature`.
///
/// # Errors
/// [`KeyError::Weak`] if the secret is not one for HMAC.
pub fn sign(secret: &SecretSlice<u8>, signed: &Signed<'_>) -> Result<String, KeyError> {
    let mac = mac(secret.expose_secret())?.chain_update(signed.text());
    Ok(URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// The signature and what it is made over besides the names, as they were sent.
#[derive(Debug)]
pub(super) struct Proof {
    timestamp: String,
    digest: String,
    /// The timestamp, read.
    pub(super) time: u64,
    pub(super) nonce: String,
    /// The digest, read.
    pub(super) body: [u8; 32],
    pub(super) signature: [u8; 32],
}

impl Proof {
    /// Reads the four headers, or nothing if there are none.
    pub(super) fn read(headers: &HeaderMap) -> Result<Option<Self>, AssertionError> {
        let (timestamp, nonce) = (one(headers, TIMESTAMP)?, one(headers, NONCE)?);
        let (digest, signature) = (one(headers, CONTENT_SHA256)?, one(headers, SIGNATURE)?);
        match (timestamp, nonce, digest, signature) {
            (None, None, None, None) => Ok(None),
            (Some(timestamp), Some(nonce), Some(digest), Some(signature)) => {
                Self::parse(timestamp, nonce, digest, signature).map(Some)
            }
            _ => Err(AssertionError::Malformed("a signature comes with all that it signs")),
        }
    }

    fn parse(
        timestamp: &str,
        nonce: &str,
        digest: &str,
        signature: &str,
    ) -> Result<Self, AssertionError> {
        let malformed = AssertionError::Malformed;
        let time = seconds(timestamp).ok_or(malformed("the timestamp is not in Unix seconds"))?;
        if !(16..=64).contains(&nonce.len()) || !nonce.bytes().all(is_base64url) {
            return Err(malformed("the nonce is not 16 to 64 characters of base64url"));
        }
        let body = hex(digest).or_else(|| base64url(digest));
        Ok(Self {
            time,
            body: body.ok_or(malformed("the body digest is not a SHA-256"))?,
            signature: base64url(signature)
                .ok_or(malformed("the signature is not 32 bytes in base64url"))?,
            timestamp: timestamp.to_owned(),
            nonce: nonce.to_owned(),
            digest: digest.to_owned(),
        })
    }

    /// What must have been signed, if this signature is to be right for such a request.
    pub(super) fn over<'a>(
        &'a self,
        (service, user): (&'a str, &'a str),
        (method, target): (&'a str, &'a str),
    ) -> Result<Signed<'a>, AssertionError> {
        if !is_visible(method) || !is_visible(target) {
            return Err(AssertionError::Malformed("the method or the target cannot be signed"));
        }
        let (timestamp, nonce, body_digest) = (&self.timestamp, &self.nonce, &self.digest);
        Ok(Signed { method, target, service, user, timestamp, nonce, body_digest })
    }
}

/// HMAC-SHA256 with this key.
pub(super) fn mac(key: &[u8]) -> Result<Hmac<Sha256>, KeyError> {
    Hmac::new_from_slice(key).map_err(|_| KeyError::Weak("not a key for HMAC"))
}

/// The value of a header that is there at most once.
pub(super) fn one<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> Result<Option<&'a str>, AssertionError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value
            .to_str()
            .map(Some)
            .map_err(|_| AssertionError::Malformed("a header of the service is not ASCII")),
        (Some(_), Some(_)) => {
            Err(AssertionError::Malformed("a header of the service is there twice"))
        }
    }
}

/// Whether this is visible ASCII without spaces.
pub(super) fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Digits only: the standard parser takes a sign, too.
fn seconds(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn base64url(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = text.chars().map(hex_digit).collect();
    let bytes: Vec<u8> =
        digits?.chunks_exact(2).map(|pair| pair.iter().fold(0, |n, d| n << 4 | d)).collect();
    (text.len() == 64).then(|| bytes.try_into().ok())?
}

fn hex_digit(digit: char) -> Option<u8> {
    digit.to_digit(16).and_then(|digit| digit.try_into().ok())
}
