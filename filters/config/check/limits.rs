//! Rules for numbers: limits, caps, quotas, thresholds, lifetimes.

use std::time::Duration;

use crate::config::access::{Auth, Login};
use crate::config::counters::{Counters, CountersBackend, RedisMode};
use crate::config::diagnostic::{Report, quote};
use crate::config::quota::Quota;
use crate::config::store::Store;
use crate::config::types::{Caps, Config, Limits, Server};

use super::{glob, name, refers, timeout, within, within_secs, within_time};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    server(&config.server, report);
    for (index, listener) in config.listeners.iter().enumerate() {
        limits(&listener.limits, &format!("listeners[{index}].limits"), report);
    }
    bodies(config, report);
    store(&config.store, report);
    lifetimes(&config.auth, report);
    login(&config.auth.login, report);
    caps(&config.caps, report);
    for (key, quota) in &config.quotas {
        name(report, &format!("quotas.{key}"), key);
        quotas(quota, &format!("quotas.{key}"), report);
    }
    shared_quotas(config, report);
    counters(&config.counters, report);
    let file = config.audit.file.as_os_str();
    report.require(!file.is_empty(), "audit.file", "the audit trail has no file", "name one");
}

fn server(server: &Server, report: &mut Report<'_>) {
    within(report, "server.threads", server.threads, &(0..=1024));
    within_secs(report, "server.drain_timeout", server.drain_timeout, &(0..=HOUR));
}

fn limits(limits: &Limits, path: &str, report: &mut Report<'_>) {
    timeout(report, &format!("{path}.header_timeout"), limits.header_timeout, 600);
    timeout(report, &format!("{path}.body_timeout"), limits.body_timeout, HOUR);
    let head = 1 << 10..=1 << 20;
    within(report, &format!("{path}.max_header_bytes"), limits.max_header_bytes, &head);
    let connections = 1..=1_000_000;
    within(report, &format!("{path}.max_connections"), limits.max_connections, &connections);
}

/// A body that is allowed but can never be held would always be refused as overload.
fn bodies(config: &Config, report: &mut Report<'_>) {
    let listeners = config.listeners.iter().enumerate().map(|(index, listener)| {
        (format!("listeners[{index}].limits"), Some(listener.limits.max_body_bytes))
    });
    let routes = config.routes.iter().enumerate();
    let routes = routes.map(|(index, route)| (format!("routes[{index}]"), route.max_body_bytes));
    let memory = config.server.body_memory;
    for (path, bytes) in listeners.chain(routes) {
        let path = format!("{path}.max_body_bytes");
        let bytes = bytes.unwrap_or(1);
        report.require(bytes > 0, &path, "no request would fit", "write a size: 8MiB");
        let message = format!("one body of {bytes} bytes does not fit into `body_memory`");
        let help = format!("`server.body_memory` is {memory} bytes: raise it, or lower this");
        report.require(bytes <= memory, &path, message, help);
    }
}

/// A change must reach every gateway within a second, so changes are looked for twice in it.
fn store(store: &Store, report: &mut Report<'_>) {
    let millis = Duration::from_millis;
    within_time(report, "store.timeout", store.timeout, &(millis(100)..=millis(10_000)));
    within_time(report, "store.refresh", store.refresh, &(millis(50)..=millis(500)));
    within_secs(report, "store.max_stale", store.max_stale, &(1..=600));
    within(report, "store.connections", store.connections, &(1..=64));
}

/// Stolen tokens must expire soon (RFC 9700 section 2.2).
fn lifetimes(auth: &Auth, report: &mut Report<'_>) {
    within_secs(report, "auth.user_token_ttl", auth.user_token_ttl, &(60..=15 * 60));
    within_secs(report, "auth.llm_token_ttl", auth.llm_token_ttl, &(5..=60));
}

fn login(login: &Login, report: &mut Report<'_>) {
    within(report, "auth.login.concurrent", login.concurrent, &(1..=64));
    within(report, "auth.login.queue", login.queue, &(0..=10_000));
    // NIST SP 800-63B section 5.2.2: no more than 100.
    within(report, "auth.login.max_failures", login.max_failures, &(1..=100));
    within_secs(report, "auth.login.window", login.window, &(1..=DAY));
}

