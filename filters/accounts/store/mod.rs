//! The account store: users, API keys, sessions, revocations, and the failures of logins.
//!
//! | file | story |
//! |---|---|
//! | [`sql`] | [`SqlStore`]: SQLite in a file, or Postgres for several gateways; one set of statements |
//! | `schema` | the migrations, embedded and numbered |
//! | `standing` | what operators change while gateways run: limits, and a strict firewall |
//! | [`seal`] | columns that are encrypted at rest, and the rotation of their key |
//! | `tally` | how failed logins add up to a wait |
//!
//! The store is the truth; [`super::directory`] holds a copy of what every request needs. Each
//! change that the copies must learn of takes the next number of one counter in the same
//! transaction, so that a reader who has seen number `n` misses nothing that came after it.
//! Times are Unix seconds of the caller's clock.

mod schema;
pub mod seal;
pub mod sql;
mod standing;
#[cfg(test)]
mod suite;
mod tally;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use secrecy::SecretString;

use super::AccountRole;
use super::api_key::{KeyDigest, KeyId};
use crate::standing::SubjectName;

pub use schema::SCHEMA_VERSION;
pub use sql::{SqlStore, StoreOptions};
pub use standing::{EmergencyLimits, QuotaOverride, Standing, StrictFirewall};

/// Why the store did not do what was asked. Never contains a secret or a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each has its own answer")]
pub enum StoreError {
    /// It cannot be reached, is locked, full, or did not answer in time; the text is for operators.
    Unavailable(String),
    /// There is no such user, key or session.
    NotFound,
    /// There is one with this name already.
    Exists,
    /// The only enabled owner would be gone.
    LastOwner,
    /// It is declared in the configuration, and changed there.
    Declared,
    /// A sealed column cannot be opened or made: there is no key, or not the right one.
    Seal,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) => write!(f, "the account store is not available: {why}"),
            Self::NotFound => f.write_str("there is none of that name"),
            Self::Exists => f.write_str("there is one of that name already"),
            Self::LastOwner => f.write_str("the last enabled owner must stay"),
            Self::Declared => f.write_str("it is declared in the configuration: change it there"),
            Self::Seal => f.write_str(
                "store_key is missing, or is not the one that the store was sealed with",
            ),
        }
    }
}

impl std::error::Error for StoreError {}

/// What the operations of a [`Store`] give.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Where a user or key comes from, and so where it can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each is changed in another place")]
pub enum Source {
    /// Made through the API or the command line.
    Store,
    /// Declared in the configuration.
    Config,
    /// First seen in a token of an external issuer.
    Issuer,
}

impl Source {
    /// The name in the store and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Config => "config",
            Self::Issuer => "issuer",
        }
    }
}

/// A user. The second factor and the e-mail address are fetched apart.
#[derive(Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make them whole")]
pub struct User {
    /// Lower case.
    pub name: String,
    /// What the user may administer.
    pub role: AccountRole,
    /// Argon2id PHC string; `None` for users who do not log in with a password.
    pub password_hash: Option<String>,
    /// Whether nothing of the user is accepted.
    pub disabled: bool,
    /// Where it can be changed.
    pub source: Source,
    /// Whether a second factor is confirmed.
    pub mfa: bool,
    /// Tokens carry the epoch that they were issued in; those of an earlier one are void. It never
    /// falls, also when a user is removed and made again.
    pub epoch: u64,
    /// When it was made.
    pub created_at: u64,
    /// Who made it.
    pub created_by: String,
    /// When it last logged in.
    pub last_login_at: Option<u64>,
}

/// A user to be made.
#[derive(Clone)]
#[expect(clippy::exhaustive_structs, reason = "callers make them whole")]
pub struct NewUser {
    /// Lower case.
    pub name: String,
    /// What the user may administer.
    pub role: AccountRole,
    /// Argon2id PHC string.
    pub password_hash: Option<String>,
    /// Sealed at rest.
    pub email: Option<SecretString>,
    /// Where it comes from.
    pub source: Source,
}

