//! The keys that sign tokens: generated, judged and named.
//!
//! User tokens are signed with Ed25519 (RFC 8037), so that others can check them with the published
//! public key; scoped tokens with HMAC-SHA256, which is ten times faster and needs no publication,
//! or with Ed25519 where the configuration says so. A key has one algorithm for all its life.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::clock::random;

/// Fewest bytes of a symmetric key (RFC 8725 section 3.5: as many as the hash has).
pub const MIN_KEY_BYTES: usize = 32;

/// A random key of 32 bytes and more has far more different bytes, even written in hex.
const MIN_DISTINCT_BYTES: usize = 8;
/// A `kid` has this many bytes of its hash: enough to tell keys apart.
const KID_BYTES: usize = 12;
/// The DER before the 32 bytes of an Ed25519 private key (RFC 8410 section 7).
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// Words of keys that were copied from documentation, in lower case.
const SAMPLE_WORDS: [&[u8]; 12] = [
    b"secret",
    b"changeme",
    b"change-me",
    b"change_me",
    b"password",
    b"example",
    b"sample",
    b"default",
    b"insecure",
    b"qwerty",
    b"12345678",
    b"portcullis",
];

/// Why a key is not accepted. Never contains any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Too short, a sample, or not random; the text says which.
    Weak(&'static str),
    /// Not an Ed25519 private key in PKCS#8 PEM.
    SigningKey,
    /// The lifetime of tokens is zero or longer than allowed; the text says which.
    Ttl(&'static str),
    /// The keys do not fit together; the text says why.
    Ring(&'static str),
    /// The operating system has no randomness to give.
    Random,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weak(why) => write!(f, "weak key: {why}"),
            Self::SigningKey => f.write_str("not an Ed25519 private key in PKCS#8 PEM"),
            Self::Ttl(why) | Self::Ring(why) => f.write_str(why),
            Self::Random => f.write_str("the operating system has no randomness to give"),
        }
    }
}

impl std::error::Error for KeyError {}

/// Draws an Ed25519 private key, as PKCS#8 PEM.
///
/// # Errors
/// If the operating system has no randomness to give.
pub fn generate_signing_key_pem() -> Result<SecretString, getrandom::Error> {
    Ok(pem(&Zeroizing::new(random()?)))
}

/// Draws a secret of `N` random bytes, written as base64url: the text itself is the key.
///
/// # Errors
/// If the operating system has no randomness to give.
pub fn generate_secret<const N: usize>() -> Result<SecretString, getrandom::Error> {
    let bytes = Zeroizing::new(random::<N>()?);
    Ok(URL_SAFE_NO_PAD.encode(*bytes).into())
}

/// Judges a symmetric key: at least 32 bytes (RFC 8725 section 3.5), and nothing that people type.
///
/// # Errors
/// [`KeyError::Weak`] says what is wrong with it.
pub fn check_strength(key: &[u8]) -> Result<(), KeyError> {
    if key.len() < MIN_KEY_BYTES {
        return Err(KeyError::Weak("shorter than 32 bytes"));
    }
    if has_sample_word(key) {
        return Err(KeyError::Weak("contains a word from sample keys"));
    }
    if distinct_bytes(key) < MIN_DISTINCT_BYTES || is_sequence(key) || is_repetition(key) {
        return Err(KeyError::Weak("not random"));
    }
    Ok(())
}

/// A key that signs and verifies with one algorithm, and has a name that does not give it away.
pub(super) struct TokenKey {
    algorithm: Algorithm,
    encoding: EncodingKey,
    decoding: DecodingKey,
    kid: String,
    /// The Ed25519 public key as it stands in a JWK; empty for HMAC.
    public: String,
}

impl TokenKey {
    /// Reads an Ed25519 key; its `kid` is the start of its thumbprint (RFC 7638, RFC 8037).
    pub(super) fn ed25519(pem: &SecretString) -> Result<Self, KeyError> {
        let encoding = EncodingKey::from_ed_pem(pem.expose_secret().as_bytes())
            .map_err(|_| KeyError::SigningKey)?;
        let public = public_key(&encoding).ok_or(KeyError::SigningKey)?;
        let decoding =
            DecodingKey::from_ed_components(&public).map_err(|_| KeyError::SigningKey)?;
        let kid = shortened(&thumbprint(&public));
        Ok(Self { algorithm: Algorithm::EdDSA, encoding, decoding, kid, public })
    }

    /// Takes an HMAC key that is not weak.
    pub(super) fn hmac(key: &SecretSlice<u8>) -> Result<Self, KeyError> {
        check_strength(key.expose_secret())?;
        Self::symmetric(key.expose_secret()).ok_or(KeyError::Weak("not a key for HMAC"))
    }

    /// An HMAC key whose strength was judged; its `kid` is the start of a hash under the key.
    pub(super) fn symmetric(key: &[u8]) -> Option<Self> {
        Some(Self {
            algorithm: Algorithm::HS256,
            encoding: EncodingKey::from_secret(key),
            decoding: DecodingKey::from_secret(key),
            kid: hmac_kid(key)?,
            public: String::new(),
        })
    }

