//! The breaker: a guard that keeps failing is left alone, and tried again now and then.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Failure;

/// Opens after a number of failures in a row. While it is open one call in each pause goes through;
/// the first that succeeds closes it.
pub(super) struct Breaker {
    failures: u32,
    pause_ns: u64,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until_ns: u64 },
}

impl Breaker {
    pub(super) fn new(failures: u32, pause: Duration) -> Self {
        let pause_ns = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
        Self { failures, pause_ns, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Whether a call would be refused.
    pub(super) fn is_open(&self, now_ns: u64) -> bool {
        self.with(|state| matches!(state, State::Open { until_ns } if now_ns < *until_ns))
    }

    /// Lets a call through. If the breaker is open it is a trial, and the next one is a pause away:
    /// so a trial whose end nobody hears of stops nothing.
    pub(super) fn admit(&self, now_ns: u64) -> Result<(), Failure> {
        self.with(|state| match state {
            State::Closed { .. } => Ok(()),
            State::Open { until_ns } if now_ns < *until_ns => Err(Failure::Paused),
            State::Open { until_ns } => {
                *until_ns = now_ns.saturating_add(self.pause_ns);
                Ok(())
            }
        })
    }

    /// Counts a failure, and tells whether this one has opened the breaker.
    pub(super) fn failed(&self, now_ns: u64) -> bool {
        let open = State::Open { until_ns: now_ns.saturating_add(self.pause_ns) };
        self.with(|state| match state {
            State::Closed { failures } => {
                *failures = failures.saturating_add(1);
                let opens = *failures >= self.failures;
                if opens {
                    *state = open;
                }
                opens
            }
            State::Open { .. } => {
                *state = open;
                false
            }
        })
    }

    /// Forgets the failures, and tells whether the breaker was open.
    pub(super) fn succeeded(&self) -> bool {
        self.with(|state| {
            let was_open = matches!(state, State::Open { .. });
            *state = State::Closed { failures: 0 };
            was_open
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_nanos(100);

    #[test]
    fn failures_in_a_row_open_it_and_one_success_closes_it() {
        let breaker = Breaker::new(2, PAUSE);
        assert!(!breaker.failed(0));
        assert!(!breaker.succeeded());
        assert!(!breaker.failed(0));
        assert!(breaker.failed(0));
        assert!(breaker.is_open(99));
        assert_eq!(breaker.admit(99), Err(Failure::Paused));
        assert!(breaker.succeeded());
        assert!(!breaker.is_open(0));
        assert_eq!(breaker.admit(0), Ok(()));
    }

    #[test]
    fn an_open_one_lets_one_trial_through_in_each_pause() {
        let breaker = Breaker::new(1, PAUSE);
        assert!(breaker.failed(0));
        for (now_ns, expected) in [
            (50, Err(Failure::Paused)),
            (100, Ok(())),
            (100, Err(Failure::Paused)),
            (199, Err(Failure::Paused)),
            (200, Ok(())),
        ] {
            assert_eq!(breaker.admit(now_ns), expected, "{now_ns}");
        }
        assert!(!breaker.failed(250), "it was open before");
        assert_eq!(breaker.admit(349), Err(Failure::Paused));
        assert_eq!(breaker.admit(350), Ok(()));
    }
}
