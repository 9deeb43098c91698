//! Who may use which model, for how much, and what the upstream sees of it.

use serde_json::{Value, json};

use crate::support::client::{Answer, Connection, Head, get, post};
use crate::support::gateway::{Gateway, PASSWORD, Plan, USER};
use crate::support::upstream::Upstream;
use crate::support::{chat, chat_answer, ollama_answer, ollama_chat};

const CHAT: &str = "/v1/chat/completions";

/// An upstream that answers chats in the dialect of the path.
async fn model() -> Upstream {
    Upstream::start(|talk| async move {
        let ollama = talk.seen.line.contains("/api/");
        let answer = if ollama { ollama_answer(3, 2) } else { chat_answer(3, 2) };
        talk.json(200, &answer).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_spelling_of_a_model_is_one_model() {
    let upstream = model().await;
    let gateway =
        Plan::to(&upstream).rights("scopes: ['*'], models: [phi, 'llama*']").start().await;
    for (spelling, expected) in [
        ("phi", Ok("phi")),
        ("phi:latest", Ok("phi")),
        ("PHI", Ok("phi")),
        ("registry.ollama.ai/library/phi:latest", Ok("phi")),
        ("llama3.2:1b", Ok("llama3.2:1b")),
        ("phi3", Err(403)),
        ("x/phi", Err(403)),
        ("phi:other", Err(403)),
        ("phi@sha256:0000", Err(400)),
        ("http://127.0.0.1/phi", Err(400)),
        ("../phi", Err(400)),
        ("p\u{200b}hi", Err(400)),
        (" phi", Err(400)),
        ("", Err(400)),
    ] {
        let before = upstream.seen().len();
        for (path, body) in
            [(CHAT, chat(spelling, "hello")), ("/api/chat", ollama_chat(spelling, "hello"))]
        {
            let answer = post(&gateway, path, &body).await;
            assert_eq!(answer.status, expected.err().unwrap_or(200), "{spelling}: {answer:?}");
        }
        let sent = upstream.seen().split_off(before);
        let models: Vec<Value> = sent.iter().map(|seen| seen.json()["model"].clone()).collect();
        assert!(models.iter().all(|model| Ok(model.as_str().unwrap()) == expected), "{models:?}");
        assert_eq!(models.len(), if expected.is_ok() { 2 } else { 0 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_declared_spelling_reaches_the_upstream() {
    let upstream = model().await;
    let blocks =
        format!("upstreams: {{a: {{url: '{}', models: ['Qwen/Qwen2.5-7B']}}}}", upstream.url());
    let gateway = Plan::new(blocks).start().await;
    assert_eq!(post(&gateway, CHAT, &chat("qwen/qwen2.5-7b", "hello")).await.status, 200);
    assert_eq!(upstream.only().json()["model"], "Qwen/Qwen2.5-7B");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn lists_show_what_the_caller_may_use() {
    let upstream = Upstream::start(|talk| async move {
        let entries = |name: &str| {
            json!([{ name: "phi" }, { name: "phi:latest" }, { name: "llama3.2:1b" }, { name: "gpt-5" }])
        };
        let list = if talk.seen.line.starts_with("GET /v1/models ") {
            json!({ "object": "list", "data": entries("id") })
        } else {
            json!({ "models": entries("name") })
        };
        talk.json(200, &list).await
    })
    .await;
    let gateway =
        Plan::to(&upstream).rights("scopes: ['*'], models: [phi, 'LLAMA*']").start().await;
    for (path, list, name) in [
        ("/v1/models", "data", "id"),
        ("/api/tags", "models", "name"),
        ("/api/ps", "models", "name"),
    ] {
        let answer = get(&gateway, path).await;
        assert_eq!((answer.status, answer.whole), (200, true), "{answer:?}");
        let body = answer.json();
        let names: Vec<&str> =
            body[list].as_array().unwrap().iter().map(|m| m[name].as_str().unwrap()).collect();
        assert_eq!(names, ["phi", "phi:latest", "llama3.2:1b"], "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_model_is_shown_if_it_may_be_used() {
    let upstream = Upstream::json(json!({ "id": "phi", "object": "model" })).await;
    let gateway = Plan::to(&upstream).rights("scopes: ['*'], models: [phi]").start().await;
    assert_eq!(get(&gateway, "/v1/models/phi").await.status, 200);
    assert_eq!(upstream.only().line, "GET /v1/models/phi HTTP/1.1");
    get(&gateway, "/v1/models/gpt-5").await.refused(403, "model_not_allowed");
    assert_eq!(get(&gateway, "/v1/models/..%2fx").await.status, 400);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn generated_tokens_are_always_capped() {
    let upstream = model().await;
    let gateway = Plan::to(&upstream).with("caps: {max_tokens: 100}").start().await;
    let openai = |extra: Value| merged(chat("phi", "hello"), extra);
    let ollama = |extra: Value| merged(ollama_chat("phi", "hello"), extra);
    for (path, body, place, expected) in [
        (CHAT, openai(json!({})), "/max_tokens", 100),
        (CHAT, openai(json!({ "max_tokens": 7 })), "/max_tokens", 7),
        (CHAT, openai(json!({ "max_tokens": 5000 })), "/max_tokens", 100),
        (CHAT, openai(json!({ "max_tokens": null })), "/max_tokens", 100),
        (CHAT, openai(json!({ "max_completion_tokens": 9 })), "/max_tokens", 9),
        (CHAT, openai(json!({ "max_tokens": 50, "max_completion_tokens": 9 })), "/max_tokens", 9),
        ("/api/chat", ollama(json!({})), "/options/num_predict", 100),
        (
            "/api/chat",
            ollama(json!({ "options": { "num_predict": -1 } })),
            "/options/num_predict",
            100,
        ),
        (
            "/api/chat",
            ollama(json!({ "options": { "num_predict": 8 } })),
            "/options/num_predict",
            8,
        ),
        (
            "/api/chat",
            ollama(json!({ "options": { "num_ctx": 1 << 30 } })),
            "/options/num_ctx",
            131_072,
        ),
        ("/api/chat", ollama(json!({ "keep_alive": -1 })), "/keep_alive", 1800),
    ] {
        let answer = post(&gateway, path, &body).await;
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        let sent = upstream.seen().pop().unwrap().json();
        assert_eq!(sent.pointer(place), Some(&json!(expected)), "{body}: {sent}");
        assert_eq!(sent.get("max_completion_tokens"), None, "{sent}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_multiplies_cost_is_bounded() {
    let upstream = model().await;
    let gateway = Plan::to(&upstream).start().await;
    for extra in [
        json!({ "n": 2 }),
        json!({ "best_of": 9 }),
        json!({ "top_logprobs": 21 }),
        json!({ "max_tokens": 0 }),
        json!({ "max_tokens": -1 }),
        json!({ "max_tokens": 1e30 }),
        json!({ "Max_Tokens": 5 }),
        json!({ "unheard_of": 5 }),
    ] {
        let body = merged(chat("phi", "hello"), extra);
        let answer = post(&gateway, CHAT, &body).await;
        answer.refused(400, "invalid_request");
    }
    assert_eq!(upstream.connections(), 0);
}

fn merged(mut body: Value, extra: Value) -> Value {
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_of_the_clients_head_reaches_the_upstream() {
    let upstream = model().await;
    let blocks = format!(
        "upstreams: {{up: {{kind: openai, url: '{}', api_key: {{file: up.key}}}}}}",
        upstream.url()
    );
    let gateway = Plan::new(blocks).file("up.key", "provider-secret-1234567890").start().await;
    let strange = [
        ("Cookie", "session=CANARY"),
        ("Proxy-Authorization", "Basic CANARY"),
        ("X-Api-Key", "foreign-CANARY"),
        ("Api-Key", "CANARY"),
        ("X-Forwarded-For", "203.0.113.77"),
        ("X-Forwarded-Host", "CANARY"),
        ("X-Forwarded-Proto", "CANARY"),
        ("X-Real-IP", "203.0.113.77"),
        ("Forwarded", "for=203.0.113.77"),
        ("Via", "1.1 CANARY"),
        ("Referer", "https://CANARY.test/"),
        ("Origin", "https://CANARY.test"),
        ("User-Agent", "CANARY/1"),
        ("Accept", "text/CANARY"),
        ("Accept-Encoding", "gzip, br"),
        ("Accept-Language", "CANARY"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-Original-URL", "/api/CANARY"),
        ("X-Request-Id", "CANARY"),
        ("Traceparent", "00-CANARY"),
        ("OpenAI-Organization", "CANARY"),
        ("TE", "trailers"),
        ("Keep-Alive", "timeout=CANARY"),
        ("Connection", "keep-alive, Authorization"),
        ("Range", "bytes=0-1"),
        ("If-None-Match", "CANARY"),
        ("Cache-Control", "max-age=CANARY"),
    ];
    let head = strange
        .iter()
        .fold(Head::post(&gateway, CHAT), |head, (name, value)| head.field(name, value));
    let request = head.with(chat("phi", "hello").to_string().as_bytes());
    let answer = Connection::open(&gateway).await.ask(&request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = upstream.only();
    assert_eq!(seen.line, "POST /v1/chat/completions HTTP/1.1");
    let mut names: Vec<&str> = seen.fields.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "accept-encoding",
            "authorization",
            "content-length",
            "content-type",
            "host",
            "user-agent",
            "x-request-id"
        ]
    );
    let all = format!("{seen:?}");
    for secret in ["CANARY", "203.0.113.77", gateway.key.as_str()] {
        assert!(!all.contains(secret), "{all}");
    }
    assert_eq!(seen.field("authorization"), Some("Bearer provider-secret-1234567890"));
    assert_eq!(seen.field("host"), Some(upstream.authority().as_str()));
    assert_eq!(seen.field("accept-encoding"), Some("identity"));
    assert_eq!(seen.field("x-request-id"), answer.field("x-request-id"));
    for private in ["server", "x-powered-by", "access-control-allow-origin", "via"] {
        assert_eq!(answer.field(private), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_upstream_sees_only_what_was_serialised_again() {
    let upstream = model().await;
    let gateway = Plan::to(&upstream).start().await;
    let spaced = "{ \"messages\" : [ {\"role\":\"user\",\n\t\"content\":\"h\\u0065llo \\/ \\ud83d\\ude00\"} ],\
                  \r\n \"model\" : \"phi\" , \"temperature\":0.70, \"max_tokens\": 5 }   ";
    let request = Head::post(&gateway, CHAT).with(spaced.as_bytes());
    assert_eq!(Connection::open(&gateway).await.ask(&request).await.status, 200);
    let body = String::from_utf8(upstream.only().body).unwrap();
    assert_eq!(
        body,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hello / 😀\"}],\"model\":\"phi\",\
         \"temperature\":0.7,\"max_tokens\":5}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn personal_data_is_redacted_on_its_way() {
    let upstream = model().await;
    let gateway = Plan::to(&upstream).start().await;
    let body = chat("phi", "Write to jane.roe@example.org about the party.");
    assert_eq!(post(&gateway, CHAT, &body).await.status, 200);
    let sent = upstream.only().json().to_string();
    assert!(!sent.contains("jane.roe") && sent.contains("about the party"), "{sent}");
    assert_eq!(gateway.record().await["findings"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_answers_head_is_the_gateways() {
    let upstream = Upstream::raw(
        "HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nX-Powered-By: CANARY\r\nVia: CANARY\r\n\
         Set-Cookie: CANARY=1\r\nAccess-Control-Allow-Origin: *\r\nX-Request-Id: CANARY\r\n\
         Content-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"object\":1}"
            .replace("11", "12"),
    )
    .await;
    let gateway = Plan::to(&upstream).start().await;
    let answer = post(&gateway, CHAT, &chat("phi", "hello")).await;
    assert_eq!((answer.status, answer.text()), (200, "{\"object\":1}"), "{answer:?}");
    assert!(!format!("{:?}", answer.fields).contains("CANARY"), "{answer:?}");
    assert_eq!(answer.field("server"), None);
    assert_eq!(answer.field("access-control-allow-origin"), None);
    assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.field("x-portcullis-scanned"), Some("input=full; output=none"));
    let record = gateway.record().await;
    assert_eq!(record["request_id"].as_str(), answer.field("x-request-id"));
}

/// Ollama for `phi*`, OpenAI for `gpt-*`, nothing else.
async fn two_upstreams(ollama: &Upstream, openai: &Upstream) -> Gateway {
    Plan::new(format!(
        "\
upstreams:
  ollama: {{kind: ollama, url: '{}'}}
  openai: {{kind: openai, url: '{}/base', api_key: {{file: up.key}}, max_tokens_param: max_completion_tokens}}
routes:
  - {{match: {{path: /v1/, model: 'gpt-*'}}, upstream: openai}}
  - {{match: {{path: /v1/, model: 'phi*'}}, upstream: ollama}}
  - {{match: {{path: /api/, model: 'phi*'}}, upstream: ollama}}
",
        ollama.url(),
        openai.url()
    ))
    .file("up.key", "provider-secret-1234567890")
    .start()
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_model_chooses_the_upstream() {
    let (ollama, openai) = (model().await, model().await);
    let gateway = two_upstreams(&ollama, &openai).await;
    assert_eq!(post(&gateway, CHAT, &chat("gpt-5", "hello")).await.status, 200);
    assert_eq!(post(&gateway, CHAT, &chat("phi", "hello")).await.status, 200);
    post(&gateway, CHAT, &chat("other", "hello")).await.refused(404, "not_found");
    assert_eq!(post(&gateway, "/api/chat", &ollama_chat("gpt-5", "hello")).await.status, 404);

    let (local, hosted) = (ollama.only(), openai.only());
    assert_eq!(local.field("authorization"), None);
    assert_eq!(local.json()["max_tokens"], 4096);
    assert_eq!(hosted.line, "POST /base/v1/chat/completions HTTP/1.1");
    assert_eq!(hosted.field("authorization"), Some("Bearer provider-secret-1234567890"));
    assert_eq!(hosted.json()["max_completion_tokens"], 4096);
    let records = gateway.settled(4).await;
    let upstreams: Vec<&Value> = records.iter().map(|record| &record["upstream"]).collect();
    assert_eq!(upstreams, [&json!("openai"), &json!("ollama"), &Value::Null, &Value::Null]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn scopes_are_needed() {
    let upstream = model().await;
    let gateway = Plan::to(&upstream).rights("scopes: ['models:read']").start().await;
    let answer = post(&gateway, CHAT, &chat("phi", "hello")).await;
    answer.refused(403, "insufficient_scope");
    assert!(answer.text().contains("llm:generate"), "{answer:?}");
    assert_eq!(post(&gateway, "/api/v1/scan", &json!({ "text": "x" })).await.status, 403);
    assert_eq!(upstream.connections(), 0);
}

/// Asks with these header fields instead of the key.
async fn ask_with(gateway: &Gateway, path: &str, fields: &[(&str, &str)], body: &Value) -> Answer {
    let body = body.to_string();
    let fields: String = fields.iter().map(|(k, v)| format!("{k}: {v}\r\n")).collect();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{fields}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Connection::open(gateway).await.ask(request.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_login_leads_to_a_scoped_token_that_can_do_less() {
    let upstream = model().await;
    let gateway = Plan::to(&upstream).start().await;
    let form = json!({ "username": USER, "password": PASSWORD });
    let login = ask_with(&gateway, "/auth/login", &[], &form).await;
    assert_eq!(login.status, 200, "{login:?}");
    let user = format!("Bearer {}", login.json()["access_token"].as_str().unwrap());
    let wish = json!({ "model": "phi", "max_tokens": 10, "scopes": ["llm:generate"] });
    let minted = ask_with(&gateway, "/auth/scoped-token", &[("Authorization", &user)], &wish).await;
    assert_eq!(minted.status, 200, "{minted:?}");
    let token = minted.json()["token"].as_str().unwrap().to_owned();
    let scoped = [("X-LLM-Token", token.as_str())];
    let bearer = format!("Bearer {token}");
    let as_bearer = [("Authorization", bearer.as_str())];

    assert_eq!(ask_with(&gateway, CHAT, &scoped, &chat("phi:latest", "hello")).await.status, 200);
    assert_eq!(upstream.only().json()["max_tokens"], 10);
    assert_eq!(ask_with(&gateway, CHAT, &as_bearer, &chat("phi", "hello")).await.status, 200);
    ask_with(&gateway, CHAT, &scoped, &chat("gpt-5", "hello"))
        .await
        .refused(403, "model_not_allowed");
    assert_eq!(ask_with(&gateway, "/auth/scoped-token", &scoped, &wish).await.status, 403);
    let embed = json!({ "model": "phi", "input": "hello" });
    assert_eq!(ask_with(&gateway, "/v1/embeddings", &scoped, &embed).await.status, 403);

    gateway.pass(std::time::Duration::from_secs(61)).await;
    let late = ask_with(&gateway, CHAT, &scoped, &chat("phi", "hello")).await;
    late.refused(401, "invalid_credentials");
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn exactly_one_credential_counts() {
    let upstream = model().await;
    let gateway = Plan::to(&upstream).start().await;
    let key = gateway.key.as_str();
    let bearer = format!("Bearer {key}");
    let body = chat("phi", "hello");
    for (fields, expected) in [
        (vec![("Authorization", bearer.as_str())], 200),
        (vec![("authorization", &bearer.replacen("Bearer", "bEARER", 1))], 200),
        (vec![("X-API-Key", key)], 200),
        (vec![], 401),
        (
            vec![("Authorization", "Bearer sk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")],
            401,
        ),
        (vec![("Authorization", "Basic YTpi")], 401),
        (vec![("Authorization", &bearer), ("X-API-Key", key)], 400),
        (vec![("Authorization", &bearer), ("Authorization", &bearer)], 400),
    ] {
        let answer = ask_with(&gateway, CHAT, &fields, &body).await;
        assert_eq!(answer.status, expected, "{fields:?}: {answer:?}");
        assert_eq!(answer.field("www-authenticate").is_some(), expected == 401);
    }
    assert_eq!(upstream.seen().len(), 3);
}
