//! What somebody is told for whom there is no place.

use std::time::Duration;

use crate::verdict::{Denial, Reason};

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a new cause must be thought about in every answer")]
pub enum Cause {
    /// The user has as many waiters as one may have.
    TooManyOfUser,
    /// All places are taken, and the user has at least its share of them.
    ShareTaken,
    /// Somebody whose user had less came, and the place was given to that one.
    PushedOut,
    /// All places are taken, and none of them by this user.
    Full,
    /// No turn came in time.
    Late,
}

/// A request that is not served, because others are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow {
    pub(super) cause: Cause,
    pub(super) retry_after: Duration,
    pub(super) waited: Duration,
}

impl Overflow {
    /// Why there is no place.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// How long a wait would have been, from what turns take; from 1 to 60 seconds.
    #[must_use]
    pub const fn retry_after(&self) -> Duration {
        self.retry_after
    }

    /// How long it waited before it was refused.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }
}

/// 429 to a user that asks for more than its share, 503 where the upstream is short of slots.
impl From<Overflow> for Denial {
    fn from(overflow: Overflow) -> Self {
        let (reason, message, detail) = match overflow.cause {
            Cause::TooManyOfUser => (YOURS, TOO_MANY, "queue: per_user is reached"),
            Cause::ShareTaken => (YOURS, TOO_MANY, "queue: full, and the user has its share"),
            Cause::PushedOut => (YOURS, TOO_MANY, "queue: full, and pushed out by another user"),
            Cause::Full => (Reason::Overloaded, BUSY, "queue: full"),
            Cause::Late => (Reason::Overloaded, BUSY, "queue: not served within its deadline"),
        };
        Self::new(reason, message).detail(detail).retry_after(overflow.retry_after)
    }
}

const YOURS: Reason = Reason::RateLimitExceeded;
const TOO_MANY: &str = "too many of your requests are waiting for this model";
const BUSY: &str = "the servers for this model are busy";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_asks_too_much_is_told_429_others_503() {
        for (cause, status) in [
            (Cause::TooManyOfUser, 429),
            (Cause::ShareTaken, 429),
            (Cause::PushedOut, 429),
            (Cause::Full, 503),
            (Cause::Late, 503),
        ] {
            let overflow = Overflow {
                cause,
                retry_after: Duration::from_millis(2100),
                waited: Duration::ZERO,
            };
            let denial = Denial::from(overflow);
            assert_eq!(
                (denial.status(), denial.retry_after_secs()),
                (status, Some(3)),
                "{cause:?}"
            );
            assert!(denial.reason().is_retryable());
        }
    }
}
