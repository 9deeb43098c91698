//! What operators change while gateways run: limits, and a strict firewall.

use sqlx::any::AnyRow;

use super::super::{
    Actor, EmergencyLimits, QuotaOverride, Reset, Result, Standing, StoreError, StrictFirewall,
    Told,
};
use super::error::unexpected;
use super::query;
use super::rows::{column, integer, number, some_number};
use super::tx::Tx;
use crate::standing::SubjectName;

/// The start of a statement that gives what [`quota_override`] reads.
macro_rules! select_overrides {
    () => {
        "SELECT level, id, quota, ends_at, reason, set_by, set_at FROM quota_overrides "
    };
}

/// The target of events about everybody.
const EVERYBODY: &str = "everybody";

impl Tx<'_> {
    pub(super) async fn set_override(
        &mut self,
        new: &QuotaOverride,
        by: &Actor,
    ) -> Result<Option<QuotaOverride>> {
        self.change_standing().await?;
        let before = self.quota_override(&new.subject).await?;
        query(
            "INSERT INTO quota_overrides (level, id, quota, ends_at, reason, set_by, set_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (level, id) DO UPDATE \
             SET quota = excluded.quota, ends_at = excluded.ends_at, reason = excluded.reason, \
             set_by = excluded.set_by, set_at = excluded.set_at",
        )
        .bind(new.subject.level().name())
        .bind(new.subject.id())
        .bind(serde_json::to_string(&new.quota).map_err(|_| unexpected())?)
        .bind(new.ends_at.map(integer))
        .bind(new.reason.as_str())
        .bind(new.set_by.as_str())
        .bind(integer(new.set_at))
        .execute(&mut *self.conn)
        .await?;
        let told = Told {
            before: before.as_ref().map(QuotaOverride::told),
            after: Some(new.told()),
            reason: Some(new.reason.clone()),
        };
        self.tell(by, new.set_at, "quota.set", &new.subject.to_string(), &told).await?;
        Ok(before)
    }

    pub(super) async fn remove_override(
        &mut self,
        subject: &SubjectName,
        now: u64,
        by: &Actor,
    ) -> Result<QuotaOverride> {
        self.change_standing().await?;
        let before = self.quota_override(subject).await?.ok_or(StoreError::NotFound)?;
        query("DELETE FROM quota_overrides WHERE level = $1 AND id = $2")
            .bind(subject.level().name())
            .bind(subject.id())
            .execute(&mut *self.conn)
            .await?;
        let told = Told { before: Some(before.told()), ..Told::default() };
        self.tell(by, now, "quota.unset", &subject.to_string(), &told).await?;
        Ok(before)
    }

    pub(super) async fn reset_quota(
        &mut self,
        subject: &SubjectName,
        reason: &str,
        now: u64,
        by: &Actor,
    ) -> Result<()> {
        let revision = self.change().await?;
        query(
            "INSERT INTO quota_resets (level, id, reset_at, revision) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (level, id) DO UPDATE \
             SET reset_at = excluded.reset_at, revision = excluded.revision",
        )
        .bind(subject.level().name())
        .bind(subject.id())
        .bind(integer(now))
        .bind(revision)
        .execute(&mut *self.conn)
        .await?;
        let told = Told { reason: Some(reason.to_owned()), ..Told::default() };
        self.tell(by, now, "quota.reset", &subject.to_string(), &told).await
    }

    pub(super) async fn set_emergency(
        &mut self,
        new: &EmergencyLimits,
        by: &Actor,
    ) -> Result<Option<EmergencyLimits>> {
        self.change_standing().await?;
        let before = self.emergency().await?;
        query(
            "INSERT INTO emergency_limits \
             (id, per_user, per_address, ends_at, reason, set_by, set_at) \
             VALUES (1, $1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO UPDATE \
             SET per_user = excluded.per_user, per_address = excluded.per_address, \
             ends_at = excluded.ends_at, reason = excluded.reason, set_by = excluded.set_by, \
             set_at = excluded.set_at",
        )
        .bind(i64::from(new.per_user))
        .bind(i64::from(new.per_address))
        .bind(integer(new.ends_at))
        .bind(new.reason.as_str())
        .bind(new.set_by.as_str())
        .bind(integer(new.set_at))
        .execute(&mut *self.conn)
        .await?;
        let told = Told {
            before: before.as_ref().map(EmergencyLimits::told),
            after: Some(new.told()),
            reason: Some(new.reason.clone()),
        };
        self.tell(by, new.set_at, "emergency.rate_limit_on", EVERYBODY, &told).await?;
        Ok(before)
    }

    pub(super) async fn clear_emergency(
        &mut self,
        now: u64,
        by: &Actor,
    ) -> Result<Option<EmergencyLimits>> {
        self.lock().await?;
        let Some(before) = self.emergency().await? else { return Ok(None) };
        self.change_standing().await?;
        query("DELETE FROM emergency_limits").execute(&mut *self.conn).await?;
        let told = Told { before: Some(before.told()), ..Told::default() };
        self.tell(by, now, "emergency.rate_limit_off", EVERYBODY, &told).await?;
        Ok(Some(before))
    }

    pub(super) async fn set_strict_firewall(
        &mut self,
        new: &StrictFirewall,
        by: &Actor,
    ) -> Result<Option<StrictFirewall>> {
        self.change_standing().await?;
        let before = self.strict_firewall().await?;
        query(
            "INSERT INTO strict_firewall (id, ends_at, reason, set_by, set_at) \
             VALUES (1, $1, $2, $3, $4) ON CONFLICT (id) DO UPDATE \
             SET ends_at = excluded.ends_at, reason = excluded.reason, set_by = excluded.set_by, \
             set_at = excluded.set_at",
        )
        .bind(new.ends_at.map(integer))
        .bind(new.reason.as_str())
        .bind(new.set_by.as_str())
        .bind(integer(new.set_at))
        .execute(&mut *self.conn)
        .await?;
        let told = Told {
            before: before.as_ref().map(StrictFirewall::told),
            after: Some(new.told()),
            reason: Some(new.reason.clone()),
        };
        self.tell(by, new.set_at, "emergency.sanitization_on", EVERYBODY, &told).await?;
        Ok(before)
    }

    pub(super) async fn clear_strict_firewall(
        &mut self,
        reason: Option<&str>,
        now: u64,
        by: &Actor,
    ) -> Result<Option<StrictFirewall>> {
        self.lock().await?;
        let Some(before) = self.strict_firewall().await? else { return Ok(None) };
        self.change_standing().await?;
        query("DELETE FROM strict_firewall").execute(&mut *self.conn).await?;
        let reason = reason.map(str::to_owned);
        let told = Told { before: Some(before.told()), after: None, reason };
        self.tell(by, now, "emergency.sanitization_off", EVERYBODY, &told).await?;
        Ok(Some(before))
    }

    pub(super) async fn standing(&mut self) -> Result<Standing> {
        let rows = query(select_overrides!()).fetch_all(&mut *self.conn).await?;
        let mut overrides = rows.iter().map(quota_override).collect::<Result<Vec<_>>>()?;
        overrides.sort_unstable_by(|a, b| a.subject.cmp(&b.subject));
        let (emergency, firewall) = (self.emergency().await?, self.strict_firewall().await?);
        Ok(Standing { overrides, emergency, firewall })
    }

    /// The subjects that were reset after this number of the counter.
    pub(super) async fn resets(&mut self, since: u64) -> Result<Vec<Reset>> {
        let sql =
            "SELECT level, id, revision FROM quota_resets WHERE revision > $1 ORDER BY revision";
        let rows = query(sql).bind(integer(since)).fetch_all(&mut *self.conn).await?;
        let reset = |row| Ok(Reset { subject: subject(row)?, revision: number(row, "revision")? });
        rows.iter().map(reset).collect()
    }

    async fn change_standing(&mut self) -> Result<()> {
        let revision = self.change().await?;
        let sql = "UPDATE state SET standing = $1 WHERE id = 1";
        query(sql).bind(revision).execute(&mut *self.conn).await?;
        Ok(())
    }

    async fn quota_override(&mut self, of: &SubjectName) -> Result<Option<QuotaOverride>> {
        let sql = concat!(select_overrides!(), "WHERE level = $1 AND id = $2");
        let row = query(sql).bind(of.level().name()).bind(of.id());
        let row = row.fetch_optional(&mut *self.conn).await?;
        row.as_ref().map(quota_override).transpose()
    }

    async fn emergency(&mut self) -> Result<Option<EmergencyLimits>> {
        let sql = "SELECT per_user, per_address, ends_at, reason, set_by, set_at \
                   FROM emergency_limits WHERE id = 1";
        let row = query(sql).fetch_optional(&mut *self.conn).await?;
        row.as_ref().map(emergency).transpose()
    }

    async fn strict_firewall(&mut self) -> Result<Option<StrictFirewall>> {
        let sql = "SELECT ends_at, reason, set_by, set_at FROM strict_firewall WHERE id = 1";
        let row = query(sql).fetch_optional(&mut *self.conn).await?;
        row.as_ref().map(strict_firewall).transpose()
    }
}

