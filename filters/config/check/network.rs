//! Rules for listeners, the admin address, and who is believed about client addresses.

use std::net::SocketAddr;

use crate::config::diagnostic::{Report, quote};
use crate::config::types::{Config, Listener};

use super::unique;

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
    if config.auth.users.is_empty() && config.auth.api_keys.is_empty() {
        let message = format!("open bind: {} is served, but nobody can log in", listener.address);
        let help = "add a user or an API key under `auth`, or bind to 127.0.0.1";
        report.add(&at, message, help);
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
        let help = format!("write {}", network.trunc());
        report.require(*network == network.trunc(), &path, format!("{shown} has host bits"), help);
    }
}
