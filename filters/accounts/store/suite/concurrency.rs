//! Many at once: what may happen once happens once.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Store, StoreError, ThrottleLimits, Touches};
use super::{
    Database, NOW, admin, disabled, make, new_key, new_user, on_every_database, role, together,
};
use crate::accounts::AccountRole::{Admin, Owner, User as Plain};

on_every_database!(
    parallel_charges_never_overshoot,
    a_time_step_has_one_user,
    a_backup_code_has_one_user,
    a_single_use_id_has_one_user,
    an_event_has_one_taker,
    one_owner_is_left,
    a_name_has_one_maker,
    uses_and_revocations_do_not_wait_for_each_other,
);

const MANY: u64 = 16;

fn many<T>(store: &Arc<dyn Store>, task: impl Fn(Arc<dyn Store>, u64) -> T) -> Vec<T> {
    (0..MANY).map(|n| task(Arc::clone(store), n)).collect()
}

async fn parallel_charges_never_overshoot(store: Arc<dyn Store>) {
    let limits = ThrottleLimits { max_failures: 5, window: Duration::from_secs(900) };
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let charged = together(many(&store, |store, _| async move {
        store.charge_login("alice", address, limits, NOW).await.unwrap().is_ok()
    }));
    assert_eq!(charged.await.into_iter().filter(|charged| *charged).count(), 5);
    let limits = ThrottleLimits { max_failures: 1, ..limits };
    let address: IpAddr = "192.0.2.2".parse().unwrap();
    let charged = together(many(&store, |store, n| async move {
        store.charge_login(&format!("user{n}"), address, limits, NOW).await.unwrap().is_ok()
    }));
    assert_eq!(charged.await.into_iter().filter(|charged| *charged).count(), 10);
}

async fn a_time_step_has_one_user(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    store.begin_mfa("alice", &"JBSWY3DPEHPK3PXP".into(), &[], NOW, &admin()).await.unwrap();
    for step in [7, 8] {
        let used = together(many(&store, |store, _| async move {
            store.use_totp("alice", step, NOW).await.unwrap()
        }));
        assert_eq!(used.await.into_iter().filter(|used| *used).count(), 1, "{step}");
    }
}

async fn a_backup_code_has_one_user(store: Arc<dyn Store>) {
    make(&store, "alice", Plain).await;
    store
        .begin_mfa("alice", &"JBSWY3DPEHPK3PXP".into(), &["a".into()], NOW, &admin())
        .await
        .unwrap();
    store.use_totp("alice", 1, NOW).await.unwrap();
    let used = together(many(&store, |store, _| async move {
        store.use_backup_code("alice", "a").await.unwrap()
    }));
    assert_eq!(used.await.into_iter().filter(|used| *used).count(), 1);
}

async fn a_single_use_id_has_one_user(store: Arc<dyn Store>) {
    let used = together(many(&store, |store, _| async move {
        store.use_once("nonce", NOW, NOW + 60).await.unwrap()
    }));
    assert_eq!(used.await.into_iter().filter(|used| *used).count(), 1);
}

async fn an_event_has_one_taker(store: Arc<dyn Store>) {
    for n in 0..20 {
        store.revoke_token(&format!("t{n}"), NOW, &super::operator()).await.unwrap();
    }
    let taken =
        together(many(&store, |store, _| async move { store.take_events().await.unwrap() }));
    let mut targets: Vec<String> =
        taken.await.into_iter().flatten().map(|event| event.target).collect();
    targets.sort_unstable();
    targets.dedup();
    assert_eq!(targets.len(), 20);
}