fn quota_override(row: &AnyRow) -> Result<QuotaOverride> {
    Ok(QuotaOverride {
        subject: subject(row)?,
        quota: serde_json::from_str(column(row, "quota")?).map_err(|_| unexpected())?,
        ends_at: some_number(row, "ends_at")?,
        reason: column(row, "reason")?,
        set_by: column(row, "set_by")?,
        set_at: number(row, "set_at")?,
    })
}

fn emergency(row: &AnyRow) -> Result<EmergencyLimits> {
    let rate = |name| u32::try_from(number(row, name)?).map_err(|_| unexpected());
    Ok(EmergencyLimits {
        per_user: rate("per_user")?,
        per_address: rate("per_address")?,
        ends_at: number(row, "ends_at")?,
        reason: column(row, "reason")?,
        set_by: column(row, "set_by")?,
        set_at: number(row, "set_at")?,
    })
}

fn strict_firewall(row: &AnyRow) -> Result<StrictFirewall> {
    Ok(StrictFirewall {
        ends_at: some_number(row, "ends_at")?,
        reason: column(row, "reason")?,
        set_by: column(row, "set_by")?,
        set_at: number(row, "set_at")?,
    })
}

fn subject(row: &AnyRow) -> Result<SubjectName> {
    let (level, id): (&str, &str) = (column(row, "level")?, column(row, "id")?);
    let name = if id.is_empty() { level.to_owned() } else { format!("{level}/{id}") };
    SubjectName::parse(&name).ok_or_else(unexpected)
}
