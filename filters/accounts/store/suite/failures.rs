//! The store locked, full, broken, gone: it says so in time, and comes back by itself.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{AnyConnection, Executor};

use super::super::{Store, StoreError};
use super::{Database, NOW, SqlStore, StoreOptions, admin, block_on, connect, make, new_user};
use crate::accounts::AccountRole::{Owner, User as Plain};

const TIMEOUT: Duration = Duration::from_millis(400);
/// What a loaded machine may add.
const GRACE: Duration = Duration::from_millis(1500);

fn quick(database: &Database) -> StoreOptions {
    StoreOptions { timeout: TIMEOUT, ..database.options() }
}

fn file_of(database: &Database) -> PathBuf {
    PathBuf::from(database.url().strip_prefix("sqlite:").unwrap())
}

fn at(path: &Path) -> StoreOptions {
    let url = format!("sqlite:{}", path.display());
    StoreOptions { url: url.into(), ..Database::memory().options() }
}

/// Why a store did not open; it says so without a panic.
fn refusal(options: StoreOptions) -> String {
    match SqlStore::open(options) {
        Err(StoreError::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    }
}

async fn create(store: &Arc<dyn Store>, name: &str) -> Result<(), StoreError> {
    store.create_user(new_user(name, Plain), NOW, &admin()).await.map(drop)
}

/// Every kind of operation is refused within the time.
async fn is_unavailable(store: &Arc<dyn Store>, reads: bool) {
    let begun = Instant::now();
    let written = create(store, "refused").await;
    assert!(matches!(written, Err(StoreError::Unavailable(_))), "{written:?}");
    assert!(begun.elapsed() < TIMEOUT + GRACE, "{:?}", begun.elapsed());
    let begun = Instant::now();
    let read = store.revision().await;
    assert_eq!(read.is_ok(), reads, "{read:?}");
    assert!(begun.elapsed() < TIMEOUT + GRACE, "{:?}", begun.elapsed());
}

/// It may take a moment until connections are new.
async fn comes_back(store: &Arc<dyn Store>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = create(store, "after").await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(store.user("before").await.unwrap().is_some());
    assert!(store.user("refused").await.unwrap().is_none(), "what was refused was not done");
}

async fn run_sql(conn: &mut AnyConnection, sql: &'static str) {
    conn.execute(sqlx::raw_sql(sql)).await.unwrap();
}

#[test]
fn a_file_that_another_process_locks() {
    let database = Database::file();
    let store: Arc<dyn Store> = Arc::new(SqlStore::open(quick(&database)).unwrap());
    block_on(async {
        make(&store, "before", Plain).await;
        let mut other = connect(&database.url()).await.unwrap();
        run_sql(&mut other, "BEGIN IMMEDIATE").await;
        let error = create(&store, "refused").await.unwrap_err();
        assert!(error.to_string().contains("locked"), "{error}");
        is_unavailable(&store, true).await;
        run_sql(&mut other, "ROLLBACK").await;
        comes_back(&store).await;
    });
}

#[test]
fn a_counter_that_another_session_locks() {
    let Some(database) = Database::postgres() else { return };
    let store: Arc<dyn Store> = Arc::new(SqlStore::open(quick(&database)).unwrap());
    block_on(async {
        make(&store, "before", Plain).await;
        let mut other = connect(&database.url()).await.unwrap();
        run_sql(&mut other, "BEGIN; LOCK TABLE state IN ACCESS EXCLUSIVE MODE").await;
        for _ in 0..3 {
            is_unavailable(&store, false).await;
        }
        run_sql(&mut other, "ROLLBACK").await;
        comes_back(&store).await;
    });
}

#[test]
fn a_disk_that_is_full() {
    let database = Database::file();
    let one = SqlStore::open(StoreOptions { connections: 1, ..quick(&database) }).unwrap();
    let pool = one.pool().clone();
    let store: Arc<dyn Store> = Arc::new(one);
    let pages = |sql| {
        let pool = pool.clone();
        async move { pool.execute(sqlx::raw_sql(sql)).await.map(drop).unwrap() }
    };
    block_on(async {
        make(&store, "before", Plain).await;
        pages("PRAGMA max_page_count = 60").await;
        let mut made = 0;
        let error = loop {
            match create(&store, &format!("user{made}")).await {
                Ok(()) => made += 1,
                Err(error) => break error,
            }
            assert!(made < 10_000, "it never got full");
        };
        assert!(error.to_string().contains("full"), "{error}");
        assert_eq!(store.users().await.unwrap().len(), made + 1, "reading goes on");
        pages("PRAGMA max_page_count = 6000").await;
        comes_back(&store).await;
    });
}

#[test]
fn places_where_no_file_can_be() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    for path in ["/proc/accounts.db", "/nonexistent/accounts.db", "/"] {
        let why = refusal(at(Path::new(path)));
        assert!(why.contains(path), "{why}");
    }
    let why = refusal(at(&dir.path().join("file/accounts.db")));
    assert!(why.contains("Not a directory"), "{why}");
}

#[test]
fn files_that_are_no_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("accounts.db");
    for content in [&b"not a database at all, only text that is long enough\n"[..], &[0xff; 70_000]]
    {
        std::fs::write(&path, content).unwrap();
        assert!(refusal(at(&path)).contains("not a database"));
    }
}

