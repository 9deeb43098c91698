//! A whole gateway in this process, on a port of its own.

use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::apps::ServerApp;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::l4::stream::Stream as Socket;
use pingora::protocols::{GetSocketDigest as _, SocketDigest, Stream};
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;
use portcullis::boot::{self, Loaded};
use portcullis::server::{self, App};
use portcullis_filters::clock::Clock;
use portcullis_filters::config::Limits;
use portcullis_filters::edge::ConnectionLimits;
use portcullis_filters::surface::Listener;
use portcullis_filters::{ListenerPolicy, State};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::plan::{Folder, SharedFolder};
pub(crate) use super::plan::{GOOD, PASSWORD, Plan, USER};
use super::tls::Authority;
use super::{PATIENCE, until};

/// A gateway that serves until it is dropped.
pub(crate) struct Gateway {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Where it listens for operators.
    pub(crate) admin: SocketAddr,
    /// Where it listens with TLS.
    pub(crate) secure: Option<SocketAddr>,
    /// The declared API key, of its owner.
    pub(crate) key: String,
    /// Its inside.
    pub(crate) state: Arc<State>,
    /// What it is configured by.
    pub(crate) folder: SharedFolder,
    audit: PathBuf,
    accepting: Vec<JoinHandle<()>>,
    _shutdown: watch::Sender<bool>,
}

impl Gateway {
    pub(super) async fn start(plan: Plan) -> Self {
        super::tls::install_provider();
        let (folder, key) = plan.write();
        Self::serve(Arc::new(folder), &key, Clock::system()).await
    }

    /// Another gateway with the same configuration, accounts and clock.
    pub(crate) async fn twin(&self) -> Self {
        let key = SecretString::from(self.key.as_str());
        Self::serve(Arc::clone(&self.folder), &key, self.state.clock().clone()).await
    }

    /// Ends it, and starts it again.
    pub(crate) async fn restart(self) -> Self {
        let (folder, key) = (Arc::clone(&self.folder), SecretString::from(self.key.as_str()));
        let clock = self.state.clock().clone();
        drop(self);
        Self::serve(folder, &key, clock).await
    }

    async fn serve(folder: SharedFolder, key: &SecretString, clock: Clock) -> Self {
        let mut loaded = load(&folder, &clock);
        loaded.config.audit.file = folder.next_trail().into();
        let audit = loaded.base.join(&loaded.config.audit.file);
        let tls = loaded.certificates.get("public").map(|c| c.settings().unwrap().build());
        let (app, admin, state) = apps(loaded, clock, tls.is_some());
        let (shutdown, watch) = watch::channel(false);
        let mut accepting = Vec::new();
        let address = listen(&app, None, &watch, &mut accepting).await;
        let admin = listen(&admin, None, &watch, &mut accepting).await;
        let secure = match tls {
            Some(tls) => Some(listen(&app, Some(Arc::new(tls)), &watch, &mut accepting).await),
            None => None,
        };
        Self {
            address,
            admin,
            secure,
            key: key.expose_secret().to_owned(),
            state,
            folder,
            audit,
            accepting,
            _shutdown: shutdown,
        }
    }

    /// What its certificate is signed by.
    pub(crate) fn authority(&self) -> &Authority {
        self.folder.authority.as_ref().expect("a gateway with TLS")
    }

    /// Puts the configuration of now in force, as SIGHUP does.
    pub(crate) async fn reload(&self) {
        self.reload_with(&[]).await;
    }

    /// The same, with these variables in the environment.
    pub(crate) async fn reload_with(&self, environment: &[(&str, &str)]) {
        let snapshot = self.folder.compile(self.state.clock(), environment);
        let (directory, declared) = (self.state.directory(), snapshot.declared());
        let now = self.state.clock().unix_secs();
        directory.store().declare(&declared.users, &declared.keys, now).await.unwrap();
        self.state.swap(snapshot);
        self.state.look().await.unwrap();
    }

    /// Moves the clock on, and looks at the accounts, as a gateway does while time passes.
    pub(crate) async fn pass(&self, time: Duration) {
        self.state.clock().advance(time);
        self.state.look().await.unwrap();
    }

