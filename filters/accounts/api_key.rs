//! API keys: `sk_<12 base62: public id>_<32 base62: secret><6 base62: checksum>`.
//!
//! The id names the key in configuration and audit records; the secret has 190 bits; the CRC-32
//! checksum over everything before it lets typing errors, truncated keys and made-up ones be
//! refused without a look-up. Stored is only the HMAC-SHA256 of the whole key under a pepper: with
//! 190 random bits a slow hash would add nothing but load.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::fmt;
use std::str::{FromStr, from_utf8};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::keys::{KeyError, check_strength};
use crate::clock::random;

/// What every key starts with.
pub const PREFIX: &str = "sk_";

const PREFIX_LEN: usize = PREFIX.len();
const ID_LEN: usize = 12;
const SEPARATOR_AT: usize = PREFIX_LEN + ID_LEN;
const SECRET_LEN: usize = 32;
const CHECKSUM_LEN: usize = 6;
/// Everything that the checksum covers: `sk_`, the id, `_`, the secret.
const BODY_LEN: usize = SEPARATOR_AT + 1 + SECRET_LEN;
const KEY_LEN: usize = BODY_LEN + CHECKSUM_LEN;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Why an API key is not accepted. Never contains any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKeyError {
    /// Not in the form of a key, or the checksum is wrong.
    Malformed,
    /// In the form of a key, but no key has this id.
    Unknown,
    /// A key has this id, but not this secret.
    Mismatch,
}

impl fmt::Display for ApiKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed API key",
            Self::Unknown => "unknown API key id",
            Self::Mismatch => "wrong secret for this API key id",
        })
    }
}

impl std::error::Error for ApiKeyError {}

/// A whole API key, wiped from memory when it is dropped.
#[derive(Clone)]
pub struct ApiKey(Zeroizing<[u8; KEY_LEN]>);

impl ApiKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let (id, secret) = (draw::<ID_LEN>()?, draw::<SECRET_LEN>()?);
        let body = PREFIX.bytes().chain(*id).chain(*b"_").chain(*secret);
        let mut key = Self(Zeroizing::new([0; KEY_LEN]));
        key.0.iter_mut().zip(body).for_each(|(place, byte)| *place = byte);
        key.seal();
        Ok(key)
    }

    /// Reads a key that a caller presents. Cheap, and independent of the keys that exist.
    ///
    /// # Errors
    /// [`ApiKeyError::Malformed`] unless length, alphabet, shape and checksum are right.
    pub fn parse(text: &str) -> Result<Self, ApiKeyError> {
        let key = text.as_bytes().try_into().map(|text| Self(Zeroizing::new(text)));
        key.ok().filter(Self::is_well_formed).ok_or(ApiKeyError::Malformed)
    }

    /// The public part, which may be logged.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let mut id = [0; ID_LEN];
        let bytes = self.0.iter().skip(PREFIX_LEN);
        id.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        KeyId(id)
    }

    /// The whole key, to be shown once to its owner.
    #[must_use]
    pub fn reveal(&self) -> SecretString {
        SecretString::from(from_utf8(self.0.as_slice()).unwrap_or_default())
    }

    fn body(&self) -> &[u8] {
        self.0.first_chunk::<BODY_LEN>().map_or(&[], |body| body)
    }

    /// Writes the checksum behind the body.
    fn seal(&mut self) {
        let checksum = checksum(self.body());
        let places = self.0.iter_mut().skip(BODY_LEN);
        places.zip(checksum).for_each(|(place, digit)| *place = digit);
    }

    fn is_well_formed(&self) -> bool {
        let shape = |(at, byte): (usize, &u8)| match at {
            SEPARATOR_AT => *byte == b'_',
            ..PREFIX_LEN => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        self.0.starts_with(PREFIX.as_bytes())
            && self.0.iter().enumerate().all(shape)
            && self.0.ends_with(&checksum(self.body()))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}, [REDACTED])", self.id())
    }
}

/// The public id of an API key: 12 base62 characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; ID_LEN]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(from_utf8(&self.0).unwrap_or_default())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = ApiKeyError;

    fn from_str(text: &str) -> Result<Self, ApiKeyError> {
        let id: Option<[u8; ID_LEN]> = text.as_bytes().try_into().ok();
        id.filter(|id| id.iter().all(u8::is_ascii_alphanumeric))
            .map(Self)
            .ok_or(ApiKeyError::Malformed)
    }
}

