//! The second opinion: a guard that is asked about prompts of which the scanner is not sure.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::secret::SecretRef;
use super::super::units;
use crate::opinion::{Chat, Classifier, LlamaGuard, OnFailure, Zone};

/// A guard, and how it is asked: exactly one of `url` and `upstream`, and one of `classifier`,
/// `llama_guard` and `chat`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecondOpinion {
    /// Where requests are sent, path included.
    pub url: Option<String>,
    /// Whether `http` may leave this machine.
    pub allow_plaintext: bool,
    /// PEM of the CA of its certificate.
    pub ca_file: Option<PathBuf>,
    /// What lets the gateway in.
    pub api_key: Option<SecretRef>,
    /// The header of that key, instead of `Authorization: Bearer`.
    pub api_key_header: Option<String>,
    /// Instead of `url`: the first address of an upstream, with its key and CA.
    pub upstream: Option<String>,
    /// The path on that upstream.
    pub path: String,
    /// The scores for which it is asked.
    pub zone: Zone,
    /// What holds if there is no opinion.
    pub on_failure: OnFailure,
    /// For everything, the wait for a slot included.
    #[serde(with = "units::word")]
    pub timeout: Duration,
    /// Calls at one time.
    pub concurrent: u32,
    /// Calls a minute; none is no limit.
    pub calls_per_minute: Option<u32>,
    /// Bytes of a text that are sent.
    #[serde(with = "units::word")]
    pub max_bytes: u64,
    /// What is remembered.
    pub cache: Cache,
    /// When the guard is left alone.
    pub breaker: Breaker,
    /// A text classifier.
    pub classifier: Option<Classifier>,
    /// Llama Guard.
    pub llama_guard: Option<LlamaGuard>,
    /// Any chat model.
    pub chat: Option<Chat>,
}

impl Default for SecondOpinion {
    fn default() -> Self {
        Self {
            url: None,
            allow_plaintext: false,
            ca_file: None,
            api_key: None,
            api_key_header: None,
            upstream: None,
            path: "/v1/chat/completions".to_owned(),
            zone: Zone::default(),
            on_failure: OnFailure::default(),
            timeout: Duration::from_millis(300),
            concurrent: 8,
            calls_per_minute: None,
            max_bytes: 8 << 10,
            cache: Cache::default(),
            breaker: Breaker::default(),
            classifier: None,
            llama_guard: None,
            chat: None,
        }
    }
}

/// Opinions that are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// How many.
    pub entries: u64,
    /// For how long.
    #[serde(with = "units::word")]
    pub ttl: Duration,
}

impl Default for Cache {
    fn default() -> Self {
        Self { entries: 10_000, ttl: Duration::from_secs(600) }
    }
}

/// When a guard that fails is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// After how many failures in a row.
    pub failures: u32,
    /// For how long.
    #[serde(with = "units::word")]
    pub pause: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, pause: Duration::from_secs(10) }
    }
}
