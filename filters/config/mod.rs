//! The config file: a typed tree, every mistake with its place, and the secrets it refers to.
//!
//! ```text
//! file ──load──▶ Config ──resolve_secrets──▶ Secrets
//!   └──parse──▶  (no secret in it)
//! ```
//!
//! An unknown key is an error, because a misspelt `quota` would otherwise switch a quota off.
//! Parsing stops at the first mistake in the YAML itself; what is checked afterwards
//! (names that are referred to, bounds, open binds) is reported all at once.

use std::fs::File;
use std::io::Read;
use std::path::Path;

mod access;
mod check;
mod counters;
mod diagnostic;
mod environment;
mod explain;
mod firewall;
mod keys;
mod oidc;
mod quota;
mod read;
mod resolve;
mod roles;
mod secret;
mod service;
mod store;
mod strength;
#[cfg(test)]
mod tests;
mod types;
mod units;
mod upstream;
mod url;

pub use access::{
    ApiKey, Auth, AuthMode, EnvironmentKeys, KeyDigest, LlmTokenAlgorithm, Login, Mfa,
    PasswordProfile, User,
};
pub use counters::{Counters, CountersBackend, CountersFailure, MeterFailure, RedisMode};
pub use diagnostic::{Problem, Problems, Source};
pub use firewall::{
    Assignment, Breaker, Cache, DataAction, Exception, Firewall, Images, InjectionAction, Level,
    MarkAction, PiiKind, Policy, ScannerFailure, SecondOpinion, Terms, TextRole,
};
pub(crate) use firewall::{Resolved, ResolvedTerms};
pub use keys::{Accepted, AcceptedKey, KeyKind, SecretRefs};
pub use oidc::{Oidc, OidcAlgorithm};
pub use quota::{ModelQuota, Quota, SharedQuotas};
pub use resolve::Secrets;
pub use roles::{Role, RoleName, Roles, SCOPES};
pub use secret::{PasswordRef, SecretRef};
pub use service::{Fingerprint, Service};
pub use store::{Store, StorePlace, StoreUrl};
pub use types::{
    Admin, Audit, AuditFailure, Caps, Config, Limits, Listener, Log, LogFormat, LogLevel, Server,
    Telemetry, Tls,
};
pub use upstream::{Endpoint, Match, Queue, Route, Upstream, UpstreamKind};
pub use url::WebUrl;

/// Reads a duration as it is written in a config: `500ms`, `10s`, `5m`, `1h`, `90d`.
///
/// # Errors
/// What is wrong, and how durations are written.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    units::Word::read(text)
}

/// The largest config file, in bytes.
pub const MAX_BYTES: u64 = 1 << 20;

/// Reads and checks a config that is to be served.
///
/// # Errors
/// A file that cannot be read, is larger than [`MAX_BYTES`] or not UTF-8; all that [`parse`]
/// refuses; a config without an upstream.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let name = path.display().to_string();
    let yaml = read(path).map_err(|why| {
        let help = "give the path of a config with `-c FILE`; `portcullis init` writes one";
        whole_file(&name, format!("the config cannot be read: {why}"), help)
    })?;
    let config = read_yaml(&name, &yaml)?;
    check::to_serve(&config)?;
    Ok(config)
}

/// Checks a config that is given as text, and touches no file: secrets stay references.
///
/// The config may be partial, with no upstream yet. `name` is the file name in problems.
///
/// # Errors
/// YAML that is broken, larger than [`MAX_BYTES`] or expands too far; unknown keys, wrong types
/// and values; names that lead nowhere; settings that would open the gateway.
pub fn parse(name: &str, yaml: &str) -> Result<Config, Problems> {
    let config = read_yaml(name, yaml)?;
    check::partial(&config)?;
    Ok(config)
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut yaml = String::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut yaml)?;
    Ok(yaml)
}

fn read_yaml(name: &str, yaml: &str) -> Result<Config, Problems> {
    if u64::try_from(yaml.len()).map_or(true, |bytes| bytes > MAX_BYTES) {
        let message = format!("the config is larger than {MAX_BYTES} bytes");
        return Err(whole_file(name, message, "move users and keys that are not used out of it"));
    }
    let mut config: Config = serde_saphyr::from_str_with_options(yaml, options())
        .map_err(|error| explain::explain(name, &error))?;
    config.source = Source::new(name, yaml, options());
    Ok(config)
}

fn whole_file(name: &str, message: String, help: &str) -> Problems {
    Source::new(name, "", options()).problem("", message, help.to_owned()).into()
}

/// Strict YAML with bounded expansion: no merge keys, no foreign tags, no `yes` for `true`.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 32,
            max_nodes: 100_000,
            max_events: 300_000,
            max_anchors: 100,
            max_aliases: 100,
            max_documents: 2,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 4,
        },
        merge_keys: serde_saphyr::options::MergeKeyPolicy::Error,
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        reject_unsupported_tags: true,
        reject_tagged_field_names: true,
        with_snippet: false,
    }
}
