//! What a request asks of the meters.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::gcra::Rate;
use super::window::PerWindow;

/// The limits of one subject; what is `None` has no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Pacing of requests.
    pub requests: Option<Rate>,
    /// Prompt and completion tokens in a window.
    pub tokens: PerWindow<Option<u64>>,
    /// GPU time in a window, in milliseconds.
    pub gpu_ms: PerWindow<Option<u64>>,
    /// Requests that run at one time.
    pub concurrent: Option<u32>,
}

/// On whose account a limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// The user, over all of their keys and tokens.
    User,
    /// One API key.
    Key,
}

impl Level {
    /// The stable name, for audit records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Key => "key",
        }
    }

    /// The name in a message to the caller.
    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Key => "API key",
        }
    }
}

/// Whose meters: a digest of the level and the id, of the same size however long the id is.
///
/// It is 128 bits of SHA-256, so two ids do not share a meter, and the same in every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subject(u128);

impl Subject {
    /// The subject with this id; a user and a key with equal ids are different subjects.
    #[must_use]
    pub fn new(level: Level, id: &str) -> Self {
        let digest = Sha256::new().chain_update(level.name()).chain_update([0]).chain_update(id);
        let high = digest.finalize().into_iter().take(16);
        Self(high.fold(0, |bits, byte| bits << 8 | u128::from(byte)))
    }

    /// A number from 0 to `parts` - 1, evenly spread. There must be at least one part.
    pub(super) const fn part_of(self, parts: usize) -> usize {
        self.0 as usize % parts
    }
}

/// Tokens and GPU time, estimated or real.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// Prompt and completion tokens.
    pub tokens: u64,
    /// GPU time in milliseconds.
    pub gpu_ms: u64,
}

impl Charge {
    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            gpu_ms: self.gpu_ms.saturating_add(other.gpu_ms),
        }
    }

    /// What this is over the other; nothing where it is less.
    pub(super) const fn over(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            gpu_ms: self.gpu_ms.saturating_sub(other.gpu_ms),
        }
    }
}

/// One request to be admitted.
#[derive(Clone, Debug)]
pub struct Demand {
    /// The id of the request; names the hold in a store that several processes share.
    pub request_id: u128,
    /// The most that the request is expected to cost: prompt plus `max_tokens`, and their GPU time.
    pub estimate: Charge,
    levels: Vec<Metered>,
}

impl Demand {
    /// A request that no level limits yet.
    #[must_use]
    pub const fn new(request_id: u128, estimate: Charge) -> Self {
        Self { request_id, estimate, levels: Vec::new() }
    }

    /// Adds a subject that the request counts for. One that is there already is not added again,
    /// for it would pay twice.
    #[must_use]
    pub fn level(mut self, level: Level, subject: Subject, limits: Arc<Limits>) -> Self {
        if self.levels.iter().all(|metered| metered.subject != subject) {
            self.levels.push(Metered { level, subject, limits });
        }
        self
    }

    pub(super) fn levels(&self) -> &[Metered] {
        &self.levels
    }
}

/// A subject and the limits that hold for it.
#[derive(Clone, Debug)]
pub(super) struct Metered {
    pub(super) level: Level,
    pub(super) subject: Subject,
    pub(super) limits: Arc<Limits>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_differ_by_level_and_by_id() {
        let all = [(Level::User, "a"), (Level::Key, "a"), (Level::User, "b"), (Level::User, "")];
        for (i, (level, id)) in all.into_iter().enumerate() {
            for (j, (other_level, other_id)) in all.into_iter().enumerate() {
                let same = Subject::new(level, id) == Subject::new(other_level, other_id);
                assert_eq!(same, i == j, "{level:?} {id} / {other_level:?} {other_id}");
            }
        }
    }

    #[test]
    fn a_subject_is_the_same_in_every_process() {
        // printf 'user\0alice' | sha256sum
        assert_eq!(Subject::new(Level::User, "alice"), Subject(ALICE));
    }

    #[test]
    fn a_subject_that_is_named_twice_is_listed_once() {
        let (alice, limits) = (Subject::new(Level::User, "alice"), Arc::<Limits>::default());
        let demand = Demand::new(1, Charge::default())
            .level(Level::User, alice, Arc::clone(&limits))
            .level(Level::User, alice, Arc::clone(&limits))
            .level(Level::Key, Subject::new(Level::Key, "k1"), limits);
        assert_eq!(demand.levels().len(), 2);
    }

    const ALICE: u128 = 0x61e53a32_f777fee6_b9ea6130_99951c77;
}
