//! The second factor: time-based codes (RFC 6238), their provisioning, and backup codes.
//!
//! Secrets have 160 bits; codes are HMAC-SHA-1, 6 digits, 30 seconds: the one set of parameters
//! that every authenticator app computes rightly. SHA-1's collisions do not touch HMAC (RFC 6194
//! section 3.3). One step of drift is accepted either way (RFC 6238 section 5.2); that a code works
//! once is kept by the store, which takes the step that [`matching_step`] gives.
//!
//! Backup codes have 75 random bits, so what is stored of them is a plain SHA-256: guessing one
//! from a stolen digest takes 2^74 hashes, which a slow hash would not make less possible.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode, render::svg};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use totp_rs::{Builder, Secret, Totp};
use zeroize::Zeroizing;

use crate::clock::random;

/// Backup codes of one enrolment.
pub const BACKUP_CODES: usize = 10;

const DIGITS: usize = 6;
/// Steps that the clocks of server and user may be apart.
const DRIFT: u16 = 1;
/// Symbols of a backup code, at 5 bits each, and how many stand together.
const BACKUP_SYMBOLS: usize = 15;
const BACKUP_GROUP: usize = 5;
/// Longest text that is read as a backup code: every symbol followed by a separator.
const MAX_BACKUP_BYTES: usize = 2 * BACKUP_SYMBOLS;
/// Crockford's base32: no `i`, `l`, `o`, `u`.
const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Draws a secret: 160 bits (RFC 4226 section 4, R6) in base32, as authenticator apps take it.
///
/// # Errors
/// If the operating system has no randomness to give.
pub fn generate_secret() -> Result<SecretString, getrandom::Error> {
    let bytes = Zeroizing::new(random::<20>()?);
    Ok(Secret::from(*bytes).to_base32().into())
}

/// The time step whose code this is, among the present one and its neighbours; compared in constant
/// time. `None` also for anything but six ASCII digits and for a secret that is not base32 of at
/// least 128 bits.
#[must_use]
pub fn matching_step(secret: &SecretString, code: &str, unix_secs: u64) -> Option<u64> {
    looks_like_totp(code).then_some(())?;
    totp("Portcullis", "", secret)?.check(code, unix_secs)
}

/// Whether the text has the form of a time-based code: six ASCII digits.
#[must_use]
pub fn looks_like_totp(code: &str) -> bool {
    code.len() == DIGITS && code.bytes().all(|byte| byte.is_ascii_digit())
}

/// The address that an authenticator app reads (Key Uri Format): as secret as the secret in it.
/// `issuer` is the name that the app shows. `None` for a secret that [`generate_secret`] did not
/// make, or a name with `:`.
#[must_use]
pub fn provisioning_uri(issuer: &str, user: &str, secret: &SecretString) -> Option<SecretString> {
    totp(issuer, user, secret)?.to_url().ok().map(SecretString::from)
}

/// A QR code in block elements for a terminal with light text on a dark ground, with its quiet
/// zone; `None` for more text than a QR code holds.
#[must_use]
pub fn qr_terminal(uri: &SecretString) -> Option<String> {
    let (dark, light) = (Dense1x2::Light, Dense1x2::Dark); // what is printed is light
    Some(qr(uri)?.render().dark_color(dark).light_color(light).build())
}

