//! The clock that the benches share.

use std::io::Write;
use std::time::{Duration, Instant};

/// Prints the median time of one call, over batches that take a millisecond or more.
pub(crate) fn measure(name: &str, mut call: impl FnMut()) -> std::io::Result<()> {
    let mut batch = 1;
    while time(batch, &mut call) < Duration::from_millis(1) {
        batch *= 2;
    }
    let mut times: Vec<Duration> = (0..51).map(|_| time(batch, &mut call)).collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let micros = median.as_secs_f64() * 1e6 / f64::from(batch);
    writeln!(std::io::stdout(), "{name:34} {micros:10.2} µs")
}

fn time(batch: u32, call: &mut impl FnMut()) -> Duration {
    let begun = Instant::now();
    (0..batch).for_each(|_| call());
    begun.elapsed()
}
