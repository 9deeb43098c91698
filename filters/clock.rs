//! Time and randomness, each from one place, so that tests can move the first and name the second.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the gateway reads the time.
///
/// Wall-clock time (`unix_*`) goes into tokens, windows and audit records; durations are measured
/// on the monotonic clock, which a step of the system clock does not touch.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: Instant,
    offset_ms: Arc<AtomicI64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl Clock {
    /// The clock of the machine.
    #[must_use]
    pub fn system() -> Self {
        Self { origin: Instant::now(), offset_ms: Arc::default() }
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system clock")]
    pub fn unix_ms(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
        let shifted = i64::try_from(now).unwrap_or(i64::MAX).saturating_add(self.offset());
        u64::try_from(shifted).unwrap_or(0)
    }

    /// Seconds since the Unix epoch.
    #[must_use]
    pub fn unix_secs(&self) -> u64 {
        self.unix_ms() / 1000
    }

    /// Nanoseconds on the monotonic clock, since this clock was made.
    #[must_use]
    pub fn monotonic_ns(&self) -> u64 {
        let elapsed = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let shift = u64::try_from(self.offset()).unwrap_or(0).saturating_mul(1_000_000);
        elapsed.saturating_add(shift)
    }

    /// Moves this clock and all its clones forward, for tests.
    pub fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.offset_ms.fetch_add(ms, Ordering::SeqCst);
    }

    fn offset(&self) -> i64 {
        self.offset_ms.load(Ordering::SeqCst)
    }
}

/// Fills a new array from the operating system's generator.
///
/// # Errors
/// If the operating system has no randomness to give.
pub fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advancing_moves_every_clone() {
        let clock = Clock::system();
        let (wall, mono) = (clock.unix_ms(), clock.monotonic_ns());
        let other = clock.clone();
        clock.advance(Duration::from_secs(60));
        assert!(other.unix_ms() >= wall + 60_000);
        assert!(other.monotonic_ns() >= mono + 60_000_000_000);
    }
}
