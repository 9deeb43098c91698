//! Second factors: TOTP secrets, sealed, and backup codes as digests.

use secrecy::SecretString;

use super::super::seal::Place;
use super::super::{Actor, Result, StoreError};
use super::query;
use super::rows::{column, flag, integer, number};
use super::tx::Tx;

impl Tx<'_> {
    pub(super) async fn begin_mfa(
        &mut self,
        name: &str,
        secret: &SecretString,
        codes: &[String],
        now: u64,
        by: &Actor,
    ) -> Result<()> {
        let sealed = self.seals.seal(secret_of(name), secret)?;
        let begun = query(
            "INSERT INTO second_factors (user_name, secret, confirmed, last_step) \
             VALUES ($1, $2, 0, -1) ON CONFLICT (user_name) DO UPDATE \
             SET secret = excluded.secret, last_step = -1 WHERE second_factors.confirmed = 0",
        );
        let begun = begun.bind(name).bind(sealed).execute(&mut *self.conn).await?;
        if begun.rows_affected() == 0 {
            return Err(StoreError::Exists);
        }
        self.replace_codes(name, codes).await?;
        self.note(by, now, "user.mfa_begin", name).await
    }

    async fn replace_codes(&mut self, name: &str, codes: &[String]) -> Result<()> {
        let sql = "DELETE FROM backup_codes WHERE user_name = $1";
        query(sql).bind(name).execute(&mut *self.conn).await?;
        let sql = "INSERT INTO backup_codes (user_name, digest) VALUES ($1, $2) \
                   ON CONFLICT (user_name, digest) DO NOTHING";
        for code in codes {
            query(sql).bind(name).bind(code.as_str()).execute(&mut *self.conn).await?;
        }
        Ok(())
    }

    pub(super) async fn mfa(&mut self, name: &str) -> Result<Option<(SecretString, bool)>> {
        let sql = "SELECT secret, confirmed FROM second_factors WHERE user_name = $1";
        let row = query(sql).bind(name).fetch_optional(&mut *self.conn).await?;
        let Some(row) = row else { return Ok(None) };
        let secret = self.seals.open(secret_of(name), column(&row, "secret")?)?;
        Ok(Some((secret, flag(&row, "confirmed")?)))
    }

    /// The comparison and the write are one statement: of two callers with one code, one is first.
    pub(super) async fn use_totp(&mut self, name: &str, step: u64) -> Result<bool> {
        let sql = "SELECT confirmed FROM second_factors WHERE user_name = $1";
        let row = query(sql).bind(name).fetch_optional(&mut *self.conn).await?;
        let confirmed = flag(&row.ok_or(StoreError::NotFound)?, "confirmed")?;
        if !confirmed {
            self.change().await?; // the counter is taken before other rows, everywhere
        }
        let sql = "UPDATE second_factors SET last_step = $1, confirmed = 1 \
                   WHERE user_name = $2 AND last_step < $1";
        let used = query(sql).bind(integer(step)).bind(name).execute(&mut *self.conn).await?;
        let used = used.rows_affected() > 0;
        if used && !confirmed {
            self.set_mfa(name, true).await?;
        }
        Ok(used)
    }

    /// A code of a factor that is not confirmed yet opens nothing.
    pub(super) async fn use_backup_code(&mut self, name: &str, digest: &str) -> Result<bool> {
        let used = query(
            "DELETE FROM backup_codes WHERE user_name = $1 AND digest = $2 AND EXISTS \
             (SELECT 1 FROM second_factors WHERE user_name = $1 AND confirmed = 1)",
        );
        let used = used.bind(name).bind(digest).execute(&mut *self.conn).await?;
        Ok(used.rows_affected() > 0)
    }

    pub(super) async fn backup_codes(&mut self, name: &str) -> Result<u64> {
        let sql = "SELECT COUNT(*) AS codes FROM backup_codes WHERE user_name = $1";
        let row = query(sql).bind(name).fetch_one(&mut *self.conn).await?;
        number(&row, "codes")
    }

    pub(super) async fn remove_mfa(&mut self, name: &str, now: u64, by: &Actor) -> Result<()> {
        self.change().await?;
        let sql = "DELETE FROM second_factors WHERE user_name = $1";
        if query(sql).bind(name).execute(&mut *self.conn).await?.rows_affected() == 0 {
            return Err(StoreError::NotFound);
        }
        self.replace_codes(name, &[]).await?;
        self.set_mfa(name, false).await?;
        self.note(by, now, "user.mfa_remove", name).await
    }

    async fn set_mfa(&mut self, name: &str, on: bool) -> Result<()> {
        let revision = self.change().await?;
        query("UPDATE users SET mfa = $1, revision = $2 WHERE name = $3")
            .bind(i64::from(on))
            .bind(revision)
            .bind(name)
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }
}

/// Where the TOTP secret of a user stands.
pub(super) const fn secret_of(name: &str) -> Place<'_> {
    Place { column: "second_factors.secret", row: name }
}
