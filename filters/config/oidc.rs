//! External issuers (OpenID Connect), whose tokens are taken as logins.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::roles::RoleName;
use super::url::WebUrl;

/// An issuer, and what is read from its tokens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// Its name in logs and in the names of its users: 1 to 32 of `a-z 0-9 -`.
    pub name: String,
    /// The `iss` of its tokens, letter by letter.
    pub issuer: WebUrl,
    /// What `aud` of its tokens must hold.
    pub audience: String,
    /// Where its keys are; none is to ask its discovery document.
    #[serde(default)]
    pub jwks_url: Option<WebUrl>,
    /// The algorithms that it signs with.
    #[serde(default = "every_algorithm")]
    pub algorithms: Vec<OidcAlgorithm>,
    /// The claim with the name of the user; with `email` the address must be verified too.
    #[serde(default = "subject")]
    pub username_claim: String,
    /// The claim with roles or groups: a text or a list. A name that starts with `/` is a JSON
    /// pointer (RFC 6901).
    #[serde(default)]
    pub role_claim: Option<String>,
    /// What the values of `role_claim` stand for; the most powerful one counts.
    #[serde(default)]
    pub role_map: BTreeMap<String, RoleName>,
    /// The role of users whom `role_map` gives none; none is to refuse them.
    #[serde(default)]
    pub default_role: Option<RoleName>,
}

/// An algorithm of a signature (RFC 7518 section 3.1, RFC 8037). No symmetric one: who could check
/// could also sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub enum OidcAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl OidcAlgorithm {
    /// The name in the header of a token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

fn every_algorithm() -> Vec<OidcAlgorithm> {
    vec![OidcAlgorithm::Rs256, OidcAlgorithm::Es256, OidcAlgorithm::EdDsa]
}

fn subject() -> String {
    "sub".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_are_named_as_in_tokens() {
        for algorithm in every_algorithm() {
            let json = serde_json::to_string(&algorithm).unwrap();
            assert_eq!(json, format!("\"{}\"", algorithm.as_str()));
        }
    }
}
