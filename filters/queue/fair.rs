//! Whose turn it is: weighted fair queueing of slots over users.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996) with two changes for requests whose length
//! nobody knows. A turn is charged its expected time when it starts, more while it runs for longer,
//! and exactly what it held when it ends; so who holds slots stands behind who holds none. And time
//! counts only while somebody waits: a slot that nobody else wanted costs nothing.
//!
//! Virtual time stands for what a user is due that always wants more: it grows as fast as the
//! progress of the users that wait. Who comes, or comes back, starts from there, less a small credit
//! for what it did not use, so that its requests need not come evenly: without it a user that keeps
//! to its share would still wait whenever two of its requests come at one time.
//!
//! No method costs more than `O(log users)`, except that a turn which outlives its expected time is
//! charged again, a number of times logarithmic in its length.

use std::collections::HashMap;

use super::Who;
use super::index::Index;
use super::user::{Floor, Standing, User, UserId};

/// Users with neither turns nor waiters whose debt is remembered; of more, the smallest is forgotten.
const DEBTORS: usize = 4096;

/// Turns that a user may be ahead of the others after it used less than its share.
const CREDIT: u128 = 8;

/// The users of one upstream, with what stands for each waiter.
#[derive(Debug)]
pub(super) struct Fair<T> {
    users: HashMap<UserId, User<T>>,
    index: Index,
    time: Time,
    /// Nanoseconds that a turn will take.
    expected: u64,
    /// Waiters and turns that there have been so far.
    numbers: u64,
}

/// A turn that was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    user: UserId,
    /// In contended time.
    began: u64,
}

/// The two clocks, in nanoseconds.
#[derive(Debug, Default)]
struct Time {
    /// When they were last moved.
    moved: u64,
    /// Counts while somebody waits.
    contended: u64,
    /// What was due to a user of weight 1 that always wanted more.
    due: u128,
}

impl<T> Fair<T> {
    /// Nobody yet. A turn is expected to take so many nanoseconds.
    pub(super) fn new(expected: u64) -> Self {
        Self {
            users: HashMap::new(),
            index: Index::default(),
            time: Time::default(),
            expected,
            numbers: 0,
        }
    }

    /// Changes what a turn is expected to take.
    pub(super) const fn expect(&mut self, expected: u64) {
        self.expected = expected;
    }

    pub(super) const fn running(&self) -> usize {
        self.index.sums().running
    }

    pub(super) const fn waiting(&self) -> usize {
        self.index.sums().waiting
    }

    pub(super) fn waiting_of(&self, user: UserId) -> usize {
        self.standing(user).waiting
    }

    /// Gives a turn to somebody who need not wait.
    pub(super) fn start(&mut self, who: Who, now: u64) -> Lease {
        self.time.advance(&self.index, now);
        let (floor, number) = (self.floor(), self.number());
        let (began, expected) = (self.time.contended, self.expected);
        let progress = self.change(who.user, |user| {
            user.weigh(who.weight);
            user.come_in(&floor, began);
            user.start(number, began, expected)
        });
        self.time.reach(progress);
        Lease { user: who.user, began }
    }

    /// Adds a waiter behind the others of its user. Gives the number by which it can leave.
    pub(super) fn park(&mut self, who: Who, waiter: T, now: u64) -> u64 {
        self.time.advance(&self.index, now);
        let (floor, ticket) = (self.floor(), self.number());
        let contended = self.time.contended;
        self.change(who.user, |user| {
            user.weigh(who.weight);
            user.come_in(&floor, contended);
            user.park(ticket, waiter);
        });
        ticket
    }

    /// Gives a turn to the waiter who is next.
    pub(super) fn serve(&mut self, now: u64) -> Option<(Lease, T)> {
        self.time.advance(&self.index, now);
        let (user, number) = (self.next()?, self.number());
        let (began, expected) = (self.time.contended, self.expected);
        let (progress, waiter) =
            self.change(user, |user| (user.start(number, began, expected), user.oldest()));
        self.time.reach(progress);
        waiter.map(|waiter| (Lease { user, began }, waiter))
    }

