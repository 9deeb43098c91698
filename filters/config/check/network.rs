//! Rules for listeners, the admin address, and who is believed about client addresses.

use std::net::SocketAddr;

use crate::config::access::AuthMode;
use crate::config::diagnostic::{Report, quote};
use crate::config::types::{Config, Listener};

use super::{networks, unique};

pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    let none = "there is no listener";
    report.require(
        !config.listeners.is_empty(),
        "listeners",
        none,
        "leave `listeners` out, or add one",
    );
    for (index, listener) in config.listeners.iter().enumerate() {
        open_bind(config, listener, &format!("listeners[{index}]"), report);
        super::name(report, &format!("listeners[{index}].name"), &listener.name);
    }
    unique(
        report,
        "listener name",
        config.listeners.iter().enumerate().map(|(index, listener)| {
            (format!("listeners[{index}].name"), &listener.name, listener.name.clone())
        }),
    );
    admin(config, report);
    development(config, report);
    clashes(config, report);
    proxies(config, report);
}

/// Nobody may stand on an open address without TLS or without a lock (OWASP API8).
fn open_bind(config: &Config, listener: &Listener, path: &str, report: &mut Report<'_>) {
    if is_loopback(listener.address) {
        return;
    }
    let at = format!("{path}.address");
    if listener.tls.is_none() && !listener.allow_plaintext {
        let message = format!("open bind: {} would serve without TLS", listener.address);
        let help = "set `tls: {cert_file: …, key_file: …}`, bind to 127.0.0.1, \
                    or set `allow_plaintext: true` behind a TLS edge";
        report.add(&at, message, help);
    }
    if !has_lock(config) {
        let message = format!("open bind: {} is served, but nobody can log in", listener.address);
        let help = "add keys under `secrets`: signing_key and token_key for users, key_pepper for \
                    API keys; or bind to 127.0.0.1";
        report.add(&at, message, help);
    }
}

/// Whether anyone could be let in. Who that is the account store knows, but without these keys it
/// is nobody.
const fn has_lock(config: &Config) -> bool {
    let (secrets, auth) = (&config.secrets, &config.auth);
    secrets.signing_key.is_some()
        || secrets.key_pepper.is_some()
        || !auth.users.is_empty()
        || !auth.api_keys.is_empty()
        || !auth.oidc.is_empty()
        || !auth.services.is_empty()
}

/// Without credentials only the machine itself may be served. The admin address always is its own.
fn development(config: &Config, report: &mut Report<'_>) {
    if config.auth.mode == AuthMode::Required {
        return;
    }
    let open = config.listeners.iter().map(|listener| listener.address);
    for address in open.filter(|address| !is_loopback(*address)) {
        let message = format!("development mode would serve {address} without any credential");
        let help = "bind every listener to 127.0.0.1 or [::1], or write `mode: required`";
        report.add("auth.mode", message, help);
    }
}

fn admin(config: &Config, report: &mut Report<'_>) {
    let address = config.admin.address;
    let message = format!("open bind: the admin address {address} is not a loopback address");
    let help = "bind it to 127.0.0.1 or [::1]; it has no login of its own";
    report.require(is_loopback(address), "admin.address", message, help);
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Each address is compared with all before it; the admin address comes first.
fn clashes(config: &Config, report: &mut Report<'_>) {
    let mut taken = vec![("admin.address".to_owned(), config.admin.address)];
    for (index, listener) in config.listeners.iter().enumerate() {
        let path = format!("listeners[{index}].address");
        if let Some((other, _)) = taken.iter().find(|(_, used)| clash(*used, listener.address)) {
            let message = format!("{} is taken by `{other}`", listener.address);
            report.add(&path, message, "give each its own port");
        }
        taken.push((path, listener.address));
    }
}

/// Port 0 is chosen by the system and clashes with none.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() != 0
        && one.port() == other.port()
        && (a == b || a.is_unspecified() || b.is_unspecified())
}

fn proxies(config: &Config, report: &mut Report<'_>) {
    for (index, network) in config.server.trusted_proxies.iter().enumerate() {
        let path = format!("server.trusted_proxies[{index}]");
        let shown = quote(&network.to_string());
        let everyone = format!("{shown} lets every client choose its own address");
        report.require(
            network.prefix_len() > 0,
            &path,
            everyone,
            "name the networks of your proxies",
        );
    }
    networks(report, "server.trusted_proxies", &config.server.trusted_proxies);
}
