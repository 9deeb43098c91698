//! [`SqlStore`]: accounts in SQLite or Postgres, by one set of statements.
//!
//! | file | story |
//! |---|---|
//! | `place` | where the database is, and how a connection to it is set up |
//! | `open` | from options to a store that is migrated, sealed anew and ready |
//! | `operations` | the operations of the trait, each in a transaction of the right kind |
//! | `tx` | one transaction: the counter, and events for the record |
//! | `users` `epochs` `declare` `keys` `sessions` `mfa` `login` | the statements, by theme |
//! | `feed` | what changed since a reader last looked |
//! | `standing` | limits that operators change while gateways run |
//! | `upkeep` | last uses, events, and forgetting what is over |
//! | `rotation` | sealed columns under the previous key are sealed anew |
//! | `rows` `error` | rows to values, errors to answers |
//!
//! A process has several tokio runtimes and a store serves them all, so it has its own: operations
//! run there to their end, also when the one who asked has gone, and are bounded in time.

mod declare;
mod epochs;
mod error;
mod feed;
mod keys;
mod login;
mod mfa;
mod open;
mod operations;
mod place;
mod rotation;
mod rows;
mod sessions;
mod standing;
mod tx;
mod upkeep;
mod users;

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use sqlx::any::AnyArguments;
use sqlx::pool::PoolConnection;
use sqlx::query::Query;
use sqlx::{Any, AnyPool, Connection};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::seal::Seals;
use super::{Result, StoreError};
use tx::Tx;

/// Operations over everything (a full feed, a revocation of all, the declaration at start) may take
/// this many times as long as others.
const PATIENCE: u32 = 10;

/// Where accounts are kept, and how.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct StoreOptions {
    /// `sqlite:PATH`, `sqlite::memory:`, or `postgres://…`, which may contain a password.
    pub url: SecretString,
    /// What a relative path of SQLite is relative to.
    pub base: PathBuf,
    /// How long an operation may take; those over everything ten times as long.
    pub timeout: Duration,
    /// Connections that are open at most, at least 1.
    pub connections: u32,
    /// Seals what is sensitive. Without it there are no second factors and no e-mail addresses.
    pub store_key: Option<SecretString>,
    /// The key before that one: what it sealed is sealed anew when the store is opened.
    pub store_key_previous: Option<SecretString>,
}

/// Accounts in a SQL database.
pub struct SqlStore {
    /// Taken only when the store is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
    inner: Arc<Inner>,
}

impl SqlStore {
    /// Connects, brings the schema up to date, and seals anew what the previous key sealed. It
    /// blocks for as long as that takes, up to ten times the timeout, on a thread of its own.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], with a text for operators that contains no password.
    pub fn open(options: StoreOptions) -> Result<Self> {
        let thread = std::thread::Builder::new().name("accounts-open".into());
        let opening = thread.spawn(move || Self::start(&options)).map_err(unavailable)?;
        opening.join().unwrap_or_else(|_| Err(broken_off()))
    }

    /// The runtime of the store, for tasks that belong to it.
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    #[cfg(test)]
    pub(super) fn pool(&self) -> &AnyPool {
        &self.inner.pool
    }

    fn start(options: &StoreOptions) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("accounts")
            .enable_all()
            .build()
            .map_err(unavailable)?;
        let opened = runtime.block_on(Inner::open(options));
        let handle = runtime.handle().clone();
        match opened {
            Ok(inner) => Ok(Self { runtime: Some(runtime), handle, inner: Arc::new(inner) }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    async fn run<T, F>(&self, kind: Kind, limit: Duration, operation: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(Tx<'c>) -> Operation<'c, T> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let work = async move {
            let done = timeout(limit, inner.run(kind, operation)).await;
            done.unwrap_or_else(|_| Err(unavailable(format!("no answer within {limit:?}"))))
        };
        self.handle.spawn(work).await.unwrap_or_else(|_| Err(broken_off()))
    }

    fn usual(&self) -> Duration {
        self.inner.timeout
    }

    fn long(&self) -> Duration {
        self.inner.timeout.saturating_mul(PATIENCE)
    }
}

impl Drop for SqlStore {
    /// A runtime may not wait for its threads where async code runs.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore").field("backend", &self.inner.backend).finish_non_exhaustive()
    }
}

/// Which database it is: the statements are the same, beginning a transaction is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    Sqlite,
    Postgres,
}

/// A future that works within a transaction.
type Operation<'c, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'c>>;

/// What a transaction is begun for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One statement that reads.
    Read,
    /// Several that read, and see the same moment.
    Snapshot,
    /// All or nothing is written.
    Write,
}

impl Kind {
    /// SQLite fails a transaction that first reads and then writes while another does, unless it
    /// took the lock at its beginning.
    const fn begin(self, backend: Backend) -> &'static str {
        match (self, backend) {
            (Self::Write, Backend::Sqlite) => "BEGIN IMMEDIATE",
            (Self::Snapshot, Backend::Postgres) => {
                "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
            }
            _ => "BEGIN",
        }
    }
}

struct Inner {
    backend: Backend,
    pool: AnyPool,
    seals: Seals,
    timeout: Duration,
    /// SQLite has one writer: those of this process wait here in order, not in its sleeping loop.
    writer: Mutex<()>,
}

impl Inner {
    async fn run<T, F>(&self, kind: Kind, operation: F) -> Result<T>
    where
        F: for<'c> FnOnce(Tx<'c>) -> Operation<'c, T>,
    {
        let alone = kind == Kind::Write && self.backend == Backend::Sqlite;
        let _turn = if alone { Some(self.writer.lock().await) } else { None };
        let connection = self.pool.acquire().await?;
        let mut lease = Lease { connection, close: self.backend == Backend::Postgres };
        if kind == Kind::Read {
            let outcome =
                operation(Tx::new(&mut lease.connection, &self.seals, self.backend)).await;
            lease.close = false;
            return outcome;
        }
        let mut transaction = lease.connection.begin_with(kind.begin(self.backend)).await?;
        let outcome = operation(Tx::new(&mut transaction, &self.seals, self.backend)).await;
        let ended = match outcome {
            Ok(_) => transaction.commit().await,
            Err(_) => transaction.rollback().await,
        };
        lease.close = ended.is_err();
        // The first failure is the answer: a rollback that fails too adds nothing.
        outcome.and_then(|value| ended.map(|()| value).map_err(StoreError::from))
    }
}

/// A connection on loan. It is closed, and not given back, if its transaction did not end properly,
/// and if an answer of Postgres is outstanding: that may never come.
struct Lease {
    connection: PoolConnection<Any>,
    close: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.close {
            self.connection.close_on_drop();
        }
    }
}

/// A statement, with `$1`, `$2`, … for its values.
pub(super) fn query(sql: &'static str) -> Query<'static, Any, AnyArguments> {
    sqlx::query(sql)
}

fn unavailable(why: impl fmt::Display) -> StoreError {
    StoreError::Unavailable(why.to_string())
}

fn broken_off() -> StoreError {
    unavailable("the operation was broken off")
}
