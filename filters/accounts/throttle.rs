//! The throttle of failed logins (ASVS 6.3.1): too many, and the door stays shut for a while.
//!
//! Failures are counted per account *from one address*, so that a stranger cannot lock a user out,
//! and tenfold per address, so that one address cannot walk through the accounts. The table has a
//! fixed size and holds no names: keys are hashes under a key drawn at start.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Tallies held at one time, at 32 bytes or so each. One address can make at most
/// `ADDRESS_FACTOR * max_failures + 1` of them in a window.
const MAX_TALLIES: usize = 65_536;
/// An address may fail this many times as often as one account from it.
const ADDRESS_FACTOR: u32 = 10;
/// A lock doubles each time it is earned again, up to `1 << MAX_DOUBLINGS` windows.
const MAX_DOUBLINGS: u32 = 3;

/// Counts failures and says when to come back. Times are durations on one monotonic clock.
#[derive(Debug)]
pub struct Throttle {
    max_failures: u32,
    window: Duration,
    hasher: RandomState,
    tallies: Mutex<HashMap<u64, Tally>>,
}

/// Where an attempt comes from and which account it is for, as hashes.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pair: u64,
    address: u64,
}

impl Throttle {
    /// Locks after `max_failures` (at least 1) within the window; the first lock lasts one window.
    #[must_use]
    pub fn new(max_failures: u32, window: Duration) -> Self {
        Self {
            max_failures: max_failures.max(1),
            window,
            hasher: RandomState::new(),
            tallies: Mutex::default(),
        }
    }

    /// The origin of an attempt. All addresses of an IPv6 /64 are one, as they belong to one host.
    #[must_use]
    pub fn origin(&self, username: &str, client: IpAddr) -> Origin {
        let network = network(client);
        Origin {
            pair: self.hasher.hash_one((username, network)),
            address: self.hasher.hash_one(network),
        }
    }

    /// Looks whether the origin may try now.
    ///
    /// # Errors
    /// The time to wait.
    pub fn admit(&self, origin: Origin, now: Duration) -> Result<(), Duration> {
        self.look(&self.lock(), origin, now)
    }

    /// Looks, and counts a failure ahead of its check, so that parallel attempts cannot overshoot.
    ///
    /// # Errors
    /// The time to wait; then nothing is counted.
    pub fn charge(&self, origin: Origin, now: Duration) -> Result<(), Duration> {
        let mut tallies = self.lock();
        self.look(&tallies, origin, now)?;
        for (key, limit) in self.limits(origin) {
            if !tallies.contains_key(&key) {
                self.make_room(&mut tallies, now);
            }
            tallies.entry(key).or_default().count(limit, self.window, now);
        }
        Ok(())
    }

    /// After a success: takes the charge back and forgets the failures of the account from there.
    pub fn forgive(&self, origin: Origin) {
        let mut tallies = self.lock();
        tallies.remove(&origin.pair);
        give_back(&mut tallies, origin.address);
    }

    /// After a check that came to no result: takes the charge back and nothing else.
    pub fn refund(&self, origin: Origin) {
        let mut tallies = self.lock();
        give_back(&mut tallies, origin.pair);
        give_back(&mut tallies, origin.address);
    }

    fn look(
        &self,
        tallies: &HashMap<u64, Tally>,
        origin: Origin,
        now: Duration,
    ) -> Result<(), Duration> {
        let wait = |(key, limit)| tallies.get(&key).and_then(|tally| tally.wait(limit, now));
        self.limits(origin).into_iter().filter_map(wait).max().map_or(Ok(()), Err)
    }

    fn limits(&self, origin: Origin) -> [(u64, u32); 2] {
        let address_limit = self.max_failures.saturating_mul(ADDRESS_FACTOR);
        [(origin.pair, self.max_failures), (origin.address, address_limit)]
    }

