//! All meters of one subject. Plain state and plain time: locking is the store's business.

use std::time::Duration;

use super::Consumption;
use super::answer_headers::{Gauge, QuotaView};
use super::demand::{Charge, Limits};
use super::gcra::Gcra;
use super::refusal::Meter;
use super::window::{Book, PerWindow, Window};

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Wall-clock time, which decides the window.
    pub(super) unix_ms: u64,
    /// Monotonic time, which paces the requests.
    pub(super) monotonic_ns: u64,
}

/// The windows in which a reservation stands.
pub(super) type Places = PerWindow<u64>;

/// A meter without room, and how long until it has some; `None` if it never will.
pub(super) type Obstacle = (Meter, Option<Duration>);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    pacing: Gcra,
    in_flight: u32,
    books: PerWindow<Book>,
}

impl Account {
    /// Brings the meters to this moment: windows that are over end.
    pub(super) fn advance(&mut self, limits: &Limits, now: Now) {
        self.roll(now);
        if let Some(rate) = limits.requests {
            self.pacing.fit(rate, now.monotonic_ns);
        }
    }

    /// The meter that needs the longest wait before it could admit the estimate; `None` if all
    /// admit it now.
    pub(super) fn obstacle(&self, limits: &Limits, ask: Charge, now: Now) -> Option<Obstacle> {
        let pacing = self.pacing_obstacle(limits, now);
        let slots = self.concurrency_obstacle(limits);
        let windows = self.budgets(limits).filter_map(|budget| budget.obstacle(ask, now));
        pacing.into_iter().chain(slots).chain(windows).max_by_key(severity)
    }

    /// Counts the request and holds its estimate.
    pub(super) fn admit(&mut self, limits: &Limits, estimate: Charge, now: Now) -> Places {
        if let Some(rate) = limits.requests {
            self.pacing.count(rate, now.monotonic_ns);
        }
        self.in_flight = self.in_flight.saturating_add(1);
        let mut places = Places::default();
        for window in Window::ALL {
            *places.of_mut(window) = self.books.of_mut(window).reserve(estimate);
        }
        places
    }

    /// Replaces a reservation by the real charge; one that is given back costs nothing.
    pub(super) fn settle(&mut self, places: &Places, reserved: Charge, charge: Charge, now: Now) {
        self.roll(now);
        self.in_flight = self.in_flight.saturating_sub(1);
        for window in Window::ALL {
            self.books.of_mut(window).settle(*places.of(window), reserved, charge);
        }
    }

    /// Puts the gauges of this account into the view where they are the tightest.
    pub(super) fn show(&self, limits: &Limits, now: Now, view: &mut QuotaView) {
        if let Some(rate) = limits.requests {
            self.pacing.gauge(rate, now.monotonic_ns).tighten(&mut view.requests);
        }
        for budget in self.budgets(limits) {
            match budget.resource {
                Resource::Tokens => budget.gauge(now).tighten(&mut view.tokens),
                Resource::Gpu => budget.gauge(now).tighten(&mut view.gpu_ms),
            }
        }
    }

    pub(super) fn consumption(mut self, now: Now) -> Consumption {
        self.roll(now);
        Consumption {
            used: self.books.map(|book| book.used),
            reserved: self.books.map(|book| book.reserved),
            in_flight: self.in_flight,
        }
    }

    /// Whether forgetting the subject changes nothing. An open reservation is never forgotten.
    pub(super) fn is_idle(&self, now: Now) -> bool {
        self.in_flight == 0
            && self.pacing.is_idle(now.monotonic_ns)
            && Window::ALL.iter().all(|w| self.books.of(*w).is_idle(*w, now.unix_ms))
    }

    fn roll(&mut self, now: Now) {
        for window in Window::ALL {
            self.books.of_mut(window).roll(window, now.unix_ms);
        }
    }