#[test]
fn a_file_that_was_cut_off() {
    let database = Database::file();
    let store: Arc<dyn Store> = database.open();
    block_on(make(&store, "before", Plain));
    block_on(database.execute("PRAGMA wal_checkpoint(TRUNCATE)")).unwrap();
    let whole = std::fs::read(file_of(&database)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for part in 1..4 {
        let path = dir.path().join(format!("{part}.db"));
        std::fs::write(&path, &whole[..whole.len() / 4 * part]).unwrap();
        let outcome = SqlStore::open(at(&path)).and_then(|store| block_on(store.changes(0)));
        let error = outcome.map(|changes| changes.users.len()).unwrap_err();
        assert!(error.to_string().contains("malformed"), "{part}/4: {error}");
    }
}

#[test]
fn a_schema_of_a_newer_release() {
    for (change, expected) in [
        ("INSERT INTO schema_version VALUES (99, 'x')", "another release, a newer one"),
        ("UPDATE schema_version SET checksum = 'x'", "differs from the one of this release"),
    ] {
        for database in [Some(Database::file()), Database::postgres()].into_iter().flatten() {
            drop(database.open());
            block_on(database.execute(change)).unwrap();
            let why = refusal(database.options());
            assert!(why.contains(expected), "{why}");
        }
    }
}

#[test]
fn files_are_for_their_owner_only() {
    let database = Database::file();
    let path = file_of(&database);
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let store: Arc<dyn Store> = database.open();
    block_on(make(&store, "alice", Plain));
    let mut seen = 0;
    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        seen += 1;
    }
    assert_eq!(seen, 3, "the file, its log and the index of that");
}

#[test]
fn a_path_of_any_letters() {
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("a b#c%20é;mode=memory");
    std::fs::create_dir(&odd).unwrap();
    symlink(&odd, dir.path().join("link")).unwrap();
    let options = StoreOptions { base: dir.path().join("link"), ..at(Path::new("x&y.db")) };
    drop(SqlStore::open(options).unwrap());
    assert!(odd.join("x&y.db").metadata().unwrap().len() > 0);
}

#[test]
fn errors_and_debug_contain_no_password() {
    for url in [
        "postgres://u:canary@127.0.0.1:1/x",
        "postgres://u:canary@127.0.0.1:notaport/x",
        "postgres://u:canary@[/x",
        "postgres://u:canary@127.0.0.1:1/x?sslmode=canary",
        "postgres:canary",
    ] {
        let options = StoreOptions { url: url.into(), ..quick(&Database::memory()) };
        let shown = format!("{options:?}");
        let error = SqlStore::open(options).unwrap_err();
        let shown = format!("{shown} {error} {error:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }
}

#[test]
fn a_server_that_is_not_there_is_noticed_in_time() {
    let url = "postgres://u:p@127.0.0.1:1/x".into();
    let begun = Instant::now();
    let why = refusal(StoreOptions { url, ..quick(&Database::memory()) });
    assert!(why.contains("refused"), "{why}");
    assert!(begun.elapsed() < TIMEOUT + GRACE);
}

#[test]
fn connections_that_are_cut() {
    let Some(database) = Database::postgres() else { return };
    let store: Arc<dyn Store> = Arc::new(SqlStore::open(quick(&database)).unwrap());
    block_on(async {
        make(&store, "before", Plain).await;
        for _ in 0..3 {
            let cut = "SELECT 1 FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                       WHERE datname = current_database() AND pid <> pg_backend_pid()) AS cut";
            database.execute(cut).await.unwrap();
            assert!(store.revision().await.is_ok(), "dead connections are not handed out");
        }
        comes_back(&store).await;
    });
}

/// A server of its own, because it is stopped.
struct Server(tempfile::TempDir);

impl Server {
    fn start() -> Option<(Self, Database)> {
        drop(std::env::var_os("PORTCULLIS_TEST_POSTGRES")?);
        let server = Self(tempfile::tempdir().unwrap());
        let url = server.tell("start");
        Some((server, Database::on_server(url.trim().to_owned())))
    }

    fn tell(&self, what: &str) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/postgres.sh");
        let told = Command::new(script).arg(what).arg(self.0.path()).output().unwrap();
        assert!(told.status.success(), "{what}: {}", String::from_utf8_lossy(&told.stderr));
        String::from_utf8(told.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tell("stop");
    }
}

#[test]
fn a_server_that_stops_and_starts_again() {
    let Some((server, database)) = Server::start() else { return };
    let store: Arc<dyn Store> = Arc::new(SqlStore::open(quick(&database)).unwrap());
    block_on(async {
        make(&store, "before", Plain).await;
        server.tell("halt");
        for _ in 0..3 {
            is_unavailable(&store, false).await;
        }
        server.tell("restart");
        comes_back(&store).await;
    });
    drop(database);
}

#[test]
fn a_store_is_dropped_where_async_code_runs() {
    block_on(async {
        let store: Arc<dyn Store> = Database::memory().open();
        make(&store, "root", Owner).await;
        drop(store);
    });
}
