//! The ceiling of a running request: what it has reserved. A request that comes near it holds more
//! if there is more; where there is none it is ended in time, so that no limit is passed.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::context::Exchange;
use crate::cut::{Cut, GRACE};
use crate::metrics::Metrics;
use crate::quota::{Charge, Extension, Reservation};
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

/// Watches a request that was sent now, if its GPU time is limited.
pub(super) fn watch(exchange: &Exchange, metrics: &Arc<Metrics>) -> Option<Watch> {
    exchange.reservation.view().gpu_ms?;
    let gpus = exchange.grant.route().upstream().gpus;
    let held_ms = exchange.reservation.reserved().gpu_ms;
    let (extension, cut) = (exchange.reservation.extension(), Arc::clone(exchange.entry.cut()));
    let metrics = Arc::clone(metrics);
    Some(Watch(tokio::spawn(async move {
        guard(extension, held_ms, gpus, &cut).await;
        metrics.quota_refused("gpu_seconds_ceiling");
    })))
}

/// Returns once the request is cut.
async fn guard(extension: Extension, mut held_ms: u64, gpus: f64, cut: &Cut) {
    let began = tokio::time::Instant::now();
    loop {
        tokio::time::sleep_until(began + time_of(held_ms, gpus)).await;
        let more = Charge { gpu_ms: MORE_GPU_MS, ..Charge::default() };
        let granted = extension.grow(more).await.gpu_ms;
        if granted == 0 {
            return cut.fire(used_up("GPU-seconds"));
        }
        held_ms = held_ms.saturating_add(granted);
    }
}

/// When a request that holds so much must be ended: sooner than it is used up, by the time that an
/// answer gets to end in its own words.
fn time_of(held_ms: u64, gpus: f64) -> Duration {
    let all = Duration::from_millis(held_ms).div_f64(gpus.max(f64::MIN_POSITIVE));
    all.saturating_sub((GRACE * 2).min(all / 4))
}

/// The end of an answer that has more tokens than its request holds, where tokens are limited.
pub(super) fn overruns(reservation: &Reservation, written: u64) -> Option<Denial> {
    reservation.view().tokens?;
    (written > reservation.reserved().completion).then(|| used_up("tokens"))
}

/// What is charged at most for a request that was ended at its ceiling: what came after is not the
/// caller's.
pub(super) fn bounded(exchange: &Exchange, charge: Charge) -> Charge {
    let cut = exchange.entry.denial();
    let at_ceiling = cut.is_some_and(|denial| denial.reason() == Reason::InsufficientQuota);
    if at_ceiling { charge.over(charge.over(exchange.reservation.reserved())) } else { charge }
}

fn used_up(what: &str) -> Denial {
    let message = format!("the {what} that this request could have are used up");
    Denial::new(Reason::InsufficientQuota, message).detail("cut at the ceiling")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_ended_before_its_time_is_used_up() {
        for (held_ms, gpus, expected_ms) in
            [(10_000, 1.0, 9_500), (10_000, 2.0, 4_500), (400, 1.0, 300), (0, 1.0, 0)]
        {
            let time = time_of(held_ms, gpus);
            assert_eq!(time, Duration::from_millis(expected_ms), "{held_ms} {gpus}");
        }
    }
}
