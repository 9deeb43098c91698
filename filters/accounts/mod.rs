//! Accounts: passwords, API keys and tokens. The only room that holds secrets.
//!
//! | file | story |
//! |---|---|
//! | [`password`] | Argon2id hashes: made, read and checked, and the decoy that makes refusals cost the same |
//! | [`policy`] | which new passwords are acceptable: long, hard to guess, not known to everybody |
//! | [`totp`] | the second factor: time-based codes, their QR codes, and backup codes |
//! | [`name`] | what accounts may be called |
//! | [`login`] | one desk where passwords and codes are checked, and failures are charged |
//! | `exam` | the password check itself: a bounded queue, and the same work for every refusal |
//! | [`api_key`] | `sk_…` keys: made, parsed, and found in a ring of digests |
//! | [`keys`] | the keys that sign tokens: generated, judged, named |
//! | `claims` | what a token says, and the strict reading of it |
//! | [`token`] | user tokens (EdDSA) and scoped tokens (HS256): issued and verified |
//! | [`oidc`] | tokens of external issuers: their keys, fetched and cached, and roles from claims |
//! | [`store`] | users, keys, sessions and failures, in SQLite or Postgres: the truth |
//! | [`directory`] | the copy of it that every request looks into |
//! | [`permission`] | who may do what with accounts, in one table |
//! | [`service`] | the operations on accounts: what the endpoints and the command line share |
//!
//! Secrets come in as `SecretString` or `SecretSlice`, are wiped from memory when they are dropped
//! where the crates allow it, and never appear in `Debug`, in an error or in a [`Denial`].
//! Nothing here knows a request: this room keeps the accounts and says whether what was presented
//! is genuine.
//!
//! [`Denial`]: crate::verdict::Denial

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub mod api_key;
mod claims;
pub mod directory;
mod exam;
mod jws;
pub mod keys;
pub mod login;
pub mod name;
pub mod oidc;
pub mod password;
pub mod permission;
pub mod policy;
pub mod service;
pub mod store;
pub mod token;
pub mod totp;

pub use api_key::{ApiKey, ApiKeyError, KeyDigest, KeyId, Keyring, Pepper};
pub use keys::{KeyError, generate_secret, generate_signing_key_pem};
pub use login::{Attempt, LoggedIn, LoginDesk, LoginLimits, Rehash};
pub use name::{account_name, known_name};
pub use password::{Decoy, PasswordError, PasswordHash, Profile};
pub use policy::{Blocklist, Unacceptable};
pub use store::{SqlStore, Store, StoreError};
pub use token::{
    IssueError, Issued, Life, ScopedGrant, ScopedToken, TokenError, TokenService, Ttls, UserToken,
    Verified,
};

/// What an account may administer. The order is the rank: a role covers all that are smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountRole {
    /// Sees models, runs nothing.
    ReadOnly,
    /// Uses models.
    User,
    /// Manages users, keys and incidents.
    Admin,
    /// Everything, and the only role that makes admins.
    Owner,
}

impl AccountRole {
    /// All roles, the smallest first.
    pub const ALL: [Self; 4] = [Self::ReadOnly, Self::User, Self::Admin, Self::Owner];

    /// The name in configuration, tokens and audit records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::User => "user",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

impl fmt::Display for AccountRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not the name of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownRole;

impl fmt::Display for UnknownRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown role, expected owner, admin, user or read_only")
    }
}

impl std::error::Error for UnknownRole {}

impl FromStr for AccountRole {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == name).ok_or(UnknownRole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ranked() {
        assert!(AccountRole::ALL.is_sorted_by(|low, high| low < high));
    }

    #[test]
    fn every_role_has_one_name_everywhere() {
        for role in AccountRole::ALL {
            let json = format!("\"{role}\"");
            assert_eq!(role.as_str().parse(), Ok(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), json);
            assert_eq!(serde_json::from_str::<AccountRole>(&json).unwrap(), role);
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["", "root", "Owner", "ReadOnly", "read-only", "owner "] {
            assert_eq!(name.parse::<AccountRole>(), Err(UnknownRole), "{name:?}");
        }
    }
}
