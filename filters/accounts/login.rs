//! The login desk: where passwords and codes of the second factor are checked.
//!
//! Each attempt is charged to its account and network before it is checked, so that parallel guesses
//! cannot overshoot, and the charge is taken back when it was no wrong guess. The charges are kept in
//! the store: all gateways count together, and a restart forgets nothing. Unknown, disabled and
//! password-less users and wrong passwords get the same answer after the same work (ASVS 6.3.8).
//! A store that is down lets nobody in.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::account_name;
use super::exam::{Examiner, Turn, broken};
use super::password::{self, MAX_BYTES, PasswordError, PasswordHash, Profile};
use super::policy::{self, Blocklist};
use super::store::{Source, Store, StoreError, ThrottleLimits, User};
use super::totp::{backup_digest, looks_like_totp, matching_step};
use crate::clock::Clock;
use crate::verdict::{Denial, Reason};

/// A store that was down may be back after this time.
const STORE_RETRY: Duration = Duration::from_secs(5);
/// A lock may last for hours. What a client is told is short, as for every `rate_limit_exceeded`: an
/// early attempt costs nothing.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// The name that attempts are charged to whose name cannot be one. It is no user's, and keeps what
/// was typed, often a password in the wrong field, out of the store.
const NO_NAME: &str = "";

/// The bounds of a [`LoginDesk`].
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct LoginLimits {
    /// Checks that run at one time, at least 1.
    pub concurrent: usize,
    /// Attempts that wait for one.
    pub queue: usize,
    /// When failures close the door.
    pub throttle: ThrottleLimits,
    /// What new hashes cost, and every refusal at least.
    pub profile: Profile,
}

/// One attempt to log in.
#[expect(clippy::exhaustive_structs, reason = "callers make them whole")]
pub struct Attempt<'a> {
    /// The name as it was typed.
    pub username: &'a str,
    /// What the caller presented.
    pub password: SecretString,
    /// A time-based code or a backup code, if the caller sent one.
    pub mfa_code: Option<&'a str>,
    /// Where the caller is.
    pub client: IpAddr,
}

impl fmt::Debug for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("client", &self.client).finish_non_exhaustive()
    }
}

/// Someone who has shown who they are.
#[derive(Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the desk makes them")]
pub struct LoggedIn {
    /// As the store had them before the login.
    pub user: User,
    /// Whether a second factor was shown.
    pub mfa: bool,
    /// Whether the password was hashed again, for the log.
    pub rehash: Rehash,
}

impl fmt::Debug for LoggedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, mfa, rehash) = (&self.user.name, self.mfa, &self.rehash);
        write!(f, "LoggedIn({name}, mfa: {mfa}, {rehash:?})")
    }
}

/// What became of a hash that may be weaker than new ones.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each is logged in its own way")]
pub enum Rehash {
    /// It is strong enough, or is not the store's to change.
    NotNeeded,
    /// It was replaced.
    Done,
    /// It stays, for this reason; the next login tries again.
    Failed(String),
}

/// Checks passwords and codes, a bounded number of passwords at a time.
#[derive(Debug)]
pub struct LoginDesk {
    clock: Clock,
    throttle: ThrottleLimits,
    profile: Profile,
    examiner: Examiner,
}

impl LoginDesk {
    /// A desk with nobody before it.
    ///
    /// # Errors
    /// If the machine has no threads to give.
    pub fn new(clock: Clock, limits: LoginLimits) -> Result<Self, PasswordError> {
        let LoginLimits { concurrent, queue, throttle, profile } = limits;
        let examiner = Examiner::new(concurrent, queue, profile)?;
        Ok(Self { clock, throttle, profile, examiner })
    }

    /// Checks one attempt. Dropping the future gives its place in the queue back; a check that has
    /// begun runs to its end and counts as a failure.
    ///
    /// # Errors
    /// - [`Reason::InvalidRequest`] for a password over 512 bytes, before anything is done;
    /// - [`Reason::RateLimitExceeded`] after too many failures, also for the right password;
    /// - [`Reason::Overloaded`] when the queue is full or the store is down;
    /// - [`Reason::InvalidCredentials`] with the same text whether the user is unknown, disabled or
    ///   without a password or the password wrong; only the operator's detail tells;
    /// - [`Reason::MfaRequired`] for the right password without a code, if the user has a second
    ///   factor: neither a failure nor a success;
    /// - [`Reason::InvalidCredentials`] for a code that is wrong or was used before;
    /// - [`Reason::Internal`] if the machine lacks memory, or the key of the store is wrong.
    pub async fn login(&self, store: &dyn Store, attempt: Attempt<'_>) -> Result<LoggedIn, Denial> {
        refuse_oversized(&attempt.password)?;
        let name = account_name(attempt.username);
        let turn = self.examiner.turn().await?;
        let user = look_up(store, name.as_deref()).await?;
        let charged = name.as_deref().unwrap_or(NO_NAME);
        let charge = self.charge(store, charged, attempt.client).await?;
        let outcome = self.identify(store, &turn, user, &attempt).await;
        let (user, mfa) = charge.settle(outcome).await?;
        let rehash = self.rehash(store, &turn, &user, attempt.password).await;
        Ok(LoggedIn { user, mfa, rehash })
    }

