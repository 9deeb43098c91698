//! API keys: made, rotated, revoked.

use super::super::{Actor, Key, Result, Source, StoreError};
use super::query;
use super::rows::{column, integer, json, key, select_keys, some_number};
use super::tx::Tx;
use crate::accounts::api_key::KeyId;

impl Tx<'_> {
    pub(super) async fn create_key(&mut self, key: &Key, by: &Actor) -> Result<()> {
        self.insert_key(key).await?;
        self.note(by, key.created_at, "key.create", &key.id.to_string()).await
    }

    pub(super) async fn keys(&mut self, user: Option<&str>) -> Result<Vec<Key>> {
        let of_user = concat!(select_keys!(), "WHERE user_name = $1");
        let asked = match user {
            Some(user) => query(of_user).bind(user),
            None => query(select_keys!()),
        };
        let rows = asked.fetch_all(&mut *self.conn).await?;
        let mut keys = rows.iter().map(key).collect::<Result<Vec<_>>>()?;
        keys.sort_unstable_by_key(|key| (key.created_at, key.id));
        Ok(keys)
    }

    pub(super) async fn revoke_key(&mut self, id: KeyId, now: u64, by: &Actor) -> Result<bool> {
        self.lock().await?;
        let key = self.key(id).await?.ok_or(StoreError::NotFound)?;
        if key.revoked_at.is_some() {
            return Ok(false);
        }
        let revision = self.change().await?;
        query("UPDATE api_keys SET revoked_at = $1, revision = $2 WHERE id = $3")
            .bind(integer(now))
            .bind(revision)
            .bind(id.to_string())
            .execute(&mut *self.conn)
            .await?;
        self.note(by, now, "key.revoke", &id.to_string()).await?;
        Ok(true)
    }

    pub(super) async fn rotate_key(
        &mut self,
        old: KeyId,
        old_expires_at: u64,
        new: &Key,
        by: &Actor,
    ) -> Result<()> {
        let revision = self.change().await?;
        let key = self.key(old).await?.filter(|key| key.revoked_at.is_none());
        let key = key.filter(|key| key.user == new.user).ok_or(StoreError::NotFound)?;
        if key.source == Source::Config {
            return Err(StoreError::Declared);
        }
        let expires_at = key.expires_at.map_or(old_expires_at, |at| at.min(old_expires_at));
        query("UPDATE api_keys SET expires_at = $1, revision = $2 WHERE id = $3")
            .bind(integer(expires_at))
            .bind(revision)
            .bind(old.to_string())
            .execute(&mut *self.conn)
            .await?;
        self.insert_key(new).await?;
        self.note(by, new.created_at, "key.rotate", &old.to_string()).await
    }

    pub(super) async fn insert_key(&mut self, key: &Key) -> Result<()> {
        let revision = self.change().await?;
        query(
            "INSERT INTO api_keys (id, user_name, name, digest, scopes, models, networks, quota, \
             expires_at, created_at, created_by, revoked_at, undeclared, source, revision) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0, $13, $14)",
        )
        .bind(key.id.to_string())
        .bind(key.user.as_str())
        .bind(key.name.as_str())
        .bind(key.digest.to_string())
        .bind(json(&key.scopes))
        .bind(json(&key.models))
        .bind(json(&key.networks))
        .bind(key.quota.as_deref())
        .bind(key.expires_at.map(integer))
        .bind(integer(key.created_at))
        .bind(key.created_by.as_str())
        .bind(key.revoked_at.map(integer))
        .bind(key.source.as_str())
        .bind(revision)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// Removes the keys of a user who is removed. Gives how many of them were not revoked.
    pub(super) async fn remove_keys(&mut self, user: &str) -> Result<u64> {
        let sql = "DELETE FROM api_keys WHERE user_name = $1 RETURNING revoked_at";
        let rows = query(sql).bind(user).fetch_all(&mut *self.conn).await?;
        rows.iter().try_fold(0, |live, row| {
            Ok(live + u64::from(some_number(row, "revoked_at")?.is_none()))
        })
    }

    /// Revokes every key for good: one that left the configuration does not come back with it.
    pub(super) async fn revoke_all_keys(&mut self, now: u64) -> Result<u64> {
        let revision = self.change().await?;
        query("UPDATE api_keys SET undeclared = 0 WHERE undeclared = 1")
            .execute(&mut *self.conn)
            .await?;
        let sql = "UPDATE api_keys SET revoked_at = $1, revision = $2 WHERE revoked_at IS NULL";
        let revoking = query(sql).bind(integer(now)).bind(revision);
        Ok(revoking.execute(&mut *self.conn).await?.rows_affected())
    }

    async fn key(&mut self, id: KeyId) -> Result<Option<Key>> {
        let sql = concat!(select_keys!(), "WHERE api_keys.id = $1");
        let row = query(sql).bind(id.to_string()).fetch_optional(&mut *self.conn).await?;
        row.as_ref().map(key).transpose()
    }

    /// A key, and whether it is revoked only because it left the configuration.
    pub(super) async fn declared_key(&mut self, id: KeyId) -> Result<Option<(Key, bool)>> {
        let Some(key) = self.key(id).await? else { return Ok(None) };
        let sql = "SELECT undeclared FROM api_keys WHERE id = $1";
        let row = query(sql).bind(id.to_string()).fetch_one(&mut *self.conn).await?;
        Ok(Some((key, column::<i64>(&row, "undeclared")? != 0)))
    }
}