fn caps(caps: &Caps, report: &mut Report<'_>) {
    const MOST: u64 = 1 << 32;
    within(report, "caps.max_tokens", caps.max_tokens, &(1..=MOST));
    within(report, "caps.choices", caps.choices, &(1..=128));
    within(report, "caps.num_ctx", caps.num_ctx, &(1..=MOST));
    within(report, "caps.top_logprobs", caps.top_logprobs, &(0..=100));
    within(report, "caps.inputs", caps.inputs, &(1..=1_000_000));
    within(report, "caps.messages", caps.messages, &(1..=1_000_000));
    within_secs(report, "caps.keep_alive", caps.keep_alive, &(0..=30 * DAY));
    for (index, param) in caps.extra_params.iter().enumerate() {
        let path = format!("caps.extra_params[{index}]");
        name(report, &path, param);
        let message = format!("{} is bounded by the gateway", quote(param));
        let help = "it is passed on already, within the caps; remove it here";
        report.require(!CAPPED.contains(&param.as_str()), &path, message, help);
    }
}

/// Parameters that the gateway reads itself: passed on unread they would go around it.
const CAPPED: [&str; 16] = [
    "model",
    "messages",
    "prompt",
    "input",
    "stream",
    "options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "num_predict",
    "num_ctx",
    "keep_alive",
    "n",
    "best_of",
    "logprobs",
    "top_logprobs",
];

fn quotas(quota: &Quota, path: &str, report: &mut Report<'_>) {
    let others = [
        ("requests_per_minute", quota.requests_per_minute.map(u64::from)),
        ("burst", Some(u64::from(quota.burst))),
        ("concurrent", quota.concurrent.map(u64::from)),
    ];
    for (key, value) in others.into_iter().chain(quota.windows()) {
        let value = value.unwrap_or(1);
        within(report, &format!("{path}.{key}"), value, &(1..=1_000_000_000_000));
    }
}

fn shared_quotas(config: &Config, report: &mut Report<'_>) {
    let shared = &config.shared_quotas;
    let mut named = |path: String, quota: &str| {
        refers(report, &path, "quota", quota, &config.quotas);
    };
    shared.global.iter().for_each(|quota| named("shared_quotas.global".to_owned(), quota));
    shared.address.iter().for_each(|quota| named("shared_quotas.address".to_owned(), quota));
    for (role, quota) in &shared.roles {
        named(format!("shared_quotas.roles.{}", role.as_str()), quota);
    }
    for (upstream, quota) in &shared.upstreams {
        named(format!("shared_quotas.upstreams.{upstream}"), quota);
    }
    for (index, entry) in shared.models.iter().enumerate() {
        named(format!("shared_quotas.models[{index}].quota"), &entry.quota);
    }
    for upstream in shared.upstreams.keys() {
        let path = format!("shared_quotas.upstreams.{upstream}");
        refers(report, &path, "upstream", upstream, &config.upstreams);
    }
    for (index, entry) in shared.models.iter().enumerate() {
        glob(report, &format!("shared_quotas.models[{index}].model"), &entry.model);
    }
}

fn counters(counters: &Counters, report: &mut Report<'_>) {
    let millis = Duration::from_millis;
    within_time(report, "counters.timeout", counters.timeout, &(millis(5)..=millis(150)));
    within_secs(report, "counters.lease", counters.lease, &(2..=600));
    within(report, "counters.gateways", counters.gateways, &(1..=1_000));
    name(report, "counters.prefix", &counters.prefix);
    name(report, "counters.master", &counters.master);
    let redis = counters.backend == CountersBackend::Redis;
    let help = "name it: urls: [\"redis://127.0.0.1:6379\"]";
    report.require(!redis || !counters.urls.is_empty(), "counters.urls", "no server", help);
    let one = counters.mode != RedisMode::Single || counters.urls.len() <= 1;
    let help = "write `mode: sentinel` or `mode: cluster`, or name one";
    report.require(one, "counters.urls", "one server has one URL", help);
    for (index, url) in counters.urls.iter().enumerate() {
        redis_url(url, &format!("counters.urls[{index}]"), report);
    }
}

/// Does not repeat the URL: there may be a password in it.
fn redis_url(url: &str, path: &str, report: &mut Report<'_>) {
    let rest = url.strip_prefix("redis://").or_else(|| url.strip_prefix("rediss://"));
    let help = "write redis://HOST:PORT or redis://HOST:PORT/DB, with TLS rediss://";
    report.require(rest.is_some(), path, "this is not the URL of a Redis server", help);
    let rest = rest.unwrap_or("host");
    let help = "its user and password are `counters.username` and `counters.password`";
    report.require(!rest.contains('@'), path, "this URL holds a user or a password", help);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-:/[]_".contains(&b);
    let holds = !rest.is_empty() && rest.bytes().all(|b| plain(b) || b == b'@');
    report.require(holds, path, "this URL has no valid host", "write redis://HOST:PORT");
}
