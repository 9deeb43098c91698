//! Pacing of requests: the generic cell rate algorithm, as virtual scheduling (ITU-T
//! Recommendation I.371, annex A).
//!
//! Let `T` be the time that one request is worth (a minute divided by the rate). If the caller
//! kept to the rate exactly, the next request would be due at one moment, the theoretical arrival
//! time (TAT). A request may come early by at most `tau`, and each one that is admitted moves the
//! TAT on by `T`:
//!
//! ```text
//! admitted  <=>  now >= TAT - tau        then  TAT := max(TAT, now) + T
//! ```
//!
//! After a pause the TAT lies in the past, so the n-th of many simultaneous requests finds it at
//! `now + (n - 1) T`. With `tau = (burst - 1) T` the last that passes is number `burst`; from then
//! on one passes every `T`. That is a full bucket of `burst` that leaks at the rate, kept in one
//! number, with no timer and no edge at which a caller could use two windows at once.

use std::num::NonZeroU32;
use std::time::Duration;

use super::answer_headers::Gauge;

/// How many requests, how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_minute: NonZeroU32,
    burst: NonZeroU32,
}

impl Rate {
    /// `burst` requests at once, and `per_minute` in the long run. `None` if either is 0: such a
    /// rate would admit nobody, ever.
    #[must_use]
    pub fn new(per_minute: u32, burst: u32) -> Option<Self> {
        Some(Self { per_minute: NonZeroU32::new(per_minute)?, burst: NonZeroU32::new(burst)? })
    }

    /// A part of this rate, but at least one request a minute.
    pub(super) fn divided_by(self, parts: u32) -> Self {
        let part =
            |n: NonZeroU32| NonZeroU32::new(n.get() / parts.max(1)).unwrap_or(NonZeroU32::MIN);
        Self { per_minute: part(self.per_minute), burst: part(self.burst) }
    }

    /// The slower of two rates, and the smaller of two bursts.
    pub(super) fn min(self, other: Self) -> Self {
        Self {
            per_minute: self.per_minute.min(other.per_minute),
            burst: self.burst.min(other.burst),
        }
    }

    /// Requests in a minute, in the long run.
    #[must_use]
    pub const fn per_minute(self) -> u32 {
        self.per_minute.get()
    }

    /// Requests at once.
    #[must_use]
    pub const fn burst(self) -> u32 {
        self.burst.get()
    }

    /// `T` in nanoseconds, at most a minute. It is rounded up, so that the rate is never exceeded.
    pub(super) fn interval_ns(self) -> u64 {
        MINUTE_NS.div_ceil(u64::from(self.per_minute.get()))
    }

    fn tolerance_ns(self) -> u64 {
        self.interval_ns().saturating_mul(u64::from(self.burst.get()) - 1)
    }

    fn burst_ns(self) -> u64 {
        self.interval_ns().saturating_add(self.tolerance_ns())
    }
}

/// The state of one paced subject. Times are nanoseconds on the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gcra {
    pub(super) tat_ns: u64,
}

impl Gcra {
    /// Forgives what the rate could not have let happen. After a reload to a smaller burst the
    /// bucket is empty, not in debt, so that nobody ever waits longer than `T`.
    pub(super) fn fit(&mut self, rate: Rate, now_ns: u64) {
        self.tat_ns = self.tat_ns.min(now_ns.saturating_add(rate.burst_ns()));
    }

    /// How long until a request is admitted; zero if it is now.
    pub(super) fn wait(self, rate: Rate, now_ns: u64) -> Duration {
        let due_ns = self.tat_ns.saturating_sub(rate.tolerance_ns());
        Duration::from_nanos(due_ns.saturating_sub(now_ns))
    }

    /// Counts an admitted request.
    pub(super) fn count(&mut self, rate: Rate, now_ns: u64) {
        self.tat_ns = self.tat_ns.max(now_ns).saturating_add(rate.interval_ns());
    }

    /// The limit is the burst, the reset is when all of it is there again: the two between which
    /// `remaining` moves.
    pub(super) fn gauge(self, rate: Rate, now_ns: u64) -> Gauge {
        let debt_ns = self.tat_ns.saturating_sub(now_ns);
        let limit = u64::from(rate.burst.get());
        Gauge {
            limit,
            remaining: limit.saturating_sub(debt_ns.div_ceil(rate.interval_ns())),
            reset_ms: debt_ns.div_ceil(MS_NS),
        }
    }

    /// Whether this is the same as a subject never seen.
    pub(super) const fn is_idle(self, now_ns: u64) -> bool {
        self.tat_ns <= now_ns
    }
}

