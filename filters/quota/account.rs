//! All meters of one subject. Plain state and plain time: locking is the store's business.
//!
//! The script of the store in Redis does the same on the same state (`redis/reserve.lua`); a test
//! holds the two together.

use std::time::Duration;

use super::Consumption;
use super::answer_headers::{Gauge, QuotaView};
use super::charge::{Charge, Resource};
use super::demand::{Ceiling, Level, Limits, Metered};
use super::gcra::Gcra;
use super::refusal::Meter;
use super::window::{Book, PerWindow, Place, Window};

/// One moment, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Unix milliseconds: windows begin by this.
    pub(super) unix_ms: u64,
    /// Monotonic nanoseconds: requests are paced by this.
    pub(super) monotonic_ns: u64,
}

/// The parts of a reservation that the windows of one subject hold; windows that do not count for
/// it hold none.
pub(super) type Places = PerWindow<Option<Place>>;

/// The meter that has no room, and how long that lasts; `None` if it never will have.
pub(super) type Obstacle = (Meter, Option<Duration>);

/// The meters of one subject.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    pub(super) pacing: Gcra,
    pub(super) in_flight: u32,
    pub(super) books: PerWindow<Book>,
}

impl Account {
    /// Brings the meters to this moment.
    pub(super) fn advance(&mut self, limits: &Limits, now: Now) {
        self.roll(now);
        if let Some(rate) = limits.pace {
            self.pacing.fit(rate, now.monotonic_ns);
        }
    }

    /// What keeps this much from being admitted; the obstacle that lasts longest.
    pub(super) fn obstacle(&self, limits: &Limits, ask: Charge, now: Now) -> Option<Obstacle> {
        let pacing = self.pacing_obstacle(limits, now);
        let slots = self.concurrency_obstacle(limits);
        let windows = self.budgets(limits).filter_map(|budget| budget.obstacle(ask, now));
        pacing.into_iter().chain(slots).chain(windows).max_by_key(severity)
    }

    /// As much of a wish as there is room for. Of the prompt nothing is taken off.
    pub(super) fn clamp(&self, limits: &Limits, wish: Charge) -> Charge {
        self.budgets(limits).fold(wish, |wish, budget| budget.clamp(wish))
    }

    /// Counts one request and holds what it was granted. Says which windows hold it.
    pub(super) fn admit(&mut self, metered: &Metered, granted: Charge, now: Now) -> Places {
        if let Some(rate) = metered.limits.pace {
            self.pacing.count(rate, now.monotonic_ns);
        }
        self.in_flight = self.in_flight.saturating_add(1);
        let mut places = Places::default();
        for window in Window::ALL.into_iter().filter(|&window| counts(metered, window)) {
            *places.of_mut(window) = Some(self.books.of_mut(window).admit(granted));
        }
        places
    }

    /// Holds more for a reservation that runs.
    pub(super) fn grow(&mut self, places: &mut Places, more: Charge) {
        for window in Window::ALL {
            if let Some(place) = places.of_mut(window) {
                self.books.of_mut(window).grow(place, more);
            }
        }
    }

    /// Frees the slot and replaces what was reserved by the real charge.
    pub(super) fn settle(&mut self, places: &Places, reserved: Charge, charge: Charge, now: Now) {
        self.roll(now);
        self.in_flight = self.in_flight.saturating_sub(1);
        for window in Window::ALL {
            if let Some(place) = *places.of(window) {
                self.books.of_mut(window).settle(place, reserved, charge);
            }
        }
    }

    /// Forgets what was used; what runs keeps its reservation.
    pub(super) fn reset(&mut self) {
        self.pacing = Gcra::default();
        for window in Window::ALL {
            let spent = &mut self.books.of_mut(window).spent;
            (spent.requests, spent.used) = (0, Charge::default());
        }
    }

    /// Tightens the view by the limits of this subject.
    pub(super) fn show(&self, limits: &Limits, now: Now, view: &mut QuotaView) {
        if let Some(rate) = limits.pace {
            self.pacing.gauge(rate, now.monotonic_ns).tighten(&mut view.requests);
        }
        for budget in self.budgets(limits) {
            let shown = match budget.ceiling.resource {
                Resource::Requests => &mut view.requests,
                Resource::Tokens | Resource::PromptTokens | Resource::CompletionTokens => {
                    &mut view.tokens
                }
                Resource::GpuTime => &mut view.gpu_ms,
            };
            budget.gauge(now).tighten(shown);
        }
    }