    /// Frees what is over; if nothing is, gives up the tally that would be over first.
    fn make_room(&self, tallies: &mut HashMap<u64, Tally>, now: Duration) {
        if tallies.len() < MAX_TALLIES {
            return;
        }
        tallies.retain(|_, tally| !tally.is_forgotten(self.window, now));
        if tallies.len() < MAX_TALLIES {
            return;
        }
        let first = tallies.iter().min_by_key(|(_, tally)| tally.ends).map(|(key, _)| *key);
        first.and_then(|key| tallies.remove(&key));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Failures in the present window, or the lock that they earned.
#[derive(Debug, Default)]
struct Tally {
    failures: u32,
    locks: u32,
    locked: bool,
    ends: Duration,
}

impl Tally {
    fn wait(&self, limit: u32, now: Duration) -> Option<Duration> {
        let left = self.ends.checked_sub(now).filter(|left| !left.is_zero());
        left.filter(|_| self.failures >= limit)
    }

    fn count(&mut self, limit: u32, window: Duration, now: Duration) {
        if now >= self.ends {
            self.renew(window, now);
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= limit {
            self.ends = now.saturating_add(doubled(window, self.locks));
            self.locked = true;
        }
    }

    fn renew(&mut self, window: Duration, now: Duration) {
        let relapse = self.locked && !self.is_forgotten(window, now);
        let locks = if relapse { self.locks.saturating_add(1) } else { 0 };
        *self = Self { locks, ends: now.saturating_add(window), ..Self::default() };
    }

    /// A lock is remembered for as long as the longest one lasts, a mere failure not at all.
    fn is_forgotten(&self, window: Duration, now: Duration) -> bool {
        let relevant = self.locked || self.locks > 0;
        let memory = if relevant { doubled(window, MAX_DOUBLINGS) } else { Duration::ZERO };
        now >= self.ends.saturating_add(memory)
    }
}

fn give_back(tallies: &mut HashMap<u64, Tally>, key: u64) {
    if let Some(tally) = tallies.get_mut(&key) {
        tally.failures = tally.failures.saturating_sub(1);
        tally.locked = false; // a locked one is not charged: this charge was the one that locked it
    }
}

fn doubled(window: Duration, times: u32) -> Duration {
    window.saturating_mul(1 << times.min(MAX_DOUBLINGS))
}

fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(900);

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn from(throttle: &Throttle, name: &str, client: &str) -> Origin {
        throttle.origin(name, client.parse().unwrap())
    }

    fn fail(throttle: &Throttle, origin: Origin, times: u32, now: Duration) -> u32 {
        (0..times).map(|_| u32::from(throttle.charge(origin, now).is_ok())).sum()
    }

    #[test]
    fn an_account_from_one_address_is_locked_for_a_window() {
        let throttle = Throttle::new(3, WINDOW);
        let alice = from(&throttle, "alice", "10.0.0.1");
        assert_eq!(fail(&throttle, alice, 9, at(5)), 3);
        assert_eq!(throttle.admit(alice, at(5)), Err(WINDOW));
        assert_eq!(throttle.admit(alice, at(904)), Err(at(1)));
        assert_eq!(throttle.admit(alice, at(905)), Ok(()));
    }

    #[test]
    fn others_and_other_addresses_are_not_locked() {
        let throttle = Throttle::new(3, WINDOW);
        fail(&throttle, from(&throttle, "alice", "10.0.0.1"), 3, at(0));
        for (name, client) in [("bob", "10.0.0.1"), ("alice", "10.0.0.2"), ("alice", "::1")] {
            assert_eq!(
                throttle.admit(from(&throttle, name, client), at(0)),
                Ok(()),
                "{name} {client}"
            );
        }
    }

    #[test]
    fn an_address_is_locked_after_ten_times_as_many() {
        let throttle = Throttle::new(3, WINDOW);
        let tried = |n| throttle.charge(from(&throttle, &format!("user{n}"), "10.0.0.1"), at(1));
        assert_eq!((0..50).filter(|&n| tried(n).is_ok()).count(), 30);
        assert_eq!(throttle.admit(from(&throttle, "fresh", "10.0.0.1"), at(1)), Err(WINDOW));
        assert_eq!(throttle.admit(from(&throttle, "fresh", "10.0.0.2"), at(1)), Ok(()));
    }

    #[test]
    fn spellings_of_one_host_are_one_address() {
        let throttle = Throttle::new(1, WINDOW);
        let same =
            [("192.0.2.1", "::ffff:192.0.2.1", true), ("2001:db8::1", "2001:db8::ffff:2", true)];
        let other = [("192.0.2.1", "192.0.2.2", false), ("2001:db8::1", "2001:db8:0:1::1", false)];
        for (a, b, expected) in same.into_iter().chain(other) {
            let (a, b) = (from(&throttle, "alice", a), from(&throttle, "alice", b));
            assert_eq!(a.pair == b.pair && a.address == b.address, expected);
        }
    }

    #[test]
    fn a_success_forgets_the_failures_of_the_pair() {
        let throttle = Throttle::new(3, WINDOW);
        let alice = from(&throttle, "alice", "10.0.0.1");
        for _ in 0..100 {
            assert_eq!(fail(&throttle, alice, 2, at(0)), 2);
            throttle.forgive(alice);
            throttle.forgive(alice);
        }
    }

    #[test]
    fn a_success_gives_the_address_only_its_own_charge_back() {
        let throttle = Throttle::new(1, WINDOW);
        for n in 0..9 {
            fail(&throttle, from(&throttle, &format!("user{n}"), "10.0.0.1"), 1, at(0));
        }
        let owner = from(&throttle, "attacker's own", "10.0.0.1");
        assert_eq!(throttle.charge(owner, at(0)), Ok(()));
        throttle.forgive(owner);
        assert_eq!(fail(&throttle, from(&throttle, "user10", "10.0.0.1"), 1, at(0)), 1);
        assert_eq!(throttle.admit(owner, at(0)), Err(WINDOW));
    }

    #[test]
    fn a_refund_takes_back_one_charge_and_the_lock_it_made() {
        let throttle = Throttle::new(3, at(10));
        let alice = from(&throttle, "alice", "10.0.0.1");
        fail(&throttle, alice, 3, at(0));
        throttle.refund(alice);
        assert_eq!(fail(&throttle, alice, 3, at(0)), 1);
        throttle.refund(alice);
        assert_eq!(fail(&throttle, alice, 3, at(10)), 3);
        assert_eq!(
            throttle.admit(alice, at(10)),
            Err(at(10)),
            "the lock taken back does not count"
        );
    }

    #[test]
    fn endless_windows_do_not_overflow() {
        let throttle = Throttle::new(1, Duration::MAX);
        let alice = from(&throttle, "alice", "10.0.0.1");
        assert_eq!(fail(&throttle, alice, 3, at(1)), 1);
        assert!(throttle.admit(alice, at(u64::MAX - 1)).is_err());
    }

    #[test]
    fn a_window_without_a_lock_starts_afresh() {
        let throttle = Throttle::new(3, WINDOW);
        let alice = from(&throttle, "alice", "10.0.0.1");
        fail(&throttle, alice, 2, at(0));
        assert_eq!(fail(&throttle, alice, 9, at(900)), 3);
        assert_eq!(throttle.admit(alice, at(900)), Err(WINDOW));
    }

    #[test]
    fn locks_grow_and_are_forgiven_with_time() {
        let throttle = Throttle::new(1, at(10));
        let alice = from(&throttle, "alice", "10.0.0.1");
        let mut now = at(0);
        for lock in [10, 20, 40, 80, 80] {
            assert_eq!(fail(&throttle, alice, 5, now), 1);
            assert_eq!(throttle.admit(alice, now), Err(at(lock)));
            now += at(lock);
        }
        now += at(80);
        assert_eq!(fail(&throttle, alice, 5, now), 1);
        assert_eq!(throttle.admit(alice, now), Err(at(10)));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_locks_longest() {
        let throttle = Throttle::new(2, WINDOW);
        let locked = from(&throttle, "alice", "10.0.0.1");
        fail(&throttle, locked, 2, at(100));
        for n in 0..u32::try_from(MAX_TALLIES).unwrap() / 2 + 10 {
            let client = IpAddr::from((n + 0x0b00_0000).to_be_bytes());
            throttle.charge(throttle.origin("x", client), at(0)).unwrap();
        }
        assert!(throttle.lock().len() <= MAX_TALLIES);
        assert_eq!(throttle.admit(locked, at(100)), Err(WINDOW));
        fail(&throttle, from(&throttle, "y", "10.0.0.9"), 1, at(20_000));
        assert_eq!(throttle.lock().len(), 2, "what is over was swept");
    }

    #[test]
    fn debug_shows_no_names() {
        let throttle = Throttle::new(2, WINDOW);
        fail(&throttle, from(&throttle, "alice-canary", "10.0.0.77"), 1, at(0));
        let shown = format!("{throttle:?} {:?}", from(&throttle, "alice-canary", "10.0.0.77"));
        assert!(!shown.contains("canary") && !shown.contains("10.0.0.77"), "{shown}");
    }
}
