//! Sessions, revocations of every size, events for the record.

use std::sync::Arc;

use super::super::{Actor, Revoked, Session, Store, StoreError, Touches};
use super::{
    NOW, admin, disabled, make, new_key, new_session, new_user, on_every_database, operator,
    password, role,
};
use crate::accounts::AccountRole::{Admin, Owner, User as Plain};

on_every_database!(
    a_session_is_stored_as_given,
    sessions_come_newest_first_and_end,
    only_users_who_may_log_in_have_sessions,
    a_session_is_revoked_by_its_user_only,
    revoking_a_user_closes_the_sessions_and_leaves_the_keys,
    revoking_all_counts_what_it_revokes,
    a_revocation_outlasts_what_it_revokes,
    changes_past_the_gateways_are_kept_for_the_record,
);

async fn a_session_is_stored_as_given(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    let session = Session {
        address: "2001:db8::1".parse().unwrap(),
        device: "Mozilla/5.0 (é; \"x\")".into(),
        mfa: true,
        ..new_session("s1", "alice")
    };
    store.open_session(&session).await.unwrap();
    assert_eq!(store.sessions("alice", NOW).await, Ok(vec![session.clone()]));
    assert_eq!(store.user("alice").await.unwrap().unwrap().last_login_at, Some(NOW));
    let sessions = vec![("s1".into(), NOW + 7), ("gone".into(), NOW)];
    store.touch(&Touches { keys: vec![], sessions }).await.unwrap();
    let seen = Session { last_seen_at: NOW + 7, ..session };
    assert_eq!(store.sessions("alice", NOW).await, Ok(vec![seen]));
}

async fn sessions_come_newest_first_and_end(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    make(&store, "bob", Plain).await;
    for (id, user, at) in [("s1", "alice", 0), ("s2", "bob", 1), ("s3", "alice", 2)] {
        let made = new_session(id, user);
        let session = Session { created_at: NOW + at, expires_at: NOW + at + 900, ..made };
        store.open_session(&session).await.unwrap();
    }
    for prune in [false, true] {
        for (now, expected) in
            [(NOW, vec!["s3", "s1"]), (NOW + 900, vec!["s3"]), (NOW + 902, vec![])]
        {
            if prune {
                store.prune(now).await.unwrap();
            }
            let sessions = store.sessions("alice", now).await.unwrap();
            assert!(sessions.iter().map(|session| session.id.as_str()).eq(expected), "{now}");
        }
    }
}

async fn only_users_who_may_log_in_have_sessions(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    store.update_user("alice", disabled(true), NOW, &admin()).await.unwrap();
    for user in ["alice", "nobody"] {
        let outcome = store.open_session(&new_session("s1", user)).await;
        assert_eq!(outcome, Err(StoreError::NotFound), "{user}");
    }
}

async fn a_session_is_revoked_by_its_user_only(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    make(&store, "bob", Plain).await;
    store.open_session(&new_session("s1", "alice")).await.unwrap();
    let since = store.revision().await.unwrap();
    for (user, id, expected) in [
        ("bob", "s1", Err(StoreError::NotFound)),
        ("alice", "s2", Err(StoreError::NotFound)),
        ("alice", "s1", Ok(())),
        ("alice", "s1", Err(StoreError::NotFound)),
    ] {
        let outcome = store.revoke_session(user, id, NOW, &admin()).await;
        assert_eq!(outcome, expected, "{user} {id}");
    }
    let changes = store.changes(since).await.unwrap();
    let revoked: Vec<&str> = changes.revoked.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(revoked, ["s1"]);
    assert_eq!(store.sessions("alice", NOW).await, Ok(vec![]));
}

async fn revoking_a_user_closes_the_sessions_and_leaves_the_keys(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    make(&store, "bob", Plain).await;
    store.create_key(&new_key(1, "alice"), &admin()).await.unwrap();
    for (id, user) in [("s1", "alice"), ("s2", "alice"), ("s3", "bob")] {
        store.open_session(&new_session(id, user)).await.unwrap();
    }
    let revoked = store.revoke_user("alice", NOW + 1, &admin()).await.unwrap();
    assert_eq!(revoked, Revoked { keys: 0, sessions: 2, users: 1 });
    assert_eq!(store.user("alice").await.unwrap().unwrap().epoch, (NOW + 1) * 1000);
    assert_eq!(store.user("bob").await.unwrap().unwrap().epoch, NOW * 1000);
    assert!(store.keys(None).await.unwrap().iter().all(|key| key.revoked_at.is_none()));
}