    pub(super) fn consumption(mut self, now: Now) -> Consumption {
        self.roll(now);
        Consumption { windows: self.books.map(|book| book.spent), in_flight: self.in_flight }
    }

    /// Whether this is the same as an account that was never opened.
    pub(super) fn is_idle(&self, now: Now) -> bool {
        self.in_flight == 0
            && self.pacing.is_idle(now.monotonic_ns)
            && Window::ALL.iter().all(|w| self.books.of(*w).is_idle(*w, now.unix_ms))
    }

    pub(super) fn roll(&mut self, now: Now) {
        for window in Window::ALL {
            self.books.of_mut(window).roll(window, now.unix_ms);
        }
    }

    fn pacing_obstacle(&self, limits: &Limits, now: Now) -> Option<Obstacle> {
        let wait = self.pacing.wait(limits.pace?, now.monotonic_ns);
        (!wait.is_zero()).then_some((Meter::Pace, Some(wait)))
    }

    fn concurrency_obstacle(&self, limits: &Limits) -> Option<Obstacle> {
        let limit = limits.concurrent?;
        let wait = (limit > 0).then_some(SLOT_WAIT);
        (self.in_flight >= limit).then_some((Meter::Concurrency, wait))
    }

    fn budgets(&self, limits: &Limits) -> impl Iterator<Item = Budget<'_>> {
        let budget =
            |ceiling: &Ceiling| Budget { ceiling: *ceiling, book: self.books.of(ceiling.window) };
        limits.ceilings.iter().map(budget)
    }
}

/// Whether a window is kept for a subject: those with a limit, and of users and keys all, so that
/// their use can be shown. There are only so many of these, while addresses come and go and must
/// be forgotten soon.
pub(super) fn counts(metered: &Metered, window: Window) -> bool {
    matches!(metered.level, Level::User | Level::Key)
        || metered.limits.ceilings.iter().any(|ceiling| ceiling.window == window)
}

/// An obstacle that never goes away is the worst.
fn severity((_, wait): &Obstacle) -> Duration {
    wait.unwrap_or(Duration::MAX)
}

/// One limit of one window.
struct Budget<'a> {
    ceiling: Ceiling,
    book: &'a Book,
}

impl Budget<'_> {
    fn obstacle(&self, ask: Charge, now: Now) -> Option<Obstacle> {
        let Ceiling { resource, window, limit } = self.ceiling;
        let ask = resource.of(ask);
        if ask <= self.remaining() {
            return None;
        }
        let left = Duration::from_millis(self.book.left_ms(window, now.unix_ms));
        if resource != Resource::Requests
            && resource.of(self.book.spent.used).saturating_add(ask) <= limit
        {
            return Some((Meter::Held(resource, window), Some(left.min(SLOT_WAIT))));
        }
        Some((Meter::Window(resource, window), (ask <= limit).then_some(left)))
    }

    fn clamp(&self, wish: Charge) -> Charge {
        let (room, Charge { prompt, completion, gpu_ms }) = (self.remaining(), wish);
        match self.ceiling.resource {
            Resource::Requests | Resource::PromptTokens => wish,
            Resource::Tokens => {
                Charge { completion: completion.min(room.saturating_sub(prompt)), ..wish }
            }
            Resource::CompletionTokens => Charge { completion: completion.min(room), ..wish },
            Resource::GpuTime => Charge { gpu_ms: gpu_ms.min(room), ..wish },
        }
    }

    fn gauge(&self, now: Now) -> Gauge {
        let reset_ms = self.book.left_ms(self.ceiling.window, now.unix_ms);
        Gauge { limit: self.ceiling.limit, remaining: self.remaining(), reset_ms }
    }

    const fn remaining(&self) -> u64 {
        self.ceiling.limit.saturating_sub(self.book.spent.taken(self.ceiling.resource))
    }
}

