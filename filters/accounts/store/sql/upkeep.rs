//! Upkeep: last uses written down, events handed out, what is over forgotten.

use sqlx::{Any, AssertSqlSafe};

use super::super::{Event, Result, Told};
use super::query;
use super::rows::{column, integer, number, some_number};
use super::tx::Tx;

/// Tombstones are kept for a day; readers who were away for longer read everything.
const TOMBSTONE_SECS: u64 = 24 * 60 * 60;

/// What was last used, and when.
#[derive(Clone, Copy, Debug)]
pub(super) enum Used {
    Key,
    Session,
}

impl Used {
    /// A statement that writes so many down. The numbers are all that it is composed of.
    fn statement(self, uses: usize) -> String {
        let table = match self {
            Self::Key => "api_key_uses",
            Self::Session => "session_uses",
        };
        let row = |n: usize| format!("(${}, ${})", 2 * n + 1, 2 * n + 2);
        let rows: Vec<String> = (0..uses).map(row).collect();
        format!(
            "INSERT INTO {table} (id, used_at) VALUES {} ON CONFLICT (id) \
             DO UPDATE SET used_at = excluded.used_at WHERE excluded.used_at > {table}.used_at",
            rows.join(", ")
        )
    }
}

/// One statement each, so that nobody waits long for any of them. Uses of what is no more go last,
/// after keys and sessions.
pub(super) const EXPIRED: [&str; 8] = [
    "DELETE FROM sessions WHERE expires_at <= $1",
    "DELETE FROM revocations WHERE expires_at <= $1",
    "DELETE FROM single_use WHERE expires_at <= $1",
    "DELETE FROM tallies WHERE forget_at <= $1",
    "DELETE FROM quota_overrides WHERE ends_at <= $1",
    "DELETE FROM emergency_limits WHERE ends_at <= $1",
    "DELETE FROM strict_firewall WHERE ends_at <= $1",
    // A day later: by then every gateway that serves has seen it.
    "DELETE FROM quota_resets WHERE reset_at + 86400 <= $1",
];

/// See [`EXPIRED`].
pub(super) const ORPHANS: [&str; 2] = [
    "DELETE FROM api_key_uses \
     WHERE NOT EXISTS (SELECT 1 FROM api_keys WHERE api_keys.id = api_key_uses.id)",
    "DELETE FROM session_uses \
     WHERE NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.id = session_uses.id)",
];

impl Tx<'_> {
    /// Writes a few down, in the order of ids, so that two gateways never wait for each other, and
    /// each id once.
    pub(super) async fn touch(&mut self, used: Used, uses: &[(String, u64)]) -> Result<()> {
        let statement = AssertSqlSafe(used.statement(uses.len()));
        let mut touching = sqlx::query::<Any>(statement).persistent(false);
        for (id, at) in uses {
            touching = touching.bind(id.as_str()).bind(integer(*at));
        }
        touching.execute(&mut *self.conn).await?;
        Ok(())
    }

    pub(super) async fn take_events(&mut self) -> Result<Vec<Event>> {
        let sql = "DELETE FROM events RETURNING revision, action, target, actor, happened_at, \
                   value_before, value_after, reason";
        let rows = query(sql).fetch_all(&mut *self.conn).await?;
        let mut events = Vec::with_capacity(rows.len());
        for row in &rows {
            let event = Event {
                at: number(row, "happened_at")?,
                actor: column(row, "actor")?,
                action: column(row, "action")?,
                target: column(row, "target")?,
                told: Told {
                    before: column(row, "value_before")?,
                    after: column(row, "value_after")?,
                    reason: column(row, "reason")?,
                },
            };
            events.push((number(row, "revision")?, event));
        }
        events.sort_by_key(|(revision, _)| *revision);
        Ok(events.into_iter().map(|(_, event)| event).collect())
    }

    pub(super) async fn forget(&mut self, statement: &'static str, now: u64) -> Result<()> {
        query(statement).bind(integer(now)).execute(&mut *self.conn).await?;
        Ok(())
    }

    pub(super) async fn forget_orphans(&mut self, statement: &'static str) -> Result<()> {
        query(statement).execute(&mut *self.conn).await?;
        Ok(())
    }

    /// The last number among those forgotten is the horizon: who has seen less reads everything.
    pub(super) async fn forget_tombstones(&mut self, now: u64) -> Result<()> {
        self.lock().await?;
        let before = integer(now.saturating_sub(TOMBSTONE_SECS));
        let sql = "SELECT MAX(revision) AS last FROM tombstones WHERE removed_at < $1";
        let row = query(sql).bind(before).fetch_one(&mut *self.conn).await?;
        let Some(last) = some_number(&row, "last")? else { return Ok(()) };
        let sql = "UPDATE state SET horizon = $1 WHERE id = 1 AND horizon < $1";
        query(sql).bind(integer(last)).execute(&mut *self.conn).await?;
        self.forget("DELETE FROM tombstones WHERE removed_at < $1", now - TOMBSTONE_SECS).await
    }
}