/// A QR code as an SVG document, with its quiet zone; `None` for more text than a QR code holds.
#[must_use]
pub fn qr_svg(uri: &SecretString) -> Option<String> {
    Some(qr(uri)?.render::<svg::Color<'_>>().min_dimensions(240, 240).build())
}

/// Draws the backup codes of one enrolment, `xxxxx-xxxxx-xxxxx` each.
///
/// # Errors
/// If the operating system has no randomness to give.
pub fn backup_codes() -> Result<[SecretString; BACKUP_CODES], getrandom::Error> {
    let mut codes = [const { None }; BACKUP_CODES];
    for code in &mut codes {
        *code = Some(backup_code(&Zeroizing::new(random::<BACKUP_SYMBOLS>()?)));
    }
    Ok(codes.map(Option::unwrap_or_default))
}

/// What is stored of a backup code, and found again from what the user types: in capitals or not,
/// with separators or without, `i` and `l` for `1`, `o` for `0`. Bound to the user, so that a digest
/// copied to another user opens nothing. `None` if it is not in the form of one.
#[must_use]
pub fn backup_digest(user: &str, code: &str) -> Option<String> {
    let symbols = backup_symbols(code)?;
    let digest = Sha256::new()
        .chain_update(b"portcullis backup code\0")
        .chain_update(user)
        .chain_update(b"\0")
        .chain_update(symbols.as_slice())
        .finalize();
    Some(URL_SAFE_NO_PAD.encode(digest))
}

fn totp(issuer: &str, user: &str, secret: &SecretString) -> Option<Totp> {
    let secret = Secret::try_from_base32(secret.expose_secret()).ok()?;
    let builder = Builder::new().with_secret(secret).with_skew(DRIFT);
    builder.with_issuer(Some(issuer)).with_account_name(user).build().ok()
}

fn qr(uri: &SecretString) -> Option<QrCode> {
    QrCode::with_error_correction_level(uri.expose_secret(), EcLevel::M).ok()
}

/// 5 bits of each byte make one symbol: all are equally likely.
fn backup_code(bytes: &[u8; BACKUP_SYMBOLS]) -> SecretString {
    let mut text = Zeroizing::new(String::with_capacity(MAX_BACKUP_BYTES));
    for (at, byte) in bytes.iter().enumerate() {
        if at > 0 && at % BACKUP_GROUP == 0 {
            text.push('-');
        }
        text.extend(CROCKFORD.get(usize::from(byte % 32)).map(|symbol| char::from(*symbol)));
    }
    text.as_str().into()
}

fn backup_symbols(code: &str) -> Option<Zeroizing<[u8; BACKUP_SYMBOLS]>> {
    if code.len() > MAX_BACKUP_BYTES {
        return None;
    }
    let mut symbols = Zeroizing::new([0; BACKUP_SYMBOLS]);
    let mut typed = code.bytes().filter(|byte| !matches!(byte, b'-' | b' '));
    for place in symbols.iter_mut() {
        *place = backup_symbol(typed.next()?)?;
    }
    typed.next().is_none().then_some(symbols)
}

fn backup_symbol(typed: u8) -> Option<u8> {
    let symbol = match typed.to_ascii_lowercase() {
        b'i' | b'l' => b'1',
        b'o' => b'0',
        other => other,
    };
    CROCKFORD.contains(&symbol).then_some(symbol)
}

/// The code of a moment, as an authenticator app shows it.
#[cfg(test)]
pub(super) fn code_at(secret: &SecretString, unix_secs: u64) -> String {
    totp("Portcullis", "", secret).unwrap().generate(unix_secs).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// "12345678901234567890", the secret of the test vectors of both RFCs.
    const RFC_SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    const SAMPLE_BACKUP: &str = "0123a-bcdef-ghjkm";

    fn secret(text: &str) -> SecretString {
        text.into()
    }

    fn step(code: &str, unix_secs: u64) -> Option<u64> {
        matching_step(&secret(RFC_SECRET), code, unix_secs)
    }

    #[test]
    fn rfc_4226_appendix_d() {
        let codes = [
            "755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583",
            "399871", "520489",
        ];
        for (counter, code) in (0..).zip(codes) {
            assert_eq!(step(code, counter * 30), Some(counter), "{counter}");
            assert_eq!(step(code, counter * 30 + 29), Some(counter), "{counter}");
        }
    }

    #[test]
    fn rfc_6238_appendix_b() {
        // The RFC gives 8 digits; 6 digits are the last of them (RFC 4226 section 5.3).
        let vectors = [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ];
        for (time, code) in vectors {
            assert_eq!(step(code.get(2..).unwrap(), time), Some(time / 30), "{time}");
        }
    }

    #[test]
    fn one_step_of_drift_is_accepted_and_no_more() {
        let cases = [(-2_i64, false), (-1, true), (0, true), (1, true), (2, false)];
        for (steps, accepted) in cases {
            let time = u64::try_from(1_111_111_109 + 30 * steps).unwrap();
            assert_eq!(step("081804", time), accepted.then_some(37_037_036), "{steps}");
        }
    }

    #[test]
    fn only_six_ascii_digits_are_a_code() {
        let others = [
            "",
            "75522",
            "7552244",
            "+75522",
            " 75522",
            "755224 ",
            "75522a",
            "７５５２２４",
            "٧٥٥٢٢٤",
            "755 224",
            "0755224",
            "\u{0}55224",
        ];
        assert_eq!(step("755224", 0), Some(0));
        for code in others {
            assert_eq!(step(code, 0), None, "{code:?}");
            assert!(!looks_like_totp(code), "{code:?}");
        }
    }

    #[test]
    fn a_secret_that_is_none_matches_nothing() {
        for bad in ["", "GEZDGNBVGY3TQOJQ", "not base32!", "1", &"A".repeat(25)] {
            for code in ["755224", "000000"] {
                assert_eq!(matching_step(&secret(bad), code, 0), None, "{bad}");
            }
            assert!(provisioning_uri("Example", "alice", &secret(bad)).is_none(), "{bad}");
        }
    }

    #[test]
    fn new_secrets_have_160_bits_and_differ() {
        let secrets: HashSet<String> =
            (0..50).map(|_| generate_secret().unwrap().expose_secret().to_owned()).collect();
        assert_eq!(secrets.len(), 50);
        for text in &secrets {
            assert_eq!(Secret::try_from_base32(text).unwrap().as_bytes().len(), 20);
        }
    }

    #[test]
    fn the_uri_is_what_apps_read() {
        let cases = [
            (
                "alice",
                "otpauth://totp/Example:alice?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Example",
            ),
            (
                "a b/c?&@x.org",
                "otpauth://totp/Example:a%20b%2Fc%3F%26%40x.org?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Example",
            ),
        ];
        for (user, expected) in cases {
            let uri = provisioning_uri("Example", user, &secret(RFC_SECRET)).unwrap();
            assert_eq!(uri.expose_secret(), expected);
            let read = Totp::from_url(uri.expose_secret()).unwrap();
            assert_eq!((read.account_name(), read.issuer()), (user, Some("Example")));
            assert_eq!((read.digits(), read.step()), (6, 30));
        }
        assert!(provisioning_uri("Example", "a:b", &secret(RFC_SECRET)).is_none());
    }

    #[test]
    fn qr_codes_have_their_quiet_zone_and_a_limit() {
        let uri = provisioning_uri("Example", &"a".repeat(64), &secret(RFC_SECRET)).unwrap();
        let shown = qr_terminal(&uri).unwrap();
        let lines: Vec<&str> = shown.lines().collect();
        let width = lines[0].chars().count();
        assert!(lines.iter().all(|line| line.chars().count() == width), "{shown}");
        assert!(lines[0].chars().all(|c| c == '█') && lines[3].starts_with("████ "), "{shown}");
        assert!(lines.len().abs_diff(width.div_ceil(2)) <= 1, "{width} x {}", lines.len());
        let svg = qr_svg(&uri).unwrap();
        assert!(svg.contains("<svg") && svg.ends_with("</svg>") && !svg.contains("<script"));
        let endless = secret(&"a".repeat(4000));
        assert!(qr_terminal(&endless).is_none() && qr_svg(&endless).is_none());
    }

    #[test]
    fn backup_codes_are_readable_and_differ() {
        let codes = backup_codes().unwrap();
        let mut digests = HashSet::new();
        for code in &codes {
            let text = code.expose_secret();
            let groups: Vec<&str> = text.split('-').collect();
            assert!(groups.len() == 3 && groups.iter().all(|group| group.len() == 5), "{text}");
            assert!(!text.contains(['i', 'l', 'o', 'u']));
            digests.insert(backup_digest("alice", text).unwrap());
        }
        assert_eq!(digests.len(), BACKUP_CODES);
    }

    #[test]
    fn every_symbol_is_equally_likely() {
        let mut counts = [0; 32];
        for byte in 0..=255 {
            let code = backup_code(&[byte; BACKUP_SYMBOLS]);
            let first = code.expose_secret().as_bytes()[0];
            counts[CROCKFORD.iter().position(|symbol| *symbol == first).unwrap()] += 1;
        }
        assert_eq!(counts, [8; 32]);
    }

    #[test]
    fn a_backup_code_is_known_however_it_is_typed() {
        let digest = backup_digest("alice", SAMPLE_BACKUP).unwrap();
        let same = [
            "0123A-BCDEF-GHJKM",
            "0123abcdefghjkm",
            "o123a bcdef ghjkm",
            "OI23abcdefghjkm",
            "0l23a-bcdef-ghjkm",
            "0-1-2-3-a-b-c-d-e-f-g-h-j-k-m-",
        ];
        for typed in same {
            assert_eq!(backup_digest("alice", typed).as_ref(), Some(&digest), "{typed}");
        }
        for other in ["0123a-bcdef-ghjkn", "1023a-bcdef-ghjkm"] {
            assert_ne!(backup_digest("alice", other), Some(digest.clone()), "{other}");
        }
        assert_ne!(backup_digest("bob", SAMPLE_BACKUP), Some(digest));
    }

    #[test]
    fn other_texts_are_no_backup_codes() {
        let others = [
            "",
            "123456",
            "0123a-bcdef-ghjk",
            "0123a-bcdef-ghjkmn",
            "0123a-bcdef-ghjku",
            "0123a_bcdef_ghjkm",
            "é123a-bcdef-ghjkm",
            &"-".repeat(1 << 16),
            "0-1-2-3-a-b-c-d-e-f-g-h-j-k-m--",
        ];
        for text in others {
            assert_eq!(backup_digest("alice", text), None, "{text:.40}");
        }
    }

    #[test]
    fn the_digest_binds_user_and_code_as_written_down() {
        // Python: sha256(b'portcullis backup code\0alice\x000123abcdefghjkm')
        assert_eq!(
            backup_digest("alice", SAMPLE_BACKUP).unwrap(),
            "Ub5o_M-y_goBWxOc3PZ8ytvTA2-B-eytOSmSolPPdcc"
        );
    }

    proptest! {
        #[test]
        fn reading_codes_never_panics(text in "\\PC{0,40}", time in 0..u64::from(u32::MAX)) {
            let digest = backup_digest("alice", &text);
            prop_assert!(digest.is_none() || text.len() >= BACKUP_SYMBOLS);
            let step = step(&text, time);
            prop_assert!(step.is_none() || looks_like_totp(&text));
        }
    }
}
