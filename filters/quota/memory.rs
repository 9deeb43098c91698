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

mod keyed;
mod shards;
mod sync;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Clock;

use super::account::{Account, Now, Places};
use super::answer_headers::QuotaView;
use super::charge::Charge;
use super::demand::{Demand, Metered, Subject};
use super::refusal::{Meter, Refusal};
use super::reservation::{Hold, Reservation};
use super::{Consumption, Counters, Unavailable};
use keyed::Keyed;
use shards::{LockedShards, SWEEP_EVERY, Shards};
use sync::{AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError};

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
        Self { books: Arc::new(Books::new(clock, Shards::new(subjects, Keyed::random()))) }
    }
}

#[async_trait]
impl Counters for MemoryCounters {
    async fn reserve(&self, demand: Demand) -> Result<Reservation, Refusal> {
        let (claim, view) = self.books.reserve(demand, self.books.now())?;
        let reserved = claim.reserved;
        let hold = MemoryHold { books: Arc::clone(&self.books), claim: Mutex::new(Some(claim)) };
        Ok(Reservation::new(Box::new(hold), reserved, view))
    }

    async fn consumption(&self, subject: Subject) -> Result<Consumption, Unavailable> {
        Ok(self.books.consumption(subject, self.books.now()))
    }

    async fn reset(&self, subject: Subject, _number: u64) -> Result<(), Unavailable> {
        self.books.shards.with_account(subject, Account::reset);
        Ok(())
    }

    fn open_reservations(&self) -> usize {
        self.books.open.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct MemoryHold {
    books: Arc<Books>,
    claim: Mutex<Option<Claim>>,
}

impl MemoryHold {
    fn claim(&self) -> MutexGuard<'_, Option<Claim>> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Hold for MemoryHold {
    fn settle(&self, charge: Charge) {
        if let Some(claim) = self.claim().take() {
            self.books.settle(&claim, charge, self.books.now());
        }
    }

    async fn grow(&self, more: Charge) -> Charge {
        let mut claim = self.claim();
        let grown = claim.as_mut().map(|claim| self.books.grow(claim, more, self.books.now()));
        grown.unwrap_or_default()
    }
}

/// Where a reservation stands, and for how much.
#[derive(Debug)]
struct Claim {
    reserved: Charge,
    levels: Vec<Metered>,
    /// At each of the levels.
    places: Vec<Places>,
}

struct Books {
    clock: Clock,
    shards: Shards,
    open: AtomicUsize,
}

impl Books {
    const fn new(clock: Clock, shards: Shards) -> Self {
        Self { clock, shards, open: AtomicUsize::new(0) }
    }

    fn now(&self) -> Now {
        Now { unix_ms: self.clock.unix_ms(), monotonic_ns: self.clock.monotonic_ns() }
    }

    fn reserve(&self, demand: Demand, now: Now) -> Result<(Claim, QuotaView), Refusal> {
        let mut shards = self.shards.lock(demand.levels().iter().map(|metered| metered.subject));
        shards.sweep(now);
        open(&mut shards, demand.levels(), now);
        let decision = decide(&mut shards, &demand, now)
            .map(|granted| (granted, admit(&mut shards, demand.levels(), granted, now)));
        let view = view(&mut shards, demand.levels(), now);
        drop(shards);

        let (reserved, places) = decision.map_err(|refusal| Refusal { view, ..refusal })?;
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok((Claim { reserved, levels: demand.into_levels(), places }, view))
    }

    /// Holds more on all levels of a claim, as much as all of them have room for.
    fn grow(&self, claim: &mut Claim, more: Charge, now: Now) -> Charge {
        let mut shards = self.shards.lock(claim.levels.iter().map(|metered| metered.subject));
        open(&mut shards, &claim.levels, now);
        let mut granted = Charge { prompt: 0, ..more };
        for metered in &claim.levels {
            if let Some(account) = shards.account(metered.subject) {
                granted = account.clamp(&metered.limits, granted);
            }
        }
        for (metered, places) in claim.levels.iter().zip(&mut claim.places) {
            if let Some(account) = shards.account(metered.subject) {
                account.grow(places, granted);
            }
        }
        drop(shards);
        claim.reserved = claim.reserved.plus(granted);
        granted
    }

    /// Pays at one level after the other: a payment is never refused, so nobody can see half of a
    /// decision.
    fn settle(&self, claim: &Claim, charge: Charge, now: Now) {
        for (metered, places) in claim.levels.iter().zip(&claim.places) {
            self.shards.with_account(metered.subject, |account| {
                account.settle(places, claim.reserved, charge, now);
            });
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn consumption(&self, subject: Subject, now: Now) -> Consumption {
        let consumption = |account: &mut Account| account.consumption(now);
        self.shards.with_account(subject, consumption).unwrap_or_default()
    }
}

impl fmt::Debug for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Books").field("open", &self.open).finish_non_exhaustive()
    }
}

/// Opens the accounts of all levels, and brings them to this moment. The levels wait for memory at
/// the same time then, not one after the other: that is a fifth of all the time, with many subjects.
fn open(shards: &mut LockedShards<'_>, levels: &[Metered], now: Now) {
    for metered in levels {
        if let Some(account) = shards.open(metered.subject) {
            account.advance(&metered.limits, now);
        }
    }
}

/// How much of the estimate all levels have room for, or which of them refuses the longest: after
/// its wait all the others are over as well.
fn decide(shards: &mut LockedShards<'_>, demand: &Demand, now: Now) -> Result<Charge, Refusal> {
    let (mut granted, mut worst) = (demand.estimate, None);
    for metered in demand.levels() {
        let obstacle = match shards.account(metered.subject) {
            Some(account) => {
                granted = account.clamp(&metered.limits, granted);
                account.obstacle(&metered.limits, demand.least, now)
            }
            None => Some((Meter::Subjects, Some(SWEEP_EVERY))),
        };
        let refusal = obstacle.map(|(meter, wait)| refusal(metered, meter, wait));
        worst = worst.into_iter().chain(refusal).max_by_key(severity);
    }
    worst.map_or(Ok(granted), Err)
}

const fn refusal(metered: &Metered, meter: Meter, wait: Option<Duration>) -> Refusal {
    Refusal { meter, level: metered.level, wait, view: QuotaView::NONE }
}

fn severity(refusal: &Refusal) -> Duration {
    refusal.wait.unwrap_or(Duration::MAX)
}

fn admit(
    shards: &mut LockedShards<'_>,
    levels: &[Metered],
    granted: Charge,
    now: Now,
) -> Vec<Places> {
    let mut admit = |metered: &Metered| {
        let account = shards.account(metered.subject);
        account.map(|account| account.admit(metered, granted, now)).unwrap_or_default()
    };
    levels.iter().map(&mut admit).collect()
}

/// The tightest meters of all levels.
fn view(shards: &mut LockedShards<'_>, levels: &[Metered], now: Now) -> QuotaView {
    let mut view = QuotaView::NONE;
    for metered in levels {
        if let Some(account) = shards.account(metered.subject) {
            account.show(&metered.limits, now, &mut view);
        }
    }
    view
}

const SUBJECTS: usize = 1_000_000;

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests;

#[cfg(test)]
#[cfg(feature = "shuttle")]
mod interleavings;
