//! Users: made, changed, removed; who may not go; epochs.

use std::sync::Arc;

use secrecy::ExposeSecret;

use super::super::{NewUser, Revoked, Source, Store, StoreError, User};
use super::{
    NOW, admin, disabled, email, make, new_key, new_session, new_user, on_every_database, password,
    role,
};
use crate::accounts::AccountRole::{Admin, Owner, ReadOnly, User as Plain};

on_every_database!(
    a_user_is_made_as_given,
    a_name_is_taken_once,
    nobody_is_found_under_other_names,
    users_come_by_name,
    what_takes_rights_away_begins_an_epoch,
    epochs_never_fall,
    the_last_owner_stays,
    owners_of_issuers_do_not_count,
    declared_users_are_changed_elsewhere,
    a_removed_user_takes_everything_along,
    a_stronger_hash_begins_no_epoch,
    an_address_is_set_and_taken_away,
);

async fn epoch(store: &Arc<dyn Store>, name: &str) -> u64 {
    store.user(name).await.unwrap().unwrap().epoch
}

async fn a_user_is_made_as_given(store: Arc<dyn Store>) {
    let new = NewUser { email: Some("a@example.org".into()), ..new_user("alice", Admin) };
    let made = store.create_user(new, NOW, &admin()).await.unwrap();
    let expected = User {
        name: "alice".into(),
        role: Admin,
        password_hash: Some("hash of alice".into()),
        disabled: false,
        source: Source::Store,
        mfa: false,
        epoch: NOW * 1000,
        created_at: NOW,
        created_by: "root".into(),
        last_login_at: None,
    };
    assert_eq!(made, expected);
    assert_eq!(store.user("alice").await, Ok(Some(expected)));
    let email = store.email("alice").await.unwrap().unwrap();
    assert_eq!(email.expose_secret(), "a@example.org");
}

async fn a_name_is_taken_once(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    let again = store.create_user(new_user("alice", Owner), NOW, &admin()).await;
    assert_eq!(again, Err(StoreError::Exists));
    assert_eq!(store.user("alice").await.unwrap().unwrap().role, Plain);
}

async fn nobody_is_found_under_other_names(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    for name in ["", "Alice", "alice ", "alice\0", "%", "' OR 1=1 --", "bob"] {
        assert_eq!(store.user(name).await, Ok(None), "{name:?}");
        let gone = Err(StoreError::NotFound);
        assert_eq!(store.update_user(name, role(Owner), NOW, &admin()).await, gone, "{name:?}");
        assert_eq!(store.email(name).await.map(drop), Err(StoreError::NotFound), "{name:?}");
        let removed = store.delete_user(name, NOW, &admin()).await;
        assert_eq!(removed, Err(StoreError::NotFound), "{name:?}");
        let revoked = store.revoke_user(name, NOW, &admin()).await;
        assert_eq!(revoked, Err(StoreError::NotFound), "{name:?}");
    }
}

async fn users_come_by_name(store: Arc<dyn Store>) {
    for name in ["b_", "a", "z", "a.b", "éa", "b-"] {
        make(&store, name, Plain).await;
    }
    let users = store.users().await.unwrap();
    let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(names, ["a", "a.b", "b-", "b_", "z", "éa"]);
}

async fn what_takes_rights_away_begins_an_epoch(store: Arc<dyn Store>) {
    make(&store, "root", Owner).await;
    make(&store, "alice", Plain).await;
    let steps = [
        (role(Admin), false),
        (role(Admin), false),
        (role(Plain), true),
        (email(Some("a@example.org")), false),
        (password("another hash"), true),
        (disabled(true), true),
        (disabled(true), false),
        (disabled(false), false),
        (role(ReadOnly), true),
    ];
    for (at, (change, voids)) in steps.into_iter().enumerate() {
        if !store.user("alice").await.unwrap().unwrap().disabled {
            let session = new_session(&format!("before {at}"), "alice");
            store.open_session(&session).await.unwrap();
        }
        let before = epoch(&store, "alice").await;
        let after = store.update_user("alice", change.clone(), NOW, &admin()).await.unwrap();
        assert_eq!(after.epoch > before, voids, "{change:?}");
        let sessions = store.sessions("alice", NOW).await.unwrap();
        assert!(!voids || sessions.is_empty(), "{change:?}");
    }
}

async fn epochs_never_fall(store: Arc<dyn Store>) {
    make(&store, "root", Owner).await;
    let mut last = make(&store, "alice", Plain).await.epoch;
    for now in [NOW, NOW - 500, NOW + 9, NOW + 2] {
        store.revoke_user("alice", now, &admin()).await.unwrap();
        let revoked = epoch(&store, "alice").await;
        assert!(revoked > last && revoked >= now * 1000, "{now}");
        store.delete_user("alice", now, &admin()).await.unwrap();
        store.prune(now + 100_000).await.unwrap(); // forgets the tombstone, not the epoch
        let again = store.create_user(new_user("alice", Plain), now - 300, &admin()).await.unwrap();
        assert!(again.epoch > revoked, "{now}");
        last = again.epoch;
    }
    store.revoke_all("drill", NOW - 9000, &admin()).await.unwrap();
    assert!(epoch(&store, "alice").await > last);
}

