//! Services: backends whose word is taken for who their users are.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::roles::RoleName;
use super::secret::SecretRef;
use super::units;

/// A backend that says on behalf of which user it calls, and proves itself by a signature under a
/// shared secret or by a client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name in its header, in logs and in audit records: 1 to 32 of `a-z 0-9 -`.
    pub name: String,
    /// The role that it and its users have.
    pub role: RoleName,
    /// 32 bytes or more: signs its requests with HMAC-SHA256.
    #[serde(default)]
    pub secret: Option<SecretRef>,
    /// Its client certificates.
    #[serde(default)]
    pub certificates: Vec<Fingerprint>,
    /// How far its clock may be away from ours.
    #[serde(default = "a_minute", with = "units::word")]
    pub max_skew: Duration,
}

const fn a_minute() -> Duration {
    Duration::from_secs(60)
}

/// SHA-256 of a certificate in DER, written as 64 hexadecimal digits; colons do not count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        hex(&text).map(Self).ok_or(
            "this is not the SHA-256 fingerprint of a certificate\n\
             64 hexadecimal digits: openssl x509 -in cert.pem -noout -fingerprint -sha256",
        )
    }
}

/// A digit at a time, so that a text of any length costs no memory.
fn hex(text: &str) -> Option<[u8; 32]> {
    let mut digits = text.chars().filter(|&c| c != ':').map(|c| c.to_digit(16));
    let mut bytes = [0; 32];
    for byte in &mut bytes {
        let (high, low) = (digits.next()??, digits.next()??);
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    digits.next().is_none().then_some(bytes)
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints() {
        let plain = "0f".repeat(32);
        let colons = format!("0F{}", ":0F".repeat(31));
        for (text, ok) in [
            (plain.clone(), true),
            (colons, true),
            (plain.replace('f', "F"), true),
            (format!("{plain}0"), false),
            (format!("{plain}0f"), false),
            ("0f".repeat(31), false),
            (plain.replacen('0', "g", 1), false),
            (plain.replacen('0', " ", 1), false),
            (String::new(), false),
        ] {
            let found = Fingerprint::try_from(text.clone());
            assert_eq!(found.is_ok(), ok, "{text}");
            if let Ok(found) = found {
                assert_eq!((found.as_bytes(), found.to_string()), (&[15; 32], plain.clone()));
            }
        }
    }
}
