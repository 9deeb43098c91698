use std::thread;

use super::super::demand::{Ceiling, Level, Limits};
use super::super::gcra::Rate;
use super::super::window::{Spent, Window};
use super::super::{PerWindow, Resource};
use super::shards::SHARDS;
use super::*;

mod grow;
mod model;
mod room;
mod threads;

/// 2026-11-22T23:59:50Z: ten seconds before a minute, an hour and a day end, but not the month.
const EDGE: Now = Now { unix_ms: 1_795_391_990_000, monotonic_ns: 7_000_000 };

fn later(now: Now, ms: u64) -> Now {
    Now { unix_ms: now.unix_ms + ms, monotonic_ns: now.monotonic_ns + ms * 1_000_000 }
}

fn books(subjects_per_shard: usize) -> Books {
    Books::new(Clock::system(), Shards::new(subjects_per_shard * SHARDS, Keyed::random()))
}

fn tokens(completion: u64) -> Charge {
    Charge { completion, ..Charge::default() }
}

fn user(id: &str) -> Subject {
    Subject::new(Level::User, id)
}

fn key() -> Subject {
    Subject::new(Level::Key, "k1")
}

fn demand(estimate: Charge, limits: &Limits) -> Demand {
    Demand::new(1, estimate).level(Level::User, user("alice"), Arc::new(limits.clone()))
}

fn two_levels(estimate: Charge, of_user: &Limits, of_key: &Limits) -> Demand {
    demand(estimate, of_user).level(Level::Key, key(), Arc::new(of_key.clone()))
}

fn per(resource: Resource, window: Window, limit: u64) -> Limits {
    Limits { ceilings: vec![Ceiling { resource, window, limit }], ..Limits::default() }
}

fn tokens_per_minute(limit: u64) -> Limits {
    per(Resource::Tokens, Window::Minute, limit)
}

fn tokens_per_day(limit: u64) -> Limits {
    per(Resource::Tokens, Window::Day, limit)
}

/// Limits that nobody reaches.
fn roomy() -> Limits {
    Limits { concurrent: Some(1_000_000), ..Limits::default() }
}

impl Books {
    fn windows(&self, subject: Subject, now: Now) -> PerWindow<Spent> {
        self.consumption(subject, now).windows
    }
}

#[test]
fn all_levels_admit_or_none_is_charged() {
    let paced = Limits { pace: Rate::new(1, 1), ..Limits::default() };
    let one_slot = Limits { concurrent: Some(1), ..Limits::default() };
    let minute = Meter::Held(Resource::Tokens, Window::Minute);
    let day = Meter::Held(Resource::Tokens, Window::Day);
    // limits of the user and of the key, who refuses the second request of 60 tokens, and why
    let cases = [
        (tokens_per_day(100), roomy(), Level::User, day),
        (roomy(), tokens_per_day(100), Level::Key, day),
        (tokens_per_minute(100), tokens_per_day(100), Level::Key, day),
        (tokens_per_minute(100), paced.clone(), Level::Key, Meter::Pace), // the longer wait
        (tokens_per_day(1_000), paced.clone(), Level::Key, Meter::Pace),
        (one_slot, tokens_per_minute(100), Level::Key, minute),
        (paced, roomy(), Level::User, Meter::Pace),
    ];
    for (of_user, of_key, level, meter) in cases {
        let books = books(9);
        let ask = two_levels(tokens(60), &of_user, &of_key);
        let (first, after) = books.reserve(ask.clone(), EDGE).unwrap();
        let refusal = books.reserve(ask, EDGE).unwrap_err();
        assert_eq!((refusal.level(), refusal.meter()), (level, meter));
        assert_eq!(refusal.view(), after, "{meter:?}: a refusal takes nothing");
        for subject in [user("alice"), key()] {
            let held = books.consumption(subject, EDGE);
            assert_eq!((held.in_flight, held.windows.day.reserved), (1, tokens(60)), "{meter:?}");
        }
        books.settle(&first, tokens(10), EDGE);
        assert_eq!(books.windows(user("alice"), EDGE).day.used, tokens(10));
    }
}

#[test]
fn each_of_seven_levels_can_refuse() {
    let subjects = Level::ALL.map(|level| (level, Subject::new(level, "same name")));
    let ask = |strict: Level| {
        let limits = |level| if level == strict { tokens_per_day(100) } else { roomy() };
        let all = Demand::new(1, tokens(60));
        subjects.iter().fold(all, |demand, (level, subject)| {
            demand.level(*level, *subject, Arc::new(limits(*level)))
        })
    };
    for strict in Level::ALL {
        let books = books(9);
        let (claim, _) = books.reserve(ask(strict), EDGE).unwrap();
        let refusal = books.reserve(ask(strict), EDGE).unwrap_err();
        assert_eq!(refusal.level(), strict);
        for (level, subject) in subjects {
            assert_eq!(books.consumption(subject, EDGE).in_flight, 1, "{level:?}");
        }
        books.settle(&claim, tokens(40), EDGE);
        assert!(books.reserve(ask(strict), EDGE).is_ok(), "{strict:?}");
    }
}

