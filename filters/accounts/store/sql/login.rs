//! The rows of the login throttle, and ids that may be used once.
//!
//! The row of the network is locked first, also if it must be made for that. A pair belongs to one
//! network, so that lock holds off everybody who counts in it, on all gateways.

use std::net::IpAddr;
use std::time::Duration;

use sqlx::any::AnyRow;

use super::super::tally::{Origin, Tallies, Tally};
use super::super::{Result, ThrottleLimits};
use super::error::unexpected;
use super::query;
use super::rows::{column, flag, integer, number};
use super::tx::Tx;

impl Tx<'_> {
    pub(super) async fn charge_login(
        &mut self,
        name: &str,
        address: IpAddr,
        limits: ThrottleLimits,
        now: u64,
    ) -> Result<std::result::Result<(), Duration>> {
        let origin = self.origin(name, address).await?;
        let mut tallies = self.tallies(&origin).await?;
        let outcome = tallies.charge(limits, now);
        if outcome.is_ok() {
            self.save(&origin.pair, tallies.pair).await?;
            self.save(&origin.network, tallies.network).await?;
        }
        Ok(outcome)
    }

    pub(super) async fn forgive_login(&mut self, name: &str, address: IpAddr) -> Result<()> {
        let origin = self.origin(name, address).await?;
        let mut tallies = self.tallies(&origin).await?;
        tallies.forgive();
        let sql = "DELETE FROM tallies WHERE id = $1";
        query(sql).bind(origin.pair.as_str()).execute(&mut *self.conn).await?;
        self.save(&origin.network, tallies.network).await
    }

    pub(super) async fn refund_login(&mut self, name: &str, address: IpAddr) -> Result<()> {
        let origin = self.origin(name, address).await?;
        let mut tallies = self.tallies(&origin).await?;
        tallies.refund();
        self.save(&origin.pair, tallies.pair).await?;
        self.save(&origin.network, tallies.network).await
    }

    /// Claims an id: whoever makes its row is the first.
    pub(super) async fn use_once(&mut self, id: &str, expires_at: u64) -> Result<bool> {
        let sql = "INSERT INTO single_use (id, expires_at) VALUES ($1, $2) \
                   ON CONFLICT (id) DO NOTHING";
        let made = query(sql).bind(id).bind(integer(expires_at)).execute(&mut *self.conn).await?;
        Ok(made.rows_affected() > 0)
    }

    async fn origin(&mut self, name: &str, address: IpAddr) -> Result<Origin> {
        let sql = "SELECT tally_key FROM state WHERE id = 1";
        let row = query(sql).fetch_optional(&mut *self.conn).await?.ok_or_else(unexpected)?;
        let key: &str = column(&row, "tally_key")?;
        Origin::new(key.as_bytes(), name, address).ok_or_else(unexpected)
    }

    async fn tallies(&mut self, origin: &Origin) -> Result<Tallies> {
        let locked = query(
            "INSERT INTO tallies (id, failures, locks, locked, ends_at, forget_at) \
             VALUES ($1, 0, 0, 0, 0, 0) ON CONFLICT (id) DO UPDATE SET failures = tallies.failures \
             RETURNING failures, locks, locked, ends_at, forget_at",
        );
        let network = locked.bind(origin.network.as_str()).fetch_one(&mut *self.conn).await?;
        let sql = "SELECT failures, locks, locked, ends_at, forget_at FROM tallies WHERE id = $1";
        let pair = query(sql).bind(origin.pair.as_str()).fetch_optional(&mut *self.conn).await?;
        let pair = pair.as_ref().map_or_else(|| Ok(Tally::default()), tally)?;
        Ok(Tallies { pair, network: tally(&network)? })
    }

    async fn save(&mut self, id: &str, tally: Tally) -> Result<()> {
        query(
            "INSERT INTO tallies (id, failures, locks, locked, ends_at, forget_at) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO UPDATE \
             SET failures = excluded.failures, locks = excluded.locks, locked = excluded.locked, \
             ends_at = excluded.ends_at, forget_at = excluded.forget_at",
        )
        .bind(id)
        .bind(integer(tally.failures))
        .bind(integer(tally.locks))
        .bind(i64::from(tally.locked))
        .bind(integer(tally.ends_at))
        .bind(integer(tally.forget_at))
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }
}

fn tally(row: &AnyRow) -> Result<Tally> {
    Ok(Tally {
        failures: number(row, "failures")?,
        locks: number(row, "locks")?,
        locked: flag(row, "locked")?,
        ends_at: number(row, "ends_at")?,
        forget_at: number(row, "forget_at")?,
    })
}
