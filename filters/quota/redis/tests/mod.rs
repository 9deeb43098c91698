//! The store against real servers.

mod agree;
mod exact;
mod measure;
mod outages;
mod proxy;
mod server;
mod suite;
mod topologies;

use super::*;
use crate::quota::demand::{Level, Limits};
use proxy::Proxy;
use server::Server;
use suite::{Stage, at_the_hour, charge, per};

/// A store of which Redis is not there, and no task runs.
pub(super) fn unreachable() -> Arc<Store> {
    let options = RedisOptions::new(Topology::Single("redis://127.0.0.1:1/".to_owned()));
    Arc::new(Store::new(&options, Clock::system(), None).unwrap())
}

/// So that a slow machine does not let anybody pass.
const STRICT: OnFailure = OnFailure {
    requests: Policy::Deny,
    concurrent: Policy::Deny,
    tokens: Policy::Deny,
    gpu: Policy::Deny,
};

fn options(url: &str) -> RedisOptions {
    // Servers, tests and compilers share the machine here.
    let timeout = Duration::from_millis(150);
    RedisOptions { timeout, ..RedisOptions::new(Topology::Single(url.to_owned())) }
}

/// Counters that are connected, on the clock of the server.
async fn connected(options: &RedisOptions) -> RedisCounters {
    connected_with(options, None).await
}

async fn connected_with(options: &RedisOptions, time: Option<Clock>) -> RedisCounters {
    let clock = time.clone().unwrap_or_default();
    let runtime = Handle::current();
    let counters = RedisCounters::start_with(options, clock, &runtime, time).unwrap();
    assert!(counters.ready(Duration::from_secs(10)).await, "no connection");
    counters
}

fn user(id: &str) -> Subject {
    Subject::new(Level::User, id)
}

fn demand(request_id: u128, estimate: Charge, limits: &Limits) -> Demand {
    Demand::new(request_id, estimate).level(Level::User, user("ann"), Arc::new(limits.clone()))
}

/// Waits until something is so; it must be within this time.
async fn until(what: &str, within: Duration, mut so: impl AsyncFnMut() -> bool) -> Duration {
    let start = std::time::Instant::now();
    while !so().await {
        assert!(start.elapsed() < within, "{what} takes longer than {within:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

#[tokio::test]
async fn the_store_in_memory_does_what_every_store_does() {
    suite::run(&Stage::memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_redis_does_what_every_store_does() {
    let Some(server) = Server::start(&[]) else { return };
    let clock = at_the_hour();
    // The clock jumps in this test, and leases have tests of their own.
    let options = RedisOptions { lease: Duration::from_secs(86_400), ..options(&server.url()) };
    let counters = connected_with(&options, Some(clock.clone())).await;
    suite::run(&Stage::redis(counters, clock)).await;
}
