//! Rules for users, API keys, roles and the secrets that they need.

use crate::config::access::{ApiKey, RoleName, SCOPES};
use crate::config::diagnostic::{Report, quote};
use crate::config::explain;
use crate::config::secret::SecretRef;
use crate::config::types::Config;

use super::{patterns, refers, unique};

pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    roles(config, report);
    users(config, report);
    api_keys(config, report);
    needed_secrets(config, report);
    secret_refs(config, report);
}

fn roles(config: &Config, report: &mut Report<'_>) {
    for name in RoleName::ALL {
        let role = config.roles.get(name);
        let path = format!("roles.{}", name.as_str());
        scopes(report, &format!("{path}.scopes"), &role.scopes);
        patterns(report, &format!("{path}.models"), &role.models);
        refers(report, &format!("{path}.quota"), "quota", &role.quota, &config.quotas);
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
        report.require(is_user_name(&user.name), &path, message, "1 to 64 of A-Z a-z 0-9 . _ @ -");
    }
    unique(
        report,
        "user name",
        users().map(|(index, user)| {
            (format!("auth.users[{index}].name"), user.name.to_lowercase(), user.name.clone())
        }),
    );
}

/// ASCII only, so that no two names look or normalise (NFKC) alike.
fn is_user_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
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
        "12 of A-Z a-z 0-9, from `portcullis key create`",
    );
    let names: Vec<&str> = config.auth.users.iter().map(|user| user.name.as_str()).collect();
    if !names.iter().any(|name| name.eq_ignore_ascii_case(&key.user)) {
        let message = format!("there is no user {}", quote(&key.user));
        report.add(&format!("{path}.user"), message, explain::suggest(&key.user, &names));
    }
    let nothing = "this key may do nothing";
    report.require(!key.scopes.is_empty(), &format!("{path}.scopes"), nothing, "name its scopes");
    scopes(report, &format!("{path}.scopes"), &key.scopes);
    patterns(report, &format!("{path}.models"), &key.models);
}

fn needed_secrets(config: &Config, report: &mut Report<'_>) {
    let (users, keys) = (!config.auth.users.is_empty(), !config.auth.api_keys.is_empty());
    let refs = &config.secrets;
    for (needed, secret, key, what) in [
        (users, &refs.signing_key, "signing_key", "`auth.users` need it to sign their tokens"),
        (users, &refs.token_key, "token_key", "`auth.users` need it to sign scoped tokens"),
        (keys, &refs.key_pepper, "key_pepper", "`auth.api_keys` need it to check keys"),
    ] {
        let path = format!("secrets.{key}");
        let message = format!("`secrets.{key}` is missing: {what}");
        let help = format!("write `{key}: {{file: PATH}}`; `portcullis init` makes the file");
        report.require(!needed || secret.is_some(), &path, message, help);
    }
}

/// Does not repeat what is no name: it may be the secret itself.
fn secret_refs(config: &Config, report: &mut Report<'_>) {
    let refs = &config.secrets;
    let own = [
        ("signing_key", &refs.signing_key),
        ("token_key", &refs.token_key),
        ("key_pepper", &refs.key_pepper),
    ];
    let own = own.iter().map(|(key, place)| (format!("secrets.{key}"), place.as_ref()));
    let upstreams = config.upstreams.iter();
    let upstreams = upstreams
        .map(|(name, upstream)| (format!("upstreams.{name}.api_key"), upstream.api_key.as_ref()));
    let users = config.auth.users.iter().enumerate();
    let users = users.map(|(index, user)| {
        (format!("auth.users[{index}].password_hash"), user.password_hash.place())
    });
    for (path, place) in own.chain(upstreams).chain(users) {
        match place {
            Some(SecretRef::Env(name)) if !is_variable(name) => {
                let message = "this is not the name of an environment variable";
                report.add(&path, message, "capitals, digits and `_`: {env: OPENAI_API_KEY}");
            }
            Some(SecretRef::File(file)) if file.as_os_str().is_empty() => {
                report.add(&path, "this secret has no file", "name it: {file: PATH}");
            }
            Some(SecretRef::Env(_) | SecretRef::File(_)) | None => {}
        }
    }
}

fn is_variable(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty()
        && name.bytes().all(allowed)
        && !name.starts_with(|first: char| first.is_ascii_digit())
}
