//! The store of a single process: meters in memory.
//!
//! Subjects are spread over shards, each behind a lock of its own that is held for well under a
//! microsecond and never across an await. A reservation locks the shards of all its levels, in
//! order of their number so that no two can wait for each other, decides, and writes.
//!
//! Memory is bounded. A subject of which nothing counts any more (nothing runs, every window with
//! usage is over, the pace is recovered) is forgotten by a sweep, at most once a minute in each
//! shard. When a shard is full of subjects that do count, a new subject is refused: to make room by
//! forgetting what somebody has used would give them their quota again.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Clock;

use super::account::{Account, Now, Places};
use super::answer_headers::QuotaView;
use super::demand::{Charge, Demand, Metered, Subject};
use super::refusal::{Meter, Refusal};
use super::reservation::{Hold, Reservation};
use super::{Consumption, Counters};

/// Meters in the memory of this process. They start empty, and clones share them.
#[derive(Clone, Debug)]
pub struct MemoryCounters {
    books: Arc<Books>,
}

impl MemoryCounters {
    /// Meters for at most 1,000,000 subjects.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self::with_capacity(clock, SUBJECTS)
    }

    /// Meters for about this many subjects. The capacity is split evenly over the shards, so with
    /// subjects that do not spread quite evenly the first refusal comes a little sooner.
    #[must_use]
    pub fn with_capacity(clock: Clock, subjects: usize) -> Self {
        Self { books: Arc::new(Books::new(clock, subjects.div_ceil(SHARDS))) }
    }
}

#[async_trait]
impl Counters for MemoryCounters {
    async fn reserve(&self, demand: Demand) -> Result<Reservation, Refusal> {
        let (claim, view) = self.books.reserve(&demand, self.books.now())?;
        let hold = MemoryHold { books: Arc::clone(&self.books), claim };
        Ok(Reservation::new(Box::new(hold), demand.estimate, view))
    }

    async fn consumption(&self, subject: Subject) -> Consumption {
        self.books.consumption(subject, self.books.now())
    }

    fn open_reservations(&self) -> usize {
        self.books.open.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct MemoryHold {
    books: Arc<Books>,
    claim: Claim,
}

#[async_trait]
impl Hold for MemoryHold {
    async fn settle(self: Box<Self>, charge: Charge) {
        let Self { books, claim } = *self;
        books.settle(claim, charge, books.now());
    }

    fn release(self: Box<Self>) {
        let Self { books, claim } = *self;
        books.settle(claim, Charge::default(), books.now());
    }
}

/// Where a reservation stands, and for how much.
#[derive(Debug)]
struct Claim {
    reserved: Charge,
    places: Vec<(Subject, Places)>,
}

struct Books {
    clock: Clock,
    shards: Vec<Mutex<Shard>>,
    open: AtomicUsize,
}

impl Books {
    fn new(clock: Clock, capacity: usize) -> Self {
        let shard = || Mutex::new(Shard { capacity, ..Shard::default() });
        Self { clock, shards: (0..SHARDS).map(|_| shard()).collect(), open: AtomicUsize::new(0) }
    }

    fn now(&self) -> Now {
        Now { unix_ms: self.clock.unix_ms(), monotonic_ns: self.clock.monotonic_ns() }
    }

    fn reserve(&self, demand: &Demand, now: Now) -> Result<(Claim, QuotaView), Refusal> {
        let mut shards = self.lock(demand);
        let mut drafts = shards.drafts(demand, now)?;
        let refusal = worst(&drafts, demand.estimate, now);
        if refusal.is_none() {
            drafts.iter_mut().for_each(|draft| draft.admit(demand.estimate, now));
        }
        shards.write(&drafts);
        drop(shards);

        let view = view(&drafts, now);
        if let Some(refusal) = refusal {
            return Err(Refusal { view, ..refusal });
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        let places = drafts.iter().map(|draft| (draft.metered.subject, draft.places)).collect();
        Ok((Claim { reserved: demand.estimate, places }, view))
    }

    /// Pays at one level after the other: a payment is never refused, so nobody can see half of a
    /// decision.
    fn settle(&self, claim: Claim, charge: Charge, now: Now) {
        for (subject, places) in claim.places {
            self.with_account(subject, |account| {
                account.settle(&places, claim.reserved, charge, now);
            });
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn consumption(&self, subject: Subject, now: Now) -> Consumption {
        self.with_account(subject, |account| account.consumption(now)).unwrap_or_default()
    }

    fn with_account<T>(&self, subject: Subject, act: impl FnOnce(&mut Account) -> T) -> Option<T> {
        let mut shard = lock(self.shards.get(subject.part_of(SHARDS))?);
        shard.accounts.get_mut(&subject).map(act)
    }

    /// Locks what the demand needs, each shard once and in order.
    fn lock(&self, demand: &Demand) -> LockedShards<'_> {
        let number = |metered: &Metered| metered.subject.part_of(SHARDS);
        let mut numbers: Vec<usize> = demand.levels().iter().map(number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let guard = |number| Some((number, lock(self.shards.get(number)?)));
        LockedShards { guards: numbers.into_iter().filter_map(guard).collect() }
    }
}

impl fmt::Debug for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Books").field("open", &self.open).finish_non_exhaustive()
    }
}

/// A thread that panicked cannot have left a half-written account: accounts are written whole.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

struct LockedShards<'a> {
    guards: Vec<(usize, MutexGuard<'a, Shard>)>,
}

impl LockedShards<'_> {
    /// Copies of the accounts of the demand, brought to this moment. Nothing is counted before
    /// [`write`](Self::write) puts them back.
    fn drafts<'d>(&mut self, demand: &'d Demand, now: Now) -> Result<Vec<Draft<'d>>, Refusal> {
        self.guards.iter_mut().for_each(|(_, shard)| shard.sweep(now));
        let draft = |metered| self.draft(metered, now).ok_or_else(|| no_room(metered));
        demand.levels().iter().map(draft).collect()
    }

