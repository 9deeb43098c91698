//! A client that sees every byte of HTTP/1.1.

use std::fmt;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::gateway::Gateway;
use super::within;

/// The members of an error.
const MEMBERS: [&str; 6] = ["code", "message", "param", "request_id", "source", "type"];
/// What no caller is told.
const INSIDE: [&str; 9] =
    ["127.0.0.1", "panic", "pingora", "Pingora", "src/", "sqlite", "postgres", "SELECT", "argon2"];

/// An answer, and how it ended.
pub(crate) struct Answer {
    /// HTTP status
    pub(crate) status: u16,
    /// The header fields, names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    /// The body, without chunk framing.
    pub(crate) body: Vec<u8>,
    /// Whether the end was there: the last byte of the length, the last chunk, END_STREAM.
    pub(crate) whole: bool,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, fields, body, whole } = self;
        let body = String::from_utf8_lossy(body);
        write!(f, "{status} {fields:?}\n{body}\n({} bytes, whole: {whole})", body.len())
    }
}

impl Answer {
    /// The only value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(field, _)| field == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        value
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let Ok(json) = serde_json::from_slice(&self.body) else { panic!("not JSON: {self:?}") };
        json
    }

    /// The code of an error in OpenAI's shape.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        let json = self.json();
        let Some(code) = json["error"]["code"].as_str() else { panic!("no code: {self:?}") };
        code.to_owned()
    }

    /// Checks status and code of a refusal in OpenAI's shape, that it is whole, and that it says
    /// nothing of the inside.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{self:?}");
        assert!(self.whole, "{self:?}");
        let error = &self.json()["error"];
        let members: Vec<&String> = error.as_object().unwrap().keys().collect();
        assert_eq!(members, MEMBERS, "{self:?}");
        assert_eq!(error["request_id"].as_str(), self.field("x-request-id"), "{self:?}");
        assert_eq!(self.field("www-authenticate").is_some(), status == 401, "{self:?}");
        for secret in INSIDE {
            assert!(!self.text().contains(secret), "{self:?}");
        }
    }

    /// Checks a line of a table: status and code, which is empty where the request succeeds.
    #[track_caller]
    pub(crate) fn is(&self, status: u16, code: &str) {
        if code.is_empty() {
            assert_eq!(self.status, status, "{self:?}");
            assert!(self.whole, "{self:?}");
        } else {
            self.refused(status, code);
        }
    }
}

/// The bytes of a request.
pub(crate) struct Head(String);

impl Head {
    /// `POST` of JSON.
    pub(crate) fn post(gateway: &Gateway, path: &str) -> Self {
        Self::new(gateway, "POST", path).field("Content-Type", "application/json")
    }

    /// Any method, with the declared API key and without a body.
    pub(crate) fn new(gateway: &Gateway, method: &str, path: &str) -> Self {
        Self::bare(method, path).field("Authorization", &format!("Bearer {}", gateway.key))
    }

    /// Any method, without a credential.
    pub(crate) fn bare(method: &str, path: &str) -> Self {
        Self::to("gateway.test", method, path)
    }

    /// Any method, to a host of this name.
    pub(crate) fn to(host: &str, method: &str, path: &str) -> Self {
        Self(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n"))
    }

    /// Adds a field.
    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.0.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// The head alone.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        format!("{}\r\n", self.0).into_bytes()
    }

    /// With a body of announced length.
    pub(crate) fn with(self, body: &[u8]) -> Vec<u8> {
        let head = self.field("Content-Length", &body.len().to_string());
        [head.bytes().as_slice(), body].concat()
    }

    /// With a body in chunks of at most this size.
    pub(crate) fn chunked(self, body: &[u8], size: usize) -> Vec<u8> {
        let mut bytes = self.field("Transfer-Encoding", "chunked").bytes();
        for chunk in body.chunks(size) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    }
}

/// An HTTP/1.1 connection.
pub(crate) struct Connection {
    socket: TcpStream,
    unread: Vec<u8>,
    /// How what is left of the current answer is framed.
    framing: Framing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Length(usize),
    Chunked,
    Close,
}

impl Connection {
    pub(crate) async fn open(gateway: &Gateway) -> Self {
        Self::to(gateway.address).await
    }

