//! The copy against the store that it is of: what it learns, what it forgets, and when nobody is
//! let in by it.

use secrecy::SecretSlice;
use sqlx::{AnyConnection, Connection, Executor};
use tempfile::TempDir;

use super::*;
use crate::accounts::KeyDigest;
use crate::accounts::store::{
    Actor, Key, NewUser, Session, Source, SqlStore, StoreOptions, User, UserChange,
};

/// Seconds of the store's own times.
const NOW: u64 = 1_800_000_000;
const HOUR: Duration = Duration::from_secs(3600);

/// A store in memory, and the copy of it.
pub(crate) struct Accounts {
    pub(crate) directory: Directory,
    pub(crate) clock: Clock,
}

impl Accounts {
    /// Nobody, and nothing looked at yet.
    pub(crate) fn new() -> Self {
        Self::at("sqlite::memory:")
    }

    fn at(url: &str) -> Self {
        let options = StoreOptions {
            url: url.into(),
            base: "/".into(),
            timeout: Duration::from_secs(5),
            connections: 2,
            store_key: None,
            store_key_previous: None,
        };
        let store = Arc::new(SqlStore::open(options).unwrap());
        let clock = Clock::system();
        Self { directory: Directory::new(store, clock.clone(), HOUR).unwrap(), clock }
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        self.directory.store()
    }

    pub(crate) async fn with_user(self, name: &str) -> Self {
        self.make(name, AccountRole::User).await;
        self.look().await;
        self
    }

    async fn make(&self, name: &str, role: AccountRole) -> User {
        let user = NewUser {
            name: name.into(),
            role,
            password_hash: Some("hash".into()),
            email: None,
            source: Source::Store,
        };
        self.store().create_user(user, NOW, &root()).await.unwrap()
    }

    async fn add_key(&self, key: &Key) {
        self.store().create_key(key, &root()).await.unwrap();
    }

    pub(crate) async fn disable(&self, name: &str, disabled: bool) {
        let change = UserChange { disabled: Some(disabled), ..UserChange::default() };
        self.store().update_user(name, change, NOW + 1, &root()).await.unwrap();
        self.look().await;
    }

    pub(crate) async fn look(&self) {
        self.directory.look().await.unwrap();
    }

    fn person(&self, name: &str) -> Arc<Person> {
        self.directory.person(name).unwrap()
    }
}

pub(crate) fn root() -> Actor {
    Actor { name: "root".into(), unrecorded: false }
}

/// The proof of a user's token, of an epoch that nothing has ended.
pub(crate) fn proof_of(user: &str) -> Proof {
    Proof { user: Some(user.into()), epoch: Some(u64::MAX), ..Proof::default() }
}

fn id(number: usize) -> KeyId {
    format!("{number:0>12}").parse().unwrap()
}

fn key(number: usize, user: &str) -> Key {
    Key {
        id: id(number),
        user: user.into(),
        name: "for tests".into(),
        digest: KeyDigest::from([7; 32]),
        scopes: vec!["llm:*".into()],
        models: vec!["phi*".into()],
        networks: vec!["10.0.0.0/8".parse().unwrap()],
        quota: Some("small".into()),
        expires_at: Some(NOW + 1000),
        created_at: NOW,
        created_by: "root".into(),
        last_used_at: None,
        revoked_at: None,
        source: Source::Store,
    }
}

fn user(name: &str, epoch: u64) -> User {
    User {
        name: name.into(),
        role: AccountRole::User,
        password_hash: None,
        disabled: false,
        source: Source::Store,
        mfa: true,
        epoch,
        created_at: NOW,
        created_by: "root".into(),
        last_login_at: None,
    }
}

fn reason(checked: Result<(), Denial>) -> Option<Reason> {
    checked.err().map(|denial| denial.reason())
}

#[tokio::test]
async fn users_are_copied_whole() {
    let accounts = Accounts::new();
    let made = accounts.make("ada", AccountRole::Admin).await;
    assert!(accounts.directory.person("ada").is_none());
    accounts.look().await;
    let ada = accounts.person("ada");
    assert_eq!((&*ada.name, ada.role, ada.created_at), ("ada", AccountRole::Admin, NOW));
    assert_eq!(ada.epoch, made.epoch);
    assert!(!ada.disabled && !ada.mfa);
    assert!(accounts.directory.person("bob").is_none());
    accounts.disable("ada", true).await;
    assert!(accounts.person("ada").disabled);
    assert!(accounts.person("ada").epoch > made.epoch);
    accounts.directory.apply(Changes { users: vec![user("eve", 1)], ..Changes::default() });
    assert!(accounts.person("eve").mfa);
}