/// What is stored of a key: HMAC-SHA256 under the pepper, written as base64url without padding.
#[derive(Clone, Copy)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// Compares in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl From<[u8; 32]> for KeyDigest {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest([REDACTED])")
    }
}

impl FromStr for KeyDigest {
    type Err = ApiKeyError;

    fn from_str(text: &str) -> Result<Self, ApiKeyError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(ApiKeyError::Malformed)
    }
}

/// The secret that keys the digests: who steals only the digests cannot test guesses.
#[derive(Clone)]
pub struct Pepper(Hmac<Sha256>);

impl Pepper {
    /// Takes 32 bytes or more.
    ///
    /// # Errors
    /// [`KeyError::Weak`] if they are too few or not random, see [`check_strength`].
    pub fn new(secret: &SecretSlice<u8>) -> Result<Self, KeyError> {
        let secret = secret.expose_secret();
        check_strength(secret)?;
        Hmac::new_from_slice(secret).map(Self).map_err(|_| KeyError::Weak("not a key for HMAC"))
    }

    /// The digest of a key.
    #[must_use]
    pub fn digest(&self, key: &ApiKey) -> KeyDigest {
        KeyDigest(self.0.clone().chain_update(key.0.as_slice()).finalize().into_bytes().into())
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper([REDACTED])")
    }
}

/// The keys that exist, each with what its owner may do (`T`).
pub struct Keyring<T> {
    entries: HashMap<KeyId, (KeyDigest, T)>,
    /// Stands in for unknown ids. It is random: no key has it.
    nobody: KeyDigest,
}

impl<T> Keyring<T> {
    /// An empty ring.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
    pub fn new() -> Result<Self, getrandom::Error> {
        Ok(Self { entries: HashMap::new(), nobody: KeyDigest(random()?) })
    }

    /// Adds a key. Gives `false`, and changes nothing, if the id is taken.
    #[must_use = "two keys cannot share an id"]
    pub fn insert(&mut self, id: KeyId, digest: KeyDigest, meta: T) -> bool {
        match self.entries.entry(id) {
            MapEntry::Occupied(_) => false,
            MapEntry::Vacant(place) => {
                place.insert((digest, meta));
                true
            }
        }
    }

    /// Adds a key, in the place of one that has the id.
    pub fn put(&mut self, id: KeyId, digest: KeyDigest, meta: T) {
        self.entries.insert(id, (digest, meta));
    }

    /// Takes a key out.
    pub fn remove(&mut self, id: KeyId) {
        self.entries.remove(&id);
    }

    /// Keeps the keys that this says yes to.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.entries.retain(|_, (_, meta)| keep(meta));
    }

    /// Takes all keys out.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// What the owner of a key may do, whoever presents it.
    #[must_use]
    pub fn get(&self, id: KeyId) -> Option<&T> {
        self.entries.get(&id).map(|(_, meta)| meta)
    }

    /// Finds the key that was presented. An unknown id costs the same HMAC and the same comparison
    /// as a known one.
    ///
    /// # Errors
    /// [`ApiKeyError::Unknown`] or [`ApiKeyError::Mismatch`]; callers are told the same of both.
    pub fn verify(&self, pepper: &Pepper, key: &ApiKey) -> Result<&T, ApiKeyError> {
        let entry = self.entries.get(&key.id());
        let stored = entry.map_or(&self.nobody, |(digest, _)| digest);
        let matches = stored.matches(&pepper.digest(key));
        match entry {
            Some((_, meta)) if matches => Ok(meta),
            Some(_) => Err(ApiKeyError::Mismatch),
            None => Err(ApiKeyError::Unknown),
        }
    }

    /// The public ids of the keys.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.entries.keys().copied()
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<T> fmt::Debug for Keyring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}

/// Random base62 characters. Bytes from 248 = 4 * 62 on are thrown away: kept, they would make the
/// first eight characters likelier.
fn draw<const N: usize>() -> Result<Zeroizing<[u8; N]>, getrandom::Error> {
    let mut drawn = Zeroizing::new([0; N]);
    let mut filled = 0;
    while filled < N {
        let bytes = Zeroizing::new(random::<64>()?);
        let digits = bytes.iter().filter_map(|byte| unbiased(*byte));
        for (place, digit) in drawn.iter_mut().skip(filled).zip(digits) {
            *place = digit;
            filled += 1;
        }
    }
    Ok(drawn)
}