async fn one_owner_is_left(store: Arc<dyn Store>) {
    for round in 0..4 {
        let names = [format!("one{round}"), format!("two{round}")];
        for name in &names {
            make(&store, name, Owner).await;
        }
        if round > 0 {
            store.update_user("last", role(Plain), NOW, &admin()).await.unwrap();
            store.delete_user("last", NOW, &admin()).await.unwrap();
        }
        let leaving = together(names.clone().map(|name| {
            let store = Arc::clone(&store);
            async move {
                match round {
                    0 => store.update_user(&name, role(Admin), NOW, &admin()).await.map(drop),
                    1 => store.update_user(&name, disabled(true), NOW, &admin()).await.map(drop),
                    _ => store.delete_user(&name, NOW, &admin()).await.map(drop),
                }
            }
        }))
        .await;
        let refused = leaving.iter().filter(|left| **left == Err(StoreError::LastOwner)).count();
        assert_eq!(refused, 1, "{round}: {leaving:?}");
        make(&store, "last", Owner).await;
        for name in names {
            drop(store.delete_user(&name, NOW, &admin()).await);
        }
    }
}

async fn a_name_has_one_maker(store: Arc<dyn Store>) {
    let made = together(many(&store, |store, _| async move {
        store.create_user(new_user("alice", Plain), NOW, &admin()).await.is_ok()
    }));
    assert_eq!(made.await.into_iter().filter(|made| *made).count(), 1);
    let made = together(many(&store, |store, _| async move {
        store.create_key(&new_key(1, "alice"), &admin()).await.is_ok()
    }));
    assert_eq!(made.await.into_iter().filter(|made| *made).count(), 1);
}

/// On Postgres two that take the same rows in another order would stop each other dead.
async fn uses_and_revocations_do_not_wait_for_each_other(store: Arc<dyn Store>) {
    make(&store, "root", Owner).await;
    for number in 0..50 {
        store.create_key(&new_key(number, "root"), &admin()).await.unwrap();
    }
    let done = together(many(&store, |store, n| async move {
        let mut keys: Vec<_> = (0..50).map(|number| (new_key(number, "").id, NOW + n)).collect();
        match n % 4 {
            0 => store.revoke_all("drill", NOW + n, &admin()).await.map(drop),
            1 => store.prune(NOW + n).await,
            _ => {
                keys.rotate_left(usize::try_from(n).unwrap());
                store.touch(&Touches { keys, sessions: vec![] }).await
            }
        }
    }));
    assert!(done.await.into_iter().all(|done| done.is_ok()));
}

/// Several gateways and the command line open a new store at the same time.
fn open_at_once(database: &Database) {
    let opening: Vec<_> = (0..6)
        .map(|_| {
            let options = database.options();
            std::thread::spawn(move || super::SqlStore::open(options).map(drop))
        })
        .collect();
    for thread in opening {
        assert_eq!(thread.join().unwrap(), Ok(()));
    }
}

#[test]
fn a_new_file_is_opened_by_many_at_once() {
    for _ in 0..5 {
        open_at_once(&Database::file());
    }
}

#[test]
fn a_new_server_is_opened_by_many_at_once() {
    if let Some(database) = Database::postgres() {
        open_at_once(&database);
    }
}

/// Two stores on one database, as two processes have them.
fn two_stores_are_one(database: &Database) {
    let stores: [Arc<dyn Store>; 2] = [database.open(), database.open()];
    super::block_on(async {
        make(&stores[0], "alice", Plain).await;
        let since = stores[1].revision().await.unwrap();
        assert!(stores[1].user("alice").await.unwrap().is_some());
        let used = together((0..MANY).map(|n| {
            let store = Arc::clone(&stores[usize::from(n % 2 == 0)]);
            async move { store.use_once("nonce", NOW, NOW).await.unwrap() }
        }));
        assert_eq!(used.await.into_iter().filter(|used| *used).count(), 1);
        stores[0].revoke_user("alice", NOW, &admin()).await.unwrap();
        assert_eq!(stores[1].changes(since).await.unwrap().users.len(), 1);
    });
}

#[test]
fn two_stores_on_one_file_are_one() {
    two_stores_are_one(&Database::file());
}

#[test]
fn two_stores_on_one_server_are_one() {
    if let Some(database) = Database::postgres() {
        two_stores_are_one(&database);
    }
}
