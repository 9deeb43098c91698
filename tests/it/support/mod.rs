//! What the tests stand on: a gateway in this process, upstreams that play a script, and a client
//! that sees every byte.

pub(crate) mod accounts;
#[path = "../../cli/authenticator.rs"]
pub(crate) mod authenticator;
pub(crate) mod client;
pub(crate) mod database;
pub(crate) mod gateway;
pub(crate) mod hash;
pub(crate) mod http2;
pub(crate) mod plan;
pub(crate) mod tls;
pub(crate) mod tunnel;
pub(crate) mod upstream;

use std::future::Future;
use std::time::Duration;

use serde_json::{Value, json};

/// No wait of any test is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for something that must happen.
#[track_caller]
pub(crate) fn within<F: Future>(what: &'static str, future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(output) => output,
            Err(_) => panic!("{caller}: waited in vain for {what}"),
        }
    }
}

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn until(what: &'static str, holds: impl Fn() -> bool) -> impl Future<Output = ()> {
    within(what, async move {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
}

/// A chat request in OpenAI's dialect.
pub(crate) fn chat(model: &str, text: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": text }] })
}

/// A chat request that asks for a stream.
pub(crate) fn streamed(model: &str, text: &str) -> Value {
    let mut request = chat(model, text);
    request["stream"] = json!(true);
    request
}

/// A chat request in Ollama's dialect, whole answers.
pub(crate) fn ollama_chat(model: &str, text: &str) -> Value {
    let mut request = chat(model, text);
    request["stream"] = json!(false);
    request
}

/// The answer to a chat, with these tokens used.
pub(crate) fn chat_answer(prompt_tokens: u64, completion_tokens: u64) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "phi",
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": "Paris." },
            "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    })
}

/// The answer to a chat in Ollama's dialect, and the last line of its stream.
pub(crate) fn ollama_answer(prompt_tokens: u64, completion_tokens: u64) -> Value {
    json!({
        "model": "phi", "created_at": "2026-01-01T00:00:00Z",
        "message": { "role": "assistant", "content": "" },
        "done": true, "done_reason": "stop",
        "total_duration": 900_000_000, "load_duration": 1,
        "prompt_eval_count": prompt_tokens, "prompt_eval_duration": 200_000_000,
        "eval_count": completion_tokens, "eval_duration": 300_000_000,
    })
}

/// One line of a stream in Ollama's dialect.
pub(crate) fn ollama_line(text: &str) -> String {
    let line = json!({
        "model": "phi", "created_at": "2026-01-01T00:00:00Z",
        "message": { "role": "assistant", "content": text },
        "done": false,
    });
    format!("{line}\n")
}

/// One event of a chat stream.
pub(crate) fn delta(text: &str) -> String {
    event(&json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "phi",
        "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }],
    }))
}

/// The last event of a chat stream that was asked for usage.
pub(crate) fn usage_event(prompt_tokens: u64, completion_tokens: u64) -> String {
    event(&json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "phi",
        "choices": [],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }))
}

/// A server-sent event with this JSON.
pub(crate) fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// The end mark of OpenAI's streams.
pub(crate) const DONE: &str = "data: [DONE]\n\n";

/// A chat request in Ollama's dialect of exactly this many bytes. An image is what makes it large:
/// its letters are compared at the upstream, and no scanner spends time on them.
pub(crate) fn sized_chat(bytes: usize) -> Vec<u8> {
    let body = |text: usize, image: usize| {
        let half = image / 2;
        let images = match image {
            0 => json!([]),
            _ => json!([letters(half, 7), letters(image - half, 3)]),
        };
        json!({
            "model": "phi",
            "stream": false,
            "messages": [{ "role": "user", "content": "a".repeat(text), "images": images }],
        })
        .to_string()
        .into_bytes()
    };
    let small = bytes < 1000;
    let frame = if small { body(0, 0).len() } else { body(0, 2).len() - 2 };
    let pad = bytes.checked_sub(frame).expect("too small for a request");
    let sized = if small { body(pad, 0) } else { body(0, pad) };
    assert_eq!(sized.len(), bytes);
    sized
}

/// Letters that do not repeat in a power of two, so that a lost or doubled block shows.
fn letters(count: usize, seed: usize) -> String {
    (0..count).map(|at| char::from(b'A' + ((at * seed) % 251 % 26) as u8)).collect()
}
