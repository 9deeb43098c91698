//! Passwords: Argon2id hashes in PHC strings, made, read and checked.
//!
//! What is hashed and checked is the NFKC form of a password, so that spellings which look the same
//! and differ with the keyboard are one password. For ASCII the form is the password itself.
//!
//! Sources: RFC 9106 (Argon2), the OWASP Password Storage Cheat Sheet (parameters), NIST SP 800-63B
//! (length instead of composition rules, no truncation, 5.1.1.2: normalisation).

use std::fmt;
use std::hint::black_box;

use argon2::password_hash::phc::{self, ParamsString};
use argon2::{Algorithm, Argon2, Block, CustomizedPasswordHasher, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::clock::random;

/// Fewest characters of a new password.
pub const MIN_CHARS: usize = 12;
/// Most characters of a new password.
pub const MAX_CHARS: usize = 128;
/// Most bytes of any password: `MAX_CHARS` of the longest UTF-8 characters.
pub const MAX_BYTES: usize = 512;

/// Longest PHC string that is read, in bytes.
const MAX_PHC_BYTES: usize = 512;
const MAX_MEMORY_KIB: u32 = 1024 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;
/// Shortest hash that is accepted (RFC 9106 section 4: 128 bits suffice for most applications).
const MIN_OUTPUT_BYTES: usize = 16;
/// Longest hash that PHC strings have.
const MAX_OUTPUT_BYTES: usize = 64;
/// Memory (KiB) and passes that OWASP counts as equally strong; every hash must reach one of them.
const OWASP_MINIMUM: [(u32, u32); 5] = [(47104, 1), (19456, 2), (12288, 3), (9216, 4), (7168, 5)];

/// How costly a new hash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// 19 MiB, 2 passes, 1 lane: the OWASP recommendation.
    Owasp,
    /// 128 MiB, 3 passes, 8 lanes.
    Strong,
}

impl Profile {
    /// Memory in KiB, passes, lanes.
    const fn costs(self) -> (u32, u32, u32) {
        match self {
            Self::Owasp => (19 * 1024, 2, 1),
            Self::Strong => (128 * 1024, 3, 8),
        }
    }

    fn params(self) -> Result<Params, PasswordError> {
        let (memory, passes, lanes) = self.costs();
        Params::new(memory, passes, lanes, None).map_err(|_| PasswordError::Hashing)
    }
}

/// Why a password, or the hash of one, is not accepted. Never contains any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordError {
    /// Fewer than [`MIN_CHARS`] characters.
    TooShort,
    /// More than [`MAX_CHARS`] characters.
    TooLong,
    /// Not a complete Argon2id hash; the text says what is wrong.
    Malformed(&'static str),
    /// The hash is cheaper to attack than OWASP allows.
    Weak,
    /// The hash would cost more to check than a login may.
    Excessive,
    /// The machine had no memory or no randomness for the hash.
    Hashing,
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => write!(f, "password is shorter than {MIN_CHARS} characters"),
            Self::TooLong => write!(f, "password is longer than {MAX_CHARS} characters"),
            Self::Malformed(what) => write!(f, "not an Argon2id password hash: {what}"),
            Self::Weak => f.write_str(
                "password hash is weaker than the OWASP minimum (m=19456 KiB, t=2, p=1)",
            ),
            Self::Excessive => write!(
                f,
                "password hash is too costly: at most m={MAX_MEMORY_KIB} KiB, t={MAX_PASSES}, p={MAX_LANES}"
            ),
            Self::Hashing => f.write_str("no memory or no randomness to hash a password"),
        }
    }
}

impl std::error::Error for PasswordError {}

/// Hashes a new password into a PHC string (`$argon2id$v=19$m=…,t=…,p=…$salt$hash`).
///
/// Takes tens to hundreds of milliseconds: not for an async thread.
///
/// # Errors
/// If the password does not have [`MIN_CHARS`] to [`MAX_CHARS`] characters, as it is and in the NFKC
/// form, or the machine lacks memory or randomness.
pub fn hash(password: &SecretString, profile: Profile) -> Result<String, PasswordError> {
    let normal = checked(password)?;
    let salt = random::<16>().map_err(|_| PasswordError::Hashing)?;
    let hash: phc::PasswordHash = argon2(profile.params()?)
        .hash_password_with_params(normal.as_bytes(), &salt, profile.params()?)
        .map_err(|_| PasswordError::Hashing)?;
    Ok(hash.to_string())
}

