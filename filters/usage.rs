//! What one request consumed: the figures that quotas are settled with and audit records carry.

use serde::{Serialize, Serializer};

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
}
