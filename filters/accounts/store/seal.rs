//! Columns that are encrypted at rest: a stolen copy of the store gives no TOTP secret and no
//! e-mail address away, and nobody who can write to it can move one user's to another.
//!
//! AES-256-GCM (NIST SP 800-38D) with random 96-bit nonces. The key is derived from the operator's
//! secret by HKDF-SHA256 (RFC 5869), and a short name of it stands in front of every sealed text, so
//! that a store can hold texts of two keys while one replaces the other.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::{Result, StoreError};
use crate::accounts::keys::{KeyError, check_strength};
use crate::clock::random;

/// The form of a sealed text: this, the name of the key, a dot, base64url of nonce and ciphertext.
const VERSION: &str = "v1.";
/// Separates these keys from others that are derived from the same secret.
const SALT: &[u8] = b"portcullis account store";
const KEY_ID_BYTES: usize = 6;
/// What all texts that were sealed with one key have in common, in characters: `v1.` and its name.
pub(super) const MARK_LEN: usize = VERSION.len() + KEY_ID_BYTES / 3 * 4;

/// Where a sealed text stands. It is opened nowhere else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Table and column, as in `users.email`.
    pub(super) column: &'static str,
    /// The primary key of its row.
    pub(super) row: &'a str,
}

impl Place<'_> {
    fn aad(self) -> Aad<Vec<u8>> {
        Aad::from([self.column.as_bytes(), b"\0", self.row.as_bytes()].concat())
    }
}

/// The key that seals, and the one that sealed before it.
#[derive(Debug, Default)]
pub struct Seals {
    current: Option<SealKey>,
    previous: Option<SealKey>,
}

impl Seals {
    /// Derives the keys. Without a current one nothing can be sealed.
    ///
    /// # Errors
    /// If a secret is weak, see [`check_strength`].
    pub fn new(
        current: Option<&SecretString>,
        previous: Option<&SecretString>,
    ) -> std::result::Result<Self, KeyError> {
        let derive = |secret: Option<&SecretString>| secret.map(SealKey::derive).transpose();
        Ok(Self { current: derive(current)?, previous: derive(previous)? })
    }

    /// Seals a text under the current key.
    pub(super) fn seal(&self, place: Place<'_>, text: &SecretString) -> Result<String> {
        self.current.as_ref().and_then(|key| key.seal(place, text)).ok_or(StoreError::Seal)
    }

    /// Opens a text under the key that it names.
    pub(super) fn open(&self, place: Place<'_>, sealed: &str) -> Result<SecretString> {
        let mut keys = self.current.iter().chain(&self.previous);
        keys.find_map(|key| key.open(place, sealed)).ok_or(StoreError::Seal)
    }

    /// What texts under the current key begin with.
    pub(super) fn current_mark(&self) -> Option<&str> {
        self.current.as_ref().map(|key| key.mark.as_str())
    }

    /// What texts under the previous key begin with.
    pub(super) fn previous_mark(&self) -> Option<&str> {
        self.previous.as_ref().map(|key| key.mark.as_str())
    }
}

struct SealKey {
    key: LessSafeKey,
    mark: String,
}

impl SealKey {
    fn derive(secret: &SecretString) -> std::result::Result<Self, KeyError> {
        let secret = secret.expose_secret().as_bytes();
        check_strength(secret)?;
        let prk = Salt::new(HKDF_SHA256, SALT).extract(secret);
        Self::from_prk(&prk).ok_or(KeyError::Weak("not a key for HKDF"))
    }

    fn from_prk(prk: &Prk) -> Option<Self> {
        let key = UnboundKey::from(prk.expand(&[b"seal"], &AES_256_GCM).ok()?);
        let mut id = [0; KEY_ID_BYTES];
        prk.expand(&[b"name of the seal"], KeyName).ok()?.fill(&mut id).ok()?;
        let mark = [VERSION, &URL_SAFE_NO_PAD.encode(id)].concat();
        Some(Self { key: LessSafeKey::new(key), mark })
    }

    fn seal(&self, place: Place<'_>, text: &SecretString) -> Option<String> {
        let nonce: [u8; NONCE_LEN] = random().ok()?;
        let mut bytes = text.expose_secret().as_bytes().to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(unique, place.aad(), &mut bytes).ok()?;
        let body = URL_SAFE_NO_PAD.encode([&nonce[..], &bytes].concat());
        Some(format!("{}.{body}", self.mark))
    }

