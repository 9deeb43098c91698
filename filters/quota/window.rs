//! Fixed windows of UTC for what is only known afterwards: tokens and GPU time.
//!
//! A window begins with the minute, hour, day or month of UTC, so that a caller can tell when it
//! ends. Each holds what was used and what is still reserved in it.

use super::charge::{Charge, Resource};

/// The length of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the windows that a quota can name")]
pub enum Window {
    /// From second 0 to second 59.
    Minute,
    /// From minute 0 to minute 59.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first day to the last one.
    Month,
}

impl Window {
    /// All of them, from the shortest.
    pub const ALL: [Self; 4] = [Self::Minute, Self::Hour, Self::Day, Self::Month];

    /// The name that limits use: `tokens_per_<name>`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The number of the window since the Unix epoch. Unix time has no leap seconds, so all but
    /// the months are of the same length.
    pub(super) const fn index(self, unix_ms: u64) -> u32 {
        let index = match self {
            Self::Minute => unix_ms / 60_000,
            Self::Hour => unix_ms / 3_600_000,
            Self::Day => unix_ms / DAY_MS,
            Self::Month => month_of_day(unix_ms / DAY_MS),
        };
        if index > u32::MAX as u64 { u32::MAX } else { index as u32 }
    }

    /// When the window with this number is over, in Unix milliseconds.
    const fn end_ms(self, index: u32) -> u64 {
        let next = index as u64 + 1;
        match self {
            Self::Minute => next * 60_000,
            Self::Hour => next * 3_600_000,
            Self::Day => next * DAY_MS,
            Self::Month => first_day_of_month(next) * DAY_MS,
        }
    }
}

/// Months since January 1970 of a day since then (H. Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`).
const fn month_of_day(day: u64) -> u64 {
    let shifted = day + 719_468;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_from_march = (5 * of_year + 2) / 153;
    let march_years = shifted / 146_097 * 400 + year_of_era;
    (march_years * 12 + months_from_march + 2).saturating_sub(1970 * 12)
}

/// The inverse: the first day of a month since January 1970 (`days_from_civil`).
const fn first_day_of_month(month: u64) -> u64 {
    let months_from_march = month + 1970 * 12 - 2;
    let year = months_from_march / 12;
    let of_year = (153 * (months_from_march % 12) + 2) / 5;
    year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719_468
}

const DAY_MS: u64 = 86_400_000;

/// One value for each window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "one field for each window")]
pub struct PerWindow<T> {
    /// For the minute.
    pub minute: T,
    /// For the hour.
    pub hour: T,
    /// For the day.
    pub day: T,
    /// For the month.
    pub month: T,
}

impl<T> PerWindow<T> {
    /// The value for a window.
    #[must_use]
    pub const fn of(&self, window: Window) -> &T {
        match window {
            Window::Minute => &self.minute,
            Window::Hour => &self.hour,
            Window::Day => &self.day,
            Window::Month => &self.month,
        }
    }

    pub(super) const fn of_mut(&mut self, window: Window) -> &mut T {
        match window {
            Window::Minute => &mut self.minute,
            Window::Hour => &mut self.hour,
            Window::Day => &mut self.day,
            Window::Month => &mut self.month,
        }
    }

    pub(super) fn map<U>(&self, change: impl Fn(&T) -> U) -> PerWindow<U> {
        PerWindow {
            minute: change(&self.minute),
            hour: change(&self.hour),
            day: change(&self.day),
            month: change(&self.month),
        }
    }
}

/// What is counted in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spent {
    /// Requests admitted.
    pub requests: u32,
    /// Settled charges.
    pub used: Charge,
    /// Held by requests that are still running and were admitted in this window.
    pub reserved: Charge,
}

impl Spent {
    /// What is not free any more.
    pub(super) const fn taken(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Requests => self.requests as u64,
            Resource::Tokens
            | Resource::PromptTokens
            | Resource::CompletionTokens
            | Resource::GpuTime => resource.of(self.used.plus(self.reserved)),
        }
    }
}

