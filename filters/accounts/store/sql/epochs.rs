//! Epochs, which make tokens void, and what is left of users who were removed.

use super::super::{Result, Revoked};
use super::error::unexpected;
use super::query;
use super::rows::{column, integer};
use super::tx::{Tx, epoch_at};

impl Tx<'_> {
    /// Removes a user with all that belongs to it, and leaves a tombstone for the readers.
    pub(super) async fn remove_user(&mut self, name: &str, now: u64) -> Result<Revoked> {
        let revision = self.change().await?;
        let sessions = self.close_sessions(name, now).await?;
        let keys = self.remove_keys(name).await?;
        let sql = "DELETE FROM users WHERE name = $1 RETURNING epoch";
        let row = query(sql).bind(name).fetch_one(&mut *self.conn).await?;
        self.raise_epoch_floor(column::<i64>(&row, "epoch")?.saturating_add(1)).await?;
        query(
            "INSERT INTO tombstones (name, removed_at, revision) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE \
             SET removed_at = excluded.removed_at, revision = excluded.revision",
        )
        .bind(name)
        .bind(integer(now))
        .bind(revision)
        .execute(&mut *self.conn)
        .await?;
        Ok(Revoked { keys, sessions, users: 1 })
    }

    /// Readers who have not seen a removal must not take the user who is made again for the one
    /// they know, with the keys of that one: they read everything anew. Gives whether there was a
    /// user of this name.
    pub(super) async fn forget_tombstone(&mut self, name: &str, revision: i64) -> Result<bool> {
        let sql = "DELETE FROM tombstones WHERE name = $1";
        let gone = query(sql).bind(name).execute(&mut *self.conn).await?.rows_affected();
        if gone > 0 {
            let sql = "UPDATE state SET horizon = $1 WHERE id = 1";
            query(sql).bind(revision).execute(&mut *self.conn).await?;
        }
        Ok(gone > 0)
    }

    /// The first epoch of a user: above those of everybody of that name who was removed. Of one who
    /// is made again it begins after the second of now, by which tokens of external issuers, which
    /// know no epochs, are told from those of the one who was removed.
    pub(super) async fn first_epoch(&mut self, now: u64, again: bool) -> Result<i64> {
        let sql = "SELECT epoch_floor FROM state WHERE id = 1";
        let row = query(sql).fetch_optional(&mut *self.conn).await?.ok_or_else(unexpected)?;
        Ok(column::<i64>(&row, "epoch_floor")?.max(epoch_at(now) + i64::from(again)))
    }

    async fn raise_epoch_floor(&mut self, floor: i64) -> Result<()> {
        let sql = "UPDATE state SET epoch_floor = $1 WHERE id = 1 AND epoch_floor < $1";
        query(sql).bind(floor).execute(&mut *self.conn).await?;
        Ok(())
    }

    /// Begins a new epoch: tokens of the user are void, and the sessions that they belong to closed.
    pub(super) async fn begin_epoch(&mut self, name: &str, now: u64) -> Result<u64> {
        let revision = self.change().await?;
        query(
            "UPDATE users SET revision = $1, \
             epoch = CASE WHEN epoch < $2 THEN $2 ELSE epoch + 1 END WHERE name = $3",
        )
        .bind(revision)
        .bind(epoch_at(now))
        .bind(name)
        .execute(&mut *self.conn)
        .await?;
        self.close_sessions(name, now).await
    }
}
