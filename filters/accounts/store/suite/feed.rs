//! The feed: a reader who follows it knows at every number what a full read would tell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Changes, Result, Store, ThrottleLimits, User};
use super::{
    NOW, admin, disabled, email, make, new_key, new_session, on_every_database, role, together,
};
use crate::accounts::AccountRole::{Admin, Owner, User as Plain};

on_every_database!(
    every_change_is_told_once,
    what_no_copy_needs_is_no_change,
    a_user_made_again_is_not_the_one_before,
    who_was_away_too_long_reads_everything,
    a_reader_among_writers_misses_nothing,
);

/// The copy of a reader.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Copy {
    revision: u64,
    users: BTreeMap<String, User>,
    keys: BTreeMap<String, (String, String)>,
    revoked: BTreeMap<String, u64>,
}

impl Copy {
    /// Takes changes in, as [`Changes`] is documented.
    fn apply(&mut self, changes: Changes) {
        if changes.full {
            *self = Self::default();
        }
        for user in changes.users {
            self.users.insert(user.name.clone(), user);
        }
        for name in changes.removed_users {
            self.users.remove(&name);
            self.keys.retain(|_, (user, _)| *user != name);
        }
        for key in changes.keys {
            self.keys.insert(key.id.to_string(), (key.user.clone(), format!("{key:?}")));
        }
        self.revoked.extend(changes.revoked);
        self.revision = changes.revision;
    }

    pub(super) async fn follow(&mut self, store: &Arc<dyn Store>) {
        self.apply(store.changes(self.revision).await.unwrap());
    }

    pub(super) async fn full(store: &Arc<dyn Store>) -> Self {
        let mut copy = Self::default();
        copy.follow(store).await;
        copy
    }
}

async fn every_change_is_told_once(store: Arc<dyn Store>) {
    assert_eq!(store.revision().await, Ok(0));
    let mut copy = Copy::default();
    make(&store, "root", Owner).await;
    make(&store, "alice", Plain).await;
    copy.follow(&store).await;
    for step in 0..7 {
        let before = store.revision().await.unwrap();
        change(&store, step).await.unwrap();
        assert_eq!(store.revision().await, Ok(before + 1), "step {step}");
        let changes = store.changes(before).await.unwrap();
        let told = changes.users.len()
            + changes.removed_users.len()
            + changes.keys.len()
            + changes.revoked.len();
        assert_eq!((told, changes.full), (1, false), "step {step}");
        copy.apply(changes);
        assert_eq!(copy, Copy::full(&store).await, "step {step}");
    }
}

async fn change(store: &Arc<dyn Store>, step: u32) -> Result<()> {
    let key = new_key(1, "alice");
    match step {
        0 => store.update_user("alice", role(Admin), NOW, &admin()).await.map(drop),
        1 => store.create_key(&key, &admin()).await,
        2 => store.revoke_key(key.id, NOW, &admin()).await.map(drop),
        3 => store.revoke_token("t1", NOW, &admin()).await,
        4 => store.rehash("alice", "hash of alice", "x").await,
        5 => store.revoke_user("alice", NOW, &admin()).await.map(drop),
        _ => store.delete_user("alice", NOW, &admin()).await.map(drop),
    }
}

async fn what_no_copy_needs_is_no_change(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    let before = store.revision().await.unwrap();
    let address = "192.0.2.1".parse().unwrap();
    let limits = ThrottleLimits { max_failures: 3, window: Duration::from_secs(9) };
    store.open_session(&new_session("s1", "alice")).await.unwrap();
    store.charge_login("alice", address, limits, NOW).await.unwrap().unwrap();
    store.forgive_login("alice", address).await.unwrap();
    store.use_once("nonce", NOW, NOW).await.unwrap();
    store
        .begin_mfa("alice", &"JBSWY3DPEHPK3PXP".into(), &["a".into()], NOW, &admin())
        .await
        .unwrap();
    store.prune(NOW + 1_000_000).await.unwrap();
    assert_eq!(store.revision().await, Ok(before));
    let changes = store.changes(before).await.unwrap();
    assert!(!changes.full && changes.users.is_empty() && changes.keys.is_empty());
}

async fn a_user_made_again_is_not_the_one_before(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    store.create_key(&new_key(1, "alice"), &admin()).await.unwrap();
    let mut copy = Copy::full(&store).await;
    store.delete_user("alice", NOW, &admin()).await.unwrap();
    make(&store, "alice", Plain).await;
    copy.follow(&store).await;
    assert!(copy.keys.is_empty(), "the key of another alice");
    assert_eq!(copy, Copy::full(&store).await);
    let since = copy.revision;
    store.update_user("alice", disabled(true), NOW, &admin()).await.unwrap();
    assert!(!store.changes(since).await.unwrap().full);
}

async fn who_was_away_too_long_reads_everything(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    make(&store, "bob", Plain).await;
    let before = store.revision().await.unwrap();
    store.delete_user("bob", NOW, &admin()).await.unwrap();
    let after = store.revision().await.unwrap();
    for (now, full) in [(NOW + 86_000, false), (NOW + 86_401, true), (NOW + 86_401, true)] {
        store.prune(now).await.unwrap();
        let changes = store.changes(before).await.unwrap();
        assert_eq!(changes.full, full, "{now}");
        assert_eq!(changes.removed_users.len(), usize::from(!full));
    }
    assert!(!store.changes(after).await.unwrap().full, "who has seen it needs nothing");
    assert!(store.changes(after + 1).await.unwrap().full, "an older copy of the store came back");
}

/// Four writers change users, keys and revocations at random; a reader looks all the time.
async fn a_reader_among_writers_misses_nothing(store: Arc<dyn Store>) {
    make(&store, "root", Owner).await;
    for n in 0..4 {
        make(&store, &format!("user{n}"), Plain).await;
    }
    let writers: Vec<_> = (0..4).map(|n| write(Arc::clone(&store), n)).collect();
    let writing = tokio::spawn(together(writers));
    let mut copy = Copy::default();
    while !writing.is_finished() {
        let before = copy.revision;
        copy.follow(&store).await;
        assert!(copy.revision >= before);
    }
    writing.await.unwrap();
    copy.follow(&store).await;
    assert_eq!(copy, Copy::full(&store).await);
    assert!(copy.revision > 200, "{}", copy.revision);
}

async fn write(store: Arc<dyn Store>, writer: u64) {
    let mut seed = writer + 1;
    for step in 0..60 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let name = format!("user{}", (seed >> 33) % 6);
        let id = writer * 1000 + step;
        // Others may have removed the user, or the key: either way is fine here.
        drop(match (seed >> 40) % 8 {
            0 => store.delete_user(&name, NOW, &admin()).await.map(drop),
            1 => store.update_user(&name, role(Admin), NOW, &admin()).await.map(drop),
            2 => store.update_user(&name, disabled(step % 2 == 0), NOW, &admin()).await.map(drop),
            3 => store.revoke_token(&format!("t{id}"), NOW, &admin()).await,
            4 => store
                .update_user(&name, email(Some("a@example.org")), NOW, &admin())
                .await
                .map(drop),
            5 => store
                .revoke_key(new_key(id.saturating_sub(1), "").id, NOW, &admin())
                .await
                .map(drop),
            6 => store.create_key(&new_key(id, &name), &admin()).await,
            _ => store.create_user(super::new_user(&name, Plain), NOW, &admin()).await.map(drop),
        });
        store.revoke_token(&format!("w{id}"), NOW, &admin()).await.unwrap();
    }
}
