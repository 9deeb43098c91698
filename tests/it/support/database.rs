//! Where accounts are kept: SQLite in a file, or a database of its own on a Postgres server.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
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

/// The same, holding the lock for writing until it is told nothing more.
const HOLD: &str = "import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=5, isolation_level=None)
database.execute('BEGIN IMMEDIATE')
print('held', flush=True)
sys.stdin.read()";

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

impl Database {
    /// Where the server is.
    pub(crate) fn server(&self) -> SocketAddr {
        let Self::Postgres { admin, .. } = self else { panic!("a file has no server") };
        let (_, place) = admin.rsplit_once('@').unwrap();
        place.split_once('/').unwrap().0.parse().unwrap()
    }

    /// The URL by another way to the server.
    pub(crate) fn url_at(&self, address: SocketAddr) -> String {
        let url = self.url(Path::new(""));
        url.replace(&self.server().to_string(), &address.to_string())
    }

    /// Has another process hold the lock for writing.
    pub(super) fn lock(folder: &Path) -> Lock {
        let mut python = Command::new("python3");
        python.args(["-c", HOLD]).arg(folder.join(FILE));
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut held = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut held).unwrap();
        Lock(child)
    }
}

/// A process that holds the lock for writing, until it is dropped.
pub(crate) struct Lock(Child);

impl Drop for Lock {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
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
