//! Where quotas are counted.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secret::SecretRef;
use super::units;

/// Where quotas are counted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Counters {
    /// In this process, or in a server that several gateways share.
    pub backend: CountersBackend,
    /// `redis://HOST:PORT/DB`, with TLS `rediss://`; several for sentinels and cluster nodes.
    pub urls: Vec<String>,
    /// What the URLs are.
    pub mode: RedisMode,
    /// The name by which the sentinels know the master.
    pub master: String,
    /// The ACL user; none is the default user.
    pub username: Option<String>,
    /// The password of that user.
    pub password: Option<SecretRef>,
    /// PEM of the CA that signed the certificate of a `rediss://` server, instead of the public
    /// roots.
    pub ca_file: Option<PathBuf>,
    /// What the names of its keys begin with.
    pub prefix: String,
    /// Time for each call.
    #[serde(with = "units::word")]
    pub timeout: Duration,
    /// What a gateway that dies holds is given back after this.
    #[serde(with = "units::word")]
    pub lease: Duration,
    /// How many gateways share the counters: each has this part of a limit while they cannot be
    /// reached.
    pub gateways: u32,
    /// What happens to each meter while the counters cannot be reached.
    pub on_failure: CountersFailure,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            backend: CountersBackend::Memory,
            urls: Vec::new(),
            mode: RedisMode::Single,
            master: "mymaster".to_owned(),
            username: None,
            password: None,
            ca_file: None,
            prefix: "portcullis".to_owned(),
            timeout: Duration::from_millis(50),
            lease: Duration::from_secs(30),
            gateways: 1,
            on_failure: CountersFailure::default(),
        }
    }
}

/// Where quotas are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CountersBackend {
    /// In this process; they start anew with it.
    Memory,
    /// In Redis or Valkey.
    Redis,
}

/// What the URLs of the counters are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisMode {
    /// One server.
    Single,
    /// Sentinels, which know the master.
    Sentinel,
    /// Nodes of a cluster.
    Cluster,
}

/// What happens to each meter while the counters cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CountersFailure {
    /// Requests, by pace and by window.
    pub requests: MeterFailure,
    /// Requests that run at one time.
    pub concurrent: MeterFailure,
    /// Tokens of all kinds.
    pub tokens: MeterFailure,
    /// GPU time.
    pub gpu_seconds: MeterFailure,
}

impl Default for CountersFailure {
    fn default() -> Self {
        let local = MeterFailure::Local;
        Self { requests: local, concurrent: local, tokens: local, gpu_seconds: local }
    }
}

/// What happens to a meter while the counters cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MeterFailure {
    /// Requests that it limits are refused with 503.
    Deny,
    /// Each gateway counts by itself, within its part of the limit.
    Local,
    /// It is not limited.
    Allow,
}