/// The part of a reservation that a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) index: u32,
    pub(super) part: Charge,
}

/// The books of one window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Book {
    pub(super) index: u32,
    pub(super) spent: Spent,
}

impl Book {
    /// Opens a new book once the window is over.
    ///
    /// Who comes with a time just before the edge, because the system clock was set back or another
    /// thread was faster, stays in the window that was reached: to begin anew would give the quota
    /// twice. A clock that is set back further was wrong before; it starts over, rather than keep
    /// the callers out until that time comes again.
    pub(super) fn roll(&mut self, window: Window, unix_ms: u64) {
        if !self.is_current(window, unix_ms) {
            *self = Self { index: window.index(unix_ms), ..Self::default() };
        }
    }

    /// Counts a request, and holds what it was granted.
    pub(super) const fn admit(&mut self, granted: Charge) -> Place {
        self.spent.requests = self.spent.requests.saturating_add(1);
        self.spent.reserved = self.spent.reserved.plus(granted);
        Place { index: self.index, part: granted }
    }

    /// Holds more for a reservation. One that was made in a window that is over keeps there what
    /// it held; only what is new is held in this one.
    pub(super) const fn grow(&mut self, place: &mut Place, more: Charge) {
        self.spent.reserved = self.spent.reserved.plus(more);
        let before = if place.index == self.index { place.part } else { EMPTY };
        *place = Place { index: self.index, part: before.plus(more) };
    }

    /// Replaces what was reserved, of which this window may hold a part, by the real charge.
    ///
    /// Every token counts once: what was reserved, in the window that held it. Where that one is
    /// over, its quota is spent and there is nothing to give back, so only the part of the charge
    /// that nobody has counted yet goes to the window of now.
    pub(super) const fn settle(&mut self, place: Place, reserved: Charge, charge: Charge) {
        let here = if place.index == self.index { place.part } else { EMPTY };
        self.spent.reserved = self.spent.reserved.over(here);
        self.spent.used = self.spent.used.plus(charge.over(reserved.over(here)));
    }

    /// Milliseconds until the window is over.
    pub(super) const fn left_ms(&self, window: Window, unix_ms: u64) -> u64 {
        window.end_ms(self.index).saturating_sub(unix_ms)
    }

    /// Whether this is the same as a book never opened.
    pub(super) fn is_idle(&self, window: Window, unix_ms: u64) -> bool {
        self.spent == Spent::default() || !self.is_current(window, unix_ms)
    }

    const fn is_current(&self, window: Window, unix_ms: u64) -> bool {
        let now = window.index(unix_ms);
        self.index == now || self.index == now.saturating_add(1)
    }
}

