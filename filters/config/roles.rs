//! What each role may do: its scopes, models and quota.

use serde::{Deserialize, Serialize};

use super::quota::default_name;

/// The scopes that exist. `llm:*` stands for all with that prefix, `*` for all.
pub const SCOPES: [&str; 9] = [
    "llm:generate",
    "llm:embed",
    "models:read",
    "models:manage",
    "scan",
    "audit:read",
    "users:write",
    "quotas:write",
    "metrics:read",
];

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
            admin: Role::with(&[
                "llm:*",
                "models:read",
                "scan",
                "users:write",
                "quotas:write",
                "audit:read",
                "metrics:read",
            ]),
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
    /// The share of an upstream's queue that each user with this role has, against others.
    #[serde(default = "one")]
    pub weight: u32,
}

const fn one() -> u32 {
    1
}

impl Role {
    fn with(scopes: &[&str]) -> Self {
        let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
        Self { scopes, models: every_model(), quota: default_name(), weight: 1 }
    }
}

/// What a list of models is where none is given.
pub(super) fn every_model() -> Vec<String> {
    vec!["*".to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_named_as_in_the_file() {
        for role in RoleName::ALL {
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{}\"", role.as_str()));
        }
        assert!(Roles::default().get(RoleName::Owner).scopes.contains(&"*".to_owned()));
        assert_eq!(Roles::default().get(RoleName::ReadOnly).scopes, ["models:read"]);
    }
}
