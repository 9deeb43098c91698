//! The permission table: who may do what with accounts, in one place.
//!
//! | permission | least role | scope | credential | step-up |
//! |---|---|---|---|---|
//! | see one's own account | `read_only` | | any | |
//! | end and list one's own sessions, change one's password | `read_only` | | login | |
//! | set up one's own second factor | `read_only` | | login | |
//! | make, list, rotate, revoke one's own API keys | `user` | | login | |
//! | make scoped tokens | `user` | | login or key | |
//! | revoke a token that one holds | `read_only` | | any | |
//! | list users, and the sessions and keys of others | `admin` | `users:write` | any but a scoped token | |
//! | make users | `admin` | `users:write` | any but a scoped token | |
//! | disable, enable, remove users, reset password or second factor, revoke | `admin` | `users:write` | any but a scoped token | |
//! | change roles | `admin` | `users:write` | login | always |
//! | make, rotate, revoke API keys of others | `admin` | `users:write` | login | making and rotating |
//! | see and change limits and use of all, and what is tightened in an emergency | `admin` | `quotas:write` | any but a scoped token | |
//! | revoke everything | `owner` | `users:write` | login | always |
//!
//! Beside the table two rules hold: nobody grants a role above their own ([`may_grant`]), and
//! nobody acts on a user who is not below them, except an owner ([`may_act_on`]).
//! [`Permission::rule`] is the table in code; a test compares the two.

use super::AccountRole;

/// Something that can be done with accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each has a row in the table")]
pub enum Permission {
    /// See one's own account.
    OwnAccount,
    /// End and list one's own sessions, change one's password.
    OwnSessions,
    /// Set up one's own second factor.
    OwnMfa,
    /// Make, list, rotate, revoke one's own API keys.
    OwnKeys,
    /// Make scoped tokens.
    MintTokens,
    /// Revoke a token that one holds.
    RevokeHeldToken,
    /// List users, and the sessions and keys of others.
    ReadUsers,
    /// Make users.
    CreateUsers,
    /// Disable, enable, remove users, reset password or second factor, revoke.
    ManageUsers,
    /// Change roles.
    ChangeRoles,
    /// Make, rotate, revoke API keys of others.
    ManageKeys,
    /// See and change limits and use of all, and what is tightened in an emergency.
    Limits,
    /// Revoke everything.
    RevokeAll,
}

/// With what a caller was identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each opens other doors")]
pub enum Credential {
    /// A user token of this gateway or of an external issuer: a person who logged in.
    Login,
    /// An API key.
    Key,
    /// A scoped token.
    ScopedToken,
    /// The word of a trusted service.
    Service,
    /// None: development mode.
    Development,
}

/// Which credentials are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the column of the table")]
pub enum Accepts {
    /// Every credential.
    Any,
    /// Every credential but a scoped token, which exists to do less.
    NotScoped,
    /// A login or an API key.
    LoginOrKey,
    /// Only a login: a key that leaks must not make others.
    Login,
}

/// Whether a fresh code of the second factor is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the column of the table")]
pub enum StepUp {
    /// Never.
    No,
    /// Always.
    Always,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the table is public")]
pub struct Rule {
    /// The least role.
    pub role: AccountRole,
    /// The scope that role, key and token must hold.
    pub scope: Option<&'static str>,
    /// Which credentials are accepted.
    pub accepts: Accepts,
    /// Whether a code of the second factor is asked for.
    pub step_up: StepUp,
}

impl Permission {
    /// Every permission, in the order of the table.
    pub const ALL: [Self; 13] = [
        Self::OwnAccount,
        Self::OwnSessions,
        Self::OwnMfa,
        Self::OwnKeys,
        Self::MintTokens,
        Self::RevokeHeldToken,
        Self::ReadUsers,
        Self::CreateUsers,
        Self::ManageUsers,
        Self::ChangeRoles,
        Self::ManageKeys,
        Self::Limits,
        Self::RevokeAll,
    ];

    /// Its row.
    #[must_use]
    #[rustfmt::skip] // a table: one permission a row
    pub const fn rule(self) -> Rule {
        use AccountRole::{Admin, Owner, ReadOnly, User};
        use Accepts::{Any, Login, LoginOrKey, NotScoped};
        use StepUp::{Always, No};
        const USERS: Option<&str> = Some("users:write");
        const QUOTAS: Option<&str> = Some("quotas:write");
        match self {
            Self::OwnAccount      => row(ReadOnly, None,  Any,       No),
            Self::OwnSessions     => row(ReadOnly, None,  Login,     No),
            Self::OwnMfa          => row(ReadOnly, None,  Login,     No),
            Self::OwnKeys         => row(User,     None,  Login,     No),
            Self::MintTokens      => row(User,     None,  LoginOrKey, No),
            Self::RevokeHeldToken => row(ReadOnly, None,  Any,       No),
            Self::ReadUsers       => row(Admin,    USERS, NotScoped, No),
            Self::CreateUsers     => row(Admin,    USERS, NotScoped, No),
            Self::ManageUsers     => row(Admin,    USERS, NotScoped, No),
            Self::ChangeRoles     => row(Admin,    USERS, Login,     Always),
            Self::ManageKeys      => row(Admin,    USERS, Login,     Always),
            Self::Limits          => row(Admin,    QUOTAS, NotScoped, No),
            Self::RevokeAll       => row(Owner,    USERS, Login,     Always),
        }
    }

