//! 100,000 keys: what start, an emergency and upkeep cost. Without optimisation a tenth of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{Store, StoreOptions, Touches};
use super::{Database, NOW, SqlStore, admin, block_on, make};
use crate::accounts::AccountRole::Owner;

const KEYS: usize = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
/// The time that a start may take.
const LIMIT: Duration = Duration::from_secs(2);

const FILL: &str = "WITH RECURSIVE numbers (n) AS \
    (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $KEYS) \
    INSERT INTO api_keys (id, user_name, name, digest, scopes, models, networks, created_at, \
    created_by, undeclared, source, revision) \
    SELECT CAST(100000000000 + n AS TEXT), 'root', 'a key', \
    'UZuuRknBP6Djj8J526JgsU244jDVjGay6pmjNtiQvFs', '[\"llm:generate\",\"models:read\"]', \
    '[\"llama3*\"]', '[\"10.0.0.0/8\"]', 1800000000, 'root', 0, 'store', 1 FROM numbers";

fn is_fast(database: &Database) {
    let options = StoreOptions { timeout: Duration::from_secs(2), ..database.options() };
    let store: Arc<dyn Store> = Arc::new(SqlStore::open(options).unwrap());
    block_on(async {
        make(&store, "root", Owner).await;
        database.execute(&FILL.replace("$KEYS", &KEYS.to_string())).await.unwrap();
        let begun = Instant::now();
        let keys = timed("a full read", store.changes(0)).await.unwrap().keys;
        assert!(begun.elapsed() < LIMIT);
        assert_eq!(keys.len(), KEYS);
        let uses = keys.iter().map(|key| (key.id, NOW)).take(5000).collect();
        let touches = Touches { keys: uses, sessions: vec![] };
        timed("5000 uses", store.touch(&touches)).await.unwrap();
        timed("upkeep", store.prune(NOW)).await.unwrap();
        let revision = store.revision().await.unwrap();
        let revoked =
            timed("revoking all", store.revoke_all("drill", NOW, &admin())).await.unwrap();
        assert_eq!(revoked.keys, KEYS as u64);
        let changes = timed("reading that", store.changes(revision)).await.unwrap();
        assert_eq!(changes.keys.len(), KEYS);
    });
}

async fn timed<T>(what: &str, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let outcome = work.await;
    let took = begun.elapsed();
    #[expect(clippy::print_stdout, reason = "a figure for who asks with --nocapture")]
    {
        println!("{what}: {took:?}");
    }
    outcome
}

#[test]
fn a_file_of_many_keys() {
    is_fast(&Database::file());
}

#[test]
fn a_server_of_many_keys() {
    if let Some(database) = Database::postgres() {
        is_fast(&database);
    }
}
