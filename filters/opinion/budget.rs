//! The budget of calls: so many a minute in the long run, and as many at once after a quiet minute.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Failure;

const MINUTE_NS: u64 = 60_000_000_000;

/// The generic cell rate algorithm (ITU-T I.371, annex A) with a burst of a minute's calls, kept in
/// one number: the time at which all of the burst will be there again.
pub(super) struct Budget {
    /// None is no budget.
    rate: Option<Rate>,
    full_at_ns: AtomicU64,
}

/// What one call is worth, rounded up, so that the rate is never exceeded; and all calls of a minute.
#[derive(Clone, Copy)]
struct Rate {
    interval_ns: u64,
    burst_ns: u64,
}

impl Rate {
    fn new(per_minute: NonZeroU32) -> Self {
        let calls = u64::from(per_minute.get());
        let interval_ns = MINUTE_NS.div_ceil(calls);
        Self { interval_ns, burst_ns: interval_ns.saturating_mul(calls) }
    }
}

impl Budget {
    pub(super) fn new(per_minute: Option<NonZeroU32>) -> Self {
        Self { rate: per_minute.map(Rate::new), full_at_ns: AtomicU64::new(0) }
    }

    /// Takes one call from the budget.
    pub(super) fn take(&self, now_ns: u64) -> Result<(), Failure> {
        let Some(Rate { interval_ns, burst_ns }) = self.rate else { return Ok(()) };
        let spend = |full_at_ns: u64| {
            let after_ns = full_at_ns.max(now_ns).saturating_add(interval_ns);
            (after_ns.saturating_sub(now_ns) <= burst_ns).then_some(after_ns)
        };
        let taken = self.full_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
        taken.map(drop).map_err(|_| Failure::Budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flood(budget: &Budget, now_ns: u64) -> u32 {
        let most = 10_000;
        (0..most).take_while(|_| budget.take(now_ns).is_ok()).count() as u32
    }

    #[test]
    fn a_minutes_calls_at_once_and_then_the_rate() {
        for per_minute in [1, 2, 7, 60, 999] {
            let budget = Budget::new(NonZeroU32::new(per_minute));
            assert_eq!(flood(&budget, 5), per_minute, "{per_minute}");
            let interval_ns = MINUTE_NS.div_ceil(u64::from(per_minute));
            assert_eq!(flood(&budget, 5 + interval_ns / 2), 0, "{per_minute}");
            assert_eq!(flood(&budget, 5 + 2 * interval_ns), per_minute.min(2), "{per_minute}");
            assert_eq!(flood(&budget, 5 + 10 * MINUTE_NS), per_minute, "{per_minute}");
        }
    }

    #[test]
    fn no_budget_is_no_limit() {
        assert_eq!(flood(&Budget::new(None), 0), 10_000);
    }
}
