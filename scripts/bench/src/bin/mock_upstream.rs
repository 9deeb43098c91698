//! A fast mock of an OpenAI-compatible server, one thread: chat completions (whole or streamed) and embeddings.
//! usage: mock_upstream LISTEN
//! `GET /mock/set?chunks=40&delay_us=50000` sets the pieces of a stream and the time between them, and answers
//! `{"served":N,"body_bytes":N}`, what it has read so far. Every piece of text begins with a time stamp (`stamp()`).

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use memchr::memmem::find;
use portcullis_bench::stamp;
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

static CHUNKS: AtomicU64 = AtomicU64::new(40);
static DELAY_US: AtomicU64 = AtomicU64::new(50_000);
static SERVED: AtomicU64 = AtomicU64::new(0);
static BODY_BYTES: AtomicU64 = AtomicU64::new(0);

const HEAD: &str = r#""id":"chatcmpl-mock","created":1760000000,"model":"mock""#;
const DIMENSIONS: usize = 256;

type Answer = Response<Either<Full<Bytes>, Stream>>;

fn main() -> Result<(), Box<dyn Error>> {
    let listen: SocketAddr =
        std::env::args().nth(1).ok_or("usage: mock_upstream LISTEN")?.parse()?;
    if !listen.ip().is_loopback() {
        return Err("loopback only".into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(listen))
}

async fn serve(listen: SocketAddr) -> Result<(), Box<dyn Error>> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    let listener = socket.listen(4096)?;
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(connection), hyper::service::service_fn(answer)),
        );
    }
}

async fn answer(request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let path = request.uri().path().to_owned();
    if path == "/mock/set" {
        return Ok(set(request.uri().query().unwrap_or("")));
    }
    let body = request.into_body().collect().await?.to_bytes();
    SERVED.fetch_add(1, Relaxed);
    BODY_BYTES.fetch_add(body.len() as u64, Relaxed);
    Ok(match path.as_str() {
        "/v1/chat/completions" if find(&body, br#""stream":true"#).is_some() => stream(&body),
        "/v1/chat/completions" => chat(body.len() / 4),
        "/v1/embeddings" => embeddings(body.len() / 4),
        "/v1/models" => json(r#"{"object":"list","data":[{"id":"mock","object":"model"}]}"#.into()),
        _ => {
            let mut answer = json(r#"{"error":{"message":"no such path"}}"#.into());
            *answer.status_mut() = StatusCode::NOT_FOUND;
            answer
        }
    })
}

fn set(query: &str) -> Answer {
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match (name, value.parse()) {
            ("chunks", Ok(number)) => CHUNKS.store(number, Relaxed),
            ("delay_us", Ok(number)) => DELAY_US.store(number, Relaxed),
            _ => eprintln!("not understood: {name}={value}"),
        }
    }
    let (served, bytes) = (SERVED.load(Relaxed), BODY_BYTES.load(Relaxed));
    json(format!(r#"{{"served":{served},"body_bytes":{bytes}}}"#))
}

fn json(text: String) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(text.into())));
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}

fn usage(prompt: usize, completion: u64) -> String {
    let total = prompt as u64 + completion;
    format!(
        r#""usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total}}}"#
    )
}

fn chat(prompt: usize) -> Answer {
    let text = format!("{}{}", stamp(), " lorem".repeat(30));
    let message = format!(r#"{{"role":"assistant","content":"{text}"}}"#);
    let choice = format!(r#"{{"index":0,"message":{message},"finish_reason":"stop"}}"#);
    json(format!(
        r#"{{{HEAD},"object":"chat.completion","choices":[{choice}],{}}}"#,
        usage(prompt, 30)
    ))
}

fn embeddings(prompt: usize) -> Answer {
    let vector = vec!["0.0123456"; DIMENSIONS].join(",");
    let data = format!(r#"{{"object":"embedding","index":0,"embedding":[{vector}]}}"#);
    json(format!(r#"{{"object":"list","model":"mock","data":[{data}],{}}}"#, usage(prompt, 0)))
}

fn stream(body: &[u8]) -> Answer {
    let mut answer = Response::new(Either::Right(Stream {
        left: CHUNKS.load(Relaxed),
        sent: 0,
        delay: Duration::from_micros(DELAY_US.load(Relaxed)),
        next: Box::pin(sleep_until(Instant::now())),
        usage: find(body, b"include_usage").map(|_| body.len() / 4),
        ended: false,
    }));
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    answer
}

/// One event per `delay`, then the closing ones.
struct Stream {
    left: u64,
    sent: u64,
    delay: Duration,
    next: Pin<Box<Sleep>>,
    /// Prompt tokens to report, if the client asked for usage.
    usage: Option<usize>,
    ended: bool,
}

impl Stream {
    fn piece(&mut self) -> String {
        if self.left == 0 {
            self.ended = true;
            return self.end();
        }
        self.left -= 1;
        self.sent += 1;
        event(&format!(
            r#""choices":[{{"index":0,"delta":{{"content":"{} "}},"finish_reason":null}}]"#,
            stamp()
        ))
    }

    fn end(&self) -> String {
        let stop = event(r#""choices":[{"index":0,"delta":{},"finish_reason":"stop"}]"#);
        let usage = self
            .usage
            .map(|prompt| event(&format!(r#""choices":[],{}"#, usage(prompt, self.sent))));
        format!("{stop}{}data: [DONE]\n\n", usage.unwrap_or_default())
    }
}

fn event(rest: &str) -> String {
    format!("data: {{{HEAD},\"object\":\"chat.completion.chunk\",{rest}}}\n\n")
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        ready!(self.next.as_mut().poll(context));
        let at = self.next.deadline() + self.delay;
        self.next.as_mut().reset(at);
        Poll::Ready(Some(Ok(Frame::data(self.piece().into()))))
    }
}
