//! Second factors.

use std::sync::Arc;

use secrecy::ExposeSecret;

use super::super::{Store, StoreError};
use super::{NOW, admin, make, on_every_database};
use crate::accounts::AccountRole::User as Plain;

const SECRET: &str = "JBSWY3DPEHPK3PXP";

on_every_database!(
    a_factor_is_replaced_until_it_is_confirmed,
    a_time_step_is_used_once_and_confirms,
    a_backup_code_is_used_once,
    a_factor_is_taken_away,
    a_factor_needs_its_user,
);

async fn begin(store: &Arc<dyn Store>, secret: &str, codes: &[&str]) -> Result<(), StoreError> {
    let codes: Vec<String> = codes.iter().map(|code| (*code).to_owned()).collect();
    store.begin_mfa("alice", &secret.into(), &codes, NOW, &admin()).await
}

async fn factor(store: &Arc<dyn Store>) -> Option<(String, bool)> {
    let factor = store.mfa("alice").await.unwrap();
    factor.map(|(secret, confirmed)| (secret.expose_secret().to_owned(), confirmed))
}

async fn a_factor_is_replaced_until_it_is_confirmed(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    assert_eq!(factor(&store).await, None);
    begin(&store, "first", &["a", "b"]).await.unwrap();
    assert_eq!(factor(&store).await, Some(("first".into(), false)));
    begin(&store, SECRET, &["c", "d", "d"]).await.unwrap();
    assert_eq!(factor(&store).await, Some((SECRET.into(), false)));
    assert_eq!(store.backup_codes("alice").await, Ok(2));
    assert_eq!(store.use_totp("alice", 5, NOW).await, Ok(true));
    assert_eq!(begin(&store, "intruder's", &["e"]).await, Err(StoreError::Exists));
    assert_eq!(factor(&store).await, Some((SECRET.into(), true)));
    assert_eq!(store.backup_codes("alice").await, Ok(2));
}

async fn a_time_step_is_used_once_and_confirms(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    begin(&store, SECRET, &[]).await.unwrap();
    let since = store.revision().await.unwrap();
    for (step, fresh) in [(0, true), (0, false), (60, true), (60, false), (59, false), (61, true)] {
        assert_eq!(store.use_totp("alice", step, NOW).await, Ok(fresh), "{step}");
    }
    let changes = store.changes(since).await.unwrap();
    assert!(changes.users.iter().all(|user| user.mfa) && changes.users.len() == 1);
    assert_eq!(changes.revision, since + 1, "only the first use is a change");
}

async fn a_backup_code_is_used_once(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    begin(&store, SECRET, &["a", "b"]).await.unwrap();
    assert_eq!(store.use_backup_code("alice", "a").await, Ok(false), "not confirmed yet");
    store.use_totp("alice", 1, NOW).await.unwrap();
    for (name, code, expected) in
        [("alice", "x", false), ("bob", "a", false), ("alice", "a", true), ("alice", "a", false)]
    {
        assert_eq!(store.use_backup_code(name, code).await, Ok(expected), "{name} {code}");
    }
    assert_eq!(store.backup_codes("alice").await, Ok(1));
}

async fn a_factor_is_taken_away(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    let none = Err(StoreError::NotFound);
    assert_eq!(store.remove_mfa("alice", NOW, &admin()).await, none);
    begin(&store, SECRET, &["a"]).await.unwrap();
    store.use_totp("alice", 9, NOW).await.unwrap();
    store.remove_mfa("alice", NOW, &admin()).await.unwrap();
    assert_eq!(factor(&store).await, None);
    assert!(!store.user("alice").await.unwrap().unwrap().mfa);
    assert_eq!(store.use_backup_code("alice", "a").await, Ok(false));
    begin(&store, "another", &[]).await.unwrap();
    assert_eq!(store.use_totp("alice", 1, NOW).await, Ok(true), "another secret, other codes");
}

async fn a_factor_needs_its_user(store: Arc<dyn Store>) {
    assert_eq!(begin(&store, SECRET, &[]).await, Err(StoreError::NotFound));
    assert_eq!(store.use_totp("alice", 1, NOW).await, Err(StoreError::NotFound));
    assert_eq!(factor(&store).await, None);
}
