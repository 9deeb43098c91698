//! The config as a typed tree: server, listeners, caps, audit, telemetry.
//!
//! Each struct mirrors a block of `conf/portcullis.yaml`, and its `Default` is the only place
//! where the defaults are written.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::access::Auth;
use super::counters::Counters;
use super::diagnostic::Source;
use super::firewall::Firewall;
use super::keys::SecretRefs;
use super::quota::{self, Quota, SharedQuotas};
use super::roles::Roles;
use super::store::Store;
use super::units;
use super::upstream::{Route, Upstream};

/// A whole config file. Every key is optional, an unknown key is an error.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The version of this schema: 1.
    pub version: u32,
    /// The process as a whole.
    pub server: Server,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Where the operator connects.
    pub admin: Admin,
    /// The gateway's own keys.
    pub secrets: SecretRefs,
    /// Where accounts are kept.
    pub store: Store,
    /// The inference servers, by name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Which request goes where; the first match wins.
    pub routes: Vec<Route>,
    /// Who may come in.
    pub auth: Auth,
    /// What each role may do.
    pub roles: Roles,
    /// How much a user may use, by name; `default` is always there.
    #[serde(deserialize_with = "quota::quotas")]
    pub quotas: BTreeMap<String, Quota>,
    /// Quotas that several callers share.
    pub shared_quotas: SharedQuotas,
    /// Where quotas are counted.
    pub counters: Counters,
    /// What one request may ask for.
    pub caps: Caps,
    /// What prompts and answers may hold.
    pub firewall: Firewall,
    /// The audit trail.
    pub audit: Audit,
    /// Logs.
    pub telemetry: Telemetry,
    /// Where each key was written, for problems that show only later.
    #[serde(skip)]
    pub source: Source,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: 1,
            server: Server::default(),
            listeners: vec![Listener::default()],
            admin: Admin::default(),
            secrets: SecretRefs::default(),
            store: Store::default(),
            upstreams: BTreeMap::new(),
            routes: Vec::new(),
            auth: Auth::default(),
            roles: Roles::default(),
            quotas: quota::default_quotas(),
            shared_quotas: SharedQuotas::default(),
            counters: Counters::default(),
            caps: Caps::default(),
            firewall: Firewall::default(),
            audit: Audit::default(),
            telemetry: Telemetry::default(),
            source: Source::default(),
        }
    }
}

/// The process as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Worker threads; 0 is one per core.
    pub threads: usize,
    /// How long open requests get to finish after SIGTERM.
    #[serde(with = "units::word")]
    pub drain_timeout: Duration,
    /// Bytes of all request bodies that are in memory at one time.
    #[serde(with = "units::word")]
    pub body_memory: u64,
    /// Networks whose `X-Forwarded-For` is believed.
    #[serde(with = "units::list")]
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            threads: 0,
            drain_timeout: Duration::from_secs(30),
            body_memory: 256 << 20,
            trusted_proxies: Vec::new(),
        }
    }
}

/// An address where clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    /// Its name in logs and metrics.
    pub name: String,
    /// The IP address and port to bind.
    #[serde(with = "units::word")]
    pub address: SocketAddr,
    /// Serve a non-loopback address without TLS, because something in front of it has TLS.
    pub allow_plaintext: bool,
    /// The certificate to serve; none is plain HTTP.
    pub tls: Option<Tls>,
    /// What a connection may cost.
    pub limits: Limits,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            name: "public".to_owned(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            allow_plaintext: false,
            tls: None,
            limits: Limits::default(),
        }
    }
}

/// The certificate of a listener. TLS 1.3 only.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the certificate and its chain.
    pub cert_file: PathBuf,
    /// PEM file with the private key.
    pub key_file: PathBuf,
    /// PEM file with CAs: a client may show a certificate of one of them, and then it is verified.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
    /// Send `Strict-Transport-Security` (RFC 6797).
    #[serde(default = "yes")]
    pub hsts: bool,
}

const fn yes() -> bool {
    true
}

/// What a connection may cost.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Time to send a complete request head; also the keep-alive idle limit.
    #[serde(with = "units::word")]
    pub header_timeout: Duration,
    /// Bytes of a request head.
    #[serde(with = "units::word")]
    pub max_header_bytes: u64,
    /// Open connections at one time.
    pub max_connections: u32,
    /// Bytes of a request body.
    #[serde(with = "units::word")]
    pub max_body_bytes: u64,
    /// Time for a whole request body.
    #[serde(with = "units::word")]
    pub body_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(15),
            max_header_bytes: 32 << 10,
            max_connections: 10_000,
            max_body_bytes: 8 << 20,
            body_timeout: Duration::from_secs(30),
        }
    }
}

/// Where the operator connects.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// A loopback address and port: metrics, health and `/internal/*`.
    #[serde(with = "units::word")]
    pub address: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)) }
    }
}

/// What one request may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Caps {
    /// Tokens to generate.
    pub max_tokens: u64,
    /// Answers to one prompt: `n`, `best_of`.
    pub choices: u64,
    /// Tokens of context: `num_ctx`.
    pub num_ctx: u64,
    /// How long a model stays loaded.
    #[serde(with = "units::word")]
    pub keep_alive: Duration,
    /// Alternatives shown for each token; 0 is none.
    pub top_logprobs: u64,
    /// Texts of one embeddings or completions request.
    pub inputs: u64,
    /// Messages of one conversation.
    pub messages: u64,
    /// Whether Ollama's `context`, tokens that no scanner can read, may be sent.
    pub token_context: bool,
    /// Request parameters that are passed on besides the documented ones.
    pub extra_params: Vec<String>,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            max_tokens: 4096,
            choices: 1,
            num_ctx: 131_072,
            keep_alive: Duration::from_secs(30 * 60),
            top_logprobs: 20,
            inputs: 2048,
            messages: 4096,
            token_context: false,
            extra_params: Vec::new(),
        }
    }
}

/// The audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// The file that records are appended to.
    pub file: PathBuf,
    /// What happens to requests while no record can be written.
    pub on_failure: AuditFailure,
}

impl Default for Audit {
    fn default() -> Self {
        Self { file: PathBuf::from("audit.jsonl"), on_failure: AuditFailure::Deny }
    }
}

/// What happens to requests while no audit record can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditFailure {
    /// They are refused with 503.
    Deny,
    /// They pass, and are counted.
    Allow,
}

/// Logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// The log on standard error.
    pub log: Log,
}

/// The log on standard error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// The least important lines that are written.
    pub level: LogLevel,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LogLevel::Info }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How important a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Something is broken.
    Error,
    /// Something will break.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
}
