//! Where Redis is, and what happens while it does not answer.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;

use crate::quota::charge::Resource;

/// How to reach Redis, and what to do without it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedisOptions {
    /// Which servers.
    pub topology: Topology,
    /// The ACL user (Redis 6 and later); without it, the default user.
    pub username: Option<String>,
    /// The password of that user.
    pub password: Option<SecretString>,
    /// The certificates of the authorities that may have signed the server's, as PEM; without
    /// them, those that the system trusts. Only used with `rediss://` URLs.
    pub ca_pem: Option<Vec<u8>>,
    /// What every key begins with.
    pub prefix: String,
    /// How long a request waits for an answer: 50 ms, and never more than 200 ms.
    pub timeout: Duration,
    /// How long what a gateway holds stays held after it has died: 30 s, at least a second.
    pub lease: Duration,
    /// How many gateways share the limits, for [`Policy::Local`].
    pub gateways: u32,
    /// What to do with each kind of meter while Redis does not answer.
    pub on_failure: OnFailure,
}

impl RedisOptions {
    /// The defaults, for these servers.
    #[must_use]
    pub fn new(topology: Topology) -> Self {
        Self {
            topology,
            username: None,
            password: None,
            ca_pem: None,
            prefix: "portcullis".to_owned(),
            timeout: Duration::from_millis(50),
            lease: Duration::from_secs(30),
            gateways: 1,
            on_failure: OnFailure::default(),
        }
    }

    pub(super) fn call_timeout(&self) -> Duration {
        self.timeout.clamp(Duration::from_millis(1), Duration::from_millis(200))
    }

    pub(super) fn lease_ms(&self) -> u64 {
        u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX).clamp(1_000, 1 << 40)
    }
}

/// Which servers. URLs are `redis://host:port/db`, or `rediss://` for TLS; of Valkey as well.
#[derive(Clone)]
#[expect(clippy::exhaustive_enums, reason = "the ways to run Redis")]
pub enum Topology {
    /// One server, or one address that always leads to the primary.
    Single(String),
    /// A primary that the Sentinels name.
    Sentinel {
        /// The Sentinels; a password in the URL is theirs, not that of Redis.
        urls: Vec<String>,
        /// The name by which they know the primary.
        master: String,
    },
    /// Redis Cluster: some of its nodes, from which the others are found.
    Cluster(Vec<String>),
}

/// A URL may have a password in it.
impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(_) => f.write_str("Single"),
            Self::Sentinel { urls, master } => write!(f, "Sentinel({} of {master})", urls.len()),
            Self::Cluster(urls) => write!(f, "Cluster({})", urls.len()),
        }
    }
}

/// What happens to a meter while Redis does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the values of the configuration key")]
pub enum Policy {
    /// A request that this meter limits is refused.
    Deny,
    /// This gateway counts by itself, up to its share of the limit.
    #[default]
    Local,
    /// The meter is not checked. What is used is charged later.
    Allow,
}

/// A policy for each kind of meter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct OnFailure {
    /// Of requests, by pace and by window.
    pub requests: Policy,
    /// Of requests at one time.
    pub concurrent: Policy,
    /// Of tokens.
    pub tokens: Policy,
    /// Of GPU time.
    pub gpu: Policy,
}

impl OnFailure {
    pub(super) const fn of(&self, resource: Resource) -> Policy {
        match resource {
            Resource::Requests => self.requests,
            Resource::Tokens | Resource::PromptTokens | Resource::CompletionTokens => self.tokens,
            Resource::GpuTime => self.gpu,
        }
    }
}

/// The options cannot be used: a URL or a certificate cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidOptions {
    what: String,
}

impl From<redis::RedisError> for InvalidOptions {
    /// Without the detail, which may have the URL in it.
    fn from(error: redis::RedisError) -> Self {
        Self { what: error.category().to_owned() }
    }
}

impl fmt::Display for InvalidOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis cannot be used with these options: {}", self.what)
    }
}

impl std::error::Error for InvalidOptions {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let mut options =
            RedisOptions::new(Topology::Single("redis://u:hunter2@127.0.0.1/".to_owned()));
        options.password = Some("hunter2".into());
        assert!(!format!("{options:?}").contains("hunter2"));
    }

    #[test]
    fn a_request_never_waits_longer_than_200_ms() {
        let mut options = RedisOptions::new(Topology::Cluster(vec![]));
        for (ms, used) in [(0, 1), (50, 50), (200, 200), (5_000, 200)] {
            options.timeout = Duration::from_millis(ms);
            assert_eq!(options.call_timeout(), Duration::from_millis(used));
        }
    }
}
