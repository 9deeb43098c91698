//! Answers pass event by event, and end as they should.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::client::{Answer, Connection, Head, get, post};
use crate::support::gateway::{Gateway, Plan};
use crate::support::http2::Http2;
use crate::support::tls::Authority;
use crate::support::upstream::{CUT, Upstream, chunk, chunked_head};
use crate::support::{
    DONE, chat, chat_answer, delta, event, ollama_answer, ollama_line, streamed, usage_event,
    within,
};

const CHAT: &str = "/v1/chat/completions";
const SSE: &str = "text/event-stream";
const NDJSON: &str = "application/x-ndjson";

/// An upstream that sends these chunks and ends the answer properly.
async fn chunks(media_type: &'static str, parts: Vec<String>) -> Upstream {
    Upstream::start(move |talk| {
        let parts = parts.clone();
        async move {
            let mut talk = talk.begin(media_type).await;
            for part in &parts {
                talk.chunk(part).await;
            }
            talk.end().await
        }
    })
    .await
}

async fn stream(gateway: &Gateway) -> Answer {
    post(gateway, CHAT, &streamed("phi", "hello")).await
}

/// The stream of an Ollama chat, which is the default there.
async fn lines(gateway: &Gateway) -> Answer {
    post(gateway, "/api/chat", &chat("phi", "hello")).await
}

/// The answers on HTTP/1.1 and on HTTP/2.
async fn both(gateway: &Gateway, path: &str, request: &Value) -> [Answer; 2] {
    let body = request.to_string();
    let mut http2 = Http2::open(gateway).await;
    [post(gateway, path, request).await, http2.post(path, body.as_bytes(), 4096).await]
}

/// A gateway that is asked on HTTP/1.1 and on HTTP/2.
async fn open_to_both(upstream: &Upstream) -> Gateway {
    Plan::to(upstream).tls(Authority::new()).start().await
}

/// The prompt that chooses a case of [`Upstream::cases`].
fn case(number: usize) -> String {
    format!("case {number}")
}

/// An upstream that sends each part only when it is told to.
async fn stepwise(media_type: &'static str, parts: Vec<String>) -> (Upstream, Arc<Semaphore>) {
    let go = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&go);
    let upstream = Upstream::start(move |talk| {
        let (go, parts) = (Arc::clone(&waiting), parts.clone());
        async move {
            let mut talk = talk.begin(media_type).await;
            for part in &parts {
                go.acquire().await.unwrap().forget();
                talk.chunk(part).await;
            }
            talk.end().await
        }
    })
    .await;
    (upstream, go)
}

