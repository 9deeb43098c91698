//! The users in the orders that are asked for: whose turn is next, who fills the queue, who owes.

use std::collections::BTreeSet;

use super::user::{Standing, UserId};

/// Ordered views of the users. A user is taken out before it changes and put in again after.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Users with waiters, by when their next turn is due; of equals, who was served longest ago.
    turns: BTreeSet<(u128, u64, UserId)>,
    /// Users with waiters, by how much of the queue is theirs.
    crowds: BTreeSet<(u128, UserId)>,
    /// Users that nothing runs or waits for, by when they owe nothing and
    /// have their credit.
    debts: BTreeSet<(u128, UserId)>,
    sums: Sums,
}

/// Sums over all users, and over those with waiters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) running: usize,
    pub(super) waiting: usize,
    /// Turns of users that have waiters too.
    pub(super) running_of_waiting: u64,
    pub(super) weight_of_waiting: u64,
}

impl Index {
    pub(super) fn insert(&mut self, id: UserId, user: &Standing) {
        self.sums.running += user.running as usize;
        self.sums.waiting += user.waiting;
        if user.is_idle() {
            self.debts.insert((user.clear, id));
        } else if user.waiting > 0 {
            self.sums.running_of_waiting += u64::from(user.running);
            self.sums.weight_of_waiting += u64::from(user.weight);
            self.turns.insert((user.due, user.served, id));
            self.crowds.insert((user.crowd(0), id));
        }
    }

    pub(super) fn remove(&mut self, id: UserId, user: &Standing) {
        self.sums.running -= user.running as usize;
        self.sums.waiting -= user.waiting;
        if user.is_idle() {
            self.debts.remove(&(user.clear, id));
        } else if user.waiting > 0 {
            self.sums.running_of_waiting -= u64::from(user.running);
            self.sums.weight_of_waiting -= u64::from(user.weight);
            self.turns.remove(&(user.due, user.served, id));
            self.crowds.remove(&(user.crowd(0), id));
        }
    }

    /// When the next turn is due, and whose it is.
    pub(super) fn next(&self) -> Option<(u128, UserId)> {
        self.turns.first().map(|(due, _, id)| (*due, *id))
    }

    /// The user with the most waiters by its weight, and how many that are.
    pub(super) fn fullest(&self) -> Option<(u128, UserId)> {
        self.crowds.last().copied()
    }

    /// Takes out an idle user that owes nothing at `now`, or one too many of those that do.
    pub(super) fn forget(&mut self, now: u128, keep: usize) -> Option<UserId> {
        let (clear, id) = *self.debts.first()?;
        let forgotten = clear <= now || self.debts.len() > keep;
        forgotten.then(|| self.debts.remove(&(clear, id))).map(|_| id)
    }

    pub(super) const fn sums(&self) -> Sums {
        self.sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(waiting: usize, due: u128, served: u64) -> Standing {
        Standing { weight: 2, running: 3, waiting, clear: due, due, served }
    }

    #[test]
    fn users_are_ordered_by_what_is_asked() {
        let mut index = Index::default();
        let users = [(1, standing(5, 70, 9)), (2, standing(1, 70, 8)), (3, standing(0, 10, 1))];
        users.iter().for_each(|(id, user)| index.insert(*id, user));
        assert_eq!(index.next(), Some((70, 2)));
        assert_eq!(index.fullest().map(|(_, id)| id), Some(1));
        let sums = Sums { running: 9, waiting: 6, running_of_waiting: 6, weight_of_waiting: 4 };
        assert_eq!(index.sums(), sums);
        users.iter().for_each(|(id, user)| index.remove(*id, user));
        assert_eq!(index.sums(), Sums::default());
        assert_eq!((index.next(), index.fullest()), (None, None));
    }

    #[test]
    fn idle_users_are_remembered_while_they_owe_and_are_few() {
        let mut index = Index::default();
        for id in 1..=4 {
            index.insert(id, &Standing { clear: id * 10, ..Standing::default() });
        }
        assert_eq!(index.forget(5, 4), None);
        assert_eq!(index.forget(10, 4), Some(1));
        assert_eq!(index.forget(10, 4), None);
        assert_eq!(index.forget(10, 2), Some(2), "the smallest debt");
        assert_eq!(index.forget(10, 2), None);
    }
}