    fn open(&self, place: Place<'_>, sealed: &str) -> Option<SecretString> {
        let body = sealed.strip_prefix(&self.mark)?.strip_prefix('.')?;
        let mut bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(body).ok()?);
        let (nonce, rest) = bytes.split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let text = self.key.open_in_place(nonce, place.aad(), rest).ok()?;
        str::from_utf8(text).ok().map(SecretString::from)
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({}, [REDACTED])", self.mark)
    }
}

/// HKDF gives as many bytes as the name has.
struct KeyName;

impl KeyType for KeyName {
    fn len(&self) -> usize {
        KEY_ID_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "kT9vPz3qLw8xYb2nRm5sHd7fJc4gAe1u";
    const NEW: &str = "9f86d081884c7d659a2feaa0c55ad015";
    const HERE: Place<'_> = Place { column: "users.email", row: "alice" };

    fn seals(current: Option<&str>, previous: Option<&str>) -> Seals {
        let secret = |text: Option<&str>| text.map(SecretString::from);
        Seals::new(secret(current).as_ref(), secret(previous).as_ref()).unwrap()
    }

    fn sealed(text: &str) -> String {
        seals(Some(OLD), None).seal(HERE, &text.into()).unwrap()
    }

    fn opened(seals: &Seals, place: Place<'_>, sealed: &str) -> Option<String> {
        seals.open(place, sealed).ok().map(|text| text.expose_secret().to_owned())
    }

    #[test]
    fn what_was_sealed_is_opened_with_the_key_that_it_names() {
        for text in ["", "alice@example.org", "JBSWY3DPEHPK3PXP", &"é".repeat(10_000)] {
            let sealed = sealed(text);
            let cases = [
                (seals(Some(OLD), None), true),
                (seals(Some(NEW), Some(OLD)), true),
                (seals(None, Some(OLD)), true),
                (seals(Some(NEW), None), false),
                (seals(None, None), false),
            ];
            for (seals, known) in cases {
                let expected = known.then(|| text.to_owned());
                assert_eq!(opened(&seals, HERE, &sealed), expected, "{seals:?}");
            }
        }
    }

    #[test]
    fn a_sealed_text_belongs_to_its_row_and_column() {
        let (seals, sealed) = (seals(Some(OLD), None), sealed("alice@example.org"));
        for (column, row) in [
            ("users.email", "bob"),
            ("second_factors.secret", "alice"),
            ("users.email", ""),
            ("users.email", "alice\0"),
        ] {
            assert_eq!(opened(&seals, Place { column, row }, &sealed), None, "{column} {row}");
        }
    }

    #[test]
    fn changed_texts_are_refused() {
        let (seals, sealed) = (seals(Some(OLD), None), sealed("alice@example.org"));
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(opened(&seals, HERE, &changed), None, "{changed}");
        }
        for other in [
            "",
            "v1.",
            "v1.AAAA",
            sealed.split_at(MARK_LEN + 1).0,
            sealed.split_at(30).0,
            "plain text",
        ] {
            assert_eq!(opened(&seals, HERE, other), None, "{other}");
        }
    }

    #[test]
    fn the_same_text_is_never_sealed_the_same() {
        assert_ne!(sealed("alice@example.org"), sealed("alice@example.org"));
    }

    #[test]
    fn a_sealed_text_begins_with_the_mark_of_its_key() {
        let seals = seals(Some(OLD), Some(NEW));
        let mark = seals.current_mark().unwrap();
        assert_eq!(mark.len(), MARK_LEN);
        assert!(sealed("x").starts_with(&format!("{mark}.")));
        assert_ne!(seals.current_mark(), seals.previous_mark());
    }

    #[test]
    fn weak_secrets_are_refused() {
        for secret in ["", "kT9vPz3qLw8xYb2nRm5sHd7fJc4gAe1", "changeme-changeme-changeme-changeme"]
        {
            assert!(Seals::new(Some(&secret.into()), None).is_err(), "{secret}");
            assert!(Seals::new(Some(&OLD.into()), Some(&secret.into())).is_err(), "{secret}");
        }
    }

    #[test]
    fn nothing_is_sealed_without_a_current_key() {
        let outcome = seals(None, Some(OLD)).seal(HERE, &"x".into());
        assert_eq!(outcome, Err(StoreError::Seal));
    }

    #[test]
    fn debug_shows_names_of_keys_only() {
        let shown = format!("{:?}", seals(Some(OLD), Some(NEW)));
        assert!(shown.contains("v1.") && shown.contains("[REDACTED]"), "{shown}");
        assert!(!shown.contains("kT9v") && !shown.contains("9f86"), "{shown}");
    }
}
