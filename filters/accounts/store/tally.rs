//! How failed logins add up to a wait (ASVS 6.3.1): too many, and the door stays shut for a while.
//!
//! Failures are counted per account *from one network*, so that a stranger cannot lock a user out,
//! and tenfold per network, so that one network cannot walk through the accounts. Here is only the
//! arithmetic; `sql::login` keeps the rows. Times are Unix seconds.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::ThrottleLimits;

/// A network may fail this many times as often as one account from it.
const NETWORK_FACTOR: u32 = 10;
/// A lock doubles each time it is earned again, up to `1 << MAX_DOUBLINGS` windows.
const MAX_DOUBLINGS: u32 = 3;

/// The rows that an attempt counts in, by names that tell nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// Of the account from this network.
    pub(super) pair: String,
    /// Of the network.
    pub(super) network: String,
}

impl Origin {
    /// All addresses of an IPv6 /64 are one network, as they belong to one host. The key is that of
    /// the store: without it nobody can try names until one has a row.
    pub(super) fn new(key: &[u8], account: &str, address: IpAddr) -> Option<Self> {
        let network = network(address).to_string();
        let pair = [network.as_str(), "\0", account].concat();
        Some(Self { pair: name(key, &pair)?, network: name(key, &network)? })
    }
}

/// What has been counted of an attempt's account and network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tallies {
    pub(super) pair: Tally,
    pub(super) network: Tally,
}

impl Tallies {
    /// Counts a failure ahead of its check.
    ///
    /// # Errors
    /// The time to wait; then nothing is counted.
    pub(super) fn charge(&mut self, limits: ThrottleLimits, now: u64) -> Result<(), Duration> {
        let Limits { pair, network, window } = Limits::from(limits);
        let wait = self.pair.wait(pair, window, now).max(self.network.wait(network, window, now));
        if let Some(seconds) = wait {
            return Err(Duration::from_secs(seconds));
        }
        self.pair.count(pair, window, now);
        self.network.count(network, window, now);
        Ok(())
    }

    /// After a success: forgets the failures of the pair, and takes the charge of the network back.
    pub(super) fn forgive(&mut self) {
        self.pair = Tally::default();
        self.network.give_back();
    }

    /// After a check that came to no result: takes the charge back and nothing else.
    pub(super) fn refund(&mut self) {
        self.pair.give_back();
        self.network.give_back();
    }
}

/// Failures in the present window, or the lock that they earned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// In the present window.
    pub(super) failures: u64,
    /// How many locks were earned one after the other before the present window.
    pub(super) locks: u64,
    /// Whether the present window has become a lock.
    pub(super) locked: bool,
    /// When the window or the lock is over.
    pub(super) ends_at: u64,
    /// When nothing of it matters any more.
    pub(super) forget_at: u64,
}

impl Tally {
    /// An end that no lock can have was written by a clock that was wrong: it does not count.
    fn wait(&self, limit: u64, window: u64, now: u64) -> Option<u64> {
        let left = self.ends_at.checked_sub(now).filter(|left| *left > 0)?;
        (self.failures >= limit && left <= doubled(window, u64::MAX)).then_some(left)
    }

