//! An opinion, or why there is none, and what becomes of the first verdict.

use std::time::Duration;

use super::OnFailure;

/// What a guard says of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a new opinion must be thought about by the gate")]
pub enum Opinion {
    /// It is an attack.
    Attack {
        /// How sure the guard is, from 0 to 1.
        score: f64,
    },
    /// It is none.
    Innocent {
        /// How much speaks for an attack all the same, from 0 to 1.
        score: f64,
    },
    /// There is no answer, or none that can be believed.
    Unavailable(Failure),
}

/// Why there is no opinion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "metrics and the breaker weigh every failure")]
pub enum Failure {
    /// The guard did not answer in time.
    Timeout,
    /// No connection, or one that broke.
    Unreachable,
    /// The guard answered with this HTTP status in place of 200.
    Status(u16),
    /// The answer is longer than what is read.
    TooLong,
    /// The answer is not of the agreed form.
    BadAnswer,
    /// The answer of a chat model is of the right form, and neither yes nor no.
    Unclear,
    /// As many calls as may be are under way, and none of them ended in time, or too many wait.
    Busy,
    /// The calls of this minute are used up.
    Budget,
    /// The guard failed so often that it is left alone for a while.
    Paused,
    /// The gateway itself could not ask: it is shutting down, or has no randomness.
    Internal,
}

impl Failure {
    /// The stable name, in metrics and audit records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Status(_) => "status",
            Self::TooLong => "too_long",
            Self::BadAnswer => "bad_answer",
            Self::Unclear => "unclear",
            Self::Busy => "busy",
            Self::Budget => "budget",
            Self::Paused => "paused",
            Self::Internal => "internal",
        }
    }

    /// Whether it says that the guard is ill. What a text alone can bring about does not, or one
    /// caller could have the guard left alone for all.
    pub(super) const fn is_of_the_guard(self) -> bool {
        match self {
            Self::Timeout | Self::Unreachable | Self::TooLong | Self::BadAnswer => true,
            Self::Status(status) => !matches!(status, 400 | 413 | 422),
            Self::Unclear | Self::Busy | Self::Budget | Self::Paused | Self::Internal => false,
        }
    }
}

impl Opinion {
    /// The stable name of how it came out, in metrics and audit records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attack { .. } => "attack",
            Self::Innocent { .. } => "innocent",
            Self::Unavailable(failure) => failure.as_str(),
        }
    }
}

/// What becomes of the first verdict on an injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every ruling must be obeyed")]
pub enum Ruling {
    /// The text counts as an injection, whatever its score: the policy's action for one is taken.
    Attack,
    /// It does not count as one.
    Innocent,
    /// The first verdict stands.
    Stand,
    /// The first verdict stands, and is a flag at least.
    Flag,
}

/// An opinion, and what it took to get it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Given {
    /// The opinion.
    pub opinion: Opinion,
    /// Where it comes from.
    pub source: Source,
    /// Whether it is about all of the suspicious messages, or an excerpt.
    pub is_whole: bool,
    /// How long the request waited for it.
    pub took: Duration,
}

impl Given {
    /// What becomes of the first verdict. Of what the guard did not see it has not spoken, so nobody
    /// is let through because the excerpt of a long text is harmless.
    #[must_use]
    pub const fn ruling(&self, on_failure: OnFailure) -> Ruling {
        match self.opinion {
            Opinion::Attack { .. } => Ruling::Attack,
            Opinion::Innocent { .. } if self.is_whole => Ruling::Innocent,
            Opinion::Innocent { .. } => Ruling::Stand,
            Opinion::Unavailable(_) => match on_failure {
                OnFailure::Pass => Ruling::Stand,
                OnFailure::Flag => Ruling::Flag,
                OnFailure::Block => Ruling::Attack,
            },
        }
    }
}

/// Where an opinion comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a label of a metric")]
pub enum Source {
    /// The guard was to be asked.
    Guard,
    /// It was asked about the same text not long ago.
    Cache,
    /// It was being asked about the same text for another request.
    Shared,
}

impl Source {
    /// The stable name, in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::Cache => "cache",
            Self::Shared => "shared",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rulings() {
        let attack = Opinion::Attack { score: 0.9 };
        let innocent = Opinion::Innocent { score: 0.1 };
        let failed = Opinion::Unavailable(Failure::Timeout);
        for (opinion, is_whole, on_failure, expected) in [
            (attack, true, OnFailure::Pass, Ruling::Attack),
            (attack, false, OnFailure::Pass, Ruling::Attack),
            (innocent, true, OnFailure::Block, Ruling::Innocent),
            (innocent, false, OnFailure::Block, Ruling::Stand),
            (failed, true, OnFailure::Pass, Ruling::Stand),
            (failed, true, OnFailure::Flag, Ruling::Flag),
            (failed, true, OnFailure::Block, Ruling::Attack),
        ] {
            let given = Given { opinion, source: Source::Guard, is_whole, took: Duration::ZERO };
            assert_eq!(given.ruling(on_failure), expected, "{given:?}");
        }
    }
}