/// What is changed of a user; `None` stays as it is.
#[derive(Clone, Default)]
#[expect(clippy::exhaustive_structs, reason = "callers make them with `..`")]
pub struct UserChange {
    /// Another role. Begins a new epoch when it takes rights away, except of a user of an issuer,
    /// whose tokens say the role themselves.
    pub role: Option<AccountRole>,
    /// Another password hash. Begins a new epoch.
    pub password_hash: Option<String>,
    /// Disabled or enabled again. Disabling begins a new epoch.
    pub disabled: Option<bool>,
    /// Another e-mail address, or none.
    pub email: Option<Option<SecretString>>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("role", &self.role)
            .field("disabled", &self.disabled)
            .field("mfa", &self.mfa)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for NewUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewUser({}, {})", self.name, self.role)
    }
}

impl fmt::Debug for UserChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserChange")
            .field("role", &self.role)
            .field("disabled", &self.disabled)
            .field("password", &self.password_hash.is_some())
            .field("email", &self.email.is_some())
            .finish()
    }
}

/// A key as it is stored.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "stores and callers make them whole")]
pub struct Key {
    /// The public part.
    pub id: KeyId,
    /// The user who owns it.
    pub user: String,
    /// What it is for, for people.
    pub name: String,
    /// What is stored of the secret.
    pub digest: KeyDigest,
    /// What it may do; never more than its user.
    pub scopes: Vec<String>,
    /// Patterns of models.
    pub models: Vec<String>,
    /// Networks that it may be used from; empty for all.
    pub networks: Vec<IpNet>,
    /// The name of a quota block that bounds it beside its user's.
    pub quota: Option<String>,
    /// When it stops working.
    pub expires_at: Option<u64>,
    /// When it was made.
    pub created_at: u64,
    /// Who made it.
    pub created_by: String,
    /// When it was last used, to about five seconds.
    pub last_used_at: Option<u64>,
    /// When it was revoked.
    pub revoked_at: Option<u64>,
    /// Where it can be changed.
    pub source: Source,
}

/// A login that is open: a user token, named by its `jti`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores and callers make them whole")]
pub struct Session {
    /// The `jti` of its token.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// When the login was.
    pub created_at: u64,
    /// When it was last used, to about five seconds.
    pub last_seen_at: u64,
    /// When its token expires.
    pub expires_at: u64,
    /// Where the login came from.
    pub address: IpAddr,
    /// The `User-Agent` of the login, cut to 256 bytes.
    pub device: String,
    /// Whether a second factor was shown.
    pub mfa: bool,
}

/// Who makes a change, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "callers make them whole")]
pub struct Actor {
    /// The user; for the command line the operating system's user.
    pub name: String,
    /// Whether no audit record of the caller tells of the change, so that the store must keep an
    /// [`Event`] for a gateway to record.
    pub unrecorded: bool,
}

/// A change that was made past the gateways, by the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make them whole")]
pub struct Event {
    /// When.
    pub at: u64,
    /// Who.
    pub actor: String,
    /// What, such as `user.disable` or `key.revoke`.
    pub action: String,
    /// Whom or what it concerns: the name of a user, the id of a key, the reason of an emergency.
    pub target: String,
    /// What the change was, where the action does not say it all.
    pub told: Told,
}

/// What a change of limits or of the firewall was, for the record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make them whole")]
pub struct Told {
    /// What was set before.
    pub before: Option<String>,
    /// What is set now.
    pub after: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// What changed after some number of the counter.
#[derive(Clone, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "stores make them whole")]
pub struct Changes {
    /// The number that the reader has seen with this.
    pub revision: u64,
    /// Whether this is everything there is, and what is not in it is gone.
    pub full: bool,
    /// Users that are new or changed.
    pub users: Vec<User>,
    /// Names of users that are gone.
    pub removed_users: Vec<String>,
    /// Keys that are new or changed, revoked ones among them.
    pub keys: Vec<Key>,
    /// Ids of sessions and scoped tokens that are void, with the time they would have expired.
    pub revoked: Vec<(String, u64)>,
    /// What operators have set, if that changed.
    pub standing: Option<Standing>,
    /// Subjects whose use is to be forgotten. A reader who has seen nothing is told of none: what was
    /// to be forgotten then is none of its concern.
    pub resets: Vec<Reset>,
}

/// That what a subject has used is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make them whole")]
pub struct Reset {
    /// Whose use.
    pub subject: SubjectName,
    /// The number of the change, by which every gateway knows this reset from others.
    pub revision: u64,
}

/// What was revoked at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make them whole")]
pub struct Revoked {
    /// API keys
    pub keys: u64,
    /// Sessions, and with them their tokens
    pub sessions: u64,
    /// Users whose tokens are void
    pub users: u64,
}

/// What uses of keys and sessions have been seen since the last report.
#[derive(Clone, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "the directory makes them")]
pub struct Touches {
    /// Keys, with the time of their last use.
    pub keys: Vec<(KeyId, u64)>,
    /// Sessions, with the time of their last use.
    pub sessions: Vec<(String, u64)>,
}

/// Limits of failed logins; see `tally`.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct ThrottleLimits {
    /// Failures of one account from one address in a window, and tenfold of one address.
    pub max_failures: u32,
    /// The window, and how long the first lock lasts.
    pub window: Duration,
}