    /// Takes a turn back.
    pub(super) fn finish(&mut self, lease: Lease, now: u64) {
        self.time.advance(&self.index, now);
        let contended = self.time.contended;
        self.change(lease.user, |user| user.finish(lease.began, contended));
    }

    /// Takes a waiter out, if it still waits.
    pub(super) fn withdraw(&mut self, user: UserId, ticket: u64, now: u64) -> Option<T> {
        self.users.get(&user).filter(|user| user.has(ticket))?;
        self.time.advance(&self.index, now);
        self.change(user, |user| user.withdraw(ticket))
    }

    /// Takes out the newest waiter of the user that has the most by its weight, if even with
    /// another one `who` has less.
    pub(super) fn push_out(&mut self, who: Who, now: u64) -> Option<(Who, T)> {
        let (crowd, fullest) = self.index.fullest()?;
        let newcomer = Standing { weight: who.weight, ..self.standing(who.user) };
        if newcomer.crowd(1) >= crowd {
            return None;
        }
        self.time.advance(&self.index, now);
        let loser = Who { user: fullest, weight: self.standing(fullest).weight };
        self.change(fullest, User::newest).map(|waiter| (loser, waiter))
    }

    /// How many turns will be given until another waiter of this user had its own: one for each of
    /// the user's own, and for each of those the shares of all others; at most all that wait.
    pub(super) fn position(&self, who: Who) -> u64 {
        let (sums, own) = (self.index.sums(), self.standing(who.user));
        let others = match own.waiting {
            0 => sums.weight_of_waiting,
            _ => sums.weight_of_waiting.saturating_sub(u64::from(own.weight)),
        };
        let weight = u64::from(who.weight.max(1));
        let turns = (own.waiting as u64 + 1).saturating_mul(others + weight).div_ceil(weight);
        turns.min(sums.waiting as u64 + 1)
    }

    /// The user who is next. What its turns have used meanwhile may put it behind another.
    fn next(&mut self) -> Option<UserId> {
        let contended = self.time.contended;
        loop {
            let (_, next) = self.index.next()?;
            if !self.change(next, |user| user.catch_up(contended)) {
                return Some(next);
            }
        }
    }

    /// Where a user starts that has nobody waiting.
    fn floor(&self) -> Floor {
        let next = self.index.next().map(|(due, _)| due);
        Floor { due: self.time.due, next, credit: self.credit() }
    }

    fn credit(&self) -> u128 {
        CREDIT * u128::from(self.expected)
    }

    fn standing(&self, user: UserId) -> Standing {
        self.users.get(&user).map(|user| user.standing).unwrap_or_default()
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The one way to change a user: the index follows, and who is of no more interest is forgotten.
    fn change<R>(&mut self, id: UserId, act: impl FnOnce(&mut User<T>) -> R) -> R {
        let credit = self.credit();
        let user = self.users.entry(id).or_default();
        self.index.remove(id, &user.standing);
        let result = act(user);
        self.index.insert(id, &user.stand(credit));
        self.forget();
        result
    }

    /// Forgets users that owe nothing; when the upstream is idle, nobody does.
    fn forget(&mut self) {
        let idle = self.running() == 0 && self.waiting() == 0;
        let keep = if idle { 0 } else { DEBTORS };
        while let Some(user) = self.index.forget(self.time.due, keep) {
            self.users.remove(&user);
        }
    }
}

impl Time {
    fn advance(&mut self, index: &Index, now: u64) {
        let elapsed = now.saturating_sub(self.moved);
        self.moved += elapsed;
        let sums = index.sums();
        if sums.waiting > 0 {
            self.contended += elapsed;
            self.due += u128::from(elapsed) * u128::from(sums.running_of_waiting)
                / u128::from(sums.weight_of_waiting.max(1));
        }
    }

    /// Nobody who waits is less far than the one that is served.
    fn reach(&mut self, progress: u128) {
        self.due = self.due.max(progress);
    }
}

#[cfg(test)]
mod tests;
