//! What a request costs: tokens and GPU time.

/// Tokens and GPU time, as an estimate, a hold or a cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by the gate from an estimate or a usage")]
pub struct Charge {
    /// Tokens that are read.
    pub prompt: u64,
    /// Tokens that are written.
    pub completion: u64,
    /// Milliseconds on one GPU.
    pub gpu_ms: u64,
}

impl Charge {
    /// Prompt and completion tokens together.
    #[must_use]
    pub const fn tokens(self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            prompt: self.prompt.saturating_add(other.prompt),
            completion: self.completion.saturating_add(other.completion),
            gpu_ms: self.gpu_ms.saturating_add(other.gpu_ms),
        }
    }

    /// What this has beyond the other; nothing where it has less.
    #[must_use]
    pub const fn over(self, other: Self) -> Self {
        Self {
            prompt: self.prompt.saturating_sub(other.prompt),
            completion: self.completion.saturating_sub(other.completion),
            gpu_ms: self.gpu_ms.saturating_sub(other.gpu_ms),
        }
    }

    /// Whether it is nothing at all.
    #[must_use]
    pub const fn is_nothing(self) -> bool {
        self.prompt == 0 && self.completion == 0 && self.gpu_ms == 0
    }
}

/// What is limited per window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a new resource must be counted everywhere")]
pub enum Resource {
    /// Admitted requests.
    Requests,
    /// Prompt and completion tokens together.
    Tokens,
    /// Tokens that are read.
    PromptTokens,
    /// Tokens that are written.
    CompletionTokens,
    /// GPU time; limits are in milliseconds.
    GpuTime,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Requests, Self::Tokens, Self::PromptTokens, Self::CompletionTokens, Self::GpuTime];

    /// What one request of this charge takes.
    pub(super) const fn of(self, charge: Charge) -> u64 {
        match self {
            Self::Requests => 1,
            Self::Tokens => charge.tokens(),
            Self::PromptTokens => charge.prompt,
            Self::CompletionTokens => charge.completion,
            Self::GpuTime => charge.gpu_ms,
        }
    }

    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::PromptTokens => "prompt tokens",
            Self::CompletionTokens => "completion tokens",
            Self::GpuTime => "GPU-seconds",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_takes_its_share() {
        let charge = Charge { prompt: 10, completion: 5, gpu_ms: 700 };
        let shares = Resource::ALL.map(|resource| resource.of(charge));
        assert_eq!(shares, [1, 15, 10, 5, 700]);
        assert!(Charge::default().is_nothing() && !charge.is_nothing());
    }

    #[test]
    fn sums_and_differences_saturate() {
        let huge = Charge { prompt: u64::MAX, completion: u64::MAX, gpu_ms: u64::MAX };
        let one = Charge { prompt: 1, completion: 1, gpu_ms: 1 };
        assert_eq!(huge.plus(one), huge);
        assert_eq!(huge.tokens(), u64::MAX);
        assert_eq!(one.over(huge), Charge::default());
    }
}
