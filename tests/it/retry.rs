//! Which failures of an upstream are mended by another try.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::{Connection, Head, post};
use crate::support::gateway::{Gateway, Plan};
use crate::support::http2::Http2;
use crate::support::tls::Authority;
use crate::support::upstream::{Upstream, nowhere};
use crate::support::{chat, chat_answer, ollama_answer, sized_chat};

const CHAT: &str = "/api/chat";

fn places(first: &str, second: &str) -> Plan {
    Plan::new(format!("upstreams: {{local: {{urls: ['{first}', '{second}']}}}}"))
}

async fn model() -> Upstream {
    Upstream::json(ollama_answer(3, 2)).await
}

/// An upstream that reads a request and closes the connection.
async fn mute() -> Upstream {
    Upstream::start(|_| async { None }).await
}

/// Bodies around what Pingora replays by itself, announced and in chunks.
fn requests(gateway: &Gateway) -> Vec<(Vec<u8>, Vec<u8>)> {
    [200, 65_537, 1 << 20]
        .into_iter()
        .flat_map(|size| {
            let body = sized_chat(size);
            let announced = Head::post(gateway, CHAT).with(&body);
            let expecting = Head::post(gateway, CHAT).field("Expect", "100-continue").with(&body);
            let chunked = Head::post(gateway, CHAT).chunked(&body, 60_000);
            [(body.clone(), announced), (body.clone(), expecting), (body, chunked)]
        })
        .collect()
}

#[track_caller]
fn whole(upstream: &Upstream, body: &[u8]) {
    let sent: serde_json::Value = serde_json::from_slice(body).unwrap();
    let seen = upstream.seen().pop().expect("nothing arrived").json();
    assert!(seen["messages"] == sent["messages"], "the body changed on its way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_refused_connection_is_tried_at_the_next_place() {
    let upstream = model().await;
    let gateway = places(&nowhere(), &upstream.url()).start().await;
    for (body, request) in requests(&gateway) {
        let answer = Connection::open(&gateway).await.ask(&request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        whole(&upstream, &body);
    }
    assert_eq!(upstream.seen().len(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_closed_without_an_answer_is_tried_at_the_next_place() {
    let (first, second) = (mute().await, model().await);
    let gateway = places(&first.url(), &second.url()).start().await;
    for (body, request) in requests(&gateway) {
        let answer = Connection::open(&gateway).await.ask(&request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        whole(&first, &body);
        whole(&second, &body);
    }
    assert_eq!((first.seen().len(), second.seen().len()), (9, 9));
    gateway.settled(9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_on_http2_are_tried_again_whole() {
    let (first, second) = (mute().await, model().await);
    let gateway = places(&first.url(), &second.url()).tls(Authority::new()).start().await;
    let mut http2 = Http2::open(&gateway).await;
    for size in [300, 65_537, 1 << 20] {
        let body = sized_chat(size);
        let answer = http2.post(CHAT, &body, 20_000).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        whole(&second, &body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn where_nobody_answers_the_client_is_told() {
    let gateway = places(&nowhere(), &nowhere()).start().await;
    let answer = post(&gateway, "/v1/chat/completions", &chat("phi", "hello")).await;
    answer.refused(502, "upstream_unavailable");
    assert_eq!(answer.field("x-should-retry"), None);
    assert_eq!(gateway.record().await["status"], "failure");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_only_place_is_not_asked_twice() {
    let upstream = mute().await;
    let gateway = Plan::to(&upstream).start().await;
    let answer = post(&gateway, "/v1/chat/completions", &chat("phi", "hello")).await;
    answer.refused(502, "upstream_unavailable");
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_is_final_even_if_it_is_an_error() {
    let first = Upstream::raw("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n").await;
    let second = model().await;
    let gateway = places(&first.url(), &second.url()).start().await;
    let answer = post(&gateway, "/v1/chat/completions", &chat("phi", "hello")).await;
    answer.refused(502, "upstream_unavailable");
    assert_eq!((first.seen().len(), second.connections()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn half_an_answer_is_not_tried_again() {
    let first = Upstream::start(|talk| async {
        let half =
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{";
        drop(talk.raw(half).await);
        None
    })
    .await;
    let second = model().await;
    let gateway = places(&first.url(), &second.url()).start().await;
    let request = Head::post(&gateway, CHAT).with(&sized_chat(300));
    if let Some(answer) = Connection::open(&gateway).await.try_ask(&request).await {
        assert!(matches!(answer.status, 200 | 502), "{answer:?}");
    }
    assert_eq!((first.seen().len(), second.connections()), (1, 0));
    assert_eq!(gateway.record().await["status"], "failure");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pooled_connection_that_was_closed_is_replaced() {
    let turns = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::start(move |talk| {
        let turn = turns.fetch_add(1, Ordering::SeqCst);
        async move {
            // The second request comes on the pooled connection and is not answered there.
            if turn == 1 { None } else { talk.json(200, &ollama_answer(3, 2)).await }
        }
    })
    .await;
    let gateway = Plan::to(&upstream).start().await;
    for size in [300, 100_000] {
        let body = sized_chat(size);
        let request = Head::post(&gateway, CHAT).with(&body);
        let answer = Connection::open(&gateway).await.ask(&request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        whole(&upstream, &body);
    }
    assert_eq!((upstream.seen().len(), upstream.connections()), (3, 2));
    gateway.settled(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_may_come_before_the_body_is_read() {
    let upstream =
        Upstream::hasty(|talk| async move { talk.json(200, &chat_answer(3, 2)).await }).await;
    let gateway = Plan::to(&upstream).start().await;
    let body = chat("phi", &"word ".repeat(100_000));
    let answer = post(&gateway, "/v1/chat/completions", &body).await;
    assert_eq!((answer.status, answer.whole), (200, true), "{answer:?}");
    gateway.settled(1).await;
}