async fn the_last_owner_stays(store: Arc<dyn Store>) {
    make(&store, "root", Owner).await;
    make(&store, "off", Owner).await;
    store.update_user("off", disabled(true), NOW, &admin()).await.unwrap();
    for change in [role(Admin), role(ReadOnly), disabled(true)] {
        let outcome = store.update_user("root", change.clone(), NOW, &admin()).await;
        assert_eq!(outcome, Err(StoreError::LastOwner), "{change:?}");
    }
    assert_eq!(store.delete_user("root", NOW, &admin()).await, Err(StoreError::LastOwner));
    for change in [role(Owner), disabled(false), password("x"), email(None)] {
        assert!(store.update_user("root", change.clone(), NOW, &admin()).await.is_ok());
    }
    store.update_user("off", disabled(false), NOW, &admin()).await.unwrap();
    assert!(store.update_user("root", role(Plain), NOW, &admin()).await.is_ok());
    assert_eq!(store.delete_user("off", NOW, &admin()).await, Err(StoreError::LastOwner));
}

/// Whom an issuer vouches for can be gone tomorrow, so such an owner keeps nobody else from going,
/// and is not kept.
async fn owners_of_issuers_do_not_count(store: Arc<dyn Store>) {
    let boss = NewUser { source: Source::Issuer, ..new_user("corp:boss", Owner) };
    store.create_user(boss.clone(), NOW, &admin()).await.unwrap();
    let demoted = store.update_user("corp:boss", role(Plain), NOW, &admin()).await;
    assert_eq!(demoted.map(|user| user.role), Ok(Plain), "also where there is no other owner");
    store.update_user("corp:boss", role(Owner), NOW, &admin()).await.unwrap();
    make(&store, "root", Owner).await;
    let outcome = store.update_user("root", role(Plain), NOW, &admin()).await;
    assert_eq!(outcome, Err(StoreError::LastOwner));
    assert!(store.delete_user("corp:boss", NOW, &admin()).await.is_ok());
}

async fn declared_users_are_changed_elsewhere(store: Arc<dyn Store>) {
    make(&store, "root", Owner).await;
    store.declare(&[new_user("alice", Plain)], &[], NOW).await.unwrap();
    for (change, expected) in [
        (role(Admin), Err(StoreError::Declared)),
        (role(Plain), Ok(())),
        (password("x"), Err(StoreError::Declared)),
        (disabled(true), Ok(())),
        (disabled(false), Ok(())),
        (email(Some("a@example.org")), Ok(())),
    ] {
        let outcome = store.update_user("alice", change.clone(), NOW, &admin()).await.map(drop);
        assert_eq!(outcome, expected, "{change:?}");
    }
    assert_eq!(store.delete_user("alice", NOW, &admin()).await, Err(StoreError::Declared));
}

async fn a_removed_user_takes_everything_along(store: Arc<dyn Store>) {
    make(&store, "root", Owner).await;
    make(&store, "alice", Plain).await;
    store.open_session(&new_session("s1", "alice")).await.unwrap();
    store.open_session(&new_session("s2", "root")).await.unwrap();
    for (number, user) in [(1, "alice"), (2, "alice"), (3, "root")] {
        store.create_key(&new_key(number, user), &admin()).await.unwrap();
    }
    store.revoke_key(new_key(2, "").id, NOW, &admin()).await.unwrap();
    store
        .begin_mfa("alice", &"JBSWY3DPEHPK3PXP".into(), &["code".into()], NOW, &admin())
        .await
        .unwrap();
    let revoked = store.delete_user("alice", NOW, &admin()).await.unwrap();
    assert_eq!(revoked, Revoked { keys: 1, sessions: 1, users: 1 });
    assert_eq!(store.keys(None).await.unwrap().len(), 1);
    make(&store, "alice", Plain).await;
    assert!(store.mfa("alice").await.unwrap().is_none());
    assert_eq!(store.backup_codes("alice").await, Ok(0));
    assert_eq!(store.sessions("alice", NOW).await, Ok(vec![]));
    assert_eq!(store.sessions("root", NOW).await.unwrap().len(), 1);
}

async fn a_stronger_hash_begins_no_epoch(store: Arc<dyn Store>) {
    let before = make(&store, "alice", Plain).await;
    store.rehash("alice", "not the hash", "canary").await.unwrap();
    store.rehash("nobody", "hash of alice", "canary").await.unwrap();
    assert_eq!(store.user("alice").await, Ok(Some(before.clone())));
    store.rehash("alice", "hash of alice", "stronger").await.unwrap();
    let after = User { password_hash: Some("stronger".into()), ..before };
    assert_eq!(store.user("alice").await, Ok(Some(after)));
}

async fn an_address_is_set_and_taken_away(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    for address in [None, Some("a@example.org"), Some("b@example.org"), None] {
        store.update_user("alice", email(address), NOW, &admin()).await.unwrap();
        let stored = store.email("alice").await.unwrap();
        assert_eq!(stored.as_ref().map(ExposeSecret::expose_secret), address);
    }
}
