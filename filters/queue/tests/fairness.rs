//! The figure: with one user flooding at 100 times the pace of another, that one's p99 time in the
//! queue stays within twice its share, which is what it would be if both had asked for the same.
//!
//! Simulated, on tokio's paused time: four slots, turns of 50 to 150 ms, arrivals at random.

use std::rc::Rc;

use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep_until};

use super::*;

const SLOTS: u32 = 4;
/// Turns a second that four slots can give.
const CAPACITY: f64 = 40.0;
/// Requests of the user that is watched.
const REQUESTS: u32 = 1000;

/// Moves the gateway's clock along with tokio's.
struct Time {
    clock: Clock,
    origin: Instant,
    began: u64,
}

impl Time {
    fn new(clock: Clock) -> Self {
        Self { origin: Instant::now(), began: clock.monotonic_ns(), clock }
    }

    async fn until(&self, at: Instant) {
        sleep_until(at).await;
        let passed = Duration::from_nanos(self.clock.monotonic_ns() - self.began);
        self.clock.advance(self.origin.elapsed().saturating_sub(passed));
    }
}

/// Numbers from 0 to 1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Time between two arrivals at `rate` a second.
    fn gap(&mut self, rate: f64) -> Duration {
        Duration::from_secs_f64(-(1.0 - self.next()).ln() / rate)
    }
}

/// What a user got: waits of those that were served, and how many were not.
#[derive(Default)]
struct Got {
    waits: Vec<Duration>,
    refused: usize,
}

impl Got {
    /// Whoever is refused has waited for ever.
    fn p99(&self) -> f64 {
        let mut waits: Vec<_> = self.waits.iter().map(Duration::as_secs_f64).collect();
        waits.resize(waits.len() + self.refused, f64::INFINITY);
        waits.sort_by(f64::total_cmp);
        waits[waits.len() * 99 / 100]
    }
}

async fn request(queue: Queue, time: Rc<Time>, who: Who, took: Duration) -> Option<Duration> {
    let came = Instant::now();
    let turn = queue.enter(who).await.ok()?;
    let waited = came.elapsed();
    time.until(Instant::now() + took).await;
    drop(turn);
    Some(waited)
}

/// A user that sends so many requests, at `rate` a second.
async fn user(queue: Queue, time: Rc<Time>, who: Who, rate: f64, requests: u32) -> Got {
    let (mut random, mut at) = (Random(who.user as u64), Instant::now());
    let mut sent = vec![];
    for _ in 0..requests {
        at += random.gap(rate);
        time.until(at).await;
        let took = Duration::from_millis(50 + (random.next() * 100.0) as u64);
        sent.push(spawn_local(request(queue.clone(), Rc::clone(&time), who, took)));
    }
    let mut got = Got::default();
    for request in sent {
        match request.await.unwrap() {
            Some(waited) => got.waits.push(waited),
            None => got.refused += 1,
        }
    }
    got
}

/// The p99 time in the queue of a user that asks for a part of all slots, beside one that asks for
/// `times` as much.
fn p99(part: f64, times: u32) -> f64 {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    LocalSet::new().block_on(&runtime.unwrap(), async {
        let clock = Clock::system();
        let queue = Queue::new(limits(SLOTS, 128, 32), clock.clone());
        let (time, rate) = (Rc::new(Time::new(clock)), part * CAPACITY);
        let who = |user| Who { user, weight: 1 };
        let other = user(
            queue.clone(),
            Rc::clone(&time),
            who(2),
            rate * f64::from(times),
            REQUESTS * times,
        );
        let other = spawn_local(other);
        let watched = user(queue, time, who(1), rate, REQUESTS).await;
        other.abort();
        watched.p99()
    })
}

#[test]
fn a_flood_at_100_times_the_pace_leaves_another_its_share() {
    for part in [0.20, 0.45] {
        let (share, flooded) = (p99(part, 1), p99(part, 100));
        assert!(flooded <= 2.0 * share, "{part} of the slots: {flooded} s, share {share} s");
    }
}

/// Beside one that asks for as little as itself a user hardly waits at all; beside a flood it waits
/// until a slot falls free, as no turn is broken off: less than the 100 ms that one takes.
#[test]
fn whoever_asks_for_little_waits_for_one_slot_at_most() {
    for part in [0.02, 0.10] {
        let flooded = p99(part, 100);
        assert!(flooded <= 0.100, "{part} of the slots: {flooded} s");
    }
}
