//! Logins, codes and new passwords at the desk, before a store in memory.

use std::path::Path;

use sqlx::{AnyConnection, Connection};
use tokio::task::JoinSet;

use super::super::AccountRole;
use super::super::password::{Memory, hash};
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
        for (name, password) in [("alice", Some(RIGHT)), ("bob", Some(RIGHT)), ("token", None)] {
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
    let attempt =
        Attempt { username: "alice", password: RIGHT.into(), mfa_code: None, client: HOME.into() };
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
    let all: Vec<Rehash> = outcomes.await.into_iter().map(|done| done.unwrap().rehash).collect();
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
    let short =
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
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
            assert_eq!(hash.verify(&password.into(), &mut Memory::default()), Ok(true));
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