    /// Checks a code that someone who is logged in shows for a step that needs it (`X-MFA-Code`).
    ///
    /// # Errors
    /// As for [`Self::login`]; [`Reason::MfaRequired`] also for users without a confirmed factor.
    pub async fn step_up(
        &self,
        store: &dyn Store,
        user: &str,
        code: Option<&str>,
        client: IpAddr,
    ) -> Result<(), Denial> {
        let Some((_, true)) = store.mfa(user).await.map_err(no_answer)? else {
            return Err(not_enrolled());
        };
        let code = code.ok_or_else(code_required)?;
        let charge = self.charge(store, user, client).await?;
        let outcome = self.use_code(store, user, code).await;
        charge.settle(outcome).await
    }

    /// Confirms a second factor that was begun, by a time-based code: a backup code does not show
    /// that the authenticator app works.
    ///
    /// # Errors
    /// As for [`Self::step_up`]; [`Reason::InvalidRequest`] if there is nothing to confirm.
    pub async fn confirm_mfa(
        &self,
        store: &dyn Store,
        user: &str,
        code: &str,
        client: IpAddr,
    ) -> Result<(), Denial> {
        let Some((secret, false)) = store.mfa(user).await.map_err(no_answer)? else {
            return Err(nothing_to_confirm());
        };
        let charge = self.charge(store, user, client).await?;
        let outcome = self.use_totp(store, user, &secret, code).await;
        charge.settle(outcome).await
    }

    /// Hashes a new password, if the policy accepts it. It queues with the logins, so that no
    /// change of passwords takes more memory than they may.
    ///
    /// # Errors
    /// [`Reason::InvalidRequest`] with advice, if the password is not acceptable;
    /// [`Reason::Overloaded`] when the queue is full.
    pub async fn hash_new(
        &self,
        user: &str,
        password: SecretString,
        blocklist: Arc<Blocklist>,
    ) -> Result<String, Denial> {
        refuse_oversized(&password)?;
        let turn = self.examiner.turn().await?;
        let (user, profile) = (user.to_owned(), self.profile);
        let hashed = self.examiner.run(&turn, move |_| {
            policy::check(&user, &password, &blocklist)?;
            password::hash(&password, profile).map_err(|error| broken(error.to_string()))
        });
        hashed.await?
    }

    /// From now on every refusal costs at least what a check of this hash does. A login teaches the
    /// desk the hash of its user; the hashes of the others are best shown to it at the start.
    pub fn cover(&self, hash: &PasswordHash) {
        self.examiner.cover(hash);
    }

    /// Argon2 work of all checks that were answered, in KiB filled: the same for every refusal.
    #[must_use]
    pub fn work(&self) -> u64 {
        self.examiner.work()
    }

    /// Password first, then the code if the user has a second factor.
    async fn identify(
        &self,
        store: &dyn Store,
        turn: &Turn,
        user: Option<User>,
        attempt: &Attempt<'_>,
    ) -> Result<(User, bool), Denial> {
        let user = self.examiner.examine(turn, user, attempt.password.clone()).await?;
        if !user.mfa {
            return Ok((user, false));
        }
        let code = attempt.mfa_code.ok_or_else(code_required)?;
        self.use_code(store, &user.name, code).await?;
        Ok((user, true))
    }

    /// Wrong codes are counted over all networks too: who tries them has the password, and may have
    /// many addresses (NIST SP 800-63B section 3.2.2).
    async fn use_code(&self, store: &dyn Store, user: &str, code: &str) -> Result<(), Denial> {
        let charge = self.charge(store, user, stand_in(user)).await?;
        let outcome = self.check_code(store, user, code).await;
        charge.settle(outcome).await
    }

    async fn check_code(&self, store: &dyn Store, user: &str, code: &str) -> Result<(), Denial> {
        if !looks_like_totp(code) {
            return use_backup_code(store, user, code).await;
        }
        match store.mfa(user).await.map_err(no_answer)? {
            Some((secret, true)) => self.use_totp(store, user, &secret, code).await,
            _ => Err(wrong_code("the second factor was taken away meanwhile")),
        }
    }

    async fn use_totp(
        &self,
        store: &dyn Store,
        user: &str,
        secret: &SecretString,
        code: &str,
    ) -> Result<(), Denial> {
        let now = self.clock.unix_secs();
        let step = matching_step(secret, code, now).ok_or_else(|| wrong_code("wrong code"))?;
        match store.use_totp(user, step, now).await.map_err(no_answer)? {
            true => Ok(()),
            false => Err(wrong_code("code was used before")),
        }
    }

