//! The ceiling of a running request: what it has reserved. GPU time that is nearly used up is
//! prolonged while there is more; where there is none, and where an answer has more tokens than its
//! request holds, the request is ended in time, so that no limit is passed.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::answer::{Answer, Framing};
use crate::context::Exchange;
use crate::cut::{Cut, GRACE};
use crate::metrics::Metrics;
use crate::quota::{Charge, Extension};
use crate::verdict::{Denial, Reason};

/// How much more GPU time is held at one time, in milliseconds.
const MORE_GPU_MS: u64 = 5_000;

/// Watches the GPU time of a request while it runs; ends with it.
#[derive(Debug)]
pub(crate) struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Watches a request that was sent now, if its GPU time is limited. One that computes nothing holds
/// none.
pub(super) fn watch(exchange: &Exchange, metrics: &Arc<Metrics>) -> Option<Watch> {
    let held_ms = exchange.reservation.reserved().gpu_ms;
    if held_ms == 0 || !exchange.reservation.limited().gpu {
        return None;
    }
    let gpus = exchange.grant.route().upstream().gpus;
    let (extension, cut) = (exchange.reservation.extension(), Arc::clone(exchange.entry.cut()));
    let metrics = Arc::clone(metrics);
    Some(Watch(tokio::spawn(async move {
        until_used_up(extension, held_ms, gpus).await;
        end(&cut, "GPU-seconds", "gpu_seconds_ceiling", &metrics);
    })))
}

/// Holds more whenever what is held is nearly used up, and returns once there is no more.
async fn until_used_up(extension: Extension, mut held_ms: u64, gpus: f64) {
    let began = tokio::time::Instant::now();
    loop {
        tokio::time::sleep_until(began + time_of(held_ms, gpus)).await;
        let more = Charge { gpu_ms: MORE_GPU_MS, ..Charge::default() };
        match extension.grow(more).await.gpu_ms {
            0 => return,
            granted => held_ms = held_ms.saturating_add(granted),
        }
    }
}

/// When a request that holds so much must be ended: sooner than it is used up, by the time that an
/// answer gets to end in its own words. An upstream that reports its durations reports them by the
/// clock, however small its share of a GPU is.
fn time_of(held_ms: u64, gpus: f64) -> Duration {
    let all = Duration::from_millis(held_ms).div_f64(gpus.max(1.0));
    all.saturating_sub((GRACE * 2).min(all / 4))
}

/// Ends a stream that has more tokens than its request holds, where its tokens are limited. An answer
/// in one piece is written before it can be read: that is charged in full.
pub(super) fn check(exchange: &Exchange, answer: &Answer, metrics: &Metrics) -> Option<Denial> {
    let streams = matches!(answer.framing(), Framing::Sse | Framing::NdJson);
    let limited = streams && exchange.reservation.limited().completion;
    let Charge { prompt, completion, .. } = exchange.reservation.reserved();
    let echoed = if exchange.echoes { prompt.saturating_mul(exchange.answers) } else { 0 };
    if !limited || answer.written() <= completion.saturating_add(echoed) {
        return None;
    }
    end(exchange.entry.cut(), "tokens", "tokens_ceiling", metrics);
    exchange.entry.denial()
}

/// Ends a request, unless it was ended before, and counts that.
fn end(cut: &Cut, what: &str, meter: &'static str, metrics: &Metrics) {
    let message = format!("the {what} that this request could have are used up");
    let denial = Denial::new(Reason::InsufficientQuota, message).detail("cut at the ceiling");
    if cut.fire(denial) {
        metrics.quota_refused(meter);
    }
}

/// What is charged at most for a request that was ended at its ceiling: what came after is not the
/// caller's.
pub(super) fn bounded(exchange: &Exchange, charge: Charge) -> Charge {
    let cut = exchange.entry.denial();
    let at_ceiling = cut.is_some_and(|denial| denial.reason() == Reason::InsufficientQuota);
    if at_ceiling { charge.over(charge.over(exchange.reservation.reserved())) } else { charge }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_ended_before_its_time_is_used_up() {
        for (held_ms, gpus, expected_ms) in [
            (10_000, 1.0, 9_500),
            (10_000, 2.0, 4_500),
            (10_000, 0.5, 9_500),
            (400, 1.0, 300),
            (0, 1.0, 0),
        ] {
            let time = time_of(held_ms, gpus);
            assert_eq!(time, Duration::from_millis(expected_ms), "{held_ms} {gpus}");
        }
    }
}
