//! The feed: what changed since a reader last looked, all of one moment.

use sqlx::any::AnyRow;

use super::super::{Changes, Key, Result, Standing, User};
use super::error::unexpected;
use super::query;
use super::rows::{column, integer, key, number, select_keys, user, user_columns};
use super::tx::Tx;

/// Rows that are read at a time.
const PAGE: i64 = 1000;

impl Tx<'_> {
    pub(super) async fn revision(&mut self) -> Result<u64> {
        self.state("revision").await
    }

    /// A reader who has seen too little, or more than there is (the store was put back to an older
    /// copy), gets everything.
    pub(super) async fn changes(&mut self, since: u64) -> Result<Changes> {
        let (revision, horizon) = (self.state("revision").await?, self.state("horizon").await?);
        let full = since == 0 || since < horizon || since > revision;
        let resets = if since == 0 { Vec::new() } else { self.resets(since).await? };
        let since = if full { 0 } else { integer(since) };
        Ok(Changes {
            revision,
            full,
            users: self.changed_users(since).await?,
            removed_users: if full { Vec::new() } else { self.removed_users(since).await? },
            keys: self.changed_keys(since).await?,
            revoked: self.changed_revocations(since).await?,
            standing: self.changed_standing(full, since).await?,
            resets,
        })
    }

    async fn changed_users(&mut self, since: i64) -> Result<Vec<User>> {
        let sql = concat!(
            "SELECT ",
            user_columns!(),
            ", revision FROM users WHERE (revision, name) > ($1, $2) ",
            "ORDER BY revision, name LIMIT $3"
        );
        self.paged(sql, since, user, |user| user.name.clone()).await
    }

    async fn removed_users(&mut self, since: i64) -> Result<Vec<String>> {
        let sql = "SELECT name FROM tombstones WHERE revision > $1";
        let rows = query(sql).bind(since).fetch_all(&mut *self.conn).await?;
        rows.iter().map(|row| column(row, "name")).collect()
    }

    async fn changed_keys(&mut self, since: i64) -> Result<Vec<Key>> {
        let sql = concat!(
            select_keys!(),
            "WHERE (revision, api_keys.id) > ($1, $2) ORDER BY revision, api_keys.id LIMIT $3"
        );
        self.paged(sql, since, key, |key| key.id.to_string()).await
    }

    /// Reads some rows at a time: as the driver holds them they take several times the memory.
    async fn paged<T>(
        &mut self,
        sql: &'static str,
        since: i64,
        read: fn(&AnyRow) -> Result<T>,
        name: fn(&T) -> String,
    ) -> Result<Vec<T>> {
        let mut values = Vec::new();
        let mut after = Some((since.saturating_add(1), String::new()));
        while let Some((revision, last)) = after {
            let page = query(sql).bind(revision).bind(last).bind(PAGE);
            let rows = page.fetch_all(&mut *self.conn).await?;
            for row in &rows {
                values.push(read(row)?);
            }
            after = match (rows.last(), values.last()) {
                (Some(row), Some(value)) => Some((column(row, "revision")?, name(value))),
                _ => None,
            };
        }
        Ok(values)
    }

    async fn changed_revocations(&mut self, since: i64) -> Result<Vec<(String, u64)>> {
        let sql = "SELECT id, expires_at FROM revocations WHERE revision > $1";
        let rows = query(sql).bind(since).fetch_all(&mut *self.conn).await?;
        rows.iter().map(|row| Ok((column(row, "id")?, number(row, "expires_at")?))).collect()
    }

    async fn changed_standing(&mut self, full: bool, since: i64) -> Result<Option<Standing>> {
        let changed = full || integer(self.state("standing").await?) > since;
        if changed { self.standing().await.map(Some) } else { Ok(None) }
    }

    async fn state(&mut self, name: &str) -> Result<u64> {
        let sql = "SELECT revision, horizon, standing FROM state WHERE id = 1";
        let row = query(sql).fetch_optional(&mut *self.conn).await?.ok_or_else(unexpected)?;
        number(&row, name)
    }
}
