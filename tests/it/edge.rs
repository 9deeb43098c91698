//! What a connection and a head must look like before anything else is looked at.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Connection, Head, get};
use crate::support::gateway::{Gateway, Plan};
use crate::support::upstream::Upstream;
use crate::support::{chat, chat_answer, until, within};

const CHAT: &str = "/v1/chat/completions";

async fn model() -> Upstream {
    Upstream::json(chat_answer(3, 2)).await
}

/// A request with these lines in its head besides key and media type.
fn request(gateway: &Gateway, line: &str, fields: &[&str], body: &str) -> Vec<u8> {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!(
        "{line}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n{fields}\r\n{body}",
        gateway.key
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn framing_that_can_be_read_in_two_ways_is_refused() {
    let upstream = model().await;
    let limits = "header_timeout: 1s, body_timeout: 1s";
    let gateway = Plan::to(&upstream).limits(limits).start().await;
    let post = "POST /v1/chat/completions HTTP/1.1";
    let old = "POST /v1/chat/completions HTTP/1.0";
    let json = chat("phi", "hello").to_string();
    let length = format!("Content-Length: {}", json.len());
    let chunked = format!("{:x}\r\n{json}\r\n0\r\n\r\n", json.len());
    let (host, te) = ("Host: a", "Transfer-Encoding: chunked");
    let cases: &[(&str, &[&str], &str)] = &[
        (post, &[host, &length, te], &chunked),
        (post, &[host, te, &length], &chunked),
        (post, &[host, te, &length, "Connection: keep-alive"], &chunked),
        (post, &[host, "Transfer-Encoding: gzip, chunked"], &chunked),
        (post, &[host, "Transfer-Encoding: gzip"], &chunked),
        (post, &[host, "Transfer-Encoding: chunked, identity"], &chunked),
        (post, &[host, "Transfer-Encoding: xchunked"], &chunked),
        (post, &[host, "Transfer-Encoding: chunked,"], &chunked),
        (post, &[host, te, te], &chunked),
        (post, &[host, te, "Transfer-Encoding: identity"], &chunked),
        (post, &[host, "Transfer-Encoding : chunked"], &chunked),
        (post, &[host, "Transfer-Encoding:\u{b}chunked"], &chunked),
        (old, &[host, te], &chunked),
        (post, &[host, &length, "Content-Length: 1"], &json),
        (post, &[host, &length, "Content-Length: +1"], &json),
        (post, &[host, "Content-Length: +20"], &json),
        (post, &[host, "Content-Length: -1"], &json),
        (post, &[host, "Content-Length: 0x20"], &json),
        (post, &[host, "Content-Length: 1 2"], &json),
        (post, &[host, "Content-Length: 99999999999999999999999"], &json),
        (post, &[host, te], "zz\r\n{}\r\n0\r\n\r\n"),
        (post, &[host, te], "-1\r\n{}\r\n0\r\n\r\n"),
        (post, &[host, te], "fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
        (post, &[host, te], "2\r\n{}XX0\r\n\r\n"),
        (post, &[host, "Host: b", &length], &json),
        (post, &[&length], &json),
        (post, &[host, "X: a", " Host: b", &length], &json),
        (post, &[host, "X\0: a", &length], &json),
        ("POST http://b/v1/chat/completions HTTP/1.1", &[host, &length], &json),
        ("POST /v1/chat/completions HTTP/9.9", &[host, &length], &json),
        ("POST /v1/chat/completions", &[host, &length], &json),
        ("CONNECT 127.0.0.1:22 HTTP/1.1", &["Host: 127.0.0.1:22"], ""),
        (post, &[host, &length, "Upgrade: websocket", "Connection: Upgrade"], &json),
        ("GET /v1/models HTTP/1.1", &[host, "Upgrade: h2c", "Connection: Upgrade"], ""),
    ];
    for (line, fields, body) in cases {
        let mut connection = Connection::open(&gateway).await;
        connection.send(&request(&gateway, line, fields, body)).await;
        if let Some(answer) = connection.head().await {
            assert!((400..500).contains(&answer.status), "{line} {fields:?}: {answer:?}");
            while connection.part().await.is_some() {}
            let next = connection.head().await.map(|answer| answer.status);
            assert_eq!(next, None, "{line} {fields:?} {body:?}: more than one answer");
        }
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn equal_lengths_are_one_length() {
    let upstream = model().await;
    let gateway = Plan::to(&upstream).start().await;
    let json = chat("phi", "hello").to_string();
    let length = format!("Content-Length: {}", json.len());
    let line = "POST /v1/chat/completions HTTP/1.1";
    let bytes = request(&gateway, line, &["Host: a", &length, &length], &json);
    let answer = Connection::open(&gateway).await.ask(&bytes).await;
    // RFC 9112 section 6.3 leaves it open: one value, or a refusal.
    assert!(matches!(answer.status, 200 | 400), "{answer:?}");
    assert_eq!(upstream.seen().len(), usize::from(answer.status == 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn heads_that_name_more_than_a_path_are_refused() {
    let upstream = model().await;
    let gateway = Plan::to(&upstream).start().await;
    let body = chat("phi", "hello").to_string();
    for (path, field, expected, code) in [
        ("/v1/chat/completions?key=sk_x", ("X", "a"), 400, "invalid_request"),
        ("/v1/chat/completions?", ("X", "a"), 400, "invalid_request"),
        ("/v1/chat/completions", ("Upgrade", "websocket"), 400, "invalid_request"),
        ("/v1/chat/completions", ("Content-Encoding", "gzip"), 415, "unsupported_media_type"),
        ("/v1//chat/completions", ("X", "a"), 404, "not_found"),
        ("/v1/chat/../models", ("X", "a"), 404, "not_found"),
        ("/v1/files", ("X", "a"), 404, "not_found"),
        ("/v1/models", ("X", "a"), 405, "method_not_allowed"),
        ("/metrics", ("X", "a"), 404, "not_found"),
    ] {
        let request = Head::post(&gateway, path).field(field.0, field.1).with(body.as_bytes());
        let answer = Connection::open(&gateway).await.ask(&request).await;
        answer.refused(expected, code);
    }
    assert_eq!(upstream.connections(), 0);
    for record in gateway.settled(9).await {
        assert!(!record.to_string().contains("sk_x"), "{record}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_head_has_a_largest_size() {
    let upstream = model().await;
    let gateway = Plan::to(&upstream).limits("max_header_bytes: 1KiB").start().await;
    let body = chat("phi", "hello").to_string();
    for (size, expected) in [(500, 200), (1100, 400), (100_000, 400)] {
        let long = Head::post(&gateway, CHAT).field("X-Long", &"a".repeat(size));
        let answer = Connection::open(&gateway).await.ask(&long.with(body.as_bytes())).await;
        assert_eq!(answer.status, expected, "{size}: {answer:?}");
    }
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn connections_have_a_cap() {
    let upstream = Upstream::json(json!({ "object": "list", "data": [] })).await;
    let gateway = Plan::to(&upstream).limits("max_connections: 1").start().await;
    let mut one = Connection::open(&gateway).await;
    let mut other = Connection::open(&gateway).await;
    until("a refused connection", || gateway.metric("portcullis_connections_refused_total") == 1)
        .await;
    let request = Head::new(&gateway, "GET", "/v1/models").bytes();
    one.send(&request).await;
    other.send(&request).await;
    let (first, second) = tokio::join!(one.head(), other.head());
    assert!(first.is_some() != second.is_some(), "{first:?} {second:?}");
    assert_eq!(upstream.seen().len(), 1);

    drop((one, other));
    let again =
        async { while Connection::open(&gateway).await.try_ask(&request).await.is_none() {} };
    within("room for a connection", again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_head_has_a_deadline() {
    let upstream = model().await;
    let gateway = Plan::to(&upstream).limits("header_timeout: 1s").start().await;
    let begun = Instant::now();
    let silent = async {
        assert!(Connection::open(&gateway).await.is_closed().await);
        begun.elapsed()
    };
    let dripping = async {
        let mut connection = Connection::open(&gateway).await;
        connection.send(b"POST /v1/chat/completions HTTP/1.1\r\n").await;
        for _ in 0..8 {
            connection.send(b"X").await;
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        assert!(connection.is_closed().await);
        begun.elapsed()
    };
    let idle = async {
        let mut connection = Connection::open(&gateway).await;
        let live = connection.ask(&Head::new(&gateway, "GET", "/livez").bytes()).await;
        assert_eq!(live.status, 200, "{live:?}");
        assert!(connection.is_closed().await);
        begun.elapsed()
    };
    let (silent, dripping, idle) = tokio::join!(silent, dripping, idle);
    for elapsed in [silent, dripping, idle] {
        assert!((1..5).contains(&elapsed.as_secs()), "{elapsed:?}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_deadline_for_heads_does_not_end_a_long_request() {
    let upstream = Upstream::start(|talk| async move {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        talk.json(200, &chat_answer(3, 2)).await
    })
    .await;
    let gateway = Plan::to(&upstream).limits("header_timeout: 1s").start().await;
    let body = chat("phi", "think well").to_string();
    let request = Head::post(&gateway, CHAT).with(body.as_bytes());
    assert_eq!(Connection::open(&gateway).await.ask(&request).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_that_do_not_parse_are_counted() {
    let upstream = model().await;
    let gateway = Plan::to(&upstream).start().await;
    for (count, bytes) in [
        (1, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (2, "nonsense\r\n\r\n"),
        (3, "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n"),
    ] {
        let mut connection = Connection::open(&gateway).await;
        connection.send(bytes.as_bytes()).await;
        if let Some(answer) = connection.head().await {
            assert_eq!(answer.status, 400, "{bytes:?}");
        }
        let name = "portcullis_requests_unparsed_total";
        until("the counter", || gateway.metric(name) == count).await;
    }
    assert_eq!(get(&gateway, "/livez").await.status, 200);
    assert_eq!(gateway.metric("portcullis_requests_unparsed_total"), 3);
}
