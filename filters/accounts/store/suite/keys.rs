//! API keys: made, listed, rotated, revoked, used.

use std::sync::Arc;

use super::super::{Key, Source, Store, StoreError, Touches};
use super::{NOW, admin, make, new_key, on_every_database};
use crate::accounts::AccountRole::{Owner, User as Plain};

on_every_database!(
    a_key_is_stored_as_given,
    a_key_needs_a_user_and_an_id_of_its_own,
    keys_come_by_the_time_they_were_made,
    a_key_is_revoked_once,
    a_rotated_key_ends_when_asked_or_sooner,
    some_keys_are_not_rotated,
    the_last_use_is_the_latest,
);

/// Keys have no equality: their digests are compared in constant time.
fn shown(key: &Key) -> String {
    format!("{key:?} {}", key.digest)
}

async fn only_key(store: &Arc<dyn Store>) -> Key {
    let [key] = store.keys(None).await.unwrap().try_into().unwrap();
    key
}

async fn a_key_is_stored_as_given(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    let full = new_key(1, "alice");
    let bare = Key {
        scopes: vec![],
        models: vec!["a \"b\", [c]".into()],
        networks: vec![],
        quota: None,
        expires_at: None,
        source: Source::Issuer,
        ..new_key(2, "alice")
    };
    for key in [&full, &bare] {
        store.create_key(key, &admin()).await.unwrap();
    }
    let stored: Vec<String> = store.keys(Some("alice")).await.unwrap().iter().map(shown).collect();
    assert_eq!(stored, [shown(&full), shown(&bare)]);
}

async fn a_key_needs_a_user_and_an_id_of_its_own(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    make(&store, "bob", Plain).await;
    let nobodys = store.create_key(&new_key(1, "nobody"), &admin()).await;
    assert_eq!(nobodys, Err(StoreError::NotFound));
    store.create_key(&new_key(1, "alice"), &admin()).await.unwrap();
    let again = store.create_key(&new_key(1, "bob"), &admin()).await;
    assert_eq!(again, Err(StoreError::Exists));
    assert_eq!(only_key(&store).await.user, "alice");
}

async fn keys_come_by_the_time_they_were_made(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    make(&store, "bob", Plain).await;
    for (number, user, at) in [(3, "alice", 10), (1, "bob", 30), (2, "alice", 20), (4, "alice", 5)]
    {
        let key = Key { created_at: NOW + at, ..new_key(number, user) };
        store.create_key(&key, &admin()).await.unwrap();
    }
    for (user, expected) in [
        (None, vec!["key 4", "key 3", "key 2", "key 1"]),
        (Some("alice"), vec!["key 4", "key 3", "key 2"]),
        (Some("nobody"), vec![]),
    ] {
        let keys = store.keys(user).await.unwrap();
        assert!(keys.iter().map(|key| key.name.as_str()).eq(expected), "{user:?}");
    }
}

async fn a_key_is_revoked_once(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    let key = new_key(1, "alice");
    store.create_key(&key, &admin()).await.unwrap();
    for (id, at, expected) in [
        (new_key(2, "").id, 1, Err(StoreError::NotFound)),
        (key.id, 2, Ok(true)),
        (key.id, 3, Ok(false)),
    ] {
        assert_eq!(store.revoke_key(id, NOW + at, &admin()).await, expected, "{id} {at}");
    }
    assert_eq!(only_key(&store).await.revoked_at, Some(NOW + 2));
}

async fn a_rotated_key_ends_when_asked_or_sooner(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    for (number, expires_at, expected) in
        [(1, None, NOW + 60), (2, Some(NOW + 1000), NOW + 60), (3, Some(NOW + 10), NOW + 10)]
    {
        let old = Key { expires_at, ..new_key(number, "alice") };
        store.create_key(&old, &admin()).await.unwrap();
        let new = new_key(number + 10, "alice");
        store.rotate_key(old.id, NOW + 60, &new, &admin()).await.unwrap();
        let keys = store.keys(None).await.unwrap();
        let find = |id| keys.iter().find(|key| key.id == id).unwrap();
        assert_eq!(find(old.id).expires_at, Some(expected));
        assert_eq!(shown(find(new.id)), shown(&new));
    }
}

async fn some_keys_are_not_rotated(store: Arc<dyn Store>) {
    make(&store, "root", Owner).await;
    store.declare(&[new_user_of_config()], &[new_key(1, "alice")], NOW).await.unwrap();
    for number in [2, 3, 4] {
        store.create_key(&new_key(number, "root"), &admin()).await.unwrap();
    }
    store.revoke_key(new_key(2, "").id, NOW, &admin()).await.unwrap();
    for (old, new, expected) in [
        (new_key(1, ""), new_key(11, "alice"), StoreError::Declared),
        (new_key(2, ""), new_key(12, "root"), StoreError::NotFound),
        (new_key(9, ""), new_key(19, "root"), StoreError::NotFound),
        (new_key(3, ""), new_key(13, "alice"), StoreError::NotFound),
        (new_key(3, ""), new_key(4, "root"), StoreError::Exists),
    ] {
        let outcome = store.rotate_key(old.id, NOW + 1, &new, &admin()).await;
        assert_eq!(outcome, Err(expected), "{}", old.id);
    }
    let keys = store.keys(None).await.unwrap();
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| key.expires_at == Some(NOW + 1000)), "nothing half done");
}

fn new_user_of_config() -> super::super::NewUser {
    super::new_user("alice", Plain)
}

async fn the_last_use_is_the_latest(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    let key = new_key(1, "alice");
    store.create_key(&key, &admin()).await.unwrap();
    let before = store.revision().await.unwrap();
    for (at, expected) in [(50, 50), (20, 50), (70, 70)] {
        let unknown = (new_key(99, "").id, NOW + at);
        let keys = vec![(key.id, NOW + at - 9), unknown, (key.id, NOW + at), (key.id, NOW)];
        store.touch(&Touches { keys, sessions: vec![] }).await.unwrap();
        assert_eq!(only_key(&store).await.last_used_at, Some(NOW + expected));
    }
    store.prune(NOW).await.unwrap();
    assert_eq!(only_key(&store).await.last_used_at, Some(NOW + 70));
    assert_eq!(store.revision().await, Ok(before), "uses are no change");
    let many = (0..1000).map(|number| (new_key(number, "").id, NOW + 90)).collect();
    store.touch(&Touches { keys: many, sessions: vec![] }).await.unwrap();
    assert_eq!(only_key(&store).await.last_used_at, Some(NOW + 90));
}
