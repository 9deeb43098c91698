//! What operators change while the gateway runs, limits and the firewall: from rows of the account
//! store to what is in force.
//!
//! The rows reach every gateway by the feed of the store, within its interval of looking. A request
//! asks [`Standing`] once for each of its meters, and its prompt is judged by the strict form of its
//! policy until [`tightened_until`].

mod name;

use std::sync::Arc;

pub use name::SubjectName;

use crate::accounts::store;
use crate::quota::{Emergency, Override, Rate, Standing};
use crate::snapshot::limits;

/// A fifth of what may come in a minute may come at once, as of the built-in quota.
const BURSTS: u32 = 5;

/// What the rows mean to the meters. Those of the past mean nothing there.
#[must_use]
pub fn compile(rows: &store::Standing) -> Standing {
    let overrides = rows.overrides.iter().map(|row| {
        let (limits, until_ms) = (Arc::new(limits(&row.quota)), row.ends_at.map(millis));
        (row.subject.subject(), Override { limits, until_ms })
    });
    Standing::new(overrides.collect(), rows.emergency.as_ref().and_then(emergency))
}

/// Unix milliseconds until which the firewall is strict for everybody: 0 is never, [`u64::MAX`] has no
/// end.
#[must_use]
pub fn tightened_until(rows: &store::Standing) -> u64 {
    let strict = rows.firewall.as_ref();
    strict.map_or(0, |strict| strict.ends_at.map_or(u64::MAX, millis))
}

fn emergency(row: &store::EmergencyLimits) -> Option<Emergency> {
    Some(Emergency {
        per_user: rate(row.per_user)?,
        per_address: rate(row.per_address)?,
        until_ms: millis(row.ends_at),
    })
}

fn rate(per_minute: u32) -> Option<Rate> {
    Rate::new(per_minute, (per_minute / BURSTS).max(1))
}

const fn millis(secs: u64) -> u64 {
    secs.saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Quota;
    use crate::quota::{Level, Limits};

    fn row(subject: &str, ends_at: Option<u64>) -> store::QuotaOverride {
        store::QuotaOverride {
            subject: SubjectName::parse(subject).unwrap(),
            quota: Quota { requests_per_minute: Some(7), burst: 2, ..Quota::default() },
            ends_at,
            reason: "test".into(),
            set_by: "root".into(),
            set_at: 1,
        }
    }

    #[test]
    fn overrides_hold_for_their_subject_until_their_second() {
        let overrides = vec![row("user/ada", None), row("user/bob", Some(50)), row("global", None)];
        let standing = compile(&store::Standing { overrides, ..store::Standing::default() });
        let quota = Arc::<Limits>::default();
        for (subject, now_ms, expected) in [
            ("user/ada", u64::MAX, Rate::new(7, 2)),
            ("user/bob", 49_999, Rate::new(7, 2)),
            ("user/bob", 50_000, None),
            ("user/eve", 0, None),
            ("key/0123456789AB", 0, None),
            ("global", 0, Rate::new(7, 2)),
        ] {
            let name = SubjectName::parse(subject).unwrap();
            let limits = standing.limits(name.level(), name.subject(), &quota, now_ms);
            assert_eq!(limits.pace, expected, "{subject} {now_ms}");
        }
    }

    #[test]
    fn an_emergency_has_a_burst_and_an_end() {
        for (per_user, burst) in [(10, 2), (1, 1), (100, 20)] {
            let emergency = store::EmergencyLimits {
                per_user,
                per_address: 50,
                ends_at: 50,
                reason: "test".into(),
                set_by: "root".into(),
                set_at: 1,
            };
            let rows = store::Standing { emergency: Some(emergency), ..store::Standing::default() };
            let standing = compile(&rows);
            let name = SubjectName::parse("user/ada").unwrap();
            let quota = Arc::<Limits>::default();
            let pace = |now_ms| standing.limits(Level::User, name.subject(), &quota, now_ms).pace;
            assert_eq!((pace(49_999), pace(50_000)), (Rate::new(per_user, burst), None));
        }
    }

    #[test]
    fn a_strict_firewall_ends_with_its_second_or_not_at_all() {
        let strict = |ends_at| store::StrictFirewall {
            ends_at,
            reason: "test".into(),
            set_by: "root".into(),
            set_at: 1,
        };
        for (firewall, expected) in [
            (None, 0),
            (Some(strict(Some(50))), 50_000),
            (Some(strict(Some(u64::MAX))), u64::MAX),
            (Some(strict(None)), u64::MAX),
        ] {
            let rows = store::Standing { firewall, ..store::Standing::default() };
            assert_eq!(tightened_until(&rows), expected, "{rows:?}");
        }
    }
}
