//! The migrations: embedded, numbered, applied in order, and never changed once released.
//!
//! The store remembers the checksum of each, so that a program meets only a schema that it knows:
//! one that a newer release made is refused instead of misread.

use std::fmt::Write;

use sha2::{Digest, Sha256};
use sqlx::{AnyConnection, Row};

use super::sql::{Backend, query};
use super::{Result, StoreError};

/// Locks out other gateways that migrate at the same time; the number is arbitrary.
const LOCK: &str = "DO $$ BEGIN PERFORM pg_advisory_xact_lock(7281946530); END $$";

/// The version that this program brings a store to.
pub const SCHEMA_VERSION: i64 = 3;

struct Migration {
    version: i64,
    sql: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, sql: include_str!("migrations/0001_accounts.sql") },
    Migration { version: 2, sql: include_str!("migrations/0002_standing.sql") },
    Migration { version: 3, sql: include_str!("migrations/0003_strict_firewall.sql") },
];

impl Migration {
    fn checksum(&self) -> String {
        Sha256::digest(self.sql).iter().fold(String::new(), |mut text, byte| {
            let written = write!(text, "{byte:02x}");
            debug_assert!(written.is_ok(), "strings take everything");
            text
        })
    }
}

/// Whether nothing is to be done. A store without a schema answers with an error, which is no news:
/// [`migrate`] will find out what it means.
pub(super) async fn is_current(conn: &mut AnyConnection) -> bool {
    let applied = applied(conn).await;
    applied.is_ok_and(|applied| matches!(missing(&applied), Ok(missing) if missing.is_empty()))
}

/// Brings the schema up to date, within a transaction that has begun.
pub(super) async fn migrate(conn: &mut AnyConnection, backend: Backend) -> Result<()> {
    if backend == Backend::Postgres {
        query(LOCK).execute(&mut *conn).await?;
    }
    let table = "CREATE TABLE IF NOT EXISTS schema_version \
                 (version BIGINT NOT NULL PRIMARY KEY, checksum TEXT NOT NULL)";
    query(table).execute(&mut *conn).await?;
    for migration in missing(&applied(&mut *conn).await?)? {
        sqlx::raw_sql(migration.sql).execute(&mut *conn).await?;
        query("INSERT INTO schema_version (version, checksum) VALUES ($1, $2)")
            .bind(migration.version)
            .bind(migration.checksum())
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

async fn applied(conn: &mut AnyConnection) -> Result<Vec<(i64, String)>> {
    let sql = "SELECT version, checksum FROM schema_version ORDER BY version";
    let rows = query(sql).fetch_all(conn).await?;
    rows.iter().map(|row| Ok((row.try_get("version")?, row.try_get("checksum")?))).collect()
}

/// The migrations that are not among those applied.
fn missing(applied: &[(i64, String)]) -> Result<Vec<&'static Migration>> {
    for (version, checksum) in applied {
        let known = MIGRATIONS.iter().find(|migration| migration.version == *version);
        match known {
            Some(migration) if migration.checksum() == *checksum => {}
            Some(_) => return Err(refused(*version, "differs from the one of this release")),
            None => return Err(refused(*version, "was made by another release, a newer one")),
        }
    }
    let is_applied = |migration: &&Migration| applied.iter().any(|(v, _)| *v == migration.version);
    Ok(MIGRATIONS.iter().filter(|migration| !is_applied(migration)).collect())
}

fn refused(version: i64, why: &str) -> StoreError {
    StoreError::Unavailable(format!("its schema {version} {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_a_gap() {
        let versions: Vec<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
        assert!(versions.iter().copied().eq(1..=i64::try_from(versions.len()).unwrap()));
    }

    #[test]
    fn released_migrations_are_not_changed() {
        let released = [
            "4f4978cd0c20938c70f0890bd14387c07f45a1ea3abd8df40c2a017b2e03f666",
            "52cdf8ffcc686b78b8436d6014d316abc4cd2c22bc0f859d16457f8fa6d20f75",
            "a7293d159896afafb5ef77528455e4b62fd15a60f266721fe149b6cb9619eccc",
        ];
        let checksums: Vec<String> = MIGRATIONS.iter().map(Migration::checksum).collect();
        assert_eq!(checksums, released);
    }

    #[test]
    fn only_known_schemas_are_met() {
        let current: Vec<(i64, String)> =
            MIGRATIONS.iter().map(|migration| (migration.version, migration.checksum())).collect();
        let with = |version: i64, checksum: &str| {
            let mut applied = current.clone();
            applied.retain(|(known, _)| *known != version);
            applied.push((version, checksum.to_owned()));
            missing(&applied).map(|missing| missing.len())
        };
        assert_eq!(missing(&[]).map(|missing| missing.len()), Ok(MIGRATIONS.len()));
        assert_eq!(missing(&current).map(|missing| missing.len()), Ok(0));
        assert!(with(99, "x").unwrap_err().to_string().contains("newer"));
        assert!(with(1, "x").unwrap_err().to_string().contains("differs"));
    }
}
