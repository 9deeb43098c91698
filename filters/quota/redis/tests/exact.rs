//! Counted once, whatever happens on the way.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::quota::charge::Resource;
use crate::quota::demand::Ceiling;
use crate::quota::refusal::Meter;
use crate::quota::window::Window;

const SOON: Duration = Duration::from_secs(5);

async fn of_ann(counters: &RedisCounters) -> Consumption {
    assert!(counters.flush(SOON).await, "settlements hang");
    counters.consumption(user("ann")).await.unwrap()
}

/// 64 clients on two gateways press on one limit, until it is used up.
async fn press(gateways: &[RedisCounters; 2], limits: &Limits) -> (u64, Charge) {
    let (admitted, paid) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Charge::default())));
    let mut clients = JoinSet::new();
    for client in 0..64_u64 {
        let (counters, limits) = (gateways[client as usize % 2].clone(), limits.clone());
        let (admitted, paid) = (Arc::clone(&admitted), Arc::clone(&paid));
        clients.spawn(async move {
            for round in 0..40_u64 {
                let id = u128::from(client << 32 | round);
                let ask = demand(id, charge(1, 20, 30), &limits).at_least(1, 1);
                let Ok(reservation) = counters.reserve(ask).await else { continue };
                admitted.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                let held = reservation.reserved();
                let part = (client + round) % 4;
                let used = charge(1, held.completion - held.completion / 4 * part, held.gpu_ms);
                reservation.settle(used);
                let mut paid = paid.lock().unwrap();
                *paid = paid.plus(used);
            }
        });
    }
    clients.join_all().await;
    let paid = *paid.lock().unwrap();
    (admitted.load(Ordering::SeqCst), paid)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_never_pass_a_limit_together() {
    let Some(server) = Server::start(&[]) else { return };
    let cases = [
        per(Resource::Tokens, Window::Day, 5_003),
        per(Resource::GpuTime, Window::Day, 7_001),
        per(Resource::Requests, Window::Day, 501),
        per(Resource::CompletionTokens, Window::Day, 3_001),
        Limits { concurrent: Some(5), ..per(Resource::Tokens, Window::Day, 2_000) },
    ];
    for (number, limits) in cases.into_iter().enumerate() {
        let (prefix, options) = (format!("p{number}"), options(&server.url()));
        let options = RedisOptions { prefix, on_failure: STRICT, ..options };
        let gateways = [connected(&options).await, connected(&options).await];
        let watcher = connected(&options).await;
        let watched = limits.clone();
        let looked = Arc::new(AtomicU64::new(0));
        let looking = Arc::clone(&looked);
        let watch = tokio::spawn(async move {
            let mut looks = 0;
            loop {
                // On a busy machine an answer may come too late.
                let Ok(seen) = watcher.consumption(user("ann")).await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                assert_within(&watched, &seen);
                looks += 1;
                looking.store(looks, Ordering::Relaxed);
                if looks % 10 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
        let (admitted, paid) = press(&gateways, &limits).await;
        assert!(!watch.is_finished(), "{:?}", watch.await);
        watch.abort();
        assert!(admitted > 0 && looked.load(Ordering::Relaxed) > 0, "nothing was seen");
        gateways[0].flush(SOON).await;
        let found = of_ann(&gateways[1]).await;
        let day = found.windows.day;
        assert_eq!((u64::from(day.requests), day.used), (admitted, paid), "{limits:?}");
        assert_eq!((found.in_flight, day.reserved), (0, Charge::default()), "{limits:?}");
        let Ceiling { resource, limit, .. } = limits.ceilings[0];
        if limits.concurrent.is_none() && resource != Resource::CompletionTokens {
            let used = if resource == Resource::Requests { admitted } else { resource.of(paid) };
            assert!(used <= limit && limit - used < 2, "{used} of {limits:?} used");
        }
        assert!(gateways.iter().all(|gateway| gateway.lost_settlements() == 0));
    }
}

fn assert_within(limits: &Limits, seen: &Consumption) {
    for ceiling in &limits.ceilings {
        let spent = seen.windows.of(ceiling.window);
        assert!(spent.taken(ceiling.resource) <= ceiling.limit, "{spent:?} over {ceiling:?}");
    }
    assert!(limits.concurrent.is_none_or(|limit| seen.in_flight <= limit), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_twice_is_done_once() {
    let Some(server) = Server::start(&[]) else { return };
    let counters = connected(&options(&server.url())).await;
    let limits = per(Resource::Tokens, Window::Day, 1_000);
    let (store, ask) = (&counters.store, demand(7, charge(10, 90, 0), &limits));
    let held = store.held(7, ask.levels(), ask.estimate);
    let reserve = || store.calls.reserve(&held, &held.groups[0], ask.least);
    for _ in 0..3 {
        let answer = store.call(&reserve()).await.unwrap();
        assert_eq!((answer.status, answer.granted), (ADMITTED, charge(10, 90, 0)));
    }
    let seen = of_ann(&counters).await;
    assert_eq!((seen.in_flight, seen.windows.day.reserved), (1, charge(10, 90, 0)));
    for (how, used) in [
        (Ending::Pay, 40),
        (Ending::Pay, 40),
        (Ending::Undo, 40),
        (Ending::Add, 70),
        (Ending::Add, 70),
    ] {
        let call = store.calls.settle(
            7,
            &held.groups[0],
            how,
            charge(0, if used == 40 { 40 } else { 30 }, 0),
        );
        store.call(&call).await.unwrap();
        let seen = of_ann(&counters).await;
        assert_eq!(seen.windows.day.used.completion, used, "{how:?}");
        assert_eq!((seen.in_flight, seen.windows.day.reserved), (0, Charge::default()));
    }
    let late = store.call(&reserve()).await.unwrap();
    assert_eq!(late.status, -1, "its question comes after its end");
    assert_eq!(of_ann(&counters).await.in_flight, 0);
    let refusal = counters.reserve(ask).await.unwrap_err();
    assert_eq!(refusal.meter(), Meter::Store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gateway_held_that_died_is_back_after_the_lease() {
    let Some(server) = Server::start(&[]) else { return };
    let (lease, options) = (Duration::from_secs(4), options(&server.url()));
    let options = RedisOptions { lease, on_failure: STRICT, ..options };
    let survivor = connected(&options).await;
    let limits = per(Resource::Tokens, Window::Day, 100_000);
    let gateway = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let held = runtime.block_on(async {
            let counters = connected(&options).await;
            let mut held = Vec::new();
            for id in 0.. {
                match counters.reserve(demand(id, charge(1, 50, 0), &limits)).await {
                    Ok(reservation) => held.push(reservation),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
                if held.len() == 1_000 {
                    break;
                }
            }
            assert!(counters.flush(SOON).await);
            held
        });
        runtime.shutdown_background();
        drop(held);
    });
    gateway.join().unwrap();
    assert_eq!(of_ann(&survivor).await.in_flight, 1_000);
    let limit = lease + Duration::from_millis(500);
    until("giving back", limit, async || of_ann(&survivor).await.in_flight == 0).await;
    let day = of_ann(&survivor).await.windows.day;
    assert_eq!((day.requests, day.used, day.reserved), (1_000, charge(0, 0, 0), charge(0, 0, 0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_of_what_runs_is_renewed() {
    let Some(server) = Server::start(&[]) else { return };
    let options = RedisOptions { lease: Duration::from_secs(1), ..options(&server.url()) };
    let counters = connected(&options).await;
    let limits = Limits { concurrent: Some(1), ..Limits::default() };
    let address = |id| {
        let subject = Subject::new(Level::Address, "::1");
        Demand::new(id, charge(0, 9, 0)).level(Level::Address, subject, Arc::new(limits.clone()))
    };
    let running = counters.reserve(address(1)).await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(counters.reserve(address(2)).await.is_err(), "the slot is taken");
    }
    running.settle(charge(0, 9, 0));
    assert!(counters.flush(SOON).await);
    assert!(counters.reserve(address(3)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_settles_after_the_lease_pays_in_full() {
    let Some(server) = Server::start(&[]) else { return };
    let options = RedisOptions { lease: Duration::from_secs(1), ..options(&server.url()) };
    let counters = connected(&options).await;
    let limits = per(Resource::Tokens, Window::Day, 1_000);
    let (store, ask) = (&counters.store, demand(7, charge(10, 90, 5), &limits));
    let held = store.held(7, ask.levels(), ask.estimate);
    store.call(&store.calls.reserve(&held, &held.groups[0], ask.least)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    assert_eq!(of_ann(&counters).await.in_flight, 0, "nobody renews it");
    for _ in 0..2 {
        let call = store.calls.settle(7, &held.groups[0], Ending::Pay, charge(10, 70, 4));
        store.call(&call).await.unwrap();
    }
    let day = of_ann(&counters).await.windows.day;
    assert_eq!((day.requests, day.used, day.reserved), (1, charge(10, 70, 4), charge(0, 0, 0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_away_while_asking_holds_nothing() {
    let Some(server) = Server::start(&[]) else { return };
    let proxy = Proxy::to(server.port).await;
    let counters = connected(&options(&proxy.url)).await;
    let limits = Limits { concurrent: Some(9), ..per(Resource::Tokens, Window::Day, 1_000) };
    proxy.delay(Duration::from_millis(60));
    for id in 0..5 {
        let ask = counters.reserve(demand(id, charge(1, 1, 1), &limits));
        assert!(timeout(Duration::from_millis(20), ask).await.is_err(), "it waits");
    }
    proxy.delay(Duration::ZERO);
    let seen = of_ann(&counters).await;
    assert_eq!((seen.in_flight, seen.windows.day), (0, Default::default()));
    assert_eq!(counters.open_reservations(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_without_an_answer_is_not_paid_twice() {
    let Some(server) = Server::start(&[]) else { return };
    let proxy = Proxy::to(server.port).await;
    let counters = connected(&options(&proxy.url)).await;
    let limits = per(Resource::Tokens, Window::Day, 1_000);
    let running = counters.reserve(demand(1, charge(1, 50, 0), &limits)).await.unwrap();
    proxy.swallow_answers(true);
    running.settle(charge(1, 40, 0));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(counters.pending_settlements(), 1);
    proxy.swallow_answers(false);
    let day = of_ann(&counters).await.windows.day;
    assert_eq!((day.requests, day.used), (1, charge(1, 40, 0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_of_the_data_gives_nobody_a_fresh_quota() {
    let Some(server) = Server::start(&[]) else { return };
    let options = RedisOptions { lease: Duration::from_secs(2), ..options(&server.url()) };
    let counters = connected(&options).await;
    let limits = Limits { concurrent: Some(2), ..per(Resource::Tokens, Window::Month, 100) };
    let ask = |id, tokens| demand(id, charge(0, tokens, 0), &limits);
    counters.reserve(ask(1, 60)).await.unwrap().settle(charge(0, 60, 0));
    let running = counters.reserve(ask(2, 10)).await.unwrap();
    assert!(counters.flush(SOON).await);

    server.run("FLUSHALL");
    let refusal = counters.reserve(ask(3, 41)).await.unwrap_err();
    assert_eq!(refusal.meter(), Meter::Window(Resource::Tokens, Window::Month));
    assert!(!counters.is_degraded());
    until("taking up again", SOON, async || of_ann(&counters).await.in_flight == 1).await;
    assert_eq!(of_ann(&counters).await.windows.month.reserved, charge(0, 10, 0));
    running.settle(charge(0, 9, 0));
    let month = of_ann(&counters).await.windows.month;
    assert_eq!((month.used, month.reserved), (charge(0, 69, 0), charge(0, 0, 0)));

    server.run("FLUSHALL");
    counters.reset(user("ann"), 1).await.unwrap();
    let other = connected(&options).await;
    for counters in [&counters, &other] {
        assert!(of_ann(counters).await.windows.month.used.is_nothing(), "a reset is not undone");
    }
    assert!(counters.reserve(ask(4, 100)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_were_flushed_are_loaded_again() {
    let Some(server) = Server::start(&[]) else { return };
    let counters = connected(&options(&server.url())).await;
    let limits = per(Resource::Requests, Window::Day, 10);
    for id in 0..4 {
        server.run("SCRIPT FLUSH");
        let running = counters.reserve(demand(id, charge(0, 1, 0), &limits)).await.unwrap();
        assert!(running.view().requests.is_some(), "Redis has answered");
        server.run("SCRIPT FLUSH");
        running.settle(charge(0, 1, 0));
        assert_eq!(of_ann(&counters).await.windows.day.used, charge(0, id as u64 + 1, 0));
    }
    assert!(!counters.is_degraded());
}
