//! Figures. Run with `--release -- --ignored --nocapture measure`.

use std::time::Instant;

use super::*;
use crate::quota::charge::Resource;
use crate::quota::demand::Ceiling;
use crate::quota::gcra::Rate;
use crate::quota::window::Window;

fn usual(requests: u32) -> Limits {
    let ceiling = |resource, window, limit| Ceiling { resource, window, limit };
    Limits {
        pace: Rate::new(requests, requests),
        concurrent: Some(100_000),
        ceilings: vec![
            ceiling(Resource::Tokens, Window::Day, 1 << 40),
            ceiling(Resource::GpuTime, Window::Day, 1 << 40),
        ],
    }
}

fn two_levels(id: u128, users: u128, limits: &Arc<Limits>) -> Demand {
    let subject = user(&(id % users).to_string());
    Demand::new(id, charge(100, 400, 900))
        .at_least(16, 100)
        .level(Level::User, subject, Arc::clone(limits))
        .level(Level::Global, Subject::new(Level::Global, ""), Arc::clone(limits))
}

/// User and system time of a process, in microseconds.
fn cpu_us(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks * 10_000.0
}

#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stderr, reason = "a measurement is printed")]
fn measure() {
    let Some(server) = Server::start(&[]) else { return };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.unwrap().block_on(async {
        let timeout = Duration::from_millis(200);
        let counters = connected(&RedisOptions { timeout, ..options(&server.url()) }).await;
        let limits = Arc::new(usual(1_000_000_000));
        for (clients, users) in [(1_u128, 1_000_u128), (8, 1_000), (32, 1_000)] {
            let rounds = 40_000 / clients;
            let (gateway, redis) = (cpu_us(std::process::id()), cpu_us(server.pid()));
            let start = Instant::now();
            let mut tasks = JoinSet::new();
            for client in 0..clients {
                let (counters, limits) = (counters.clone(), Arc::clone(&limits));
                tasks.spawn(async move {
                    for round in 0..rounds {
                        let id = clients << 96 | client << 64 | round;
                        let reservation = counters.reserve(two_levels(id, users, &limits)).await;
                        reservation.unwrap().settle(charge(100, 200, 500));
                    }
                });
            }
            tasks.join_all().await;
            assert!(counters.flush(Duration::from_secs(60)).await && !counters.is_degraded());
            let n = (clients * rounds) as f64;
            let wall = start.elapsed().as_secs_f64();
            let gateway = (cpu_us(std::process::id()) - gateway) / n;
            let redis = (cpu_us(server.pid()) - redis) / n;
            eprintln!(
                "{clients} clients: {:.0} reserve+settle/s, gateway {gateway:.1} us CPU, redis \
                 {redis:.1} us CPU = {:.0}/s on a core",
                n / wall,
                1e6 / redis
            );
        }
        let subject = format!("portcullis:{{{:032x}}}", user("1").number());
        eprintln!("bytes of a subject: {}", server.run(&format!("MEMORY USAGE {subject}")));
    });
}