/// What Argon2 fills while it checks. Pages that are taken from the system and given back for every
/// check cost requests more than the check itself (docs/performance.md), so one memory serves
/// checks that follow each other.
#[derive(Default)]
pub struct Memory(Vec<Block>);

impl Memory {
    /// Room for these parameters; less than what is there is taken of it.
    fn for_params(&mut self, params: &Params) -> Result<&mut [Block], PasswordError> {
        let (blocks, lacking) =
            (params.block_count(), params.block_count().saturating_sub(self.0.len()));
        self.0.try_reserve_exact(lacking).map_err(|_| PasswordError::Hashing)?;
        self.0.extend(std::iter::repeat_n(Block::default(), lacking));
        self.0.get_mut(..blocks).ok_or(PasswordError::Hashing)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} KiB)", self.0.len())
    }
}

/// The Argon2id hash of a user's password, with parameters that were found sane.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    hash: phc::PasswordHash,
    params: Params,
}

impl PasswordHash {
    /// Reads a PHC string.
    ///
    /// # Errors
    /// If it is not a complete Argon2id hash of version 19, is weaker than the OWASP minimum, or
    /// would cost more than 1 GiB, 16 passes or 16 lanes.
    pub fn parse(text: &str) -> Result<Self, PasswordError> {
        if text.len() > MAX_PHC_BYTES {
            return Err(PasswordError::Malformed("longer than 512 bytes"));
        }
        let hash = phc::PasswordHash::new(text).map_err(|_| {
            PasswordError::Malformed("expected $argon2id$v=19$m=…,t=…,p=…$salt$hash")
        })?;
        let params = complete(&hash)?;
        bounded(&params)?;
        Ok(Self { hash, params })
    }

    /// Whether this is the hash of the password. Blocks for as long as hashing it took.
    ///
    /// # Errors
    /// [`PasswordError::Hashing`] if the machine lacks memory.
    pub fn verify(
        &self,
        password: &SecretString,
        memory: &mut Memory,
    ) -> Result<bool, PasswordError> {
        let (Some(salt), Some(stored)) = (&self.hash.salt, &self.hash.hash) else {
            return Err(PasswordError::Hashing); // `complete` has seen both
        };
        let mut output = Zeroizing::new([0; MAX_OUTPUT_BYTES]);
        let output = output.get_mut(..stored.len()).ok_or(PasswordError::Hashing)?;
        fill(&self.params, password, salt.as_ref(), output, memory)?;
        Ok(output.ct_eq(stored.as_bytes()).into())
    }

    /// Whether a new hash of the profile would cost an attacker more: more memory, or more work.
    /// Lanes do not count, as they change neither.
    #[must_use]
    pub fn is_weaker_than(&self, profile: Profile) -> bool {
        let (memory, passes, _) = profile.costs();
        self.params.m_cost() < memory || self.work() < u64::from(memory) * u64::from(passes)
    }

    /// The work of one check, in KiB filled (memory times passes).
    #[must_use]
    pub fn work(&self) -> u64 {
        work(&self.params)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (m, t, p) = (self.params.m_cost(), self.params.t_cost(), self.params.p_cost());
        write!(f, "PasswordHash(argon2id, m={m}, t={t}, p={p}, [REDACTED])")
    }
}

/// Work without a result: it makes every refused login as costly as the costliest user's, so that
/// the time of an answer does not tell whether a user exists (ASVS 6.3.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoy {
    params: Params,
}

