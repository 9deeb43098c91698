//! The keys that an issuer publishes (RFC 7517), each with exactly one algorithm.
//!
//! Keys that are not for the verification of signatures, or are of no allowed algorithm, or are
//! weak, are left out: issuers publish others beside those. A key without `alg` has the first
//! allowed algorithm of its type.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, crypto};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::issuer::IssuerAlgorithm;
use super::reading::Head;
use crate::accounts::claims::TokenError;

/// Most keys of one issuer that are looked at.
const MAX_KEYS: usize = 64;
/// RFC 7518 section 3.3 asks for 2048; more than 4096 costs more than it gives.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// The keys of an issuer that may verify its tokens.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads a JWK set. One without a usable key is a set, too: an issuer may withdraw all.
    pub(super) fn parse(json: &[u8], allowed: &[IssuerAlgorithm]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(json).ok()?;
        let jwks = set.keys.into_iter().take(MAX_KEYS);
        let read = jwks.filter_map(|jwk| serde_json::from_value::<Jwk>(jwk).ok());
        Some(Self(read.filter_map(|jwk| jwk.key(allowed)).collect()))
    }

    pub(super) fn has(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid == kid)
    }

    /// The key that the header names, if it has the algorithm that the header names.
    pub(super) fn find(&self, head: &Head) -> Result<&Key, TokenError> {
        let mut named = self.0.iter().filter(|key| key.kid == head.kid).peekable();
        named.peek().ok_or(TokenError::KeyId)?;
        named.find(|key| key.algorithm == head.algorithm).ok_or(TokenError::Algorithm)
    }
}

/// A public key of an issuer.
#[derive(Debug)]
pub(super) struct Key {
    kid: String,
    algorithm: IssuerAlgorithm,
    public: DecodingKey,
}

impl Key {
    /// Whether this is the base64url signature of the message.
    pub(super) fn verify(&self, message: &str, signature: &str) -> bool {
        let algorithm = self.algorithm.algorithm();
        crypto::verify(signature, message.as_bytes(), &self.public, algorithm).unwrap_or(false)
    }
}

/// A key as it is published.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// The private part: a key that shows it is everybody's.
    d: Option<IgnoredAny>,
}

impl Jwk {
    fn key(self, allowed: &[IssuerAlgorithm]) -> Option<Key> {
        let algorithm = self.algorithm(allowed)?;
        let public = match algorithm {
            IssuerAlgorithm::Rs256 | IssuerAlgorithm::Ps256 => self.rsa(),
            IssuerAlgorithm::Es256 => self.ecdsa(32),
            IssuerAlgorithm::Es384 => self.ecdsa(48),
            IssuerAlgorithm::EdDsa => self.ed25519(),
        }?;
        Some(Key { kid: self.kid, algorithm, public })
    }

    /// The one algorithm of this key (RFC 8725 section 3.1).
    fn algorithm(&self, allowed: &[IssuerAlgorithm]) -> Option<IssuerAlgorithm> {
        let signs = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let verifies = |ops: &Vec<String>| ops.iter().any(|op| op == "verify");
        let usable = signs && self.key_ops.as_ref().is_none_or(verifies) && self.d.is_none();
        let named = |algorithm: &IssuerAlgorithm| {
            allowed.contains(algorithm)
                && self.alg.as_ref().is_none_or(|alg| alg == algorithm.as_str())
        };
        usable.then(|| self.candidates().iter().copied().find(named))?
    }

    /// The algorithms of this type of key.
    fn candidates(&self) -> &'static [IssuerAlgorithm] {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", None) => &[IssuerAlgorithm::Rs256, IssuerAlgorithm::Ps256],
            ("EC", Some("P-256")) => &[IssuerAlgorithm::Es256],
            ("EC", Some("P-384")) => &[IssuerAlgorithm::Es384],
            ("OKP", Some("Ed25519")) => &[IssuerAlgorithm::EdDsa],
            _ => &[],
        }
    }

    /// An odd exponent from 3 on, and a modulus that is neither weak nor slow.
    fn rsa(&self) -> Option<DecodingKey> {
        let (n, e) = (bytes(self.n.as_ref())?, bytes(self.e.as_ref())?);
        let odd = e.last().is_some_and(|byte| byte % 2 == 1) && bits(&e) > 1;
        (odd && RSA_BITS.contains(&bits(&n))).then(|| DecodingKey::from_rsa_raw_components(&n, &e))
    }

    fn ecdsa(&self, coordinate_bytes: usize) -> Option<DecodingKey> {
        let (x, y) = (self.x.as_ref()?, self.y.as_ref()?);
        let whole = |part| bytes(Some(part)).is_some_and(|b| b.len() == coordinate_bytes);
        (whole(x) && whole(y)).then(|| DecodingKey::from_ec_components(x, y).ok())?
    }

    /// The length matters: the crate below reads the first 32 bytes of a longer key, and panics at
    /// a shorter one.
    fn ed25519(&self) -> Option<DecodingKey> {
        let x = bytes(self.x.as_ref())?;
        (x.len() == 32).then(|| DecodingKey::from_ed_der(&x))
    }
}

fn bytes(base64url: Option<&String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(base64url?).ok()
}

/// Bits of a big-endian number.
fn bits(number: &[u8]) -> usize {
    let mut rest = number.iter().skip_while(|byte| **byte == 0);
    let first = rest.next().map_or(0, |byte| 8 - byte.leading_zeros() as usize);
    first + 8 * rest.count()
}
