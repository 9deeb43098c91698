//! The registry against the parser: every text place is found, every bound is kept.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::surface::{Listener, Target, operations, recognise};

fn caps() -> Caps {
    Caps {
        max_tokens: 128,
        choices: 1,
        num_ctx: 8192,
        keep_alive: Duration::from_secs(1800),
        top_logprobs: 20,
        inputs: 4,
        messages: 8,
        token_context: false,
        extra_params: vec!["min_p".to_owned()],
    }
}

fn operation(path: &str) -> &'static Operation {
    recognise(Listener::Public, "POST", path).unwrap().0
}

fn parse(path: &str, body: &Value) -> Result<Prompt, Denial> {
    Prompt::parse(operation(path), body.to_string().as_bytes(), &caps())
}

/// The body as the upstream gets it, with a cap of 64 tokens.
fn sent(path: &str, body: &Value) -> Value {
    let mut prompt = parse(path, body).unwrap();
    prompt.bound(64, "max_tokens", &caps());
    serde_json::from_slice(&prompt.into_bytes().unwrap()).unwrap()
}

/// A good value for each kind of parameter, with a canary in every place that holds a text.
fn sample(kind: Kind) -> Option<Value> {
    let tool = json!([{"type": "function", "function": {
        "name": "CANARY", "description": "CANARY",
        "parameters": {"type": "object", "properties": {"CANARY": {"enum": ["CANARY"]}}},
    }}]);
    Some(match kind {
        Kind::Model => json!("phi"),
        Kind::Stream | Kind::Echo | Kind::Bool => json!(true),
        Kind::StreamOptions => json!({"include_usage": true}),
        Kind::MaxTokens | Kind::Choices | Kind::TopLogprobs => json!(1),
        Kind::Number => json!(0.5),
        Kind::Word | Kind::Text(_) => json!("CANARY"),
        Kind::Texts(_) | Kind::Stop => json!(["CANARY", "CANARY"]),
        Kind::ChatMessages | Kind::OllamaMessages => json!([
            {"role": "system", "content": "CANARY"},
            {"role": "user", "name": "CANARY", "content": [
                {"type": "text", "text": "CANARY"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ]},
            {"role": "assistant", "content": null, "refusal": "CANARY", "reasoning_content": "CANARY",
             "thinking": "CANARY", "tool_calls": [{"id": "CANARY", "type": "function",
                "function": {"name": "CANARY", "arguments": "CANARY"}}]},
            {"role": "assistant", "tool_calls": [{"function": {"name": "CANARY",
                "arguments": {"CANARY": ["CANARY"]}}}]},
            {"role": "tool", "tool_call_id": "CANARY", "tool_name": "CANARY", "content": "CANARY"},
        ]),
        Kind::ResponsesInput => json!([
            {"role": "developer", "content": "CANARY"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "CANARY"}]},
            {"type": "function_call", "call_id": "CANARY", "name": "CANARY", "arguments": "CANARY"},
            {"type": "function_call_output", "call_id": "CANARY", "output": "CANARY"},
            {"type": "reasoning", "id": "CANARY", "summary": [{"type": "summary_text", "text": "CANARY"}]},
        ]),
        Kind::Tools => tool,
        Kind::Free => json!({"CANARY": {"nested": ["CANARY"]}}),
        Kind::Options => json!({"stop": ["CANARY"], "temperature": 0}),
        Kind::KeepAlive => json!("5m"),
        Kind::Images => json!(["AAAA"]),
        Kind::Store => json!(false),
        Kind::Context | Kind::Refused(_) => return None,
    })
}

/// Numbers the canaries, so that each place has its own.
fn number(text: &str) -> (String, usize) {
    let mut parts = text.split("CANARY");
    let mut out = parts.next().unwrap().to_owned();
    let mut count = 0;
    for part in parts {
        out.push_str(&format!("canary{count:03}"));
        out.push_str(part);
        count += 1;
    }
    (out, count)
}