    fn count(&mut self, limit: u64, window: u64, now: u64) {
        if now >= self.ends_at || self.failures >= limit {
            self.renew(window, now);
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= limit {
            self.ends_at = now.saturating_add(doubled(window, self.locks));
            self.locked = true;
        }
        self.forget_at = self.ends_at.saturating_add(self.memory(window));
    }

    fn renew(&mut self, window: u64, now: u64) {
        let relapse = self.locked && now < self.forget_at;
        let locks = if relapse { self.locks.saturating_add(1) } else { 0 };
        *self = Self { locks, ends_at: now.saturating_add(window), ..Self::default() };
    }

    /// A lock is remembered for as long as the longest one lasts, a mere failure not at all.
    fn memory(&self, window: u64) -> u64 {
        if self.locked || self.locks > 0 { doubled(window, u64::MAX) } else { 0 }
    }

    /// A locked one is not charged: this charge was the one that locked it.
    fn give_back(&mut self) {
        self.failures = self.failures.saturating_sub(1);
        self.locked = false;
    }
}

struct Limits {
    pair: u64,
    network: u64,
    window: u64,
}

impl From<ThrottleLimits> for Limits {
    fn from(limits: ThrottleLimits) -> Self {
        let pair = u64::from(limits.max_failures.max(1));
        let begun = u64::from(limits.window.subsec_nanos() > 0);
        let window = limits.window.as_secs().saturating_add(begun).max(1);
        Self { pair, network: pair.saturating_mul(u64::from(NETWORK_FACTOR)), window }
    }
}

fn doubled(window: u64, times: u64) -> u64 {
    window.saturating_mul(1 << times.min(u64::from(MAX_DOUBLINGS)))
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn name(key: &[u8], text: &str) -> Option<String> {
    let mac = Hmac::<Sha256>::new_from_slice(key).ok()?.chain_update(text);
    Some(URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// The rows, as `sql::login` keeps them.
    struct Throttle {
        limits: ThrottleLimits,
        rows: HashMap<String, Tally>,
    }

    impl Throttle {
        fn new(max_failures: u32, seconds: u64) -> Self {
            let window = Duration::from_secs(seconds);
            Self { limits: ThrottleLimits { max_failures, window }, rows: HashMap::new() }
        }

        fn with<T>(&mut self, (name, client): From<'_>, work: impl FnOnce(&mut Tallies) -> T) -> T {
            let origin = origin(name, client);
            let row = |id: &String| self.rows.get(id).copied().unwrap_or_default();
            let mut tallies = Tallies { pair: row(&origin.pair), network: row(&origin.network) };
            let outcome = work(&mut tallies);
            self.rows.insert(origin.pair, tallies.pair);
            self.rows.insert(origin.network, tallies.network);
            outcome
        }

        fn charge(&mut self, from: From<'_>, now: u64) -> Result<(), u64> {
            let limits = self.limits;
            let outcome = self.with(from, |tallies| tallies.charge(limits, now));
            outcome.map_err(|wait| wait.as_secs())
        }

        /// How many of the failures were let through.
        fn fail(&mut self, from: From<'_>, times: u32, now: u64) -> u32 {
            (0..times).map(|_| u32::from(self.charge(from, now).is_ok())).sum()
        }

        /// What a charge would say, without its being made.
        fn admit(&self, (name, client): From<'_>, now: u64) -> Result<(), u64> {
            let mut probe = Self { limits: self.limits, rows: self.rows.clone() };
            probe.charge((name, client), now)
        }
    }

    type From<'a> = (&'a str, &'a str);

    const ALICE: From<'_> = ("alice", "10.0.0.1");
    const WINDOW: u64 = 900;

    fn origin(name: &str, client: &str) -> Origin {
        Origin::new(b"key", name, client.parse().unwrap()).unwrap()
    }

    #[test]
    fn an_account_from_one_network_is_locked_for_a_window() {
        let mut throttle = Throttle::new(3, WINDOW);
        assert_eq!(throttle.fail(ALICE, 9, 5), 3);
        for (now, expected) in [(5, Err(WINDOW)), (904, Err(1)), (905, Ok(()))] {
            assert_eq!(throttle.admit(ALICE, now), expected, "{now}");
        }
    }

    #[test]
    fn others_and_other_networks_are_not_locked() {
        let mut throttle = Throttle::new(3, WINDOW);
        throttle.fail(ALICE, 3, 0);
        for from in [("bob", "10.0.0.1"), ("alice", "10.0.0.2"), ("alice", "::1")] {
            assert_eq!(throttle.admit(from, 0), Ok(()), "{from:?}");
        }
    }

    #[test]
    fn a_network_is_locked_after_ten_times_as_many() {
        let mut throttle = Throttle::new(3, WINDOW);
        let tried =
            (0..50).filter(|n| throttle.charge((&format!("user{n}"), "10.0.0.1"), 1).is_ok());
        assert_eq!(tried.count(), 30);
        assert_eq!(throttle.admit(("fresh", "10.0.0.1"), 1), Err(WINDOW));
        assert_eq!(throttle.admit(("fresh", "10.0.0.2"), 1), Ok(()));
    }

    #[test]
    fn spellings_of_one_host_are_one_network() {
        for (a, b, same) in [
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8::1", "2001:db8::ffff:2", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            assert_eq!(origin("alice", a) == origin("alice", b), same, "{a} {b}");
        }
    }

    #[test]
    fn rows_have_names_that_tell_nothing() {
        let here = "10.0.0.1".parse().unwrap();
        let names: std::collections::HashSet<String> =
            [(&b"a"[..], "alice"), (b"b", "alice"), (b"a", "bob")]
                .into_iter()
                .map(|(key, name)| Origin::new(key, name, here).unwrap().pair)
                .chain([origin("", "10.0.0.1").network, origin("", "10.0.0.1").pair])
                .collect();
        assert_eq!(names.len(), 5);
        assert!(names.iter().all(|name| name.len() == 43), "{names:?}");
    }

    #[test]
    fn a_success_forgets_the_failures_of_the_pair() {
        let mut throttle = Throttle::new(3, WINDOW);
        for _ in 0..100 {
            assert_eq!(throttle.fail(ALICE, 2, 0), 2);
            throttle.with(ALICE, Tallies::forgive);
            throttle.with(ALICE, Tallies::forgive);
        }
    }

    #[test]
    fn a_success_gives_the_network_only_its_own_charge_back() {
        let mut throttle = Throttle::new(1, WINDOW);
        for n in 0..9 {
            throttle.fail((&format!("user{n}"), "10.0.0.1"), 1, 0);
        }
        let owner = ("attacker's own", "10.0.0.1");
        assert_eq!(throttle.charge(owner, 0), Ok(()));
        throttle.with(owner, Tallies::forgive);
        assert_eq!(throttle.fail(("user10", "10.0.0.1"), 1, 0), 1);
        assert_eq!(throttle.admit(owner, 0), Err(WINDOW));
    }

    #[test]
    fn a_refund_takes_back_one_charge_and_the_lock_it_made() {
        let mut throttle = Throttle::new(3, 10);
        throttle.fail(ALICE, 3, 0);
        throttle.with(ALICE, Tallies::refund);
        assert_eq!(throttle.fail(ALICE, 3, 0), 1);
        throttle.with(ALICE, Tallies::refund);
        assert_eq!(throttle.fail(ALICE, 3, 10), 3);
        assert_eq!(throttle.admit(ALICE, 10), Err(10), "the lock taken back does not count");
    }

    #[test]
    fn endless_windows_do_not_overflow() {
        let mut throttle = Throttle::new(u32::MAX, 0);
        throttle.limits.window = Duration::MAX;
        assert_eq!(throttle.fail(ALICE, 3, u64::MAX - 1), 3);
        throttle.limits.max_failures = 0;
        assert_eq!(throttle.fail(("bob", "10.0.0.2"), 3, 1), 1);
        assert!(throttle.admit(("bob", "10.0.0.2"), u64::MAX - 1).is_err());
    }

    #[test]
    fn a_window_lasts_a_second_at_least() {
        for (millis, expected) in [(0, 1), (1, 1), (1000, 1), (1001, 2)] {
            let mut throttle = Throttle::new(1, 0);
            throttle.limits.window = Duration::from_millis(millis);
            throttle.fail(ALICE, 1, 7);
            assert_eq!(throttle.admit(ALICE, 7), Err(expected), "{millis}");
        }
    }

    #[test]
    fn a_window_without_a_lock_starts_afresh() {
        let mut throttle = Throttle::new(3, WINDOW);
        throttle.fail(ALICE, 2, 0);
        assert_eq!(throttle.fail(ALICE, 9, 900), 3);
        assert_eq!(throttle.admit(ALICE, 900), Err(WINDOW));
    }

    #[test]
    fn locks_grow_and_are_forgiven_with_time() {
        let mut throttle = Throttle::new(1, 10);
        let mut now = 0;
        for lock in [10, 20, 40, 80, 80] {
            assert_eq!(throttle.fail(ALICE, 5, now), 1);
            assert_eq!(throttle.admit(ALICE, now), Err(lock));
            now += lock;
        }
        now += 80;
        assert_eq!(throttle.fail(ALICE, 5, now), 1);
        assert_eq!(throttle.admit(ALICE, now), Err(10));
    }

    #[test]
    fn a_tally_is_kept_for_as_long_as_it_matters() {
        let mut throttle = Throttle::new(2, 10);
        for (failures, expected) in [(1, 10), (2, 10 + 80)] {
            throttle.fail(ALICE, 1, 0);
            let row = throttle.rows.get(&origin("alice", "10.0.0.1").pair).unwrap();
            assert_eq!((row.failures, row.forget_at), (failures, expected));
        }
    }

    #[test]
    fn a_lock_that_a_wrong_clock_made_does_not_last() {
        let mut throttle = Throttle::new(1, 10);
        throttle.fail(ALICE, 1, 1_000_000);
        assert_eq!(throttle.admit(ALICE, 1_000_000 - 70), Err(80), "as long as the longest one");
        assert_eq!(throttle.fail(ALICE, 3, 500), 1);
        assert!(throttle.admit(ALICE, 500).is_err_and(|wait| wait <= 20));
    }
}
