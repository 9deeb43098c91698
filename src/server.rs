//! The listeners, and the life of the process: start, reload on SIGHUP, drain on SIGTERM.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::apps::HttpServerApp;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
use pingora::services::background::background_service;
use pingora::services::listening::Service;
use portcullis_filters::clock::Clock;
use portcullis_filters::config::{AuthMode, Config, Limits};
use portcullis_filters::edge::{ConnectionLimits, Edge};
use portcullis_filters::surface::Listener;
use portcullis_filters::{Gate, ListenerPolicy, State};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::Api;
use crate::boot::{self, BootError, Loaded};
use crate::proxy::Proxy;
use crate::reload::Reload;
use crate::tls::Certificate;
use crate::upstream_watch::UpstreamWatch;

/// How often a drain looks whether the last request has ended.
const DRAIN_TICK: Duration = Duration::from_millis(50);
/// How long requests that were cut may take to leave their records.
const CUT_WITHIN: Duration = Duration::from_secs(2);
/// How long the last audit records may take to reach the disk.
const AUDIT_FLUSH: Duration = Duration::from_secs(5);
/// How long the last settlements may take to reach the counters.
const COUNTERS_FLUSH: Duration = Duration::from_secs(3);
/// Answers of one request are retried on other connections at most this often.
const MAX_RETRIES: usize = 3;
/// Idle connections kept to each upstream.
const POOL: usize = 256;

/// A Pingora application with the whole journey in it.
pub type App = Edge<HttpProxy<Proxy>>;

/// The application of one listener.
#[must_use]
pub fn app(
    state: &Arc<State>,
    policy: ListenerPolicy,
    limits: ConnectionLimits,
    conf: &Arc<ServerConf>,
) -> App {
    let gate = Gate::new(Arc::clone(state), policy, Arc::new(Api));
    let mut proxy = HttpProxy::new(Proxy::new(gate), Arc::clone(conf));
    proxy.handle_init_modules();
    Edge::new(Arc::new(proxy), limits, Arc::clone(state.metrics()))
}

/// Serves a configuration until a signal ends it.
///
/// # Errors
/// Everything that keeps it from starting. Once it serves it returns only to end.
pub fn run(path: &Path) -> Result<(), BootError> {
    let clock = Clock::system();
    let loaded = boot::load(path, &clock)?;
    serve(path, loaded, clock)
}

/// Serves what was loaded from a configuration file.
///
/// # Errors
/// As [`run`].
pub fn serve(path: &Path, loaded: Loaded, clock: Clock) -> Result<(), BootError> {
    let (config, certificates) = (loaded.config.clone(), loaded.certificates.clone());
    let mut server = Server::new_with_opt_and_conf(None, server_conf(&config));
    server.bootstrap();
    let conf = Arc::clone(&server.configuration);
    let state = boot::state(loaded, clock)?;
    add_listeners(&mut server, &state, &config, &certificates, &conf)?;
    server.add_service(background_service(
        "reload",
        Reload::new(path, &state, certificates, config.clone()),
    ));
    server.add_service(background_service("upstreams", UpstreamWatch::new(&state)));
    if config.auth.mode == AuthMode::Development {
        tracing::warn!(
            "DEVELOPMENT MODE: nobody needs a credential; everyone on this machine is a user. \
             Never on a machine that others reach"
        );
    }
    for listener in &config.listeners {
        tracing::info!(address = %listener.address, tls = listener.tls.is_some(), "listening");
    }
    tracing::info!(address = %config.admin.address, "admin listening");
    let drain = Drain { state: Arc::clone(&state), within: config.server.drain_timeout };
    server.run(RunArgs { shutdown_signal: Box::new(drain) });
    await_cut_requests(&state);
    pay(&state);
    if !state.audit().flush(AUDIT_FLUSH) {
        tracing::error!("the last audit records could not be written");
    }
    tracing::info!("stopped");
    Ok(())
}

