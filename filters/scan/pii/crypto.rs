//! Addresses of cryptocurrencies, which all carry a checksum.

use std::ops::Range;

use super::super::checksum::{BITCOIN, Checksum, RIPPLE, base58check, bech32};
use super::keccak::keccak256;
use super::{Detector, Survey};

/// Characters of the longest address: Cardano's, with its stake part.
const MAX_LEN: usize = 108;

/// Version bytes of Bitcoin, Litecoin, Dogecoin, Dash, Bitcoin's test network and Tron.
const VERSIONS: [u8; 10] = [0x00, 0x05, 0x30, 0x32, 0x1e, 0x16, 0x4c, 0x6f, 0xc4, 0x41];

/// Human-readable parts of bech32 addresses.
const PREFIXES: [&[u8]; 27] = [
    b"bc",
    b"tb",
    b"ltc",
    b"addr",
    b"stake",
    b"cosmos",
    b"osmo",
    b"inj",
    b"terra",
    b"celestia",
    b"kava",
    b"thor",
    b"bnb",
    b"juno",
    b"sei",
    b"dydx",
    b"axelar",
    b"neutron",
    b"stars",
    b"akash",
    b"secret",
    b"noble",
    b"persistence",
    b"band",
    b"zs",
    b"erd",
    b"one",
];

pub(super) const CRYPTO: Detector = Detector {
    name: "crypto",
    placeholder: "[CRYPTO]",
    default: true,
    longest: MAX_LEN,
    shape: || r"(?:[0-9]|[A-Za-z]{1,12})[0-9A-Za-z]{0,107}[\x00-\xff]",
    find: |survey| survey.at_groups(crypto),
};

fn crypto(survey: &Survey<'_>, groups: &[Range<usize>]) -> Option<Range<usize>> {
    let at = groups.first()?.start;
    let run = survey.run(at, MAX_LEN, |b| b.is_ascii_alphanumeric())?;
    let text = survey.slice(run.clone());
    let long = text.len() >= 25 && survey.previous(run.start) != Some(b'_');
    // The groups of one run need to be read once only.
    let first = survey.slice(run.start..at).iter().all(u8::is_ascii_alphabetic);
    (long && first && is_address(text)).then_some(run)
}

fn is_address(text: &[u8]) -> bool {
    is_ethereum(text) || is_base58(text) || is_bech32(text) || is_stellar(text)
}

/// `G` and the key in base32 with its checksum (SEP-23).
fn is_stellar(text: &[u8]) -> bool {
    text.len() == 56 && text.starts_with(b"G") && Checksum::Crc16Base32.holds(text)
}

/// `0x` and forty hexadecimal digits; mixed case must be the checksum of EIP-55.
fn is_ethereum(text: &[u8]) -> bool {
    let Some(digits) = text.strip_prefix(b"0x").filter(|digits| digits.len() == 40) else {
        return false;
    };
    let varied = digits.iter().any(|b| Some(b) != digits.first());
    let mixed =
        digits.iter().any(u8::is_ascii_uppercase) && digits.iter().any(u8::is_ascii_lowercase);
    digits.iter().all(u8::is_ascii_hexdigit) && varied && (!mixed || has_eip55_case(digits))
}

/// A letter is a capital where the hash of the small ones has a nibble of eight or more.
fn has_eip55_case(digits: &[u8]) -> bool {
    let hash = keccak256(&digits.to_ascii_lowercase());
    let nibbles = hash.iter().flat_map(|b| [b >> 4, b & 15]);
    digits
        .iter()
        .zip(nibbles)
        .filter(|(digit, _)| digit.is_ascii_alphabetic())
        .all(|(digit, nibble)| digit.is_ascii_uppercase() == (nibble >= 8))
}

fn is_base58(text: &[u8]) -> bool {
    let known = |payload: Vec<u8>| {
        let version = payload.first().copied().unwrap_or(u8::MAX);
        let transparent = matches!(payload[..], [0x1c, 0xb8 | 0xbd, ..]) && payload.len() == 22;
        let tezos =
            matches!(payload[..], [0x06, 0xa1, 0x9f | 0xa1 | 0xa4, ..]) && payload.len() == 23;
        transparent || tezos || (payload.len() == 21 && VERSIONS.contains(&version))
    };
    let short = (25..=36).contains(&text.len());
    let ripple = || text.starts_with(b"r") && base58check(text, RIPPLE).is_some_and(known);
    short && (base58check(text, BITCOIN).is_some_and(known) || ripple())
}

fn is_bech32(text: &[u8]) -> bool {
    let prefix = text.iter().take_while(|b| b.is_ascii_alphabetic()).count();
    let known = text
        .get(..prefix)
        .is_some_and(|prefix| PREFIXES.iter().any(|known| prefix.eq_ignore_ascii_case(known)));
    known && bech32(text)
}

#[cfg(test)]
mod tests {
    use super::super::PiiKind;
    use super::super::testing::check;

    #[test]
    fn wallets() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Crypto, text, expected);
        for address in [
            "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
            "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
            "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq",
            "bc1p5d7rjq7g6rdk2yhzks9smlaqtedr4dekq08ge8ztwac72sfr9rusxg3297",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
            "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh",
            "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t",
            "tz1VSUr8wwNhLAzempoch5d6hLRiTh8Cjcjb",
            "GA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJVSGZ",
        ] {
            check(&format!("pay {address}, now"), &[address]);
        }
        check("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb", &[]);
        check("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdp", &[]);
        check("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed", &[]);
        check("x1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", &[]);
    }
}
