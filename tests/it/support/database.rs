//! Where accounts are kept: SQLite in a file, or a database of its own on a Postgres server.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The URL of an administrator of Postgres: `scripts/postgres.sh start DIR` prints one.
const SERVER: &str = "PORTCULLIS_TEST_POSTGRES";
/// In the folder of the configuration.
const FILE: &str = "portcullis.db";
/// SQLite as another process would use it.
const SQLITE: &str = "import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=5)
database.executescript(sys.argv[2])
database.close()";

/// A database, gone when it is dropped.
pub(crate) enum Database {
    /// SQLite beside the configuration.
    File,
    /// Of this name on a server.
    Postgres { admin: String, name: String },
}

impl Database {
    /// One on the server that the environment names; nothing if it names none.
    pub(crate) fn postgres() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Ok(admin) = std::env::var(SERVER) else {
            #[expect(clippy::print_stderr, reason = "who runs the tests shall know")]
            {
                eprintln!("skipped: {SERVER} is not set");
            }
            return None;
        };
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("portcullis_it_{}_{count}", std::process::id());
        psql(&admin, &format!("CREATE DATABASE {name}"));
        Some(Self::Postgres { admin, name })
    }

    /// The URL for a configuration in this folder.
    pub(super) fn url(&self, folder: &Path) -> String {
        match self {
            Self::File => format!("sqlite:{}", folder.join(FILE).display()),
            Self::Postgres { admin, name } => {
                let (server, _) = admin.rsplit_once('/').unwrap();
                format!("{server}/{name}")
            }
        }
    }

    /// Runs statements from another process.
    pub(super) fn run(&self, folder: &Path, statements: &str) {
        match self {
            Self::File => {
                let mut python = Command::new("python3");
                let path = folder.join(FILE);
                finish(python.args(["-c", SQLITE]).arg(path).arg(statements));
            }
            Self::Postgres { .. } => psql(&self.url(folder), statements),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Self::Postgres { admin, name } = self {
            psql(admin, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        }
    }
}

fn psql(url: &str, statements: &str) {
    let mut psql = Command::new("psql");
    finish(psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statements]));
}

fn finish(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
