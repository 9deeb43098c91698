//! The measures of an emergency as operators take and see them, through the endpoints and on the
//! command line alike: what is asked is judged here, whoever asks.

use portcullis_filters::accounts::store::{EmergencyLimits, StrictFirewall};
use portcullis_filters::verdict::{Denial, Reason};
use serde_json::{Value, json};

use crate::quotas::reason;

/// Minutes for which a measure may be taken: a day.
const MAX_MINUTES: u64 = 1440;

/// Requests a minute of a user or with a key, where it is not said.
pub(crate) const PER_USER: u32 = 10;
/// Requests a minute from an address, where it is not said.
pub(crate) const PER_ADDRESS: u32 = 50;
/// Minutes of tighter limits, where it is not said.
pub(crate) const MINUTES: u64 = 15;

/// What is asked of tighter limits for everybody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LimitsRequest<'a> {
    pub(crate) per_user: u32,
    pub(crate) per_address: u32,
    pub(crate) minutes: u64,
    pub(crate) reason: &'a str,
}

impl LimitsRequest<'_> {
    pub(crate) fn make(self, now: u64, by: &str) -> Result<EmergencyLimits, Denial> {
        for (name, rate) in [
            ("requests_per_minute", self.per_user),
            ("requests_per_minute_per_address", self.per_address),
        ] {
            if rate == 0 {
                return Err(invalid("at least 1", name));
            }
        }
        Ok(EmergencyLimits {
            per_user: self.per_user,
            per_address: self.per_address,
            ends_at: end(self.minutes, now)?,
            reason: reason(self.reason)?,
            set_by: by.to_owned(),
            set_at: now,
        })
    }
}

/// What is asked of a strict firewall for everybody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirewallRequest<'a> {
    /// `None` is until it is taken back.
    pub(crate) minutes: Option<u64>,
    pub(crate) reason: &'a str,
}

impl FirewallRequest<'_> {
    pub(crate) fn make(self, now: u64, by: &str) -> Result<StrictFirewall, Denial> {
        Ok(StrictFirewall {
            ends_at: self.minutes.map(|minutes| end(minutes, now)).transpose()?,
            reason: reason(self.reason)?,
            set_by: by.to_owned(),
            set_at: now,
        })
    }
}

fn end(minutes: u64, now: u64) -> Result<u64, Denial> {
    match minutes {
        1..=MAX_MINUTES => Ok(now.saturating_add(minutes * 60)),
        _ => Err(invalid("1 to 1440 minutes", "window_minutes")),
    }
}

/// Whether limits are tighter, and how.
pub(crate) fn shown_limits(limits: Option<&EmergencyLimits>, now: u64) -> Value {
    let in_force = limits.filter(|limits| limits.is_in_force(now));
    status(in_force.map(EmergencyLimits::shown))
}

/// Whether the firewall is strict, and until when.
pub(crate) fn shown_firewall(firewall: Option<&StrictFirewall>, now: u64) -> Value {
    let in_force = firewall.filter(|firewall| firewall.is_in_force(now));
    status(in_force.map(StrictFirewall::shown))
}

fn status(in_force: Option<Value>) -> Value {
    let active = in_force.is_some();
    let mut shown = in_force.unwrap_or_else(|| json!({}));
    if let Some(shown) = shown.as_object_mut() {
        shown.insert("active".to_owned(), active.into());
    }
    shown
}

fn invalid(message: &'static str, param: &'static str) -> Denial {
    Denial::new(Reason::InvalidRequest, message).param(param)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn limits_have_bounds_and_an_end() {
        for (per_user, per_address, minutes, good) in [
            (10, 50, 15, true),
            (1, 1, 1440, true),
            (0, 50, 15, false),
            (10, 0, 15, false),
            (10, 50, 0, false),
            (10, 50, 1441, false),
        ] {
            let request = LimitsRequest { per_user, per_address, minutes, reason: "flood" };
            let made = request.make(NOW, "root").ok();
            let ends_at = made.map(|made| made.ends_at);
            assert_eq!(ends_at, good.then_some(NOW + minutes * 60), "{request:?}");
        }
        let request = LimitsRequest { per_user: 1, per_address: 1, minutes: 1, reason: " \n" };
        assert!(request.make(NOW, "root").is_err());
    }

    #[test]
    fn a_strict_firewall_may_have_an_end() {
        for (minutes, why, expected) in [
            (None, "a wave", Some(None)),
            (Some(1), "a wave", Some(Some(NOW + 60))),
            (Some(1440), "a wave", Some(Some(NOW + 86_400))),
            (Some(0), "a wave", None),
            (Some(1441), "a wave", None),
            (None, " ", None),
        ] {
            let request = FirewallRequest { minutes, reason: why };
            let made = request.make(NOW, "root").ok();
            assert_eq!(made.map(|made| made.ends_at), expected, "{request:?}");
        }
    }

    #[test]
    fn what_is_over_is_not_active() {
        let limits = LimitsRequest { per_user: 10, per_address: 50, minutes: 1, reason: "x" };
        let limits = limits.make(NOW, "root").unwrap();
        let strict = |minutes| FirewallRequest { minutes, reason: "x" }.make(NOW, "root").unwrap();
        let (short, open) = (strict(Some(1)), strict(None));
        for (now, holds) in [(NOW + 59, true), (NOW + 60, false)] {
            assert_eq!(shown_limits(Some(&limits), now)["active"], holds, "{now}");
            assert_eq!(shown_firewall(Some(&short), now)["active"], holds, "{now}");
            assert_eq!(shown_firewall(Some(&open), now)["active"], true, "{now}");
        }
        assert_eq!(shown_firewall(None, NOW), json!({ "active": false }));
        let expected = json!({
            "active": true, "level": "strict", "until": NOW + 60, "reason": "x",
            "set_by": "root", "set_at": NOW,
        });
        assert_eq!(shown_firewall(Some(&short), NOW), expected);
    }
}