    pub(crate) async fn to(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, unread: Vec::new(), framing: Framing::None }
    }

    /// Sends bytes; an error is left to the answer to show.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        drop(within("the gateway to read", self.socket.write_all(bytes)).await);
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Answer {
        self.send(request).await;
        self.answer().await
    }

    /// Sends a request and reads the head of its answer, if there is one.
    pub(crate) async fn try_ask(&mut self, request: &[u8]) -> Option<Answer> {
        self.send(request).await;
        self.head().await
    }

    /// Ends what this side has to say.
    pub(crate) async fn half_close(&mut self) {
        self.socket.shutdown().await.unwrap();
    }

    /// Reads a whole answer, `100 Continue` left out.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await.expect("no answer but the end of the connection");
        self.rest(&mut answer).await;
        answer
    }

    /// Reads what is left of the body of an answer.
    pub(crate) async fn rest(&mut self, answer: &mut Answer) {
        while let Some(part) = self.part().await {
            answer.body.extend_from_slice(&part);
        }
        answer.whole = self.framing == Framing::None;
    }

    /// Reads the head of an answer, `100 Continue` left out; `None` at the end of the connection.
    pub(crate) async fn head(&mut self) -> Option<Answer> {
        loop {
            let answer = self.any_head().await?;
            if answer.status != 100 {
                return Some(answer);
            }
        }
    }

    /// Reads the head of an answer, an informational one too.
    pub(crate) async fn any_head(&mut self) -> Option<Answer> {
        let head = self.take_until(b"\r\n\r\n").await?;
        let text = String::from_utf8(head).unwrap();
        let mut lines = text.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        });
        let answer = Answer { status, fields: fields.collect(), body: Vec::new(), whole: false };
        self.framing = match (answer.field("transfer-encoding"), answer.field("content-length")) {
            _ if status < 200 || status == 204 || status == 304 => Framing::None,
            (Some("chunked"), None) => Framing::Chunked,
            (None, Some(length)) => Framing::Length(length.parse().unwrap()),
            (None, None) => Framing::Close,
            both => panic!("the answer has a strange framing: {both:?}"),
        };
        Some(answer)
    }

    /// The head of an answer that has no body whatever it says, as to `HEAD`.
    pub(crate) async fn head_only(&mut self) -> Answer {
        let answer = self.head().await.expect("no answer");
        self.framing = Framing::None;
        answer
    }

    /// The next part of the body, as it comes; `None` at the end, or where it is cut.
    pub(crate) async fn part(&mut self) -> Option<Vec<u8>> {
        match self.framing {
            Framing::None | Framing::Length(0) => {
                self.framing = Framing::None;
                None
            }
            Framing::Length(left) => {
                self.fill(1).await?;
                let part: Vec<u8> = self.unread.drain(..left.min(self.unread.len())).collect();
                self.framing = Framing::Length(left - part.len());
                Some(part)
            }
            Framing::Close => {
                self.fill(1).await?;
                Some(std::mem::take(&mut self.unread))
            }
            Framing::Chunked => {
                let line = String::from_utf8(self.take_until(b"\r\n").await?).unwrap();
                let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
                self.fill(size + 2).await?;
                let mut part: Vec<u8> = self.unread.drain(..size + 2).collect();
                part.truncate(size);
                if size == 0 {
                    self.framing = Framing::None;
                    return None;
                }
                Some(part)
            }
        }
    }

    /// Reads the body until this text has come.
    pub(crate) async fn until_text(&mut self, text: &str) -> String {
        let mut read = String::new();
        while !read.contains(text) {
            let part = self.part().await;
            let part = part.unwrap_or_else(|| panic!("the body ends before {text:?}: {read}"));
            read.push_str(std::str::from_utf8(&part).unwrap());
        }
        read
    }

    /// Whether the gateway has ended the connection; waits for it, or for a byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && self.fill(1).await.is_none()
    }

    async fn take_until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.unread.windows(mark.len()).position(|window| window == mark);
            if let Some(at) = found {
                return Some(self.unread.drain(..at + mark.len()).collect());
            }
            self.fill(self.unread.len() + 1).await?;
        }
    }

    /// Reads until so many bytes are there; `None` if the connection ends before.
    async fn fill(&mut self, count: usize) -> Option<()> {
        while self.unread.len() < count {
            let mut block = vec![0; 16 << 10];
            match within("the gateway to answer", self.socket.read(&mut block)).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.unread.extend_from_slice(&block[..read]),
            }
        }
        Some(())
    }
}

/// Posts JSON on a connection of its own.
pub(crate) async fn post(gateway: &Gateway, path: &str, body: &Value) -> Answer {
    let request = Head::post(gateway, path).with(body.to_string().as_bytes());
    Connection::open(gateway).await.ask(&request).await
}

/// Gets a path on a connection of its own.
pub(crate) async fn get(gateway: &Gateway, path: &str) -> Answer {
    Connection::open(gateway).await.ask(&Head::new(gateway, "GET", path).bytes()).await
}
