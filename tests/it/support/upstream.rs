//! Model servers that play a script and write down what they were asked.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use http::HeaderMap;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::tls::Authority;
use super::until;

/// A request as the upstream saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The request line.
    pub(crate) line: String,
    /// The header fields in their order, names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// The only value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(field, _)| field == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        value
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

type Played = Pin<Box<dyn Future<Output = Option<Talk>> + Send>>;
type Script = Arc<dyn Fn(Talk) -> Played + Send + Sync>;

/// An upstream that serves until it is dropped.
pub(crate) struct Upstream {
    address: SocketAddr,
    scheme: &'static str,
    book: Arc<Book>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Book {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
}

impl Upstream {
    /// An upstream that reads each request and plays the script. The connection is kept if the
    /// script gives the talk back.
    pub(crate) async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Talk) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<Talk>> + Send + 'static,
    {
        Self::reading(true, script).await
    }

    /// An upstream that plays the script after the head, without reading the body.
    pub(crate) async fn hasty<F, Fut>(script: F) -> Self
    where
        F: Fn(Talk) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<Talk>> + Send + 'static,
    {
        Self::reading(false, script).await
    }

    /// An upstream that answers every request with this JSON.
    pub(crate) async fn json(answer: Value) -> Self {
        Self::start(move |talk| {
            let answer = answer.clone();
            async move { talk.json(200, &answer).await }
        })
        .await
    }

    /// An upstream that answers every request with these bytes, and keeps the connection.
    pub(crate) async fn raw(answer: impl Into<Bytes>) -> Self {
        let answer = answer.into();
        Self::start(move |talk| {
            let answer = answer.clone();
            async move { talk.raw(&answer).await }
        })
        .await
    }

    /// An upstream that answers with the bytes of the case whose number the prompt ends with. What
    /// ends with [`CUT`] is sent without it, and the connection closed.
    pub(crate) async fn cases<S: Into<String>>(answers: impl IntoIterator<Item = S>) -> Self {
        let answers: Arc<Vec<String>> = Arc::new(answers.into_iter().map(Into::into).collect());
        Self::start(move |talk| {
            let answers = Arc::clone(&answers);
            async move {
                let request = talk.seen.json();
                let prompt = request["messages"][0]["content"].as_str().unwrap();
                let case: usize = prompt.rsplit(' ').next().unwrap().parse().unwrap();
                let answer = &answers[case];
                let cut = answer.strip_suffix(CUT);
                talk.raw(cut.unwrap_or(answer).as_bytes()).await.filter(|_| cut.is_none())
            }
        })
        .await
    }

