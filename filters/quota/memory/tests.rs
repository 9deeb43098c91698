use std::collections::HashMap;
use std::sync::Barrier;
use std::thread;

use proptest::prelude::*;

use super::super::demand::{Level, Limits};
use super::super::gcra::Rate;
use super::super::window::{PerWindow, Window};
use super::*;

/// 2026-11-22T23:59:50Z: ten seconds before a minute, an hour and a day end.
const EDGE: Now = Now { unix_ms: 1_795_391_990_000, monotonic_ns: 7_000_000 };

fn later(now: Now, ms: u64) -> Now {
    Now { unix_ms: now.unix_ms + ms, monotonic_ns: now.monotonic_ns + ms * 1_000_000 }
}

fn books(subjects_per_shard: usize) -> Books {
    Books::new(Clock::system(), subjects_per_shard)
}

fn charge(tokens: u64, gpu_ms: u64) -> Charge {
    Charge { tokens, gpu_ms }
}

fn user(id: &str) -> Subject {
    Subject::new(Level::User, id)
}

fn demand(estimate: Charge, limits: &Limits) -> Demand {
    Demand::new(1, estimate).level(Level::User, user("alice"), Arc::new(limits.clone()))
}

fn two_levels(estimate: Charge, of_user: &Limits, of_key: &Limits) -> Demand {
    let key = Subject::new(Level::Key, "k1");
    demand(estimate, of_user).level(Level::Key, key, Arc::new(of_key.clone()))
}

fn tokens_per_minute(limit: u64) -> Limits {
    let tokens = PerWindow { minute: Some(limit), ..PerWindow::default() };
    Limits { tokens, ..Limits::default() }
}

fn tokens_per_day(limit: u64) -> Limits {
    let tokens = PerWindow { day: Some(limit), ..PerWindow::default() };
    Limits { tokens, ..Limits::default() }
}

#[test]
fn all_levels_admit_or_none_is_charged() {
    let paced = Limits { requests: Rate::new(1, 1), ..Limits::default() };
    let one_slot = Limits { concurrent: Some(1), ..Limits::default() };
    let (minute, day) = (Meter::Tokens(Window::Minute), Meter::Tokens(Window::Day));
    // limits of the user and of the key, who refuses the second request of 60 tokens, and why
    let cases = [
        (tokens_per_day(100), Limits::default(), Level::User, day),
        (Limits::default(), tokens_per_day(100), Level::Key, day),
        (tokens_per_minute(100), tokens_per_day(100), Level::Key, day),
        (tokens_per_minute(100), paced.clone(), Level::Key, Meter::Requests), // the longer wait
        (tokens_per_day(1_000), paced.clone(), Level::Key, Meter::Requests),
        (one_slot, tokens_per_minute(100), Level::Key, minute),
        (paced, Limits::default(), Level::User, Meter::Requests),
    ];
    for (of_user, of_key, level, meter) in cases {
        let books = books(9);
        let ask = two_levels(charge(60, 0), &of_user, &of_key);
        let (first, after) = books.reserve(&ask, EDGE).unwrap();
        let refusal = books.reserve(&ask, EDGE).unwrap_err();
        assert_eq!((refusal.level(), refusal.meter()), (level, meter));
        assert_eq!(refusal.view(), after, "{meter:?}: a refusal takes nothing");
        for subject in [user("alice"), Subject::new(Level::Key, "k1")] {
            let held = books.consumption(subject, EDGE);
            assert_eq!((held.in_flight, held.reserved.day), (1, charge(60, 0)), "{meter:?}");
        }
        books.settle(first, charge(10, 0), EDGE);
        assert_eq!(books.consumption(user("alice"), EDGE).used.day, charge(10, 0));
    }
}

