//! What the types cannot say: names that lead nowhere, bounds, settings that open the gateway.
//!
//! Every rule reports all that it finds, with its place in the file.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use super::diagnostic::{Problems, Report, quote};
use super::types::Config;

mod access;
mod firewall;
mod limits;
mod network;
mod outside;
mod secrets;
mod traffic;

/// Checks a config that may still lack an upstream.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn partial(config: &Config) -> Result<(), Problems> {
    let mut report = Report::new(&config.source);
    all(config, &mut report);
    report.finish()
}

/// Checks a config that is to be served.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn to_serve(config: &Config) -> Result<(), Problems> {
    let mut report = Report::new(&config.source);
    let help = "add one: upstreams: {local: {url: \"http://127.0.0.1:11434\"}}";
    report.require(!config.upstreams.is_empty(), "upstreams", "there is no upstream", help);
    all(config, &mut report);
    report.finish()
}

fn all(config: &Config, report: &mut Report<'_>) {
    let message = format!("version {} of the schema is not known", config.version);
    report.require(config.version == 1, "version", message, "write `version: 1`");
    network::check(config, report);
    secrets::check(config, report);
    access::check(config, report);
    outside::check(config, report);
    traffic::check(config, report);
    limits::check(config, report);
    firewall::check(config, report);
}

/// Reports a value outside its range.
fn within<T: PartialOrd + Display>(
    report: &mut Report<'_>,
    path: &str,
    value: T,
    range: &RangeInclusive<T>,
) {
    if !range.contains(&value) {
        let (low, high) = (range.start(), range.end());
        report.add(path, format!("{value} is out of range"), format!("from {low} to {high}"));
    }
}

/// Reports a duration outside its range, in seconds.
fn within_secs(report: &mut Report<'_>, path: &str, value: Duration, range: &RangeInclusive<u64>) {
    let (low, high) = (*range.start(), *range.end());
    if value < Duration::from_secs(low) || value > Duration::from_secs(high) {
        report.add(path, format!("{value:?} is out of range"), format!("from {low}s to {high}s"));
    }
}

/// Reports a duration outside its range.
fn within_time(
    report: &mut Report<'_>,
    path: &str,
    value: Duration,
    range: &RangeInclusive<Duration>,
) {
    if !range.contains(&value) {
        let (low, high) = (range.start(), range.end());
        report.add(path, format!("{value:?} is out of range"), format!("from {low:?} to {high:?}"));
    }
}

/// Reports a list that is longer than anyone needs.
fn at_most(report: &mut Report<'_>, path: &str, count: usize, most: usize) {
    let message = format!("{count} entries are too many");
    report.require(count <= most, path, message, format!("at most {most}"));
}

/// Reports a timeout that is nothing, which would refuse everybody, or longer than a bound.
fn timeout(report: &mut Report<'_>, path: &str, value: Duration, most: u64) {
    let holds = !value.is_zero() && value <= Duration::from_secs(most);
    let message = format!("{value:?} is out of range");
    report.require(holds, path, message, format!("more than 0, at most {most}s"));
}

/// Reports every value whose key was there before.
fn unique<K: Ord>(
    report: &mut Report<'_>,
    what: &str,
    items: impl IntoIterator<Item = (String, K, String)>,
) {
    let mut seen = BTreeMap::new();
    for (path, key, shown) in items {
        let line = report.line(&path);
        if let Some(first) = seen.get(&key) {
            let message = format!("the {what} {} is there twice", quote(&shown));
            report.add(&path, message, format!("the first one is in line {first}"));
        } else {
            seen.insert(key, line);
        }
    }
}

/// Reports a name that leads nowhere.
fn refers<V: Debug>(
    report: &mut Report<'_>,
    path: &str,
    what: &str,
    name: &str,
    known: &BTreeMap<String, V>,
) {
    if !known.contains_key(name) {
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        let help = super::explain::suggest(name, &names);
        report.add(path, format!("there is no {what} {}", quote(name)), help);
    }
}

/// Reports a name with characters that paths, logs and metrics would have to escape.
fn name(report: &mut Report<'_>, path: &str, name: &str) {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let holds = (1..=64).contains(&name.len()) && name.bytes().all(allowed);
    let message = format!("{} cannot be a name", quote(name));
    report.require(holds, path, message, "1 to 64 of A-Z a-z 0-9 _ -");
}

/// Reports networks with bits set behind their prefix: likely an address was meant.
fn networks(report: &mut Report<'_>, path: &str, networks: &[IpNet]) {
    for (index, network) in networks.iter().enumerate() {
        let message = format!("{} has host bits", quote(&network.to_string()));
        let help = format!("write {}", network.trunc());
        report.require(*network == network.trunc(), &format!("{path}[{index}]"), message, help);
    }
}

/// Reports every pattern of model names that is none.
fn patterns(report: &mut Report<'_>, path: &str, patterns: &[String]) {
    for (index, pattern) in patterns.iter().enumerate() {
        glob(report, &format!("{path}[{index}]"), pattern);
    }
}

fn glob(report: &mut Report<'_>, path: &str, pattern: &str) {
    let message = format!("{} is not a pattern of model names", quote(pattern));
    let help = "a name, in which `*` stands for any characters: llama3*, gpt-*-mini, *";
    report.require(is_pattern(pattern), path, message, help);
}

/// Visible ASCII without the characters that are wildcards elsewhere but not in [`crate::glob`].
fn is_pattern(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"?[]{}\\,".contains(&byte);
    (1..=256).contains(&text.len()) && text.bytes().all(allowed)
}
