//! How much one user, or one key, may use.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// The name of the built-in quota and of the built-in firewall policy.
pub(super) fn default_name() -> String {
    "default".to_owned()
}

/// How much one user may use. What is left out has no limit, but for `burst`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Requests, on average.
    pub requests_per_minute: Option<u32>,
    /// Requests that may come at once before the average counts.
    pub burst: u32,
    /// Requests that run at one time.
    pub concurrent: Option<u32>,
    /// Prompt and answer tokens in a minute.
    pub tokens_per_minute: Option<u64>,
    /// Prompt and answer tokens in an hour.
    pub tokens_per_hour: Option<u64>,
    /// Prompt and answer tokens in a day.
    pub tokens_per_day: Option<u64>,
    /// GPU time in a minute.
    pub gpu_seconds_per_minute: Option<u64>,
    /// GPU time in an hour.
    pub gpu_seconds_per_hour: Option<u64>,
    /// GPU time in a day.
    pub gpu_seconds_per_day: Option<u64>,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            requests_per_minute: None,
            burst: 20,
            concurrent: None,
            tokens_per_minute: None,
            tokens_per_hour: None,
            tokens_per_day: None,
            gpu_seconds_per_minute: None,
            gpu_seconds_per_hour: None,
            gpu_seconds_per_day: None,
        }
    }
}

/// The quota of everyone who is given no other.
pub(super) fn default_quotas() -> BTreeMap<String, Quota> {
    let quota = Quota { requests_per_minute: Some(100), concurrent: Some(16), ..Quota::default() };
    BTreeMap::from([(default_name(), quota)])
}

/// Quotas of the file join the built-in one, and replace it where they have its name.
pub(super) fn quotas<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Quota>, D::Error> {
    let mut quotas = default_quotas();
    quotas.append(&mut BTreeMap::deserialize(deserializer)?);
    Ok(quotas)
}