#[tokio::test]
async fn keys_are_copied_until_they_are_revoked() {
    let accounts = Accounts::new().with_user("ada").await;
    accounts.add_key(&key(1, "ada")).await;
    accounts.add_key(&Key { expires_at: None, ..key(2, "ada") }).await;
    accounts.look().await;
    let entry = accounts.directory.key(id(1)).unwrap();
    assert_eq!((&*entry.user, entry.expires_at()), ("ada", Some(NOW + 1000)));
    assert_eq!(entry.rights.quota.as_deref(), Some("small"));
    assert_eq!(entry.rights.networks, ["10.0.0.0/8".parse::<IpNet>().unwrap()]);
    let layer = &entry.rights.layer;
    assert!(layer.holds("llm:embed") && !layer.holds("scan"));
    assert!(layer.allows("phi3") && !layer.allows("llama3"));
    assert_eq!(layer.max_tokens, None);
    assert_eq!(accounts.directory.key(id(2)).unwrap().expires_at(), None);
    assert_eq!(accounts.directory.keys(), 2);

    accounts.store().revoke_key(id(1), NOW, &root()).await.unwrap();
    accounts.look().await;
    assert!(accounts.directory.key(id(1)).is_none());
    assert!(accounts.directory.key(id(2)).is_some());
}

#[tokio::test]
async fn a_user_who_is_removed_takes_the_keys_along_and_nobody_elses() {
    let accounts = Accounts::new().with_user("ada").await.with_user("bob").await;
    accounts.add_key(&key(1, "ada")).await;
    accounts.add_key(&key(2, "bob")).await;
    accounts.look().await;
    accounts.store().delete_user("ada", NOW, &root()).await.unwrap();
    accounts.look().await;
    assert!(accounts.directory.person("ada").is_none());
    assert!(accounts.directory.key(id(1)).is_none());
    assert!(accounts.directory.person("bob").is_some());
    assert!(accounts.directory.key(id(2)).is_some());
}

#[tokio::test]
async fn keys_of_a_user_who_was_removed_do_not_come_back_with_the_name() {
    let accounts = Accounts::new().with_user("ada").await;
    accounts.add_key(&key(1, "ada")).await;
    accounts.look().await;
    accounts.store().delete_user("ada", NOW, &root()).await.unwrap();
    accounts.make("ada", AccountRole::User).await;
    accounts.look().await;
    assert!(accounts.directory.person("ada").is_some());
    assert!(accounts.directory.key(id(1)).is_none());
}

fn is_revoked(directory: &Directory, id: &str) -> bool {
    let proof = Proof { ids: vec![id.to_owned()], ..Proof::default() };
    directory.void(&proof).is_some()
}

#[test]
fn a_full_feed_replaces_everything_and_a_partial_one_adds() {
    let Accounts { directory, .. } = Accounts::new();
    let later = directory.clock.unix_secs() + 1000;
    let changes = |full, name: &str, number| Changes {
        full,
        users: vec![user(name, 1)],
        keys: vec![key(number, name)],
        revoked: vec![(name.into(), later)],
        ..Changes::default()
    };
    let known = |name: &str, number| {
        let there = directory.person(name).is_some();
        assert_eq!(directory.key(id(number)).is_some(), there);
        assert_eq!(is_revoked(&directory, name), there);
        there
    };
    directory.apply(changes(true, "ada", 1));
    directory.apply(changes(false, "bob", 2));
    assert!(known("ada", 1) && known("bob", 2));
    directory.apply(changes(true, "eve", 3));
    assert!(!known("ada", 1) && !known("bob", 2) && known("eve", 3));
}

#[test]
fn revocations_are_forgotten_once_they_are_over() {
    let Accounts { directory, clock } = Accounts::new();
    let now = clock.unix_secs();
    let revoked =
        vec![("over".into(), now), ("soon".into(), now + 60), ("later".into(), now + 999)];
    directory.apply(Changes { revoked, ..Changes::default() });
    let known = || ["over", "soon", "later"].map(|id| is_revoked(&directory, id));
    assert_eq!(known(), [true, true, true]);
    directory.apply(Changes::default());
    assert_eq!(known(), [false, true, true]);
    clock.advance(Duration::from_secs(120));
    directory.apply(Changes::default());
    assert_eq!(known(), [false, false, true]);
}

#[tokio::test]
async fn equal_names_and_rights_are_kept_once() {
    let accounts = Accounts::new().with_user("ada").await;
    for (number, quota) in [(1, "small"), (2, "small"), (3, "large")] {
        accounts.add_key(&Key { quota: Some(quota.into()), ..key(number, "ada") }).await;
    }
    accounts.look().await;
    let [one, two, three] = [1, 2, 3].map(|number| accounts.directory.key(id(number)).unwrap());
    assert!(Arc::ptr_eq(&one.user, &accounts.person("ada").name));
    assert!(Arc::ptr_eq(&one.rights, &two.rights));
    assert_eq!(three.rights.quota.as_deref(), Some("large"));
}

