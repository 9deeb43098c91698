//! The orders in which threads can run, tried by a scheduler instead of by chance:
//! `cargo test -p portcullis-filters --features shuttle --lib interleavings`.

use shuttle::future::block_on;
use shuttle::sync::Arc as Shared;
use shuttle::thread;
use shuttle::{check_pct, check_random};

use super::super::demand::{Ceiling, Level, Limits};
use super::super::{Resource, Window};
use super::*;

const SCHEDULES: usize = 2_000;
const NOW: Now = Now { unix_ms: 1_795_391_990_000, monotonic_ns: 7_000_000 };
const LIMIT: u64 = 100;

/// By chance, and by priorities, which finds what needs a few switches at the wrong moment (S.
/// Burckhardt et al., "A randomized scheduler with probabilistic guarantees of finding bugs").
fn check(story: fn()) {
    check_random(story, SCHEDULES);
    check_pct(story, SCHEDULES, 3);
}

/// The key is fixed, so that a schedule that fails can be run again.
fn books() -> Books {
    Books::new(Clock::system(), Shards::new(8_000, Keyed::new(0x9e37_79b9_7f4a_7c15_f39c_c060)))
}

fn tokens(completion: u64) -> Charge {
    Charge { completion, ..Charge::default() }
}

fn subjects() -> [Subject; 3] {
    ["a", "b", "c"].map(|id| Subject::new(Level::User, id))
}

/// A demand of two of the subjects, in this order.
fn ask(estimate: u64, least: u64, [one, other]: [usize; 2]) -> Demand {
    let ceiling = Ceiling { resource: Resource::Tokens, window: Window::Month, limit: LIMIT };
    let limits = Limits { concurrent: Some(2), ceilings: vec![ceiling], ..Limits::default() };
    let (limits, subjects) = (Arc::new(limits), subjects());
    let demand = Demand::new(1, tokens(estimate)).at_least(least, 0);
    [one, other].into_iter().fold(demand, |demand, number| {
        demand.level(Level::User, subjects[number], Arc::clone(&limits))
    })
}

/// Nothing is over its limit, and of every subject this much is used once nobody runs.
fn look(books: &Books, used: Option<[u64; 3]>) {
    for (number, subject) in subjects().into_iter().enumerate() {
        let found = books.consumption(subject, NOW);
        let month = found.windows.month;
        assert!(month.taken(Resource::Tokens) <= LIMIT && found.in_flight <= 2, "{found:?}");
        if let Some(used) = used {
            let expected = (0, tokens(0), tokens(used[number]));
            assert_eq!((found.in_flight, month.reserved, month.used), expected);
        }
    }
}

/// Each of three threads takes another two of three subjects, in the order in which philosophers
/// starve.
#[test]
fn three_callers_of_three_subjects() {
    check(|| {
        let books = Shared::new(books());
        let caller = |pair: [usize; 2], charge: u64| {
            let books = Shared::clone(&books);
            thread::spawn(move || {
                let Ok((mut claim, _)) = books.reserve(ask(60, 30, pair), NOW) else { return 0 };
                look(&books, None);
                books.grow(&mut claim, tokens(20), NOW);
                let charge = charge.min(claim.reserved.completion);
                books.settle(&claim, tokens(charge), NOW);
                charge
            })
        };
        let callers = [caller([0, 1], 80), caller([1, 2], 30), caller([2, 0], 0)];
        look(&books, None);
        let [ab, bc, ca] = callers.map(|caller| caller.join().unwrap());
        look(&books, Some([ab + ca, ab + bc, bc + ca]));
        assert_eq!(books.open.load(Ordering::SeqCst), 0);
    });
}

/// There is room for two of four: exactly two pass, whoever they are.
#[test]
fn the_last_room_goes_to_one() {
    check(|| {
        let books = Shared::new(books());
        let caller = |_| {
            let books = Shared::clone(&books);
            thread::spawn(move || books.reserve(ask(50, 50, [0, 1]), NOW).ok())
        };
        let callers: Vec<_> = (0..4).map(caller).collect();
        let claims: Vec<Claim> = callers
            .into_iter()
            .filter_map(|caller| caller.join().unwrap())
            .map(|(c, _)| c)
            .collect();
        assert_eq!(claims.len(), 2);
        claims.iter().for_each(|claim| books.settle(claim, tokens(50), NOW));
        look(&books, Some([100, 100, 0]));
    });
}

/// A stream that grows while it is settled, and while an administrator resets its user: what is
/// held comes back whole, and the charge counts at most once.
#[test]
fn growth_settling_and_reset_at_once() {
    check(|| {
        let counters = MemoryCounters { books: Arc::new(books()) };
        let reservation = block_on(counters.reserve(ask(40, 40, [0, 1]))).unwrap();
        let extension = reservation.extension();
        let grows = thread::spawn(move || {
            let grown = [20, 50].map(|more| block_on(extension.grow(tokens(more))).completion);
            assert!([[0, 0], [20, 0], [20, 40]].contains(&grown), "{grown:?}");
        });
        let resets = {
            let counters = counters.clone();
            thread::spawn(move || block_on(counters.reset(subjects()[0], 1)).unwrap())
        };
        reservation.settle(tokens(33));
        grows.join().unwrap();
        resets.join().unwrap();
        assert_eq!(counters.open_reservations(), 0);
        let [a, b, _] = subjects().map(|s| block_on(counters.consumption(s)).unwrap());
        assert_eq!((a.in_flight, b.in_flight), (0, 0));
        let (a, b) = (a.windows.month, b.windows.month);
        assert_eq!((a.reserved, b.reserved, b.used), (tokens(0), tokens(0), tokens(33)));
        assert!(a.used == tokens(33) || a.used == tokens(0), "{a:?}");
    });
}
