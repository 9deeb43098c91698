//! Development mode asks for no credential, on the developer's own machine only, and says so.

use serde_json::{Value, json};

use crate::support::client::{Answer, Connection, Head};
use crate::support::gateway::{Gateway, Plan};
use crate::support::upstream::Upstream;
use crate::support::{chat, chat_answer};

async fn gateway(upstream: &Upstream, blocks: &str) -> Gateway {
    Plan::to(upstream).with(blocks).auth("mode: development").start().await
}

async fn ask(gateway: &Gateway, host: &str, fields: &[(&str, &str)]) -> Answer {
    let head = Head::to(host, "POST", "/v1/chat/completions");
    let head = head.field("Content-Type", "application/json");
    let head = fields.iter().fold(head, |head, (name, value)| head.field(name, value));
    let body = chat("phi", "Hello").to_string();
    Connection::open(gateway).await.ask(&head.with(body.as_bytes())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_is_on_this_machine_needs_no_credential() {
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    let gateway = gateway(&upstream, "").await;
    let port = gateway.address.port();
    for (host, status) in [
        ("localhost".to_owned(), 200),
        (format!("localhost:{port}"), 200),
        (format!("127.0.0.1:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        ("gateway.test".to_owned(), 401),
        (format!("evil.example:{port}"), 401),
        ("localhost.evil.example".to_owned(), 401),
        ("127.0.0.1.evil.example".to_owned(), 401),
        ("192.0.2.1".to_owned(), 401),
    ] {
        let answer = ask(&gateway, &host, &[]).await;
        assert_eq!(answer.status, status, "{host}: {answer:?}");
        answer.is(status, if status == 401 { "invalid_credentials" } else { "" });
    }
    assert_eq!(upstream.seen().len(), 4);
    let records = gateway.settled(9).await;
    let served = records.iter().filter(|record| record["status"] == "success");
    let users: Vec<&Value> = served.map(|record| &record["user_id"]).collect();
    assert_eq!(users, [":developer"; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_comes_from_elsewhere_does() {
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    let gateway = gateway(&upstream, "server: {trusted_proxies: [127.0.0.0/8]}").await;
    for (fields, status) in [
        ([("X-Forwarded-For", "203.0.113.9")], 401),
        ([("X-Forwarded-For", "127.0.0.1, 203.0.113.9")], 401),
        ([("X-Forwarded-For", "127.0.0.1")], 200),
    ] {
        let answer = ask(&gateway, "localhost", &fields).await;
        assert_eq!(answer.status, status, "{fields:?}: {answer:?}");
        answer.is(status, if status == 401 { "invalid_credentials" } else { "" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_credential_that_is_shown_must_be_right() {
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    let gateway = gateway(&upstream, "").await;
    let right = format!("Bearer {}", gateway.key);
    for (field, status, code) in [
        (("Authorization", right.as_str()), 200, ""),
        (("Authorization", "Bearer sk_nonsense"), 401, "invalid_credentials"),
        (("Authorization", "Basic YWxpY2U6eA=="), 401, "invalid_credentials"),
        (("X-API-Key", "of-another-system"), 401, "invalid_credentials"),
        (("X-LLM-Token", "a.b.c"), 401, "invalid_credentials"),
        (("X-Portcullis-Service", "chat"), 400, "invalid_request"),
    ] {
        ask(&gateway, "localhost", &[field]).await.is(status, code);
    }
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_developer_is_a_user_and_manages_nothing() {
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    let gateway = gateway(&upstream, "").await;
    let scoped = json!({ "model": "phi", "max_tokens": 9, "scopes": ["llm:generate"] });
    for (method, path, body, status) in [
        ("GET", "/auth/me", Value::Null, 200),
        ("GET", "/auth/users", Value::Null, 403),
        ("GET", "/auth/sessions", Value::Null, 403),
        ("POST", "/auth/api-keys", json!({ "permissions": ["llm:generate"] }), 403),
        ("POST", "/auth/scoped-token", scoped, 403),
        ("POST", "/api/v1/scan", json!({ "text": "Hello" }), 403),
    ] {
        let head = Head::to("localhost", method, path);
        let bytes = if body.is_null() {
            head.bytes()
        } else {
            head.field("Content-Type", "application/json").with(body.to_string().as_bytes())
        };
        let answer = Connection::open(&gateway).await.ask(&bytes).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        answer.is(status, if status == 403 { "insufficient_scope" } else { "" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn health_tells_the_mode() {
    let upstream = Upstream::json(chat_answer(1, 1)).await;
    for (gateway, mode) in [
        (gateway(&upstream, "").await, "development"),
        (Plan::to(&upstream).start().await, "required"),
    ] {
        let health = gateway.anonymous().get("/system/health").await.json();
        assert_eq!(health["mode"], mode, "{health}");
        let nobody = ask(&gateway, "localhost", &[]).await;
        assert_eq!(nobody.status == 200, mode == "development", "{nobody:?}");
    }
}
