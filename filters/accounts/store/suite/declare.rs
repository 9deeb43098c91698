//! Users and keys of the configuration.

use std::sync::Arc;

use secrecy::ExposeSecret;

use super::super::{Key, NewUser, Source, Store, StoreError, User};
use super::{NOW, admin, disabled, email, make, new_key, new_session, new_user, on_every_database};
use crate::accounts::AccountRole::{Admin, Owner, ReadOnly, User as Plain};
use crate::accounts::api_key::KeyDigest;

on_every_database!(
    a_second_declaration_changes_nothing,
    what_differs_is_changed,
    what_is_missing_is_removed,
    a_user_of_the_store_becomes_a_declared_one,
    a_rehash_is_not_another_password,
    an_emergency_outlives_a_restart,
    a_key_that_comes_back_works_again,
    a_revoked_key_comes_back_with_another_secret,
    an_address_that_is_not_declared_stays,
    keys_need_users,
);

async fn user(store: &Arc<dyn Store>, name: &str) -> User {
    store.user(name).await.unwrap().unwrap()
}

async fn revoked(store: &Arc<dyn Store>, number: u64) -> bool {
    let keys = store.keys(None).await.unwrap();
    keys.iter().find(|key| key.id == new_key(number, "").id).unwrap().revoked_at.is_some()
}

fn both() -> [NewUser; 2] {
    let root = NewUser { email: Some("r@example.org".into()), ..new_user("root", Owner) };
    [root, new_user("alice", Plain)]
}

async fn a_second_declaration_changes_nothing(store: Arc<dyn Store>) {
    let keys = [new_key(1, "root"), new_key(2, "alice")];
    store.declare(&both(), &keys, NOW).await.unwrap();
    assert!(store.users().await.unwrap().iter().all(|user| user.source == Source::Config));
    assert!(store.keys(None).await.unwrap().iter().all(|key| key.source == Source::Config));
    let before = store.revision().await.unwrap();
    let later = keys.map(|key| Key { created_at: NOW + 9, created_by: "x".into(), ..key });
    store.declare(&both(), &later, NOW + 9).await.unwrap();
    assert_eq!(store.revision().await, Ok(before));
}

async fn what_differs_is_changed(store: Arc<dyn Store>) {
    let alice = |role, hash: &str| NewUser {
        role,
        password_hash: Some(hash.into()),
        ..new_user("alice", Plain)
    };
    store.declare(&[alice(Plain, "a")], &[new_key(1, "alice")], NOW).await.unwrap();
    for (new, begins) in [
        (alice(Admin, "a"), false),
        (alice(Plain, "a"), true),
        (alice(Plain, "b"), true),
        (alice(ReadOnly, "b"), true),
        (NewUser { password_hash: None, ..alice(ReadOnly, "") }, true),
    ] {
        let id = format!("{new:?} {:?}", new.password_hash);
        store.open_session(&new_session(&id, "alice")).await.unwrap();
        let before = user(&store, "alice").await.epoch;
        store.declare(std::slice::from_ref(&new), &[new_key(1, "alice")], NOW).await.unwrap();
        let after = user(&store, "alice").await;
        assert_eq!((after.role, after.password_hash), (new.role, new.password_hash.clone()));
        assert_eq!(after.epoch > before, begins, "{new:?}");
        assert_eq!(store.sessions("alice", NOW).await.unwrap().is_empty(), begins, "{new:?}");
    }
    let other = Key { scopes: vec!["scan".into()], quota: None, ..new_key(1, "alice") };
    store.declare(&[alice(Plain, "b")], std::slice::from_ref(&other), NOW).await.unwrap();
    let keys = store.keys(None).await.unwrap();
    assert_eq!((&keys[0].scopes, &keys[0].quota), (&other.scopes, &None));
}

async fn what_is_missing_is_removed(store: Arc<dyn Store>) {
    make(&store, "carol", Plain).await;
    store.create_key(&new_key(3, "carol"), &admin()).await.unwrap();
    store.declare(&both(), &[new_key(1, "root"), new_key(2, "alice")], NOW).await.unwrap();
    let since = store.revision().await.unwrap();
    store.declare(&both()[..1], &[], NOW).await.unwrap();
    let changes = store.changes(since).await.unwrap();
    assert_eq!(changes.removed_users, ["alice"]);
    assert!(revoked(&store, 1).await && !revoked(&store, 3).await);
    assert!(store.user("alice").await.unwrap().is_none());
    assert!(store.user("carol").await.unwrap().is_some());
}