impl Decoy {
    /// As costly as the costliest of the hashes, and at least as a new hash of the profile.
    ///
    /// # Errors
    /// Never for the profiles that exist; [`PasswordError::Hashing`] if Argon2 refuses one.
    pub fn new<'a>(
        hashes: impl IntoIterator<Item = &'a PasswordHash>,
        profile: Profile,
    ) -> Result<Self, PasswordError> {
        let floor = profile.params()?;
        let all = hashes.into_iter().map(|hash| &hash.params).chain([&floor]);
        let params = all.max_by_key(|params| work(params)).unwrap_or(&floor).clone();
        Ok(Self { params })
    }

    /// Makes it as costly as the hash, if it was cheaper.
    pub fn cover(&mut self, hash: &PasswordHash) {
        if work(&hash.params) > work(&self.params) {
            self.params = hash.params.clone();
        }
    }

    /// Does the work of a whole check; gives the KiB filled.
    ///
    /// # Errors
    /// [`PasswordError::Hashing`] if the machine lacks memory.
    pub fn stand_in(
        &self,
        password: &SecretString,
        memory: &mut Memory,
    ) -> Result<u64, PasswordError> {
        burn(&self.params, password, memory)
    }

    /// Does the work that a check of the hash lacks to the costliest one; gives the KiB filled.
    ///
    /// # Errors
    /// [`PasswordError::Hashing`] if the machine lacks memory.
    pub fn top_up(
        &self,
        hash: &PasswordHash,
        password: &SecretString,
        memory: &mut Memory,
    ) -> Result<u64, PasswordError> {
        let passes = self.params.t_cost();
        let lacking = work(&self.params).saturating_sub(hash.work()) / u64::from(passes);
        let lacking = u32::try_from(lacking).unwrap_or(MAX_MEMORY_KIB);
        match Params::new(lacking, passes, 1, None) {
            Ok(params) => burn(&params, password, memory),
            Err(_) => Ok(0), // less than the 8 KiB that Argon2 can do: not measurable
        }
    }
}

/// The NFKC form of a password that is acceptable in length, both as typed and in that form: one
/// ligature may become eighteen letters, and many combining marks a few.
pub(super) fn checked(password: &SecretString) -> Result<Zeroizing<String>, PasswordError> {
    check_length(password.expose_secret())?;
    let normal = normalised(password.expose_secret());
    check_chars(&normal)?;
    Ok(normal)
}

fn check_length(password: &str) -> Result<(), PasswordError> {
    if password.len() > MAX_BYTES {
        return Err(PasswordError::TooLong);
    }
    check_chars(password)
}

fn check_chars(password: &str) -> Result<(), PasswordError> {
    match password.chars().count() {
        ..MIN_CHARS => Err(PasswordError::TooShort),
        MIN_CHARS..=MAX_CHARS => Ok(()),
        _ => Err(PasswordError::TooLong),
    }
}

/// The parameters of a hash that has all its parts, each written once and in the usual order.
fn complete(hash: &phc::PasswordHash) -> Result<Params, PasswordError> {
    let malformed = |what| Err(PasswordError::Malformed(what));
    if hash.algorithm.as_str() != Algorithm::Argon2id.as_str() {
        return malformed("the algorithm is not argon2id");
    }
    if hash.version != Some(Version::V0x13.into()) {
        return malformed("the version is not 19");
    }
    if hash.salt.is_none_or(|salt| salt.len() < argon2::MIN_SALT_LEN) {
        return malformed("the salt is missing or too short");
    }
    if hash.hash.is_none_or(|output| output.len() < MIN_OUTPUT_BYTES) {
        return malformed("the hash is missing or too short");
    }
    match Params::try_from(hash) {
        Ok(params) if is_canonical(&params, hash) => Ok(params),
        _ => malformed("the parameters are not m=…,t=…,p=…"),
    }
}

fn is_canonical(params: &Params, hash: &phc::PasswordHash) -> bool {
    let plain = params.keyid().is_empty() && params.data().is_empty();
    plain && ParamsString::try_from(params).is_ok_and(|text| text == hash.params)
}