/// Checks that each part arrives before the next one is sent.
async fn arrives_stepwise(gateway: &Gateway, go: &Semaphore, request: &[u8], parts: &[String]) {
    let mut connection = Connection::open(gateway).await;
    connection.send(request).await;
    go.add_permits(1);
    let head = connection.head().await.expect("a head");
    assert_eq!(head.status, 200, "{head:?}");
    for (at, part) in parts.iter().enumerate() {
        assert_eq!(&connection.until_text(part).await, part);
        if at + 1 < parts.len() {
            go.add_permits(1);
        }
    }
    assert_eq!(connection.part().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn events_pass_one_by_one() {
    let mut parts: Vec<String> = ["Pa", "ris", " is", " 大", "きい"].map(delta).to_vec();
    parts.push(DONE.to_owned());
    let (upstream, go) = stepwise(SSE, parts.clone()).await;
    let gateway = Plan::to(&upstream).start().await;
    let body = streamed("phi", "hello").to_string();
    let request = Head::post(&gateway, CHAT).with(body.as_bytes());
    arrives_stepwise(&gateway, &go, &request, &parts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn lines_pass_one_by_one() {
    let mut parts: Vec<String> = ["Pa", "ris", "."].map(ollama_line).to_vec();
    parts.push(format!("{}\n", ollama_answer(9, 3)));
    let (upstream, go) = stepwise(NDJSON, parts.clone()).await;
    let gateway = Plan::to(&upstream).start().await;
    let body = chat("phi", "hello").to_string();
    let request = Head::post(&gateway, "/api/chat").with(body.as_bytes());
    arrives_stepwise(&gateway, &go, &request, &parts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn events_cut_at_any_byte_arrive_whole() {
    let text = format!("{}{}{}{DONE}", delta("Zoë"), delta("🦀"), usage_event(9, 2));
    let shown = format!("{}{}{DONE}", delta("Zoë"), delta("🦀"));
    let sizes = [1, 2, 3, 7, 64, 1000];
    let upstream = Upstream::start(move |talk| {
        let request = talk.seen.json();
        let prompt = request["messages"][0]["content"].as_str().unwrap();
        let size: usize = prompt.strip_prefix("case ").unwrap().parse().unwrap();
        let bytes = text.clone().into_bytes();
        async move {
            let mut talk = talk.begin(SSE).await;
            for part in bytes.chunks(size) {
                let head = format!("{:x}\r\n", part.len());
                talk = talk.raw(&[head.as_bytes(), part, b"\r\n"].concat()).await?;
            }
            talk.end().await
        }
    })
    .await;
    let gateway = open_to_both(&upstream).await;
    for size in sizes {
        for answer in both(&gateway, CHAT, &streamed("phi", &case(size))).await {
            assert_eq!((answer.text(), answer.whole), (shown.as_str(), true), "{size}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn usage_is_asked_for_and_hidden() {
    let parts = vec![delta("Paris"), usage_event(31, 7), DONE.to_owned()];
    let upstream = chunks(SSE, parts).await;
    let gateway = Plan::to(&upstream).start().await;
    let answer = stream(&gateway).await;
    assert_eq!(answer.text(), format!("{}{DONE}", delta("Paris")));
    assert_eq!(answer.field("content-type"), Some(SSE));
    assert_eq!(upstream.only().json()["stream_options"], json!({ "include_usage": true }));
    let usage = &gateway.record().await["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(31), &json!(7)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn usage_is_shown_to_those_who_ask() {
    let parts = vec![delta("Paris"), usage_event(31, 7), DONE.to_owned()];
    let upstream = chunks(SSE, parts.clone()).await;
    let gateway = Plan::to(&upstream).start().await;
    let mut request = streamed("phi", "hello");
    request["stream_options"] = json!({ "include_usage": true });
    let answer = post(&gateway, CHAT, &request).await;
    assert_eq!(answer.text(), parts.concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_audit_tells_what_the_upstream_reported() {
    for (path, request, answer, expected) in [
        (CHAT, chat("phi", "hello"), chat_answer(11, 4), (11, 4)),
        ("/api/chat", crate::support::ollama_chat("phi", "hello"), ollama_answer(12, 5), (12, 5)),
        (
            "/v1/embeddings",
            json!({ "model": "phi", "input": "hello" }),
            json!({ "object": "list", "data": [], "usage": { "prompt_tokens": 6, "total_tokens": 6 } }),
            (6, 0),
        ),
    ] {
        let upstream = Upstream::json(answer.clone()).await;
        let gateway = Plan::to(&upstream).start().await;
        let got = post(&gateway, path, &request).await;
        assert_eq!((got.status, got.json()), (200, answer), "{path}");
        let record = gateway.record().await;
        let usage = &record["usage"];
        let found = (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64());
        assert_eq!(found, (Some(expected.0), Some(expected.1)), "{record}");
        assert_eq!(record["status"], "success");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn ollamas_durations_are_gpu_time() {
    let upstream = chunks(NDJSON, vec![format!("{}\n", ollama_answer(12, 5))]).await;
    let gateway = Plan::to(&upstream).start().await;
    assert_eq!(lines(&gateway).await.status, 200);
    let usage = gateway.record().await["usage"].clone();
    assert_eq!(usage["gpu_seconds"], 0.5);
    assert_eq!(usage["estimated"], false);
}

/// Checks the end of a stream that broke: what had come, one error, no end mark.
#[track_caller]
fn ends_in_error(answer: &Answer, passed: &str, code: &str) {
    let rest = answer.text().strip_prefix(passed).unwrap_or_else(|| panic!("{answer:?}"));
    let data = rest.strip_prefix("data: ").unwrap_or_else(|| panic!("{answer:?}"));
    let error: Value = serde_json::from_str(data.trim_end()).unwrap();
    assert_eq!(error["error"]["code"], code, "{error}");
    assert_eq!(error["error"]["request_id"].as_str(), answer.field("x-request-id"));
    assert!(rest.ends_with("\n\n") && rest.matches("\n\n").count() == 1, "{rest:?}");
    assert!(
        !answer.text().contains("[DONE]") && !answer.text().contains("127.0.0.1"),
        "{answer:?}"
    );
    assert!(answer.whole, "a stream of events that ends in an error ends properly: {answer:?}");
}

/// Checks an answer that broke before anything of it had to be written: an error instead of it, or
/// what had come and the error.
#[track_caller]
fn broke(answer: &Answer, passed: &str, what: &str) {
    if answer.status == 502 {
        answer.refused(502, "upstream_unavailable");
    } else {
        assert!(answer.text().starts_with(passed), "{what:?}: {answer:?}");
        ends_in_error(answer, passed, "upstream_unavailable");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_of_events_that_breaks_at_once_is_an_error() {
    let (head, two) = (chunked_head(SSE), chunk(&delta("Pa")) + &chunk(&delta("ris")));
    let passed = delta("Pa") + &delta("ris");
    let half = chunk(&delta("lost")[..20]);
    let end = chunk("");
    let cases = [
        format!("{head}{two}{CUT}"),
        format!("{head}{two}{half}{CUT}"),
        format!("{head}{two}{end}"),
        format!("{head}{two}{half}{end}"),
        format!("{head}{two}{}{end}", chunk("data: {broken\n\n")),
        format!("{head}{}{end}", chunk(&format!("{passed}data: {{broken\n\n"))),
        format!("{head}{two}zz\r\nnonsense\r\n"),
        format!("HTTP/1.1 200 OK\r\nContent-Type: {SSE}\r\nConnection: close\r\n\r\n{passed}{CUT}"),
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {SSE}\r\nContent-Length: 9999\r\n\r\n{passed}{CUT}"
        ),
    ];
    let upstream = Upstream::cases(cases.clone()).await;
    let gateway = open_to_both(&upstream).await;
    for (number, raw) in cases.iter().enumerate() {
        for answer in both(&gateway, CHAT, &streamed("phi", &case(number))).await {
            broke(&answer, &passed, raw);
        }
    }
    for record in gateway.settled(2 * cases.len()).await {
        assert_eq!(record["status"], "failure", "{record}");
    }
}

/// An upstream that sends an event, and the rest of the case when it is told to.
async fn halting(cases: Vec<String>) -> (Upstream, Arc<Semaphore>) {
    let go = Arc::new(Semaphore::new(0));
    let (waiting, cases) = (Arc::clone(&go), Arc::new(cases));
    let upstream = Upstream::start(move |talk| {
        let (go, cases) = (Arc::clone(&waiting), Arc::clone(&cases));
        async move {
            let request = talk.seen.json();
            let prompt = request["messages"][0]["content"].as_str().unwrap().to_owned();
            let number: usize = prompt.strip_prefix("case ").unwrap().parse().unwrap();
            let mut talk = talk.begin(SSE).await;
            talk.chunk(&delta("first")).await;
            go.acquire().await.unwrap().forget();
            match cases[number].strip_suffix(CUT) {
                Some("reset") => talk.reset(),
                Some(rest) => talk.raw(rest.as_bytes()).await.and(None),
                None => talk.raw(cases[number].as_bytes()).await,
            }
        }
    })
    .await;
    (upstream, go)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_of_events_that_breaks_ends_in_an_error_and_loses_nothing() {
    let many: String = ["a", "b", "c", "d", "e", "f"].map(|text| chunk(&delta(text))).concat();
    let passed: String = ["a", "b", "c", "d", "e", "f"].map(delta).concat();
    let end = chunk("");
    let cases = [
        (format!("reset{CUT}"), ""),
        (CUT.to_owned(), ""),
        (end.clone(), ""),
        (format!("{many}{CUT}"), passed.as_str()),
        (format!("{many}{end}"), &passed),
        (format!("{many}{}{end}", chunk("data: {broken\n\n")), &passed),
        (format!("{}{end}", chunk(&format!("{passed}data: {{broken\n\n"))), &passed),
        (format!("{many}zz\r\nnonsense\r\n"), &passed),
    ];
    let (upstream, go) = halting(cases.iter().map(|(raw, _)| raw.clone()).collect()).await;
    let gateway = Plan::to(&upstream).start().await;
    for (number, (_, passed)) in cases.iter().enumerate() {
        let body = streamed("phi", &case(number)).to_string();
        let mut connection = Connection::open(&gateway).await;
        connection.send(&Head::post(&gateway, CHAT).with(body.as_bytes())).await;
        let mut answer = connection.head().await.expect("a head");
        connection.until_text(&delta("first")).await;
        go.add_permits(1);
        connection.rest(&mut answer).await;
        ends_in_error(&answer, passed, "upstream_unavailable");
    }
    for record in gateway.settled(cases.len()).await {
        assert_eq!(record["status"], "failure", "{record}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_of_lines_that_breaks_ends_in_an_error_and_a_cut() {
    let passed = ollama_line("Pa") + &ollama_line("ris");
    let lines = chunked_head(NDJSON) + &chunk(&passed);
    let upstream =
        Upstream::cases([format!("{lines}{CUT}"), format!("{lines}{}", chunk(""))]).await;
    let gateway = open_to_both(&upstream).await;
    for number in 0..2 {
        for answer in both(&gateway, "/api/chat", &chat("phi", &case(number))).await {
            if answer.status == 502 {
                assert!(answer.json()["error"].is_string() && answer.whole, "{answer:?}");
                continue;
            }
            let rest = answer.text().strip_prefix(&passed).unwrap_or_else(|| panic!("{answer:?}"));
            let error: Value = serde_json::from_str(rest).unwrap();
            assert!(error["error"].is_string(), "{rest}");
            assert!(!answer.whole, "a cut tells clients that read no errors: {answer:?}");
        }
    }
    for record in gateway.settled(4).await {
        assert_eq!(record["status"], "failure", "{record}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_whole_answer_that_is_cut_stays_cut() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let cases = [
        format!("{head}Content-Length: 500\r\n\r\n{{\"object\":{CUT}"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n9\r\n{{\"object\"\r\n{CUT}"),
        format!("{head}Content-Length: 9\r\n\r\n{{\"object\""),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n9\r\n{{\"object\"\r\n0\r\n\r\n"),
        format!("{head}Connection: close\r\n\r\n{{\"object\"{CUT}"),
    ];
    let upstream = Upstream::cases(cases.clone()).await;
    let gateway = open_to_both(&upstream).await;
    for (number, raw) in cases.iter().enumerate() {
        for answer in both(&gateway, CHAT, &chat("phi", &case(number))).await {
            assert!(answer.status == 502 || !answer.whole, "{raw:?}: {answer:?}");
        }
    }
    for record in gateway.settled(2 * cases.len()).await {
        assert_eq!(record["status"], "failure", "{record}");
    }
}

fn head(media_type: &str) -> http::Response<()> {
    http::Response::builder().header("content-type", media_type).body(()).unwrap()
}

/// Ends an HTTP/2 answer in trailers.
fn with_trailers(mut respond: SendResponse<Bytes>, media_type: &str, parts: &[String]) {
    let mut body = respond.send_response(head(media_type), false).unwrap();
    for part in parts {
        body.send_data(Bytes::from(part.clone()), false).unwrap();
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "7".parse().unwrap());
    body.send_trailers(trailers).unwrap();
}

/// A gateway in front of an HTTP/2 upstream whose answers end in trailers.
async fn trailing(media_type: &'static str, parts: &[String]) -> (Upstream, Gateway) {
    let authority = Authority::new();
    let sent = parts.to_vec();
    let upstream = Upstream::http2(&authority, move |respond| {
        with_trailers(respond, media_type, &sent);
        std::future::ready(())
    })
    .await;
    let blocks = format!("upstreams: {{tls: {{url: '{}', ca_file: ca.pem}}}}", upstream.url());
    let plan = Plan::new(blocks).file("ca.pem", &authority.ca_pem());
    let gateway = plan.tls(Authority::new()).start().await;
    (upstream, gateway)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_that_ends_in_trailers_loses_nothing() {
    for (media_type, request, parts, path) in [
        (SSE, streamed("phi", "hello"), vec![delta("Paris"), DONE.to_owned()], CHAT),
        ("application/json", chat("phi", "hello"), vec![chat_answer(3, 2).to_string()], CHAT),
        (
            NDJSON,
            chat("phi", "hello"),
            vec![ollama_line("Paris"), ollama_answer(3, 2).to_string()],
            "/api/chat",
        ),
    ] {
        let (_upstream, gateway) = trailing(media_type, &parts).await;
        for answer in both(&gateway, path, &request).await {
            assert_eq!(answer.text().trim_end(), parts.concat().trim_end(), "{media_type}");
            assert!(answer.whole, "{media_type}: {answer:?}");
        }
        for record in gateway.settled(2).await {
            assert_eq!(record["status"], "success", "{record}");
            assert!(record["usage"]["completion_tokens"].is_u64(), "{record}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_that_breaks_in_its_trailers_ends_in_an_error() {
    let (_upstream, gateway) = trailing(SSE, &[delta("Pa"), delta("ris")]).await;
    for answer in both(&gateway, CHAT, &streamed("phi", "hello")).await {
        broke(&answer, &(delta("Pa") + &delta("ris")), "trailers");
    }
    for record in gateway.settled(2).await {
        assert_eq!(record["status"], "failure", "{record}");
    }
    let (_upstream, gateway) = trailing(NDJSON, &[ollama_line("Pa")]).await;
    for answer in both(&gateway, "/api/chat", &chat("phi", "hello")).await {
        assert!(answer.text().contains("\"error\""), "{answer:?}");
    }
    for record in gateway.settled(2).await {
        assert_eq!(record["status"], "failure", "{record}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_error_of_the_upstream_within_a_stream_passes() {
    let error = event(&json!({ "error": { "message": "context too long", "code": 400 } }));
    let upstream = chunks(SSE, vec![delta("Pa"), error.clone()]).await;
    let gateway = Plan::to(&upstream).start().await;
    let answer = stream(&gateway).await;
    assert_eq!((answer.text(), answer.whole), ((delta("Pa") + &error).as_str(), true));
    gateway.record().await;
}

/// An upstream that streams for ever, and tells when its connection was closed.
async fn endless(media_type: &'static str, part: String) -> (Upstream, Arc<Semaphore>) {
    let closed = Arc::new(Semaphore::new(0));
    let telling = Arc::clone(&closed);
    let upstream = Upstream::start(move |talk| {
        let (closed, part) = (Arc::clone(&telling), part.clone());
        async move {
            let mut talk = talk.begin(media_type).await;
            talk.chunk(&part).await;
            talk.closed().await;
            closed.add_permits(1);
            None
        }
    })
    .await;
    (upstream, closed)
}

/// Checks that the upstream was let go within a second, and what the record says.
async fn let_go(gateway: &Gateway, closed: &Semaphore, left: Instant) {
    within("the upstream to be let go", closed.acquire()).await.unwrap().forget();
    assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
    let record = gateway.record().await;
    assert_eq!(record["status"], "aborted", "{record}");
    assert_eq!(record["usage"]["estimated"], true, "{record}");
    assert!(record["usage"]["prompt_tokens"].as_u64() > Some(0), "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_leaves_takes_the_upstreams_work_along() {
    for (media_type, path, part, request) in [
        (SSE, CHAT, delta("Paris"), streamed("phi", "hello")),
        (NDJSON, "/api/chat", ollama_line("Paris"), chat("phi", "hello")),
    ] {
        let (upstream, closed) = endless(media_type, part.clone()).await;
        let gateway = Plan::to(&upstream).start().await;
        let mut connection = Connection::open(&gateway).await;
        connection.send(&Head::post(&gateway, path).with(request.to_string().as_bytes())).await;
        connection.head().await.expect("a head");
        connection.until_text(&part).await;
        drop(connection);
        let_go(&gateway, &closed, Instant::now()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_leaves_before_the_answer_takes_the_upstreams_work_along() {
    let closed = Arc::new(Semaphore::new(0));
    let telling = Arc::clone(&closed);
    let upstream = Upstream::start(move |mut talk| {
        let closed = Arc::clone(&telling);
        async move {
            talk.closed().await;
            closed.add_permits(1);
            None
        }
    })
    .await;
    let gateway = Plan::to(&upstream).start().await;
    let body = chat("phi", "hello").to_string();
    let mut connection = Connection::open(&gateway).await;
    connection.send(&Head::post(&gateway, CHAT).with(body.as_bytes())).await;
    upstream.asked(1).await;
    drop(connection);
    let_go(&gateway, &closed, Instant::now()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_resets_its_stream_takes_the_upstreams_work_along() {
    let (upstream, closed) = endless(SSE, delta("Paris")).await;
    let gateway = Plan::to(&upstream).tls(Authority::new()).start().await;
    let mut http2 = Http2::open(&gateway).await;
    let body = streamed("phi", "hello").to_string();
    let mut stream = http2.begin(CHAT, Some(body.len())).await;
    stream.send(body.as_bytes(), 4096).await;
    upstream.asked(1).await;
    // Dropping both halves cancels the stream; the connection stays.
    drop(stream);
    let_go(&gateway, &closed, Instant::now()).await;
    drop(http2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn answers_that_cannot_be_watched_do_not_pass() {
    let cases = [
        ("Content-Type: application/json\r\nContent-Encoding: gzip", "\x1f\x08CANARY"),
        ("Content-Type: application/json\r\nContent-Encoding: br", "CANARY"),
        ("Content-Type: text/html", "<p>CANARY</p>"),
        ("Content-Type: text/event-stream", "data: CANARY\n\n"),
        ("Content-Type: application/json; charset=utf-16", "CANARY"),
        ("X-None: x", "CANARY"),
    ]
    .map(|(fields, body)| {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {length}\r\n\r\n{body}")
    });
    let upstream = Upstream::cases(cases.clone()).await;
    let gateway = open_to_both(&upstream).await;
    for number in 0..cases.len() {
        for answer in both(&gateway, CHAT, &chat("phi", &case(number))).await {
            answer.refused(502, "upstream_unavailable");
            assert!(!answer.text().contains("CANARY"), "{answer:?}");
        }
    }
    for record in gateway.settled(2 * cases.len()).await {
        assert_eq!(record["status"], "failure", "{record}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn heads_are_answered_without_a_body() {
    let upstream = Upstream::start(|talk| async move {
        match talk.seen.line.split(' ').nth(1) {
            Some("/") => {
                talk.raw(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 17\r\n\r\n",
                )
                .await
            }
            _ => talk.raw(b"HTTP/1.1 404 X\r\nContent-Length: 9\r\n\r\n").await,
        }
    })
    .await;
    let gateway = Plan::to(&upstream).start().await;
    let mut connection = Connection::open(&gateway).await;
    for (path, expected) in
        [("/", 200), ("/v1/models/phi", 404), ("/livez", 200), ("/nothing", 404)]
    {
        connection.send(&Head::new(&gateway, "HEAD", path).bytes()).await;
        let head = connection.head_only().await;
        assert_eq!(head.status, expected, "{path}: {head:?}");
    }
    assert_eq!(upstream.seen()[0].line, "HEAD / HTTP/1.1");
    // `/livez` leaves no record.
    gateway.settled(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn answers_without_content_are_refused() {
    let cases = [
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 500 X\r\nConnection: close\r\n\r\nCUT",
        "HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n",
    ];
    let upstream = Upstream::cases(cases).await;
    let gateway = open_to_both(&upstream).await;
    for (number, raw) in cases.iter().enumerate() {
        for answer in both(&gateway, CHAT, &chat("phi", &case(number))).await {
            assert!(answer.status == 502 && !answer.body.is_empty(), "{raw:?}: {answer:?}");
            answer.refused(502, "upstream_unavailable");
            assert_eq!(answer.field("location"), None);
        }
    }
    for record in gateway.settled(2 * cases.len()).await {
        assert_eq!(record["status"], "failure", "{record}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn http2_answers_without_content_are_refused() {
    let authority = Authority::new();
    let upstream = Upstream::http2(&authority, |mut respond| {
        let head = head("application/json");
        respond.send_response(head, true).unwrap();
        std::future::ready(())
    })
    .await;
    let blocks = format!("upstreams: {{tls: {{url: '{}', ca_file: ca.pem}}}}", upstream.url());
    let plan = Plan::new(blocks).file("ca.pem", &authority.ca_pem());
    let gateway = plan.tls(Authority::new()).start().await;
    for answer in both(&gateway, CHAT, &chat("phi", "hello")).await {
        assert!(answer.status == 502 || !answer.whole, "an empty answer passed: {answer:?}");
    }
    for record in gateway.settled(2).await {
        assert_eq!(record["status"], "failure", "{record}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn errors_of_the_upstream_are_told_without_its_inside() {
    let plain = json!({ "error": { "message": "model 'phi' not found" } }).to_string();
    let inside =
        json!({ "error": "dial tcp: http://10.9.8.7:1 /usr/CANARY Traceback" }).to_string();
    let cases = [
        (400, &plain, 400, "upstream_refused", true),
        (404, &plain, 404, "upstream_refused", true),
        (422, &plain, 422, "upstream_refused", true),
        (400, &inside, 400, "upstream_refused", false),
        (401, &plain, 502, "upstream_unavailable", false),
        (403, &plain, 502, "upstream_unavailable", false),
        (500, &plain, 502, "upstream_unavailable", false),
        (503, &inside, 502, "upstream_unavailable", false),
        (418, &plain, 502, "upstream_unavailable", false),
    ];
    let upstream = Upstream::cases(cases.map(|(status, body, ..)| {
        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }))
    .await;
    let gateway = open_to_both(&upstream).await;
    for (number, (status, _, expected, code, shown)) in cases.into_iter().enumerate() {
        for request in [chat("phi", &case(number)), streamed("phi", &case(number))] {
            for answer in both(&gateway, CHAT, &request).await {
                answer.refused(expected, code);
                assert_eq!(answer.text().contains("not found"), shown, "{status}: {answer:?}");
                assert!(!answer.text().contains("CANARY") && !answer.text().contains("10.9.8.7"));
                let retry = answer.field("x-should-retry");
                assert_eq!(retry, (code == "upstream_refused").then_some("false"), "{answer:?}");
                assert_eq!(answer.field("content-type"), Some("application/json"));
            }
        }
    }
    assert_eq!(upstream.connections(), 1, "an error is no reason to open another connection");
    gateway.settled(4 * cases.len()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn errors_are_told_in_ollamas_shape_too() {
    let upstream = Upstream::raw(
        "HTTP/1.1 404 X\r\nContent-Type: application/json\r\nContent-Length: 29\r\n\r\n\
         {\"error\":\"no model named x\"}\n\n",
    )
    .await;
    let gateway = Plan::to(&upstream).start().await;
    let answer = lines(&gateway).await;
    assert_eq!((answer.status, answer.json()), (404, json!({ "error": "no model named x" })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_busy_upstream_says_when_to_come_back() {
    let cases = [
        ("Retry-After: 7", "7"),
        ("Retry-After: 7200", "60"),
        ("Retry-After: soon", "1"),
        ("X: x", "1"),
    ];
    let upstream =
        Upstream::cases(cases.map(|(field, _)| {
            format!("HTTP/1.1 429 X\r\n{field}\r\nContent-Length: 2\r\n\r\n{{}}")
        }))
        .await;
    let gateway = Plan::to(&upstream).start().await;
    for (number, (field, expected)) in cases.into_iter().enumerate() {
        let answer = post(&gateway, CHAT, &chat("phi", &case(number))).await;
        answer.refused(429, "rate_limit_exceeded");
        assert_eq!(answer.field("retry-after"), Some(expected), "{field}");
        assert_eq!(answer.field("x-should-retry"), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_silent_upstream_is_given_up() {
    let upstream = Upstream::start(|mut talk| async move {
        if talk.seen.json()["stream"] == true {
            talk = talk.begin(SSE).await;
            talk.chunk(&delta("Pa")).await;
        }
        talk.closed().await;
        None
    })
    .await;
    let blocks = format!("upstreams: {{a: {{url: '{}', first_byte_timeout: 1s}}}}", upstream.url());
    let gateway = Plan::new(blocks).start().await;
    let request = chat("phi", "hello");
    let (whole, stream) = tokio::join!(post(&gateway, CHAT, &request), stream(&gateway));
    whole.refused(504, "upstream_timeout");
    ends_in_error(&stream, &delta("Pa"), "upstream_timeout");
    assert_eq!(upstream.seen().len(), 2, "what may be at work is not asked again");
    gateway.settled(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn answers_of_many_megabytes_pass() {
    let text = "word ".repeat(2_000_000);
    let mut value = chat_answer(3, 2);
    value["choices"][0]["message"]["content"] = json!(text);
    let upstream = Upstream::json(value.clone()).await;
    let gateway = Plan::to(&upstream).start().await;
    let answer = post(&gateway, CHAT, &chat("phi", "hello")).await;
    assert!(answer.whole && answer.body.len() > 10_000_000, "{}", answer.body.len());
    assert!(answer.json() == value);
    assert_eq!(gateway.record().await["status"], "success");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_model_server_that_is_gone_can_be_told_from_a_gateway_that_is() {
    let gateway = Plan::new("upstreams: {a: {url: 'http://127.0.0.1:1'}}").start().await;
    get(&gateway, "/v1/models").await.refused(502, "upstream_unavailable");
    assert_eq!(get(&gateway, "/livez").await.status, 200);
}