    fn draft<'d>(&mut self, metered: &'d Metered, now: Now) -> Option<Draft<'d>> {
        let mut account = self.shard(metered.subject)?.account(metered.subject)?;
        account.advance(&metered.limits, now);
        Some(Draft { metered, account, places: Places::default() })
    }

    /// On a refusal too, for then it only saves that the meters were brought to this moment.
    fn write(&mut self, drafts: &[Draft<'_>]) {
        for draft in drafts {
            if let Some(shard) = self.shard(draft.metered.subject) {
                shard.accounts.insert(draft.metered.subject, draft.account);
            }
        }
    }

    fn shard(&mut self, subject: Subject) -> Option<&mut Shard> {
        let wanted = subject.part_of(SHARDS);
        let mut guards = self.guards.iter_mut();
        guards.find(|(number, _)| *number == wanted).map(|(_, shard)| &mut **shard)
    }
}

/// One level of a demand, and its account as it would be.
struct Draft<'d> {
    metered: &'d Metered,
    account: Account,
    places: Places,
}

impl Draft<'_> {
    fn refusal(&self, estimate: Charge, now: Now) -> Option<Refusal> {
        let (meter, wait) = self.account.obstacle(&self.metered.limits, estimate, now)?;
        Some(Refusal { meter, wait, level: self.metered.level, view: QuotaView::default() })
    }

    fn admit(&mut self, estimate: Charge, now: Now) {
        self.places = self.account.admit(&self.metered.limits, estimate, now);
    }
}

/// The refusal that lasts longest: after its wait all the others are over as well.
fn worst(drafts: &[Draft<'_>], estimate: Charge, now: Now) -> Option<Refusal> {
    let refusals = drafts.iter().filter_map(|draft| draft.refusal(estimate, now));
    refusals.max_by_key(|refusal| refusal.wait.unwrap_or(Duration::MAX))
}

/// The tightest meters of all levels.
fn view(drafts: &[Draft<'_>], now: Now) -> QuotaView {
    let mut view = QuotaView::default();
    drafts.iter().for_each(|draft| draft.account.show(&draft.metered.limits, now, &mut view));
    view
}

const fn no_room(metered: &Metered) -> Refusal {
    let (meter, view) = (Meter::Subjects, EMPTY_VIEW);
    Refusal { meter, level: metered.level, wait: Some(SWEEP_EVERY), view }
}

/// Some of the subjects, hashed with a random key so that nobody can choose names that collide.
#[derive(Default)]
struct Shard {
    accounts: HashMap<Subject, Account>,
    capacity: usize,
    next_sweep_ns: u64,
}

impl Shard {
    /// The account of a subject, opened if it is a new one; `None` if there is no room for it.
    fn account(&mut self, subject: Subject) -> Option<Account> {
        if self.accounts.len() >= self.capacity {
            return self.accounts.get(&subject).copied();
        }
        Some(*self.accounts.entry(subject).or_default())
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

const SUBJECTS: usize = 1_000_000;
const SHARDS: usize = 64;
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const EMPTY_VIEW: QuotaView = QuotaView { requests: None, tokens: None, gpu_ms: None };

#[cfg(test)]
mod tests;
