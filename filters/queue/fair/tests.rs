use std::collections::BTreeMap;

use super::*;

const MS: u64 = 1_000_000;

const fn who(user: UserId, weight: u32) -> Who {
    Who { user, weight }
}

/// An upstream, the turns of which end when the test says so.
struct Upstream {
    fair: Fair<UserId>,
    now: u64,
    turns: Vec<(UserId, Lease)>,
}

impl Upstream {
    fn new() -> Self {
        Self { fair: Fair::new(MS), now: 0, turns: vec![] }
    }

    fn park(&mut self, who: Who, times: usize) {
        for _ in 0..times {
            self.fair.park(who, who.user, self.now);
        }
    }

    fn start(&mut self, who: Who) {
        let lease = self.fair.start(who, self.now);
        self.turns.push((who.user, lease));
    }

    fn serve(&mut self) -> Option<UserId> {
        let (lease, user) = self.fair.serve(self.now)?;
        self.turns.push((user, lease));
        Some(user)
    }

    /// Ends the oldest turn of a user.
    fn finish(&mut self, user: UserId) {
        let at = self.turns.iter().position(|(of, _)| *of == user).unwrap();
        self.fair.finish(self.turns.remove(at).1, self.now);
    }

    /// Ends the oldest turn, and gives the slot to the next; so many times.
    fn hand_over(&mut self, times: usize, took: u64) -> Vec<UserId> {
        let mut served = vec![];
        for _ in 0..times {
            self.now += took;
            self.finish(self.turns[0].0);
            served.extend(self.serve());
        }
        served
    }
}

/// Users that always have waiters: weight, and from how many to how many ms a turn takes. Gives the
/// part of the time of all slots that each user had.
fn shares(slots: usize, users: &[(u32, u64, u64)]) -> Vec<f64> {
    let mut fair = Fair::new(20 * MS);
    let mut ends = BTreeMap::new();
    let (mut now, mut random, mut had) = (0, 1_u64, vec![0; users.len()]);
    for (id, (weight, ..)) in users.iter().enumerate() {
        (0..slots * 2).for_each(|_| _ = fair.park(who(id as UserId, *weight), id, now));
    }
    for number in 0..60_000 {
        while fair.running() < slots {
            let (lease, id) = fair.serve(now).unwrap();
            let (weight, least, most) = users[id];
            fair.park(who(id as UserId, weight), id, now);
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let took = (least + (random >> 33) % (most - least + 1)) * MS;
            ends.insert((now + took, number, fair.running()), (lease, id, took));
        }
        let ((end, ..), (lease, id, took)) = ends.pop_first().unwrap();
        now = end;
        had[id] += took;
        fair.finish(lease, now);
    }
    let all: u64 = had.iter().sum();
    had.iter().map(|had| *had as f64 / all as f64).collect()
}

