//! A client of HTTP/2 in TLS, frame by frame.

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderValue, Request};
use tokio::net::TcpStream;

use super::client::Answer;
use super::gateway::Gateway;
use super::tls::Leaf;
use super::upstream::fields;
use super::within;

/// An HTTP/2 connection in TLS.
pub(crate) struct Http2 {
    requests: SendRequest<Bytes>,
    fields: Vec<(String, String)>,
}

/// A request on an HTTP/2 connection that is not over.
pub(crate) struct Stream {
    /// Where the body goes.
    pub(crate) body: h2::SendStream<Bytes>,
    answer: h2::client::ResponseFuture,
}

impl Http2 {
    /// With the declared API key.
    pub(crate) async fn open(gateway: &Gateway) -> Self {
        Self::with(gateway, &gateway.key).await
    }

    /// With another credential.
    pub(crate) async fn with(gateway: &Gateway, credential: &str) -> Self {
        let fields = [("authorization", format!("Bearer {credential}"))];
        Self::showing(gateway, None, &fields).await.expect("the handshake fails")
    }

    /// With these fields, and perhaps a certificate; nothing if the handshake fails.
    pub(crate) async fn showing(
        gateway: &Gateway,
        certificate: Option<&Leaf>,
        fields: &[(&str, String)],
    ) -> Option<Self> {
        let tls = gateway.authority().connector(b"h2", certificate);
        let socket = TcpStream::connect(gateway.secure.unwrap()).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let name = "localhost".try_into().unwrap();
        let stream = within("the TLS handshake", tls.connect(name, socket)).await.ok()?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let (requests, connection) = h2::client::handshake(stream).await.ok()?;
        tokio::spawn(async move { drop(connection.await) });
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Some(Self { requests, fields: fields.collect() })
    }

    /// Begins a request; a length is announced if one is given.
    pub(crate) async fn begin(&mut self, path: &str, length: Option<usize>) -> Stream {
        self.try_begin(path, length).await.expect("the connection has ended")
    }

    async fn try_begin(&mut self, path: &str, length: Option<usize>) -> Option<Stream> {
        let request = Request::post(format!("https://localhost{path}"));
        let request = request.header("content-type", "application/json");
        let fields = self.fields.iter();
        let request = fields.fold(request, |request, (name, value)| request.header(name, value));
        let mut request = request.body(()).unwrap();
        if let Some(length) = length {
            request.headers_mut().insert("content-length", HeaderValue::from(length));
        }
        let ready = self.requests.clone();
        self.requests = within("room for a stream", ready.ready()).await.ok()?;
        let (answer, body) = self.requests.send_request(request, false).ok()?;
        Some(Stream { body, answer })
    }

    /// Posts a body and reads the answer, if there is one.
    pub(crate) async fn try_post(&mut self, path: &str, body: &[u8]) -> Option<Answer> {
        let mut stream = self.try_begin(path, Some(body.len())).await?;
        stream.send(body, body.len()).await;
        stream.try_answer().await
    }

    /// Posts a body in frames of at most this size, and reads the answer.
    pub(crate) async fn post(&mut self, path: &str, body: &[u8], frame: usize) -> Answer {
        let mut stream = self.begin(path, Some(body.len())).await;
        stream.send(body, frame).await;
        stream.answer().await
    }
}

impl Stream {
    /// Sends a whole body, as far as the gateway takes it.
    pub(crate) async fn send(&mut self, body: &[u8], frame: usize) {
        for chunk in body.chunks(frame) {
            if !self.frame(Bytes::copy_from_slice(chunk)).await {
                return;
            }
        }
        drop(self.body.send_data(Bytes::new(), true));
    }

    /// Sends one frame when there is room for it; false if the gateway takes no more.
    pub(crate) async fn frame(&mut self, mut data: Bytes) -> bool {
        while !data.is_empty() {
            self.body.reserve_capacity(data.len());
            let room = std::future::poll_fn(|cx| self.body.poll_capacity(cx));
            let Some(Ok(room)) = within("room for a frame", room).await else { return false };
            let part = data.split_to(room.min(data.len()));
            if self.body.send_data(part, false).is_err() {
                return false;
            }
        }
        true
    }

    /// Reads the answer to its end.
    pub(crate) async fn answer(self) -> Answer {
        self.try_answer().await.expect("no answer but the end of the stream")
    }

    /// Reads the answer to its end, if there is one.
    pub(crate) async fn try_answer(self) -> Option<Answer> {
        let response = within("the head of the answer", self.answer).await.ok()?;
        let (head, mut incoming) = response.into_parts();
        let mut answer = Answer {
            status: head.status.as_u16(),
            fields: fields(&head.headers),
            body: Vec::new(),
            whole: true,
        };
        while let Some(data) = within("the answer", incoming.data()).await {
            match data {
                Ok(data) => {
                    drop(incoming.flow_control().release_capacity(data.len()));
                    answer.body.extend_from_slice(&data);
                }
                Err(_) => {
                    answer.whole = false;
                    break;
                }
            }
        }
        Some(answer)
    }
}