#[test]
fn what_a_request_was_let_in_by_is_void_for_a_reason() {
    let Accounts { directory, clock } = Accounts::new();
    directory.apply(Changes {
        users: vec![user("ada", 10), User { disabled: true, ..user("bob", 10) }],
        keys: vec![key(1, "ada"), Key { revoked_at: Some(NOW), ..key(2, "ada") }],
        revoked: vec![("gone".into(), clock.unix_secs() + 1000)],
        ..Changes::default()
    });
    let ids = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>();
    let ada = || Proof { user: Some("ada".into()), ..Proof::default() };
    for (proof, expected) in [
        (Proof::default(), None),
        (ada(), None),
        (proof_of("eve"), Some("the user is gone")),
        (proof_of("bob"), Some("the user is disabled")),
        (Proof { epoch: Some(9), ..ada() }, Some("the user's tokens were revoked")),
        (Proof { epoch: Some(10), ..ada() }, None),
        (Proof { epoch: Some(11), ..ada() }, None),
        (Proof { ids: ids(&["here"]), ..ada() }, None),
        (Proof { ids: ids(&["here", "gone"]), ..ada() }, Some("the session or token was revoked")),
        (
            Proof { ids: ids(&["gone"]), ..Proof::default() },
            Some("the session or token was revoked"),
        ),
        (Proof { key: Some(id(1)), ..ada() }, None),
        (Proof { key: Some(id(2)), ..ada() }, Some("the API key was revoked")),
        (Proof { key: Some(id(3)), ..ada() }, Some("the API key was revoked")),
    ] {
        assert_eq!(directory.void(&proof), expected, "{proof:?}");
    }
}

#[tokio::test]
async fn revoking_reaches_the_copy_by_id_and_by_epoch() {
    let accounts = Accounts::new().with_user("ada").await;
    let proof = Proof {
        user: Some("ada".into()),
        epoch: Some(accounts.person("ada").epoch),
        ids: vec!["token".into()],
        key: None,
    };
    assert_eq!(accounts.directory.void(&proof), None);
    let until = accounts.clock.unix_secs() + 60;
    accounts.store().revoke_token("token", until, &root()).await.unwrap();
    accounts.look().await;
    assert!(is_revoked(&accounts.directory, "token") && !is_revoked(&accounts.directory, "other"));
    assert_eq!(accounts.directory.void(&proof), Some("the session or token was revoked"));
    accounts.store().revoke_user("ada", NOW + 9, &root()).await.unwrap();
    accounts.look().await;
    assert_eq!(accounts.directory.void(&proof), Some("the user's tokens were revoked"));
}

#[tokio::test]
async fn a_key_is_verified_by_its_secret() {
    let accounts = Accounts::new().with_user("ada").await;
    let secret: Vec<u8> = (0..64_u8).map(|n| n.wrapping_mul(37) ^ 91).collect();
    let pepper = Pepper::new(&SecretSlice::from(secret)).unwrap();
    let [held, other, unknown] = [(); 3].map(|()| ApiKey::generate().unwrap());
    for (stored, digest) in [(&held, &held), (&other, &unknown)] {
        let digest = pepper.digest(digest);
        accounts.add_key(&Key { id: stored.id(), digest, ..key(1, "ada") }).await;
    }
    accounts.look().await;
    let verify = |key| accounts.directory.verify(&pepper, key).map(|entry| entry.user.to_string());
    assert_eq!(verify(&held), Ok("ada".to_owned()));
    assert_eq!(verify(&other), Err(ApiKeyError::Mismatch));
    assert_eq!(verify(&unknown), Err(ApiKeyError::Unknown));
}

#[tokio::test]
async fn nobody_is_let_in_by_a_copy_that_is_too_old() {
    let accounts = Accounts::new();
    let (directory, clock) = (&accounts.directory, &accounts.clock);
    assert_eq!(reason(directory.check_fresh()), Some(Reason::Overloaded));
    assert!(!directory.is_current());
    for round in 0..2 {
        accounts.look().await;
        assert!(directory.is_current(), "{round}");
        clock.advance(HOUR - Duration::from_secs(60));
        assert_eq!(reason(directory.check_fresh()), None, "{round}");
        assert!(!directory.is_current(), "{round}");
        clock.advance(Duration::from_secs(60));
        assert_eq!(reason(directory.check_fresh()), Some(Reason::Overloaded), "{round}");
    }
    let denial = directory.check_fresh().unwrap_err();
    assert_eq!(denial.retry_after_secs(), Some(5));
}

