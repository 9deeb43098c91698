//! Limits are hard: a request gets what there is room for, on every level, and no more.

use std::time::Duration;

use portcullis_filters::accounts::AccountRole;
use portcullis_filters::accounts::store::Actor;
use portcullis_filters::quota::{Level, Spent, Subject};
use serde_json::{Value, json};

use crate::support::client::{Answer, Connection, Head, get, post};
use crate::support::gateway::{Gateway, Plan, USER};
use crate::support::upstream::{Talk, Upstream, held};
use crate::support::{
    chat, chat_answer, delta, event, ollama_chat, ollama_line, streamed, until, usage_event,
};

const CHAT: &str = "/v1/chat/completions";
/// So many requests that only other limits refuse.
const FAST: &str = "burst: 1000, requests_per_minute: 60000";

async fn spent(gateway: &Gateway, level: Level, id: &str) -> Spent {
    let consumption = gateway.state.counters().consumption(Subject::new(level, id)).await;
    consumption.unwrap().windows.day
}

/// An upstream that writes so many tokens, one a delta, whatever it was told.
async fn talkative(tokens: usize) -> Upstream {
    Upstream::start(move |talk| async move {
        let mut talk = talk.begin("text/event-stream").await;
        for _ in 0..tokens {
            if !talk.chunk(&delta("tok")).await {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        talk.chunk(&usage_event(9, tokens as u64)).await;
        talk.chunk("data: [DONE]\n\n").await;
        talk.end().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_estimate_is_cut_to_the_room_that_is_left() {
    let upstream = Upstream::json(chat_answer(9, 20)).await;
    let gateway = Plan::to(&upstream).quota(&format!("tokens_per_day: 200, {FAST}")).start().await;
    assert_eq!(post(&gateway, CHAT, &chat("phi", "hello")).await.status, 200);
    gateway.settled(1).await;
    assert_eq!(post(&gateway, CHAT, &chat("phi", "hello")).await.status, 200);
    gateway.settled(2).await;
    let told: Vec<u64> =
        upstream.seen().iter().map(|seen| seen.json()["max_tokens"].as_u64().unwrap()).collect();
    // The prompt is estimated, at first with room for the template of an unknown model.
    assert!((100..=195).contains(&told[0]), "{told:?}");
    assert!((100..=167).contains(&told[1]), "what is used is not there any more: {told:?}");
    assert_eq!(spent(&gateway, Level::User, USER).await.used.tokens(), 58);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_prompt_larger_than_the_quota_is_not_worth_a_retry() {
    let upstream = Upstream::json(chat_answer(3, 2)).await;
    let quota = format!("prompt_tokens_per_minute: 50, {FAST}");
    let gateway = Plan::to(&upstream).quota(&quota).start().await;
    let answer = post(&gateway, CHAT, &chat("phi", &"word ".repeat(200))).await;
    answer.refused(429, "insufficient_quota");
    assert_eq!(answer.field("x-should-retry"), Some("false"));
    assert_eq!(upstream.connections(), 0);
    gateway.record().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_that_runs_on_is_cut_at_the_ceiling() {
    let upstream = talkative(400).await;
    let gateway = Plan::to(&upstream).quota(&format!("tokens_per_day: 200, {FAST}")).start().await;
    let answer = post(&gateway, CHAT, &streamed("phi", "hello")).await;
    let text = answer.text();
    let told = upstream.only().json()["max_tokens"].as_u64().unwrap();
    let passed = text.matches("\"tok\"").count() as u64;
    assert!((1..=told).contains(&passed), "{passed} of {told}: {text}");
    assert!(text.contains("insufficient_quota") && !text.contains("[DONE]"), "{text}");
    let record = gateway.record().await;
    assert_eq!(record["reason"], "insufficient_quota", "{record}");
    let spent = spent(&gateway, Level::User, USER).await;
    assert_eq!(spent.used.completion, told, "{spent:?}");
    assert!(spent.used.tokens() <= 200, "{spent:?}");
    assert!(spent.reserved.is_nothing());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_within_its_reservation_is_charged_as_reported() {
    let upstream = talkative(40).await;
    let gateway = Plan::to(&upstream).quota(&format!("tokens_per_day: 200, {FAST}")).start().await;
    let answer = post(&gateway, CHAT, &streamed("phi", "hello")).await;
    assert!(answer.text().contains("[DONE]"), "{answer:?}");
    gateway.record().await;
    let used = spent(&gateway, Level::User, USER).await.used;
    assert_eq!((used.prompt, used.completion), (9, 40));
}

/// Writes a line, and then nothing for a long time.
async fn silent(talk: Talk) -> Option<Talk> {
    let mut talk = talk.begin("application/x-ndjson").await;
    talk.chunk(&ollama_line("Let me think")).await;
    talk.closed().await;
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn gpu_time_that_is_used_up_ends_also_a_silent_answer() {
    let upstream = Upstream::start(silent).await;
    let quota = format!("gpu_seconds_per_day: 2, {FAST}");
    let gateway = Plan::to(&upstream).quota(&quota).start().await;
    let mut request = ollama_chat("phi", "hello");
    request["stream"] = json!(true);
    let answer = post(&gateway, "/api/chat", &request).await;
    assert!(!answer.text().contains("\"done\":true"), "{answer:?}");
    let record = gateway.record().await;
    assert_eq!(record["reason"], "insufficient_quota", "{record}");
    let used = spent(&gateway, Level::User, USER).await.used;
    assert!((900..=2_000).contains(&used.gpu_ms), "{used:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_level_can_refuse_and_says_so() {
    for (shared, who, level) in [
        ("global: two", "this gateway", "global"),
        ("address: two", "this address", "address"),
        ("roles: {owner: two}", "this role", "role"),
        ("upstreams: {local: two}", "this upstream", "upstream"),
        ("models: [{model: 'p*', quota: two}]", "this model", "model"),
    ] {
        let upstream = Upstream::json(chat_answer(3, 2)).await;
        let shared_quotas = format!("shared_quotas: {{{shared}}}");
        let gateway = Plan::to(&upstream).with(&shared_quotas).start().await;
        for _ in 0..2 {
            assert_eq!(post(&gateway, CHAT, &chat("phi", "hello")).await.status, 200, "{shared}");
        }
        let answer = post(&gateway, CHAT, &chat("phi", "hello")).await;
        answer.refused(429, "insufficient_quota");
        assert!(answer.text().contains(who), "{shared}: {answer:?}");
        let record = gateway.settled(3).await.pop().unwrap();
        let detail = format!("meter requests_per_day, level {level}");
        assert_eq!(record["metadata"]["detail"], Value::from(detail), "{record}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn months_are_counted_and_end_with_an_honest_refusal() {
    let upstream = Upstream::json(chat_answer(3, 2)).await;
    let quota = format!("requests_per_month: 2, {FAST}");
    let gateway = Plan::to(&upstream).quota(&quota).start().await;
    for _ in 0..2 {
        assert_eq!(post(&gateway, CHAT, &chat("phi", "hello")).await.status, 200);
    }
    let answer = post(&gateway, CHAT, &chat("phi", "hello")).await;
    answer.refused(429, "insufficient_quota");
    assert_eq!(answer.field("x-should-retry"), Some("false"));
    assert_eq!(answer.field("x-ratelimit-remaining-requests"), Some("0"));
    gateway.settled(3).await;
    gateway.pass(Duration::from_secs(32 * 86_400)).await;
    assert_eq!(post(&gateway, CHAT, &chat("phi", "hello")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn callers_see_their_quotas_and_use() {
    let upstream = Upstream::json(chat_answer(30, 12)).await;
    let quota = "tokens_per_day: 1000, gpu_seconds_per_hour: 60, concurrent: 4";
    let gateway = Plan::to(&upstream).quota(quota).start().await;
    assert_eq!(post(&gateway, CHAT, &chat("phi", "hello")).await.status, 200);
    gateway.settled(1).await;
    let me: Answer = get(&gateway, "/auth/me").await;
    let me = me.json();
    let quotas = &me["quotas"][0];
    assert_eq!(quotas["level"], "user", "{me}");
    let expected = json!({"concurrent": 4, "tokens_per_day": 1000, "gpu_seconds_per_hour": 60.0});
    assert_eq!(quotas["limits"], expected, "{me}");
    let day = &quotas["used"]["day"];
    assert_eq!((&day["tokens"], &day["requests"]), (&json!(42), &json!(2)), "{me}");
    assert_eq!(quotas["in_flight"], 1, "this very request: {me}");
}

/// A gateway before an upstream that works on one request at a time, with one place to wait.
async fn narrow(upstream: &Upstream) -> Gateway {
    let queue = "concurrent: 1, queue: {waiting: 1}";
    let blocks = format!("upstreams: {{local: {{url: '{}', {queue}}}}}", upstream.url());
    Plan::new(blocks).start().await
}

async fn waiting(gateway: &Gateway, count: usize) {
    let depths = [("local".into(), count)];
    until("the queue to be so long", || gateway.state.queue_depths() == depths).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_busy_upstream_is_waited_for_in_turn() {
    let (upstream, go) = held(&chat_answer(3, 2)).await;
    let gateway = narrow(&upstream).await;
    let body = chat("phi", "hello").to_string();
    let request = Head::post(&gateway, CHAT).with(body.as_bytes());
    let mut first = Connection::open(&gateway).await;
    first.send(&request).await;
    upstream.asked(1).await;
    let mut second = Connection::open(&gateway).await;
    second.send(&request).await;
    waiting(&gateway, 1).await;
    let third = post(&gateway, CHAT, &chat("phi", "hello")).await;
    assert!([429, 503].contains(&third.status), "{third:?}");
    let wait: u64 = third.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    // Lists are not what an upstream is busy with.
    let mut list = Connection::open(&gateway).await;
    list.send(&Head::new(&gateway, "GET", "/v1/models").bytes()).await;
    upstream.asked(2).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    go.add_permits(3);
    assert_eq!((first.answer().await.status, second.answer().await.status), (200, 200));
    list.answer().await;
    let records = gateway.settled(4).await;
    let waited = |record: &&Value| record["metadata"]["queue_ms"].as_u64() >= Some(20);
    let waited: Vec<_> = records.iter().filter(waited).collect();
    assert_eq!(waited.len(), 1, "{records:?}");
    let ms = waited[0]["metadata"]["queue_ms"].as_u64().unwrap();
    let overhead_us = waited[0]["overhead_us"].as_u64().unwrap();
    let latency_ms = waited[0]["latency_ms"].as_u64().unwrap();
    assert!(overhead_us / 1000 + ms <= latency_ms + 1, "no wait is overhead: {:?}", waited[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_is_revoked_while_waiting_is_told_so() {
    let (upstream, go) = held(&chat_answer(3, 2)).await;
    let gateway = narrow(&upstream).await;
    let ann = gateway.member("ann", AccountRole::User).await;
    let body = chat("phi", "hello").to_string();
    let mut first = Connection::open(&gateway).await;
    first.send(&Head::post(&gateway, CHAT).with(body.as_bytes())).await;
    upstream.asked(1).await;
    let second = tokio::spawn(async move { ann.chat().await });
    waiting(&gateway, 1).await;
    let by = Actor { name: "olga".into(), unrecorded: false };
    let (store, now) = (gateway.state.directory().store(), gateway.state.clock().unix_secs());
    store.revoke_user("ann", now, &by).await.unwrap();
    gateway.state.look().await.unwrap();
    second.await.unwrap().refused(401, "invalid_credentials");
    waiting(&gateway, 0).await;
    go.add_permits(1);
    assert_eq!(first.answer().await.status, 200);
    let records = gateway.settled(2).await;
    assert_eq!(records[0]["reason"], "invalid_credentials", "{records:?}");
    assert_eq!(upstream.seen().len(), 1, "it never reached the upstream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn lists_hold_no_gpu_time() {
    let (upstream, go) = held(&json!({ "object": "list", "data": [] })).await;
    let quota = format!("gpu_seconds_per_day: 60, tokens_per_day: 1000, {FAST}");
    let gateway = Plan::to(&upstream).quota(&quota).start().await;
    let mut list = Connection::open(&gateway).await;
    list.send(&Head::new(&gateway, "GET", "/v1/models").bytes()).await;
    upstream.asked(1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let spent = spent(&gateway, Level::User, USER).await;
    assert!(spent.reserved.is_nothing(), "{spent:?}");
    go.add_permits(1);
    assert_eq!(list.answer().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn reasoning_that_comes_under_two_names_counts_once() {
    let upstream = Upstream::start(|talk| async move {
        let mut talk = talk.begin("text/event-stream").await;
        for _ in 0..40 {
            let delta = json!({ "reasoning": "hm", "reasoning_content": "hm" });
            let choice = json!({ "index": 0, "delta": delta, "finish_reason": null });
            talk.chunk(&event(&json!({ "object": "chat.completion.chunk", "choices": [choice] })))
                .await;
        }
        talk.chunk(&delta("Paris")).await;
        talk.chunk("data: [DONE]\n\n").await;
        talk.end().await
    })
    .await;
    let gateway = Plan::to(&upstream).quota(&format!("tokens_per_day: 1000, {FAST}")).start().await;
    let mut request = streamed("phi", "hello");
    request["max_tokens"] = json!(50);
    let answer = post(&gateway, CHAT, &request).await;
    assert!(answer.text().contains("[DONE]"), "{answer:?}");
    gateway.record().await;
    let used = spent(&gateway, Level::User, USER).await.used;
    assert!((41..=50).contains(&used.completion), "{used:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_leaves_while_waiting_frees_the_place_at_once() {
    let (upstream, go) = held(&chat_answer(3, 2)).await;
    let gateway = narrow(&upstream).await;
    let body = chat("phi", "hello").to_string();
    let request = Head::post(&gateway, CHAT).with(body.as_bytes());
    let mut first = Connection::open(&gateway).await;
    first.send(&request).await;
    upstream.asked(1).await;
    let mut second = Connection::open(&gateway).await;
    second.send(&request).await;
    waiting(&gateway, 1).await;
    drop(second);
    waiting(&gateway, 0).await;
    go.add_permits(1);
    assert_eq!(first.answer().await.status, 200);
    let records = gateway.settled(2).await;
    assert_eq!(records[0]["status"], "aborted", "{records:?}");
    assert_eq!(upstream.seen().len(), 1, "it never reached the upstream");
}