    /// Whether someone who must set up a second factor first may do it.
    #[must_use]
    pub const fn is_open_before_enrolment(self) -> bool {
        matches!(self, Self::OwnAccount | Self::OwnSessions | Self::OwnMfa)
    }
}

const fn row(
    role: AccountRole,
    scope: Option<&'static str>,
    accepts: Accepts,
    step_up: StepUp,
) -> Rule {
    Rule { role, scope, accepts, step_up }
}

impl Accepts {
    /// Whether this credential is among them.
    #[must_use]
    pub const fn includes(self, credential: Credential) -> bool {
        match self {
            Self::Any => true,
            Self::NotScoped => !matches!(credential, Credential::ScopedToken),
            Self::LoginOrKey => matches!(credential, Credential::Login | Credential::Key),
            Self::Login => matches!(credential, Credential::Login),
        }
    }
}

/// Whether someone may give this role to another: none above their own.
#[must_use]
pub fn may_grant(own: AccountRole, role: AccountRole) -> bool {
    role <= own
}

/// Whether someone may change or revoke another of this role: those below, an owner everyone.
#[must_use]
pub fn may_act_on(own: AccountRole, other: AccountRole) -> bool {
    own == AccountRole::Owner || other < own
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn role() -> impl Strategy<Value = AccountRole> {
        proptest::sample::select(AccountRole::ALL.to_vec())
    }

    /// The columns of the table in the documentation of this file.
    fn documented() -> Vec<Vec<String>> {
        let rows = include_str!("permission.rs").lines();
        let rows = rows.filter_map(|line| line.strip_prefix("//! | ")).skip(1);
        rows.map(|row| row.trim_end_matches('|').split('|').map(|c| c.trim().to_owned()).collect())
            .collect()
    }

    #[test]
    fn the_documented_table_is_the_one_in_code() {
        let documented = documented();
        assert_eq!(documented.len(), Permission::ALL.len());
        for (permission, row) in Permission::ALL.into_iter().zip(documented) {
            let rule = permission.rule();
            let accepts = match rule.accepts {
                Accepts::Any => "any",
                Accepts::NotScoped => "any but a scoped token",
                Accepts::LoginOrKey => "login or key",
                Accepts::Login => "login",
            };
            let scope = rule.scope.map_or(String::new(), |scope| format!("`{scope}`"));
            assert_eq!(row[1..4], [format!("`{}`", rule.role), scope, accepts.to_owned()]);
            assert_eq!(row[4].is_empty(), rule.step_up == StepUp::No, "{permission:?}");
        }
    }

    #[test]
    fn what_only_admins_do_needs_a_scope_too() {
        for permission in Permission::ALL {
            let rule = permission.rule();
            assert_eq!(rule.role >= AccountRole::Admin, rule.scope.is_some(), "{permission:?}");
            assert!(rule.step_up == StepUp::No || rule.accepts == Accepts::Login);
        }
    }

    #[test]
    fn a_leaked_key_makes_no_keys() {
        for permission in [Permission::OwnKeys, Permission::ManageKeys, Permission::OwnMfa] {
            let accepts = permission.rule().accepts;
            assert!(accepts.includes(Credential::Login));
            for credential in [
                Credential::Key,
                Credential::ScopedToken,
                Credential::Service,
                Credential::Development,
            ] {
                assert!(!accepts.includes(credential), "{permission:?} {credential:?}");
            }
        }
    }

    #[test]
    fn everyone_grants_up_to_the_own_role() {
        use AccountRole::{Admin, Owner, ReadOnly, User};
        for (own, grants) in [
            (ReadOnly, &[ReadOnly][..]),
            (User, &[ReadOnly, User]),
            (Admin, &[ReadOnly, User, Admin]),
            (Owner, &[ReadOnly, User, Admin, Owner]),
        ] {
            for role in AccountRole::ALL {
                assert_eq!(may_grant(own, role), grants.contains(&role), "{own} {role}");
            }
        }
    }

    proptest! {
        /// Granting can never lift anyone above the one who grants, whatever the chain.
        #[test]
        fn no_chain_of_grants_climbs(first in role(), chain in prop::collection::vec(role(), 0..8)) {
            let mut holder = first;
            for role in chain {
                if may_grant(holder, role) {
                    prop_assert!(role <= holder);
                    holder = role;
                }
            }
            prop_assert!(holder <= first);
        }

        #[test]
        fn nobody_but_an_owner_acts_on_equals_or_superiors(own in role(), other in role()) {
            let allowed = may_act_on(own, other);
            prop_assert_eq!(allowed, own == AccountRole::Owner || other < own);
            prop_assert!(!(allowed && other > own));
        }
    }
}