async fn a_user_of_the_store_becomes_a_declared_one(store: Arc<dyn Store>) {
    for (name, declared, begins) in [
        ("same", new_user("same", Plain), false),
        ("lower", new_user("lower", ReadOnly), true),
        ("other", NewUser { password_hash: Some("x".into()), ..new_user("other", Plain) }, true),
        ("none", NewUser { password_hash: None, ..new_user("none", Plain) }, true),
    ] {
        make(&store, name, Plain).await;
        store.update_user(name, disabled(true), NOW, &admin()).await.unwrap();
        let before = user(&store, name).await;
        store.declare(std::slice::from_ref(&declared), &[], NOW).await.unwrap();
        let after = user(&store, name).await;
        assert_eq!(after.epoch > before.epoch, begins, "{name}");
        assert_eq!((after.source, after.disabled), (Source::Config, true), "{name}");
        assert_eq!(after.password_hash, declared.password_hash, "{name}");
    }
}

async fn a_rehash_is_not_another_password(store: Arc<dyn Store>) {
    store.declare(&both(), &[], NOW).await.unwrap();
    store.rehash("alice", "hash of alice", "stronger").await.unwrap();
    let before = user(&store, "alice").await;
    store.declare(&both(), &[], NOW).await.unwrap();
    assert_eq!(user(&store, "alice").await, before);
    assert_eq!(before.password_hash.as_deref(), Some("stronger"));
}

async fn an_emergency_outlives_a_restart(store: Arc<dyn Store>) {
    let keys = [new_key(1, "root"), new_key(2, "alice")];
    store.declare(&both(), &keys, NOW).await.unwrap();
    store.update_user("alice", disabled(true), NOW, &admin()).await.unwrap();
    store.declare(&both(), &keys[..1], NOW).await.unwrap(); // one key leaves before the emergency
    store.revoke_all("drill", NOW, &admin()).await.unwrap();
    let changed = keys.map(|key| Key { name: "another name".into(), ..key });
    store.declare(&both(), &changed, NOW).await.unwrap();
    assert!(user(&store, "alice").await.disabled);
    assert!(revoked(&store, 1).await && revoked(&store, 2).await);
}

async fn a_key_that_comes_back_works_again(store: Arc<dyn Store>) {
    let keys = [new_key(1, "root"), new_key(2, "root")];
    store.declare(&both(), &keys, NOW).await.unwrap();
    store.revoke_key(keys[1].id, NOW, &admin()).await.unwrap();
    for (declared, gone) in [(&keys[..0], true), (&keys[..], false), (&keys[..], false)] {
        store.declare(&both(), declared, NOW).await.unwrap();
        assert_eq!(revoked(&store, 1).await, gone);
        assert!(revoked(&store, 2).await, "it was revoked before it left");
    }
}

async fn a_revoked_key_comes_back_with_another_secret(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    store.create_key(&new_key(1, "alice"), &admin()).await.unwrap();
    store.revoke_key(new_key(1, "").id, NOW, &admin()).await.unwrap();
    store.declare(&both(), &[new_key(1, "root")], NOW).await.unwrap();
    assert!(revoked(&store, 1).await, "the same secret");
    let other = Key { digest: KeyDigest::from([1; 32]), ..new_key(1, "root") };
    store.declare(&both(), &[other], NOW).await.unwrap();
    assert!(!revoked(&store, 1).await);
}

async fn an_address_that_is_not_declared_stays(store: Arc<dyn Store>) {
    store.declare(&both(), &[], NOW).await.unwrap();
    for name in ["root", "alice"] {
        store.update_user(name, email(Some("set@example.org")), NOW, &admin()).await.unwrap();
    }
    store.declare(&both(), &[], NOW).await.unwrap();
    for (name, expected) in [("root", "r@example.org"), ("alice", "set@example.org")] {
        let stored = store.email(name).await.unwrap().unwrap();
        assert_eq!(stored.expose_secret(), expected, "{name}");
    }
}

async fn keys_need_users(store: Arc<dyn Store>) {
    let outcome = store.declare(&both(), &[new_key(1, "nobody")], NOW).await;
    assert_eq!(outcome, Err(StoreError::NotFound));
    assert_eq!(store.users().await, Ok(vec![]), "nothing half done");
}