#[test]
fn slots_are_shared_by_weight_whatever_turns_take() {
    type Users<'a> = &'a [(u32, u64, u64)];
    let cases: [(Users<'_>, &[f64]); 4] = [
        (&[(1, 10, 30), (2, 10, 30), (4, 10, 30)], &[1. / 7., 2. / 7., 4. / 7.]),
        (&[(1, 1000, 3000), (1, 5, 15)], &[0.5, 0.5]),
        (&[(1, 5, 15), (3, 500, 1500)], &[0.25, 0.75]),
        (&[(1, 0, 200), (1, 100, 100), (2, 1, 1)], &[0.25, 0.25, 0.5]),
    ];
    for (users, expected) in cases {
        for slots in [1, 3, 8] {
            let shares = shares(slots, users);
            let off = |(share, expected): (&f64, &f64)| (share / expected - 1.0).abs();
            let worst = shares.iter().zip(expected).map(off).fold(0.0, f64::max);
            assert!(worst < 0.05, "{users:?} on {slots} slots: {shares:?}");
        }
    }
}

#[test]
fn users_take_turns_and_each_is_served_in_order() {
    let mut upstream = Upstream::new();
    upstream.start(who(1, 1));
    upstream.park(who(1, 1), 3);
    upstream.park(who(2, 1), 3);
    upstream.park(who(3, 1), 1);
    assert_eq!(upstream.hand_over(8, MS), [2, 3, 1, 2, 1, 2, 1]);
    assert!(upstream.fair.users.is_empty(), "nobody is remembered in an idle queue");
}

#[test]
fn who_holds_all_slots_stands_behind_who_holds_none() {
    let mut upstream = Upstream::new();
    (0..4).for_each(|_| upstream.start(who(1, 1)));
    upstream.park(who(1, 1), 9);
    upstream.now += 60_000 * MS;
    upstream.park(who(2, 1), 4);
    assert_eq!(upstream.hand_over(2, 0), [2, 2], "before user 1 gets another");
}

#[test]
fn a_long_turn_counts_while_it_runs() {
    let mut upstream = Upstream::new();
    upstream.start(who(1, 1));
    upstream.start(who(2, 1));
    upstream.park(who(1, 1), 50);
    upstream.park(who(2, 1), 50);
    // The turn of user 1 never ends; the other slot is handed over every millisecond.
    let mut served = vec![2];
    for _ in 0..40 {
        upstream.now += MS;
        let (_, lease) = upstream.turns.remove(1);
        upstream.fair.finish(lease, upstream.now);
        served.extend(upstream.serve());
    }
    let second = served.iter().filter(|user| **user == 1).count();
    assert!(second <= 2, "{served:?}");
}

#[test]
fn a_slot_that_nobody_else_wanted_costs_nothing() {
    let mut upstream = Upstream::new();
    (0..3).for_each(|_| upstream.start(who(1, 1)));
    upstream.now += 600_000 * MS;
    upstream.start(who(2, 1));
    (0..3).for_each(|_| upstream.finish(1));
    (0..3).for_each(|_| upstream.start(who(2, 1)));
    upstream.park(who(2, 1), 5);
    upstream.park(who(1, 1), 5);
    assert_eq!(upstream.hand_over(2, MS), [1, 1]);
}

#[test]
fn who_comes_back_still_has_its_debt_and_a_newcomer_has_some_credit() {
    let mut upstream = Upstream::new();
    upstream.start(who(1, 1));
    upstream.park(who(2, 1), 30);
    upstream.park(who(3, 1), 30);
    assert_eq!(upstream.hand_over(1, 10 * MS), [2]);
    upstream.park(who(1, 1), 2);
    let served = upstream.hand_over(24, MS);
    let first = served.iter().position(|user| *user == 1);
    assert!(first.is_some_and(|at| (18..=22).contains(&at)), "10 turns late: {served:?}");
    upstream.park(who(4, 1), 30);
    let served = upstream.hand_over(30, MS);
    let ahead = served.iter().take_while(|user| **user == 4).count() as u128;
    assert!((CREDIT..=CREDIT + 1).contains(&ahead), "its credit: {served:?}");
    let after = served[10..].iter().filter(|user| **user == 4).count();
    assert!((6..=8).contains(&after), "then a third of the turns: {served:?}");
}

#[test]
fn debts_are_few() {
    let mut upstream = Upstream::new();
    upstream.park(who(0, 1), 1);
    for user in 1..=2 * DEBTORS as u128 {
        let lease = upstream.fair.start(who(user, 1), upstream.now);
        upstream.now += MS;
        upstream.fair.finish(lease, upstream.now);
        assert!(upstream.fair.users.len() <= DEBTORS + 1);
    }
    assert_eq!(upstream.fair.users.len(), DEBTORS + 1);
    upstream.serve();
    upstream.finish(0);
    assert!(upstream.fair.users.is_empty());
}

#[test]
fn the_newest_of_whoever_has_most_is_pushed_out() {
    for (parked, newcomer, expected) in [
        (&[(who(1, 1), 3), (who(2, 1), 2)][..], who(3, 1), Some(1)),
        (&[(who(1, 4), 3), (who(2, 1), 2)], who(3, 1), Some(2)),
        (&[(who(1, 1), 3), (who(2, 1), 2)], who(2, 1), None),
        (&[(who(1, 1), 4), (who(2, 1), 2)], who(2, 1), Some(1)),
        (&[(who(1, 1), 1), (who(2, 1), 1)], who(3, 1), None),
        (&[(who(1, 1), 1), (who(2, 1), 1)], who(3, 2), Some(2)),
        (&[(who(1, 1), 4)], who(1, 1), None),
        (&[], who(1, 1), None),
    ] {
        let mut fair = Fair::new(MS);
        let parked = parked.iter().flat_map(|(who, times)| (0..*times).map(move |n| (*who, n)));
        parked.clone().for_each(|(who, n)| _ = fair.park(who, n, 0));
        let loser = fair.push_out(newcomer, 0);
        assert_eq!(loser.map(|(who, _)| who.user), expected, "{newcomer:?}");
        let newest = expected.and_then(|id| parked.clone().rfind(|(who, _)| who.user == id));
        assert_eq!(loser.map(|(_, n)| n), newest.map(|(_, n)| n), "{newcomer:?}");
    }
}

#[test]
fn the_position_is_by_shares() {
    let mut fair = Fair::new(MS);
    assert_eq!(fair.position(who(1, 1)), 1);
    (0..30).for_each(|n| _ = fair.park(who(1, 1), n, 0));
    (0..30).for_each(|n| _ = fair.park(who(2, 3), n, 0));
    for (who, expected) in
        [(who(3, 1), 5), (who(3, 4), 2), (who(1, 1), 61), (who(2, 3), 42), (who(3, 0), 5)]
    {
        assert_eq!(fair.position(who), expected, "{who:?}");
    }
}

#[test]
fn a_waiter_leaves_once() {
    let mut fair = Fair::new(MS);
    let ticket = fair.park(who(1, 1), "first", 0);
    let second = fair.park(who(1, 1), "second", 0);
    assert_eq!(fair.withdraw(2, ticket, 0), None);
    assert_eq!(fair.withdraw(1, ticket, 0), Some("first"));
    assert_eq!(fair.withdraw(1, ticket, 0), None);
    assert_eq!((fair.waiting(), fair.waiting_of(1)), (1, 1));
    assert_eq!(fair.withdraw(1, second, 0), Some("second"));
    assert!(fair.users.is_empty());
}
