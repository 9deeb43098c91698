//! The throttle as it is stored, and ids that are used once. Its arithmetic is tested in `tally`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Store, ThrottleLimits};
use super::{NOW, on_every_database};

const LIMITS: ThrottleLimits = ThrottleLimits { max_failures: 3, window: Duration::from_secs(900) };

on_every_database!(
    too_many_failures_make_a_wait,
    a_stranger_locks_nobody_out,
    a_success_forgets_and_a_refund_takes_back,
    what_is_over_is_forgotten,
    an_id_is_used_once,
);

async fn fail(store: &Arc<dyn Store>, name: &str, from: &str, now: u64) -> Result<(), u64> {
    let from: IpAddr = from.parse().unwrap();
    let outcome = store.charge_login(name, from, LIMITS, now).await.unwrap();
    outcome.map_err(|wait| wait.as_secs())
}

async fn too_many_failures_make_a_wait(store: Arc<dyn Store>) {
    for (at, expected) in
        [(0, Ok(())), (1, Ok(())), (5, Ok(())), (5, Err(900)), (904, Err(1)), (905, Ok(()))]
    {
        assert_eq!(fail(&store, "alice", "192.0.2.1", NOW + at).await, expected, "{at}");
    }
}

async fn a_stranger_locks_nobody_out(store: Arc<dyn Store>) {
    for _ in 0..3 {
        fail(&store, "alice", "192.0.2.1", NOW).await.unwrap();
    }
    for (name, from, free) in [
        ("alice", "192.0.2.1", false),
        ("alice", "::ffff:192.0.2.1", false),
        ("alice", "192.0.2.2", true),
        ("alice", "2001:db8::1", true),
        ("bob", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.1", true),
    ] {
        assert_eq!(fail(&store, name, from, NOW).await.is_ok(), free, "{name} {from}");
    }
    for n in 0..25 {
        fail(&store, &format!("user{n}"), "192.0.2.1", NOW).await.unwrap();
    }
    assert_eq!(fail(&store, "fresh", "192.0.2.1", NOW).await, Err(900), "tenfold from one network");
    assert_eq!(fail(&store, "fresh", "192.0.2.3", NOW).await, Ok(()));
}

async fn a_success_forgets_and_a_refund_takes_back(store: Arc<dyn Store>) {
    let from: IpAddr = "192.0.2.1".parse().unwrap();
    for _ in 0..40 {
        fail(&store, "alice", "192.0.2.1", NOW).await.unwrap();
        store.forgive_login("alice", from).await.unwrap();
        fail(&store, "bob", "192.0.2.1", NOW).await.unwrap();
        store.refund_login("bob", from).await.unwrap();
    }
    for _ in 0..3 {
        fail(&store, "bob", "192.0.2.1", NOW).await.unwrap();
    }
    store.refund_login("bob", from).await.unwrap();
    assert_eq!(fail(&store, "bob", "192.0.2.1", NOW).await, Ok(()));
    assert_eq!(fail(&store, "bob", "192.0.2.1", NOW).await, Err(900));
    store.refund_login("nobody", "192.0.2.9".parse().unwrap()).await.unwrap();
    store.forgive_login("nobody", "192.0.2.9".parse().unwrap()).await.unwrap();
}

async fn what_is_over_is_forgotten(store: Arc<dyn Store>) {
    for _ in 0..3 {
        fail(&store, "alice", "192.0.2.1", NOW).await.unwrap();
    }
    store.prune(NOW + 900).await.unwrap();
    fail(&store, "alice", "192.0.2.1", NOW + 900).await.unwrap();
    for _ in 0..2 {
        fail(&store, "alice", "192.0.2.1", NOW + 900).await.unwrap();
    }
    assert_eq!(fail(&store, "alice", "192.0.2.1", NOW + 900).await, Err(1800), "a relapse");
    let long_after = NOW + 900 + 1800 + 8 * 900;
    store.prune(long_after).await.unwrap();
    for _ in 0..3 {
        fail(&store, "alice", "192.0.2.1", long_after).await.unwrap();
    }
    assert_eq!(fail(&store, "alice", "192.0.2.1", long_after).await, Err(900));
}

async fn an_id_is_used_once(store: Arc<dyn Store>) {
    for (id, expected) in [("a", true), ("a", false), ("b", true), ("a", false)] {
        assert_eq!(store.use_once(id, NOW, NOW + 60).await, Ok(expected), "{id}");
    }
    store.prune(NOW + 59).await.unwrap();
    assert_eq!(store.use_once("a", NOW, NOW + 60).await, Ok(false));
    store.prune(NOW + 60).await.unwrap();
    assert_eq!(store.use_once("a", NOW, NOW + 60).await, Ok(true));
}