    /// Every audit record of a request, once all requests are over: exactly this many, each of its
    /// own request, and nothing is reserved any more.
    pub(crate) async fn settled(&self, count: usize) -> Vec<Value> {
        until("the requests to end", || {
            self.state.open_requests() == 0 && self.records().len() >= count
        })
        .await;
        assert_eq!(self.state.counters().open_reservations(), 0, "something stays reserved");
        let records = self.records();
        assert_eq!(records.len(), count, "{records:?}");
        let mut ids: Vec<&str> = records.iter().filter_map(|r| r["request_id"].as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "two records of one request: {records:?}");
        records
    }

    /// What the audit trail holds of requests; the trail itself leaves records too.
    pub(crate) fn records(&self) -> Vec<Value> {
        assert!(self.state.audit().flush(PATIENCE));
        let text = std::fs::read_to_string(&self.audit).unwrap();
        // The last line may be on its way.
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        let lines = whole.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter(|record: &Value| !record["request_id"].is_null()).collect()
    }

    /// The one audit record, once the one request is over.
    pub(crate) async fn record(&self) -> Value {
        self.settled(1).await.remove(0)
    }

    /// The value of a counter or gauge without labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.state.metrics().encode();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }
}

impl Drop for Gateway {
    /// Lets the last records reach the disk before their folder goes. The tests' runtimes have a
    /// thread for the gateway, which works on while this one waits.
    fn drop(&mut self) {
        self.accepting.iter().for_each(JoinHandle::abort);
        let begun = Instant::now();
        while self.state.open_requests() > 0 && begun.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.state.audit().flush(Duration::from_secs(1));
    }
}

fn load(folder: &Folder, clock: &Clock) -> Loaded {
    boot::load(&folder.config(), clock).unwrap_or_else(|error| panic!("{error}"))
}

/// The applications of the public listener and of the one for operators.
fn apps(loaded: Loaded, clock: Clock, hsts: bool) -> (Arc<App>, Arc<App>, Arc<State>) {
    let limits = loaded.config.listeners[0].limits.clone();
    let state = boot::state(loaded, clock).unwrap();
    let conf = Arc::new(ServerConf { max_retries: 3, ..ServerConf::default() });
    let app = |listener, hsts| {
        let connections = ConnectionLimits {
            max_connections: limits.max_connections as usize,
            header_timeout: limits.header_timeout,
        };
        let policy = policy(listener, &limits, hsts);
        Arc::new(server::app(&state, policy, connections, &conf))
    };
    let (public, admin) = (app(Listener::Public, hsts), app(Listener::Admin, false));
    (public, admin, state)
}

fn policy(listener: Listener, limits: &Limits, hsts: bool) -> ListenerPolicy {
    ListenerPolicy {
        listener,
        max_header_bytes: limits.max_header_bytes as usize,
        max_body_bytes: limits.max_body_bytes,
        body_timeout: limits.body_timeout,
        hsts,
    }
}

async fn listen(
    app: &Arc<App>,
    tls: Option<Arc<Acceptor>>,
    watch: &ShutdownWatch,
    accepting: &mut Vec<JoinHandle<()>>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    accepting.push(tokio::spawn(accept(listener, Arc::clone(app), tls, watch.clone())));
    address
}

/// What Pingora's listening service does.
async fn accept(
    listener: TcpListener,
    app: Arc<App>,
    tls: Option<Arc<Acceptor>>,
    watch: ShutdownWatch,
) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (app, tls, watch) = (Arc::clone(&app), tls.clone(), watch.clone());
        tokio::spawn(async move {
            let mut next = connect(tcp, tls.as_deref()).await;
            while let Some(stream) = next {
                next = app.process_new(stream, &watch).await;
            }
        });
    }
}

async fn connect(tcp: TcpStream, tls: Option<&Acceptor>) -> Option<Stream> {
    tcp.set_nodelay(true).unwrap();
    let digest = SocketDigest::from_raw_fd(tcp.as_raw_fd());
    let mut socket = Socket::from(tcp);
    socket.set_socket_digest(digest);
    match tls {
        None => Some(Box::new(socket)),
        Some(tls) => Some(Box::new(tls.tls_handshake(socket).await.ok()?)),
    }
}
