//! The slots of one upstream, and who holds them.
//!
//! One lock guards the order of the waiters and the limits; it is held for well under a microsecond
//! and never while somebody is told something. A turn is made under the lock and sent after it, as
//! one that cannot be delivered comes back by being dropped.
//!
//! While nothing is limited nobody takes the lock: turns are only counted. `limited` and `unlimited`
//! are written and read in one order by all threads (`SeqCst`), so either an entering request sees
//! the new limit, or who sets it sees that request.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::fair::{Fair, Lease};
use super::overflow::{Cause, Overflow};
use super::pace::Pace;
use super::place::{Place, Told};
use super::turn::{Held, Turn};
use super::{QueueLimits, Who};
use crate::clock::Clock;

/// What is shared by the queue, its waiters and its turns.
pub(super) struct Slots {
    clock: Clock,
    /// Whether there is a limit, so that turns go through the lock.
    limited: AtomicBool,
    /// Turns that were given while there was none.
    unlimited: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    limits: QueueLimits,
    fair: Fair<Waiter>,
    pace: Pace,
}

struct Waiter {
    since: u64,
    tell: oneshot::Sender<Told>,
}

/// What became of a request that came.
pub(super) enum Joined {
    Served(Turn),
    Waiting(Place),
}

impl Slots {
    pub(super) fn new(limits: QueueLimits, clock: Clock) -> Self {
        let pace = Pace::default();
        let state = State { limits, fair: Fair::new(pace.expected()), pace };
        Self {
            clock,
            limited: AtomicBool::new(limits.concurrent.is_some()),
            unlimited: AtomicUsize::new(0),
            state: Mutex::new(state),
        }
    }

    /// A turn without a lock, if nothing is limited.
    pub(super) fn pass(self: &Arc<Self>) -> Option<Turn> {
        if self.is_limited() {
            return None;
        }
        self.unlimited.fetch_add(1, Ordering::SeqCst);
        let turn = Turn::new(Arc::clone(self), Held::Unlimited, Duration::ZERO);
        // A limit that was set meanwhile may not have seen this turn: it is given back.
        (!self.is_limited()).then_some(turn)
    }

    /// A turn if a slot is free, else a place in the queue.
    pub(super) fn join(self: &Arc<Self>, who: Who) -> Result<Joined, Overflow> {
        let now = self.clock.monotonic_ns();
        let mut state = self.lock();
        if state.fair.waiting() == 0 && self.has_free(&state) {
            let held = state.start(who, now);
            drop(state);
            return Ok(Joined::Served(self.turn(held, Duration::ZERO)));
        }
        let pushed_out = state.make_room(who, now)?;
        let (tell, told) = oneshot::channel();
        let ticket = state.fair.park(who, Waiter { since: now, tell }, now);
        let deadline = state.limits.deadline;
        drop(state);
        if let Some((waiter, overflow)) = pushed_out {
            drop(waiter.tell.send(Err(overflow)));
        }
        self.serve();
        Ok(Joined::Waiting(Place::new(Arc::clone(self), who, ticket, told, deadline)))
    }

    /// Takes a waiter out whose time is over. `None` if it has been told something already.
    pub(super) fn expire(&self, who: Who, ticket: u64) -> Option<Overflow> {
        let now = self.clock.monotonic_ns();
        let mut state = self.lock();
        let waiter = state.fair.withdraw(who.user, ticket, now)?;
        Some(state.overflow(Cause::Late, who, waiter.since, now))
    }

    /// Takes a waiter out that has left.
    pub(super) fn leave(&self, who: Who, ticket: u64) {
        let now = self.clock.monotonic_ns();
        let waiter = self.lock().fair.withdraw(who.user, ticket, now);
        drop(waiter);
    }

