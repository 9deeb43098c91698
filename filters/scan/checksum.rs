//! Checksums that issuers build into their credentials.
//!
//! A checksum that holds proves a credential, however it looks. One that does not hold disproves
//! it only where the shape alone would be common in other texts; elsewhere the credential was
//! mistyped, cut or made up, and is judged by its looks.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Base58 digits of Bitcoin, and of the XRP ledger.
pub(super) const BITCOIN: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
pub(super) const RIPPLE: &[u8; 58] = b"rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz";

/// Base62 digits in the order of GitHub's checksums.
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What a credential must decode to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Checksum {
    /// The last six characters are the CRC-32 of the random part, in base 62 (GitHub, npm).
    Crc32Base62,
    /// Base58 with four bytes of SHA-256 twice over (Bitcoin private and extended keys).
    Base58check,
    /// The polynomial of BIP 173 or BIP 350 (age, Nostr).
    Bech32,
    /// Base32 with a CRC-16 at the end (Stellar seeds).
    Crc16Base32,
    /// The first part is a JSON object in base64url with a member `alg` (RFC 7515).
    JwtHeader,
    /// The part after the last dash is a macaroon for `pypi.org` in base64url.
    PypiMacaroon,
    /// Base64 of `user:password` (RFC 7617).
    BasicCredentials,
}

impl Checksum {
    /// Whether the credential has it.
    pub(super) fn holds(self, secret: &[u8]) -> bool {
        match self {
            Self::Crc32Base62 => crc32_base62(secret),
            Self::Base58check => base58check(secret, BITCOIN).is_some(),
            Self::Bech32 => bech32(secret),
            Self::Crc16Base32 => crc16_base32(secret),
            Self::JwtHeader => jwt_header(secret),
            Self::PypiMacaroon => pypi_macaroon(secret),
            Self::BasicCredentials => basic_credentials(secret),
        }
    }

    /// Whether a text of this shape without it is something else.
    pub(super) const fn is_required(self) -> bool {
        match self {
            Self::Base58check | Self::Crc16Base32 | Self::BasicCredentials => true,
            Self::Crc32Base62 | Self::Bech32 | Self::JwtHeader | Self::PypiMacaroon => false,
        }
    }
}

fn crc32_base62(secret: &[u8]) -> bool {
    let random = secret.rsplit(|&b| b == b'_').next().unwrap_or_default();
    let Some((body, check)) = random.split_last_chunk::<6>() else { return false };
    let mut left = crc32fast::hash(body);
    let expected = check.iter().rev().all(|&b| {
        let digit = BASE62.get((left % 62) as usize);
        left /= 62;
        digit == Some(&b)
    });
    expected && left == 0
}

/// What a base58 text holds besides its checksum, if that is right.
pub(super) fn base58check(text: &[u8], alphabet: &[u8; 58]) -> Option<Vec<u8>> {
    let bytes = base58(text, alphabet)?;
    let (payload, check) = bytes.split_last_chunk::<4>()?;
    Sha256::digest(Sha256::digest(payload)).starts_with(check).then(|| payload.to_vec())
}

/// Longest base58 text that is read: an extended key (BIP 32) has 111 characters.
const MAX_BASE58: usize = 120;

fn base58(text: &[u8], alphabet: &[u8; 58]) -> Option<Vec<u8>> {
    if text.len() > MAX_BASE58 {
        return None;
    }
    let mut bytes: Vec<u8> = Vec::with_capacity(text.len());
    for &b in text {
        let mut carry = alphabet.iter().position(|&digit| digit == b)?;
        for byte in &mut bytes {
            carry += usize::from(*byte) * 58;
            *byte = (carry & 0xff) as u8;
            carry >>= 8;
        }
        while carry > 0 {
            bytes.push((carry & 0xff) as u8);
            carry >>= 8;
        }
    }
    let zeros = text.iter().take_while(|&b| Some(b) == alphabet.first()).count();
    bytes.extend(std::iter::repeat_n(0, zeros));
    bytes.reverse();
    Some(bytes)
}

/// Whether a text is bech32 (BIP 173) or bech32m (BIP 350).
pub(super) fn bech32(text: &[u8]) -> bool {
    const DIGITS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    const SUMS: [u32; 2] = [1, 0x2bc8_30a3];
    let cased = text.iter().any(u8::is_ascii_uppercase) && text.iter().any(u8::is_ascii_lowercase);
    let Some(split) = text.iter().rposition(|&b| b == b'1').filter(|&at| at > 0 && !cased) else {
        return false;
    };
    let (prefix, data) = text.split_at(split);
    let high = prefix.iter().map(|b| b.to_ascii_lowercase() >> 5);
    let low = prefix.iter().map(|b| b.to_ascii_lowercase() & 31);
    let mut sum = high.chain([0]).chain(low).fold(1, polymod);
    for b in data.iter().skip(1) {
        let Some(value) = DIGITS.iter().position(|&digit| digit == b.to_ascii_lowercase()) else {
            return false;
        };
        sum = polymod(sum, value as u8);
    }
    data.len() > 6 && SUMS.contains(&sum)
}

