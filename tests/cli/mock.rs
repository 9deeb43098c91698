//! A model server that speaks enough of OpenAI's and Ollama's APIs for these tests, on threads of
//! its own so that a test may block. What it does is chosen by the model of the request.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::support::own_address;

/// A stream of this model stops after its first event until [`Mock::release`].
pub(crate) const SLOW: &str = "slow:1b";
/// Any other model answers at once.
pub(crate) const QUICK: &str = "phi";
/// What every model says.
pub(crate) const ANSWER: &str = "Paris";

/// A running model server; its threads end with the process.
pub(crate) struct Mock {
    /// `http://ADDRESS:PORT`
    pub(crate) url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Value>>,
    released: Mutex<bool>,
    changed: Condvar,
}

impl Mock {
    /// Starts one.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((own_address(), 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::<Shared>::default();
        let server = Arc::clone(&shared);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&server);
                thread::spawn(move || serve(&connection, &shared));
            }
        });
        Self { url, shared }
    }

    /// The bodies that have arrived.
    pub(crate) fn seen(&self) -> Vec<Value> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Lets the streams of [`SLOW`] go on to their end.
    pub(crate) fn release(&self) {
        *self.shared.released.lock().unwrap() = true;
        self.shared.changed.notify_all();
    }
}

/// Serves a connection until it ends, which is no error here.
fn serve(connection: &TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(connection);
    while let Ok(Some((path, body))) = read(&mut reader) {
        if !body.is_null() {
            shared.seen.lock().unwrap().push(body.clone());
        }
        if answer(connection, shared, &path, &body).is_err() {
            return;
        }
    }
}

/// Path and body of the next request.
fn read(reader: &mut impl BufRead) -> io::Result<Option<(String, Value)>> {
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line)?;
    let Some(path) = line.split(' ').nth(1).map(str::to_owned) else { return Ok(None) };
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some((path, serde_json::from_slice(&body).unwrap_or_default())))
}

fn answer(mut to: &TcpStream, shared: &Shared, path: &str, body: &Value) -> io::Result<()> {
    let streams = body["stream"].as_bool().unwrap_or(path == "/api/chat");
    match path {
        "/" => whole(to, "text/plain", "Ollama is running"),
        "/api/tags" => json_body(to, &json!({ "models": [{ "name": QUICK }, { "name": SLOW }] })),
        "/api/version" => json_body(to, &json!({ "version": "0.9.0" })),
        "/v1/models" => json_body(
            to,
            &json!({ "object": "list", "data": [{ "id": QUICK, "object": "model" }] }),
        ),
        "/v1/chat/completions" if streams => {
            start(to, "text/event-stream")?;
            sse(to, &delta(ANSWER))?;
            shared.wait(body);
            sse(to, &delta("."))?;
            if body["stream_options"]["include_usage"] == json!(true) {
                sse(to, &json!({ "id": "c", "choices": [], "usage": usage() }).to_string())?;
            }
            sse(to, "[DONE]")?;
            to.write_all(b"0\r\n\r\n")
        }
        "/v1/chat/completions" => json_body(
            to,
            &json!({
                "id": "c", "object": "chat.completion", "model": body["model"], "usage": usage(),
                "choices": [{
                    "index": 0, "finish_reason": "stop",
                    "message": { "role": "assistant", "content": ANSWER },
                }],
            }),
        ),
        "/api/chat" if streams => {
            start(to, "application/x-ndjson")?;
            chunk(to, &format!("{}\n", line(body, false)))?;
            shared.wait(body);
            chunk(to, &format!("{}\n", line(body, true)))?;
            to.write_all(b"0\r\n\r\n")
        }
        "/api/chat" => json_body(to, &line(body, true)),
        _ => to.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
    }
}

impl Shared {
    /// Waits for the release if the model is the slow one.
    fn wait(&self, body: &Value) {
        if body["model"] == json!(SLOW) {
            let released = self.released.lock().unwrap();
            drop(self.changed.wait_while(released, |released| !*released).unwrap());
        }
    }
}

fn usage() -> Value {
    json!({ "prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9 })
}

fn delta(text: &str) -> String {
    json!({
        "id": "c", "object": "chat.completion.chunk",
        "choices": [{ "index": 0, "delta": { "content": text } }],
    })
    .to_string()
}

fn line(body: &Value, done: bool) -> Value {
    json!({
        "model": body["model"], "message": { "role": "assistant", "content": ANSWER },
        "done": done, "prompt_eval_count": 7, "eval_count": 2,
        "prompt_eval_duration": 1_000_000, "eval_duration": 2_000_000,
    })
}

fn json_body(to: &TcpStream, value: &Value) -> io::Result<()> {
    whole(to, "application/json", &value.to_string())
}

fn whole(mut to: &TcpStream, kind: &str, text: &str) -> io::Result<()> {
    let length = text.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}");
    to.write_all(format!("{head}\r\n\r\n{text}").as_bytes())
}

fn start(mut to: &TcpStream, kind: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked");
    to.write_all(format!("{head}\r\n\r\n").as_bytes())
}

fn sse(to: &TcpStream, data: &str) -> io::Result<()> {
    chunk(to, &format!("data: {data}\n\n"))
}

fn chunk(mut to: &TcpStream, text: &str) -> io::Result<()> {
    to.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
}
