//! Reservations that hold more on the way.

use super::*;

#[test]
fn a_reservation_grows_by_what_all_levels_have_room_for() {
    let more = Charge { prompt: 9, completion: 30, gpu_ms: 50 };
    let gpu = |limit| per(Resource::GpuTime, Window::Month, limit);
    // limits of the user and of the key, growth by 30 tokens and 50 ms, four times
    let cases = [
        (roomy(), roomy(), [(30, 50), (30, 50), (30, 50), (30, 50)]),
        (tokens_per_day(100), roomy(), [(30, 50), (10, 50), (0, 50), (0, 50)]),
        (tokens_per_day(100), gpu(60), [(30, 50), (10, 10), (0, 0), (0, 0)]),
        (gpu(120), tokens_per_minute(65), [(5, 50), (0, 50), (0, 20), (0, 0)]),
    ];
    for (of_user, of_key, growth) in cases {
        let books = books(9);
        let (mut claim, _) =
            books.reserve(two_levels(tokens(60), &of_user, &of_key), EDGE).unwrap();
        let mut held = tokens(60);
        for (completion, gpu_ms) in growth {
            let granted = Charge { prompt: 0, completion, gpu_ms };
            assert_eq!(books.grow(&mut claim, more, EDGE), granted, "{of_user:?} {of_key:?}");
            held = held.plus(granted);
            assert_eq!(claim.reserved, held);
            for subject in [user("alice"), key()] {
                assert_eq!(books.windows(subject, EDGE).hour.reserved, held);
            }
        }
        books.settle(&claim, tokens(61), EDGE);
        let spent = Spent { requests: 1, used: tokens(61), ..Spent::default() };
        assert_eq!([user("alice"), key()].map(|s| books.windows(s, EDGE).month), [spent; 2]);
    }
}

#[test]
fn growth_takes_the_room_of_others_and_gives_it_back() {
    let (books, limits) = (books(9), tokens_per_day(100));
    let (mut claim, _) = books.reserve(demand(tokens(60), &limits), EDGE).unwrap();
    assert_eq!(books.grow(&mut claim, tokens(30), EDGE), tokens(30));
    assert!(books.reserve(demand(tokens(11), &limits), EDGE).is_err());
    let (_other, _) = books.reserve(demand(tokens(10), &limits), EDGE).unwrap();
    assert_eq!(books.grow(&mut claim, tokens(30), EDGE), tokens(0), "others hold the rest");
    books.settle(&claim, tokens(65), EDGE);
    assert!(books.reserve(demand(tokens(25), &limits), EDGE).is_ok());
}

#[test]
fn growth_counts_in_the_window_of_its_time() {
    // Of each limit of 100: 80 at first; 50 more and 30 more, each a minute later.
    let after = [EDGE, later(EDGE, 60_000), later(EDGE, 120_000)];
    // charge, what is used of the last minute: 80 + 50 were held in those that are over
    for (charge, used) in [(0, 0), (130, 0), (131, 1), (160, 30), (170, 40)] {
        let (books, limits) = (books(9), tokens_per_minute(100));
        let (mut claim, _) = books.reserve(demand(tokens(80), &limits), after[0]).unwrap();
        assert_eq!(books.grow(&mut claim, tokens(50), after[1]), tokens(50));
        assert_eq!(books.windows(user("alice"), after[1]).minute.reserved, tokens(50));
        assert_eq!(books.grow(&mut claim, tokens(30), after[2]), tokens(30));
        assert_eq!(books.windows(user("alice"), after[2]).minute.reserved, tokens(30));
        books.settle(&claim, tokens(charge), after[2]);
        let minute = books.windows(user("alice"), after[2]).minute;
        let spent = Spent { used: tokens(used), ..Spent::default() };
        assert_eq!(minute, spent, "{charge}");
        // The midnight is between the first and the second; the month knows of all.
        let (day, month) = (charge.max(80) - 80, charge);
        assert_eq!(books.windows(user("alice"), after[2]).day.used, tokens(day), "{charge}");
        assert_eq!(books.windows(user("alice"), after[2]).month.used, tokens(month), "{charge}");
    }
}

#[test]
fn a_reset_leaves_room_to_grow() {
    let (books, limits) = (books(9), tokens_per_day(100));
    let (mut claim, _) = books.reserve(demand(tokens(10), &limits), EDGE).unwrap();
    let (other, _) = books.reserve(demand(tokens(90), &limits), EDGE).unwrap();
    books.settle(&other, tokens(90), EDGE);
    assert_eq!(books.grow(&mut claim, tokens(50), EDGE), tokens(0));
    books.shards.with_account(user("alice"), Account::reset);
    assert_eq!(books.grow(&mut claim, tokens(150), EDGE), tokens(90));
}

#[tokio::test]
async fn an_ended_reservation_does_not_grow() {
    let counters = MemoryCounters::new(Clock::system());
    let ask = || demand(tokens(60), &per(Resource::Tokens, Window::Month, 1_000));
    for settled in [true, false] {
        let reservation = counters.reserve(ask()).await.unwrap();
        let extension = reservation.extension();
        assert_eq!(extension.grow(tokens(5)).await, tokens(5));
        assert_eq!(reservation.reserved(), tokens(65));
        if settled {
            assert_eq!(reservation.settle(tokens(66)), tokens(1));
        } else {
            drop(reservation);
        }
        assert_eq!(extension.grow(tokens(5)).await, Charge::default());
        let month = counters.consumption(user("alice")).await.unwrap().windows.month;
        assert_eq!((month.used, month.reserved), (tokens(66), tokens(0)));
    }
    assert_eq!(counters.open_reservations(), 0);
}