const MS_NS: u64 = 1_000_000;
const MINUTE_NS: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_minute: u32, burst: u32) -> Rate {
        Rate::new(per_minute, burst).unwrap()
    }

    /// Admits as many as pass at this moment.
    fn flood(gcra: &mut Gcra, rate: Rate, now_ns: u64) -> u32 {
        let mut admitted = 0;
        while gcra.wait(rate, now_ns).is_zero() {
            gcra.count(rate, now_ns);
            admitted += 1;
        }
        admitted
    }

    #[test]
    fn a_rate_of_nothing_is_no_rate() {
        for (per_minute, burst, valid) in [(0, 1, false), (1, 0, false), (1, 1, true)] {
            assert_eq!(Rate::new(per_minute, burst).is_some(), valid, "{per_minute} {burst}");
        }
    }

    #[test]
    fn a_flood_admits_the_burst_and_then_the_rate() {
        // per minute, burst, pause, admitted after the pause
        let cases = [
            (100, 20, Duration::from_millis(599), 0),
            (100, 20, Duration::from_millis(600), 1),
            (100, 20, Duration::from_secs(6), 10),
            (100, 20, Duration::from_secs(12), 20),
            (100, 20, Duration::from_secs(3600), 20),
            (1, 1, Duration::from_secs(60), 1),
            (7, 3, Duration::from_secs(60), 3),
            (u32::MAX, 5, Duration::from_nanos(14), 1),
        ];
        for (per_minute, burst, pause, refilled) in cases {
            let (rate, mut gcra, start) = (rate(per_minute, burst), Gcra::default(), 1_000);
            assert_eq!(flood(&mut gcra, rate, start), burst, "{rate:?}");
            let later = start + pause.as_nanos() as u64;
            assert_eq!(flood(&mut gcra, rate, later), refilled, "{rate:?} after {pause:?}");
        }
    }

    #[test]
    fn the_wait_is_exact_to_the_nanosecond_and_at_most_a_minute() {
        for (per_minute, burst) in [(1, 1), (7, 3), (100, 20), (6000, 1), (u32::MAX, u32::MAX)] {
            let (rate, now) = (rate(per_minute, burst), 5_000_000_000);
            let mut gcra = Gcra { tat_ns: now + rate.burst_ns() };
            let wait = gcra.wait(rate, now);
            assert!(wait > Duration::ZERO && wait <= Duration::from_secs(60), "{rate:?} {wait:?}");
            let then = now + wait.as_nanos() as u64;
            assert!(!gcra.wait(rate, then - 1).is_zero(), "{rate:?}: too early");
            assert!(gcra.wait(rate, then).is_zero(), "{rate:?}: not yet");
            gcra.count(rate, then);
            assert_eq!(gcra.wait(rate, then).as_nanos() as u64, rate.interval_ns());
        }
    }

    #[test]
    fn the_long_run_keeps_to_the_rate() {
        for per_minute in [1, 7, 59, 100, 977] {
            let (rate, mut gcra) = (rate(per_minute, 3), Gcra::default());
            let hour = (0..3_600_000).map(|ms| flood(&mut gcra, rate, ms * MS_NS)).sum::<u32>();
            assert!(hour <= 60 * per_minute + 3, "{per_minute}/min admitted {hour} in an hour");
            assert!(rate.interval_ns() * u64::from(per_minute) >= MINUTE_NS, "{per_minute}/min");
            assert!(hour >= 60 * per_minute, "{per_minute}/min admitted {hour} in an hour");
        }
    }

    #[test]
    fn a_smaller_rate_after_a_reload_leaves_no_debt() {
        let mut gcra = Gcra::default();
        assert_eq!(flood(&mut gcra, rate(1, 1000), 0), 1000);
        let after = rate(60, 2);
        gcra.fit(after, 0);
        assert_eq!(gcra.wait(after, 0), Duration::from_secs(1));
        assert_eq!(flood(&mut gcra, after, 1_000 * MS_NS), 1);
    }

    #[test]
    fn a_burst_beyond_all_time_saturates() {
        let (rate, mut gcra) = (rate(1, u32::MAX), Gcra { tat_ns: u64::MAX });
        gcra.fit(rate, 5);
        gcra.count(rate, 5);
        assert!(gcra.wait(rate, 5) <= Duration::from_secs(60));
        assert!(gcra.gauge(rate, 5).remaining < u64::from(u32::MAX));
    }

    #[test]
    fn the_gauge_counts_down_and_refills() {
        let (rate, mut gcra) = (rate(60, 3), Gcra::default());
        for (remaining, reset_ms) in [(3, 0), (2, 1000), (1, 2000), (0, 3000)] {
            assert_eq!(gcra.gauge(rate, 0), Gauge { limit: 3, remaining, reset_ms });
            assert_eq!(gcra.is_idle(0), remaining == 3);
            gcra.count(rate, 0);
        }
        let mut empty = Gcra::default();
        flood(&mut empty, rate, 0);
        let (almost, full) = (1_000 * MS_NS - 1, 1_000 * MS_NS);
        assert_eq!(empty.gauge(rate, almost).remaining, 0);
        assert_eq!(empty.gauge(rate, full).remaining, 1);
        assert!(!empty.is_idle(3_000 * MS_NS - 1) && empty.is_idle(3_000 * MS_NS));
    }
}
