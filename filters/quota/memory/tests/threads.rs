//! Many threads at once: exact counts, no deadlock, no slot lost.

use std::iter;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::*;

#[test]
fn a_flood_of_threads_admits_exactly_the_limit() {
    const LIMIT: u64 = 1_000;
    let cost = Charge { prompt: 2, completion: 5, gpu_ms: 3 };
    let limits = [
        Limits { pace: Rate::new(1, LIMIT as u32), ..Limits::default() },
        Limits { concurrent: Some(LIMIT as u32), ..Limits::default() },
        per(Resource::Requests, Window::Month, LIMIT),
        per(Resource::Tokens, Window::Day, LIMIT * 7 + 6),
        per(Resource::PromptTokens, Window::Hour, LIMIT * 2 + 1),
        per(Resource::CompletionTokens, Window::Minute, LIMIT * 5 + 4),
        per(Resource::GpuTime, Window::Day, LIMIT * 3),
    ];
    for limits in limits {
        let books = books(9);
        let admitted = flood(&books, &two_levels(cost, &limits, &roomy()));
        assert_eq!(admitted, LIMIT as usize, "{limits:?}");
        assert_eq!(books.open.load(Ordering::Relaxed), LIMIT as usize);
    }
}

/// How many of 64 threads times 50 requests pass.
fn flood(books: &Books, ask: &Demand) -> usize {
    let start = Barrier::new(64);
    let hammer = || {
        start.wait();
        (0..50).filter(|_| books.reserve(ask.clone(), EDGE).is_ok()).count()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..64).map(|_| scope.spawn(hammer)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
fn threads_that_share_subjects_in_any_order_do_not_deadlock() {
    let (books, limits) = (books(99), Arc::new(roomy()));
    let subjects: Vec<_> = (0..8).map(|i| user(&i.to_string())).collect();
    let pair = |one, other| {
        let first = Demand::new(1, tokens(1)).level(Level::User, one, Arc::clone(&limits));
        first.level(Level::Key, other, Arc::clone(&limits))
    };
    thread::scope(|scope| {
        for (i, one) in subjects.iter().enumerate() {
            let (books, subjects, pair) = (&books, &subjects, &pair);
            scope.spawn(move || {
                for other in subjects.iter().cycle().skip(i + 1).take(4_000) {
                    let (claim, _) = books.reserve(pair(*one, *other), EDGE).unwrap();
                    books.settle(&claim, tokens(1), EDGE);
                }
            });
        }
    });
    let used: u64 = subjects.iter().map(|s| books.windows(*s, EDGE).day.used.tokens()).sum();
    // Of each thread's 4,000 requests 500 name its own subject twice and pay it once.
    assert_eq!(used, 8 * (2 * 4_000 - 500));
    assert_eq!(books.open.load(Ordering::Relaxed), 0);
}

/// Pseudo-random numbers that are the same in every run: xorshift64 (G. Marsaglia 2003).
fn random(seed: u64) -> impl Iterator<Item = u64> {
    iter::successors(Some(seed), |last| {
        let a = last ^ last << 13;
        let b = a ^ a >> 7;
        Some(b ^ b << 17)
    })
    .skip(8)
}

const LIMIT: u64 = 400;

/// Who pays what, while somebody looks.
struct Shop {
    books: Books,
    subjects: Vec<Subject>,
    limits: Arc<Limits>,
    /// What was paid by each subject.
    paid: Vec<AtomicU64>,
    is_open: AtomicBool,
}

impl Shop {
    fn new() -> Self {
        let subjects: Vec<_> = (0..5).map(|i| user(&i.to_string())).collect();
        let limits = Limits { concurrent: Some(6), ..per(Resource::Tokens, Window::Month, LIMIT) };
        Self {
            books: books(9),
            paid: subjects.iter().map(|_| AtomicU64::new(0)).collect(),
            subjects,
            limits: Arc::new(limits),
            is_open: AtomicBool::new(true),
        }
    }

    /// One customer: reserves on two subjects, grows, and pays, gives back or dies.
    fn serve(&self, mut random: impl Iterator<Item = u64>) {
        let mut pick = |below: u64| random.next().unwrap() % below;
        let (one, other) = (pick(5) as usize, pick(5) as usize);
        let ask = Demand::new(1, tokens(pick(40)))
            .at_least(pick(10), 0)
            .level(Level::User, self.subjects[one], Arc::clone(&self.limits))
            .level(Level::User, self.subjects[other], Arc::clone(&self.limits));
        let Ok((mut claim, _)) = self.books.reserve(ask, EDGE) else { return };
        for _ in 0..pick(4) {
            self.books.grow(&mut claim, tokens(pick(9)), EDGE);
            thread::yield_now();
        }
        let charge = pick(claim.reserved.completion + 1) * pick(2);
        let mut payers = vec![one, other];
        payers.dedup();
        for payer in payers {
            self.paid[payer].fetch_add(charge, Ordering::Relaxed);
        }
        self.books.settle(&claim, tokens(charge), EDGE);
    }

    /// Looks at everybody until the shop closes.
    fn watch(&self) {
        while self.is_open.load(Ordering::Relaxed) {
            for subject in &self.subjects {
                let found = self.books.consumption(*subject, EDGE);
                let taken = found.windows.month.taken(Resource::Tokens);
                assert!(taken <= LIMIT && found.in_flight <= 6, "{found:?}");
            }
        }
    }
}

#[test]
fn whatever_threads_do_nothing_is_over_its_limit_and_the_ledger_agrees() {
    for round in 1..6 {
        let (shop, start) = (Shop::new(), Barrier::new(7));
        let serve = |seed: u64| {
            start.wait();
            (0..300).for_each(|n| shop.serve(random(seed * 1_000_003 + n)));
        };
        let serve = &serve;
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                shop.watch();
            });
            let threads: Vec<_> =
                (1..7).map(|n| scope.spawn(move || serve(round * 10 + n))).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            shop.is_open.store(false, Ordering::Relaxed);
        });
        assert_eq!(shop.books.open.load(Ordering::Relaxed), 0);
        for (subject, paid) in shop.subjects.iter().zip(&shop.paid) {
            let left = shop.books.consumption(*subject, EDGE);
            assert_eq!((left.in_flight, left.windows.month.reserved), (0, tokens(0)));
            assert_eq!(left.windows.month.used, tokens(paid.load(Ordering::Relaxed)));
        }
    }
}