async fn revoking_all_counts_what_it_revokes(store: Arc<dyn Store>) {
    make(&store, "root", Owner).await;
    store.declare(&[new_user("alice", Plain)], &[new_key(1, "alice")], NOW).await.unwrap();
    for number in [2, 3] {
        store.create_key(&new_key(number, "root"), &admin()).await.unwrap();
    }
    store.revoke_key(new_key(3, "").id, NOW, &admin()).await.unwrap();
    store.open_session(&new_session("s1", "root")).await.unwrap();
    let expired = Session { expires_at: NOW, ..new_session("s2", "alice") };
    store.open_session(&expired).await.unwrap();
    let since = store.revision().await.unwrap();
    let revoked = store.revoke_all("drill", NOW + 5, &admin()).await.unwrap();
    assert_eq!(revoked, Revoked { keys: 2, sessions: 1, users: 2 });
    let changes = store.changes(since).await.unwrap();
    assert_eq!((changes.users.len(), changes.keys.len()), (2, 2));
    assert!(changes.users.iter().all(|user| user.epoch == (NOW + 5) * 1000));
    assert!(changes.keys.iter().all(|key| key.revoked_at == Some(NOW + 5)));
    let again = store.revoke_all("drill", NOW + 5, &admin()).await.unwrap();
    assert_eq!(again, Revoked { keys: 0, sessions: 0, users: 2 });
}

async fn a_revocation_outlasts_what_it_revokes(store: Arc<dyn Store>) {
    for (expires_at, expected) in [(NOW + 60, NOW + 660), (NOW, NOW + 660), (NOW + 90, NOW + 690)] {
        store.revoke_token("t1", expires_at, &admin()).await.unwrap();
        let changes = store.changes(0).await.unwrap();
        assert_eq!(changes.revoked, [("t1".to_owned(), expected)]);
    }
    for (now, left) in [(NOW + 689, 1), (NOW + 690, 0)] {
        store.prune(now).await.unwrap();
        assert_eq!(store.changes(0).await.unwrap().revoked.len(), left);
    }
}

async fn changes_past_the_gateways_are_kept_for_the_record(store: Arc<dyn Store>) {
    act(&store, &admin()).await;
    assert_eq!(store.take_events().await, Ok(vec![]));
    act(&store, &operator()).await;
    let events = store.take_events().await.unwrap();
    assert!(events.iter().all(|event| event.actor == "operator" && event.at > 0));
    let told: Vec<String> =
        events.iter().map(|event| format!("{} {}", event.action, event.target)).collect();
    assert_eq!(
        told,
        [
            "user.create eve",
            "user.disable eve",
            "user.enable eve",
            "user.role eve",
            "user.password eve",
            "key.create 000000000001",
            "key.rotate 000000000001",
            "key.revoke 000000000001",
            "session.revoke s1",
            "token.revoke t1",
            "user.mfa_remove eve",
            "user.revoke eve",
            "emergency.revoke_all drill",
            "user.delete eve",
        ]
    );
    assert_eq!(store.take_events().await, Ok(vec![]), "each is given once");
}

/// Everything that an actor can do, once.
async fn act(store: &Arc<dyn Store>, by: &Actor) {
    let id = new_key(1, "").id;
    store.create_user(new_user("eve", Plain), NOW, by).await.unwrap();
    for change in [disabled(true), disabled(true), disabled(false), role(Admin), password("x")] {
        store.update_user("eve", change, NOW, by).await.unwrap();
    }
    store.create_key(&new_key(1, "eve"), by).await.unwrap();
    store.rotate_key(id, NOW, &new_key(2, "eve"), by).await.unwrap();
    for _ in 0..2 {
        store.revoke_key(id, NOW, by).await.unwrap();
    }
    store.open_session(&new_session("s1", "eve")).await.unwrap();
    store.revoke_session("eve", "s1", NOW, by).await.unwrap();
    store.revoke_token("t1", NOW, by).await.unwrap();
    store.begin_mfa("eve", &"JBSWY3DPEHPK3PXP".into(), &[], NOW, &admin()).await.unwrap();
    store.remove_mfa("eve", NOW, by).await.unwrap();
    store.revoke_user("eve", NOW, by).await.unwrap();
    store.revoke_all("drill", NOW, by).await.unwrap();
    store.delete_user("eve", NOW, by).await.unwrap();
}
