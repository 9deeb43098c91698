//! What a caller is told when a meter has no room.

use std::time::Duration;

use crate::verdict::{Denial, Reason};

use super::answer_headers::QuotaView;
use super::charge::Resource;
use super::demand::Level;
use super::window::Window;

/// A meter of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a new meter must be thought about in every answer")]
pub enum Meter {
    /// How fast requests come.
    Pace,
    /// Requests that run at one time.
    Concurrency,
    /// What is used of a resource in a window.
    Window(Resource, Window),
    /// The same, but of what is missing others that run only hold a part, which may come back.
    Held(Resource, Window),
    /// Subjects that the store counts for.
    Subjects,
    /// The store itself, which does not answer, of a meter that is not to be guessed.
    Store,
}

impl Meter {
    /// The stable name: the key of the limit in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        use Resource::{CompletionTokens, GpuTime, PromptTokens, Requests, Tokens};
        use Window::{Day, Hour, Minute, Month};
        match self {
            Self::Pace | Self::Window(Requests, Minute) => "requests_per_minute",
            Self::Concurrency => "concurrent",
            Self::Window(Requests, Hour) => "requests_per_hour",
            Self::Window(Requests, Day) => "requests_per_day",
            Self::Window(Requests, Month) => "requests_per_month",
            Self::Window(Tokens, Minute) => "tokens_per_minute",
            Self::Window(Tokens, Hour) => "tokens_per_hour",
            Self::Window(Tokens, Day) => "tokens_per_day",
            Self::Window(Tokens, Month) => "tokens_per_month",
            Self::Window(PromptTokens, Minute) => "prompt_tokens_per_minute",
            Self::Window(PromptTokens, Hour) => "prompt_tokens_per_hour",
            Self::Window(PromptTokens, Day) => "prompt_tokens_per_day",
            Self::Window(PromptTokens, Month) => "prompt_tokens_per_month",
            Self::Window(CompletionTokens, Minute) => "completion_tokens_per_minute",
            Self::Window(CompletionTokens, Hour) => "completion_tokens_per_hour",
            Self::Window(CompletionTokens, Day) => "completion_tokens_per_day",
            Self::Window(CompletionTokens, Month) => "completion_tokens_per_month",
            Self::Window(GpuTime, Minute) => "gpu_seconds_per_minute",
            Self::Window(GpuTime, Hour) => "gpu_seconds_per_hour",
            Self::Window(GpuTime, Day) => "gpu_seconds_per_day",
            Self::Window(GpuTime, Month) => "gpu_seconds_per_month",
            Self::Held(resource, window) => Self::Window(resource, window).name(),
            Self::Subjects => "subjects",
            Self::Store => "store",
        }
    }

    /// A minute passes while a client waits; whoever has used up more than that should not try
    /// again by itself.
    const fn reason(self) -> Reason {
        match self {
            Self::Pace | Self::Concurrency | Self::Held(..) | Self::Window(_, Window::Minute) => {
                Reason::RateLimitExceeded
            }
            Self::Window(_, Window::Hour | Window::Day | Window::Month) => {
                Reason::InsufficientQuota
            }
            Self::Subjects | Self::Store => Reason::Overloaded,
        }
    }
}

/// A demand for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(super) meter: Meter,
    pub(super) level: Level,
    /// How long; `None` if the demand is larger than the limit itself.
    pub(super) wait: Option<Duration>,
    pub(super) view: QuotaView,
}

impl Refusal {
    /// The meter that refuses.
    #[must_use]
    pub const fn meter(&self) -> Meter {
        self.meter
    }

    /// Whose meter it is.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// When the same demand could pass, if ever and if nobody else takes the room.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.wait
    }

    /// The state of the caller's meters.
    #[must_use]
    pub const fn view(&self) -> QuotaView {
        self.view
    }

    fn message(&self) -> String {
        let level = self.level.noun();
        match (self.meter, self.wait) {
            (Meter::Pace, _) => format!("too many requests per minute for {level}"),
            (Meter::Concurrency, _) => format!("too many requests at one time for {level}"),
            (Meter::Subjects, _) => format!("no room to count the requests of {level}"),
            (Meter::Store, _) => "requests cannot be counted at the moment".to_owned(),
            (Meter::Held(resource, window), _) => format!(
                "the {} per {} of {level} that are left are held by requests that run",
                resource.noun(),
                window.name()
            ),
            (Meter::Window(resource, window), Some(_)) => {
                format!("{} per {} used up for {level}", resource.noun(), window.name())
            }
            (Meter::Window(resource, window), None) => format!(
                "this request may need more than all {} per {} of {level}: ask for less",
                resource.noun(),
                window.name()
            ),
        }
    }
}

impl From<&Refusal> for Denial {
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

/// A minute has at most 60 seconds left; a clock that was set back must not tell more.
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
        use Resource::{CompletionTokens, GpuTime, Requests, Tokens};
        use Window::{Day, Hour, Minute, Month};
        let (user, key) = (Level::User, Level::Key);
        let (limit, quota) = (Reason::RateLimitExceeded, Reason::InsufficientQuota);
        let per = Meter::Window;
        let cases = [
            (Meter::Pace, user, Some(600), limit, Some(1), "too many requests per minute for"),
            (Meter::Pace, user, Some(1_001), limit, Some(2), "this user"),
            (Meter::Concurrency, key, Some(1_000), limit, Some(1), "at one time for this API key"),
            (Meter::Concurrency, key, None, quota, None, "at one time for this API key"),
            (per(Tokens, Minute), user, Some(60_000), limit, Some(60), "tokens per minute used"),
            (per(Tokens, Minute), user, Some(90_000), limit, Some(60), "tokens per minute used"),
            (per(Tokens, Minute), user, None, quota, None, "more than all tokens per minute"),
            (per(Tokens, Hour), user, Some(5), quota, None, "tokens per hour used up"),
            (per(Tokens, Day), Level::Role, Some(5), quota, None, "day used up for this role"),
            (per(CompletionTokens, Month), user, Some(5), quota, None, "completion tokens per mon"),
            (per(Requests, Day), Level::Global, Some(5), quota, None, "requests per day used up"),
            (Meter::Held(Tokens, Month), key, Some(1_000), limit, Some(1), "API key that are left"),
            (per(GpuTime, Minute), key, Some(5), limit, Some(1), "GPU-seconds per minute used"),
            (per(GpuTime, Day), key, Some(5), quota, None, "GPU-seconds per day used up"),
            (per(GpuTime, Hour), key, None, quota, None, "all GPU-seconds per hour of this API"),
            (Meter::Subjects, user, Some(60_000), Reason::Overloaded, Some(60), "no room to count"),
            (Meter::Store, user, Some(1_000), Reason::Overloaded, Some(1), "cannot be counted"),
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
        let meter = Meter::Window(Resource::Tokens, Window::Day);
        let denial = denial(meter, Level::Key, Some(1));
        assert_eq!(denial.operator_detail(), "meter tokens_per_day, level key");
    }

    #[test]
    fn meters_are_named_by_what_they_count() {
        for (resource, stem) in Resource::ALL.into_iter().zip([
            "requests",
            "tokens",
            "prompt_tokens",
            "completion_tokens",
            "gpu_seconds",
        ]) {
            for window in Window::ALL {
                let name = format!("{stem}_per_{}", window.name());
                assert_eq!(Meter::Window(resource, window).name(), name);
            }
        }
    }
}
