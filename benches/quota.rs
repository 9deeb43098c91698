//! What the meters in memory cost with a million subjects: `cargo bench --bench quota`.
//!
//! Half of the subjects are users, half are keys; every request counts on one of each, which are
//! picked at random, so that hardly any account is in a cache of the processor. The goal is 2 µs
//! for reserve and settle together, and 400 MiB for all accounts.

use std::error::Error;
use std::future::Future;
use std::hint::black_box;
use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use portcullis_filters::clock::Clock;
use portcullis_filters::quota::{
    Ceiling, Charge, Counters, Demand, Level, Limits, MemoryCounters, Rate, Resource, Subject,
    Window,
};

mod measure;
use measure::measure;

/// As in the binary, for the figure on memory depends on it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REQUESTS: usize = 500_000;
const ESTIMATE: Charge = Charge { prompt: 200, completion: 500, gpu_ms: 3_000 };
const COST: Charge = Charge { prompt: 190, completion: 320, gpu_ms: 1_900 };

fn main() -> Result<(), Box<dyn Error>> {
    let (users, keys) = (subjects(Level::User), subjects(Level::Key));
    let limits = Arc::new(limits());
    let demand = |user: &Subject, key: &Subject| {
        Demand::new(1, ESTIMATE)
            .at_least(16, 100)
            .level(Level::User, *user, Arc::clone(&limits))
            .level(Level::Key, *key, Arc::clone(&limits))
    };
    let before = resident_kib()?;
    let counters = MemoryCounters::with_capacity(Clock::system(), 3 * REQUESTS);
    for (user, key) in users.iter().zip(&keys) {
        pay(&counters, demand(user, key))?;
    }
    let mib = resident_kib()?.saturating_sub(before) / 1024;
    writeln!(std::io::stdout(), "quota: {} subjects {mib:17} MiB", 2 * REQUESTS)?;

    let mut order = 1_u64;
    let mut any = |subjects: &[Subject]| {
        // xorshift64 (G. Marsaglia 2003)
        order ^= order << 13;
        order ^= order >> 7;
        order ^= order << 17;
        subjects.get(order as usize % subjects.len()).copied()
    };
    let mut pair = || any(&users).zip(any(&keys));
    measure("quota: two random subjects", || {
        black_box(pair());
    })?;
    let mut failed = 0_u64;
    measure("quota: reserve and settle", || {
        let paid = pair().map(|(user, key)| pay(&counters, demand(&user, &key)));
        failed += u64::from(!matches!(paid, Some(Ok(()))));
    })?;
    assert_eq!(failed, 0, "nobody is refused");
    let (user, key) = users.iter().zip(&keys).next().ok_or("there are subjects")?;
    measure("quota: the same, one caller", || {
        drop(black_box(pay(&counters, demand(user, key))));
    })?;
    measure("quota: name a subject", || {
        black_box(Subject::new(Level::User, black_box("8c3f6e0e-1f7e-4c55-9a0e-3f1d3a7a9f10")));
    })?;
    Ok(())
}

fn subjects(level: Level) -> Vec<Subject> {
    (0..REQUESTS).map(|number| Subject::new(level, &number.to_string())).collect()
}

/// A rate, slots and four windows, none of which anybody exhausts.
fn limits() -> Limits {
    let ceiling = |resource, window| Ceiling { resource, window, limit: u64::MAX / 2 };
    Limits {
        pace: Rate::new(u32::MAX, u32::MAX),
        concurrent: Some(u32::MAX),
        ceilings: vec![
            ceiling(Resource::Tokens, Window::Minute),
            ceiling(Resource::Tokens, Window::Day),
            ceiling(Resource::GpuTime, Window::Hour),
            ceiling(Resource::GpuTime, Window::Month),
        ],
    }
}

fn pay(counters: &MemoryCounters, demand: Demand) -> Result<(), Box<dyn Error>> {
    let Poll::Ready(reservation) = now(counters.reserve(demand)) else {
        return Err("the store in memory never waits".into());
    };
    black_box(reservation.map_err(|refusal| format!("{refusal:?}"))?.settle(COST));
    Ok(())
}

/// Polls once: what never waits needs no runtime, whose cost would be measured too.
fn now<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn resident_kib() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.and_then(|kib| kib.trim().strip_suffix(" kB")).ok_or("no VmRSS")?.parse()?)
}