fn bounded(params: &Params) -> Result<(), PasswordError> {
    let (memory, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    if memory > MAX_MEMORY_KIB || passes > MAX_PASSES || lanes > MAX_LANES {
        return Err(PasswordError::Excessive);
    }
    match OWASP_MINIMUM.iter().any(|&(m, t)| memory >= m && passes >= t) {
        true => Ok(()),
        false => Err(PasswordError::Weak),
    }
}

fn burn(
    params: &Params,
    password: &SecretString,
    memory: &mut Memory,
) -> Result<u64, PasswordError> {
    let mut output = Zeroizing::new([0; Params::DEFAULT_OUTPUT_LEN]);
    fill(params, password, b"portcullis decoy", output.as_mut(), memory)?;
    black_box(&output);
    Ok(work(params))
}

/// Argon2id of the NFKC form of a password.
fn fill(
    params: &Params,
    password: &SecretString,
    salt: &[u8],
    output: &mut [u8],
    memory: &mut Memory,
) -> Result<(), PasswordError> {
    let normal = normalised(password.expose_secret());
    argon2(params.clone())
        .hash_password_into_with_memory(normal.as_bytes(), salt, output, memory.for_params(params)?)
        .map_err(|_| PasswordError::Hashing)
}

fn argon2(params: Params) -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Lanes are computed one after the other here, so they do not change the time.
fn work(params: &Params) -> u64 {
    u64::from(params.m_cost()) * u64::from(params.t_cost())
}

/// The NFKC form. No character becomes more than eleven times as many bytes (Unicode TR 15), so this
/// is bounded as the password is; the whole of it is reserved at first, because a string that grows
/// leaves copies behind that are not wiped.
fn normalised(password: &str) -> Zeroizing<String> {
    if password.is_ascii() {
        return Zeroizing::new(password.to_owned());
    }
    let mut normal = Zeroizing::new(String::with_capacity(password.len().saturating_mul(11)));
    normal.extend(password.nfkc());
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT_AND_HASH: &str = "c29tc2FsdHNvbWVzYWx0$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    fn with_params(params: &str) -> Result<PasswordHash, PasswordError> {
        PasswordHash::parse(&format!("$argon2id$v=19${params}${SALT_AND_HASH}"))
    }

    #[test]
    fn one_memory_serves_hashes_of_all_sizes() {
        let password = secret("correct horse battery");
        let [small, large] = ["m=7168,t=5,p=1", "m=19456,t=2,p=1"]
            .map(|costs| format!("$argon2id$v=19${costs}${SALT_AND_HASH}"))
            .map(|text| PasswordHash::parse(&text).unwrap());
        let right = PasswordHash::parse(&hash(&password, Profile::Owasp).unwrap()).unwrap();
        let mut memory = Memory::default();
        for (hash, expected) in
            [(&small, false), (&right, true), (&small, false), (&large, false), (&right, true)]
        {
            assert_eq!(hash.verify(&password, &mut memory), Ok(expected), "{hash:?}");
        }
        assert_eq!(format!("{memory:?}"), "Memory(19456 KiB)");
    }

    #[test]
    fn the_reference_implementation_agrees() {
        // phc-winner-argon2, test.c: hashtest(2, 16, 1, "password", "somesalt", …)
        let text = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let hash = PasswordHash::parse(text).unwrap();
        assert_eq!(hash.verify(&secret("password"), &mut Memory::default()), Ok(true));
        assert_eq!(hash.verify(&secret("Password"), &mut Memory::default()), Ok(false));
    }

    #[test]
    fn a_new_hash_is_read_back() {
        let password = secret("correct horse battery");
        for (profile, params) in
            [(Profile::Owasp, "m=19456,t=2,p=1"), (Profile::Strong, "m=131072,t=3,p=8")]
        {
            let text = hash(&password, profile).unwrap();
            assert!(text.starts_with(&format!("$argon2id$v=19${params}$")), "{text}");
            let parsed = PasswordHash::parse(&text).unwrap();
            assert_eq!(parsed.verify(&password, &mut Memory::default()), Ok(true));
            assert_eq!(
                parsed.verify(&secret("correct horse batterx"), &mut Memory::default()),
                Ok(false)
            );
        }
    }

    #[test]
    fn the_same_password_has_another_hash_each_time() {
        let password = secret("correct horse battery");
        assert_ne!(hash(&password, Profile::Owasp), hash(&password, Profile::Owasp));
    }

    #[test]
    fn new_passwords_have_12_to_128_characters() {
        let cases = [
            ("a".repeat(11), Err(PasswordError::TooShort)),
            ("a".repeat(12), Ok(())),
            ("ä".repeat(11), Err(PasswordError::TooShort)),
            ("🔒".repeat(128), Ok(())),
            ("a".repeat(129), Err(PasswordError::TooLong)),
            ("a".repeat(1 << 20), Err(PasswordError::TooLong)),
            (String::new(), Err(PasswordError::TooShort)),
        ];
        for (password, expected) in cases {
            assert_eq!(check_length(&password), expected, "{} bytes", password.len());
        }
        assert_eq!(hash(&secret("short"), Profile::Owasp), Err(PasswordError::TooShort));
    }

    #[test]
    fn spellings_of_one_password_are_one() {
        let cases = [
            (
                "p\u{e4}\u{df}w\u{f6}rter sind l\u{e4}nger",
                "pa\u{308}\u{df}wo\u{308}rter sind la\u{308}nger",
                true,
            ),
            ("ﬁne offices afloat", "fine oﬃces aﬂoat", true),
            ("ｆｕｌｌｗｉｄｔｈ　ｔｙｐｉｎｇ", "fullwidth typing", true),
            ("twelve ohms \u{2126}", "twelve ohms \u{3a9}", true),
            ("correct horse battery", "Correct horse battery", false),
            ("correct horse battery", "correct horse battery ", false),
        ];
        for (one, other, same) in cases {
            let text = hash(&secret(one), Profile::Owasp).unwrap();
            let verified =
                PasswordHash::parse(&text).unwrap().verify(&secret(other), &mut Memory::default());
            assert_eq!(verified, Ok(same), "{one} {other}");
        }
    }

    #[test]
    fn lengths_hold_before_and_after_normalisation() {
        let cases = [
            ("\u{fdfa}".to_owned(), Err(PasswordError::TooShort)),
            ("\u{fdfa}".repeat(12), Err(PasswordError::TooLong)),
            ("e\u{301}".repeat(6), Err(PasswordError::TooShort)),
            ("e\u{301}".repeat(12), Ok(())),
        ];
        for (password, expected) in cases {
            assert_eq!(checked(&secret(&password)).map(drop), expected, "{password}");
        }
    }

    #[test]
    fn normalising_does_not_outgrow_its_reserve() {
        for worst in ["\u{fdfa}", "\u{390}", "\u{1f82}", "\u{fb2c}", "\u{1d160}", "\u{3300}"] {
            let raw = worst.repeat(100);
            let normal = normalised(&raw);
            assert!(normal.len() <= raw.len() * 11, "{worst}");
        }
    }

    #[test]
    fn weaker_hashes_are_told_from_equal_ones() {
        let cases = [
            ("m=19456,t=2,p=1", false, true),
            ("m=19456,t=2,p=4", false, true),
            ("m=47104,t=1,p=1", false, true),
            ("m=12288,t=3,p=1", true, true),
            ("m=9216,t=16,p=1", true, true),
            ("m=131072,t=2,p=8", false, true),
            ("m=131072,t=3,p=1", false, false),
            ("m=131072,t=3,p=8", false, false),
            ("m=262144,t=1,p=8", false, true),
        ];
        for (params, than_owasp, than_strong) in cases {
            let hash = with_params(params).unwrap();
            assert_eq!(hash.is_weaker_than(Profile::Owasp), than_owasp, "{params}");
            assert_eq!(hash.is_weaker_than(Profile::Strong), than_strong, "{params}");
        }
    }

    #[test]
    fn a_decoy_covers_what_it_has_seen() {
        let (cheap, dear) =
            (with_params("m=19456,t=2,p=1").unwrap(), with_params("m=65536,t=4,p=2").unwrap());
        let mut decoy = Decoy::new([], Profile::Owasp).unwrap();
        for (seen, cost) in [(&cheap, cheap.work()), (&dear, dear.work()), (&cheap, dear.work())] {
            decoy.cover(seen);
            assert_eq!(work(&decoy.params), cost);
        }
    }

    #[test]
    fn a_long_password_counts_to_its_last_byte() {
        let long = "🔒".repeat(127);
        let hash =
            PasswordHash::parse(&hash(&secret(&format!("{long}a")), Profile::Owasp).unwrap())
                .unwrap();
        assert_eq!(hash.verify(&secret(&format!("{long}b")), &mut Memory::default()), Ok(false));
        assert_eq!(hash.verify(&secret(&format!("{long}a")), &mut Memory::default()), Ok(true));
    }

    #[test]
    fn parameters_are_bounded_on_both_sides() {
        let cases = [
            ("m=19456,t=2,p=1", Ok(())),
            ("m=47104,t=1,p=1", Ok(())),
            ("m=7168,t=5,p=1", Ok(())),
            ("m=1048576,t=16,p=16", Ok(())),
            ("m=19455,t=2,p=1", Err(PasswordError::Weak)),
            ("m=19456,t=1,p=1", Err(PasswordError::Weak)),
            ("m=4096,t=16,p=1", Err(PasswordError::Weak)),
            ("m=1048577,t=2,p=1", Err(PasswordError::Excessive)),
            ("m=19456,t=17,p=1", Err(PasswordError::Excessive)),
            ("m=19456,t=2,p=17", Err(PasswordError::Excessive)),
            ("m=4294967295,t=4294967295,p=16", Err(PasswordError::Excessive)),
        ];
        for (params, expected) in cases {
            assert_eq!(with_params(params).map(drop), expected, "{params}");
        }
        assert!(PasswordError::Weak.to_string().contains("weaker than"));
    }

    #[test]
    fn anything_but_a_complete_argon2id_hash_is_refused() {
        let cases = [
            String::new(),
            "hunter2".into(),
            "$2b$12$KIXQ1u3Q1u3Q1u3Q1u3Q1uKIXQ1u3Q1u3Q1u3Q1u3Q1u3Q1u3Q1u".into(),
            format!("$argon2i$v=19$m=65536,t=2,p=1${SALT_AND_HASH}"),
            format!("$argon2d$v=19$m=65536,t=2,p=1${SALT_AND_HASH}"),
            format!("$argon2id$v=16$m=65536,t=2,p=1${SALT_AND_HASH}"),
            format!("$argon2id$m=65536,t=2,p=1${SALT_AND_HASH}"),
            format!("$argon2id$v=19${SALT_AND_HASH}"),
            format!("$argon2id$v=19$m=65536,t=2${SALT_AND_HASH}"),
            format!("$argon2id$v=19$m=65536,m=65536,t=2,p=1${SALT_AND_HASH}"),
            format!("$argon2id$v=19$t=2,m=65536,p=1${SALT_AND_HASH}"),
            format!("$argon2id$v=19$m=065536,t=2,p=1${SALT_AND_HASH}"),
            format!("$argon2id$v=19$m=-1,t=2,p=1${SALT_AND_HASH}"),
            format!("$argon2id$v=19$m=65536,t=2,p=1,keyid=Zm9v${SALT_AND_HASH}"),
            format!("$argon2id$v=19$m=65536,t=2,p=1${SALT_AND_HASH}$x"),
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ".into(),
            "$argon2id$v=19$m=65536,t=2,p=1$c29t$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
                .into(),
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaM".into(),
            "$".repeat(100_000),
        ];
        for text in cases {
            let error = PasswordHash::parse(&text).unwrap_err();
            assert!(matches!(error, PasswordError::Malformed(_)), "{text:.80}: {error}");
        }
    }

    #[test]
    fn the_decoy_costs_what_the_costliest_user_costs() {
        let cheap = with_params("m=19456,t=2,p=1").unwrap();
        let dear = with_params("m=65536,t=4,p=2").unwrap();
        let strong = Profile::Strong.params().map(|params| work(&params)).unwrap();
        let cost =
            |hashes: &[PasswordHash], profile| work(&Decoy::new(hashes, profile).unwrap().params);
        assert_eq!(cost(&[], Profile::Owasp), cheap.work());
        assert_eq!(
            cost(&[cheap.clone(), dear.clone(), cheap.clone()], Profile::Owasp),
            dear.work()
        );
        assert_eq!(cost(&[cheap, dear], Profile::Strong), strong);
    }

    #[test]
    fn a_top_up_fills_the_gap_to_the_decoy() {
        let password = secret("x");
        let (cheap, dear) =
            (with_params("m=19456,t=2,p=1").unwrap(), with_params("m=32768,t=3,p=4").unwrap());
        let decoy = Decoy::new([&cheap, &dear], Profile::Owasp).unwrap();
        let whole = decoy.stand_in(&password, &mut Memory::default()).unwrap();
        for hash in [&cheap, &dear] {
            let sum = hash.work() + decoy.top_up(hash, &password, &mut Memory::default()).unwrap();
            assert!(whole.abs_diff(sum) <= 3, "{whole} and {sum} KiB");
        }
    }

    #[test]
    fn debug_shows_the_cost_and_nothing_else() {
        let hash = with_params("m=65536,t=2,p=1").unwrap();
        assert_eq!(format!("{hash:?}"), "PasswordHash(argon2id, m=65536, t=2, p=1, [REDACTED])");
        let decoy = Decoy::new([&hash], Profile::Owasp).unwrap();
        assert!(!format!("{decoy:?}").contains("CTFh"));
    }
}
