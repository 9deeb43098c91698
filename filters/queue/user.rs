//! One user of an upstream: who waits for it, in what order, and what its turns have cost.
//!
//! Costs are nanoseconds of slots. Divided by the user's weight they are virtual time, in which
//! users are compared: whoever has had the least comes next.

use std::collections::BTreeMap;

/// Whom a place belongs to.
pub(super) type UserId = u128;

/// Of what a running turn has held, this part is charged ahead, so that it is charged seldom.
const AHEAD: u128 = 8;

/// What a user has had, and who waits in its name.
#[derive(Debug)]
pub(super) struct User<T> {
    weight: u32,
    /// Virtual time of the turns that were given back, on top of where the user came in.
    settled: u128,
    /// Nanoseconds that are charged for the turns that run.
    charged: u128,
    running: u32,
    /// Sum of the moments at which the running turns began.
    begun: u128,
    /// By the number of their tickets: the first came first.
    waiters: BTreeMap<u64, T>,
    /// The number of the last turn it was given.
    served: u64,
    /// How the index knows it.
    pub(super) standing: Standing,
}

/// Where somebody starts of whom nobody waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    /// What everybody is due.
    pub(super) due: u128,
    /// When the first of those that wait is due: nobody starts behind it.
    pub(super) next: Option<u128>,
    /// Nanoseconds that one may have saved up.
    pub(super) credit: u128,
}

/// By what users are compared.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    pub(super) weight: u32,
    pub(super) running: u32,
    pub(super) waiting: usize,
    /// Virtual time from which nothing of what it has had matters any more.
    pub(super) clear: u128,
    /// Virtual time at which its next turn is due.
    pub(super) due: u128,
    pub(super) served: u64,
}

impl<T> Default for User<T> {
    fn default() -> Self {
        Self {
            weight: 1,
            settled: 0,
            charged: 0,
            running: 0,
            begun: 0,
            waiters: BTreeMap::new(),
            served: 0,
            standing: Standing::default(),
        }
    }
}

impl<T> User<T> {
    /// Takes the weight of the latest request; a reload may have changed it.
    pub(super) fn weigh(&mut self, weight: u32) {
        self.weight = weight.max(1);
    }

    /// Who was away may have saved up some credit, and no more.
    pub(super) fn come_in(&mut self, floor: &Floor, now: u64) {
        if self.waiters.is_empty() {
            let saved = floor.due.saturating_sub(self.virtual_time(floor.credit));
            let floor = floor.next.map_or(saved, |next| saved.min(next));
            self.settled += floor.saturating_sub(self.progress(now));
        }
    }

    pub(super) fn park(&mut self, ticket: u64, waiter: T) {
        self.waiters.insert(ticket, waiter);
    }

    pub(super) fn oldest(&mut self) -> Option<T> {
        self.waiters.pop_first().map(|(_, waiter)| waiter)
    }

    pub(super) fn newest(&mut self) -> Option<T> {
        self.waiters.pop_last().map(|(_, waiter)| waiter)
    }

    pub(super) fn has(&self, ticket: u64) -> bool {
        self.waiters.contains_key(&ticket)
    }

    pub(super) fn withdraw(&mut self, ticket: u64) -> Option<T> {
        self.waiters.remove(&ticket)
    }

    /// Begins a turn, the expected cost of which is charged. Gives the user's progress.
    pub(super) fn start(&mut self, number: u64, now: u64, expected: u64) -> u128 {
        let progress = self.progress(now);
        self.running += 1;
        self.begun += u128::from(now);
        self.charged += u128::from(expected);
        self.served = number;
        progress
    }

    /// Ends a turn: what it has cost takes the place of what was charged.
    pub(super) fn finish(&mut self, began: u64, now: u64) {
        self.charged -= self.charged / u128::from(self.running.max(1));
        self.running = self.running.saturating_sub(1);
        self.begun = self.begun.saturating_sub(u128::from(began));
        self.settled += self.virtual_time(now.saturating_sub(began).into());
    }

