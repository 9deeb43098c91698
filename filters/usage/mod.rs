//! What one request consumed: the figures that quotas are settled with and audit records carry.
//!
//! What an upstream reports is taken if it can be true; what it does not report is counted, or
//! estimated and marked so. From what it reports the gateway learns what to reserve next time.

use std::time::Duration;

use serde::{Serialize, Serializer};

mod calibration;
mod estimate;
mod learned;
mod speed;
mod stream;
mod tokenizer;

pub use estimate::estimate_prompt_tokens;
pub use learned::{Learned, PromptEstimate};
pub use speed::GpuSpeed;
pub use stream::StreamCount;
pub use tokenizer::{Count, Encoding, Tokenizer};

/// Tokens and GPU time of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Tokens of the prompt, those found in the upstream's cache included.
    pub prompt_tokens: u64,
    /// Tokens that were generated, hidden reasoning included where the upstream counts it.
    pub completion_tokens: u64,
    /// Seconds of GPU time, finite and not negative.
    #[serde(serialize_with = "rounded")]
    pub gpu_seconds: f64,
    /// Whether any of the figures was not reported by the upstream.
    pub estimated: bool,
}

impl Usage {
    /// Prompt and completion tokens together.
    #[must_use]
    pub const fn total_tokens(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }

    /// GPU time in whole milliseconds, rounded up so that no work is free.
    #[must_use]
    pub fn gpu_millis(&self) -> u64 {
        // A float to integer cast saturates, and turns NaN into 0.
        (self.gpu_seconds * 1000.0).ceil() as u64
    }
}

/// What the gateway knows of an exchange by itself.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "plain figures")]
pub struct Spent {
    /// The prompt, as it was estimated.
    pub prompt: PromptEstimate,
    /// Time since the request went out.
    pub wall: Duration,
    /// GPU-seconds for a second of wall time.
    pub gpus: f64,
    /// Whether the time to load a model into the GPU is charged, where it is reported.
    pub count_load: bool,
}

impl Spent {
    /// GPU time by the clock, in seconds.
    pub(crate) fn gpu_seconds(&self) -> f64 {
        self.wall.as_secs_f64() * self.gpus
    }
}

/// The usage of an answer, with what else is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "plain figures")]
pub struct Metered {
    /// What is charged.
    pub usage: Usage,
    /// Tokens of the prompt that the upstream had in its cache, if it says so.
    pub cached_tokens: Option<u64>,
    /// Tokens of hidden reasoning within the completion, if the upstream says so.
    pub reasoning_tokens: Option<u64>,
    /// What there is to learn.
    pub evidence: Evidence,
}

/// What a complete and credible answer says about its model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "learnt from in one place")]
pub enum Evidence {
    /// Nothing.
    #[default]
    None,
    /// The upstream measured itself.
    Measured {
        /// Tokens of the whole prompt, those in its cache included.
        prompt_tokens: Option<u64>,
        /// Reading.
        prompt: Option<Work>,
        /// Writing.
        completion: Option<Work>,
    },
    /// Only the time of the whole is known.
    Total {
        /// Tokens of the prompt, as reported.
        prompt: u64,
        /// Tokens of the completion, as reported.
        completion: u64,
        /// GPU time of both, by the clock.
        seconds: f64,
    },
}

impl Evidence {
    const fn prompt_tokens(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Measured { prompt_tokens, .. } => *prompt_tokens,
            Self::Total { prompt, .. } => Some(*prompt),
        }
    }
}

/// Tokens, and how long the GPU took for them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a plain pair")]
pub struct Work {
    /// Tokens that were really computed.
    pub tokens: u64,
    /// Seconds
    pub seconds: f64,
}

/// How an exchange ended of which no answer has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each end is charged for, or not")]
pub enum Unanswered {
    /// The gateway refused the request, or nothing of it was sent.
    NotSent,
    /// The upstream answered with an error status.
    Refused,
    /// The upstream could not be reached, or broke off before the head of an answer.
    Failed,
    /// The upstream took the request and let the time for an answer pass.
    TimedOut,
    /// The client left, or the gateway cut it off, while the upstream was at work.
    Left,
}

impl Unanswered {
    /// What is charged: nothing where the upstream did not take the request or failed at it; else
    /// the prompt, and the GPU time by the clock, as it was at work until then.
    #[must_use]
    pub fn usage(self, spent: &Spent) -> Option<Usage> {
        match self {
            Self::NotSent | Self::Refused | Self::Failed => None,
            Self::TimedOut | Self::Left => Some(Usage {
                prompt_tokens: spent.prompt.likely,
                completion_tokens: 0,
                gpu_seconds: spent.gpu_seconds(),
                estimated: true,
            }),
        }
    }
}

/// To a tenth of a millisecond: what is more is noise of the clock.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives fields by reference")]
fn rounded<S: Serializer>(seconds: &f64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((seconds * 10_000.0).round() / 10_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_saturate_and_gpu_time_rounds_up() {
        let check = |completion_tokens, gpu_seconds, total, millis| {
            let usage =
                Usage { prompt_tokens: 10, completion_tokens, gpu_seconds, estimated: false };
            assert_eq!((usage.total_tokens(), usage.gpu_millis()), (total, millis));
        };
        check(5, 0.0, 15, 0);
        check(5, 0.000_1, 15, 1);
        check(5, 1.5, 15, 1500);
        check(u64::MAX, f64::INFINITY, u64::MAX, u64::MAX);
        check(5, f64::NAN, 15, 0);
    }

    #[test]
    fn serialises_as_the_audit_record_names_it() {
        let usage =
            Usage { prompt_tokens: 1, completion_tokens: 2, gpu_seconds: 0.5, estimated: true };
        assert_eq!(
            serde_json::to_string(&usage).unwrap(),
            r#"{"prompt_tokens":1,"completion_tokens":2,"gpu_seconds":0.5,"estimated":true}"#
        );
    }

    #[test]
    fn an_exchange_without_an_answer_is_charged_if_the_upstream_worked() {
        let spent = Spent {
            prompt: PromptEstimate { raw: 10, likely: 12, upper: 20 },
            wall: Duration::from_millis(1_500),
            gpus: 2.0,
            count_load: false,
        };
        let prompt =
            Usage { prompt_tokens: 12, completion_tokens: 0, gpu_seconds: 3.0, estimated: true };
        for (end, expected) in [
            (Unanswered::NotSent, None),
            (Unanswered::Refused, None),
            (Unanswered::Failed, None),
            (Unanswered::TimedOut, Some(prompt)),
            (Unanswered::Left, Some(prompt)),
        ] {
            assert_eq!(end.usage(&spent), expected, "{end:?}");
        }
    }
}
