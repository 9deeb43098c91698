//! Where the database is: the URL of the configuration read, and a pool of connections set up.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, ConnectOptions, Executor};
use tokio::time::timeout;

use super::super::{Result, StoreError};
use super::{Backend, PATIENCE, StoreOptions, unavailable};

/// Nobody but the user of the process reads or writes the file. SQLite gives `-wal` and `-shm` the
/// same mode.
const PRIVATE: u32 = 0o600;

/// A database, as the configuration names it.
#[derive(Debug)]
pub(super) enum Place {
    /// SQLite in memory: gone with the process.
    Memory,
    /// SQLite in a file.
    File(PathBuf),
    /// Postgres; the URL may contain a password.
    Server(SecretString),
}

impl Place {
    /// Reads the URL.
    pub(super) fn parse(url: &SecretString, base: &Path) -> Result<Self> {
        let text = url.expose_secret();
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Server(url.clone()));
        }
        let path = text.strip_prefix("sqlite:").ok_or_else(unknown_url)?;
        match path.strip_prefix("//").unwrap_or(path) {
            ":memory:" => Ok(Self::Memory),
            "" => Err(unknown_url()),
            path if path.contains('?') => Err(unavailable("the path in its URL contains a '?'")),
            path => Ok(Self::File(base.join(path))),
        }
    }

    pub(super) const fn backend(&self) -> Backend {
        match self {
            Self::Memory | Self::File(_) => Backend::Sqlite,
            Self::Server(_) => Backend::Postgres,
        }
    }

    /// How to connect. Makes the file of SQLite if there is none.
    pub(super) fn address(&self) -> Result<AnyConnectOptions> {
        sqlx::any::install_default_drivers();
        let url = match self {
            Self::Memory => "sqlite::memory:".into(),
            Self::File(path) => sqlite_url(&private_file(path)?).into(),
            Self::Server(url) => url.clone(),
        };
        // sqlx repeats parts of a URL that it does not understand, so its words are not passed on.
        let address =
            url.expose_secret().parse::<AnyConnectOptions>().map_err(|_| unknown_url())?;
        Ok(address.disable_statement_logging())
    }

    /// A connection outside of a pool, which would try for as long as it may and not tell why it
    /// failed.
    pub(super) async fn connect(
        &self,
        address: &AnyConnectOptions,
        limit: Duration,
    ) -> Result<AnyConnection> {
        let connected = timeout(limit, address.connect()).await;
        let mut conn = connected.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
        conn.execute(sqlx::raw_sql(AssertSqlSafe(self.setup(limit)))).await?;
        Ok(conn)
    }

    /// A pool that connects when it is used.
    pub(super) fn pool(&self, address: AnyConnectOptions, options: &StoreOptions) -> AnyPool {
        let setup = self.setup(options.timeout);
        let in_memory = matches!(self, Self::Memory);
        let settings = AnyPoolOptions::new()
            .max_connections(if in_memory { 1 } else { options.connections.max(1) })
            .acquire_timeout(options.timeout)
            .after_connect(move |conn, _| {
                let setup = AssertSqlSafe(setup.clone());
                Box::pin(async move { conn.execute(sqlx::raw_sql(setup)).await.map(drop) })
            });
        // The database in memory is gone with its connection.
        let settings =
            if in_memory { settings.idle_timeout(None).max_lifetime(None) } else { settings };
        settings.connect_lazy_with(address)
    }

    /// What is set on each connection. SQLite gives up waiting for a lock while there is time to
    /// tell of it; Postgres ends by itself what nobody waits for any more, so that a gateway that
    /// stands still does not hold up the others.
    fn setup(&self, limit: Duration) -> String {
        let (wait, long) = (limit * 3 / 4, limit.saturating_mul(PATIENCE));
        let (wait, long) = (wait.as_millis().max(1), long.as_millis().max(1));
        match self.backend() {
            Backend::Sqlite => format!(
                "PRAGMA busy_timeout = {wait}; PRAGMA synchronous = FULL; \
                 PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;"
            ),
            Backend::Postgres => format!(
                "SET statement_timeout = {long}; SET lock_timeout = {long}; \
                 SET idle_in_transaction_session_timeout = {long};"
            ),
        }
    }
}

/// Makes the file, or makes it private, before SQLite opens it. Gives its absolute path.
///
/// One that is there is not opened: closing it would drop the locks that this process has on it
/// (`howtocorrupt.html` of SQLite, section 2.2), and the next command line that ends would take
/// itself for the last user and remove the log that is in use.
fn private_file(path: &Path) -> Result<PathBuf> {
    if !path.exists() {
        let made = OpenOptions::new().append(true).create(true).mode(PRIVATE).open(path);
        drop(made.map_err(|error| at(path, &error))?);
    }
    let metadata = path.metadata().map_err(|error| at(path, &error))?;
    if !metadata.is_file() {
        return Err(unavailable(format!("{}: it is not a file", path.display())));
    }
    if metadata.permissions().mode() & 0o777 & !PRIVATE != 0 {
        let private = Permissions::from_mode(PRIVATE);
        std::fs::set_permissions(path, private).map_err(|error| at(path, &error))?;
    }
    path.canonicalize().map_err(|error| at(path, &error))
}

fn at(path: &Path, error: &std::io::Error) -> StoreError {
    unavailable(format!("{}: {error}", path.display()))
}

/// A URL that the driver decodes to this path. The file is there: it was made with its mode.
fn sqlite_url(path: &Path) -> String {
    let mut url = String::from("sqlite://");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                url.push(char::from(*byte));
            }
            other => url.push_str(&format!("%{other:02X}")),
        }
    }
    url
}

fn unknown_url() -> StoreError {
    unavailable("its URL is not sqlite:PATH, sqlite::memory: or a postgres:// URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> String {
        match Place::parse(&url.into(), Path::new("/srv/gate")) {
            Ok(Place::Memory) => "memory".into(),
            Ok(Place::File(path)) => path.display().to_string(),
            Ok(Place::Server(_)) => "server".into(),
            Err(_) => "refused".into(),
        }
    }

    #[test]
    fn urls_are_read() {
        for (url, expected) in [
            ("sqlite::memory:", "memory"),
            ("sqlite://:memory:", "memory"),
            ("sqlite:accounts.db", "/srv/gate/accounts.db"),
            ("sqlite://accounts.db", "/srv/gate/accounts.db"),
            ("sqlite:/var/lib/a b.db", "/var/lib/a b.db"),
            ("sqlite:///var/lib/a.db", "/var/lib/a.db"),
            ("postgres://gate@db/accounts", "server"),
            ("postgresql://db", "server"),
            ("sqlite:", "refused"),
            ("sqlite:a.db?mode=ro", "refused"),
            ("mysql://db", "refused"),
            ("accounts.db", "refused"),
            ("", "refused"),
        ] {
            assert_eq!(place(url), expected, "{url}");
        }
    }

    #[test]
    fn paths_are_written_so_that_nothing_in_them_is_a_parameter() {
        let path = Path::new("/tmp/a b?c#d%e/é.db");
        assert_eq!(sqlite_url(path), "sqlite:///tmp/a%20b%3Fc%23d%25e/%C3%A9.db");
    }

    #[test]
    fn debug_shows_no_password() {
        let place = Place::parse(&"postgres://u:canary@db/x".into(), Path::new("/")).unwrap();
        assert!(!format!("{place:?}").contains("canary"));
    }
}