    /// The name of the algorithm in a header (RFC 7518 section 3.1, RFC 8037 section 3.1).
    pub(super) const fn alg(&self) -> &'static str {
        if matches!(self.algorithm, Algorithm::EdDSA) { "EdDSA" } else { "HS256" }
    }

    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    /// The base64url signature of a message.
    pub(super) fn sign(&self, message: &str) -> Option<String> {
        crypto::sign(message.as_bytes(), &self.encoding, self.algorithm).ok()
    }

    /// Whether this is the base64url signature of the message, in constant time for HMAC.
    pub(super) fn verify(&self, message: &str, signature: &str) -> bool {
        crypto::verify(signature, message.as_bytes(), &self.decoding, self.algorithm)
            .unwrap_or(false)
    }

    /// The public key (RFC 8037 section 2); nothing for HMAC.
    pub(super) fn jwk(&self) -> Option<Value> {
        (!self.public.is_empty()).then(|| {
            json!({
                "kty": "OKP", "crv": "Ed25519", "x": self.public,
                "kid": self.kid, "use": "sig", "alg": self.alg(),
            })
        })
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({}, kid={}, [REDACTED])", self.alg(), self.kid)
    }
}

fn pem(seed: &[u8; 32]) -> SecretString {
    let mut der = Zeroizing::new([0; 48]);
    let bytes = PKCS8_ED25519.iter().chain(seed);
    der.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
    let text = Zeroizing::new(STANDARD.encode(*der));
    ["-----BEGIN PRIVATE KEY-----\n", text.as_str(), "\n-----END PRIVATE KEY-----\n"]
        .concat()
        .into()
}

fn public_key(key: &EncodingKey) -> Option<String> {
    let jwk = Jwk::from_encoding_key(key, Algorithm::EdDSA).ok()?;
    let AlgorithmParameters::OctetKeyPair(pair) = jwk.algorithm else { return None };
    Some(pair.x)
}

/// RFC 7638 section 3: the hash of the required members in lexical order.
fn thumbprint(public: &str) -> [u8; 32] {
    Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{public}"}}"#)).into()
}

/// HMAC is one-way, and no token has this message: it contains no dot.
fn hmac_kid(key: &[u8]) -> Option<String> {
    let mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    Some(shortened(&mac.chain_update(b"portcullis key id").finalize().into_bytes().into()))
}

fn shortened(hash: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(hash.first_chunk::<KID_BYTES>().map_or(&[][..], |start| start))
}

fn has_sample_word(key: &[u8]) -> bool {
    let lower = Zeroizing::new(key.to_ascii_lowercase());
    SAMPLE_WORDS.iter().any(|word| lower.windows(word.len()).any(|part| part == *word))
}

fn distinct_bytes(key: &[u8]) -> usize {
    let mut sorted = Zeroizing::new(key.to_vec());
    sorted.sort_unstable();
    sorted.chunk_by(|a, b| a == b).count()
}

/// Whether every byte differs from the one before by the same amount, as in 0, 1, 2, …
fn is_sequence(key: &[u8]) -> bool {
    let mut steps = key.iter().zip(key.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a));
    steps.next().is_none_or(|first| steps.all(|step| step == first))
}