#[test]
fn a_request_that_is_given_back_stays_counted_and_nothing_else_does() {
    let limits = Limits { pace: Rate::new(1, 2), concurrent: Some(1), ..tokens_per_day(100) };
    let (books, ask) = (books(9), demand(tokens(100), &limits));
    for _ in 0..2 {
        let (claim, _) = books.reserve(ask.clone(), EDGE).unwrap();
        books.settle(&claim, Charge::default(), EDGE);
    }
    let refusal = books.reserve(ask, EDGE).unwrap_err();
    assert_eq!(refusal.meter(), Meter::Pace);
    let twice = Spent { requests: 2, ..Spent::default() };
    let windows = PerWindow { minute: twice, hour: twice, day: twice, month: twice };
    let left = books.consumption(user("alice"), EDGE);
    assert_eq!(left, Consumption { windows, in_flight: 0 });
}

#[test]
fn a_charge_over_its_reservation_is_paid_in_full() {
    let (books, limits) = (books(9), tokens_per_day(100));
    let (claim, _) = books.reserve(demand(tokens(90), &limits), EDGE).unwrap();
    books.settle(&claim, tokens(150), EDGE);
    assert_eq!(books.windows(user("alice"), EDGE).day.used, tokens(150));
    assert!(books.reserve(demand(tokens(1), &limits), EDGE).is_err());
    let free = books.reserve(demand(tokens(0), &limits), EDGE);
    assert!(free.is_ok(), "what costs nothing needs no quota");
}

#[test]
fn a_window_that_ends_takes_its_reservations_with_it() {
    let (books, limits) = (books(9), tokens_per_minute(100));
    let (claim, _) = books.reserve(demand(tokens(80), &limits), EDGE).unwrap();
    assert!(books.reserve(demand(tokens(21), &limits), later(EDGE, 9_999)).is_err());
    let after = later(EDGE, 10_000);
    let (next, view) = books.reserve(demand(tokens(70), &limits), after).unwrap();
    assert_eq!(view.tokens.unwrap().remaining, 30);
    books.settle(&claim, tokens(95), after);
    let held = books.windows(user("alice"), after).minute;
    assert_eq!((held.used, held.reserved), (tokens(15), tokens(70)));
    books.settle(&next, tokens(70), after);
    assert_eq!(books.windows(user("alice"), after).minute.used, tokens(85));
}

#[test]
fn a_reset_forgets_what_was_used_and_keeps_what_runs() {
    let limits = Limits { pace: Rate::new(1, 2), ..tokens_per_day(100) };
    let (books, ask) = (books(9), demand(tokens(50), &limits));
    let (paid, _) = books.reserve(ask.clone(), EDGE).unwrap();
    books.settle(&paid, tokens(50), EDGE);
    let (runs, _) = books.reserve(ask.clone(), EDGE).unwrap();
    assert!(books.reserve(ask.clone(), EDGE).is_err(), "all is used");
    books.shards.with_account(user("alice"), Account::reset);

    let held = books.consumption(user("alice"), EDGE);
    let reserved = Spent { reserved: tokens(50), ..Spent::default() };
    assert_eq!((held.in_flight, held.windows.day), (1, reserved));
    let (again, _) = books.reserve(ask.clone(), EDGE).unwrap();
    let full = books.reserve(ask, EDGE).unwrap_err();
    assert_eq!(full.meter(), Meter::Held(Resource::Tokens, Window::Day));
    books.settle(&runs, tokens(30), EDGE);
    books.settle(&again, tokens(20), EDGE);
    let spent = Spent { requests: 1, used: tokens(50), ..Spent::default() };
    assert_eq!(books.windows(user("alice"), EDGE).day, spent);
}

#[test]
fn a_sweep_forgets_what_no_longer_counts_and_nothing_else() {
    let (books, limits) = (books(1_000), Arc::new(tokens_per_day(10)));
    let address = |id: &str| Subject::new(Level::Address, id);
    let ask =
        |id: &str| Demand::new(1, tokens(5)).level(Level::Address, address(id), limits.clone());
    let (held, _) = books.reserve(ask("held"), EDGE).unwrap();
    for i in 0..2_000 {
        let (claim, _) = books.reserve(ask(&i.to_string()), EDGE).unwrap();
        books.settle(&claim, tokens(5), EDGE);
        if i < 1_000 {
            books.shards.with_account(address(&i.to_string()), Account::reset);
        }
    }
    assert_eq!(books.shards.subjects(), 2_001);
    // time of the sweep, how many are left: those with usage until the day is over
    for (ms, left) in [(9_999, 1_001), (10_000, 1)] {
        books.shards.sweep(later(EDGE, ms));
        assert_eq!(books.shards.subjects(), left, "after {ms} ms");
    }
    books.settle(&held, tokens(9), later(EDGE, 10_000));
    let used = books.windows(address("held"), later(EDGE, 10_000)).day.used;
    assert_eq!(used, tokens(4), "an open reservation keeps its subject");
}

