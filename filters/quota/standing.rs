//! What operators have changed while the gateway runs: limits of single subjects, and limits for
//! everybody in an emergency.

use std::collections::HashMap;
use std::sync::Arc;

use super::demand::{Level, Limits, Subject};
use super::gcra::Rate;

/// The changes that are in force.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    overrides: HashMap<Subject, Override>,
    emergency: Option<Emergency>,
}

/// Other limits for one subject.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made from the account store")]
pub struct Override {
    /// The limits, instead of those of its quota.
    pub limits: Arc<Limits>,
    /// Unix milliseconds; `None` is until somebody takes it back.
    pub until_ms: Option<u64>,
}

/// Tighter limits for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made from the account store")]
pub struct Emergency {
    /// How fast requests of a user, or with a key, may come at most.
    pub per_user: Rate,
    /// How fast requests from an address may come at most.
    pub per_address: Rate,
    /// Unix milliseconds.
    pub until_ms: u64,
}

/// In an emergency all limits but those of addresses are this many times tighter: many customers can
/// be behind one.
const TIGHTER: u32 = 10;

impl Standing {
    /// These overrides, and this emergency.
    #[must_use]
    pub const fn new(overrides: HashMap<Subject, Override>, emergency: Option<Emergency>) -> Self {
        Self { overrides, emergency }
    }

    /// Whether operators have changed anything, be it over by now.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.emergency.is_some() || !self.overrides.is_empty()
    }

    /// The limits that hold for a subject at this time, whose quota says `limits`.
    #[must_use]
    pub fn limits(
        &self,
        level: Level,
        subject: Subject,
        limits: &Arc<Limits>,
        now_ms: u64,
    ) -> Arc<Limits> {
        let own = self.overrides.get(&subject).filter(|o| o.until_ms.is_none_or(|t| now_ms < t));
        let limits = own.map_or(limits, |own| &own.limits);
        match self.emergency(now_ms) {
            Some(emergency) => Arc::new(emergency.tighten(level, limits)),
            None => Arc::clone(limits),
        }
    }

    /// The emergency, if there is one at this time.
    #[must_use]
    pub fn emergency(&self, now_ms: u64) -> Option<Emergency> {
        self.emergency.filter(|emergency| now_ms < emergency.until_ms)
    }
}

impl Emergency {
    fn tighten(&self, level: Level, limits: &Limits) -> Limits {
        match level {
            Level::Address => {
                let half = limits.divided_by(2);
                Limits { pace: Some(slower(half.pace, self.per_address)), ..half }
            }
            Level::User | Level::Key => {
                let tight = limits.divided_by(TIGHTER);
                Limits { pace: Some(slower(tight.pace, self.per_user)), ..tight }
            }
            Level::Role | Level::Model | Level::Upstream | Level::Global => {
                limits.divided_by(TIGHTER)
            }
        }
    }
}

fn slower(rate: Option<Rate>, most: Rate) -> Rate {
    rate.map_or(most, |rate| rate.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paced(per_minute: u32, burst: u32) -> Arc<Limits> {
        Arc::new(Limits { pace: Rate::new(per_minute, burst), ..Limits::default() })
    }

    #[test]
    fn an_override_holds_until_its_time() {
        let (subject, quota) = (Subject::new(Level::User, "ada"), paced(100, 20));
        for (until_ms, now_ms, expected) in [(Some(50), 49, 7), (Some(50), 50, 100), (None, 99, 7)]
        {
            let own = Override { limits: paced(7, 1), until_ms };
            let standing = Standing::new(HashMap::from([(subject, own)]), None);
            let limits = standing.limits(Level::User, subject, &quota, now_ms);
            assert_eq!(limits.pace.unwrap().per_minute(), expected, "{until_ms:?} {now_ms}");
            let other = Subject::new(Level::User, "bob");
            assert_eq!(standing.limits(Level::User, other, &quota, now_ms), quota);
        }
    }

    #[test]
    fn an_emergency_is_tenfold_for_callers_and_half_for_addresses() {
        let rate = |per_minute, burst| Rate::new(per_minute, burst).unwrap();
        let emergency =
            Emergency { per_user: rate(10, 2), per_address: rate(50, 10), until_ms: 1_000 };
        let standing = Standing::new(HashMap::new(), Some(emergency));
        let pace = |level, quota: &Arc<Limits>, now_ms| {
            let subject = Subject::new(level, "x");
            standing.limits(level, subject, quota, now_ms).pace
        };
        let none = Arc::<Limits>::default();
        for (level, quota, expected) in [
            (Level::User, paced(100, 20), Rate::new(10, 2)),
            (Level::Key, paced(20, 20), Rate::new(2, 2)),
            (Level::User, paced(100, 1), Rate::new(10, 1)),
            (Level::User, paced(90, 200), Rate::new(9, 2)),
            (Level::User, Arc::clone(&none), Rate::new(10, 2)),
            (Level::Address, paced(100, 20), Rate::new(50, 10)),
            (Level::Address, paced(40, 20), Rate::new(20, 10)),
            (Level::Address, Arc::clone(&none), Rate::new(50, 10)),
            (Level::Global, paced(1_000, 100), Rate::new(100, 10)),
            (Level::Global, Arc::clone(&none), None),
        ] {
            assert_eq!(pace(level, &quota, 999), expected, "{level:?}");
            assert_eq!(pace(level, &quota, 1_000), quota.pace, "{level:?}");
        }
    }
}
