//! The key that seals: missing, wrong, replaced.

use std::sync::Arc;

use secrecy::ExposeSecret;

use super::super::{NewUser, SqlStore, Store, StoreError, StoreOptions};
use super::{Database, NOW, STORE_KEY, admin, block_on, email, make, new_user};
use crate::accounts::AccountRole::User as Plain;

const OTHER_KEY: &str = "9f86d081884c7d659a2feaa0c55ad015";
/// More than are sealed anew in one transaction.
const USERS: usize = 450;

fn with_keys(database: &Database, current: Option<&str>, previous: Option<&str>) -> StoreOptions {
    StoreOptions {
        store_key: current.map(Into::into),
        store_key_previous: previous.map(Into::into),
        ..database.options()
    }
}

fn open(database: &Database, current: Option<&str>, previous: Option<&str>) -> Arc<dyn Store> {
    Arc::new(SqlStore::open(with_keys(database, current, previous)).unwrap())
}

fn refusal(database: &Database, current: Option<&str>, previous: Option<&str>) -> String {
    SqlStore::open(with_keys(database, current, previous)).unwrap_err().to_string()
}

async fn fill(store: &Arc<dyn Store>) {
    let users: Vec<NewUser> = (0..USERS)
        .map(|n| {
            let email = Some(format!("{n}@example.org").into());
            NewUser { email, ..new_user(&format!("user{n}"), Plain) }
        })
        .collect();
    store.declare(&users, &[], NOW).await.unwrap();
    store.begin_mfa("user7", &"JBSWY3DPEHPK3PXP".into(), &[], NOW, &admin()).await.unwrap();
}

async fn check(store: &Arc<dyn Store>) {
    for n in [0, 7, USERS - 1] {
        let stored = store.email(&format!("user{n}")).await.unwrap().unwrap();
        assert_eq!(stored.expose_secret(), format!("{n}@example.org"));
    }
    let (secret, _) = store.mfa("user7").await.unwrap().unwrap();
    assert_eq!(secret.expose_secret(), "JBSWY3DPEHPK3PXP");
}

fn rotates(database: &Database) {
    block_on(fill(&open(database, Some(STORE_KEY), None)));
    for (current, previous) in [
        (Some(STORE_KEY), Some(OTHER_KEY)),
        (Some(OTHER_KEY), Some(STORE_KEY)),
        (Some(OTHER_KEY), None),
        (None, Some(OTHER_KEY)),
        (Some(STORE_KEY), Some(OTHER_KEY)),
        (Some(STORE_KEY), Some(STORE_KEY)),
        (Some(STORE_KEY), None),
    ] {
        block_on(check(&open(database, current, previous)));
    }
    for (current, previous) in [(None, None), (Some(OTHER_KEY), None)] {
        let why = refusal(database, current, previous);
        assert!(why.contains("sealed under the key \"v1."), "{why}");
    }
}

#[test]
fn a_file_is_sealed_anew() {
    rotates(&Database::file());
}

#[test]
fn a_server_is_sealed_anew() {
    if let Some(database) = Database::postgres() {
        rotates(&database);
    }
}

#[test]
fn without_a_key_all_but_secrets_works() {
    let database = Database::file();
    let store = open(&database, None, None);
    block_on(async {
        make(&store, "alice", Plain).await;
        let sealed = store.update_user("alice", email(Some("a@example.org")), NOW, &admin()).await;
        assert_eq!(sealed, Err(StoreError::Seal));
        let secret = "JBSWY3DPEHPK3PXP".into();
        assert_eq!(
            store.begin_mfa("alice", &secret, &[], NOW, &admin()).await,
            Err(StoreError::Seal)
        );
        assert!(store.update_user("alice", email(None), NOW, &admin()).await.is_ok());
        assert!(store.email("alice").await.unwrap().is_none());
    });
}

#[test]
fn a_text_that_was_moved_is_not_opened_and_keeps_nobody_from_starting() {
    let database = Database::file();
    block_on(fill(&open(&database, Some(STORE_KEY), None)));
    let swap = "UPDATE users SET email = (SELECT email FROM users WHERE name = 'user1') \
                WHERE name = 'user2'";
    block_on(database.execute(swap)).unwrap();
    let store = open(&database, Some(OTHER_KEY), Some(STORE_KEY));
    block_on(async {
        assert_eq!(store.email("user2").await.map(drop), Err(StoreError::Seal));
        check(&store).await;
    });
}

#[test]
fn secrets_do_not_stand_in_the_file() {
    let database = Database::file();
    let store = open(&database, Some(STORE_KEY), None); // its log is there while it is open
    block_on(fill(&store));
    let Database::File(dir) = &database else { return };
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for secret in ["@example.org", "JBSWY3DPEHPK3PXP", STORE_KEY] {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret}");
        }
    }
}

#[test]
fn weak_keys_are_refused() {
    let why = refusal(&Database::memory(), Some("short"), None);
    assert!(why.contains("store_key: weak key"), "{why}");
}