#[test]
fn a_full_store_refuses_new_subjects_and_keeps_the_old() {
    // Of an address only the day is kept, of which ten seconds are left.
    let (books, limits) = (books(2), Arc::new(tokens_per_day(10)));
    let ask = |i: u32| {
        let subject = Subject::new(Level::Address, &i.to_string());
        Demand::new(1, tokens(10)).level(Level::Address, subject, Arc::clone(&limits))
    };
    let mut admitted = Vec::new();
    for i in 0..2_000 {
        match books.reserve(ask(i), EDGE) {
            Ok((claim, _)) => {
                books.settle(&claim, tokens(10), EDGE);
                admitted.push(i);
            }
            Err(refusal) => assert_eq!(refusal.meter(), Meter::Subjects),
        }
    }
    assert_eq!(admitted.len(), 2 * SHARDS, "2,000 subjects fill every shard");
    for i in admitted {
        let refusal = books.reserve(ask(i), EDGE).unwrap_err();
        let day = Meter::Window(Resource::Tokens, Window::Day);
        assert_eq!(refusal.meter(), day, "{i} is not forgotten");
    }
    let tomorrow = later(EDGE, 60_000);
    assert!((3_000..3_010).all(|i| books.reserve(ask(i), tomorrow).is_ok()), "room again");
}

#[test]
fn two_new_subjects_of_one_request_do_not_pass_the_cap() {
    let (books, limits) = (books(1), Arc::new(roomy()));
    let [one, other] = books.shards.neighbours(2)[..] else { panic!("two of one shard") };
    let ask = Demand::new(1, tokens(1)).level(Level::User, one, Arc::clone(&limits)).level(
        Level::Key,
        other,
        limits,
    );
    let refusal = books.reserve(ask, EDGE).unwrap_err();
    assert_eq!((refusal.meter(), refusal.level()), (Meter::Subjects, Level::Key));
    assert_eq!(books.shards.subjects(), 1);
    assert_eq!(books.consumption(one, EDGE), Consumption::default());
}

#[test]
fn a_poisoned_lock_is_used_on() {
    let (books, ask) = (books(9), demand(tokens(60), &tokens_per_day(100)));
    let (claim, _) = books.reserve(ask.clone(), EDGE).unwrap();
    let panics = || books.shards.with_account(user("alice"), |_| panic!("poisons the lock"));
    let poisoned = thread::scope(|scope| scope.spawn(panics).join().is_err());
    assert!(poisoned && books.shards.is_poisoned());
    assert!(books.reserve(ask.clone(), EDGE).is_err(), "the hold is still known");
    books.settle(&claim, tokens(40), EDGE);
    assert!(books.reserve(ask, EDGE).is_ok());
}

#[tokio::test]
async fn reservations_end_by_settling_or_dropping() {
    let clock = Clock::system();
    let counters = MemoryCounters::new(clock.clone());
    let ask = || demand(tokens(60), &tokens_per_day(100));
    // A midnight between two of these lines would fail them; start right after one.
    let to_midnight = 86_400_000 - clock.unix_ms() % 86_400_000;
    clock.advance(Duration::from_millis(to_midnight));

    let first = counters.reserve(ask()).await.unwrap();
    assert_eq!(counters.open_reservations(), 1);
    assert_eq!(first.view().tokens.unwrap().remaining, 40);
    assert!(counters.reserve(ask()).await.is_err());
    drop(first);
    assert_eq!(counters.open_reservations(), 0);

    let second = counters.reserve(ask()).await.unwrap();
    assert_eq!(second.settle(Charge { gpu_ms: 1, ..tokens(70) }), tokens(10).plus(GPU_MS));
    assert_eq!(counters.open_reservations(), 0);
    let day = counters.consumption(user("alice")).await.unwrap().windows.day;
    assert_eq!((day.requests, day.used), (2, tokens(70).plus(GPU_MS)));

    let refusal = counters.clone().reserve(ask()).await.unwrap_err();
    clock.advance(refusal.retry_after().unwrap());
    let tomorrow = counters.reserve(ask()).await.unwrap();
    counters.reset(user("alice"), 1).await.unwrap();
    let day = counters.consumption(user("alice")).await.unwrap().windows.day;
    assert_eq!((day.requests, day.reserved), (0, tomorrow.reserved()));
}

const GPU_MS: Charge = Charge { prompt: 0, completion: 0, gpu_ms: 1 };
