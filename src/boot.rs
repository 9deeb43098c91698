//! From a configuration file to a running gateway's state, and again on reload.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_filters::accounts::{LoginDesk, LoginLimits};
use portcullis_filters::audit::{AuditLog, AuditSink, OnFailure};
use portcullis_filters::body::Budget;
use portcullis_filters::clock::Clock;
use portcullis_filters::config::{self, AuditFailure, Config, Problems};
use portcullis_filters::metrics::Metrics;
use portcullis_filters::quota::MemoryCounters;
use portcullis_filters::snapshot::Snapshot;
use portcullis_filters::{Parts, State};

use crate::tls::Certificate;

/// Why the gateway does not start, or does not take a configuration.
#[derive(Debug)]
#[non_exhaustive]
pub enum BootError {
    /// The configuration is wrong, with the places.
    Config(Problems),
    /// Something else cannot be used.
    Other(String),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => problems.fmt(f),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for BootError {}

impl<P: Into<Problems>> From<P> for BootError {
    fn from(problems: P) -> Self {
        Self::Config(problems.into())
    }
}

/// A configuration file, read and compiled.
#[derive(Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// As it was written.
    pub config: Config,
    /// As it is put in force.
    pub snapshot: Snapshot,
    /// The certificates of the listeners that have one, by the listener's name.
    pub certificates: HashMap<String, Certificate>,
    /// The folder that relative paths start from.
    pub base: PathBuf,
}

/// Reads, checks and compiles a configuration file, with every secret, rule and certificate that
/// it names, but opens no port.
///
/// # Errors
/// Everything that would keep the gateway from starting.
pub fn load(path: &Path, clock: &Clock) -> Result<Loaded, BootError> {
    let config = config::load(path)?;
    let base = path.parent().map(Path::to_owned).unwrap_or_default();
    let secrets = config.resolve_secrets(&base, &|name| std::env::var(name).ok())?;
    let snapshot = Snapshot::compile(&config, &secrets, &base, clock)
        .map_err(|error| unusable(&config, error.path(), &error))?;
    let certificates = certificates(&config, &base)?;
    Ok(Loaded { config, snapshot, certificates, base })
}

fn certificates(config: &Config, base: &Path) -> Result<HashMap<String, Certificate>, BootError> {
    let mut certificates = HashMap::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let Some(tls) = &listener.tls else { continue };
        let (chain, key) = (base.join(&tls.cert_file), base.join(&tls.key_file));
        let certificate = Certificate::load(&chain, &key)
            .map_err(|error| unusable(config, &format!("listeners[{index}].tls"), &error))?;
        certificates.insert(listener.name.clone(), certificate);
    }
    Ok(certificates)
}

/// A problem with something that the configuration names at this key.
fn unusable(config: &Config, path: &str, error: &dyn fmt::Display) -> BootError {
    let help = "look at what the configuration names here; relative paths start at its folder";
    config.source.problem(path, error.to_string(), help.to_owned()).into()
}

/// Makes the state of a gateway that is about to serve.
///
/// # Errors
/// If the audit trail cannot be opened.
pub fn state(loaded: Loaded, clock: Clock) -> Result<Arc<State>, BootError> {
    let Loaded { config, snapshot, certificates: _, base } = loaded;
    let on_failure = match config.audit.on_failure {
        AuditFailure::Deny => OnFailure::Deny,
        AuditFailure::Allow => OnFailure::Allow,
    };
    let path = base.join(&config.audit.file);
    let audit = AuditLog::open(&path, clock.clone(), on_failure)
        .map_err(|error| BootError::Other(error.to_string()))?;
    let metrics = Metrics::new(snapshot.names(), &audit.counters())
        .map_err(|error| BootError::Other(format!("metrics: {error}")))?;
    let login = &config.auth.login;
    let limits = LoginLimits {
        concurrent: login.concurrent,
        queue: login.queue,
        max_failures: login.max_failures,
        window: login.window,
    };
    Ok(Arc::new(State::new(Parts {
        snapshot,
        counters: Arc::new(MemoryCounters::new(clock.clone())),
        audit: Arc::new(audit),
        metrics: Arc::new(metrics),
        budget: Budget::new(config.server.body_memory),
        login: LoginDesk::new(clock.clone(), limits),
        clock,
    })))
}