    /// Replaces a hash that is weaker than new ones are. Never fails the login.
    async fn rehash(
        &self,
        store: &dyn Store,
        turn: &Turn,
        user: &User,
        password: SecretString,
    ) -> Rehash {
        let Some(old) = outdated(user, self.profile) else {
            return Rehash::NotNeeded;
        };
        let profile = self.profile;
        let new = match self.examiner.run(turn, move |_| password::hash(&password, profile)).await {
            Ok(Ok(new)) => new,
            Ok(Err(error)) => return Rehash::Failed(error.to_string()),
            Err(denial) => return Rehash::Failed(denial.operator_detail().to_owned()),
        };
        match store.rehash(&user.name, old, &new).await {
            Ok(()) => Rehash::Done,
            Err(error) => Rehash::Failed(error.to_string()),
        }
    }

    async fn charge<'a>(
        &self,
        store: &'a dyn Store,
        name: &'a str,
        client: IpAddr,
    ) -> Result<Charge<'a>, Denial> {
        let now = self.clock.unix_secs();
        let charged = store.charge_login(name, client, self.throttle, now).await;
        charged.map_err(no_answer)?.map_err(throttled)?;
        Ok(Charge { store, name, client })
    }
}

/// A failure that was counted ahead of its check. Dropping it leaves it counted.
#[must_use = "a check that was charged for is settled"]
struct Charge<'a> {
    store: &'a dyn Store,
    name: &'a str,
    client: IpAddr,
}

impl Charge<'_> {
    /// Books the outcome: a success is only one when the store has noted it.
    async fn settle<T>(self, outcome: Result<T, Denial>) -> Result<T, Denial> {
        match &outcome {
            Ok(_) => self.store.forgive_login(self.name, self.client).await.map_err(no_answer)?,
            Err(denial) if denial.reason() == Reason::InvalidCredentials => {}
            Err(_) => self.refund().await,
        }
        outcome
    }

    /// Best effort: if the store is down, one failure too many stays counted.
    async fn refund(&self) {
        self.store.refund_login(self.name, self.client).await.ok();
    }
}

/// An address that nobody has (RFC 4193), in a network of its own for each user: what is charged to
/// it is charged to the user wherever they are.
fn stand_in(user: &str) -> IpAddr {
    let digest: [u8; 32] = Sha256::digest(user).into();
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest).take(8).for_each(|(byte, drawn)| *byte = drawn);
    IpAddr::from((u128::from_be_bytes(bytes) & (u128::MAX >> 8) | 0xfd << 120).to_be_bytes())
}

async fn look_up(store: &dyn Store, name: Option<&str>) -> Result<Option<User>, Denial> {
    match name {
        Some(name) => store.user(name).await.map_err(no_answer),
        None => Ok(None),
    }
}

async fn use_backup_code(store: &dyn Store, user: &str, code: &str) -> Result<(), Denial> {
    let digest =
        backup_digest(user, code).ok_or_else(|| wrong_code("not in the form of a code"))?;
    match store.use_backup_code(user, &digest).await.map_err(no_answer)? {
        true => Ok(()),
        false => Err(wrong_code("wrong or used backup code")),
    }
}

/// The hash, if it is the store's to change and weaker than new ones are.
fn outdated(user: &User, profile: Profile) -> Option<&str> {
    let text = user.password_hash.as_deref().filter(|_| user.source == Source::Store)?;
    PasswordHash::parse(text).ok()?.is_weaker_than(profile).then_some(text)
}

fn refuse_oversized(password: &SecretString) -> Result<(), Denial> {
    if password.expose_secret().len() <= MAX_BYTES {
        return Ok(());
    }
    Err(Denial::new(Reason::InvalidRequest, "password is longer than 512 bytes").param("password"))
}

fn throttled(wait: Duration) -> Denial {
    Denial::new(Reason::RateLimitExceeded, "too many failed logins, try again later")
        .detail("login throttled")
        .retry_after(wait.min(LONGEST_RETRY))
}

fn code_required() -> Denial {
    Denial::new(Reason::MfaRequired, "a code of the second factor is required")
}

fn not_enrolled() -> Denial {
    let message = "a second factor is required: enrol one at /auth/mfa/enable and confirm it first";
    Denial::new(Reason::MfaRequired, message).detail("no confirmed second factor")
}

fn nothing_to_confirm() -> Denial {
    let message = "there is no second factor to confirm: begin at /auth/mfa/enable";
    Denial::new(Reason::InvalidRequest, message)
}

fn wrong_code(detail: &'static str) -> Denial {
    Denial::new(Reason::InvalidCredentials, "the code is wrong or was used before").detail(detail)
}

/// The store did not do what only a working store does: nobody is let in.
fn no_answer(error: StoreError) -> Denial {
    let denial = match error {
        StoreError::Unavailable(_) => {
            Denial::new(Reason::Overloaded, "accounts cannot be looked up now, try again later")
                .retry_after(STORE_RETRY)
        }
        StoreError::NotFound
        | StoreError::Exists
        | StoreError::LastOwner
        | StoreError::Declared
        | StoreError::Seal => Denial::new(Reason::Internal, "the account could not be checked"),
    };
    denial.detail(error.to_string())
}

#[cfg(test)]
mod tests;