#[test]
fn every_text_of_every_operation_is_seen_and_put_back() {
    let served = operations().filter(|o| o.takes_body() && matches!(o.target, Target::Upstream(_)));
    for operation in served {
        let params = operation.params.iter();
        let body: serde_json::Map<String, Value> =
            params.filter_map(|param| Some((param.name.to_owned(), sample(param.kind)?))).collect();
        let (text, canaries) = number(&Value::Object(body).to_string());
        assert!(canaries > 0 || operation.id == "ollama.show", "{}", operation.id);
        let prompt = Prompt::parse(operation, text.as_bytes(), &caps())
            .unwrap_or_else(|denial| panic!("{}: {denial:?}", operation.id));
        for n in 0..canaries {
            let canary = format!("canary{n:03}");
            let seen = prompt.pieces().iter().any(|piece| piece.text == canary);
            assert!(seen, "{}: {canary} of {text}", operation.id);
        }
        let back: Value = serde_json::from_slice(&prompt.into_bytes().unwrap()).unwrap();
        assert_eq!(back, serde_json::from_str::<Value>(&text).unwrap(), "{}", operation.id);
    }
}

#[test]
fn texts_have_the_role_of_their_author() {
    let prompt = parse(
        "/v1/chat/completions",
        &json!({"model": "phi", "messages": [
        {"role": "system", "content": "s"}, {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"}, {"role": "tool", "content": "t"},
    ], "tools": [{"type": "function", "function": {"name": "d"}}]}),
    )
    .unwrap();
    for (text, role) in [
        ("s", Role::System),
        ("u", Role::User),
        ("a", Role::Assistant),
        ("t", Role::Tool),
        ("d", Role::Definition),
    ] {
        let piece = prompt.pieces().iter().find(|piece| piece.text == text).unwrap();
        assert_eq!(piece.role, role, "{text}");
    }
}

#[test]
fn the_cap_on_tokens_is_always_there_under_one_name() {
    let messages = json!([{"role": "user", "content": "x"}]);
    for (path, body, place) in [
        ("/v1/chat/completions", json!({"model": "m", "messages": messages}), "/max_tokens"),
        (
            "/v1/chat/completions",
            json!({"model": "m", "messages": messages, "max_completion_tokens": 9999, "max_tokens": 8}),
            "/max_tokens",
        ),
        ("/v1/completions", json!({"model": "m", "prompt": "x"}), "/max_tokens"),
        ("/v1/responses", json!({"model": "m", "input": "x"}), "/max_output_tokens"),
        ("/api/chat", json!({"model": "m", "messages": messages}), "/options/num_predict"),
        (
            "/api/generate",
            json!({"model": "m", "prompt": "x", "options": {"num_predict": -1}}),
            "/options/num_predict",
        ),
    ] {
        let sent = sent(path, &body);
        assert_eq!(sent.pointer(place), Some(&json!(64)), "{path} {sent}");
        let caps = sent.to_string().matches("_tokens\"").count()
            + sent.to_string().matches("num_predict\"").count();
        assert_eq!(caps, 1, "{sent}");
    }
}

#[test]
fn the_smallest_cap_of_the_client_counts() {
    let prompt = parse(
        "/v1/chat/completions",
        &json!({"model": "m", "max_tokens": 8,
        "max_completion_tokens": 99, "messages": [{"role": "user", "content": "x"}]}),
    );
    assert_eq!(prompt.unwrap().max_tokens(), Some(8));
}

#[test]
fn what_multiplies_cost_is_clamped() {
    let sent = sent(
        "/api/generate",
        &json!({"model": "m", "prompt": "x", "keep_alive": -1,
        "options": {"num_ctx": 10_000_000, "num_batch": 999_999}}),
    );
    assert_eq!(sent.pointer("/keep_alive"), Some(&json!(1800)));
    assert_eq!(sent.pointer("/options/num_ctx"), Some(&json!(8192)));
    assert_eq!(sent.pointer("/options/num_batch"), Some(&json!(2048)));
    for (given, expected) in [("876000h", 1800), ("5m", 300), ("-1m", 1800), ("90", 90)] {
        let body = json!({"model": "m", "prompt": "x", "keep_alive": given});
        assert_eq!(self::sent("/api/generate", &body)["keep_alive"], expected, "{given}");
    }
}

#[test]
fn what_is_unknown_wrong_or_unreadable_is_refused() {
    let chat = |extra: Value| {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let message = |message: Value| chat(json!({"messages": [message]}));
    let cases = [
        ("/v1/chat/completions", chat(json!({"n_predict": 1}))),
        ("/v1/chat/completions", chat(json!({"Model": "other"}))),
        ("/v1/chat/completions", chat(json!({"max_tokens": -1}))),
        ("/v1/chat/completions", chat(json!({"max_tokens": "64"}))),
        ("/v1/chat/completions", chat(json!({"max_tokens": 1.5}))),
        ("/v1/chat/completions", chat(json!({"n": 2}))),
        ("/v1/chat/completions", chat(json!({"top_logprobs": 21}))),
        ("/v1/chat/completions", chat(json!({"store": true}))),
        ("/v1/chat/completions", chat(json!({"stream": "yes"}))),
        ("/v1/chat/completions", chat(json!({"tools": [{"type": "web_search"}]}))),
        ("/v1/chat/completions", chat(json!({"web_search_options": {}}))),
        ("/v1/chat/completions", chat(json!({"messages": []}))),
        ("/v1/chat/completions", chat(json!({"messages": "x"}))),
        ("/v1/chat/completions", json!({"model": "m"})),
        ("/v1/chat/completions", chat(json!({"model": ["m"]}))),
        ("/v1/chat/completions", message(json!({"role": "root", "content": "x"}))),
        ("/v1/chat/completions", message(json!({"content": "x"}))),
        ("/v1/chat/completions", message(json!({"role": "user", "content": 5}))),
        ("/v1/chat/completions", message(json!({"role": "user", "CONTENT": "x"}))),
        (
            "/v1/chat/completions",
            message(json!({"role": "user", "content": [{"type": "image_url",
            "image_url": {"url": "http://127.0.0.1/x"}}]})),
        ),
        ("/v1/chat/completions", message(json!({"role": "user", "content": [{"type": "file"}]}))),
        ("/v1/responses", json!({"model": "m", "input": "x", "previous_response_id": "r"})),
        ("/v1/responses", json!({"model": "m", "input": [{"type": "web_search_call"}]})),
        ("/v1/embeddings", json!({"model": "m", "input": [1, 2, 3]})),
        ("/v1/embeddings", json!({"model": "m", "input": ["1", "2", "3", "4", "5"]})),
        ("/api/generate", json!({"model": "m", "prompt": "x", "context": [1]})),
        ("/api/generate", json!({"model": "m", "prompt": "x", "options": {"num_gpu": 1}})),
        ("/api/generate", json!({"model": "m", "prompt": "x", "images": ["http://x/"]})),
        ("/api/generate", json!({"model": "m", "prompt": "x", "keep_alive": "1y"})),
        ("/api/generate", json!({"model": "m"})),
    ];
    for (path, body) in cases {
        let denial = parse(path, &body).err().unwrap_or_else(|| panic!("accepted {body}"));
        assert_eq!(denial.reason(), Reason::InvalidRequest, "{body}");
    }
}

#[test]
fn a_parameter_that_the_operator_allowed_passes_and_its_texts_are_seen() {
    let body =
        json!({"model": "m", "min_p": "text", "messages": [{"role": "user", "content": "x"}]});
    let prompt = parse("/v1/chat/completions", &body).unwrap();
    assert!(prompt.pieces().iter().any(|piece| piece.text == "text"));
}

#[test]
fn null_stands_for_what_is_not_set() {
    let body = json!({"model": "m", "prompt": "x", "suffix": null,
        "options": {"num_gpu": null, "num_ctx": null, "stop": null}});
    assert!(parse("/api/generate", &body).is_ok());
}

#[test]
fn images_count_as_not_scanned() {
    let body = json!({"model": "m", "prompt": "x", "images": ["AAAA"]});
    assert!(parse("/api/generate", &body).unwrap().has_opaque_content());
    assert!(
        !parse("/api/generate", &json!({"model": "m", "prompt": "x"}))
            .unwrap()
            .has_opaque_content()
    );
}

#[test]
fn a_name_is_not_redacted_but_refused() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}],
        "metadata": {"a key": 1}});
    let mut prompt = parse("/v1/chat/completions", &body).unwrap();
    let key = prompt.pieces_mut().iter_mut().find(|piece| piece.text == "a key").unwrap();
    key.text = "[REDACTED]".to_owned();
    assert_eq!(prompt.into_bytes().unwrap_err().reason(), Reason::ContentFilter);
}