    fn pacing_obstacle(&self, limits: &Limits, now: Now) -> Option<Obstacle> {
        let wait = self.pacing.wait(limits.requests?, now.monotonic_ns);
        (!wait.is_zero()).then_some((Meter::Requests, Some(wait)))
    }

    fn concurrency_obstacle(&self, limits: &Limits) -> Option<Obstacle> {
        let limit = limits.concurrent?;
        let wait = (limit > 0).then_some(SLOT_WAIT);
        (self.in_flight >= limit).then_some((Meter::Concurrency, wait))
    }

    fn budgets(&self, limits: &Limits) -> impl Iterator<Item = Budget<'_>> {
        Window::ALL.into_iter().flat_map(move |window| {
            let book = self.books.of(window);
            let tokens = limits.tokens.of(window).map(|limit| (Resource::Tokens, limit));
            let gpu = limits.gpu_ms.of(window).map(|limit| (Resource::Gpu, limit));
            let limited = tokens.into_iter().chain(gpu);
            limited.map(move |(resource, limit)| Budget { resource, window, limit, book })
        })
    }
}

/// Longer waits weigh more, and most of all one that never ends.
fn severity((_, wait): &Obstacle) -> Duration {
    wait.unwrap_or(Duration::MAX)
}

#[derive(Clone, Copy)]
enum Resource {
    Tokens,
    Gpu,
}

/// One limit of one window.
struct Budget<'a> {
    resource: Resource,
    window: Window,
    limit: u64,
    book: &'a Book,
}

impl Budget<'_> {
    /// What asks for nothing passes even where the limit is overdrawn: `remaining` stops at 0.
    fn obstacle(&self, ask: Charge, now: Now) -> Option<Obstacle> {
        let ask = self.share(ask);
        if ask <= self.remaining() {
            return None;
        }
        let left_ms = self.book.left_ms(self.window, now.unix_ms);
        Some((self.meter(), (ask <= self.limit).then_some(Duration::from_millis(left_ms))))
    }

    const fn gauge(&self, now: Now) -> Gauge {
        let reset_ms = self.book.left_ms(self.window, now.unix_ms);
        Gauge { limit: self.limit, remaining: self.remaining(), reset_ms }
    }

    const fn meter(&self) -> Meter {
        match self.resource {
            Resource::Tokens => Meter::Tokens(self.window),
            Resource::Gpu => Meter::GpuSeconds(self.window),
        }
    }

    const fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.share(self.book.taken()))
    }

    const fn share(&self, charge: Charge) -> u64 {
        match self.resource {
            Resource::Tokens => charge.tokens,
            Resource::Gpu => charge.gpu_ms,
        }
    }
}

