//! Rules for who is believed about identities: external issuers, and services.

use crate::config::access::Auth;
use crate::config::diagnostic::{Report, quote};
use crate::config::oidc::Oidc;
use crate::config::service::Service;
use crate::config::types::Config;

use super::{at_most, unique, within_secs};

pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    issuers(&config.auth.oidc, report);
    services(config, report);
    names(&config.auth, report);
}

/// Their users are called `<name>:<user>`, so one name for two would make one user of two.
fn names(auth: &Auth, report: &mut Report<'_>) {
    let issuers = auth.oidc.iter().enumerate();
    let issuers = issuers.map(|(index, oidc)| (format!("auth.oidc[{index}].name"), &oidc.name));
    let services = auth.services.iter().enumerate();
    let services =
        services.map(|(index, service)| (format!("auth.services[{index}].name"), &service.name));
    let all = issuers.chain(services).map(|(path, name)| (path, name, name.clone()));
    unique(report, "name of an issuer or service", all);
}

fn issuers(issuers: &[Oidc], report: &mut Report<'_>) {
    at_most(report, "auth.oidc", issuers.len(), 16);
    for (index, oidc) in issuers.iter().enumerate() {
        let path = format!("auth.oidc[{index}]");
        short_name(report, &format!("{path}.name"), &oidc.name);
        tokens(oidc, &path, report);
        roles(oidc, &path, report);
    }
    // A token names its issuer and nothing else of the entry that it is for.
    let urls = issuers.iter().enumerate().map(|(index, oidc)| {
        let url = &oidc.issuer;
        (format!("auth.oidc[{index}].issuer"), url, url.as_str().to_owned())
    });
    unique(report, "issuer", urls);
}

/// What a token must say, and how it must be signed.
fn tokens(oidc: &Oidc, path: &str, report: &mut Report<'_>) {
    let message = "an issuer is a URL without a query";
    let help = "copy `issuer` from its discovery document, letter by letter";
    let plain = !oidc.issuer.as_str().contains('?');
    report.require(plain, &format!("{path}.issuer"), message, help);
    value(report, &format!("{path}.audience"), &oidc.audience, "the audience of its tokens");
    value(report, &format!("{path}.username_claim"), &oidc.username_claim, "the name of a claim");
    let algorithms = oidc.algorithms.iter().enumerate().map(|(index, algorithm)| {
        (format!("{path}.algorithms[{index}]"), *algorithm, algorithm.as_str().to_owned())
    });
    unique(report, "algorithm", algorithms);
    let message = "no token of this issuer could be checked";
    let some = !oidc.algorithms.is_empty();
    report.require(some, &format!("{path}.algorithms"), message, "RS256, ES256, EdDSA");
}

/// Who is let in must have a role, and a claim that is not looked at gives none.
fn roles(oidc: &Oidc, path: &str, report: &mut Report<'_>) {
    let (claim, map) = (oidc.role_claim.is_some(), !oidc.role_map.is_empty());
    let at = if map { "role_map" } else { "role_claim" };
    let message = "`role_claim` and `role_map` need each other";
    let help = "role_claim: groups, role_map: {llm-admins: admin}";
    report.require(claim == map, &format!("{path}.{at}"), message, help);
    let message = "no user of this issuer would have a role";
    let help = "add `default_role: user`, or `role_claim` and `role_map`";
    report.require(map || oidc.default_role.is_some(), path, message, help);
    at_most(report, &format!("{path}.role_map"), oidc.role_map.len(), 256);
    if let Some(claim) = &oidc.role_claim {
        value(report, &format!("{path}.role_claim"), claim, "the name of a claim");
    }
    for key in oidc.role_map.keys() {
        value(report, &format!("{path}.role_map.{key}"), key, "a value of `role_claim`");
    }
}

fn services(config: &Config, report: &mut Report<'_>) {
    let services = &config.auth.services;
    at_most(report, "auth.services", services.len(), 64);
    let verified = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let verified = verified.map(|tls| &tls.client_ca_file).any(Option::is_some);
    for (index, service) in services.iter().enumerate() {
        one_service(service, verified, &format!("auth.services[{index}]"), report);
    }
    let certificates = services.iter().enumerate().flat_map(|(index, service)| {
        service.certificates.iter().enumerate().map(move |(number, certificate)| {
            let path = format!("auth.services[{index}].certificates[{number}]");
            (path, *certificate, certificate.to_string())
        })
    });
    unique(report, "certificate", certificates);
}

fn one_service(service: &Service, verified: bool, path: &str, report: &mut Report<'_>) {
    short_name(report, &format!("{path}.name"), &service.name);
    let proof = service.secret.is_some() || !service.certificates.is_empty();
    let message = "this service could not prove that it is itself";
    let help = "add `secret: {file: PATH}`, or `certificates` with the SHA-256 of its certificate";
    report.require(proof, path, message, help);
    let at = format!("{path}.certificates");
    at_most(report, &at, service.certificates.len(), 16);
    let message = "no listener asks for a client certificate";
    let help = "name the CA of these in a listener: tls: {client_ca_file: clients.pem, …}";
    report.require(verified || service.certificates.is_empty(), &at, message, help);
    within_secs(report, &format!("{path}.max_skew"), service.max_skew, &(1..=300));
}

/// A name that stands in the names of users, in headers and in audit records.
fn short_name(report: &mut Report<'_>, path: &str, name: &str) {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let holds = (1..=32).contains(&name.len()) && name.bytes().all(allowed);
    report.require(
        holds,
        path,
        format!("{} cannot be a name", quote(name)),
        "1 to 32 of a-z 0-9 -",
    );
}

/// Text that is compared with what a token says.
fn value(report: &mut Report<'_>, path: &str, text: &str, what: &str) {
    let holds = (1..=256).contains(&text.len()) && !text.contains(char::is_control);
    let message = format!("{} is not {what}", quote(text));
    report.require(holds, path, message, "1 to 256 bytes of text");
}
