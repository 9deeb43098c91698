//! What happens while Redis does not answer, and how soon it is over.

use std::time::Instant;

use super::*;
use crate::quota::charge::Resource;
use crate::quota::refusal::Meter;
use crate::quota::window::Window;

/// One way in which Redis fails, and how that ends.
struct Outage<'a> {
    name: &'a str,
    strike: &'a dyn Fn(),
    heal: &'a dyn Fn(),
}

const LONGEST_WAIT: Duration = Duration::from_millis(200);
const RECOVERY: Duration = Duration::from_secs(2);

/// Reserves, and shows that nobody waits too long for that.
async fn reserve(counters: &RedisCounters, demand: Demand) -> Result<Reservation, Refusal> {
    let start = Instant::now();
    let decision = counters.reserve(demand).await;
    assert!(start.elapsed() < LONGEST_WAIT, "{:?}", start.elapsed());
    decision
}

/// Through an outage: requests pass by the policy, wait for nothing, and are paid afterwards.
async fn endure(counters: &RedisCounters, first_id: u128, outage: &Outage<'_>) {
    let name = outage.name;
    let limits = Limits { concurrent: Some(50), ..per(Resource::Tokens, Window::Day, 1_000_000) };
    let ask = |id| demand(first_id + id, charge(1, 9, 2), &limits);
    let before = counters.consumption(user("ann")).await.unwrap().windows.day;
    let running = reserve(counters, ask(0)).await.unwrap();
    (outage.strike)();
    let start = Instant::now();
    let mut admitted = 0;
    while !counters.is_degraded() || start.elapsed() < Duration::from_millis(300) {
        assert!(start.elapsed() < SOON, "{name}: not seen");
        let reservation = reserve(counters, ask(1 + admitted)).await;
        let reservation = reservation.unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        if counters.is_degraded() {
            assert_eq!(reservation.view(), QuotaView::default(), "{name}: headers are suppressed");
        }
        reservation.settle(charge(1, 4, 1));
        admitted += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let extension = running.extension();
    assert_eq!(extension.grow(charge(0, 5, 0)).await, charge(0, 5, 0), "{name}: by the policy");
    assert!(counters.consumption(user("ann")).await.is_err(), "{name}");
    running.settle(charge(1, 14, 2));
    (outage.heal)();
    until(name, RECOVERY, async || !counters.is_degraded()).await;
    assert!(counters.flush(SOON).await, "{name}: settlements hang");
    let after = counters.consumption(user("ann")).await.unwrap();
    let n = admitted as u64;
    let expected = before.used.plus(charge(n + 1, 4 * n + 14, n + 2));
    assert_eq!(after.windows.day.used, expected, "{name}: all is paid");
    assert_eq!(u128::from(after.windows.day.requests - before.requests), admitted + 1, "{name}");
    assert_eq!((after.in_flight, after.windows.day.reserved), (0, Charge::default()), "{name}");
    assert_eq!((counters.open_reservations(), counters.lost_settlements()), (0, 0), "{name}");
    let again = reserve(counters, ask(999_999)).await.unwrap();
    assert!(again.view().tokens.is_some(), "{name}: Redis answers again");
    drop(again);
    assert!(counters.flush(SOON).await);
}

const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_pass_through_every_outage_and_are_paid_afterwards() {
    let Some(server) = Server::start(&["--enable-debug-command", "local"]) else { return };
    let counters = connected(&options(&server.url())).await;
    let outages = [
        Outage {
            name: "stopped process",
            strike: &|| server.freeze(true),
            heal: &|| server.freeze(false),
        },
        Outage {
            name: "paused clients",
            strike: &|| drop(server.run("CLIENT PAUSE 60000 WRITE")),
            heal: &|| drop(server.run("CLIENT UNPAUSE")),
        },
        Outage {
            name: "read-only replica",
            strike: &|| drop(server.run("REPLICAOF 127.0.0.1 1")),
            heal: &|| drop(server.run("REPLICAOF NO ONE")),
        },
        Outage {
            name: "out of memory",
            strike: &|| drop(server.run("CONFIG SET maxmemory 1")),
            heal: &|| drop(server.run("CONFIG SET maxmemory 0")),
        },
        Outage {
            name: "busy server",
            strike: &|| sleep_in_background(server.url()),
            heal: &|| std::thread::sleep(Duration::from_millis(800)),
        },
    ];
    for (number, outage) in outages.iter().enumerate() {
        endure(&counters, (number as u128) << 32, outage).await;
    }
}

/// The server does nothing else for a second.
fn sleep_in_background(url: String) {
    std::thread::spawn(move || {
        let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        redis::cmd("DEBUG").arg("SLEEP").arg(1).exec(&mut connection).unwrap();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_gets_back_what_the_gateway_remembers() {
    let Some(server) = Server::start(&[]) else { return };
    let counters = connected(&options(&server.url())).await;
    let server = std::cell::RefCell::new(server);
    let limits = per(Resource::Tokens, Window::Day, 1_000_000);
    reserve(&counters, demand(1, charge(0, 9, 0), &limits)).await.unwrap().settle(charge(0, 7, 0));
    assert!(counters.flush(SOON).await);
    let outage = Outage {
        name: "killed server",
        strike: &|| server.borrow_mut().kill(),
        heal: &|| server.borrow_mut().restart(&[]),
    };
    endure(&counters, 1 << 32, &outage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_still_loads_its_data_is_left_alone() {
    let Some(server) = Server::start(&["--key-load-delay", "0"]) else { return };
    let counters = connected(&options(&server.url())).await;
    for key in 0..300 {
        server.run(&format!("SET k{key} v"));
    }
    let server = std::cell::RefCell::new(server);
    let limits = per(Resource::Tokens, Window::Day, 1_000_000);
    reserve(&counters, demand(1, charge(0, 9, 0), &limits)).await.unwrap().settle(charge(0, 7, 0));
    assert!(counters.flush(SOON).await);
    let slowly = ["--key-load-delay", "4000", "--loading-process-events-interval-bytes", "1024"];
    let outage = Outage {
        name: "loading server",
        strike: &|| {
            server.borrow().run("SAVE");
            server.borrow_mut().kill();
            server.borrow_mut().restart(&slowly);
        },
        heal: &|| std::thread::sleep(Duration::from_millis(1_500)),
    };
    endure(&counters, 1 << 32, &outage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_network_is_endured() {
    let Some(server) = Server::start(&[]) else { return };
    let proxy = Proxy::to(server.port).await;
    let counters = connected(&options(&proxy.url)).await;
    let outages = [
        Outage {
            name: "slow network",
            strike: &|| proxy.delay(Duration::from_millis(300)),
            heal: &|| proxy.delay(Duration::ZERO),
        },
        Outage {
            name: "answers that do not come",
            strike: &|| proxy.swallow_answers(true),
            heal: &|| proxy.swallow_answers(false),
        },
    ];
    for (number, outage) in outages.iter().enumerate() {
        endure(&counters, (number as u128) << 32, outage).await;
    }
    let limits = per(Resource::Tokens, Window::Day, 1_000_000);
    for id in 0..20 {
        proxy.cut();
        let reservation = reserve(&counters, demand(id, charge(0, 1, 0), &limits)).await.unwrap();
        reservation.settle(charge(0, 1, 0));
        until("reconnecting", RECOVERY, async || !counters.is_degraded()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_meter_goes_by_its_policy() {
    use Policy::{Allow, Deny, Local};
    let day = |resource| per(resource, Window::Day, 40);
    let slots = Limits { concurrent: Some(40), ..Limits::default() };
    let paced = Limits { pace: crate::quota::Rate::new(40, 40), ..Limits::default() };
    let all =
        |policy| OnFailure { requests: policy, concurrent: policy, tokens: policy, gpu: policy };
    let (tokens, gpu) = (day(Resource::PromptTokens), day(Resource::GpuTime));
    let requests = day(Resource::Requests);
    // policies, limits, how many of 100 requests (of 1 token and 1 ms) run, out of 4 gateways
    let cases = [
        (all(Deny), &tokens, 0),
        (all(Local), &tokens, 10),
        (all(Allow), &tokens, 100),
        (OnFailure { tokens: Deny, ..all(Allow) }, &tokens, 0),
        (OnFailure { tokens: Deny, ..all(Allow) }, &gpu, 100),
        (OnFailure { gpu: Local, ..all(Deny) }, &gpu, 10),
        (OnFailure { requests: Local, ..all(Deny) }, &requests, 10),
        (OnFailure { requests: Local, ..all(Allow) }, &paced, 10),
        (OnFailure { requests: Deny, ..all(Allow) }, &paced, 0),
        (OnFailure { concurrent: Local, ..all(Allow) }, &slots, 10),
        (OnFailure { concurrent: Deny, ..all(Allow) }, &slots, 0),
        (OnFailure { concurrent: Allow, ..all(Deny) }, &slots, 100),
    ];
    for (on_failure, limits, runs) in cases {
        let options = RedisOptions { on_failure, gateways: 4, ..options("redis://127.0.0.1:1/") };
        let counters = RedisCounters::start(&options, Clock::system(), &Handle::current()).unwrap();
        let mut running = Vec::new();
        for id in 0..100 {
            match reserve(&counters, demand(id, charge(1, 0, 1), limits)).await {
                Ok(reservation) => running.push(reservation),
                Err(refusal) if runs == 0 => assert_eq!(refusal.meter(), Meter::Store),
                Err(refusal) => {
                    assert_ne!(refusal.meter(), Meter::Store);
                    assert_eq!(refusal.view(), QuotaView::default());
                }
            }
        }
        assert_eq!(running.len(), runs, "{on_failure:?} {limits:?}");
        assert_eq!(counters.open_reservations(), runs);
        drop(running);
        assert_eq!(counters.open_reservations(), 0);
        assert_eq!(counters.pending_settlements(), runs, "kept until Redis is there");
        assert!(counters.is_degraded());
        assert_eq!(counters.flush(Duration::from_millis(1)).await, runs == 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_come_later_than_the_gateway() {
    let port = server::free_port();
    let options = options(&format!("redis://127.0.0.1:{port}/"));
    let counters = RedisCounters::start(&options, Clock::system(), &Handle::current()).unwrap();
    let limits = per(Resource::Tokens, Window::Day, 100);
    let early = reserve(&counters, demand(1, charge(0, 9, 0), &limits)).await.unwrap();
    early.settle(charge(0, 8, 0));
    let Some(_server) = Server::start_in(tempfile::tempdir().unwrap(), port, &[]) else { return };
    assert!(counters.ready(RECOVERY).await && counters.flush(SOON).await);
    let day = counters.consumption(user("ann")).await.unwrap().windows.day;
    assert_eq!((day.requests, day.used), (1, charge(0, 8, 0)));
}
