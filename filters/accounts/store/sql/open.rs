//! From options to a store that is ready.

use std::time::Duration;

use sqlx::{AnyConnection, AnyPool, Connection};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::super::seal::Seals;
use super::super::{Result, StoreError, schema};
use super::place::Place;
use super::{Backend, Inner, Kind, PATIENCE, StoreOptions, query, unavailable};
use crate::clock::random;

/// How long to wait before asking again for a lock that SQLite does not wait for by itself.
const AGAIN: Duration = Duration::from_millis(20);

impl Inner {
    /// Opens within the time that long operations have.
    pub(super) async fn open(options: &StoreOptions) -> Result<Self> {
        let limit = options.timeout.saturating_mul(PATIENCE);
        let opened = timeout(limit, Self::prepare(options)).await;
        opened.unwrap_or_else(|_| Err(unavailable(format!("not open within {limit:?}"))))
    }

    async fn prepare(options: &StoreOptions) -> Result<Self> {
        let seals = Seals::new(options.store_key.as_ref(), options.store_key_previous.as_ref())
            .map_err(|error| unavailable(format!("store_key: {error}")))?;
        let place = Place::parse(&options.url, &options.base)?;
        let backend = place.backend();
        let address = place.address()?;
        if !matches!(place, Place::Memory) {
            let mut conn = place.connect(&address, options.timeout).await?;
            write_ahead(&mut conn, backend, options.timeout).await?;
            conn.close().await?;
        }
        let pool = place.pool(address, options);
        prepare_schema(&pool, backend).await?;
        let writer = Mutex::default();
        let inner = Self { backend, pool, seals, timeout: options.timeout, writer };
        inner.rotate().await?;
        Ok(inner)
    }
}

/// Switches a new file to the write-ahead log, which it then keeps. SQLite does not wait for the
/// lock that this takes, and another process may be doing the same.
async fn write_ahead(conn: &mut AnyConnection, backend: Backend, limit: Duration) -> Result<()> {
    if backend == Backend::Postgres {
        return Ok(()); // it always has one
    }
    let deadline = Instant::now() + limit;
    loop {
        match query("PRAGMA journal_mode = WAL").fetch_all(&mut *conn).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() < deadline && is_locked(&error) => sleep(AGAIN).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// `SQLITE_BUSY` and `SQLITE_LOCKED`, the low byte of the extended codes.
fn is_locked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    let code = code.and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

/// Nothing is written where the schema is current: a full disk keeps nobody from starting.
async fn prepare_schema(pool: &AnyPool, backend: Backend) -> Result<()> {
    let mut conn = pool.acquire().await?;
    if schema::is_current(&mut conn).await {
        return Ok(());
    }
    let mut transaction = conn.begin_with(Kind::Write.begin(backend)).await?;
    schema::migrate(&mut transaction, backend).await?;
    make_state(&mut transaction).await?;
    transaction.commit().await.map_err(StoreError::from)
}

/// The counter, and the key of the tallies, which every store draws for itself.
async fn make_state(conn: &mut AnyConnection) -> Result<()> {
    let drawn = random::<32>().map_err(unavailable)?;
    let key: String = drawn.iter().map(|byte| format!("{byte:02x}")).collect();
    query(
        "INSERT INTO state (id, revision, horizon, epoch_floor, tally_key) \
         VALUES (1, 0, 0, 0, $1) ON CONFLICT (id) DO NOTHING",
    )
    .bind(key)
    .execute(conn)
    .await?;
    Ok(())
}