fn unbiased(byte: u8) -> Option<u8> {
    (byte < 248).then(|| base62(u32::from(byte)))
}

/// The CRC-32 of the body in base62, the most significant digit first.
fn checksum(body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut rest = crc32fast::hash(body);
    let mut digits = [b'0'; CHECKSUM_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = base62(rest);
        rest /= 62;
    }
    digits
}

/// The last base62 digit of a number.
fn base62(number: u32) -> u8 {
    BASE62.get((number % 62) as usize).copied().unwrap_or(b'0')
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    // The checksum was computed with another CRC-32 (Python's zlib) and other base62 code.
    const SAMPLE: &str = "sk_0123456789AB_abcdefghijklmnopqrstuvwxyzABCDEF2PoNTb";

    fn pepper(fill: u8) -> Pepper {
        let bytes: Vec<u8> = (0..32).map(|n: u8| n.wrapping_mul(n).wrapping_add(fill)).collect();
        Pepper::new(&bytes.into()).unwrap()
    }

    fn ring(keys: &[&ApiKey]) -> Keyring<String> {
        let pepper = pepper(1);
        let mut ring = Keyring::new().unwrap();
        for key in keys {
            assert!(ring.insert(key.id(), pepper.digest(key), format!("owner of {}", key.id())));
        }
        ring
    }

    #[test]
    fn a_key_has_the_documented_form() {
        let key = ApiKey::parse(SAMPLE).unwrap();
        assert_eq!(key.id().to_string(), "0123456789AB");
        assert_eq!(key.reveal().expose_secret(), SAMPLE);
    }

    #[test]
    fn generated_keys_are_read_back_and_differ() {
        let mut ids = HashSet::new();
        for _ in 0..100 {
            let key = ApiKey::generate().unwrap();
            let text = key.reveal();
            assert_eq!(text.expose_secret().len(), 54);
            assert_eq!(ApiKey::parse(text.expose_secret()).unwrap().id(), key.id());
            assert!(ids.insert(key.id()));
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let swapped = SAMPLE.replace("ab", "ba");
        let cases = [
            "",
            "sk_",
            "sk-0123456789AB_abc",
            SAMPLE.get(..53).unwrap(),
            &format!("{SAMPLE}0"),
            &format!(" {SAMPLE}"),
            &format!("{SAMPLE}\n"),
            &SAMPLE.to_uppercase(),
            &SAMPLE.to_lowercase(),
            &SAMPLE.replace("sk_", "pk_"),
            &SAMPLE.replace("AB_a", "ABxa"),
            &SAMPLE.replace("abc", "ab-"),
            &SAMPLE.replace("abc", "aé"),
            &swapped,
            &"s".repeat(1 << 16),
            &"é".repeat(27),
        ];
        for text in cases {
            assert_eq!(ApiKey::parse(text).unwrap_err(), ApiKeyError::Malformed, "{text:.60}");
        }
    }

    #[test]
    fn a_right_checksum_does_not_mend_a_wrong_form() {
        for (at, byte) in [(0, b'p'), (2, b'-'), (4, b'_'), (15, b'x'), (20, b'-'), (47, b' ')] {
            let mut key = ApiKey::parse(SAMPLE).unwrap();
            key.0[at] = byte;
            key.seal();
            assert!(ApiKey::parse(key.reveal().expose_secret()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_single_wrong_character_is_noticed() {
        for at in 0..SAMPLE.len() {
            for other in [b'0', b'Z', b'_'] {
                let mut text = SAMPLE.as_bytes().to_vec();
                text[at] = other;
                let text = String::from_utf8(text).unwrap();
                assert_eq!(ApiKey::parse(&text).is_ok(), text == SAMPLE, "{text}");
            }
        }
    }

    #[test]
    fn every_character_is_equally_likely() {
        let mut counts = [0; 62];
        for digit in (0..=255).filter_map(unbiased) {
            counts[BASE62.iter().position(|d| *d == digit).unwrap()] += 1;
        }
        assert_eq!(counts, [4; 62]);
    }

    #[test]
    fn the_digest_is_the_hmac_of_the_whole_key() {
        // RFC 4231 test case 2 checks the construction; the key text is an input like any other.
        let rfc4231 = Pepper(Hmac::new_from_slice(b"Jefe").unwrap());
        let mac = rfc4231.0.clone().chain_update(b"what do ya want for nothing?").finalize();
        let hex: String = mac.into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(
            rfc4231.digest(&ApiKey::parse(SAMPLE).unwrap()).to_string(),
            "UZuuRknBP6Djj8J526JgsU244jDVjGay6pmjNtiQvFs"
        );
    }

    #[test]
    fn digests_are_written_and_read() {
        let digest = pepper(1).digest(&ApiKey::generate().unwrap());
        assert!(digest.to_string().parse::<KeyDigest>().unwrap().matches(&digest));
        let text = digest.to_string();
        for bad in [
            "",
            "x",
            text.get(..42).unwrap(),
            &format!("{text}="),
            &format!("{text}A"),
            &"A".repeat(44),
        ] {
            assert!(bad.parse::<KeyDigest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_ring_finds_the_owner() {
        let (one, two) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
        let ring = ring(&[&one, &two]);
        assert_eq!(ring.len(), 2);
        assert_eq!(ring.ids().collect::<HashSet<_>>(), HashSet::from([one.id(), two.id()]));
        assert_eq!(ring.verify(&pepper(1), &two), Ok(&format!("owner of {}", two.id())));
        assert_eq!(
            ring.verify(&pepper(1), &ApiKey::generate().unwrap()),
            Err(ApiKeyError::Unknown)
        );
    }

    #[test]
    fn another_secret_with_a_known_id_is_refused() {
        let (real, mut forged) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
        forged.0[3..15].copy_from_slice(&real.id().0);
        forged.seal();
        let forged = ApiKey::parse(forged.reveal().expose_secret()).unwrap();
        assert_eq!(forged.id(), real.id());
        assert_eq!(ring(&[&real]).verify(&pepper(1), &forged), Err(ApiKeyError::Mismatch));
    }

    #[test]
    fn a_stolen_digest_is_worth_nothing_under_another_pepper() {
        let key = ApiKey::generate().unwrap();
        let mut ring = Keyring::new().unwrap();
        assert!(ring.insert(key.id(), pepper(1).digest(&key), ()));
        assert_eq!(ring.verify(&pepper(2), &key), Err(ApiKeyError::Mismatch));
    }

    #[test]
    fn an_id_is_given_once() {
        let key = ApiKey::generate().unwrap();
        let mut ring = ring(&[&key]);
        assert!(!ring.insert(key.id(), KeyDigest([0; 32]), "intruder".into()));
        assert!(ring.verify(&pepper(1), &key).is_ok());
    }

    #[test]
    fn keys_are_replaced_and_taken_out() {
        let (one, two) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
        let mut ring = ring(&[&one, &two]);
        ring.put(one.id(), pepper(1).digest(&two), "other".into());
        assert_eq!(ring.get(one.id()).map(String::as_str), Some("other"));
        assert_eq!(ring.verify(&pepper(1), &one), Err(ApiKeyError::Mismatch));
        ring.retain(|owner| owner != "other");
        assert_eq!((ring.get(one.id()), ring.len()), (None, 1));
        ring.remove(two.id());
        assert!(ring.is_empty());
    }

    #[test]
    fn ids_are_12_base62_characters() {
        for (text, good) in [
            ("0123456789AB", true),
            ("0123456789A", false),
            ("0123456789A_", false),
            ("", false),
            ("ééééé12", false),
        ] {
            assert_eq!(text.parse::<KeyId>().is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_weak_pepper_is_refused() {
        assert!(Pepper::new(&vec![7; 31].into()).is_err());
        assert!(Pepper::new(&vec![7; 64].into()).is_err());
    }

    #[test]
    fn debug_shows_ids_only() {
        let key = ApiKey::parse(SAMPLE).unwrap();
        let ring = ring(&[&key]);
        let digest = pepper(1).digest(&key);
        let shown = format!("{key:?} {ring:?} {digest:?} {:?} {:?}", pepper(1), key.reveal());
        assert!(shown.contains("0123456789AB"));
        assert!(!shown.contains("abcdef") && !shown.contains(&digest.to_string()), "{shown}");
        assert!(!shown.contains("owner"), "{shown}");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,80}") {
            prop_assert!(ApiKey::parse(&text).is_err());
        }
    }
}
