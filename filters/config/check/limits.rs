//! Rules for numbers: limits, caps, quotas, thresholds, lifetimes.

use std::time::Duration;

use crate::config::access::{Auth, Login};
use crate::config::diagnostic::{Report, quote};
use crate::config::quota::Quota;
use crate::config::store::Store;
use crate::config::types::{Caps, Config, Limits, Server};

use super::{name, timeout, within, within_secs, within_time};

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
    firewall(config, report);
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
    for (key, value) in [
        ("requests_per_minute", quota.requests_per_minute.map(u64::from)),
        ("burst", Some(u64::from(quota.burst))),
        ("concurrent", quota.concurrent.map(u64::from)),
        ("tokens_per_minute", quota.tokens_per_minute),
        ("tokens_per_hour", quota.tokens_per_hour),
        ("tokens_per_day", quota.tokens_per_day),
        ("gpu_seconds_per_minute", quota.gpu_seconds_per_minute),
        ("gpu_seconds_per_hour", quota.gpu_seconds_per_hour),
        ("gpu_seconds_per_day", quota.gpu_seconds_per_day),
    ] {
        let value = value.unwrap_or(1);
        within(report, &format!("{path}.{key}"), value, &(1..=1_000_000_000_000));
    }
}

fn firewall(config: &Config, report: &mut Report<'_>) {
    for (key, policy) in &config.firewall.policies {
        name(report, &format!("firewall.policies.{key}"), key);
        let path = format!("firewall.policies.{key}.threshold");
        within(report, &path, policy.threshold, &(0.0..=1.0));
    }
}
