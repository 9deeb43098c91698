//! A whole gateway in this process, on a port of its own.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
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
use portcullis::tls::Certificate;
use portcullis_filters::accounts::{
    ApiKey, Pepper, Profile, generate_secret, generate_signing_key_pem, password,
};
use portcullis_filters::clock::Clock;
use portcullis_filters::config::Limits;
use portcullis_filters::edge::ConnectionLimits;
use portcullis_filters::surface::Listener;
use portcullis_filters::{ListenerPolicy, State};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::tls::Authority;
use super::upstream::Upstream;
use super::{PATIENCE, until};

/// The one user of every gateway, an owner.
pub(crate) const USER: &str = "alice";
/// The user's password.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// What a gateway is to be like.
pub(crate) struct Plan {
    blocks: String,
    limits: String,
    quota: String,
    rights: String,
    authority: Option<Authority>,
    files: Vec<(String, String)>,
}

impl Plan {
    /// A gateway with these blocks of configuration, `upstreams` among them.
    pub(crate) fn new(blocks: impl Into<String>) -> Self {
        Self {
            blocks: blocks.into(),
            limits: String::new(),
            quota: "requests_per_minute: 60000, burst: 1000".to_owned(),
            rights: "scopes: ['*'], models: ['*']".to_owned(),
            authority: None,
            files: Vec::new(),
        }
    }

    /// A gateway in front of this upstream only.
    pub(crate) fn to(upstream: &Upstream) -> Self {
        Self::new(format!("upstreams: {{local: {{url: '{}'}}}}", upstream.url()))
    }

    /// More blocks.
    pub(crate) fn with(mut self, blocks: &str) -> Self {
        writeln!(self.blocks, "\n{blocks}").unwrap();
        self
    }

    /// Limits of the listener, as members of a YAML object.
    pub(crate) fn limits(mut self, limits: &str) -> Self {
        self.limits = limits.to_owned();
        self
    }

    /// The quota of the user, as members of a YAML object.
    pub(crate) fn quota(mut self, quota: &str) -> Self {
        self.quota = quota.to_owned();
        self
    }

    /// What the API key may do, as members of a YAML object.
    pub(crate) fn rights(mut self, rights: &str) -> Self {
        self.rights = rights.to_owned();
        self
    }

    /// Serves TLS too, with a certificate of this authority.
    pub(crate) fn tls(mut self, authority: Authority) -> Self {
        self.authority = Some(authority);
        self
    }

    /// Puts a file beside the configuration.
    pub(crate) fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Starts it.
    pub(crate) async fn start(self) -> Gateway {
        Gateway::start(self).await
    }

    fn write(&self, dir: &Path) -> SecretString {
        let pepper = generate_secret::<48>().unwrap();
        let (key, id, digest) = new_key(&pepper);
        let hash = password::hash(&SecretString::from(PASSWORD), Profile::Owasp).unwrap();
        write(dir, "signing.pem", generate_signing_key_pem().unwrap().expose_secret());
        write(dir, "token.key", generate_secret::<48>().unwrap().expose_secret());
        write(dir, "pepper.key", pepper.expose_secret());
        write(dir, "alice.hash", &hash);
        for (name, text) in &self.files {
            write(dir, name, text);
        }
        let Self { blocks, limits, quota, rights, .. } = self;
        let config = format!(
            "\
version: 1
listeners: [{{name: public, address: '127.0.0.1:0', limits: {{{limits}}}}}]
admin: {{address: '127.0.0.1:0'}}
secrets:
  signing_key: {{file: signing.pem}}
  token_key: {{file: token.key}}
  key_pepper: {{file: pepper.key}}
auth:
  users: [{{name: {USER}, role: owner, password_hash: {{file: alice.hash}}}}]
  api_keys: [{{id: {id}, user: {USER}, digest: {digest}, {rights}}}]
quotas: {{default: {{{quota}}}}}
{blocks}
"
        );
        write(dir, "portcullis.yaml", &config);
        key
    }
}

fn new_key(pepper: &SecretString) -> (SecretString, String, String) {
    let pepper = Pepper::new(&SecretSlice::from(pepper.expose_secret().as_bytes().to_vec()));
    let key = ApiKey::generate().unwrap();
    let digest = pepper.unwrap().digest(&key).to_string();
    (key.reveal(), key.id().to_string(), digest)
}

fn write(dir: &Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A gateway that serves until it is dropped.
pub(crate) struct Gateway {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Where it listens with TLS.
    pub(crate) secure: Option<SocketAddr>,
    /// An API key of its user.
    pub(crate) key: String,
    /// Its inside.
    pub(crate) state: Arc<State>,
    /// What its certificate is signed by, if it serves TLS.
    pub(crate) authority: Option<Authority>,
    audit: PathBuf,
    accepting: Vec<JoinHandle<()>>,
    _shutdown: watch::Sender<bool>,
    _dir: TempDir,
}

impl Gateway {
    async fn start(plan: Plan) -> Self {
        super::tls::install_provider();
        let dir = tempfile::tempdir().unwrap();
        let key = plan.write(dir.path());
        let clock = Clock::system();
        let loaded = match boot::load(&dir.path().join("portcullis.yaml"), &clock) {
            Ok(loaded) => loaded,
            Err(error) => panic!("{error}"),
        };
        let acceptor = plan.authority.as_ref().map(|authority| acceptor(dir.path(), authority));
        let audit = loaded.base.join(&loaded.config.audit.file);
        let (app, state) = app(loaded, clock, acceptor.is_some());
        let (shutdown, watch) = watch::channel(false);
        let mut accepting = Vec::new();
        let address = listen(&app, None, &watch, &mut accepting).await;
        let secure = match acceptor {
            Some(tls) => Some(listen(&app, Some(Arc::new(tls)), &watch, &mut accepting).await),
            None => None,
        };
        Self {
            address,
            secure,
            key: key.expose_secret().to_owned(),
            state,
            authority: plan.authority,
            audit,
            accepting,
            _shutdown: shutdown,
            _dir: dir,
        }
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
    fn records(&self) -> Vec<Value> {
        assert!(self.state.audit().flush(PATIENCE));
        let text = std::fs::read_to_string(&self.audit).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
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

fn app(loaded: Loaded, clock: Clock, hsts: bool) -> (Arc<App>, Arc<State>) {
    let limits = loaded.config.listeners[0].limits.clone();
    let state = boot::state(loaded, clock).unwrap();
    let conf = ServerConf { max_retries: 3, ..ServerConf::default() };
    let connections = ConnectionLimits {
        max_connections: limits.max_connections as usize,
        header_timeout: limits.header_timeout,
    };
    let app = server::app(&state, policy(&limits, hsts), connections, &Arc::new(conf));
    (Arc::new(app), state)
}

fn policy(limits: &Limits, hsts: bool) -> ListenerPolicy {
    ListenerPolicy {
        listener: Listener::Public,
        max_header_bytes: limits.max_header_bytes as usize,
        max_body_bytes: limits.max_body_bytes,
        body_timeout: limits.body_timeout,
        hsts,
    }
}

fn acceptor(dir: &Path, authority: &Authority) -> Acceptor {
    write(dir, "chain.pem", &authority.chain_pem());
    write(dir, "key.pem", &authority.key_pem());
    let certificate = Certificate::load(&dir.join("chain.pem"), &dir.join("key.pem")).unwrap();
    certificate.settings().unwrap().build()
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
