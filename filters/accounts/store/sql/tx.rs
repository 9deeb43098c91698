//! One transaction: the counter of changes, and events for the record.

use sqlx::AnyConnection;

use super::super::seal::Seals;
use super::super::{Actor, Result, Told};
use super::error::unexpected;
use super::rows::{column, integer};
use super::{Backend, query};

/// A transaction that has begun, or a connection that only reads.
pub(super) struct Tx<'c> {
    pub(super) conn: &'c mut AnyConnection,
    pub(super) seals: &'c Seals,
    backend: Backend,
    revision: Option<i64>,
}

impl<'c> Tx<'c> {
    pub(super) const fn new(
        conn: &'c mut AnyConnection,
        seals: &'c Seals,
        backend: Backend,
    ) -> Self {
        Self { conn, seals, backend, revision: None }
    }

    /// Keeps other changes out until the end, for operations that look first whether there is
    /// anything to change.
    pub(super) async fn lock(&mut self) -> Result<()> {
        if self.backend == Backend::Postgres {
            query("SELECT id FROM state WHERE id = 1 FOR UPDATE")
                .fetch_one(&mut *self.conn)
                .await?;
        }
        Ok(())
    }

    /// Takes the next number of the counter, once. Its row stays taken until the end of the
    /// transaction: so changes become visible in the order of their numbers.
    pub(super) async fn change(&mut self) -> Result<i64> {
        if let Some(revision) = self.revision {
            return Ok(revision);
        }
        let sql = "UPDATE state SET revision = revision + 1 WHERE id = 1 RETURNING revision";
        let row = query(sql).fetch_optional(&mut *self.conn).await?.ok_or_else(unexpected)?;
        let revision = column(&row, "revision")?;
        self.revision = Some(revision);
        Ok(revision)
    }

    /// Keeps an event for a gateway to record, if nobody else records the change.
    pub(super) async fn note(
        &mut self,
        by: &Actor,
        now: u64,
        action: &'static str,
        target: &str,
    ) -> Result<()> {
        self.tell(by, now, action, target, &Told::default()).await
    }

    /// The same of a change of which the record says more.
    pub(super) async fn tell(
        &mut self,
        by: &Actor,
        now: u64,
        action: &'static str,
        target: &str,
        told: &Told,
    ) -> Result<()> {
        if !by.unrecorded {
            return Ok(());
        }
        let revision = self.change().await?;
        query(
            "INSERT INTO events (revision, action, target, actor, happened_at, value_before, \
             value_after, reason) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(revision)
        .bind(action)
        .bind(target)
        .bind(by.name.as_str())
        .bind(integer(now))
        .bind(told.before.as_deref())
        .bind(told.after.as_deref())
        .bind(told.reason.as_deref())
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }
}

/// Epochs are times in milliseconds, so that one that begins is above all that were ever given.
pub(super) fn epoch_at(now: u64) -> i64 {
    integer(now.saturating_mul(1000))
}
