//! Fixed windows of UTC for what is only known afterwards: tokens and GPU time.
//!
//! A window begins with the minute, hour or day of UTC, so that a caller can tell when it ends.
//! Each holds what was used and what is still reserved in it.

use super::demand::Charge;

/// The windows in which tokens and GPU time are limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// A minute of UTC.
    Minute,
    /// An hour of UTC.
    Hour,
    /// A day of UTC.
    Day,
}

impl Window {
    /// Every window, the shortest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// The name, in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// The number of the window since the Unix epoch. Unix time has no leap seconds, so every
    /// window is of the same length.
    pub(super) const fn index(self, unix_ms: u64) -> u64 {
        unix_ms / self.length_ms()
    }

    const fn length_ms(self) -> u64 {
        match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }
}

/// One value for each window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerWindow<T> {
    /// For the minute.
    pub minute: T,
    /// For the hour.
    pub hour: T,
    /// For the day.
    pub day: T,
}

impl<T> PerWindow<T> {
    /// The value for a window.
    #[must_use]
    pub const fn of(&self, window: Window) -> &T {
        match window {
            Window::Minute => &self.minute,
            Window::Hour => &self.hour,
            Window::Day => &self.day,
        }
    }

    pub(super) const fn of_mut(&mut self, window: Window) -> &mut T {
        match window {
            Window::Minute => &mut self.minute,
            Window::Hour => &mut self.hour,
            Window::Day => &mut self.day,
        }
    }

    pub(super) fn map<U>(&self, change: impl Fn(&T) -> U) -> PerWindow<U> {
        PerWindow { minute: change(&self.minute), hour: change(&self.hour), day: change(&self.day) }
    }
}

/// The books of one window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Book {
    index: u64,
    pub(super) used: Charge,
    pub(super) reserved: Charge,
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

    /// Holds an estimate, and says in which window.
    pub(super) const fn reserve(&mut self, estimate: Charge) -> u64 {
        self.reserved = self.reserved.plus(estimate);
        self.index
    }

    /// Replaces what was reserved in window number `index` by the real charge.
    ///
    /// Every token counts once: what was reserved, in the window that admitted it. If that one is
    /// over, its quota is spent and there is nothing to give back, so only the part of the charge
    /// that nobody has counted yet, what is over the reservation, goes to the window of now.
    pub(super) const fn settle(&mut self, index: u64, reserved: Charge, charge: Charge) {
        if index == self.index {
            self.reserved = self.reserved.over(reserved);
            self.used = self.used.plus(charge);
        } else {
            self.used = self.used.plus(charge.over(reserved));
        }
    }

    /// What is not free any more.
    pub(super) const fn taken(&self) -> Charge {
        self.used.plus(self.reserved)
    }

    /// Milliseconds until the window is over.
    pub(super) const fn left_ms(&self, window: Window, unix_ms: u64) -> u64 {
        let end_ms = self.index.saturating_add(1).saturating_mul(window.length_ms());
        end_ms.saturating_sub(unix_ms)
    }

    /// Whether this is the same as a book never opened.
    pub(super) fn is_idle(&self, window: Window, unix_ms: u64) -> bool {
        self.taken() == Charge::default() || !self.is_current(window, unix_ms)
    }

    const fn is_current(&self, window: Window, unix_ms: u64) -> bool {
        let now = window.index(unix_ms);
        self.index == now || self.index == now.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn tokens(tokens: u64) -> Charge {
        Charge { tokens, gpu_ms: tokens * 2 }
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
        for window in Window::ALL {
            assert_eq!(window.index(before) + 1, window.index(midnight), "{window:?}");
            assert_eq!(window.index(midnight), window.index(midnight + 59_999), "{window:?}");
        }
        assert_eq!(Window::Minute.index(midnight + MINUTE), Window::Minute.index(midnight) + 1);
        assert_eq!(Window::Hour.index(midnight + MINUTE), Window::Hour.index(midnight));
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
            let index = book.reserve(tokens(10));
            book.settle(index, tokens(10), tokens(7));
            assert_eq!(book.is_idle(Window::Minute, to), forgotten, "{from} to {to}");
            book.roll(Window::Minute, to);
            assert_eq!(book.used == Charge::default(), forgotten, "{from} to {to}");
        }
    }

    #[test]
    fn settling_counts_every_token_once() {
        // charge, used when settled in its window, used when settled in the next one
        let cases = [(0, 0, 0), (40, 40, 0), (100, 100, 0), (130, 130, 30)];
        for (charge, same, next) in cases {
            for (at, used) in [(MINUTE, same), (2 * MINUTE, next)] {
                let mut book = book(MINUTE);
                let index = book.reserve(tokens(100));
                assert_eq!(book.taken(), tokens(100));
                book.roll(Window::Minute, at);
                book.settle(index, tokens(100), tokens(charge));
                assert_eq!((book.used, book.reserved), (tokens(used), tokens(0)), "{charge} {at}");
            }
        }
    }

    #[test]
    fn huge_charges_saturate() {
        let mut book = book(0);
        let index = book.reserve(Charge { tokens: u64::MAX, gpu_ms: 1 });
        book.reserve(Charge { tokens: u64::MAX, gpu_ms: 1 });
        book.settle(index, Charge::default(), Charge { tokens: u64::MAX, gpu_ms: 0 });
        assert_eq!(book.taken(), Charge { tokens: u64::MAX, gpu_ms: 2 });
    }
}
