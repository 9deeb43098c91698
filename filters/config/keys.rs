//! The gateway's own keys: where they are, and which old ones are still accepted.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::secret::SecretRef;
use super::units;

/// Where the gateway's own keys are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretRefs {
    /// Ed25519 PKCS#8 PEM (RFC 8410): signs user tokens.
    pub signing_key: Option<SecretRef>,
    /// 32 bytes or more: signs scoped tokens with HS256 (RFC 7518 section 3.2).
    pub token_key: Option<SecretRef>,
    /// 32 bytes or more: keys the digests of API keys.
    pub key_pepper: Option<SecretRef>,
    /// 32 bytes or more: seals the sensitive columns of the account store.
    pub store_key: Option<SecretRef>,
    /// The `store_key` before this one: what it sealed is still read.
    pub store_key_previous: Option<SecretRef>,
    /// Keys that sign nothing any more, and whose tokens are still accepted.
    pub accept: Vec<Accepted>,
}

/// A key whose tokens are still accepted: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Accepted {
    /// An old or a coming `signing_key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<SecretRef>,
    /// An old or a coming `token_key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_key: Option<SecretRef>,
    /// When its tokens stop being accepted; none is when the entry is removed.
    #[serde(with = "units::optional")]
    pub until: Option<Timestamp>,
}

impl Accepted {
    /// What the key is for, its name in the file, and where it is; the signing key if there are
    /// two, and nothing if there is none.
    pub(super) fn key(&self) -> Option<(KeyKind, &'static str, &SecretRef)> {
        let signing = self.signing_key.as_ref();
        let token = self.token_key.as_ref();
        signing
            .map(|place| (KeyKind::Signing, "signing_key", place))
            .or_else(|| token.map(|place| (KeyKind::Token, "token_key", place)))
    }
}

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519 private key in PKCS#8 PEM.
    Signing,
    /// A symmetric key of 32 bytes or more.
    Token,
}

/// The value of an [`Accepted`] key. `Debug` does not show it.
#[derive(Clone, Debug)]
pub struct AcceptedKey {
    /// What it signed.
    pub kind: KeyKind,
    /// The key itself.
    pub value: SecretString,
    /// When its tokens stop being accepted; none is never.
    pub until: Option<Timestamp>,
}
