//! What a caller is told when a meter has no room.

use std::time::Duration;

use crate::verdict::{Denial, Reason};

use super::answer_headers::QuotaView;
use super::demand::Level;
use super::window::Window;

/// What is metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meter {
    /// Requests, by rate and burst.
    Requests,
    /// Requests that run at one time.
    Concurrency,
    /// Tokens in a window.
    Tokens(Window),
    /// GPU time in a window.
    GpuSeconds(Window),
    /// The subjects that the store itself can count.
    Subjects,
}

impl Meter {
    /// The stable name, for metrics; that of the configuration key where there is one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests_per_minute",
            Self::Concurrency => "concurrent",
            Self::Tokens(Window::Minute) => "tokens_per_minute",
            Self::Tokens(Window::Hour) => "tokens_per_hour",
            Self::Tokens(Window::Day) => "tokens_per_day",
            Self::GpuSeconds(Window::Minute) => "gpu_seconds_per_minute",
            Self::GpuSeconds(Window::Hour) => "gpu_seconds_per_hour",
            Self::GpuSeconds(Window::Day) => "gpu_seconds_per_day",
            Self::Subjects => "subjects",
        }
    }

    /// A short wait mends everything but an hour or a day that is used up.
    const fn reason(self) -> Reason {
        match self {
            Self::Requests
            | Self::Concurrency
            | Self::Tokens(Window::Minute)
            | Self::GpuSeconds(Window::Minute) => Reason::RateLimitExceeded,
            Self::Tokens(Window::Hour | Window::Day)
            | Self::GpuSeconds(Window::Hour | Window::Day) => Reason::InsufficientQuota,
            Self::Subjects => Reason::Overloaded,
        }
    }
}

/// The meter that refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(super) meter: Meter,
    pub(super) level: Level,
    pub(super) wait: Option<Duration>,
    pub(super) view: QuotaView,
}

impl Refusal {
    /// The meter; of several, the one that needs the longest wait.
    #[must_use]
    pub const fn meter(&self) -> Meter {
        self.meter
    }

    /// On whose account the meter stands.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// When the same request would pass, if nobody else uses the quota until then. `None` if it
    /// asks for more than the whole limit and so never can.
    ///
    /// Nobody knows when a running request ends, so the wait of [`Meter::Concurrency`] is a guess.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.wait
    }

    /// For the headers: what is left, with nothing of this request in it.
    #[must_use]
    pub const fn view(&self) -> QuotaView {
        self.view
    }

    fn message(&self) -> String {
        let level = self.level.noun();
        match (self.meter, self.wait) {
            (Meter::Requests, _) => format!("too many requests per minute for this {level}"),
            (Meter::Concurrency, _) => format!("too many requests at one time for this {level}"),
            (Meter::Subjects, _) => format!("no room to count the requests of this {level}"),
            (Meter::Tokens(window), Some(_)) => spent("tokens", window, level),
            (Meter::GpuSeconds(window), Some(_)) => spent("GPU-seconds", window, level),
            (Meter::Tokens(window), None) => too_large("tokens", window, level),
            (Meter::GpuSeconds(window), None) => too_large("GPU-seconds", window, level),
        }
    }
}

fn spent(unit: &str, window: Window, level: &str) -> String {
    format!("{unit} per {} used up for this {level}", window.name())
}

fn too_large(unit: &str, window: Window, level: &str) -> String {
    let window = window.name();
    format!("this request may need more than all {unit} per {window} of this {level}: ask for less")
}

impl From<&Refusal> for Denial {
    /// A request that can never pass is out of quota whatever the window, for a client that
    /// retried it would never end. `Retry-After` is only given where waiting that long is
    /// sensible; the end of an hour or a day is in the reset headers.
    fn from(refusal: &Refusal) -> Self {
        let reason = match refusal.wait {
            Some(_) => refusal.meter.reason(),
            None => Reason::InsufficientQuota,
        };
        let detail = format!("meter {}, level {}", refusal.meter.name(), refusal.level.name());
        let denial = Self::new(reason, refusal.message()).detail(detail);
        match refusal.wait.filter(|_| reason.is_retryable()) {
            Some(wait) => denial.retry_after(wait.min(LONGEST_RETRY_AFTER)),
            None => denial,
        }
    }
}

/// No wait that is told is longer, unless the system clock was set back.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(meter: Meter, level: Level, wait_ms: Option<u64>) -> Denial {
        let wait = wait_ms.map(Duration::from_millis);
        Denial::from(&Refusal { meter, level, wait, view: QuotaView::default() })
    }

    #[test]
    fn every_meter_has_its_answer() {
        let (user, key) = (Level::User, Level::Key);
        let (limit, quota) = (Reason::RateLimitExceeded, Reason::InsufficientQuota);
        let (minute, hour, day) = (Window::Minute, Window::Hour, Window::Day);
        let cases = [
            (Meter::Requests, user, Some(600), limit, Some(1), "too many requests per minute for"),
            (Meter::Requests, user, Some(1_001), limit, Some(2), "this user"),
            (Meter::Concurrency, key, Some(1_000), limit, Some(1), "at one time for this API key"),
            (Meter::Concurrency, key, None, quota, None, "at one time for this API key"),
            (Meter::Tokens(minute), user, Some(60_000), limit, Some(60), "tokens per minute used"),
            (Meter::Tokens(minute), user, Some(90_000), limit, Some(60), "tokens per minute used"),
            (Meter::Tokens(minute), user, None, quota, None, "more than all tokens per minute"),
            (Meter::Tokens(hour), user, Some(5), quota, None, "tokens per hour used up"),
            (
                Meter::Tokens(day),
                user,
                Some(5),
                quota,
                None,
                "tokens per day used up for this user",
            ),
            (
                Meter::GpuSeconds(minute),
                key,
                Some(5),
                limit,
                Some(1),
                "GPU-seconds per minute used",
            ),
            (Meter::GpuSeconds(day), key, Some(5), quota, None, "GPU-seconds per day used up"),
            (
                Meter::GpuSeconds(hour),
                key,
                None,
                quota,
                None,
                "all GPU-seconds per hour of this API",
            ),
            (Meter::Subjects, user, Some(60_000), Reason::Overloaded, Some(60), "no room to count"),
        ];
        for (meter, level, wait_ms, reason, retry_after, text) in cases {
            let denial = denial(meter, level, wait_ms);
            assert_eq!(denial.reason(), reason, "{meter:?} {wait_ms:?}");
            assert_eq!(denial.retry_after_secs(), retry_after, "{meter:?} {wait_ms:?}");
            assert!(denial.message().contains(text), "{meter:?}: {}", denial.message());
        }
    }

    #[test]
    fn the_operator_reads_the_stable_names() {
        let denial = denial(Meter::Tokens(Window::Day), Level::Key, Some(1));
        assert_eq!(denial.operator_detail(), "meter tokens_per_day, level key");
    }
}