#[test]
fn a_request_that_is_given_back_stays_counted_and_nothing_else_does() {
    let limits = Limits { requests: Rate::new(1, 2), concurrent: Some(1), ..tokens_per_day(100) };
    let (books, ask) = (books(9), demand(charge(100, 0), &limits));
    for _ in 0..2 {
        let (claim, _) = books.reserve(&ask, EDGE).unwrap();
        books.settle(claim, Charge::default(), EDGE);
    }
    let refusal = books.reserve(&ask, EDGE).unwrap_err();
    assert_eq!(refusal.meter(), Meter::Requests);
    assert_eq!(books.consumption(user("alice"), EDGE), Consumption::default());
}

#[test]
fn a_charge_over_its_reservation_is_paid_in_full() {
    let (books, limits) = (books(9), tokens_per_day(100));
    let (claim, _) = books.reserve(&demand(charge(90, 0), &limits), EDGE).unwrap();
    books.settle(claim, charge(150, 0), EDGE);
    assert_eq!(books.consumption(user("alice"), EDGE).used.day, charge(150, 0));
    assert!(books.reserve(&demand(charge(1, 0), &limits), EDGE).is_err());
    let free = books.reserve(&demand(charge(0, 0), &limits), EDGE);
    assert!(free.is_ok(), "what costs nothing needs no quota");
}

#[test]
fn a_window_that_ends_takes_its_reservations_with_it() {
    let (books, limits) = (books(9), tokens_per_minute(100));
    let (claim, _) = books.reserve(&demand(charge(80, 0), &limits), EDGE).unwrap();
    let before = later(EDGE, 9_999);
    assert!(books.reserve(&demand(charge(21, 0), &limits), before).is_err());
    let after = later(EDGE, 10_000);
    let (next, view) = books.reserve(&demand(charge(70, 0), &limits), after).unwrap();
    assert_eq!(view.tokens.unwrap().remaining, 30);
    books.settle(claim, charge(95, 0), after);
    let held = books.consumption(user("alice"), after);
    assert_eq!((held.used.minute, held.reserved.minute), (charge(15, 0), charge(70, 0)));
    books.settle(next, charge(70, 0), after);
    assert_eq!(books.consumption(user("alice"), after).used.minute, charge(85, 0));
}

#[test]
fn a_flood_of_threads_admits_exactly_the_limit() {
    const LIMIT: usize = 1_000;
    let of_day = |limit| PerWindow { day: Some(limit), ..PerWindow::default() };
    let limits = [
        Limits { requests: Rate::new(1, LIMIT as u32), ..Limits::default() },
        Limits { concurrent: Some(LIMIT as u32), ..Limits::default() },
        Limits { tokens: of_day(LIMIT as u64 * 7 + 6), ..Limits::default() },
        Limits { gpu_ms: of_day(LIMIT as u64 * 3), ..Limits::default() },
    ];
    for limits in limits {
        let books = books(9);
        let admitted = flood(&books, &two_levels(charge(7, 3), &limits, &Limits::default()));
        assert_eq!(admitted, LIMIT, "{limits:?}");
        assert_eq!(books.open.load(Ordering::Relaxed), LIMIT);
    }
}

