//! The rate-limit headers of an answer, named and written as OpenAI does.

use http::{HeaderName, HeaderValue};

/// The state of the tightest meter of each kind; a kind without a limit is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaView {
    /// Requests at once.
    pub requests: Option<Gauge>,
    /// Tokens in a window.
    pub tokens: Option<Gauge>,
    /// GPU time in a window, in milliseconds.
    pub gpu_ms: Option<Gauge>,
}

/// What is left of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauge {
    /// The limit.
    pub limit: u64,
    /// What is neither used nor reserved.
    pub remaining: u64,
    /// Milliseconds until all of the limit is free again, if nothing more is used.
    pub reset_ms: u64,
}

impl QuotaView {
    /// Nothing is limited, or nothing is known.
    pub(super) const NONE: Self = Self { requests: None, tokens: None, gpu_ms: None };

    /// The headers `x-ratelimit-{limit,remaining,reset}-{requests,tokens,gpu-seconds}`.
    #[must_use]
    pub fn header_pairs(&self) -> Vec<(HeaderName, HeaderValue)> {
        let kinds = [(REQUESTS, self.requests), (TOKENS, self.tokens), (GPU, self.gpu_seconds())];
        kinds.into_iter().filter_map(|(names, gauge)| Some(names.pairs(gauge?))).flatten().collect()
    }

    /// In whole seconds, rounded down: never more than there is.
    fn gpu_seconds(&self) -> Option<Gauge> {
        let seconds = |gauge: Gauge| Gauge {
            limit: gauge.limit / 1000,
            remaining: gauge.remaining / 1000,
            ..gauge
        };
        self.gpu_ms.map(seconds)
    }
}

impl Gauge {
    /// Puts this gauge in the place of one that is not as tight: that has more left, or as much but
    /// gets it back sooner.
    pub(super) fn tighten(self, shown: &mut Option<Self>) {
        if shown.is_none_or(|shown| self.slack() < shown.slack()) {
            *shown = Some(self);
        }
    }

    const fn slack(&self) -> (u64, u64) {
        (self.remaining, u64::MAX - self.reset_ms)
    }
}

struct Names {
    limit: HeaderName,
    remaining: HeaderName,
    reset: HeaderName,
}

impl Names {
    fn pairs(self, gauge: Gauge) -> [(HeaderName, HeaderValue); 3] {
        // Digits, letters and dots: always a value.
        let reset = HeaderValue::try_from(go_duration(gauge.reset_ms));
        [
            (self.limit, gauge.limit.into()),
            (self.remaining, gauge.remaining.into()),
            (self.reset, reset.unwrap_or(const { HeaderValue::from_static("0s") })),
        ]
    }
}

/// A duration as Go prints it (`time.Duration.String`), which is how OpenAI writes the reset:
/// `120ms`, `1.5s`, `6m0s`, `1h0m0s`.
fn go_duration(ms: u64) -> String {
    if (1..1000).contains(&ms) {
        return format!("{ms}ms");
    }
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let seconds = go_seconds(ms % 60_000);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn go_seconds(ms: u64) -> String {
    match ms % 1000 {
        0 => (ms / 1000).to_string(),
        fraction => format!("{}.{fraction:03}", ms / 1000).trim_end_matches('0').to_owned(),
    }
}

const REQUESTS: Names = Names {
    limit: HeaderName::from_static("x-ratelimit-limit-requests"),
    remaining: HeaderName::from_static("x-ratelimit-remaining-requests"),
    reset: HeaderName::from_static("x-ratelimit-reset-requests"),
};
const TOKENS: Names = Names {
    limit: HeaderName::from_static("x-ratelimit-limit-tokens"),
    remaining: HeaderName::from_static("x-ratelimit-remaining-tokens"),
    reset: HeaderName::from_static("x-ratelimit-reset-tokens"),
};
const GPU: Names = Names {
    limit: HeaderName::from_static("x-ratelimit-limit-gpu-seconds"),
    remaining: HeaderName::from_static("x-ratelimit-remaining-gpu-seconds"),
    reset: HeaderName::from_static("x-ratelimit-reset-gpu-seconds"),
};

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge(limit: u64, remaining: u64, reset_ms: u64) -> Option<Gauge> {
        Some(Gauge { limit, remaining, reset_ms })
    }

    fn shown(view: &QuotaView) -> Vec<(String, String)> {
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        view.header_pairs().iter().map(|(name, v)| (name.to_string(), text(v))).collect()
    }

    #[test]
    fn durations_are_written_as_go_does() {
        let cases = [
            (0, "0s"),
            (1, "1ms"),
            (120, "120ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (1_050, "1.05s"),
            (59_999, "59.999s"),
            (60_000, "1m0s"),
            (60_120, "1m0.12s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
            (86_399_001, "23h59m59.001s"),
            (100 * 3_600_000, "100h0m0s"),
        ];
        for (ms, expected) in cases {
            assert_eq!(go_duration(ms), expected, "{ms}");
        }
    }

    #[test]
    fn only_limited_meters_have_headers() {
        assert_eq!(shown(&QuotaView::default()), []);
        let view = QuotaView { requests: gauge(20, 19, 600), ..QuotaView::default() };
        let expected = [
            ("x-ratelimit-limit-requests".to_owned(), "20".to_owned()),
            ("x-ratelimit-remaining-requests".to_owned(), "19".to_owned()),
            ("x-ratelimit-reset-requests".to_owned(), "600ms".to_owned()),
        ];
        assert_eq!(shown(&view), expected);
    }

    #[test]
    fn gpu_time_is_shown_in_whole_seconds() {
        let view = QuotaView { gpu_ms: gauge(10_000, 9_999, 60_000), ..QuotaView::default() };
        let expected = [
            ("x-ratelimit-limit-gpu-seconds".to_owned(), "10".to_owned()),
            ("x-ratelimit-remaining-gpu-seconds".to_owned(), "9".to_owned()),
            ("x-ratelimit-reset-gpu-seconds".to_owned(), "1m0s".to_owned()),
        ];
        assert_eq!(shown(&view), expected);
    }

    #[test]
    fn the_tighter_gauge_is_shown() {
        let cases = [
            (None, None, None),
            (gauge(9, 5, 1), None, gauge(9, 5, 1)),
            (None, gauge(9, 5, 1), gauge(9, 5, 1)),
            (gauge(9, 5, 1), gauge(99, 4, 1), gauge(99, 4, 1)),
            (gauge(9, 4, 1), gauge(99, 5, 1), gauge(9, 4, 1)),
            (gauge(9, 0, 1), gauge(99, 0, 2), gauge(99, 0, 2)),
            (gauge(9, 0, 2), gauge(99, 0, 1), gauge(9, 0, 2)),
        ];
        for (mut shown, other, expected) in cases {
            other.inspect(|gauge: &Gauge| gauge.tighten(&mut shown));
            assert_eq!(shown, expected, "{other:?}");
        }
    }
}
