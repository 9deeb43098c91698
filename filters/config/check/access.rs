//! Rules for users, API keys, second factors and roles.

use crate::accounts::account_name;
use crate::config::access::{ApiKey, Auth, Mfa};
use crate::config::diagnostic::{Report, quote};
use crate::config::explain;
use crate::config::roles::{RoleName, SCOPES};
use crate::config::types::Config;

use super::{at_most, networks, patterns, refers, unique, within};

pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    roles(config, report);
    users(config, report);
    api_keys(config, report);
    environment_keys(&config.auth, report);
    mfa(&config.auth.mfa, report);
    if let Some(file) = &config.auth.password_blocklist {
        let named = !file.as_os_str().is_empty();
        let help = "name a text file, one password a line, or write null";
        report.require(named, "auth.password_blocklist", "this list has no file", help);
    }
}

fn roles(config: &Config, report: &mut Report<'_>) {
    for name in RoleName::ALL {
        let role = config.roles.get(name);
        let path = format!("roles.{}", name.as_str());
        scopes(report, &format!("{path}.scopes"), &role.scopes);
        patterns(report, &format!("{path}.models"), &role.models);
        refers(report, &format!("{path}.quota"), "quota", &role.quota, &config.quotas);
        within(report, &format!("{path}.weight"), role.weight, &(1..=1_000));
    }
}

fn scopes(report: &mut Report<'_>, path: &str, scopes: &[String]) {
    for (index, scope) in scopes.iter().enumerate() {
        let message = format!("unknown scope {}", quote(scope));
        let help = || format!("{}, llm:*, models:*, *", explain::suggest(scope, &SCOPES));
        if !is_scope(scope) {
            report.add(&format!("{path}[{index}]"), message, help());
        }
    }
}

/// A known scope, `*`, or a known prefix with `:*`.
fn is_scope(scope: &str) -> bool {
    let of_prefix = |prefix: &str| SCOPES.iter().any(|known| known.starts_with(prefix));
    scope == "*"
        || SCOPES.contains(&scope)
        || scope.strip_suffix('*').is_some_and(|prefix| prefix.ends_with(':') && of_prefix(prefix))
}

fn users(config: &Config, report: &mut Report<'_>) {
    let users = || config.auth.users.iter().enumerate();
    for (index, user) in users() {
        let message = format!("{} cannot be a user name", quote(&user.name));
        let path = format!("auth.users[{index}].name");
        report.require(
            account_name(&user.name).is_some(),
            &path,
            message,
            "1 to 64 of A-Z a-z 0-9 . _ @ -",
        );
    }
    unique(
        report,
        "user name",
        users().map(|(index, user)| {
            (format!("auth.users[{index}].name"), user.name.to_lowercase(), user.name.clone())
        }),
    );
}

fn api_keys(config: &Config, report: &mut Report<'_>) {
    let keys = || config.auth.api_keys.iter().enumerate();
    for (index, key) in keys() {
        api_key(config, key, &format!("auth.api_keys[{index}]"), report);
    }
    let ids =
        keys().map(|(index, key)| (format!("auth.api_keys[{index}].id"), &key.id, key.id.clone()));
    unique(report, "API key id", ids);
}

fn api_key(config: &Config, key: &ApiKey, path: &str, report: &mut Report<'_>) {
    let id = key.id.len() == 12 && key.id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let message = format!("{} is not the id of an API key", quote(&key.id));
    report.require(
        id,
        &format!("{path}.id"),
        message,
        "12 of A-Z a-z 0-9, from `portcullis key generate`",
    );
    let names: Vec<&str> = config.auth.users.iter().map(|user| user.name.as_str()).collect();
    if !names.iter().any(|name| name.eq_ignore_ascii_case(&key.user)) {
        let message = format!("there is no user {}", quote(&key.user));
        report.add(&format!("{path}.user"), message, explain::suggest(&key.user, &names));
    }
    some_scopes(report, &format!("{path}.scopes"), &key.scopes);
    patterns(report, &format!("{path}.models"), &key.models);
    at_most(report, &format!("{path}.networks"), key.networks.len(), 64);
    networks(report, &format!("{path}.networks"), &key.networks);
    if let Some(quota) = &key.quota {
        refers(report, &format!("{path}.quota"), "quota", quota, &config.quotas);
    }
}

fn environment_keys(auth: &Auth, report: &mut Report<'_>) {
    let Some(keys) = &auth.environment_keys else { return };
    some_scopes(report, "auth.environment_keys.scopes", &keys.scopes);
    patterns(report, "auth.environment_keys.models", &keys.models);
}

fn some_scopes(report: &mut Report<'_>, path: &str, list: &[String]) {
    report.require(!list.is_empty(), path, "this key may do nothing", "name its scopes");
    scopes(report, path, list);
}

fn mfa(mfa: &Mfa, report: &mut Report<'_>) {
    let roles = mfa.required_for.iter().enumerate().map(|(index, role)| {
        (format!("auth.mfa.required_for[{index}]"), *role, role.as_str().to_owned())
    });
    unique(report, "role", roles);
    let issuer = &mfa.issuer;
    let plain = |c: char| c != ':' && !c.is_control();
    // The colon ends the issuer in the label of a key URI.
    let holds = (1..=64).contains(&issuer.chars().count()) && issuer.chars().all(plain);
    let message = format!("{} cannot be the name that apps show", quote(issuer));
    report.require(holds, "auth.mfa.issuer", message, "1 to 64 characters, none of them a colon");
}
