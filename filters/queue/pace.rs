//! How long turns take, learned from those that ended, and so how long a wait will be.

use std::num::NonZeroU32;
use std::time::Duration;

/// What a turn is thought to take before one has ended.
const FIRST_GUESS: u64 = 1_000_000_000;

/// Weight of the past in the average, against 1 for the newest turn.
const PAST: u64 = 7;

/// The shortest and the longest wait that is told to anybody.
const TOLD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The time that turns take. All times are nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Pace {
    average: Option<u64>,
    running: u64,
    /// Sum of the moments at which the running turns began.
    begun: u128,
}

impl Pace {
    pub(super) fn started(&mut self, now: u64) {
        self.running += 1;
        self.begun += u128::from(now);
    }

    pub(super) fn finished(&mut self, began: u64, now: u64) {
        self.running = self.running.saturating_sub(1);
        self.begun = self.begun.saturating_sub(u128::from(began));
        let took = now.saturating_sub(began);
        let next = |past: u64| past - past / (PAST + 1) + took / (PAST + 1);
        self.average = Some(self.average.map_or(took, next));
    }

    /// How long a turn will take: a moving average (EWMA, 1/8 for the newest).
    pub(super) fn expected(&self) -> u64 {
        self.average.unwrap_or(FIRST_GUESS)
    }

    /// An honest `Retry-After` for who is at this position. Turns that run for longer than any that
    /// ended count too: else an upstream that hangs would seem quick.
    pub(super) fn wait(&self, position: u64, slots: Option<NonZeroU32>, now: u64) -> Duration {
        let slots = slots.map_or(1, |slots| u64::from(slots.get()));
        let turn = self.expected().max(self.held(now));
        Duration::from_nanos(turn.saturating_mul(position) / slots).clamp(TOLD.0, TOLD.1)
    }

    /// For how long the running turns have been held, on average.
    fn held(&self, now: u64) -> u64 {
        let held = (u128::from(self.running) * u128::from(now)).saturating_sub(self.begun);
        u64::try_from(held / u128::from(self.running.max(1))).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn wait(pace: &Pace, position: u64, slots: u32, now: u64) -> f64 {
        pace.wait(position, NonZeroU32::new(slots), now).as_secs_f64()
    }

    #[test]
    fn the_average_follows_what_turns_take() {
        let mut pace = Pace::default();
        assert_eq!(pace.expected(), FIRST_GUESS);
        pace.started(0);
        pace.finished(0, 8 * SECOND);
        assert_eq!(pace.expected(), 8 * SECOND, "the first turn replaces the guess");
        pace.started(0);
        pace.finished(0, 16 * SECOND);
        assert_eq!(pace.expected(), 9 * SECOND);
        for _ in 0..100 {
            pace.started(5);
            pace.finished(5, 5);
        }
        assert!(pace.expected() < 20_000);
    }

    #[test]
    fn the_wait_is_turns_by_slots_from_1_to_60_seconds() {
        let mut pace = Pace::default();
        pace.started(0);
        pace.finished(0, 3 * SECOND);
        for (position, slots, expected) in [
            (1, 1, 3.0),
            (8, 4, 6.0),
            (8, 0, 24.0),
            (1, 100, 1.0),
            (1000, 1, 60.0),
            (u64::MAX, 1, 60.0),
        ] {
            assert_eq!(wait(&pace, position, slots, 0), expected, "{position} by {slots}");
        }
    }

    #[test]
    fn turns_that_hang_are_seen_before_they_end() {
        let mut pace = Pace::default();
        pace.started(0);
        pace.started(10 * SECOND);
        assert_eq!(wait(&pace, 1, 1, 25 * SECOND), 20.0);
        pace.finished(0, 25 * SECOND);
        assert_eq!(wait(&pace, 1, 1, 25 * SECOND), 25.0);
    }
}
