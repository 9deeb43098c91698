//! Accounts, spread over shards, each behind a lock of its own.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::time::Duration;

use super::super::account::{Account, Now};
#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
use super::super::demand::Level;
use super::super::demand::Subject;
use super::keyed::Keyed;
use super::sync::{Mutex, MutexGuard, PoisonError};

/// All accounts. Whoever needs several locks them in the order of their shards, so that no two can
/// wait for each other.
pub(super) struct Shards {
    keyed: Keyed,
    shards: Vec<Mutex<Shard>>,
}

impl Shards {
    /// Room for about this many subjects, split evenly over the shards.
    pub(super) fn new(subjects: usize, keyed: Keyed) -> Self {
        let shard = || Mutex::new(Shard::new(subjects.div_ceil(SHARDS), keyed.clone()));
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), keyed }
    }

    /// Locks what the subjects need, each shard once.
    pub(super) fn lock(&self, subjects: impl Iterator<Item = Subject>) -> LockedShards<'_> {
        let mut numbers: Vec<usize> = subjects.map(|subject| self.number(subject)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let guard = |number| Some((number, lock(self.shards.get(number)?)));
        LockedShards { all: self, guards: numbers.into_iter().filter_map(guard).collect() }
    }

    /// The account of a subject, if it has one.
    pub(super) fn with_account<T>(
        &self,
        subject: Subject,
        act: impl FnOnce(&mut Account) -> T,
    ) -> Option<T> {
        let mut shard = lock(self.shards.get(self.number(subject))?);
        shard.account(subject).map(act)
    }

    /// Of the hash the middle: a table takes its places from both ends.
    fn number(&self, subject: Subject) -> usize {
        let middle = (self.keyed.hash_one(subject) >> 16) & u64::from(u32::MAX);
        ((middle * SHARDS as u64) >> 32) as usize
    }
}

/// Nothing panics between the first and the last change of an account, so one that a thread left
/// behind is whole.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Some shards, which nobody else sees until this is dropped.
pub(super) struct LockedShards<'a> {
    all: &'a Shards,
    guards: Vec<(usize, MutexGuard<'a, Shard>)>,
}

impl LockedShards<'_> {
    /// Forgets the subjects of which nothing counts, if it is time to.
    pub(super) fn sweep(&mut self, now: Now) {
        self.guards.iter_mut().for_each(|(_, shard)| shard.sweep(now));
    }

    /// The account of a subject, opened if it is a new one; `None` if there is no room for it.
    pub(super) fn open(&mut self, subject: Subject) -> Option<&mut Account> {
        self.shard(subject)?.open(subject)
    }

    /// The account of a subject, if it has one.
    pub(super) fn account(&mut self, subject: Subject) -> Option<&mut Account> {
        self.shard(subject)?.account(subject)
    }

    fn shard(&mut self, subject: Subject) -> Option<&mut Shard> {
        let wanted = self.all.number(subject);
        let mut guards = self.guards.iter_mut();
        guards.find(|(number, _)| *number == wanted).map(|(_, shard)| &mut **shard)
    }
}

struct Shard {
    // Boxed: a table that grows doubles, and half of it would be empty accounts.
    accounts: HashMap<Subject, Box<Account>, Keyed>,
    capacity: usize,
    next_sweep_ns: u64,
}

impl Shard {
    fn new(capacity: usize, keyed: Keyed) -> Self {
        Self { accounts: HashMap::with_hasher(keyed), capacity, next_sweep_ns: 0 }
    }

    fn account(&mut self, subject: Subject) -> Option<&mut Account> {
        self.accounts.get_mut(&subject).map(|account| &mut **account)
    }

    fn open(&mut self, subject: Subject) -> Option<&mut Account> {
        if self.accounts.len() >= self.capacity {
            return self.account(subject);
        }
        Some(self.accounts.entry(subject).or_default())
    }

    /// Forgets the subjects of which nothing counts, and returns their memory.
    fn sweep(&mut self, now: Now) {
        if now.monotonic_ns < self.next_sweep_ns {
            return;
        }
        self.next_sweep_ns = now.monotonic_ns.saturating_add(SWEEP_EVERY.as_nanos() as u64);
        self.accounts.retain(|_, account| !account.is_idle(now));
        if self.accounts.len() < self.accounts.capacity() / 4 {
            self.accounts.shrink_to(self.accounts.len() * 2);
        }
    }
}

/// So many that a million subjects fill the tables, whose sizes are powers of two, well; and that
/// one is swept in about a millisecond.
pub(super) const SHARDS: usize = 80;
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
impl Shards {
    /// How many subjects have an account.
    pub(super) fn subjects(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).accounts.len()).sum()
    }

    /// Sweeps every shard, whenever the last sweep was.
    pub(super) fn sweep(&self, now: Now) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.next_sweep_ns = 0;
            shard.sweep(now);
        }
    }

    /// Whether a thread panicked that held a lock.
    pub(super) fn is_poisoned(&self) -> bool {
        self.shards.iter().any(Mutex::is_poisoned)
    }

    /// So many subjects of one shard.
    pub(super) fn neighbours(&self, count: usize) -> Vec<Subject> {
        let all = (0..).map(|i: u32| Subject::new(Level::User, &i.to_string()));
        all.filter(|subject| self.number(*subject) == 0).take(count).collect()
    }
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests {
    use super::*;

    /// How many of these many subjects each shard gets.
    fn spread(shards: &Shards, subjects: u32) -> Vec<u32> {
        let mut spread = vec![0; SHARDS];
        for i in 0..subjects {
            spread[shards.number(Subject::new(Level::User, &i.to_string()))] += 1;
        }
        spread
    }

    #[test]
    fn subjects_spread_evenly_whatever_the_key() {
        for _ in 0..3 {
            let spread = spread(&Shards::new(1, Keyed::random()), 8_000);
            // 100 in each; six standard deviations are 60.
            assert!(spread.iter().all(|count| (40..160).contains(count)), "{spread:?}");
        }
    }

    #[test]
    fn names_that_meet_under_one_key_part_under_another() {
        let chosen = Shards::new(1, Keyed::random()).neighbours(160);
        let other = Shards::new(1, Keyed::random());
        let most = (0..SHARDS).map(|n| chosen.iter().filter(|s| other.number(**s) == n).count());
        assert!(most.max() < Some(20), "2 in each shard are expected");
    }
}