/// What a caller is told to wait for a free slot; how long it really takes is unknown.
const SLOT_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::super::gcra::Rate;
    use super::*;

    const NOON: Now = Now { unix_ms: 1_795_348_800_000, monotonic_ns: 1 };

    fn later(by: Duration) -> Now {
        Now {
            unix_ms: NOON.unix_ms + by.as_millis() as u64,
            monotonic_ns: NOON.monotonic_ns + by.as_nanos() as u64,
        }
    }

    fn tokens(tokens: u64) -> Charge {
        Charge { tokens, gpu_ms: 0 }
    }

    fn every_limit() -> Limits {
        Limits {
            requests: Rate::new(60, 3),
            tokens: PerWindow { minute: Some(100), hour: Some(1_000), day: Some(2_000) },
            gpu_ms: PerWindow { minute: Some(5_000), hour: None, day: Some(9_000) },
            concurrent: Some(4),
        }
    }

    #[test]
    fn the_obstacle_is_the_one_that_lasts_longest() {
        let (minute, day) = (Window::Minute, Window::Day);
        let secs = |secs| Some(Duration::from_secs(secs));
        let ask = |tokens, gpu_ms| Charge { tokens, gpu_ms };
        // admitted before, asked for, obstacle
        let cases = [
            (vec![], ask(100, 5_000), None),
            (vec![], ask(101, 0), Some((Meter::Tokens(minute), None))),
            (vec![], ask(2_001, 9_001), Some((Meter::GpuSeconds(day), None))),
            (vec![ask(60, 0)], ask(40, 0), None),
            (vec![ask(60, 0)], ask(41, 0), Some((Meter::Tokens(minute), secs(60)))),
            (vec![ask(0, 5_000)], ask(1, 1), Some((Meter::GpuSeconds(minute), secs(60)))),
            (vec![ask(100, 5_000)], ask(0, 0), None),
            (vec![ask(0, 0); 3], ask(0, 0), Some((Meter::Requests, secs(1)))),
            (vec![ask(50, 0); 3], ask(50, 0), Some((Meter::Tokens(minute), secs(60)))),
            (vec![ask(0, 9_000)], ask(0, 1), Some((Meter::GpuSeconds(day), secs(43_200)))),
        ];
        for (before, asked, expected) in cases {
            let (mut account, limits) = (Account::default(), every_limit());
            account.advance(&limits, NOON);
            for charge in &before {
                account.admit(&limits, *charge, NOON);
            }
            assert_eq!(account.obstacle(&limits, asked, NOON), expected, "{before:?} {asked:?}");
        }
    }

    #[test]
    fn slots_are_freed_by_settling() {
        let limits = Limits { concurrent: Some(2), ..Limits::default() };
        let mut account = Account::default();
        let places = account.admit(&limits, tokens(5), NOON);
        assert_eq!(account.obstacle(&limits, tokens(5), NOON), None);
        account.admit(&limits, tokens(5), NOON);
        let full = Some((Meter::Concurrency, Some(SLOT_WAIT)));
        assert_eq!(account.obstacle(&limits, tokens(5), NOON), full);
        account.settle(&places, tokens(5), tokens(9), NOON);
        assert_eq!(account.obstacle(&limits, tokens(5), NOON), None);
        let none = Limits { concurrent: Some(0), ..Limits::default() };
        let never = Some((Meter::Concurrency, None));
        assert_eq!(Account::default().obstacle(&none, tokens(0), NOON), never);
    }

    #[test]
    fn the_view_shows_the_tightest_window() {
        let (mut account, limits) = (Account::default(), every_limit());
        account.advance(&limits, NOON);
        account.admit(&limits, Charge { tokens: 60, gpu_ms: 1_000 }, NOON);
        let mut view = QuotaView::default();
        account.show(&limits, NOON, &mut view);
        assert_eq!(view.requests, Some(Gauge { limit: 3, remaining: 2, reset_ms: 1_000 }));
        assert_eq!(view.tokens, Some(Gauge { limit: 100, remaining: 40, reset_ms: 60_000 }));
        assert_eq!(view.gpu_ms, Some(Gauge { limit: 5_000, remaining: 4_000, reset_ms: 60_000 }));
        let mut unlimited = QuotaView::default();
        account.show(&Limits::default(), NOON, &mut unlimited);
        assert_eq!(unlimited, QuotaView::default());
    }

    #[test]
    fn an_account_is_idle_once_nothing_of_it_counts() {
        let limits = every_limit();
        let mut account = Account::default();
        assert!(account.is_idle(NOON));
        account.advance(&limits, NOON);
        let places = account.admit(&limits, tokens(5), NOON);
        let next_year = later(Duration::from_secs(365 * 86_400));
        assert!(!account.is_idle(next_year), "it holds a reservation");
        account.settle(&places, tokens(5), tokens(5), NOON);
        let midnight = Duration::from_secs(43_200);
        assert!(!account.is_idle(later(midnight - Duration::from_millis(1))), "the day counts");
        assert!(account.is_idle(later(midnight)));

        let mut paced = Account::default();
        let places = paced.admit(&limits, tokens(0), NOON);
        paced.settle(&places, tokens(0), tokens(0), NOON);
        assert!(!paced.is_idle(later(Duration::from_millis(999))), "the pace counts");
        assert!(paced.is_idle(later(Duration::from_secs(1))));
    }
}
