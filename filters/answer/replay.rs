//! Replays of recorded exchanges with llama.cpp and Ollama, at the boundaries at which they came.
//!
//! The recordings are not part of the project: `PORTCULLIS_SHARED` says where they are.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::tests::SPENT;
use super::*;
use crate::usage::Usage;

/// Per recording: its shape, and what it reports of prompt tokens, completion tokens and seconds.
type Recorded = (&'static str, Shape, Option<u64>, Option<u64>, Option<f64>);

#[rustfmt::skip]
const RECORDINGS: &[Recorded] = &[
    ("ollama-chat-format-schema", Shape::OllamaChat, Some(16), Some(32), Some(1.013496)),
    ("ollama-chat-logprobs", Shape::OllamaChat, Some(16), Some(2), Some(0.021406)),
    ("ollama-chat-stream", Shape::OllamaChat, Some(16), Some(8), Some(0.312104)),
    ("ollama-chat-tools-stream", Shape::OllamaChat, Some(133), Some(29), Some(1.107679999)),
    ("ollama-chat-tools", Shape::OllamaChat, Some(133), Some(29), Some(5.1036)),
    ("ollama-chat", Shape::OllamaChat, Some(16), Some(8), Some(0.331968)),
    ("ollama-embed", Shape::OllamaEmbed, Some(4), None, Some(0.172158502)),
    ("ollama-embeddings-old", Shape::OllamaEmbeddings, None, None, None),
    ("ollama-generate-raw", Shape::OllamaGenerate, Some(7), Some(1), Some(0.223425)),
    ("ollama-generate-stream", Shape::OllamaGenerate, Some(16), Some(8), Some(0.356535)),
    ("ollama-generate", Shape::OllamaGenerate, Some(16), Some(8), Some(0.344836)),
    ("ollama-load", Shape::OllamaGenerate, None, None, None),
    ("ollama-ps-empty", Shape::OllamaPs, None, None, None),
    ("ollama-ps", Shape::OllamaPs, None, None, None),
    ("ollama-root", Shape::OllamaRoot, None, None, None),
    ("ollama-show", Shape::OllamaShow, None, None, None),
    ("ollama-tags", Shape::OllamaTags, None, None, None),
    ("ollama-unload", Shape::OllamaGenerate, None, None, None),
    ("ollama-v1-chat-json-schema", Shape::OpenAiChat, Some(16), Some(32), None),
    ("ollama-v1-chat-logprobs", Shape::OpenAiChat, Some(16), Some(2), None),
    ("ollama-v1-chat-stream-usage", Shape::OpenAiChat, Some(16), Some(8), None),
    ("ollama-v1-chat-stream", Shape::OpenAiChat, None, None, None),
    ("ollama-v1-chat-tools-stream", Shape::OpenAiChat, Some(133), Some(29), None),
    ("ollama-v1-chat-tools", Shape::OpenAiChat, Some(133), Some(29), None),
    ("ollama-v1-chat", Shape::OpenAiChat, Some(16), Some(8), None),
    ("ollama-v1-completions-stream", Shape::OpenAiCompletions, Some(14), Some(5), None),
    ("ollama-v1-completions", Shape::OpenAiCompletions, Some(14), Some(5), None),
    ("ollama-v1-embeddings-base64", Shape::OpenAiEmbeddings, Some(1), None, None),
    ("ollama-v1-embeddings", Shape::OpenAiEmbeddings, Some(4), None, None),
    ("ollama-v1-models", Shape::OpenAiModels, None, None, None),
    ("ollama-v1-responses-stream", Shape::OpenAiResponses, Some(16), Some(8), None),
    ("ollama-v1-responses", Shape::OpenAiResponses, Some(16), Some(8), None),
    ("ollama-v1-messages-stream", Shape::AnthropicMessages, Some(16), Some(8), None),
    ("ollama-v1-messages", Shape::AnthropicMessages, Some(16), Some(8), None),
    ("openai-messages-stream", Shape::AnthropicMessages, Some(37), Some(12), None),
    ("openai-messages", Shape::AnthropicMessages, Some(37), Some(12), None),
    ("ollama-version", Shape::OllamaVersion, None, None, None),
    ("openai-chat-json-schema", Shape::OpenAiChat, Some(37), Some(22), Some(1.345455)),
    ("openai-chat-logprobs", Shape::OpenAiChat, Some(37), Some(2), Some(0.088066)),
    ("openai-chat-stream-usage", Shape::OpenAiChat, Some(37), Some(12), Some(0.496058)),
    ("openai-chat-stream", Shape::OpenAiChat, Some(37), Some(12), Some(0.556109)),
    ("openai-chat-tools-stream", Shape::OpenAiChat, Some(207), Some(30), Some(1.170753)),
    ("openai-chat-tools", Shape::OpenAiChat, Some(207), Some(30), Some(2.335113)),
    ("openai-chat", Shape::OpenAiChat, Some(37), Some(12), Some(1.470568)),
    ("openai-completions-stream", Shape::OpenAiCompletions, Some(5), Some(5), Some(0.215508)),
    ("openai-completions", Shape::OpenAiCompletions, Some(5), Some(5), Some(0.30704)),
    ("openai-embeddings-base64", Shape::OpenAiEmbeddings, Some(1), None, None),
    ("openai-embeddings", Shape::OpenAiEmbeddings, Some(4), None, None),
    ("openai-err-model", Shape::OpenAiChat, Some(37), Some(12), Some(0.553872)),
    ("openai-models", Shape::OpenAiModels, None, None, None),
    ("openai-responses-stream", Shape::OpenAiResponses, Some(37), Some(12), Some(0.490467)),
    ("openai-responses", Shape::OpenAiResponses, Some(37), Some(12), None),
];

const PROMPT_ESTIMATE: u64 = SPENT.prompt.likely;

#[test]
fn recordings_pass_unchanged_and_usage_is_read() {
    let Some(folder) = recordings() else { return };
    for recorded in RECORDINGS {
        let exchange = Exchange::read(&folder, recorded.0);
        let body = exchange.body();
        let whole = Bytes::from(body.clone());
        for chunks in [vec![whole], exchange.chunks(), split(&body, 1), split(&body, 7)] {
            let mut answer = Answer::new(Expect::new(recorded.1), exchange.framing(recorded.1));
            assert_eq!(replay(&mut answer, &chunks), body, "{}", recorded.0);
            assert!(answer.is_complete() && !answer.upstream_error(), "{}", recorded.0);
            check_usage(&answer, recorded);
        }
    }
}

fn check_usage(answer: &Answer, (name, shape, prompt, completion, seconds): &Recorded) {
    let usage = answer.metered(&SPENT).usage;
    if !shape.computes() {
        assert_eq!(usage, Usage::default(), "{name}");
        return;
    }
    assert_eq!(usage.prompt_tokens, prompt.unwrap_or(PROMPT_ESTIMATE), "{name}");
    // The one recording with text and no count: seven pieces, 31 bytes.
    let uncounted = if *name == "ollama-v1-chat-stream" { 8 } else { 0 };
    assert_eq!(usage.completion_tokens, completion.unwrap_or(uncounted), "{name}");
    let seconds_off = usage.gpu_seconds - seconds.unwrap_or(SPENT.gpu_seconds());
    assert!(seconds_off.abs() < 1e-9, "{name}: {usage:?}");
    let reported = prompt.is_some() && seconds.is_some();
    let reported = reported && (completion.is_some() || !shape.generates());
    assert_eq!(usage.estimated, !reported, "{name}");
}

#[test]
fn recordings_without_hidden_usage_are_as_if_it_had_not_been_asked_for() {
    let Some(folder) = recordings() else { return };
    for name in [
        "openai-chat-stream-usage",
        "openai-chat-tools-stream",
        "openai-completions-stream",
        "ollama-v1-chat-stream-usage",
        "ollama-v1-chat-tools-stream",
        "ollama-v1-completions-stream",
    ] {
        let exchange = Exchange::read(&folder, name);
        let shape =
            if name.contains("chat") { Shape::OpenAiChat } else { Shape::OpenAiCompletions };
        let mut expect = Expect::new(shape);
        expect.strip_usage = true;
        let mut answer = Answer::new(expect, Framing::Sse);
        let sent = String::from_utf8(replay(&mut answer, &exchange.chunks())).unwrap();
        let seen = String::from_utf8(exchange.body()).unwrap();
        assert!(seen.contains("\"usage\"") && !sent.contains("\"usage\""), "{name}");
        assert!(!sent.contains("\"choices\":[]") && sent.ends_with("data: [DONE]\n\n"), "{name}");
        assert!(answer.metered(&SPENT).usage.prompt_tokens < PROMPT_ESTIMATE, "{name}");
        let texts = |stream: &str| stream.matches("\"delta\":{").count();
        assert_eq!(texts(&sent), texts(&seen), "{name}");
    }
}

#[test]
fn recorded_lists_are_filtered() {
    let Some(folder) = recordings() else { return };
    for (name, shape) in [
        ("ollama-tags", Shape::OllamaTags),
        ("ollama-ps", Shape::OllamaPs),
        ("openai-models", Shape::OpenAiModels),
        ("ollama-v1-models", Shape::OpenAiModels),
    ] {
        let exchange = Exchange::read(&folder, name);
        let original: Value = serde_json::from_slice(&exchange.body()).unwrap();
        for allowed in ["smollm2:135m", "other"] {
            let mut expect = Expect::new(shape);
            expect.allow_model = Some(Arc::new(move |model| model == allowed));
            let mut answer = Answer::new(expect, Framing::Json);
            let sent = replay(&mut answer, &exchange.chunks());
            let sent: Value = serde_json::from_slice(&sent).unwrap();
            assert_eq!(sent == original, allowed == "smollm2:135m", "{name} {allowed}");
            assert_eq!(sent.to_string().contains("smollm2"), sent == original, "{name} {allowed}");
        }
    }
}

fn replay(answer: &mut Answer, chunks: &[Bytes]) -> Vec<u8> {
    let mut sent = Vec::new();
    for chunk in chunks {
        sent.extend_from_slice(&answer.push(chunk, false).unwrap());
    }
    sent.extend_from_slice(&answer.push(&Bytes::new(), true).unwrap());
    sent
}

fn split(body: &[u8], size: usize) -> Vec<Bytes> {
    body.chunks(size).map(Bytes::copy_from_slice).collect()
}

#[expect(clippy::print_stderr, reason = "a test that could not run has to say so")]
fn recordings() -> Option<PathBuf> {
    let shared = std::env::var_os("PORTCULLIS_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let folder = shared.join("upstreams/traces");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: no recorded exchanges in {}; set PORTCULLIS_SHARED", folder.display());
    None
}

/// One recorded response: every byte as it came, and how the reads divided them.
struct Exchange {
    bytes: Vec<u8>,
    /// Where the body lies, chunk framing left out.
    body: Vec<Range<usize>>,
    reads: Vec<Range<usize>>,
    media_type: String,
}

impl Exchange {
    fn read(folder: &Path, name: &str) -> Self {
        let bytes = std::fs::read(folder.join(format!("{name}.response.bin"))).unwrap();
        let record = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        let reads = record["events"].as_array().unwrap().iter().filter(|event| event["dir"] == "<");
        let number = |event: &Value, key: &str| event[key].as_u64().unwrap() as usize;
        let reads = reads.map(|event| {
            let start = number(event, "off");
            start..start + number(event, "len")
        });
        let start = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(bytes[..start].to_vec()).unwrap();
        let header = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let chunked = header("transfer-encoding:").is_some();
        let body = if chunked {
            chunks(&bytes, start)
        } else {
            std::iter::once(start..bytes.len()).collect()
        };
        let media_type = header("content-type:").unwrap();
        Self { body, reads: reads.collect(), media_type, bytes }
    }

    fn framing(&self, shape: Shape) -> Framing {
        Framing::of(shape, true, Some(&self.media_type), None).unwrap()
    }

    fn body(&self) -> Vec<u8> {
        self.body.iter().flat_map(|range| &self.bytes[range.clone()]).copied().collect()
    }

    /// The body as the reads divided it.
    fn chunks(&self) -> Vec<Bytes> {
        let part = |read: &Range<usize>| {
            let ranges = self.body.iter();
            let ranges = ranges.map(|body| body.start.max(read.start)..body.end.min(read.end));
            let ranges = ranges.filter(|range| !range.is_empty());
            ranges.flat_map(|range| self.bytes[range].to_vec()).collect()
        };
        self.reads.iter().map(part).collect()
    }
}

/// Where the data of a chunked body lies (RFC 9112, section 7.1).
fn chunks(bytes: &[u8], mut at: usize) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    loop {
        let line = bytes[at..].windows(2).position(|two| two == b"\r\n").unwrap();
        let size = std::str::from_utf8(&bytes[at..at + line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return found;
        }
        let start = at + line + 2;
        found.push(start..start + size);
        at = start + size + 2;
    }
}