    /// Takes a slot back, and gives it to the next.
    pub(super) fn release(self: &Arc<Self>, held: Held) {
        let somebody_waits = match held {
            Held::Slot { lease, began } => self.lock().finish(lease, began, &self.clock),
            Held::Unlimited => {
                self.unlimited.fetch_sub(1, Ordering::SeqCst);
                self.is_limited()
            }
        };
        if somebody_waits {
            self.serve();
        }
    }

    pub(super) fn set_limits(self: &Arc<Self>, limits: QueueLimits) {
        let mut state = self.lock();
        state.limits = limits;
        self.limited.store(limits.concurrent.is_some(), Ordering::SeqCst);
        drop(state);
        self.serve();
    }

    pub(super) fn depth(&self) -> usize {
        self.lock().fair.waiting()
    }

    pub(super) fn running(&self) -> usize {
        self.unlimited.load(Ordering::SeqCst) + self.lock().fair.running()
    }

    /// Gives free slots to waiters. A turn that cannot be delivered is dropped, and comes back.
    fn serve(self: &Arc<Self>) {
        while let Some((tell, turn)) = self.next() {
            drop(tell.send(Ok(turn)));
        }
    }

    fn next(self: &Arc<Self>) -> Option<(oneshot::Sender<Told>, Turn)> {
        let now = self.clock.monotonic_ns();
        let mut state = self.lock();
        if !self.has_free(&state) {
            return None;
        }
        let (held, waiter) = state.serve(now)?;
        drop(state);
        let waited = Duration::from_nanos(now.saturating_sub(waiter.since));
        Some((waiter.tell, self.turn(held, waited)))
    }

    fn has_free(&self, state: &State) -> bool {
        let running = || state.fair.running() + self.unlimited.load(Ordering::SeqCst);
        state.limits.concurrent.is_none_or(|slots| running() < slots.get() as usize)
    }

    fn turn(self: &Arc<Self>, held: Held, waited: Duration) -> Turn {
        Turn::new(Arc::clone(self), held, waited)
    }

    fn is_limited(&self) -> bool {
        self.limited.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn start(&mut self, who: Who, now: u64) -> Held {
        let lease = self.fair.start(who, now);
        self.pace.started(now);
        Held::Slot { lease, began: now }
    }

    fn serve(&mut self, now: u64) -> Option<(Held, Waiter)> {
        let (lease, waiter) = self.fair.serve(now)?;
        self.pace.started(now);
        Some((Held::Slot { lease, began: now }, waiter))
    }

    /// Says whether somebody waits for the slot.
    fn finish(&mut self, lease: Lease, began: u64, clock: &Clock) -> bool {
        let now = clock.monotonic_ns();
        self.fair.finish(lease, now);
        self.pace.finished(began, now);
        self.fair.expect(self.pace.expected());
        self.fair.waiting() > 0
    }

    /// Sees to it that there is a place for one more, if need be that of another.
    fn make_room(&mut self, who: Who, now: u64) -> Result<Option<(Waiter, Overflow)>, Overflow> {
        let own = self.fair.waiting_of(who.user);
        if own >= self.limits.per_user {
            return Err(self.overflow(Cause::TooManyOfUser, who, now, now));
        }
        if self.fair.waiting() < self.limits.waiting {
            return Ok(None);
        }
        let Some((loser, waiter)) = self.fair.push_out(who, now) else {
            let cause = if own > 0 { Cause::ShareTaken } else { Cause::Full };
            return Err(self.overflow(cause, who, now, now));
        };
        let overflow = self.overflow(Cause::PushedOut, loser, waiter.since, now);
        Ok(Some((waiter, overflow)))
    }

    fn overflow(&self, cause: Cause, who: Who, since: u64, now: u64) -> Overflow {
        let position = self.fair.position(who);
        let retry_after = self.pace.wait(position, self.limits.concurrent, now);
        Overflow { cause, retry_after, waited: Duration::from_nanos(now.saturating_sub(since)) }
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} running, {} waiting", self.running(), self.depth())
    }
}
