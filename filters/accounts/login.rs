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
/// Longest name of a user.
const MAX_NAME: usize = 64;
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
    /// Never for the profiles that exist.
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
        let name = user_name(attempt.username);
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
        let hashed = self.examiner.run(&turn, move || {
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
        let new = match self.examiner.run(turn, move || password::hash(&password, profile)).await {
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

/// The name as the store has it; `None` if no user can be called so.
fn user_name(typed: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    let valid = (1..=MAX_NAME).contains(&typed.len()) && typed.bytes().all(allowed);
    valid.then(|| typed.to_ascii_lowercase())
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
mod tests {
    use std::path::Path;

    use sqlx::{AnyConnection, Connection};
    use tokio::task::JoinSet;

    use super::super::AccountRole;
    use super::super::password::hash;
    use super::super::store::sql::StoreOptions;
    use super::super::store::{Actor, NewUser, SqlStore, UserChange};
    use super::super::totp::{backup_codes, code_at, generate_secret};
    use super::*;

    const RIGHT: &str = "correct horse battery";
    const WINDOW: u64 = 900;
    const HOME: [u8; 4] = [10, 0, 0, 1];

    /// A desk before a store with the users `alice`, `bob`, and `token`, who has no password.
    struct Bench {
        desk: LoginDesk,
        clock: Clock,
        store: SqlStore,
        root: Actor,
    }

    impl Bench {
        async fn new(max_failures: u32) -> Arc<Self> {
            let limits = limits(4, max_failures, Profile::Owasp);
            Self::on("sqlite::memory:", limits).await
        }

        async fn on(url: &str, limits: LoginLimits) -> Arc<Self> {
            let clock = Clock::system();
            let options = StoreOptions {
                url: url.into(),
                base: Path::new(".").into(),
                timeout: Duration::from_secs(20),
                connections: 4,
                store_key: Some("0pP3ZkL9Qw7sXv2Rt5Ny8Ub1Gd4Hf6Jm".into()),
                store_key_previous: None,
            };
            let desk = LoginDesk::new(clock.clone(), limits).unwrap();
            let root = Actor { name: "root".into(), unrecorded: false };
            let bench = Self { desk, clock, store: SqlStore::open(options).unwrap(), root };
            for (name, password) in [("alice", Some(RIGHT)), ("bob", Some(RIGHT)), ("token", None)]
            {
                bench.add(name, password, Source::Store).await;
            }
            Arc::new(bench)
        }

        async fn add(&self, name: &str, password: Option<&str>, source: Source) {
            let password_hash = password.map(|text| hash(&text.into(), Profile::Owasp).unwrap());
            let role = AccountRole::User;
            let user = NewUser { name: name.into(), role, password_hash, email: None, source };
            self.store.create_user(user, self.clock.unix_secs(), &self.root).await.unwrap();
        }

        async fn enter(
            &self,
            username: &str,
            password: &str,
            code: Option<&str>,
            client: impl Into<IpAddr>,
        ) -> Result<LoggedIn, Denial> {
            let (password, client) = (password.into(), client.into());
            let attempt = Attempt { username, password, mfa_code: code, client };
            self.desk.login(&self.store, attempt).await
        }

        async fn login(&self, username: &str, password: &str) -> Result<LoggedIn, Denial> {
            self.enter(username, password, None, HOME).await
        }

        async fn refusal(&self, username: &str, password: &str) -> Reason {
            self.login(username, password).await.unwrap_err().reason()
        }

        async fn step_up(&self, code: Option<&str>) -> Result<(), Denial> {
            self.desk.step_up(&self.store, "alice", code, HOME.into()).await
        }

        async fn confirm(&self, code: &str) -> Result<(), Denial> {
            self.desk.confirm_mfa(&self.store, "alice", code, HOME.into()).await
        }

        /// Begins a second factor for alice; gives its secret and backup codes.
        async fn begin(&self) -> (SecretString, Vec<SecretString>) {
            let (secret, codes) = (generate_secret().unwrap(), backup_codes().unwrap());
            let digest = |code: &SecretString| backup_digest("alice", code.expose_secret());
            let digests: Vec<String> = codes.iter().filter_map(digest).collect();
            self.store.begin_mfa("alice", &secret, &digests, 0, &self.root).await.unwrap();
            (secret, codes.into())
        }

        async fn enrol(&self) -> (SecretString, Vec<SecretString>) {
            let (secret, codes) = self.begin().await;
            self.confirm(&self.next_code(&secret)).await.unwrap();
            (secret, codes)
        }

        /// A code that was not used before.
        fn next_code(&self, secret: &SecretString) -> String {
            self.clock.advance(Duration::from_secs(30));
            code_at(secret, self.clock.unix_secs())
        }
    }

    fn limits(concurrent: usize, max_failures: u32, profile: Profile) -> LoginLimits {
        let throttle = ThrottleLimits { max_failures, window: Duration::from_secs(WINDOW) };
        LoginLimits { concurrent, queue: 32, throttle, profile }
    }

    /// What came of the same attempt, made many times at once.
    async fn in_parallel<T, F>(times: usize, attempt: impl Fn() -> F) -> Vec<Result<T, Reason>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Denial>> + Send + 'static,
    {
        let tasks: JoinSet<_> = (0..times).map(|_| attempt()).collect();
        let done = tasks.join_all().await.into_iter();
        done.map(|outcome| outcome.map_err(|denial| denial.reason())).collect()
    }

    fn count<T>(outcomes: &[Result<T, Reason>], reason: Reason) -> usize {
        outcomes.iter().filter(|outcome| outcome.as_ref().err() == Some(&reason)).count()
    }

    #[tokio::test]
    async fn the_right_password_is_let_in_however_the_name_is_typed() {
        let bench = Bench::new(10).await;
        for name in ["alice", "Alice", "ALICE"] {
            let found = bench.login(name, RIGHT).await.unwrap();
            assert_eq!((found.user.name.as_str(), found.mfa), ("alice", false));
            assert_eq!(found.rehash, Rehash::NotNeeded);
        }
    }

    #[tokio::test]
    async fn refusals_differ_for_the_operator_only_and_cost_the_same() {
        let bench = Bench::new(100).await;
        let off = UserChange { disabled: Some(true), ..UserChange::default() };
        bench.store.update_user("bob", off, 0, &bench.root).await.unwrap();
        let cases = [
            ("alice", "wrong", "wrong password"),
            ("bob", RIGHT, "account is disabled"),
            ("bob", "wrong", "account is disabled"),
            ("token", RIGHT, "user has no password"),
            ("token", "", "user has no password"),
            ("nobody", RIGHT, "unknown user"),
            ("", RIGHT, "unknown user"),
            ("alice ", RIGHT, "unknown user"),
            ("ａｌｉｃｅ", RIGHT, "unknown user"),
            ("alice\0", RIGHT, "unknown user"),
            (&"a".repeat(1 << 16), RIGHT, "unknown user"),
        ];
        for (name, password, detail) in cases {
            let before = bench.desk.work();
            let denial = bench.login(name, password).await.unwrap_err();
            assert_eq!(denial.operator_detail(), detail, "{name:.20}");
            assert_eq!(bench.desk.work() - before, 19456 * 2, "{name:.20}");
            let same = Denial::new(Reason::InvalidCredentials, "invalid username or password");
            assert_eq!(denial.detail(""), same);
        }
    }

    #[tokio::test]
    async fn more_than_512_bytes_are_never_hashed() {
        let bench = Bench::new(1).await;
        for (bytes, reason, hashed) in [
            (513, Reason::InvalidRequest, false),
            (1 << 20, Reason::InvalidRequest, false),
            (512, Reason::InvalidCredentials, true),
        ] {
            let refused = bench.refusal("alice", &"a".repeat(bytes)).await;
            assert_eq!((refused, bench.desk.work() > 0), (reason, hashed), "{bytes} bytes");
        }
    }

    #[tokio::test]
    async fn after_too_many_failures_the_right_password_waits_too() {
        let bench = Bench::new(3).await;
        for _ in 0..3 {
            assert_eq!(bench.refusal("alice", "wrong").await, Reason::InvalidCredentials);
        }
        let work = bench.desk.work();
        let denial = bench.login("ALICE", RIGHT).await.unwrap_err();
        assert_eq!(denial.reason(), Reason::RateLimitExceeded);
        assert_eq!(denial.retry_after_secs(), Some(60));
        assert_eq!(bench.desk.work(), work, "a throttled attempt hashes nothing");
        assert!(bench.enter("alice", RIGHT, None, [10, 0, 0, 2]).await.is_ok(), "from elsewhere");
        bench.clock.advance(Duration::from_secs(WINDOW + 1));
        assert!(bench.login("alice", RIGHT).await.is_ok());
    }

    #[tokio::test]
    async fn all_desks_before_one_store_count_together() {
        let bench = Bench::new(2).await;
        let other = LoginDesk::new(bench.clock.clone(), limits(1, 2, Profile::Owasp)).unwrap();
        for _ in 0..2 {
            assert_eq!(bench.refusal("alice", "wrong").await, Reason::InvalidCredentials);
        }
        let attempt = Attempt {
            username: "alice",
            password: RIGHT.into(),
            mfa_code: None,
            client: HOME.into(),
        };
        let denial = other.login(&bench.store, attempt).await.unwrap_err();
        assert_eq!(denial.reason(), Reason::RateLimitExceeded);
    }

    #[tokio::test]
    async fn names_that_are_nobodys_are_throttled_too() {
        use Reason::{InvalidCredentials as Wrong, RateLimitExceeded as Throttled};
        for names in [["nobody"; 3], ["my secret!", "не имя", ""]] {
            let bench = Bench::new(2).await;
            let mut reasons = Vec::new();
            for name in names {
                reasons.push(bench.refusal(name, RIGHT).await);
            }
            assert_eq!(reasons, [Wrong, Wrong, Throttled], "{names:?}");
            assert!(bench.login("alice", RIGHT).await.is_ok());
        }
    }

    #[tokio::test]
    async fn a_success_forgets_earlier_failures() {
        let bench = Bench::new(2).await;
        for _ in 0..3 {
            assert_eq!(bench.refusal("alice", "wrong").await, Reason::InvalidCredentials);
            assert!(bench.login("alice", RIGHT).await.is_ok());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn parallel_guesses_never_overshoot() {
        let bench = Bench::new(5).await;
        let outcomes = in_parallel(20, || {
            let bench = Arc::clone(&bench);
            async move { bench.login("alice", "wrong").await }
        });
        let outcomes = outcomes.await;
        assert_eq!(count(&outcomes, Reason::InvalidCredentials), 5);
        assert_eq!(count(&outcomes, Reason::RateLimitExceeded), 15);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn parallel_logins_with_the_right_password_all_pass() {
        let bench = Bench::on("sqlite::memory:", limits(1, 2, Profile::Owasp)).await;
        let outcomes = in_parallel(12, || {
            let bench = Arc::clone(&bench);
            async move { bench.login("alice", RIGHT).await }
        });
        assert!(outcomes.await.iter().all(Result::is_ok));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_weak_hash_is_replaced_once() {
        let bench = Bench::on("sqlite::memory:", limits(1, 10, Profile::Strong)).await;
        bench.add("declared", Some(RIGHT), Source::Config).await;
        let outcomes = in_parallel(3, || {
            let bench = Arc::clone(&bench);
            async move { bench.login("alice", RIGHT).await }
        });
        let all: Vec<Rehash> =
            outcomes.await.into_iter().map(|done| done.unwrap().rehash).collect();
        assert_eq!(all.iter().filter(|rehash| **rehash == Rehash::Done).count(), 1, "{all:?}");
        let stored = bench.store.user("alice").await.unwrap().unwrap().password_hash.unwrap();
        assert!(!PasswordHash::parse(&stored).unwrap().is_weaker_than(Profile::Strong));
        assert!(bench.login("alice", RIGHT).await.is_ok());
        let declared = bench.login("declared", RIGHT).await.unwrap();
        assert_eq!(declared.rehash, Rehash::NotNeeded, "it is the configuration's to change");
    }

    #[tokio::test]
    async fn a_hash_that_cannot_be_replaced_does_not_fail_the_login() {
        let bench = Bench::on("sqlite::memory:", limits(1, 10, Profile::Strong)).await;
        bench.add("old", None, Source::Store).await;
        // phc-winner-argon2, test.c: "password", which is too short for a new hash
        let short = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let change = UserChange { password_hash: Some(short.into()), ..UserChange::default() };
        bench.store.update_user("old", change, 0, &bench.root).await.unwrap();
        let found = bench.login("old", "password").await.unwrap();
        assert!(matches!(found.rehash, Rehash::Failed(why) if why.contains("shorter")));
    }

    #[tokio::test]
    async fn the_second_factor_is_asked_for_after_the_right_password_only() {
        let bench = Bench::new(3).await;
        let (secret, backup) = bench.enrol().await;
        for _ in 0..10 {
            let denial = bench.login("alice", RIGHT).await.unwrap_err();
            assert_eq!(denial.reason(), Reason::MfaRequired, "neither failure nor success");
        }
        let code = bench.next_code(&secret);
        let denial = bench.enter("alice", "wrong", Some(&code), HOME).await.unwrap_err();
        assert_eq!(denial.operator_detail(), "wrong password");
        let found = bench.enter("alice", RIGHT, Some(&code), HOME).await.unwrap();
        assert!(found.mfa, "a wrong password did not use the code up");
        let code = backup[0].expose_secret().to_uppercase();
        assert!(bench.enter("alice", RIGHT, Some(&code), HOME).await.unwrap().mfa);
        assert!(!bench.enter("bob", RIGHT, Some("123456"), HOME).await.unwrap().mfa);
    }

    #[tokio::test]
    async fn wrong_and_used_codes_are_failures() {
        let bench = Bench::new(4).await;
        let (secret, backup) = bench.enrol().await;
        let used = bench.next_code(&secret);
        assert!(bench.enter("alice", RIGHT, Some(&used), HOME).await.is_ok());
        let backup = backup[0].expose_secret();
        assert!(bench.enter("alice", RIGHT, Some(backup), HOME).await.is_ok());
        let stale = code_at(&secret, bench.clock.unix_secs() - 600);
        let cases = [
            (used.as_str(), "code was used before"),
            (backup, "wrong or used backup code"),
            (&stale, "wrong code"),
            ("12345", "not in the form of a code"),
        ];
        for (code, detail) in cases {
            let denial = bench.enter("alice", RIGHT, Some(code), HOME).await.unwrap_err();
            assert_eq!(
                (denial.reason(), denial.operator_detail()),
                (Reason::InvalidCredentials, detail)
            );
        }
        let denial = bench.enter("alice", RIGHT, None, HOME).await.unwrap_err();
        assert_eq!(denial.reason(), Reason::RateLimitExceeded);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_code_works_once_in_parallel_logins() {
        let bench = Bench::new(100).await;
        let (secret, backup) = bench.enrol().await;
        for code in [bench.next_code(&secret), backup[3].expose_secret().to_owned()] {
            let outcomes = in_parallel(8, || {
                let (bench, code) = (Arc::clone(&bench), code.clone());
                async move { bench.enter("alice", RIGHT, Some(&code), HOME).await }
            });
            let outcomes = outcomes.await;
            assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{code}");
            assert_eq!(count(&outcomes, Reason::InvalidCredentials), 7, "{code}");
        }
        assert_eq!(bench.store.backup_codes("alice").await, Ok(9));
    }

    #[tokio::test]
    async fn a_factor_counts_only_when_it_is_confirmed() {
        let bench = Bench::new(10).await;
        let nothing = bench.confirm("123456").await.unwrap_err();
        assert_eq!(nothing.reason(), Reason::InvalidRequest);
        let (secret, backup) = bench.begin().await;
        assert!(!bench.login("alice", RIGHT).await.unwrap().mfa);
        let unconfirmed = bench.step_up(Some(&bench.next_code(&secret))).await.unwrap_err();
        assert_eq!(unconfirmed.reason(), Reason::MfaRequired);
        assert!(unconfirmed.message().contains("enrol"));
        for code in [backup[0].expose_secret(), "12345", "", "abcdef"] {
            let denial = bench.confirm(code).await.unwrap_err();
            assert_eq!(denial.reason(), Reason::InvalidCredentials, "{code}");
        }
        assert_eq!(bench.confirm(&bench.next_code(&secret)).await, Ok(()));
        assert_eq!(bench.refusal("alice", RIGHT).await, Reason::MfaRequired);
        let again = bench.confirm(&bench.next_code(&secret)).await.unwrap_err();
        assert_eq!(again.reason(), Reason::InvalidRequest);
    }

    #[tokio::test]
    async fn confirmation_is_throttled() {
        let bench = Bench::new(2).await;
        let (secret, _) = bench.begin().await;
        for _ in 0..2 {
            let denial = bench.confirm("12345").await.unwrap_err();
            assert_eq!(denial.reason(), Reason::InvalidCredentials);
        }
        let denial = bench.confirm(&bench.next_code(&secret)).await.unwrap_err();
        assert_eq!(denial.reason(), Reason::RateLimitExceeded);
    }

    #[tokio::test]
    async fn a_step_up_takes_a_fresh_code() {
        let bench = Bench::new(3).await;
        let denial = bench.step_up(None).await.unwrap_err();
        assert!(denial.message().contains("enrol"), "{denial:?}");
        let (secret, backup) = bench.enrol().await;
        let denial = bench.step_up(None).await.unwrap_err();
        assert_eq!(denial.message(), "a code of the second factor is required");
        let code = bench.next_code(&secret);
        assert_eq!(bench.step_up(Some(&code)).await, Ok(()));
        assert_eq!(bench.step_up(Some(backup[1].expose_secret())).await, Ok(()));
        for code in [code.as_str(), backup[1].expose_secret(), "x"] {
            let denial = bench.step_up(Some(code)).await.unwrap_err();
            assert_eq!(denial.reason(), Reason::InvalidCredentials);
        }
        let denial = bench.step_up(Some(&bench.next_code(&secret))).await.unwrap_err();
        assert_eq!(denial.reason(), Reason::RateLimitExceeded);
        assert_eq!(bench.refusal("alice", RIGHT).await, Reason::RateLimitExceeded, "one tally");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn wrong_codes_are_counted_over_all_networks() {
        let bench = Bench::new(3).await;
        let (secret, _) = bench.enrol().await;
        let mut reasons = Vec::new();
        for host in 0..4 {
            let wrong = bench.enter("alice", RIGHT, Some("000000"), [203, host, 113, 1]).await;
            reasons.push(wrong.unwrap_err().reason());
        }
        use Reason::{InvalidCredentials as Wrong, RateLimitExceeded as Throttled};
        assert_eq!(reasons, [Wrong, Wrong, Wrong, Throttled]);
        assert_eq!(bench.login("bob", RIGHT).await.map(|entered| entered.mfa), Ok(false));
        bench.clock.advance(Duration::from_secs(WINDOW + 1));
        let code = bench.next_code(&secret);
        assert!(bench.enter("alice", RIGHT, Some(&code), HOME).await.is_ok());
    }

    #[tokio::test]
    async fn a_store_that_is_down_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.db");
        let url = format!("sqlite:{}", path.display());
        let bench = Bench::on(&url, limits(1, 2, Profile::Owasp)).await;
        let (secret, backup) = bench.enrol().await;
        let mut saboteur =
            AnyConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
        let mut rename = async |from: &str, to: &str| {
            let sql = format!("ALTER TABLE {from} RENAME TO {to}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut saboteur).await.unwrap();
        };
        for (table, hashed) in
            [("users", false), ("tallies", false), ("second_factors", true), ("backup_codes", true)]
        {
            let (before, code) = (bench.desk.work(), bench.next_code(&secret));
            let code = if table == "backup_codes" { backup[0].expose_secret() } else { &code };
            rename(table, "gone").await;
            for _ in 0..3 {
                let denial = bench.enter("alice", RIGHT, Some(code), HOME).await.unwrap_err();
                assert_eq!(denial.reason(), Reason::Overloaded, "{table}: {denial:?}");
                assert_eq!(denial.retry_after_secs(), Some(5));
            }
            assert_eq!(bench.desk.work() > before, hashed, "{table}");
            rename("gone", table).await;
            let again = bench.enter("alice", RIGHT, Some(code), HOME).await;
            assert!(again.is_ok(), "{table}: {again:?}");
        }
    }

    #[tokio::test]
    async fn a_new_password_is_judged_and_hashed() {
        let bench = Bench::new(1).await;
        let cases = [
            ("vessel-orchid-tundra-nickel", None),
            ("passwordpassword", Some(Reason::InvalidRequest)),
            ("quaffle brothers 2031", Some(Reason::InvalidRequest)),
            ("short", Some(Reason::InvalidRequest)),
            (&"a".repeat(1 << 20), Some(Reason::InvalidRequest)),
        ];
        for (password, refused) in cases {
            let list = Arc::new(Blocklist::from_lines("Quaffle Brothers"));
            let hashed = bench.desk.hash_new("alice", password.into(), list).await;
            assert_eq!(hashed.as_ref().err().map(Denial::reason), refused, "{password:.30}");
            if let Ok(hash) = hashed {
                let hash = PasswordHash::parse(&hash).unwrap();
                assert_eq!(hash.verify(&password.into()), Ok(true));
            }
        }
    }

    #[tokio::test]
    async fn debug_shows_neither_name_nor_password_nor_hash() {
        let bench = Bench::new(10).await;
        let found = bench.login("alice", RIGHT).await.unwrap();
        let attempt = Attempt {
            username: "alice-typed",
            password: RIGHT.into(),
            mfa_code: Some("123456"),
            client: HOME.into(),
        };
        let shown = format!("{attempt:?} {:?} {found:?}", bench.desk);
        for secret in ["typed", "horse", "123456", "argon2id$"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("LoggedIn(alice"));
    }
}
