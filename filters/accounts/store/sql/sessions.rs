//! Sessions and revocations.

use super::super::{Actor, Result, Revoked, Session, StoreError};
use super::query;
use super::rows::{integer, number, select_sessions, session};
use super::tx::{Tx, epoch_at};
use crate::clock::Clock;

/// Revocations are kept this much longer than what they revoke could be used, in seconds: clocks
/// differ, and tokens are accepted a little past their end.
const MARGIN: u64 = 600;

impl Tx<'_> {
    /// The row of the user is written first, so that a revocation at the same time comes before or
    /// after, not between.
    pub(super) async fn open_session(&mut self, session: &Session) -> Result<()> {
        let sql = "UPDATE users SET last_login_at = $1 WHERE name = $2 AND disabled = 0";
        let login = query(sql).bind(integer(session.created_at)).bind(session.user.as_str());
        if login.execute(&mut *self.conn).await?.rows_affected() == 0 {
            return Err(StoreError::NotFound);
        }
        query(
            "INSERT INTO sessions (id, user_name, created_at, expires_at, address, device, mfa) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(session.id.as_str())
        .bind(session.user.as_str())
        .bind(integer(session.created_at))
        .bind(integer(session.expires_at))
        .bind(session.address.to_string())
        .bind(session.device.replace('\0', ""))
        .bind(i64::from(session.mfa))
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    pub(super) async fn sessions(&mut self, user: &str, now: u64) -> Result<Vec<Session>> {
        let sql = concat!(
            select_sessions!(),
            "WHERE user_name = $1 AND expires_at > $2 ORDER BY created_at DESC, sessions.id"
        );
        let rows = query(sql).bind(user).bind(integer(now)).fetch_all(&mut *self.conn).await?;
        rows.iter().map(session).collect()
    }

    /// Tokens that were made in the session carry its id, so its revocation is theirs too.
    pub(super) async fn revoke_session(
        &mut self,
        user: &str,
        id: &str,
        now: u64,
        by: &Actor,
    ) -> Result<()> {
        self.change().await?;
        let sql = "DELETE FROM sessions WHERE id = $1 AND user_name = $2 RETURNING expires_at";
        let row = query(sql).bind(id).bind(user).fetch_optional(&mut *self.conn).await?;
        let expires_at = number(&row.ok_or(StoreError::NotFound)?, "expires_at")?;
        self.void(id, expires_at).await?;
        self.note(by, now, "session.revoke", id).await
    }

    pub(super) async fn revoke_token(
        &mut self,
        id: &str,
        expires_at: u64,
        by: &Actor,
    ) -> Result<()> {
        self.void(id, expires_at).await?;
        self.note(by, Clock::system().unix_secs(), "token.revoke", id).await
    }

    async fn void(&mut self, id: &str, expires_at: u64) -> Result<()> {
        let revision = self.change().await?;
        query(
            "INSERT INTO revocations (id, expires_at, revision) VALUES ($1, $2, $3) \
             ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, expires_at = \
             CASE WHEN revocations.expires_at < excluded.expires_at \
             THEN excluded.expires_at ELSE revocations.expires_at END",
        )
        .bind(id)
        .bind(integer(expires_at.saturating_add(MARGIN)))
        .bind(revision)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    pub(super) async fn revoke_user(
        &mut self,
        name: &str,
        now: u64,
        by: &Actor,
    ) -> Result<Revoked> {
        self.change().await?;
        self.existing(name).await?;
        let sessions = self.begin_epoch(name, now).await?;
        self.note(by, now, "user.revoke", name).await?;
        Ok(Revoked { sessions, users: 1, keys: 0 })
    }

    pub(super) async fn revoke_all(
        &mut self,
        reason: &str,
        now: u64,
        by: &Actor,
    ) -> Result<Revoked> {
        let revision = self.change().await?;
        let keys = self.revoke_all_keys(now).await?;
        let begun = query(
            "UPDATE users SET revision = $1, \
             epoch = CASE WHEN epoch < $2 THEN $2 ELSE epoch + 1 END",
        );
        let begun = begun.bind(revision).bind(epoch_at(now)).execute(&mut *self.conn).await?;
        let sessions = self.close_all_sessions(now).await?;
        self.note(by, now, "emergency.revoke_all", reason).await?;
        Ok(Revoked { keys, sessions, users: begun.rows_affected() })
    }

    /// Closes the sessions of a user. Gives how many of them had not expired.
    pub(super) async fn close_sessions(&mut self, user: &str, now: u64) -> Result<u64> {
        let sql = "DELETE FROM sessions WHERE user_name = $1 AND expires_at > $2";
        let closed = query(sql).bind(user).bind(integer(now)).execute(&mut *self.conn).await?;
        Ok(closed.rows_affected())
    }

    async fn close_all_sessions(&mut self, now: u64) -> Result<u64> {
        let sql = "DELETE FROM sessions WHERE expires_at > $1";
        let closed = query(sql).bind(integer(now)).execute(&mut *self.conn).await?;
        Ok(closed.rows_affected())
    }
}