/// What is not paid for by now is given back to the callers when the lease ends.
fn pay(state: &State) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let paid = runtime.map(|runtime| runtime.block_on(state.counters().flush(COUNTERS_FLUSH)));
    if !paid.unwrap_or(false) {
        tracing::error!("the last requests could not be charged: the counters do not answer");
    }
}

/// Pingora's workers drop the requests that were cut on their own threads, and each leaves its record
/// as it is dropped: the process must not end before.
fn await_cut_requests(state: &State) {
    let begun = Instant::now();
    while state.open_requests() > 0 && begun.elapsed() < CUT_WITHIN {
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn server_conf(config: &Config) -> ServerConf {
    let threads = match config.server.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    ServerConf {
        threads,
        max_retries: MAX_RETRIES,
        upstream_keepalive_pool_size: POOL,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}

fn add_listeners(
    server: &mut Server,
    state: &Arc<State>,
    config: &Config,
    certificates: &HashMap<String, Certificate>,
    conf: &Arc<ServerConf>,
) -> Result<(), BootError> {
    for listener in &config.listeners {
        let hsts = listener.tls.as_ref().is_some_and(|tls| tls.hsts);
        let policy = policy(Listener::Public, &listener.limits, hsts);
        let app = app(state, policy, connection_limits(&listener.limits), conf);
        let certificate = certificates.get(&listener.name);
        add(server, &listener.name, listener.address, app, certificate)?;
    }
    let limits = Limits::default();
    let admin =
        app(state, policy(Listener::Admin, &limits, false), connection_limits(&limits), conf);
    add(server, "admin", config.admin.address, admin, None)
}

fn add<A: HttpServerApp + Send + Sync + 'static>(
    server: &mut Server,
    name: &str,
    address: SocketAddr,
    app: A,
    certificate: Option<&Certificate>,
) -> Result<(), BootError> {
    // Pingora panics on an address that is taken; find out while an error can still be told.
    std::net::TcpListener::bind(address)
        .map_err(|error| BootError::Other(format!("listener {name}: {address}: {error}")))?;
    let mut service = Service::new(name.to_owned(), app);
    match certificate {
        None => service.add_tcp(&address.to_string()),
        Some(certificate) => {
            let settings = certificate.settings().map_err(other)?;
            service.add_tls_with_settings(&address.to_string(), None, settings);
        }
    }
    server.add_service(service);
    Ok(())
}

fn policy(listener: Listener, limits: &Limits, hsts: bool) -> ListenerPolicy {
    ListenerPolicy {
        listener,
        max_header_bytes: usize::try_from(limits.max_header_bytes).unwrap_or(usize::MAX),
        max_body_bytes: limits.max_body_bytes,
        body_timeout: limits.body_timeout,
        hsts,
    }
}

fn connection_limits(limits: &Limits) -> ConnectionLimits {
    ConnectionLimits {
        max_connections: usize::try_from(limits.max_connections).unwrap_or(usize::MAX),
        header_timeout: limits.header_timeout,
    }
}

fn other(error: impl std::fmt::Display) -> BootError {
    BootError::Other(error.to_string())
}

/// Ends the process: at once on SIGINT, on SIGTERM after the open requests.
///
/// Pingora's own graceful stop waits its whole grace period even when idle, and then cuts streams.
struct Drain {
    state: Arc<State>,
    within: Duration,
}

#[async_trait]
impl ShutdownSignalWatch for Drain {
    async fn recv(&self) -> ShutdownSignal {
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::error!("signals cannot be watched");
            return ShutdownSignal::FastShutdown;
        };
        tokio::select! {
            _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
            _ = terminate.recv() => {}
        }
        self.state.drain();
        let open = self.state.open_requests();
        tracing::info!(open, "draining");
        let begun = Instant::now();
        while self.state.open_requests() > 0 && begun.elapsed() < self.within {
            tokio::select! {
                () = tokio::time::sleep(DRAIN_TICK) => {}
                _ = interrupt.recv() => break,
            }
        }
        ShutdownSignal::FastShutdown
    }
}
