//! Who may come in, and how much they may use: users, API keys, roles, quotas.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::secret::PasswordRef;
use super::units;

/// The scopes that exist. `llm:*` stands for all with that prefix, `*` for all.
pub const SCOPES: [&str; 8] = [
    "llm:generate",
    "llm:embed",
    "models:read",
    "models:manage",
    "scan",
    "audit:read",
    "users:write",
    "metrics:read",
];

/// Who may come in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// The people, who log in with a password.
    pub users: Vec<User>,
    /// The keys of programs.
    pub api_keys: Vec<ApiKey>,
    /// What a password check costs.
    pub password_profile: PasswordProfile,
    /// How long a user token is valid.
    #[serde(with = "units::word")]
    pub user_token_ttl: Duration,
    /// How long a scoped token is valid.
    #[serde(with = "units::word")]
    pub llm_token_ttl: Duration,
    /// How logins are throttled.
    pub login: Login,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            users: Vec::new(),
            api_keys: Vec::new(),
            password_profile: PasswordProfile::Owasp,
            user_token_ttl: Duration::from_secs(15 * 60),
            llm_token_ttl: Duration::from_secs(60),
            login: Login::default(),
        }
    }
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
}

fn every_model() -> Vec<String> {
    vec!["*".to_owned()]
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
             copy it from the output of `portcullis key create`",
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

/// The roles, most powerful first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// Owns the gateway.
    Owner,
    /// Runs the gateway.
    Admin,
    /// Uses models.
    User,
    /// Looks only.
    ReadOnly,
}

impl RoleName {
    /// Every role, most powerful first.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Admin, Self::User, Self::ReadOnly];

    /// The name in configs, tokens and audit records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::User => "user",
            Self::ReadOnly => "read_only",
        }
    }
}

/// What each role may do. A role that the file does not name keeps the built-in block.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Roles {
    /// Owns the gateway.
    pub owner: Role,
    /// Runs the gateway.
    pub admin: Role,
    /// Uses models.
    pub user: Role,
    /// Looks only.
    pub read_only: Role,
}

impl Roles {
    /// What a role may do.
    #[must_use]
    pub const fn get(&self, name: RoleName) -> &Role {
        match name {
            RoleName::Owner => &self.owner,
            RoleName::Admin => &self.admin,
            RoleName::User => &self.user,
            RoleName::ReadOnly => &self.read_only,
        }
    }
}

impl Default for Roles {
    fn default() -> Self {
        Self {
            owner: Role::with(&["*"]),
            admin: Role::with(&["llm:*", "models:read", "scan"]),
            user: Role::with(&["llm:generate", "llm:embed", "models:read"]),
            read_only: Role::with(&["models:read"]),
        }
    }
}

/// What a role may do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// Scopes, see [`SCOPES`].
    pub scopes: Vec<String>,
    /// Patterns of model names, see [`crate::glob`].
    pub models: Vec<String>,
    /// The quota of each user with this role.
    #[serde(default = "default_name")]
    pub quota: String,
}

impl Role {
    fn with(scopes: &[&str]) -> Self {
        let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
        Self { scopes, models: every_model(), quota: default_name() }
    }
}

/// The name of the built-in quota and of the built-in firewall policy.
pub(super) fn default_name() -> String {
    "default".to_owned()
}

/// How much one user may use. What is left out has no limit, but for `burst`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Requests, on average.
    pub requests_per_minute: Option<u32>,
    /// Requests that may come at once before the average counts.
    pub burst: u32,
    /// Requests that run at one time.
    pub concurrent: Option<u32>,
    /// Prompt and answer tokens in a minute.
    pub tokens_per_minute: Option<u64>,
    /// Prompt and answer tokens in an hour.
    pub tokens_per_hour: Option<u64>,
    /// Prompt and answer tokens in a day.
    pub tokens_per_day: Option<u64>,
    /// GPU time in a minute.
    pub gpu_seconds_per_minute: Option<u64>,
    /// GPU time in an hour.
    pub gpu_seconds_per_hour: Option<u64>,
    /// GPU time in a day.
    pub gpu_seconds_per_day: Option<u64>,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            requests_per_minute: None,
            burst: 20,
            concurrent: None,
            tokens_per_minute: None,
            tokens_per_hour: None,
            tokens_per_day: None,
            gpu_seconds_per_minute: None,
            gpu_seconds_per_hour: None,
            gpu_seconds_per_day: None,
        }
    }
}

/// The quota of everyone who is given no other.
pub(super) fn default_quotas() -> BTreeMap<String, Quota> {
    let quota = Quota { requests_per_minute: Some(100), concurrent: Some(16), ..Quota::default() };
    BTreeMap::from([(default_name(), quota)])
}

/// Quotas of the file join the built-in one, and replace it where they have its name.
pub(super) fn quotas<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Quota>, D::Error> {
    let mut quotas = default_quotas();
    quotas.append(&mut BTreeMap::deserialize(deserializer)?);
    Ok(quotas)
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

    #[test]
    fn roles_are_named_as_in_the_file() {
        for role in RoleName::ALL {
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{}\"", role.as_str()));
        }
        assert!(Roles::default().get(RoleName::Owner).scopes.contains(&"*".to_owned()));
        assert_eq!(Roles::default().get(RoleName::ReadOnly).scopes, ["models:read"]);
    }
}
