//! How much a user, a key, or everyone together may use.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::roles::RoleName;

/// The name of the built-in quota and of the built-in firewall policy.
pub(super) fn default_name() -> String {
    "default".to_owned()
}

/// How much may be used. What is left out has no limit, but for `burst`. Windows are those of UTC:
/// a day ends at midnight, a month with its last day.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Requests, on average.
    pub requests_per_minute: Option<u32>,
    /// Requests that may come at once before the average counts.
    pub burst: u32,
    /// Requests that run at one time.
    pub concurrent: Option<u32>,
    /// Requests admitted in an hour.
    pub requests_per_hour: Option<u64>,
    /// Requests admitted in a day.
    pub requests_per_day: Option<u64>,
    /// Requests admitted in a month.
    pub requests_per_month: Option<u64>,
    /// Prompt and answer tokens in a minute.
    pub tokens_per_minute: Option<u64>,
    /// Prompt and answer tokens in an hour.
    pub tokens_per_hour: Option<u64>,
    /// Prompt and answer tokens in a day.
    pub tokens_per_day: Option<u64>,
    /// Prompt and answer tokens in a month.
    pub tokens_per_month: Option<u64>,
    /// Prompt tokens in a minute.
    pub prompt_tokens_per_minute: Option<u64>,
    /// Prompt tokens in an hour.
    pub prompt_tokens_per_hour: Option<u64>,
    /// Prompt tokens in a day.
    pub prompt_tokens_per_day: Option<u64>,
    /// Prompt tokens in a month.
    pub prompt_tokens_per_month: Option<u64>,
    /// Answer tokens in a minute.
    pub completion_tokens_per_minute: Option<u64>,
    /// Answer tokens in an hour.
    pub completion_tokens_per_hour: Option<u64>,
    /// Answer tokens in a day.
    pub completion_tokens_per_day: Option<u64>,
    /// Answer tokens in a month.
    pub completion_tokens_per_month: Option<u64>,
    /// GPU time in a minute.
    pub gpu_seconds_per_minute: Option<u64>,
    /// GPU time in an hour.
    pub gpu_seconds_per_hour: Option<u64>,
    /// GPU time in a day.
    pub gpu_seconds_per_day: Option<u64>,
    /// GPU time in a month.
    pub gpu_seconds_per_month: Option<u64>,
}

impl Quota {
    /// The limits of windows, by their keys.
    pub fn windows(&self) -> impl Iterator<Item = (&'static str, Option<u64>)> {
        [
            ("requests_per_hour", self.requests_per_hour),
            ("requests_per_day", self.requests_per_day),
            ("requests_per_month", self.requests_per_month),
            ("tokens_per_minute", self.tokens_per_minute),
            ("tokens_per_hour", self.tokens_per_hour),
            ("tokens_per_day", self.tokens_per_day),
            ("tokens_per_month", self.tokens_per_month),
            ("prompt_tokens_per_minute", self.prompt_tokens_per_minute),
            ("prompt_tokens_per_hour", self.prompt_tokens_per_hour),
            ("prompt_tokens_per_day", self.prompt_tokens_per_day),
            ("prompt_tokens_per_month", self.prompt_tokens_per_month),
            ("completion_tokens_per_minute", self.completion_tokens_per_minute),
            ("completion_tokens_per_hour", self.completion_tokens_per_hour),
            ("completion_tokens_per_day", self.completion_tokens_per_day),
            ("completion_tokens_per_month", self.completion_tokens_per_month),
            ("gpu_seconds_per_minute", self.gpu_seconds_per_minute),
            ("gpu_seconds_per_hour", self.gpu_seconds_per_hour),
            ("gpu_seconds_per_day", self.gpu_seconds_per_day),
            ("gpu_seconds_per_month", self.gpu_seconds_per_month),
        ]
        .into_iter()
    }
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            requests_per_minute: None,
            burst: 20,
            concurrent: None,
            requests_per_hour: None,
            requests_per_day: None,
            requests_per_month: None,
            tokens_per_minute: None,
            tokens_per_hour: None,
            tokens_per_day: None,
            tokens_per_month: None,
            prompt_tokens_per_minute: None,
            prompt_tokens_per_hour: None,
            prompt_tokens_per_day: None,
            prompt_tokens_per_month: None,
            completion_tokens_per_minute: None,
            completion_tokens_per_hour: None,
            completion_tokens_per_day: None,
            completion_tokens_per_month: None,
            gpu_seconds_per_minute: None,
            gpu_seconds_per_hour: None,
            gpu_seconds_per_day: None,
            gpu_seconds_per_month: None,
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

/// Quotas that several callers share, beside the one that each of them has. A request passes only
/// if all of them have room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SharedQuotas {
    /// The quota of all requests together.
    pub global: Option<String>,
    /// The quota of each client address; of IPv6 of each network of 64 bits.
    pub address: Option<String>,
    /// The quota that all users with a role share.
    pub roles: BTreeMap<RoleName, String>,
    /// The quota of all requests to an upstream.
    pub upstreams: BTreeMap<String, String>,
    /// The quota of all requests for one model; the first that matches.
    pub models: Vec<ModelQuota>,
}

/// The quota of each model whose name matches.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelQuota {
    /// Pattern of model names, see [`crate::glob`].
    pub model: String,
    /// The name of the quota, which each of these models has for itself.
    pub quota: String,
}
