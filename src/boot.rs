//! From a configuration file to a running gateway's state, and again on reload.

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
use portcullis_filters::snapshot::{CompileError, Snapshot};
use portcullis_filters::{Parts, State};

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

impl From<Problems> for BootError {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}

impl From<CompileError> for BootError {
    fn from(error: CompileError) -> Self {
        Self::Other(error.to_string())
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
    let snapshot = Snapshot::compile(&config, &secrets, &base, clock)?;
    for listener in &config.listeners {
        if let Some(tls) = &listener.tls {
            crate::tls::Certificate::load(&base.join(&tls.cert_file), &base.join(&tls.key_file))
                .map_err(|error| {
                    BootError::Other(format!("listener {}: {error}", listener.name))
                })?;
        }
    }
    Ok(Loaded { config, snapshot, base })
}

/// Makes the state of a gateway that is about to serve.
///
/// # Errors
/// If the audit trail cannot be opened.
pub fn state(loaded: Loaded, clock: Clock) -> Result<Arc<State>, BootError> {
    let Loaded { config, snapshot, base } = loaded;
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