const EMPTY: Charge = Charge { prompt: 0, completion: 0, gpu_ms: 0 };

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn tokens(tokens: u64) -> Charge {
        Charge { prompt: 0, completion: tokens, gpu_ms: tokens * 2 }
    }

    fn book(unix_ms: u64) -> Book {
        let mut book = Book::default();
        book.roll(Window::Minute, unix_ms);
        book
    }

    #[test]
    fn windows_begin_with_the_minute_hour_and_day_of_utc() {
        // 2026-11-22T23:59:59.999Z and the midnight after it
        let (before, midnight) = (1_795_391_999_999, 1_795_392_000_000);
        for window in [Window::Minute, Window::Hour, Window::Day] {
            assert_eq!(window.index(before) + 1, window.index(midnight), "{window:?}");
            assert_eq!(window.index(midnight), window.index(midnight + 59_999), "{window:?}");
            assert_eq!(window.end_ms(window.index(before)), midnight, "{window:?}");
        }
        assert_eq!(Window::Month.index(before), Window::Month.index(midnight));
        assert_eq!(Window::Minute.index(midnight + MINUTE), Window::Minute.index(midnight) + 1);
        assert_eq!(Window::Hour.index(midnight + MINUTE), Window::Hour.index(midnight));
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        // first moment, months since January 1970
        let cases = [
            (0, 0),
            (2_678_400_000, 1),         // 1970-02-01
            (1_582_934_400_000, 601),   // 2020-02-29
            (1_583_020_800_000, 602),   // 2020-03-01
            (1_609_459_200_000, 612),   // 2021-01-01
            (4_107_542_400_000, 1_562), // 2100-03-01, not a leap year
        ];
        for (unix_ms, month) in cases {
            assert_eq!(Window::Month.index(unix_ms), month, "{unix_ms}");
        }
        for month in 0..2_000 {
            let end = Window::Month.end_ms(month);
            assert_eq!(Window::Month.index(end - 1), month);
            assert_eq!(Window::Month.index(end), month + 1);
        }
    }

    #[test]
    fn a_reservation_that_grows_in_a_later_window_holds_only_the_growth_there() {
        let mut book = book(MINUTE);
        let mut place = book.admit(tokens(100));
        book.roll(Window::Minute, 2 * MINUTE);
        book.grow(&mut place, tokens(30));
        assert_eq!(book.spent.reserved, tokens(30));
        // 100 were held by the window before: 20 of the 120 count here.
        book.settle(place, tokens(130), tokens(120));
        assert_eq!((book.spent.used, book.spent.reserved), (tokens(20), tokens(0)));
    }

    #[test]
    fn a_window_is_left_at_its_last_millisecond() {
        for (unix_ms, left_ms) in [(MINUTE, MINUTE), (MINUTE + 1, 59_999), (2 * MINUTE - 1, 1)] {
            let left = book(unix_ms).left_ms(Window::Minute, unix_ms);
            assert_eq!(left, left_ms, "at {unix_ms}");
        }
    }

    #[test]
    fn a_book_rolls_over_by_the_clock() {
        // from, to, whether what was used is forgotten
        let cases = [
            (5 * MINUTE, 6 * MINUTE - 1, false),
            (5 * MINUTE, 6 * MINUTE, true),
            (5 * MINUTE, 99 * MINUTE, true),
            (5 * MINUTE, 5 * MINUTE - 1, false), // set back across the edge
            (5 * MINUTE, 4 * MINUTE - 1, true),  // set back by more than a window
        ];
        for (from, to, forgotten) in cases {
            let mut book = book(from);
            let place = book.admit(tokens(10));
            book.settle(place, tokens(10), tokens(7));
            assert_eq!(book.is_idle(Window::Minute, to), forgotten, "{from} to {to}");
            book.roll(Window::Minute, to);
            assert_eq!(book.spent.used.is_nothing(), forgotten, "{from} to {to}");
        }
    }

    #[test]
    fn settling_counts_every_token_once() {
        // charge, used when settled in its window, used when settled in the next one
        let cases = [(0, 0, 0), (40, 40, 0), (100, 100, 0), (130, 130, 30)];
        for (charge, same, next) in cases {
            for (at, used) in [(MINUTE, same), (2 * MINUTE, next)] {
                let mut book = book(MINUTE);
                let place = book.admit(tokens(100));
                assert_eq!(book.spent.taken(Resource::Tokens), 100);
                book.roll(Window::Minute, at);
                book.settle(place, tokens(100), tokens(charge));
                let spent = book.spent;
                assert_eq!(
                    (spent.used, spent.reserved),
                    (tokens(used), tokens(0)),
                    "{charge} {at}"
                );
            }
        }
    }

    #[test]
    fn huge_charges_saturate() {
        let mut book = book(0);
        let huge = Charge { prompt: u64::MAX, completion: 0, gpu_ms: 1 };
        let place = book.admit(huge);
        book.admit(huge);
        book.settle(place, Charge::default(), huge);
        assert_eq!(book.spent.taken(Resource::Tokens), u64::MAX);
        assert_eq!(book.spent.taken(Resource::GpuTime), 2);
        assert_eq!(book.spent.taken(Resource::Requests), 2);
    }
}
