//! What a request asks of the meters.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::charge::{Charge, Resource};
use super::gcra::Rate;
use super::reservation::Limited;
use super::window::Window;

/// Limits of one subject. What is left out is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct Limits {
    /// How fast requests may come.
    pub pace: Option<Rate>,
    /// Requests that run at one time.
    pub concurrent: Option<u32>,
    /// What may be used in a window.
    pub ceilings: Vec<Ceiling>,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pace.is_none() && self.concurrent.is_none() && self.ceilings.is_empty()
    }

    /// A part of every limit, rounded down, but of no limit less than 1: the share of one gateway
    /// of several, or what is left in an emergency.
    #[must_use]
    pub fn divided_by(&self, parts: u32) -> Self {
        let parts = parts.max(1);
        let part = |limit: u64| (limit / u64::from(parts)).max(limit.min(1));
        let ceiling = |c: &Ceiling| Ceiling { limit: part(c.limit), ..*c };
        Self {
            pace: self.pace.map(|rate| rate.divided_by(parts)),
            concurrent: self.concurrent.map(|limit| (limit / parts).max(limit.min(1))),
            ceilings: self.ceilings.iter().map(ceiling).collect(),
        }
    }
}

/// The most of a resource that may be used in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct Ceiling {
    /// Of what.
    pub resource: Resource,
    /// In which time.
    pub window: Window,
    /// How much: requests, tokens, or milliseconds of GPU time.
    pub limit: u64,
}

/// On what a meter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "a new level must be thought about in every refusal")]
pub enum Level {
    /// All requests of a user.
    User,
    /// All requests with a key.
    Key,
    /// All requests of users with a role.
    Role,
    /// All requests for a model.
    Model,
    /// All requests to an upstream.
    Upstream,
    /// All requests from an address; of IPv6 from a network of 64 bits.
    Address,
    /// All requests.
    Global,
}

impl Level {
    /// All of them, from the narrowest to the widest.
    pub const ALL: [Self; 7] = [
        Self::User,
        Self::Key,
        Self::Role,
        Self::Model,
        Self::Upstream,
        Self::Address,
        Self::Global,
    ];

    /// The name that the configuration, the CLI and records use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Key => "key",
            Self::Role => "role",
            Self::Model => "model",
            Self::Upstream => "upstream",
            Self::Address => "address",
            Self::Global => "global",
        }
    }

    /// The level of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// How refusals call it, after "for".
    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::User => "this user",
            Self::Key => "this API key",
            Self::Role => "this role",
            Self::Model => "this model",
            Self::Upstream => "this upstream",
            Self::Address => "this address",
            Self::Global => "this gateway",
        }
    }
}

/// Whose meter it is: 128 bits of the SHA-256 of the level and the id.
///
/// A meter takes the same memory however long names are, and subjects of two levels never meet.
// Packed: at the alignment of a u128 a table of subjects would be a third larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(Rust, packed(8))]
pub struct Subject(u128);

impl Subject {
    /// The subject with an id, at a level.
    #[must_use]
    pub fn new(level: Level, id: &str) -> Self {
        let digest = Sha256::new().chain_update(level.name()).chain_update([0]).chain_update(id);
        let high = digest.finalize().into_iter().take(16);
        Self(high.fold(0, |bits, byte| bits << 8 | u128::from(byte)))
    }

    /// The subject as a number.
    #[must_use]
    pub const fn number(self) -> u128 {
        self.0
    }
}

/// A request for room on the meters of all its levels.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Demand {
    /// The request, by which a shared store settles it.
    pub request_id: u128,
    /// What it will probably cost. It gets this much if there is so much room.
    pub estimate: Charge,
    /// What it must have at least, or it is refused. The prompt is the same as in the estimate: it
    /// cannot be made shorter.
    pub least: Charge,
    levels: Vec<Metered>,
}

impl Demand {
    /// A demand for this much or nothing, which counts nowhere yet.
    #[must_use]
    pub const fn new(request_id: u128, estimate: Charge) -> Self {
        Self { request_id, estimate, least: estimate, levels: Vec::new() }
    }

    /// A demand that takes less, but not less than this, where there is not room for all.
    #[must_use]
    pub fn at_least(mut self, completion: u64, gpu_ms: u64) -> Self {
        self.least.completion = completion.min(self.estimate.completion);
        self.least.gpu_ms = gpu_ms.min(self.estimate.gpu_ms);
        self
    }

    /// Counts on this subject too, within its limits. A subject counts once, however often it is
    /// named, with its first limits; one without limits does not count.
    #[must_use]
    pub fn level(mut self, level: Level, subject: Subject, limits: Arc<Limits>) -> Self {
        let known = self.levels.iter().any(|metered| metered.subject == subject);
        if !known && !limits.is_empty() {
            self.levels.push(Metered { level, subject, limits });
        }
        self
    }

    /// What of an answer is limited on any level.
    #[must_use]
    pub fn limited(&self) -> Limited {
        let ceilings = || self.levels.iter().flat_map(|metered| &metered.limits.ceilings);
        let any = |of: &[Resource]| ceilings().any(|ceiling| of.contains(&ceiling.resource));
        Limited {
            completion: any(&[Resource::Tokens, Resource::CompletionTokens]),
            gpu: any(&[Resource::GpuTime]),
        }
    }

    pub(super) fn levels(&self) -> &[Metered] {
        &self.levels
    }

    pub(super) fn into_levels(self) -> Vec<Metered> {
        self.levels
    }
}

/// One level of a demand.
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
    fn a_subject_that_is_named_twice_is_listed_once_and_one_without_limits_not_at_all() {
        let slot = Limits { concurrent: Some(1), ..Limits::default() };
        let (alice, limits) = (Subject::new(Level::User, "alice"), Arc::new(slot));
        let demand = Demand::new(1, Charge::default())
            .level(Level::User, alice, Arc::clone(&limits))
            .level(Level::User, alice, Arc::clone(&limits))
            .level(Level::Global, Subject::new(Level::Global, ""), Arc::default())
            .level(Level::Key, Subject::new(Level::Key, "k1"), limits);
        assert_eq!(demand.levels().len(), 2);
    }

    #[test]
    fn the_least_is_never_more_than_the_estimate() {
        let estimate = Charge { prompt: 9, completion: 5, gpu_ms: 100 };
        let least = Demand::new(1, estimate).at_least(16, 20).least;
        assert_eq!(least, Charge { prompt: 9, completion: 5, gpu_ms: 20 });
    }

    #[test]
    fn levels_are_known_by_their_names() {
        for level in Level::ALL {
            assert_eq!(Level::named(level.name()), Some(level));
        }
        assert_eq!(Level::named("User"), None);
    }

    #[test]
    fn a_part_of_limits_is_never_nothing_unless_the_limit_is() {
        let ceiling = |limit| Ceiling { resource: Resource::Tokens, window: Window::Day, limit };
        let limits = Limits {
            pace: Rate::new(100, 20),
            concurrent: Some(3),
            ceilings: vec![ceiling(1_000), ceiling(5), ceiling(0)],
        };
        let part = limits.divided_by(10);
        assert_eq!(part.pace, Rate::new(10, 2));
        assert_eq!(part.concurrent, Some(1));
        assert_eq!(part.ceilings, [ceiling(100), ceiling(1), ceiling(0)]);
        assert_eq!(limits.divided_by(0), limits);
    }

    const ALICE: u128 = 0x61e53a32_f777fee6_b9ea6130_99951c77;
}