/// Somebody else's request can end at any time, so this is only a hint.
const SLOT_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::demand::Subject;
    use super::super::gcra::Rate;
    use super::*;

    /// 2026-11-22T12:00:00Z
    const NOON: Now = Now { unix_ms: 1_795_348_800_000, monotonic_ns: 1 };

    fn later(by: Duration) -> Now {
        Now {
            unix_ms: NOON.unix_ms + by.as_millis() as u64,
            monotonic_ns: NOON.monotonic_ns + by.as_nanos() as u64,
        }
    }

    fn tokens(completion: u64) -> Charge {
        Charge { completion, ..Charge::default() }
    }

    fn every_limit() -> Limits {
        let ceiling = |resource, window, limit| Ceiling { resource, window, limit };
        Limits {
            pace: Rate::new(60, 3),
            concurrent: Some(4),
            ceilings: vec![
                ceiling(Resource::Tokens, Window::Minute, 100),
                ceiling(Resource::Tokens, Window::Hour, 1_000),
                ceiling(Resource::Tokens, Window::Day, 2_000),
                ceiling(Resource::GpuTime, Window::Minute, 5_000),
                ceiling(Resource::GpuTime, Window::Day, 9_000),
            ],
        }
    }

    fn at(level: Level, limits: &Limits) -> Metered {
        let subject = Subject::new(level, "somebody");
        Metered { level, subject, limits: Arc::new(limits.clone()) }
    }

    #[test]
    fn the_obstacle_is_the_one_that_lasts_longest() {
        let (minute, day) = (Window::Minute, Window::Day);
        let (tokens, gpu) = (Resource::Tokens, Resource::GpuTime);
        let meter = Meter::Window;
        let secs = |secs| Some(Duration::from_secs(secs));
        let ask = |completion, gpu_ms| Charge { prompt: 0, completion, gpu_ms };
        // admitted before, asked for, obstacle
        let cases = [
            (vec![], ask(100, 5_000), None),
            (vec![], ask(101, 0), Some((meter(tokens, minute), None))),
            (vec![], ask(2_001, 9_001), Some((meter(gpu, day), None))),
            (vec![ask(60, 0)], ask(40, 0), None),
            (vec![ask(60, 0)], ask(41, 0), Some((meter(tokens, minute), secs(60)))),
            (vec![ask(0, 5_000)], ask(1, 1), Some((meter(gpu, minute), secs(60)))),
            (vec![ask(100, 5_000)], ask(0, 0), None),
            (vec![ask(0, 0); 3], ask(0, 0), Some((Meter::Pace, secs(1)))),
            (vec![ask(50, 0); 3], ask(50, 0), Some((meter(tokens, minute), secs(60)))),
            (vec![ask(0, 9_000)], ask(0, 1), Some((meter(gpu, day), secs(43_200)))),
        ];
        for (before, asked, expected) in cases {
            let (mut account, metered) = (Account::default(), at(Level::Role, &every_limit()));
            account.advance(&metered.limits, NOON);
            for charge in &before {
                let places = account.admit(&metered, *charge, NOON);
                account.settle(&places, *charge, *charge, NOON);
            }
            let obstacle = account.obstacle(&metered.limits, asked, NOON);
            assert_eq!(obstacle, expected, "{before:?} {asked:?}");
        }
    }

    #[test]
    fn a_wish_is_cut_to_the_room_that_is_left() {
        let ceiling = |resource, limit| Ceiling { resource, window: Window::Day, limit };
        let wish = Charge { prompt: 40, completion: 500, gpu_ms: 9_000 };
        let cases = [
            (Resource::Tokens, 1_000, (500, 9_000)),
            (Resource::Tokens, 100, (60, 9_000)),
            (Resource::Tokens, 30, (0, 9_000)),
            (Resource::CompletionTokens, 100, (100, 9_000)),
            (Resource::PromptTokens, 10, (500, 9_000)),
            (Resource::GpuTime, 1_234, (500, 1_234)),
            (Resource::Requests, 0, (500, 9_000)),
        ];
        for (resource, limit, (completion, gpu_ms)) in cases {
            let limits = Limits { ceilings: vec![ceiling(resource, limit)], ..Limits::default() };
            let clamped = Account::default().clamp(&limits, wish);
            assert_eq!(clamped, Charge { prompt: 40, completion, gpu_ms }, "{resource:?} {limit}");
        }
    }

    #[test]
    fn what_others_hold_may_come_back_soon() {
        let (mut account, metered) = (Account::default(), at(Level::Role, &every_limit()));
        account.advance(&metered.limits, NOON);
        account.admit(&metered, tokens(60), NOON);
        let held = Meter::Held(Resource::Tokens, Window::Minute);
        let obstacle = account.obstacle(&metered.limits, tokens(41), NOON);
        assert_eq!(obstacle, Some((held, Some(SLOT_WAIT))));
        let last = Now { unix_ms: NOON.unix_ms + 59_900, ..NOON };
        let obstacle = account.obstacle(&metered.limits, tokens(41), last);
        assert_eq!(obstacle, Some((held, Some(Duration::from_millis(100)))));
    }

    #[test]
    fn requests_are_counted_in_their_windows() {
        let ceiling = Ceiling { resource: Resource::Requests, window: Window::Month, limit: 2 };
        let metered = at(Level::Global, &Limits { ceilings: vec![ceiling], ..Limits::default() });
        let mut account = Account::default();
        account.advance(&metered.limits, NOON);
        for _ in 0..2 {
            assert_eq!(account.obstacle(&metered.limits, tokens(0), NOON), None);
            let places = account.admit(&metered, tokens(0), NOON);
            account.settle(&places, tokens(0), tokens(0), NOON);
        }
        // 2026-12-01 is 8.5 days away.
        let rest = Duration::from_secs(8 * 86_400 + 43_200);
        let full = Some((Meter::Window(Resource::Requests, Window::Month), Some(rest)));
        assert_eq!(account.obstacle(&metered.limits, tokens(0), NOON), full);
        account.reset();
        assert_eq!(account.obstacle(&metered.limits, tokens(0), NOON), None);
    }

    #[test]
    fn slots_are_freed_by_settling() {
        let limits = Limits { concurrent: Some(2), ..Limits::default() };
        let (mut account, metered) = (Account::default(), at(Level::User, &limits));
        let places = account.admit(&metered, tokens(5), NOON);
        assert_eq!(account.obstacle(&limits, tokens(5), NOON), None);
        account.admit(&metered, tokens(5), NOON);
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
        let (mut account, metered) = (Account::default(), at(Level::User, &every_limit()));
        account.advance(&metered.limits, NOON);
        account.admit(&metered, Charge { prompt: 0, completion: 60, gpu_ms: 1_000 }, NOON);
        let mut view = QuotaView::default();
        account.show(&metered.limits, NOON, &mut view);
        assert_eq!(view.requests, Some(Gauge { limit: 3, remaining: 2, reset_ms: 1_000 }));
        assert_eq!(view.tokens, Some(Gauge { limit: 100, remaining: 40, reset_ms: 60_000 }));
        assert_eq!(view.gpu_ms, Some(Gauge { limit: 5_000, remaining: 4_000, reset_ms: 60_000 }));
        let mut unlimited = QuotaView::default();
        account.show(&Limits::default(), NOON, &mut unlimited);
        assert_eq!(unlimited, QuotaView::default());
    }

    #[test]
    fn an_account_is_idle_once_nothing_of_it_counts() {
        let metered = at(Level::Address, &every_limit());
        let mut account = Account::default();
        assert!(account.is_idle(NOON));
        account.advance(&metered.limits, NOON);
        let places = account.admit(&metered, tokens(5), NOON);
        let next_year = later(Duration::from_secs(365 * 86_400));
        assert!(!account.is_idle(next_year), "it holds a reservation");
        account.settle(&places, tokens(5), tokens(5), NOON);
        let midnight = Duration::from_secs(43_200);
        assert!(!account.is_idle(later(midnight - Duration::from_millis(1))), "the day counts");
        assert!(account.is_idle(later(midnight)), "the month has no limit");

        let mut paced = Account::default();
        let only_pace = Limits { pace: Rate::new(60, 3), ..Limits::default() };
        let metered = at(Level::Address, &only_pace);
        let places = paced.admit(&metered, tokens(0), NOON);
        paced.settle(&places, tokens(0), tokens(0), NOON);
        assert!(!paced.is_idle(later(Duration::from_millis(999))), "the pace counts");
        assert!(paced.is_idle(later(Duration::from_secs(1))));
    }

    #[test]
    fn of_users_every_window_is_kept() {
        let only_pace = Limits { pace: Rate::new(60, 3), ..Limits::default() };
        for (level, kept) in [(Level::User, true), (Level::Key, true), (Level::Address, false)] {
            let mut account = Account::default();
            account.roll(NOON);
            account.admit(&at(level, &only_pace), tokens(7), NOON);
            let held = account.consumption(NOON).windows.month.reserved;
            assert_eq!(held == tokens(7), kept, "{level:?}");
        }
    }
}