#[test]
fn growing_while_it_is_settled_neither_loses_nor_keeps_anything() {
    let counters = MemoryCounters::new(Clock::system());
    let limits = per(Resource::Tokens, Window::Month, 1_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let mut used = 0;
    for n in 0..500 {
        runtime.block_on(async {
            let reservation = counters.reserve(demand(tokens(10), &limits)).await.unwrap();
            let extension = reservation.extension();
            let grows = tokio::spawn(async move {
                let mut grown = 0;
                for _ in 0..20 {
                    grown += extension.grow(tokens(1)).await.completion;
                }
                grown
            });
            let ends = tokio::spawn(async move {
                (0..n % 7).for_each(|_| thread::yield_now());
                match n % 3 {
                    0 => drop(reservation),
                    _ => assert_eq!(reservation.settle(tokens(10)), tokens(0)),
                }
            });
            assert!(grows.await.unwrap() <= 20);
            ends.await.unwrap();
            used += if n % 3 == 0 { 0 } else { 10 };
            let left = counters.consumption(user("alice")).await.unwrap();
            let month = left.windows.month;
            assert_eq!((left.in_flight, month.used, month.reserved), (0, tokens(used), tokens(0)));
        });
    }
    assert_eq!(counters.open_reservations(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_that_are_aborted_give_everything_back() {
    let counters = MemoryCounters::new(Clock::system());
    let limits = Limits { concurrent: Some(50), ..per(Resource::Tokens, Window::Month, 5_000) };
    let ask = demand(tokens(100), &limits);
    for delay_us in 0..20 {
        let stream = |n: u64| {
            let (counters, ask) = (counters.clone(), ask.clone());
            tokio::spawn(async move {
                let reservation = counters.reserve(ask).await.unwrap();
                reservation.extension().grow(tokens(n)).await;
                tokio::time::sleep(Duration::from_micros(10 * (n % 30))).await;
                assert_ne!(n % 10, 9, "some panic");
                if n % 10 == 8 {
                    std::future::pending::<()>().await;
                }
            })
        };
        let streams: Vec<_> = (0..50).map(stream).collect();
        tokio::time::sleep(Duration::from_micros(delay_us * 20)).await;
        streams.iter().for_each(tokio::task::JoinHandle::abort);
        for stream in streams {
            // Some ended, some panicked, some were aborted: after each nothing may be left.
            drop(stream.await);
        }
        assert_eq!(counters.open_reservations(), 0);
        let left = counters.consumption(user("alice")).await.unwrap();
        assert_eq!((left.in_flight, left.windows.month.reserved), (0, tokens(0)));
        assert_eq!(left.windows.month.used, tokens(0));
    }
}