/// Keeps accounts. Every operation is bounded in time, and one that gave `Ok` is on the disk.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// The number of the last change: one cheap read.
    async fn revision(&self) -> Result<u64>;

    /// What changed after `since`; everything if that is 0 or too long ago.
    async fn changes(&self, since: u64) -> Result<Changes>;

    /// A user, by the name in lower case.
    async fn user(&self, name: &str) -> Result<Option<User>>;

    /// All users, by name.
    async fn users(&self) -> Result<Vec<User>>;

    /// The e-mail address of a user.
    async fn email(&self, name: &str) -> Result<Option<SecretString>>;

    /// Makes a user. [`StoreError::Exists`] for a name that is taken.
    async fn create_user(&self, user: NewUser, now: u64, by: &Actor) -> Result<User>;

    /// Changes a user, and revokes what the change makes void in the same step.
    /// [`StoreError::LastOwner`], [`StoreError::Declared`] for role, password or state of a user
    /// who is declared (disabling one, and enabling it again, is allowed: an emergency does not wait
    /// for a deployment).
    async fn update_user(
        &self,
        name: &str,
        change: UserChange,
        now: u64,
        by: &Actor,
    ) -> Result<User>;

    /// Replaces the password hash by a stronger one of the same password: no epoch begins. Nothing
    /// happens if the hash is no longer `old`.
    async fn rehash(&self, name: &str, old: &str, new: &str) -> Result<()>;

    /// Removes a user, with keys, sessions and second factor.
    async fn delete_user(&self, name: &str, now: u64, by: &Actor) -> Result<Revoked>;

    /// Makes the users and keys that are declared in the configuration those of the store: new
    /// ones are made, changed ones changed, missing ones removed. A user of the store whose name is
    /// now declared becomes a declared one. Nothing is written when nothing differs.
    async fn declare(&self, users: &[NewUser], keys: &[Key], now: u64) -> Result<()>;

    /// Stores a second factor that is not confirmed yet, with the digests of its backup codes; an
    /// unconfirmed one is replaced, [`StoreError::Exists`] for a confirmed one.
    async fn begin_mfa(
        &self,
        name: &str,
        secret: &SecretString,
        codes: &[String],
        now: u64,
        by: &Actor,
    ) -> Result<()>;

    /// The secret of the second factor, and whether it is confirmed.
    async fn mfa(&self, name: &str) -> Result<Option<(SecretString, bool)>>;

    /// Uses the code of a time step up, and confirms the factor: `false` if this step or a later
    /// one was used before. One atomic step, so a code works once on all gateways.
    async fn use_totp(&self, name: &str, step: u64, now: u64) -> Result<bool>;

    /// Uses a backup code up, by its digest: `false` if there is none such.
    async fn use_backup_code(&self, name: &str, digest: &str) -> Result<bool>;

    /// How many backup codes are left.
    async fn backup_codes(&self, name: &str) -> Result<u64>;

    /// Takes the second factor away.
    async fn remove_mfa(&self, name: &str, now: u64, by: &Actor) -> Result<()>;

    /// Makes a key. [`StoreError::NotFound`] without its user, [`StoreError::Exists`] for its id.
    async fn create_key(&self, key: &Key, by: &Actor) -> Result<()>;

    /// The keys of one user, or all, revoked ones among them, by the time they were made.
    async fn keys(&self, user: Option<&str>) -> Result<Vec<Key>>;

    /// Revokes a key; `false` if it was before.
    async fn revoke_key(&self, id: KeyId, now: u64, by: &Actor) -> Result<bool>;

    /// Makes `new` in the place of `old`, which expires at `old_expires_at` if not sooner.
    async fn rotate_key(
        &self,
        old: KeyId,
        old_expires_at: u64,
        new: &Key,
        by: &Actor,
    ) -> Result<()>;

    /// Opens a session and notes the login.
    async fn open_session(&self, session: &Session) -> Result<()>;

    /// The sessions of a user that are neither revoked nor expired, the newest first.
    async fn sessions(&self, user: &str, now: u64) -> Result<Vec<Session>>;

    /// Revokes one session of a user, with the scoped tokens that were made in it.
    async fn revoke_session(&self, user: &str, id: &str, now: u64, by: &Actor) -> Result<()>;

    /// Revokes one scoped token, by its `jti`.
    async fn revoke_token(&self, id: &str, expires_at: u64, by: &Actor) -> Result<()>;

    /// Begins a new epoch for a user: all sessions and tokens are void. Keys stay.
    async fn revoke_user(&self, name: &str, now: u64, by: &Actor) -> Result<Revoked>;

    /// Begins a new epoch for every user and revokes every key that the store made or the
    /// configuration declares.
    async fn revoke_all(&self, reason: &str, now: u64, by: &Actor) -> Result<Revoked>;

    /// Claims a single-use id (a `jti`, a nonce) until it expires: `false` if it was claimed before.
    async fn use_once(&self, id: &str, now: u64, expires_at: u64) -> Result<bool>;

    /// Counts a failed login ahead of its check, so that parallel attempts cannot overshoot; with
    /// the time to wait if there were too many, and then nothing is counted.
    async fn charge_login(
        &self,
        name: &str,
        address: IpAddr,
        limits: ThrottleLimits,
        now: u64,
    ) -> Result<std::result::Result<(), Duration>>;

    /// After a success: takes the charge back, and forgets the failures of the account from there.
    async fn forgive_login(&self, name: &str, address: IpAddr) -> Result<()>;

    /// After a check that came to no result: takes the charge back and nothing else.
    async fn refund_login(&self, name: &str, address: IpAddr) -> Result<()>;

    /// Sets other limits for a subject, in the place of those that were set before: gives these.
    async fn set_override(&self, new: &QuotaOverride, by: &Actor) -> Result<Option<QuotaOverride>>;

    /// Takes the limits of a subject back that were set: gives them.
    async fn remove_override(
        &self,
        subject: &SubjectName,
        now: u64,
        by: &Actor,
    ) -> Result<QuotaOverride>;

    /// Has every gateway forget what a subject has used.
    async fn reset_quota(
        &self,
        subject: &SubjectName,
        reason: &str,
        now: u64,
        by: &Actor,
    ) -> Result<()>;

    /// Sets tighter limits for everybody, in the place of those that were set before: gives these.
    async fn set_emergency(
        &self,
        new: &EmergencyLimits,
        by: &Actor,
    ) -> Result<Option<EmergencyLimits>>;

    /// Takes the tighter limits for everybody back: gives them, nothing if there were none.
    async fn clear_emergency(&self, now: u64, by: &Actor) -> Result<Option<EmergencyLimits>>;

    /// Makes the firewall strict for everybody, in the place of what was set before: gives this.
    async fn set_strict_firewall(
        &self,
        new: &StrictFirewall,
        by: &Actor,
    ) -> Result<Option<StrictFirewall>>;

    /// Takes the strict firewall back: gives it, nothing if there was none.
    async fn clear_strict_firewall(
        &self,
        reason: Option<&str>,
        now: u64,
        by: &Actor,
    ) -> Result<Option<StrictFirewall>>;

    /// All that operators have set.
    async fn standing(&self) -> Result<Standing>;

    /// Writes down when keys and sessions were last used. Makes no change that is counted.
    async fn touch(&self, touches: &Touches) -> Result<()>;

    /// Takes events that no gateway has recorded: each is given to one caller only.
    async fn take_events(&self) -> Result<Vec<Event>>;

    /// Forgets what is over: expired sessions, revocations and single-use ids, old failures.
    async fn prune(&self, now: u64) -> Result<()>;
}
