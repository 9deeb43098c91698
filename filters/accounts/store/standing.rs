//! What operators change while gateways run: other limits for one subject, tighter ones for everybody,
//! and a strict firewall.

use serde_json::{Map, Value, json};

use crate::config::Quota;
use crate::standing::SubjectName;

/// Everything that is set. Some of it may be over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make them whole")]
pub struct Standing {
    /// By level and id.
    pub overrides: Vec<QuotaOverride>,
    /// Tighter limits for everybody.
    pub emergency: Option<EmergencyLimits>,
    /// A strict firewall for everybody.
    pub firewall: Option<StrictFirewall>,
}

/// Limits of one subject, in the place of those of its quota.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores and callers make them whole")]
pub struct QuotaOverride {
    /// Whose.
    pub subject: SubjectName,
    /// The limits.
    pub quota: Quota,
    /// When they end; `None` is when somebody takes them back.
    pub ends_at: Option<u64>,
    /// Why, for the record.
    pub reason: String,
    /// Who set them.
    pub set_by: String,
    /// When they were set.
    pub set_at: u64,
}

/// Tighter limits for everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores and callers make them whole")]
pub struct EmergencyLimits {
    /// Requests a minute, of a user and with a key.
    pub per_user: u32,
    /// Requests a minute, from an address.
    pub per_address: u32,
    /// When they end.
    pub ends_at: u64,
    /// Why, for the record.
    pub reason: String,
    /// Who set them.
    pub set_by: String,
    /// When they were set.
    pub set_at: u64,
}

/// A firewall that is strict under every policy, those that only watch among them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores and callers make them whole")]
pub struct StrictFirewall {
    /// When it ends; `None` is when somebody takes it back.
    pub ends_at: Option<u64>,
    /// Why, for the record.
    pub reason: String,
    /// Who set it.
    pub set_by: String,
    /// When it was set.
    pub set_at: u64,
}

impl QuotaOverride {
    /// Whether it holds at this time.
    #[must_use]
    pub fn is_in_force(&self, now: u64) -> bool {
        self.ends_at.is_none_or(|end| now < end)
    }

    /// As it is shown, without its subject: limits that are not set are left out.
    #[must_use]
    pub fn shown(&self) -> Value {
        json!({
            "limits": shown_quota(&self.quota),
            "until": self.ends_at,
            "reason": self.reason,
            "set_by": self.set_by,
            "set_at": self.set_at,
        })
    }

    /// As an audit record tells of it.
    #[must_use]
    pub fn told(&self) -> String {
        json!({ "limits": shown_quota(&self.quota), "until": self.ends_at }).to_string()
    }
}

impl EmergencyLimits {
    /// Whether they hold at this time.
    #[must_use]
    pub const fn is_in_force(&self, now: u64) -> bool {
        now < self.ends_at
    }

    /// As they are shown.
    #[must_use]
    pub fn shown(&self) -> Value {
        json!({
            "requests_per_minute": self.per_user,
            "requests_per_minute_per_address": self.per_address,
            "until": self.ends_at,
            "reason": self.reason,
            "set_by": self.set_by,
            "set_at": self.set_at,
        })
    }

    /// As an audit record tells of them.
    #[must_use]
    pub fn told(&self) -> String {
        json!({
            "requests_per_minute": self.per_user,
            "requests_per_minute_per_address": self.per_address,
            "until": self.ends_at,
        })
        .to_string()
    }
}

impl StrictFirewall {
    /// Whether it holds at this time.
    #[must_use]
    pub fn is_in_force(&self, now: u64) -> bool {
        self.ends_at.is_none_or(|end| now < end)
    }

    /// As it is shown.
    #[must_use]
    pub fn shown(&self) -> Value {
        json!({
            "level": "strict",
            "until": self.ends_at,
            "reason": self.reason,
            "set_by": self.set_by,
            "set_at": self.set_at,
        })
    }

    /// As an audit record tells of it.
    #[must_use]
    pub fn told(&self) -> String {
        json!({ "level": "strict", "until": self.ends_at }).to_string()
    }
}

/// What is limited, by the keys of the configuration. `burst` is part of a pace.
fn shown_quota(quota: &Quota) -> Map<String, Value> {
    let pace = quota.requests_per_minute.map(u64::from);
    let burst = pace.map(|_| u64::from(quota.burst));
    let concurrent = quota.concurrent.map(u64::from);
    let others = [("requests_per_minute", pace), ("burst", burst), ("concurrent", concurrent)];
    let set = others.into_iter().chain(quota.windows());
    set.filter_map(|(key, limit)| Some((key.to_owned(), limit?.into()))).collect()
}