    /// Charges turns that run for longer than was thought. Says whether there were any.
    pub(super) fn catch_up(&mut self, now: u64) -> bool {
        let held = self.held(now);
        let behind = held > self.charged;
        if behind {
            self.charged = held + held / AHEAD;
        }
        behind
    }

    /// How the user stands now, with so much credit.
    pub(super) fn stand(&mut self, credit: u128) -> Standing {
        self.standing = Standing {
            weight: self.weight,
            running: self.running,
            waiting: self.waiters.len(),
            clear: self.settled + self.virtual_time(credit),
            due: self.settled + self.virtual_time(self.charged),
            served: self.served,
        };
        self.standing
    }

    /// Virtual time that was used up so far.
    fn progress(&self, now: u64) -> u128 {
        self.settled + self.virtual_time(self.held(now))
    }

    fn virtual_time(&self, nanoseconds: u128) -> u128 {
        nanoseconds / u128::from(self.weight)
    }

    /// Nanoseconds for which the running turns have been held.
    fn held(&self, now: u64) -> u128 {
        (u128::from(self.running) * u128::from(now)).saturating_sub(self.begun)
    }
}

impl Standing {
    /// How much of the queue is the user's, by its weight; with `more` waiters than it has.
    pub(super) fn crowd(&self, more: usize) -> u128 {
        ((self.waiting.saturating_add(more) as u128) << 32) / u128::from(self.weight.max(1))
    }

    /// Nothing of the user's runs or waits.
    pub(super) const fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(user: &mut User<()>) -> u128 {
        user.stand(100).due
    }

    #[test]
    fn a_turn_is_charged_ahead_and_paid_as_held() {
        let mut user = User::default();
        user.weigh(2);
        assert_eq!(user.start(1, 100, 1000), 0);
        assert_eq!(user.start(2, 100, 1000), 0);
        assert_eq!(due(&mut user), 1000);
        user.finish(100, 300);
        assert_eq!(due(&mut user), 100 + 500);
        user.finish(100, 5100);
        assert_eq!(due(&mut user), 100 + 2500);
        assert!(user.standing.is_idle());
    }

    #[test]
    fn a_long_turn_is_charged_while_it_runs() {
        let mut user = User::default();
        user.start(1, 0, 1000);
        assert!(!user.catch_up(1000));
        assert!(user.catch_up(8000));
        assert_eq!(due(&mut user), 9000);
        assert!(!user.catch_up(9000));
        let charges = (0..600_000).filter(|ms| user.catch_up(ms * 1000)).count();
        assert!(charges < 110, "{charges} charges in a turn of 600,000 times the expected");
        user.finish(0, 10_000);
        assert_eq!(due(&mut user), 10_000);
    }

    #[test]
    fn who_was_away_has_some_credit_and_who_waits_keeps_its_own() {
        let floor = |due, next| Floor { due, next, credit: 100 };
        let mut user = User::default();
        user.weigh(2);
        user.come_in(&floor(550, None), 0);
        assert_eq!(due(&mut user), 500);
        user.start(1, 0, 200);
        user.come_in(&floor(600, None), 80);
        assert_eq!(due(&mut user), 510 + 100, "40 of the 550 are being used now");
        user.come_in(&floor(9000, Some(560)), 80);
        assert_eq!(due(&mut user), 520 + 100, "not behind the one that is next");
        user.park(7, ());
        user.come_in(&floor(9000, None), 80);
        assert_eq!(due(&mut user), 620);
        assert_eq!(user.standing.clear, 520 + 50);
        assert!(user.has(7) && !user.has(8));
    }

    #[test]
    fn the_share_of_the_queue_is_by_weight() {
        let standing = |weight, waiting| Standing { weight, waiting, ..Standing::default() };
        assert_eq!(standing(2, 4).crowd(0), standing(1, 2).crowd(0));
        assert!(standing(4, 4).crowd(1) > standing(1, 1).crowd(0));
        assert!(standing(0, usize::MAX).crowd(usize::MAX) > 0);
    }
}
