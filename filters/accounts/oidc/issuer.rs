//! An issuer as it is configured, and what makes a configuration unsafe.

use std::collections::BTreeMap;
use std::fmt;

use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};

use super::fetch::is_safe_url;
use crate::accounts::AccountRole;
use crate::accounts::claims::ISSUER;

/// Longest name of an issuer.
const MAX_NAME_BYTES: usize = 64;

/// An OpenID provider whose tokens are accepted.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct Issuer {
    /// 1 to 64 of `a-z 0-9 . _ -`; the accounts of its users are named `<name>:<user>`.
    pub name: String,
    /// The `iss` of its tokens, exactly.
    pub issuer: String,
    /// What the `aud` of its tokens must have.
    pub audience: String,
    /// Where its keys are. `None`: where its discovery document says (OpenID Connect Discovery 1.0
    /// section 4), which must name exactly this issuer.
    pub jwks_url: Option<String>,
    /// The algorithms that its tokens may have.
    pub algorithms: Vec<IssuerAlgorithm>,
    /// The claim that names the user: 1 to 64 of `A-Z a-z 0-9 . _ @ -`, taken in lower case, so the
    /// issuer must not have two users who differ in case only. With `email`, the claim
    /// `email_verified` must be `true`, too: otherwise a user could claim the address of another.
    pub username_claim: String,
    /// The claim that has the roles: a text or a list of texts. A name that starts with `/` is a
    /// JSON pointer (RFC 6901), such as `/realm_access/roles`.
    pub role_claim: Option<String>,
    /// What the roles of the issuer are here; of several the highest counts, others mean nothing.
    pub role_map: BTreeMap<String, AccountRole>,
    /// The role of users of whom the claim says nothing; `None`: they are refused.
    pub default_role: Option<AccountRole>,
}

impl Issuer {
    /// Where the discovery document is.
    pub(super) fn discovery_url(&self) -> String {
        let base = self.issuer.strip_suffix('/').unwrap_or(&self.issuer);
        [base, "/.well-known/openid-configuration"].concat()
    }

    pub(super) fn wrong(&self, why: &'static str) -> IssuerError {
        IssuerError { name: self.name.clone(), why }
    }

    /// Refuses what could never verify a token, or verify it unsafely.
    pub(super) fn check(&self) -> Result<(), IssuerError> {
        let url = self.jwks_url.as_deref().unwrap_or(&self.issuer);
        let mapped = self.role_claim.is_some() && !self.role_map.is_empty();
        let rules = [
            (is_name(&self.name), "the name is not 1 to 64 of a-z 0-9 . _ -"),
            (self.issuer != ISSUER, "the issuer is that of the gateway itself"),
            (!self.issuer.is_empty(), "the issuer is empty"),
            (!self.audience.is_empty(), "the audience is empty"),
            (!self.algorithms.is_empty(), "no algorithm is allowed"),
            (!self.username_claim.is_empty(), "the username claim is empty"),
            (mapped || self.default_role.is_some(), "no role can come of it: map or default one"),
            (is_safe_url(url), "the keys are not at an https URL"),
            (!self.issuer.contains(['?', '#']), "the issuer has a query or a fragment"),
        ];
        let broken = rules.into_iter().find(|(holds, _)| !holds);
        broken.map_or(Ok(()), |(_, why)| Err(self.wrong(why)))
    }
}

/// What is wrong with the configuration of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IssuerError {
    /// Name of the issuer.
    pub name: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for IssuerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "issuer {:?}: {}", self.name, self.why)
    }
}

impl std::error::Error for IssuerError {}

/// An algorithm of foreign tokens. Symmetric ones and `none` are not among them, so a public key is
/// never taken for a secret (RFC 8725 section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "a new one needs keys of its type")]
pub enum IssuerAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256, 2048 to 4096 bits
    #[serde(rename = "RS256")]
    Rs256,
    /// RSASSA-PSS with SHA-256, 2048 to 4096 bits
    #[serde(rename = "PS256")]
    Ps256,
    /// ECDSA on P-256 with SHA-256
    #[serde(rename = "ES256")]
    Es256,
    /// ECDSA on P-384 with SHA-384
    #[serde(rename = "ES384")]
    Es384,
    /// Ed25519
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl IssuerAlgorithm {
    /// Those that are allowed if nothing else is configured.
    pub const DEFAULT: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    /// All of them.
    pub const ALL: [Self; 5] = [Self::Rs256, Self::Ps256, Self::Es256, Self::Es384, Self::EdDsa];

    /// The name in headers and keys (RFC 7518 section 3.1, RFC 8037 section 3.1).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(super) const fn algorithm(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Ps256 => Algorithm::PS256,
            Self::Es256 => Algorithm::ES256,
            Self::Es384 => Algorithm::ES384,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

fn is_name(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}