    async fn reading<F, Fut>(reads_body: bool, script: F) -> Self
    where
        F: Fn(Talk) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<Talk>> + Send + 'static,
    {
        let script: Script = Arc::new(move |talk| Box::pin(script(talk)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let book = Arc::<Book>::default();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&book), script, reads_body));
        Self { address, scheme: "http", book, accepting }
    }

    /// An upstream that speaks HTTP/2 in TLS.
    pub(crate) async fn http2<F, Fut>(authority: &Authority, script: F) -> Self
    where
        F: Fn(SendResponse<Bytes>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let tls = authority.acceptor(b"h2");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let book = Arc::<Book>::default();
        let (noting, script) = (Arc::clone(&book), Arc::new(script));
        let accepting = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                noting.connections.fetch_add(1, Ordering::SeqCst);
                let (tls, book, script) = (tls.clone(), Arc::clone(&noting), Arc::clone(&script));
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(tcp).await else { return };
                    serve_http2(stream, book, script).await;
                });
            }
        });
        Self { address, scheme: "https", book, accepting }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// What it was asked so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.book.seen.lock().unwrap().clone()
    }

    /// The one request that it was asked.
    #[track_caller]
    pub(crate) fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    /// Waits until it was asked so many times.
    pub(crate) async fn asked(&self, times: usize) {
        until("a request at the upstream", || self.seen().len() >= times).await;
    }

    /// Connections that were opened to it.
    pub(crate) fn connections(&self) -> usize {
        self.book.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An upstream that answers with this JSON when it is told to.
pub(crate) async fn held(answer: &Value) -> (Upstream, Arc<Semaphore>) {
    let go = Arc::new(Semaphore::new(0));
    let (waiting, answer) = (Arc::clone(&go), answer.clone());
    let upstream = Upstream::start(move |talk| {
        let (go, answer) = (Arc::clone(&waiting), answer.clone());
        async move {
            go.acquire().await.unwrap().forget();
            talk.json(200, &answer).await
        }
    })
    .await;
    (upstream, go)
}

/// The end of an answer that breaks off.
pub(crate) const CUT: &str = "CUT";

/// The head of an answer in chunks.
pub(crate) fn chunked_head(media_type: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n")
}

/// One chunk; an empty one is the last.
pub(crate) fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A place where nobody listens.
pub(crate) fn nowhere() -> String {
    // The port is free again when the socket is dropped, and the system does not hand it out soon.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", taken.local_addr().unwrap())
}

async fn accept(listener: TcpListener, book: Arc<Book>, script: Script, reads_body: bool) {
    while let Ok((socket, _)) = listener.accept().await {
        book.connections.fetch_add(1, Ordering::SeqCst);
        socket.set_nodelay(true).unwrap();
        let (book, script) = (Arc::clone(&book), Arc::clone(&script));
        tokio::spawn(async move {
            let mut talk = Talk { socket, seen: Seen::default(), unread: Vec::new() };
            while talk.listen(reads_body).await.is_some() {
                book.seen.lock().unwrap().push(talk.seen.clone());
                match script(talk).await {
                    Some(kept) => talk = kept,
                    None => return,
                }
            }
        });
    }
}

/// One request, and the connection to answer it on.
pub(crate) struct Talk {
    socket: TcpStream,
    unread: Vec<u8>,
    /// What is asked.
    pub(crate) seen: Seen,
}

impl Talk {
    /// Reads a request; `None` at the end of the connection.
    async fn listen(&mut self, reads_body: bool) -> Option<()> {
        let head = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break self.unread.drain(..end + 4).collect::<Vec<u8>>();
            }
            self.more().await?;
        };
        self.seen = parse(&head);
        assert!(self.seen.field("transfer-encoding").is_none(), "bodies have a length");
        let length = self.seen.field("content-length").map_or(0, |v| v.parse().unwrap());
        if reads_body {
            while self.unread.len() < length {
                self.more().await?;
            }
            self.seen.body = self.unread.drain(..length).collect();
        }
        Some(())
    }

    async fn more(&mut self) -> Option<()> {
        let mut block = vec![0; 64 << 10];
        match self.socket.read(&mut block).await {
            Ok(0) | Err(_) => None,
            Ok(count) => {
                self.unread.extend_from_slice(&block[..count]);
                Some(())
            }
        }
    }

    /// Answers with JSON.
    pub(crate) async fn json(self, status: u16, value: &Value) -> Option<Self> {
        let body = value.to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.raw(format!("{head}{body}").as_bytes()).await
    }

    /// Answers with these bytes, head and all.
    pub(crate) async fn raw(mut self, bytes: &[u8]) -> Option<Self> {
        self.socket.write_all(bytes).await.ok()?;
        Some(self)
    }

    /// Begins an answer in chunks.
    pub(crate) async fn begin(mut self, media_type: &str) -> Self {
        let head = chunked_head(media_type);
        drop(self.socket.write_all(head.as_bytes()).await);
        self
    }

    /// Sends one chunk; false if nobody takes it any more.
    pub(crate) async fn chunk(&mut self, text: &str) -> bool {
        self.socket.write_all(chunk(text).as_bytes()).await.is_ok()
    }

    /// Ends an answer in chunks.
    pub(crate) async fn end(self) -> Option<Self> {
        self.raw(b"0\r\n\r\n").await
    }

    /// Resets the connection.
    pub(crate) fn reset(self) -> Option<Self> {
        self.socket.set_zero_linger().unwrap();
        None
    }

    /// Waits until the other side closes the connection.
    pub(crate) async fn closed(&mut self) {
        while self.more().await.is_some() {}
    }
}

fn parse(head: &[u8]) -> Seen {
    let text = std::str::from_utf8(head).unwrap();
    let mut lines = text.trim_end().split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let fields = lines.map(|field| {
        let (name, value) = field.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.trim().to_owned())
    });
    Seen { line, fields: fields.collect(), body: Vec::new() }
}

async fn serve_http2<S, F, Fut>(stream: S, book: Arc<Book>, script: Arc<F>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    F: Fn(SendResponse<Bytes>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
    let Ok(mut connection) = builder.handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (book, script) = (Arc::clone(&book), Arc::clone(&script));
        tokio::spawn(async move {
            let (head, mut incoming) = request.into_parts();
            let mut body = Vec::new();
            while let Some(Ok(data)) = incoming.data().await {
                drop(incoming.flow_control().release_capacity(data.len()));
                body.extend_from_slice(&data);
            }
            let line = format!("{} {} HTTP/2", head.method, head.uri.path());
            book.seen.lock().unwrap().push(Seen { line, fields: fields(&head.headers), body });
            script(respond).await;
        });
    }
}

pub(super) fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect()
}