fn polymod(sum: u32, value: u8) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let top = sum >> 25;
    let shifted = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
    let taken = GENERATOR.iter().zip(0..).filter(|(_, bit)| top >> bit & 1 == 1);
    taken.fold(shifted, |sum, (generator, _)| sum ^ generator)
}

/// CRC-16/XMODEM over all but the last two bytes, which hold it (SEP-23).
fn crc16_base32(secret: &[u8]) -> bool {
    let Some(bytes) = base32(secret) else { return false };
    let Some((payload, check)) = bytes.split_last_chunk::<2>() else { return false };
    let crc = payload.iter().fold(0u16, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
            crc << 1 ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    });
    crc.to_le_bytes() == *check
}

fn base32(text: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len()), 0u32, 0u32);
    for &b in text {
        let value = match b {
            b'A'..=b'Z' => b - b'A',
            b'2'..=b'7' => b - b'2' + 26,
            _ => return None,
        };
        bits = bits << 5 | u32::from(value);
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    Some(bytes)
}

fn jwt_header(secret: &[u8]) -> bool {
    let header = secret.split(|&b| b == b'.').next().unwrap_or_default();
    let json = URL_SAFE_NO_PAD.decode(header).ok();
    let value = json.and_then(|json| serde_json::from_slice::<serde_json::Value>(&json).ok());
    value.is_some_and(|value| value.get("alg").is_some())
}

/// A macaroon of version 2 begins with its location, which is a length and a name.
fn pypi_macaroon(secret: &[u8]) -> bool {
    let Some(body) = secret.strip_prefix(b"pypi-") else { return false };
    let whole = body.len() - body.len() % 4;
    let bytes = body.get(..whole).and_then(|body| URL_SAFE_NO_PAD.decode(body).ok());
    let names = [&b"\x02\x01\x08pypi.org"[..], b"\x02\x01\x0dtest.pypi.org"];
    bytes.is_some_and(|bytes| names.iter().any(|name| bytes.starts_with(name)))
}

fn basic_credentials(secret: &[u8]) -> bool {
    let body = secret.trim_ascii_end();
    let end = body.iter().rposition(|&b| b != b'=').map_or(0, |at| at + 1);
    let text = body.get(..end).and_then(|body| STANDARD_NO_PAD.decode(body).ok());
    let text = text.and_then(|text| String::from_utf8(text).ok()).unwrap_or_default();
    let shown = text.chars().all(|c| !c.is_control());
    shown && text.split_once(':').is_some_and(|(_, password)| !password.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(checksum: Checksum, right: &str, wrong: &str) {
        assert!(checksum.holds(right.as_bytes()), "{right}");
        assert!(!checksum.holds(wrong.as_bytes()), "{wrong}");
    }

    #[test]
    fn checksums_of_published_examples() {
        check(
            Checksum::Crc32Base62,
            "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",
            "ghp_zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq18",
        );
        check(
            Checksum::Base58check,
            "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
            "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTK",
        );
        check(
            Checksum::Bech32,
            "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5",
            "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe6",
        );
        check(
            Checksum::Crc16Base32,
            "SBU2RRGLXH3E5CQHTD3ODLDF2BWDCYUSSBLLZ5GNW7JXHDIYKXZWHOKR",
            "SBU2RRGLXH3E5CQHTD3ODLDF2BWDCYUSSBLLZ5GNW7JXHDIYKXZWHOKS",
        );
        check(
            Checksum::JwtHeader,
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.sig",
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ.eyJzdWIiOiIxMjM0NTY3ODkwIn0.sig",
        );
        check(
            Checksum::PypiMacaroon,
            "pypi-AgEIcHlwaS5vcmcCJDExMTExMTExLTExMTE",
            "pypi-AgEIcHlwaS5vcmMCJDExMTExMTExLTExMTE",
        );
        check(Checksum::BasicCredentials, "QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "QWxhZGRpbg==");
    }

    #[test]
    fn odd_texts_hold_nothing() {
        let all = [
            Checksum::Crc32Base62,
            Checksum::Base58check,
            Checksum::Bech32,
            Checksum::Crc16Base32,
            Checksum::JwtHeader,
            Checksum::PypiMacaroon,
            Checksum::BasicCredentials,
        ];
        for text in ["", "1", "_", "pypi-", "é", "=", ".", &"1".repeat(500)] {
            for checksum in all {
                assert!(!checksum.holds(text.as_bytes()), "{checksum:?} {text:.20}");
            }
        }
    }
}
