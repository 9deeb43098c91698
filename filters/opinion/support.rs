//! A guard for tests: a real server on loopback, which answers as a test says.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// What the guard does with a request.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// Answers with these bytes, head included.
    Raw(Vec<u8>),
    /// Answers with these bytes once the test lets it.
    Held(Vec<u8>),
    /// Never answers.
    Silence,
    /// Answers, and never ends.
    Endless,
}

pub(super) fn http(status: &str, headers: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Raw(
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into(),
    )
}

pub(super) fn ok(body: &str) -> Reply {
    http("200 OK", "", body)
}

/// A good answer that waits for [`Server::release`].
pub(super) fn held(body: &str) -> Reply {
    match ok(body) {
        Reply::Raw(bytes) => Reply::Held(bytes),
        other @ (Reply::Held(_) | Reply::Silence | Reply::Endless) => other,
    }
}

/// The server; requests are head and body as they came.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) url: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requests: watch::Sender<Vec<String>>,
    gate: Semaphore,
    /// Requests without an answer, now and at most.
    open: Mutex<(usize, usize)>,
}

impl Server {
    /// `reply` sees each request as text.
    pub(super) async fn start(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ask", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            requests: watch::Sender::new(Vec::new()),
            gate: Semaphore::new(0),
            open: Mutex::default(),
        });
        let (reply, served) = (Arc::new(reply), Arc::clone(&shared));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (reply, served) = (Arc::clone(&reply), Arc::clone(&served));
                tokio::spawn(async move { served.serve(stream, &*reply).await });
            }
        });
        Self { url, shared }
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.shared.requests.borrow().clone()
    }

    pub(super) async fn wait_for(&self, requests: usize) {
        let mut seen = self.shared.requests.subscribe();
        seen.wait_for(|seen| seen.len() >= requests).await.unwrap();
    }

    /// Lets so many held answers go.
    pub(super) fn release(&self, answers: usize) {
        self.shared.gate.add_permits(answers);
    }

    pub(super) fn most_at_one_time(&self) -> usize {
        self.shared.open.lock().unwrap().1
    }
}

impl Shared {
    async fn serve(&self, mut stream: TcpStream, reply: &(impl Fn(&str) -> Reply + Sync)) {
        while let Some(request) = request(&mut stream).await {
            {
                let mut open = self.open.lock().unwrap();
                open.0 += 1;
                open.1 = open.1.max(open.0);
            }
            self.requests.send_modify(|requests| requests.push(request.clone()));
            let bytes = match reply(&request) {
                Reply::Raw(bytes) => bytes,
                Reply::Held(bytes) => {
                    self.gate.acquire().await.unwrap().forget();
                    bytes
                }
                Reply::Silence => std::future::pending().await,
                Reply::Endless => return endless(&mut stream).await,
            };
            self.open.lock().unwrap().0 -= 1;
            if bytes.is_empty() || stream.write_all(&bytes).await.is_err() {
                return;
            }
        }
    }
}

/// Small pieces, so that time and not length ends it.
async fn endless(stream: &mut TcpStream) {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n";
    let mut sent = stream.write_all(head.as_bytes()).await;
    while sent.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        sent = stream.write_all(b" ").await;
    }
}

async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if let Some(text) = whole(&bytes) {
            return Some(text);
        }
    }
}

fn whole(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8(bytes.to_vec()).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.to_ascii_lowercase();
    let length = length.split_once("content-length: ")?.1.lines().next()?.parse::<usize>().ok()?;
    (body.len() >= length).then_some(text)
}

/// A guard behind TLS: its URL and the CA of its certificate (DER). It answers every connection with
/// `body`, once.
pub(super) fn tls_server(body: &'static str) -> (String, Vec<u8>) {
    let (config, authority) = tls_config();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::Stream::new(&mut tls, &mut stream);
            let mut request = [0; 4096];
            if stream.read(&mut request).is_ok() {
                let length = body.len();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
                drop(stream.write_all(head.as_bytes()));
                stream.conn.send_close_notify();
                drop(stream.flush());
            }
        }
    });
    (url, authority)
}

fn tls_config() -> (Arc<ServerConfig>, Vec<u8>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = builder.unwrap().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    (Arc::new(config), authority.der().to_vec())
}

/// Keeps everything that is logged.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<Mutex<String>>);

impl Log {
    pub(super) fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.lock().unwrap().push_str(&format!("{field}={value:?}\n"));
    }
}