/// Somebody else takes the store away, and puts it back.
async fn execute(dir: &TempDir, sql: &'static str) {
    let url = format!("sqlite:{}", dir.path().join("accounts.db").display());
    let mut conn = AnyConnection::connect(&url).await.unwrap();
    conn.execute(sqlx::raw_sql(sql)).await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn while_the_store_is_away_the_copy_serves_for_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("accounts.db").display());
    let accounts = Accounts::at(&url).with_user("ada").await;
    let (directory, clock) = (&accounts.directory, &accounts.clock);
    execute(&dir, "ALTER TABLE state RENAME TO away").await;
    clock.advance(HOUR / 2);
    assert!(directory.look().await.is_err());
    clock.advance(Duration::from_secs(1));
    directory.look_again().await;
    assert!(directory.person("ada").is_some());
    assert_eq!(reason(directory.check_fresh()), None);
    directory.write_touches().await.unwrap();
    clock.advance(HOUR / 2);
    assert!(directory.look().await.is_err());
    assert_eq!(reason(directory.check_fresh()), Some(Reason::Overloaded));
    execute(&dir, "ALTER TABLE away RENAME TO state").await;
    accounts.look().await;
    assert_eq!(reason(directory.check_fresh()), None);
}

#[tokio::test]
async fn a_look_out_of_turn_waits_for_the_last_one_to_be_a_while_ago() {
    let accounts = Accounts::new().with_user("ada").await;
    let directory = &accounts.directory;
    accounts.make("bob", AccountRole::User).await;
    // As if somebody had looked in a second from now: no test is so slow that it is over.
    let soon = accounts.clock.monotonic_ns() + 60_000_000_000;
    *directory.turn.lock().await = Some(soon);
    directory.look_again().await;
    assert!(directory.person("bob").is_none());
    accounts.clock.advance(Duration::from_secs(61));
    directory.look_again().await;
    assert!(directory.person("bob").is_some());
    assert!(directory.turn.lock().await.is_some_and(|at| at > soon));
}

#[test]
fn looks_out_of_turn_are_twenty_milliseconds_apart() {
    assert_eq!(nanos(LOOK_AGAIN), 20_000_000);
    assert_eq!(nanos(Duration::MAX), u64::MAX);
}

#[tokio::test]
async fn whether_something_changed_is_told_once() {
    let accounts = Accounts::new();
    let directory = &accounts.directory;
    assert!(!directory.take_changed());
    accounts.look().await;
    assert!(directory.take_changed() && !directory.take_changed());
    accounts.look().await;
    assert!(!directory.take_changed());
    accounts.make("ada", AccountRole::User).await;
    accounts.look().await;
    assert!(directory.take_changed());
}

#[tokio::test]
async fn uses_are_written_down_once() {
    let accounts = Accounts::new().with_user("ada").await;
    let directory = &accounts.directory;
    let session = Session {
        id: "session".into(),
        user: "ada".into(),
        created_at: NOW,
        last_seen_at: NOW,
        expires_at: u64::from(u32::MAX),
        address: "192.0.2.1".parse().unwrap(),
        device: String::new(),
        mfa: false,
    };
    accounts.store().open_session(&session).await.unwrap();
    accounts.add_key(&key(1, "ada")).await;
    let used = async || accounts.store().keys(None).await.unwrap()[0].last_used_at;
    let seen = async || accounts.store().sessions("ada", NOW).await.unwrap()[0].last_seen_at;

    accounts.clock.advance(Duration::from_secs(10 * 365 * 24 * 3600));
    let now = accounts.clock.unix_secs();
    directory.touch_key(id(1));
    directory.write_touches().await.unwrap();
    assert!(used().await.is_some_and(|at| at >= now));
    assert_eq!(seen().await, NOW);
    directory.touch_session("session");
    accounts.clock.advance(HOUR);
    directory.touch_session("session");
    directory.write_touches().await.unwrap();
    assert!(seen().await >= now + 3600);
    assert!(directory.touched.lock().unwrap().keys.is_empty());
    assert!(directory.touched.lock().unwrap().sessions.is_empty());
}

#[test]
fn uses_that_are_remembered_are_bounded() {
    let Accounts { directory, .. } = Accounts::new();
    for number in 0..MAX_TOUCHED + 2 {
        directory.touch_key(id(number));
        directory.touch_session(&number.to_string());
    }
    let touched = directory.touched.lock().unwrap();
    assert_eq!((touched.keys.len(), touched.sessions.len()), (MAX_TOUCHED, MAX_TOUCHED));
}

#[tokio::test]
async fn debug_names_nobody() {
    let accounts = Accounts::new().with_user("ada").await;
    accounts.add_key(&key(1, "ada")).await;
    accounts.look().await;
    assert_eq!(format!("{:?}", accounts.directory), "Directory { people: 1, keys: 1, .. }");
}
