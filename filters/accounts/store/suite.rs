//! The test-suite of the store: each test runs on SQLite in memory, on SQLite in a file, and on
//! Postgres if `PORTCULLIS_TEST_POSTGRES` is the URL of an administrator (`scripts/postgres.sh`).

mod concurrency;
mod declare;
mod durability;
mod failures;
mod feed;
mod keys;
mod login;
mod mfa;
mod rotation;
mod scale;
mod sessions;
mod standing;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor};
use tempfile::TempDir;

use super::{
    Actor, Key, NewUser, Session, Source, SqlStore, Store, StoreOptions, User, UserChange,
};
use crate::accounts::AccountRole;
use crate::accounts::api_key::KeyDigest;

/// Seconds; tests count on from here.
pub(super) const NOW: u64 = 1_800_000_000;
/// A key to seal with.
pub(super) const STORE_KEY: &str = "kT9vPz3qLw8xYb2nRm5sHd7fJc4gAe1u";

/// Makes one `#[test]` of each function for each database.
macro_rules! on_every_database {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[test]
            fn $name() {
                $crate::accounts::store::suite::Database::memory().run(super::$name);
            })*
        }
        mod file {
            $(#[test]
            fn $name() {
                $crate::accounts::store::suite::Database::file().run(super::$name);
            })*
        }
        mod postgres {
            $(#[test]
            fn $name() {
                if let Some(database) = $crate::accounts::store::suite::Database::postgres() {
                    database.run(super::$name);
                }
            })*
        }
    };
}
use on_every_database;

/// A database of one test, gone when it is dropped.
pub(super) enum Database {
    Memory,
    File(TempDir),
    Postgres { admin: String, name: String },
}

impl Database {
    pub(super) const fn memory() -> Self {
        Self::Memory
    }

    pub(super) fn file() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    /// Nothing if there is no server.
    pub(super) fn postgres() -> Option<Self> {
        let Ok(admin) = std::env::var("PORTCULLIS_TEST_POSTGRES") else {
            #[expect(clippy::print_stderr, reason = "who runs the tests shall know")]
            {
                eprintln!("skipped: PORTCULLIS_TEST_POSTGRES is not set");
            }
            return None;
        };
        Some(Self::on_server(admin))
    }

    pub(super) fn on_server(admin: String) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("portcullis_{}_{count}", std::process::id());
        block_on(execute(&admin, &format!("CREATE DATABASE {name}"))).unwrap();
        Self::Postgres { admin, name }
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Memory => "sqlite::memory:".into(),
            Self::File(dir) => format!("sqlite:{}", dir.path().join("accounts.db").display()),
            Self::Postgres { admin, name } => {
                let (server, _) = admin.rsplit_once('/').unwrap();
                format!("{server}/{name}")
            }
        }
    }

    pub(super) fn options(&self) -> StoreOptions {
        StoreOptions {
            url: self.url().into(),
            base: "/".into(),
            // Long: what is tested is what happens, not how long a busy disk takes for it.
            timeout: Duration::from_secs(30),
            connections: 4,
            store_key: Some(STORE_KEY.into()),
            store_key_previous: None,
        }
    }

    pub(super) fn open(&self) -> Arc<SqlStore> {
        Arc::new(SqlStore::open(self.options()).unwrap())
    }

    /// Runs a statement past the store.
    pub(super) async fn execute(&self, sql: &str) -> sqlx::Result<()> {
        execute(&self.url(), sql).await
    }

    pub(super) fn run<F: Future<Output = ()>>(self, test: impl FnOnce(Arc<dyn Store>) -> F) {
        let store = self.open();
        block_on(test(store));
        drop(self);
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Self::Postgres { admin, name } = self {
            let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            drop(block_on(execute(admin, &sql)));
        }
    }
}

pub(super) async fn connect(url: &str) -> sqlx::Result<AnyConnection> {
    sqlx::any::install_default_drivers();
    AnyConnection::connect(url).await
}

async fn execute(url: &str, sql: &str) -> sqlx::Result<()> {
    let mut conn = connect(url).await?;
    conn.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
    conn.close().await
}

pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// All at once.
pub(super) async fn together<F>(tasks: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap());
    }
    outcomes
}

/// Somebody whose changes are recorded.
pub(super) fn admin() -> Actor {
    Actor { name: "root".into(), unrecorded: false }
}

/// Somebody at the command line.
pub(super) fn operator() -> Actor {
    Actor { name: "operator".into(), unrecorded: true }
}

pub(super) fn new_user(name: &str, role: AccountRole) -> NewUser {
    NewUser {
        name: name.into(),
        role,
        password_hash: Some(format!("hash of {name}")),
        email: None,
        source: Source::Store,
    }
}

pub(super) async fn make(store: &Arc<dyn Store>, name: &str, role: AccountRole) -> User {
    store.create_user(new_user(name, role), NOW, &admin()).await.unwrap()
}

pub(super) fn new_key(number: u64, user: &str) -> Key {
    let mut digest = [7; 32];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    Key {
        id: format!("{number:0>12}").parse().unwrap(),
        user: user.into(),
        name: format!("key {number}"),
        digest: KeyDigest::from(digest),
        scopes: vec!["llm:generate".into(), "models:read".into()],
        models: vec!["llama3*".into()],
        networks: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        quota: Some("small".into()),
        expires_at: Some(NOW + 1000),
        created_at: NOW,
        created_by: "root".into(),
        last_used_at: None,
        revoked_at: None,
        source: Source::Store,
    }
}

pub(super) fn new_session(id: &str, user: &str) -> Session {
    Session {
        id: id.into(),
        user: user.into(),
        created_at: NOW,
        last_seen_at: NOW,
        expires_at: NOW + 900,
        address: "192.0.2.1".parse().unwrap(),
        device: "curl/8".into(),
        mfa: false,
    }
}

pub(super) fn role(role: AccountRole) -> UserChange {
    UserChange { role: Some(role), ..UserChange::default() }
}

pub(super) fn disabled(disabled: bool) -> UserChange {
    UserChange { disabled: Some(disabled), ..UserChange::default() }
}

pub(super) fn password(hash: &str) -> UserChange {
    UserChange { password_hash: Some(hash.into()), ..UserChange::default() }
}

pub(super) fn email(address: Option<&str>) -> UserChange {
    UserChange { email: Some(address.map(SecretString::from)), ..UserChange::default() }
}
