//! Who may come in: users, API keys, second factors, and the modes of authentication.
//!
//! The account store holds users and keys too; those of the file are declared, and changed only
//! here.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::oidc::Oidc;
use super::roles::{RoleName, every_model};
use super::secret::PasswordRef;
use super::service::Service;
use super::units;

/// Who may come in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Whether a caller must say who it is.
    pub mode: AuthMode,
    /// The people, who log in with a password.
    pub users: Vec<User>,
    /// The keys of programs.
    pub api_keys: Vec<ApiKey>,
    /// What the keys in the environment may do; none is not to look for any.
    pub environment_keys: Option<EnvironmentKeys>,
    /// What a password check costs.
    pub password_profile: PasswordProfile,
    /// A text file of passwords that nobody may take, one a line.
    pub password_blocklist: Option<PathBuf>,
    /// The second factor.
    pub mfa: Mfa,
    /// How long a user token is valid.
    #[serde(with = "units::word")]
    pub user_token_ttl: Duration,
    /// How long a scoped token is valid.
    #[serde(with = "units::word")]
    pub llm_token_ttl: Duration,
    /// What scoped tokens are signed with.
    pub llm_token_algorithm: LlmTokenAlgorithm,
    /// How logins are throttled.
    pub login: Login,
    /// Issuers whose tokens are taken as logins.
    pub oidc: Vec<Oidc>,
    /// Backends whose word is taken for who their users are.
    pub services: Vec<Service>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: AuthMode::Required,
            users: Vec::new(),
            api_keys: Vec::new(),
            environment_keys: None,
            password_profile: PasswordProfile::Owasp,
            password_blocklist: None,
            mfa: Mfa::default(),
            user_token_ttl: Duration::from_secs(15 * 60),
            llm_token_ttl: Duration::from_secs(60),
            llm_token_algorithm: LlmTokenAlgorithm::Hs256,
            login: Login::default(),
            oidc: Vec::new(),
            services: Vec::new(),
        }
    }
}

/// Whether a caller must say who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// Every request carries a credential.
    Required,
    /// One without a credential passes too, on loopback only.
    Development,
}

/// Someone who logs in with a password.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// 1 to 64 of `A-Z a-z 0-9 . _ @ -`; capitals make no difference.
    pub name: String,
    /// What the user may do.
    pub role: RoleName,
    /// Where the Argon2id hash (PHC string) of the password is.
    pub password_hash: PasswordRef,
}

/// A key that a program sends.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// The public part of the key: 12 letters and digits.
    pub id: String,
    /// What the key is for, for people.
    #[serde(default)]
    pub name: String,
    /// The user whose role and quota bound the key.
    pub user: String,
    /// What is stored instead of the key.
    pub digest: KeyDigest,
    /// What the key may do; never more than its user.
    pub scopes: Vec<String>,
    /// Patterns of the models it may use; never more than its user.
    #[serde(default = "every_model")]
    pub models: Vec<String>,
    /// When it stops working.
    #[serde(default, with = "units::optional")]
    pub expires: Option<Timestamp>,
    /// Networks that it may be used from; empty is everywhere.
    #[serde(default, with = "units::list")]
    pub networks: Vec<IpNet>,
    /// The name of a quota that bounds it beside its user's.
    #[serde(default)]
    pub quota: Option<String>,
}

/// What the keys in the variables `API_KEY` and `ADDITIONAL_API_KEYS` may do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnvironmentKeys {
    /// The role whose quota they have, and that bounds them.
    pub role: RoleName,
    /// What they may do; never more than their role.
    pub scopes: Vec<String>,
    /// Patterns of the models they may use; never more than their role.
    pub models: Vec<String>,
}

impl Default for EnvironmentKeys {
    fn default() -> Self {
        let scopes = ["llm:generate", "llm:embed", "models:read"];
        Self {
            role: RoleName::User,
            scopes: scopes.map(str::to_owned).to_vec(),
            models: every_model(),
        }
    }
}

/// HMAC-SHA256 (RFC 2104) of an API key under the pepper, written as base64url without padding.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<String> for KeyDigest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(
            "the digest of an API key is 43 characters of base64url\n\
             copy it from the output of `portcullis key generate`",
        )
    }
}

impl From<KeyDigest> for String {
    fn from(digest: KeyDigest) -> Self {
        URL_SAFE_NO_PAD.encode(digest.0)
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// What a password check costs (RFC 9106).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PasswordProfile {
    /// Argon2id with 19 MiB, two passes, one lane: the OWASP password storage cheat sheet.
    Owasp,
    /// Argon2id with 128 MiB, three passes, eight lanes.
    Strong,
}

/// The second factor: codes of an authenticator app (RFC 6238).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mfa {
    /// The roles that can do nothing before they have one, but set it up.
    pub required_for: Vec<RoleName>,
    /// The name that authenticator apps show.
    pub issuer: String,
}

impl Default for Mfa {
    fn default() -> Self {
        Self { required_for: Vec::new(), issuer: "Portcullis".to_owned() }
    }
}

/// What scoped tokens are signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LlmTokenAlgorithm {
    /// HMAC-SHA256 (RFC 7518 section 3.2) under `token_key`: only the gateway can check them.
    Hs256,
    /// Ed25519 (RFC 8037) with `signing_key`: everyone can check them, and it costs ten times more.
    Eddsa,
}

/// How logins are throttled.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Login {
    /// Password checks at one time.
    pub concurrent: usize,
    /// Logins that wait for a check.
    pub queue: usize,
    /// Failures in a window, of one account from one address; of one address ten times as many.
    pub max_failures: u32,
    /// The window that failures are counted in.
    #[serde(with = "units::word")]
    pub window: Duration,
}

impl Default for Login {
    fn default() -> Self {
        Self { concurrent: 1, queue: 32, max_failures: 10, window: Duration::from_secs(15 * 60) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_32_bytes_of_base64url() {
        let good = "Dw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8";
        for (text, ok) in [
            (good.to_owned(), true),
            (format!("{good}="), false),
            (format!("{good}Dw8P"), false),
            (good.replacen('D', "é", 1), false),
            ("0f".repeat(32), false),
            (String::new(), false),
        ] {
            let digest = KeyDigest::try_from(text.clone());
            assert_eq!(digest.is_ok(), ok, "{text}");
            if let Ok(digest) = digest {
                assert_eq!(digest.as_bytes(), &[15; 32]);
                assert_eq!(format!("{digest:?}"), "[REDACTED]");
                assert_eq!(String::from(digest), text);
            }
        }
    }
}