/// How many of 64 threads times 50 requests pass.
fn flood(books: &Books, ask: &Demand) -> usize {
    let start = Barrier::new(64);
    let hammer = || {
        start.wait();
        (0..50).filter(|_| books.reserve(ask, EDGE).is_ok()).count()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..64).map(|_| scope.spawn(hammer)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
fn threads_that_share_subjects_in_any_order_do_not_deadlock() {
    let (books, limits) = (books(99), Arc::new(Limits::default()));
    let subjects: Vec<_> = (0..8).map(|i| user(&i.to_string())).collect();
    let pair = |one, other| {
        let first = Demand::new(1, charge(1, 1)).level(Level::User, one, Arc::clone(&limits));
        first.level(Level::Key, other, Arc::clone(&limits))
    };
    thread::scope(|scope| {
        for (i, one) in subjects.iter().enumerate() {
            let (books, subjects, pair) = (&books, &subjects, &pair);
            scope.spawn(move || {
                for other in subjects.iter().cycle().skip(i + 1).take(4_000) {
                    let (claim, _) = books.reserve(&pair(*one, *other), EDGE).unwrap();
                    books.settle(claim, charge(1, 1), EDGE);
                }
            });
        }
    });
    let used: u64 = subjects.iter().map(|s| books.consumption(*s, EDGE).used.day.tokens).sum();
    // Of each thread's 4,000 requests 500 name its own subject twice and pay it once.
    assert_eq!(used, 8 * (2 * 4_000 - 500));
    assert_eq!(books.open.load(Ordering::Relaxed), 0);
}

#[test]
fn a_sweep_forgets_what_no_longer_counts_and_nothing_else() {
    let (books, limits) = (books(1_000), Limits::default());
    let ask = |id: &str| {
        Demand::new(1, charge(5, 0)).level(Level::User, user(id), Arc::new(limits.clone()))
    };
    let (held, _) = books.reserve(&ask("held"), EDGE).unwrap();
    for i in 0..2_000 {
        let (claim, _) = books.reserve(&ask(&i.to_string()), EDGE).unwrap();
        let used = if i < 1_000 { charge(5, 0) } else { Charge::default() };
        books.settle(claim, used, EDGE);
    }
    assert_eq!(subjects(&books), 2_001);
    // time of the sweep, how many are left: those with usage until the day is over
    for (ms, left) in [(9_999, 1_001), (10_000, 1)] {
        sweep(&books, later(EDGE, ms));
        assert_eq!(subjects(&books), left, "after {ms} ms");
    }
    books.settle(held, charge(9, 0), later(EDGE, 10_000));
    let used = books.consumption(user("held"), later(EDGE, 10_000)).used.day;
    assert_eq!(used, charge(4, 0), "an open reservation keeps its subject");
}

/// Sweeps every shard, whenever the last sweep was.
fn sweep(books: &Books, now: Now) {
    for shard in &books.shards {
        let mut shard = lock(shard);
        shard.next_sweep_ns = 0;
        shard.sweep(now);
    }
}

fn subjects(books: &Books) -> usize {
    books.shards.iter().map(|shard| lock(shard).accounts.len()).sum()
}

#[test]
fn a_full_store_refuses_new_subjects_and_keeps_the_old() {
    let (books, limits) = (books(2), Arc::new(tokens_per_day(10)));
    let ask = |i: u32| {
        let subject = user(&i.to_string());
        Demand::new(1, charge(10, 0)).level(Level::User, subject, Arc::clone(&limits))
    };
    let mut admitted = Vec::new();
    for i in 0..1_000 {
        match books.reserve(&ask(i), EDGE) {
            Ok((claim, _)) => {
                books.settle(claim, charge(10, 0), EDGE);
                admitted.push(i);
            }
            Err(refusal) => assert_eq!(refusal.meter(), Meter::Subjects),
        }
    }
    assert_eq!(admitted.len(), 2 * SHARDS, "1,000 subjects fill every shard");
    for i in admitted {
        let refusal = books.reserve(&ask(i), EDGE).unwrap_err();
        assert_eq!(refusal.meter(), Meter::Tokens(Window::Day), "{i} is not forgotten");
    }
    let tomorrow = later(EDGE, 60_000);
    assert!((2_000..2_010).all(|i| books.reserve(&ask(i), tomorrow).is_ok()), "room again");
}

#[test]
fn two_new_subjects_of_one_request_do_not_pass_the_cap() {
    let one_shard: Vec<Subject> = (0..)
        .map(|i: u32| user(&i.to_string()))
        .filter(|s| s.part_of(SHARDS) == 0)
        .take(2)
        .collect();
    let (books, limits) = (books(1), Arc::<Limits>::default());
    let ask = Demand::new(1, charge(1, 1))
        .level(Level::User, one_shard[0], Arc::clone(&limits))
        .level(Level::Key, one_shard[1], limits);
    let refusal = books.reserve(&ask, EDGE).unwrap_err();
    assert_eq!((refusal.meter(), refusal.level()), (Meter::Subjects, Level::Key));
    assert_eq!(subjects(&books), 1);
}

#[test]
fn a_poisoned_lock_is_used_on() {
    let (books, ask) = (books(9), demand(charge(60, 0), &tokens_per_day(100)));
    let (claim, _) = books.reserve(&ask, EDGE).unwrap();
    let poisoned = thread::scope(|scope| {
        let panics = || books.with_account(user("alice"), |_| panic!("poisons the lock"));
        scope.spawn(panics).join().is_err()
    });
    assert!(poisoned && books.shards.iter().any(Mutex::is_poisoned));
    assert!(books.reserve(&ask, EDGE).is_err(), "the hold is still known");
    books.settle(claim, charge(40, 0), EDGE);
    assert!(books.reserve(&ask, EDGE).is_ok());
}

#[tokio::test]
async fn reservations_end_by_settling_or_dropping() {
    let clock = Clock::system();
    let counters = MemoryCounters::new(clock.clone());
    let ask = || demand(charge(60, 0), &tokens_per_day(100));
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
    assert_eq!(second.settle(charge(70, 1)).await, charge(10, 1));
    assert_eq!(counters.open_reservations(), 0);
    assert_eq!(counters.consumption(user("alice")).await.used.day, charge(70, 1));

    let refusal = counters.clone().reserve(ask()).await.unwrap_err();
    clock.advance(refusal.retry_after().unwrap());
    assert!(counters.reserve(ask()).await.is_ok());
}

/// What a property test does.
#[derive(Clone, Debug)]
enum Step {
    Reserve { user: usize, key: usize, ask: Charge },
    Settle { which: usize, charge: Charge },
    Drop { which: usize },
    Wait { ms: u64 },
}

fn any_charge() -> impl Strategy<Value = Charge> {
    (0..60_u64, 0..60_u64).prop_map(|(tokens, gpu_ms)| charge(tokens, gpu_ms))
}

fn any_step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![0..5_000_u64, 0..90_000_u64, 0..100_000_000_u64];
    prop_oneof![
        6 => (0..2_usize, 0..2_usize, any_charge())
            .prop_map(|(user, key, ask)| Step::Reserve { user, key, ask }),
        3 => (any::<usize>(), any_charge())
            .prop_map(|(which, charge)| Step::Settle { which, charge }),
        1 => any::<usize>().prop_map(|which| Step::Drop { which }),
        2 => wait.prop_map(|ms| Step::Wait { ms }),
    ]
}

/// Limits, and their rate as the model needs it: nanoseconds between requests, and burst.
type Ruled = (Limits, Option<(u64, u64)>);

fn any_limits() -> impl Strategy<Value = Ruled> {
    let limit = || prop::option::of(20..200_u64);
    let windows = || {
        (limit(), limit(), limit()).prop_map(|(minute, hour, day)| PerWindow { minute, hour, day })
    };
    let requests = prop::option::of((1..100_u32, 1..6_u32));
    (requests, windows(), windows(), prop::option::of(1..5_u32)).prop_map(
        |(requests, tokens, gpu_ms, concurrent)| {
            let rate = requests.and_then(|(per_minute, burst)| Rate::new(per_minute, burst));
            let pace = |(per_minute, burst): (u32, u32)| {
                (60_000_000_000_u64.div_ceil(per_minute.into()), burst.into())
            };
            (Limits { requests: rate, tokens, gpu_ms, concurrent }, requests.map(pace))
        },
    )
}

/// The meters again, as plainly as can be: every request is remembered, and every question is
/// answered by adding them all up.
#[derive(Default)]
struct Model {
    requests: Vec<Remembered>,
}

struct Remembered {
    subjects: [Subject; 2],
    at: Now,
    reserved: Charge,
    paid: Option<(Charge, Now)>,
}

impl Model {
    /// Used and reserved in the window of this moment.
    fn taken(&self, subject: Subject, window: Window, now: Now) -> (Charge, Charge) {
        let current = |at: Now| window.index(at.unix_ms) == window.index(now.unix_ms);
        let mut sums = (Charge::default(), Charge::default());
        for request in self.requests.iter().filter(|r| r.subjects.contains(&subject)) {
            match request.paid {
                None if current(request.at) => sums.1 = sums.1.plus(request.reserved),
                Some((paid, _)) if current(request.at) => sums.0 = sums.0.plus(paid),
                Some((paid, at)) if current(at) => {
                    sums.0 = sums.0.plus(paid.over(request.reserved))
                }
                None | Some(_) => {}
            }
        }
        sums
    }

    fn in_flight(&self, subject: Subject) -> u32 {
        let open = |r: &&Remembered| r.paid.is_none() && r.subjects.contains(&subject);
        self.requests.iter().filter(open).count() as u32
    }

    fn admits(&self, subject: Subject, limits: &Limits, ask: Charge, now: Now) -> bool {
        let fits = |limit: Option<u64>, taken: u64, ask: u64| {
            ask == 0 || limit.is_none_or(|limit| taken + ask <= limit)
        };
        let windows = Window::ALL.into_iter().all(|window| {
            let (used, reserved) = self.taken(subject, window, now);
            let taken = used.plus(reserved);
            fits(*limits.tokens.of(window), taken.tokens, ask.tokens)
                && fits(*limits.gpu_ms.of(window), taken.gpu_ms, ask.gpu_ms)
        });
        windows && limits.concurrent.is_none_or(|limit| self.in_flight(subject) < limit)
    }
}

/// GCRA in the other form of I.371, the continuous-state leaky bucket.
#[derive(Clone, Copy, Default)]
struct Bucket {
    level_ns: u64,
    last_ns: u64,
}

impl Bucket {
    fn level_ns(self, now: Now) -> u64 {
        self.level_ns.saturating_sub(now.monotonic_ns - self.last_ns)
    }
}

struct World {
    books: Books,
    model: Model,
    limits: HashMap<Subject, Ruled>,
    buckets: HashMap<Subject, Bucket>,
    open: Vec<(usize, Claim)>,
    now: Now,
}

const USERS: [&str; 2] = ["u0", "u1"];
const KEYS: [&str; 2] = ["k0", "k1"];

fn subject(level: Level, number: usize) -> Subject {
    match level {
        Level::User => Subject::new(level, USERS[number]),
        Level::Key => Subject::new(level, KEYS[number]),
    }
}

impl World {
    fn new(limits: Vec<Ruled>) -> Self {
        let names = [(Level::User, 0), (Level::User, 1), (Level::Key, 0), (Level::Key, 1)];
        let subjects = names.map(|(level, number)| subject(level, number));
        Self {
            books: books(9),
            model: Model::default(),
            limits: subjects.into_iter().zip(limits).collect(),
            buckets: HashMap::new(),
            open: Vec::new(),
            now: EDGE,
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Wait { ms } => self.now = later(self.now, ms),
            Step::Reserve { user, key, ask } => self.reserve(user, key, ask),
            Step::Settle { which, charge } => self.pay(which, charge),
            Step::Drop { which } => self.pay(which, Charge::default()),
        }
        self.compare();
    }

    fn pay(&mut self, which: usize, charge: Charge) {
        if self.open.is_empty() {
            return;
        }
        let (number, claim) = self.open.swap_remove(which % self.open.len());
        self.books.settle(claim, charge, self.now);
        self.model.requests[number].paid = Some((charge, self.now));
    }

    fn reserve(&mut self, user: usize, key: usize, ask: Charge) {
        if let Some(refusal) = self.attempt(user, key, ask)
            && let Some(wait) = refusal.retry_after()
            && refusal.meter() != Meter::Concurrency
        {
            self.prove_honest(user, key, ask, wait);
        }
    }

    /// A millisecond before the wait is over the request is refused; after it, only a slot that
    /// is not free can still be in the way.
    fn prove_honest(&mut self, user: usize, key: usize, ask: Charge, wait: Duration) {
        let ms = wait.as_nanos().div_ceil(1_000_000) as u64;
        self.now = later(self.now, ms - 1);
        assert!(self.attempt(user, key, ask).is_some(), "{wait:?} is too long");
        self.now = later(self.now, 1);
        let again = self.attempt(user, key, ask);
        let only_slots = again.is_none_or(|refusal| refusal.meter() == Meter::Concurrency);
        assert!(only_slots, "{wait:?} is too short: {again:?}");
    }

    fn attempt(&mut self, user: usize, key: usize, ask: Charge) -> Option<Refusal> {
        let (now, subjects) = (self.now, [subject(Level::User, user), subject(Level::Key, key)]);
        let expected = subjects.iter().all(|subject| self.model_admits(*subject, ask));
        let demand = two_named(subjects, ask, &self.limits);
        let result = self.books.reserve(&demand, now);
        assert_eq!(result.is_ok(), expected, "{ask:?} at {now:?}");
        match result {
            Ok((claim, _)) => {
                self.remember(subjects, ask, claim);
                None
            }
            Err(refusal) => Some(refusal),
        }
    }

    fn model_admits(&self, subject: Subject, ask: Charge) -> bool {
        let (limits, pace) = &self.limits[&subject];
        let bucket = self.buckets.get(&subject).copied().unwrap_or_default();
        let paced = pace.is_none_or(|(interval_ns, burst)| {
            bucket.level_ns(self.now) <= (burst - 1) * interval_ns
        });
        paced && self.model.admits(subject, limits, ask, self.now)
    }

    fn remember(&mut self, subjects: [Subject; 2], reserved: Charge, claim: Claim) {
        self.open.push((self.model.requests.len(), claim));
        self.model.requests.push(Remembered { subjects, at: self.now, reserved, paid: None });
        for subject in subjects {
            let bucket = self.buckets.entry(subject).or_default();
            let interval_ns = self.limits[&subject].1.map_or(0, |(interval_ns, _)| interval_ns);
            let level_ns = bucket.level_ns(self.now) + interval_ns;
            *bucket = Bucket { level_ns, last_ns: self.now.monotonic_ns };
        }
    }

    fn compare(&self) {
        assert_eq!(self.books.open.load(Ordering::Relaxed), self.open.len());
        for subject in self.limits.keys() {
            let found = self.books.consumption(*subject, self.now);
            assert_eq!(found.in_flight, self.model.in_flight(*subject));
            for window in Window::ALL {
                let sums = (*found.used.of(window), *found.reserved.of(window));
                assert_eq!(sums, self.model.taken(*subject, window, self.now), "{window:?}");
            }
        }
    }
}

fn two_named([user, key]: [Subject; 2], ask: Charge, limits: &HashMap<Subject, Ruled>) -> Demand {
    let of = |subject| Arc::new(limits[&subject].0.clone());
    Demand::new(1, ask).level(Level::User, user, of(user)).level(Level::Key, key, of(key))
}

proptest! {
    /// The store says what the model says after any history, and every wait that it tells is
    /// exact.
    #[test]
    fn any_history_is_counted_as_by_the_model(
        limits in prop::collection::vec(any_limits(), 4),
        steps in prop::collection::vec(any_step(), 1..80),
    ) {
        let mut world = World::new(limits);
        steps.iter().for_each(|step| world.take(step));
    }
}