/// Whether the key is a shorter text, written twice or more.
fn is_repetition(key: &[u8]) -> bool {
    (1..=key.len() / 2).any(|period| key.iter().zip(key.iter().skip(period)).all(|(a, b)| a == b))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    // RFC 8037 appendix A.1, in the PKCS#8 form of RFC 8410.
    const RFC8037_SEED: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";

    fn rfc8037() -> TokenKey {
        let seed = URL_SAFE_NO_PAD.decode(RFC8037_SEED).unwrap();
        TokenKey::ed25519(&pem(&seed.try_into().unwrap())).unwrap()
    }

    fn strength(key: &[u8]) -> Result<(), &'static str> {
        check_strength(key).map_err(|error| match error {
            KeyError::Weak(why) => why,
            KeyError::SigningKey | KeyError::Ttl(_) | KeyError::Ring(_) | KeyError::Random => {
                panic!("{error}")
            }
        })
    }

    #[test]
    fn rfc_8037_a2_public_key_and_a3_thumbprint() {
        let key = rfc8037();
        assert_eq!(key.public, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(
            URL_SAFE_NO_PAD.encode(thumbprint(&key.public)),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
        assert_eq!(key.kid(), "kPrK_qmxVWaYVA9w");
    }

    #[test]
    fn rfc_8037_a4_signature() {
        let message = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let key = rfc8037();
        assert_eq!(key.sign(message).as_deref(), Some(signature));
        assert!(key.verify(message, signature));
        assert!(!key.verify(&message.replace("RX", "SX"), signature));
    }

    #[test]
    fn rfc_8410_10_3_private_key() {
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        let key = TokenKey::ed25519(&pem.into()).unwrap();
        assert_eq!(key.public, "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE");
    }

    #[test]
    fn rfc_7515_a1_hs256_signature() {
        let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let key = TokenKey::hmac(&URL_SAFE_NO_PAD.decode(secret).unwrap().into()).unwrap();
        let message = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        assert_eq!(
            key.sign(message).as_deref(),
            Some("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
        );
    }

    #[test]
    fn generated_keys_are_accepted_and_differ() {
        let mut seen = HashSet::new();
        for _ in 0..20 {
            let signing = TokenKey::ed25519(&generate_signing_key_pem().unwrap()).unwrap();
            let secret = generate_secret::<32>().unwrap();
            let bytes = secret.expose_secret().as_bytes().to_vec();
            assert_eq!(bytes.len(), 43);
            let token = TokenKey::hmac(&bytes.into()).unwrap();
            assert!(seen.insert(signing.kid) && seen.insert(token.kid));
        }
    }

    #[test]
    fn other_signing_keys_are_refused() {
        let good = generate_signing_key_pem().unwrap();
        let good = good.expose_secret();
        let cases = [
            String::new(),
            "hunter2".into(),
            good.replace("PRIVATE", "PUBLIC"),
            good.replace("PRIVATE KEY", "RSA PRIVATE KEY"),
            good.replace("MC4C", "MC4D"),
            good.chars().take(60).collect(),
            // RFC 8410 section 10.1: a public key
            "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n".into(),
        ];
        for pem in cases {
            assert_eq!(
                TokenKey::ed25519(&pem.clone().into()).unwrap_err(),
                KeyError::SigningKey,
                "{pem}"
            );
        }
    }

    #[test]
    fn rfc_8725_3_5_weak_keys_are_refused() {
        let (short, word, pattern) = (
            Err("shorter than 32 bytes"),
            Err("contains a word from sample keys"),
            Err("not random"),
        );
        let counting: Vec<u8> = (100..164).collect();
        let falling: Vec<u8> = (0..40).rev().map(|n| n * 3).collect();
        let cases: [(&[u8], Result<(), &str>); 19] = [
            (b"", short),
            (b"secret", short),
            (b"kT9vPz3qLw8xYb2nRm5sHd7fJc4gAe1", short),
            (b"kT9vPz3qLw8xYb2nRm5sHd7fJc4gAe1u", Ok(())),
            (b"your-256-bit-secret-your-256-bit-secret", word),
            (b"a-string-secret-at-least-256-bits-long", word),
            (b"CHANGEME-kT9vPz3qLw8xYb2nRm5sHd7f", word),
            (b"change-me-change-me-change-me-change-me", word),
            (b"xxPassWordxx-kT9vPz3qLw8xYb2nRm5sHd", word),
            (b"this is an example of a 32 byte key!", word),
            (b"12345678901234567890123456789012", word),
            (&[0; 32], pattern),
            (&[0xff; 64], pattern),
            (b"abababababababababababababababababab", pattern),
            (b"abcdefabcdefaabbccddeeffabcdefabcdef", pattern),
            (b"kT9vPz3qLw8xYb2nkT9vPz3qLw8xYb2n", pattern),
            (&counting, pattern),
            (&falling, pattern),
            (b"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", Ok(())),
        ];
        for (key, expected) in cases {
            assert_eq!(strength(key), expected, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn a_kid_does_not_contain_the_key() {
        let secret = b"kT9vPz3qLw8xYb2nRm5sHd7fJc4gAe1u";
        let key = TokenKey::hmac(&secret.to_vec().into()).unwrap();
        assert_eq!(key.kid().len(), 16);
        assert_ne!(key.kid(), URL_SAFE_NO_PAD.encode(&secret[..KID_BYTES]));
        assert_ne!(key.kid(), shortened(&Sha256::digest(secret).into()));
        assert_eq!(key.jwk(), None);
    }

    #[test]
    fn debug_shows_the_kid_and_nothing_else() {
        let secret = "kT9vPz3qLw8xYb2nRm5sHd7fJc4gAe1u";
        let key = TokenKey::hmac(&secret.as_bytes().to_vec().into()).unwrap();
        assert_eq!(format!("{key:?}"), format!("TokenKey(HS256, kid={}, [REDACTED])", key.kid()));
        assert_eq!(format!("{:?}", rfc8037()), "TokenKey(EdDSA, kid=kPrK_qmxVWaYVA9w, [REDACTED])");
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (error, expected) in [
            (KeyError::Weak("too short"), "weak key: too short"),
            (KeyError::SigningKey, "not an Ed25519 private key in PKCS#8 PEM"),
            (KeyError::Ttl("zero"), "zero"),
            (KeyError::Ring("two of one name"), "two of one name"),
            (KeyError::Random, "the operating system has no randomness to give"),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }
}
