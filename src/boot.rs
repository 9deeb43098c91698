//! From a configuration file to a running gateway's state, and again on reload.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_filters::accounts::directory::Directory;
use portcullis_filters::accounts::store::sql::StoreOptions;
use portcullis_filters::accounts::store::{SqlStore, Store, ThrottleLimits};
use portcullis_filters::accounts::{LoginDesk, LoginLimits, PasswordHash, Profile};
use portcullis_filters::audit::{AuditLog, AuditSink, OnFailure};
use portcullis_filters::body::Budget;
use portcullis_filters::clock::Clock;
use portcullis_filters::config::{
    self, AuditFailure, Config, CountersBackend, MeterFailure, PasswordProfile, Problems,
    RedisMode, Secrets,
};
use portcullis_filters::metrics::Metrics;
use portcullis_filters::quota::{
    Counters, MemoryCounters, OnFailure as Unreachable, Policy, RedisCounters, RedisOptions,
    Topology,
};
use portcullis_filters::snapshot::Snapshot;
use portcullis_filters::{Parts, State};
use tokio::runtime::Handle;

use crate::accounts_watch;
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
    /// The secrets that it names.
    pub secrets: Secrets,
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
    Ok(Loaded { config, secrets, snapshot, certificates, base })
}

fn certificates(config: &Config, base: &Path) -> Result<HashMap<String, Certificate>, BootError> {
    let mut certificates = HashMap::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let Some(tls) = &listener.tls else { continue };
        let (chain, key) = (base.join(&tls.cert_file), base.join(&tls.key_file));
        let path = format!("listeners[{index}].tls");
        let loaded = Certificate::load(&chain, &key);
        let mut certificate = loaded.map_err(|error| unusable(config, &path, &error))?;
        if let Some(file) = &tls.client_ca_file {
            let path = format!("{path}.client_ca_file");
            let with_ca = certificate.with_client_ca(&base.join(file));
            certificate = with_ca.map_err(|error| unusable(config, &path, &error))?;
        }
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
/// If the audit trail or the account store cannot be opened.
pub fn state(loaded: Loaded, clock: Clock) -> Result<Arc<State>, BootError> {
    let Loaded { config, secrets, snapshot, certificates: _, base } = loaded;
    let on_failure = match config.audit.on_failure {
        AuditFailure::Deny => OnFailure::Deny,
        AuditFailure::Allow => OnFailure::Allow,
    };
    let path = base.join(&config.audit.file);
    let audit = AuditLog::open(&path, clock.clone(), on_failure)
        .map_err(|error| BootError::Other(error.to_string()))?;
    let metrics = Metrics::new(snapshot.names(), &audit.counters())
        .map_err(|error| BootError::Other(format!("metrics: {error}")))?;
    let (store, runtime) = store(&config, &secrets, &base)?;
    let directory = directory(store, &runtime, &snapshot, &config, &clock)?;
    let counters = counters(&config, &secrets, &base, &clock, &runtime)?;
    let login = login_desk(&config, &clock)?;
    cover(&login, &directory, &runtime)?;
    let state = Arc::new(State::new(Parts {
        snapshot,
        counters,
        audit: Arc::new(audit),
        metrics: Arc::new(metrics),
        budget: Budget::new(config.server.body_memory),
        login,
        directory,
        clock,
    }));
    accounts_watch::start(&state, &runtime, config.store.refresh);
    Ok(state)
}

/// Opens the account store of a configuration, and gives the runtime that it runs on.
///
/// # Errors
/// If it cannot be reached, or is not one of ours.
pub fn store(
    config: &Config,
    secrets: &Secrets,
    base: &Path,
) -> Result<(Arc<dyn Store>, Handle), BootError> {
    let options = StoreOptions {
        url: secrets.store.url(),
        base: base.to_owned(),
        timeout: config.store.timeout,
        connections: config.store.connections,
        store_key: secrets.store_key.clone(),
        store_key_previous: secrets.store_key_previous.clone(),
    };
    let store = SqlStore::open(options).map_err(other)?;
    let runtime = store.handle().clone();
    Ok((Arc::new(store), runtime))
}

/// Where quotas are counted. A server that does not answer yet keeps nobody from starting: until it
/// does, `counters.on_failure` decides.
fn counters(
    config: &Config,
    secrets: &Secrets,
    base: &Path,
    clock: &Clock,
    runtime: &Handle,
) -> Result<Arc<dyn Counters>, BootError> {
    if config.counters.backend == CountersBackend::Memory {
        return Ok(Arc::new(MemoryCounters::new(clock.clone())));
    }
    let options = redis_options(config, secrets, base)?;
    let counters = RedisCounters::start(&options, clock.clone(), runtime)
        .map_err(|error| unusable(config, "counters", &error))?;
    if !wait(runtime, counters.ready(COUNTERS_PATIENCE)) {
        tracing::warn!("the counters do not answer; until they do, counters.on_failure decides");
    }
    Ok(Arc::new(counters))
}

fn redis_options(
    config: &Config,
    secrets: &Secrets,
    base: &Path,
) -> Result<RedisOptions, BootError> {
    let counters = &config.counters;
    let urls = counters.urls.clone();
    let topology = match counters.mode {
        RedisMode::Single => Topology::Single(urls.into_iter().next().unwrap_or_default()),
        RedisMode::Sentinel => Topology::Sentinel { urls, master: counters.master.clone() },
        RedisMode::Cluster => Topology::Cluster(urls),
    };
    let mut options = RedisOptions::new(topology);
    options.username = counters.username.clone();
    options.password = secrets.counters_password.clone();
    options.ca_pem = match &counters.ca_file {
        Some(path) => {
            let read = std::fs::read(base.join(path));
            Some(read.map_err(|error| unusable(config, "counters.ca_file", &error))?)
        }
        None => None,
    };
    options.prefix = counters.prefix.clone();
    options.timeout = counters.timeout;
    options.lease = counters.lease;
    options.gateways = counters.gateways;
    options.on_failure = Unreachable {
        requests: policy(counters.on_failure.requests),
        concurrent: policy(counters.on_failure.concurrent),
        tokens: policy(counters.on_failure.tokens),
        gpu: policy(counters.on_failure.gpu_seconds),
    };
    Ok(options)
}

const fn policy(policy: MeterFailure) -> Policy {
    match policy {
        MeterFailure::Deny => Policy::Deny,
        MeterFailure::Local => Policy::Local,
        MeterFailure::Allow => Policy::Allow,
    }
}

/// How long a gateway that starts waits for its counters.
const COUNTERS_PATIENCE: Duration = Duration::from_secs(2);

/// The first look at the accounts. Nobody can be let in without it, so the gateway does not start
/// where it fails.
fn directory(
    store: Arc<dyn Store>,
    runtime: &Handle,
    snapshot: &Snapshot,
    config: &Config,
    clock: &Clock,
) -> Result<Directory, BootError> {
    let (declared, now) = (snapshot.declared(), clock.unix_secs());
    let directory = Directory::new(store, clock.clone(), config.store.max_stale);
    let directory = directory.map_err(|error| other(format!("randomness: {error}")))?;
    wait(runtime, async {
        directory.store().declare(&declared.users, &declared.keys, now).await?;
        directory.look().await
    })
    .map_err(other)?;
    Ok(directory)
}

fn login_desk(config: &Config, clock: &Clock) -> Result<LoginDesk, BootError> {
    let login = &config.auth.login;
    let limits = LoginLimits {
        concurrent: login.concurrent,
        queue: login.queue,
        throttle: ThrottleLimits { max_failures: login.max_failures, window: login.window },
        profile: profile(config),
    };
    LoginDesk::new(clock.clone(), limits).map_err(other)
}

/// What the hash of a new password costs.
pub(crate) const fn profile(config: &Config) -> Profile {
    match config.auth.password_profile {
        PasswordProfile::Owasp => Profile::Owasp,
        PasswordProfile::Strong => Profile::Strong,
    }
}

/// Shows the desk every hash there is, so that from the first login on a refusal costs the same for
/// all names.
fn cover(login: &LoginDesk, directory: &Directory, runtime: &Handle) -> Result<(), BootError> {
    let users = wait(runtime, directory.store().users()).map_err(other)?;
    let hashes = users.iter().filter_map(|user| user.password_hash.as_deref());
    hashes.filter_map(|hash| PasswordHash::parse(hash).ok()).for_each(|hash| login.cover(&hash));
    Ok(())
}

/// Waits for a future on another runtime, on a thread of its own: also a thread that is part of a
/// runtime may start a gateway.
pub(crate) fn wait<F>(runtime: &Handle, future: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.block_on(future));
        waiting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn other(error: impl fmt::Display) -> BootError {
    BootError::Other(error.to_string())
}
