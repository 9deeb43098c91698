//! Rules for the secrets: those that something needs, and references that lead nowhere.

use crate::config::diagnostic::Report;
use crate::config::keys::SecretRefs;
use crate::config::secret::SecretRef;
use crate::config::types::Config;

use super::at_most;

pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    needed(config, report);
    accepted(&config.secrets, report);
    for (path, place) in references(config) {
        reference(&path, place, report);
    }
}

fn needed(config: &Config, report: &mut Report<'_>) {
    let (auth, refs) = (&config.auth, &config.secrets);
    let users = !auth.users.is_empty();
    let keys = !auth.api_keys.is_empty();
    let environment = auth.environment_keys.is_some() && !keys;
    let mfa = !auth.mfa.required_for.is_empty();
    let previous = refs.store_key_previous.is_some() && !mfa;
    for (needed, secret, key, what) in [
        (users, &refs.signing_key, "signing_key", "`auth.users` need it to sign their tokens"),
        (users, &refs.token_key, "token_key", "`auth.users` need it to sign scoped tokens"),
        (keys, &refs.key_pepper, "key_pepper", "`auth.api_keys` need it to check keys"),
        (environment, &refs.key_pepper, "key_pepper", "`auth.environment_keys` need it"),
        (mfa, &refs.store_key, "store_key", "`auth.mfa` needs it to seal second factors"),
        (previous, &refs.store_key, "store_key", "`store_key_previous` is the one before it"),
    ] {
        let path = format!("secrets.{key}");
        let message = format!("`secrets.{key}` is missing: {what}");
        let help = format!("write `{key}: {{file: PATH}}`; `portcullis init` makes the file");
        report.require(!needed || secret.is_some(), &path, message, help);
    }
}

fn accepted(refs: &SecretRefs, report: &mut Report<'_>) {
    at_most(report, "secrets.accept", refs.accept.len(), 8);
    for (index, accepted) in refs.accept.iter().enumerate() {
        let one = accepted.signing_key.is_some() != accepted.token_key.is_some();
        let message = "an accepted key is either a `signing_key` or a `token_key`";
        let help = "write {signing_key: {file: PATH}, until: 2027-01-31T00:00:00Z}, \
                    and an entry of its own for each key";
        report.require(one, &format!("secrets.accept[{index}]"), message, help);
    }
}

/// Every reference of the config, with its path.
fn references(config: &Config) -> impl Iterator<Item = (String, &SecretRef)> {
    let refs = &config.secrets;
    let own = [
        ("secrets.signing_key", &refs.signing_key),
        ("secrets.token_key", &refs.token_key),
        ("secrets.key_pepper", &refs.key_pepper),
        ("secrets.store_key", &refs.store_key),
        ("secrets.store_key_previous", &refs.store_key_previous),
    ];
    let own = own.into_iter().map(|(path, place)| (path.to_owned(), place.as_ref()));
    let accept = refs.accept.iter().enumerate().flat_map(|(index, key)| {
        let path = format!("secrets.accept[{index}]");
        [
            (format!("{path}.signing_key"), key.signing_key.as_ref()),
            (format!("{path}.token_key"), key.token_key.as_ref()),
        ]
    });
    let store = [("store.url".to_owned(), config.store.url.place())];
    let upstreams = config.upstreams.iter();
    let upstreams = upstreams
        .map(|(name, upstream)| (format!("upstreams.{name}.api_key"), upstream.api_key.as_ref()));
    let users = config.auth.users.iter().enumerate();
    let users = users.map(|(index, user)| {
        (format!("auth.users[{index}].password_hash"), user.password_hash.place())
    });
    let services = config.auth.services.iter().enumerate();
    let services = services.map(|(index, service)| {
        (format!("auth.services[{index}].secret"), service.secret.as_ref())
    });
    let all = own.chain(accept).chain(store).chain(upstreams).chain(users).chain(services);
    all.filter_map(|(path, place)| Some((path, place?)))
}

/// Does not repeat what is no name: it may be the secret itself.
fn reference(path: &str, place: &SecretRef, report: &mut Report<'_>) {
    match place {
        SecretRef::Env(name) if !is_variable(name) => {
            let message = "this is not the name of an environment variable";
            report.add(path, message, "capitals, digits and `_`: {env: OPENAI_API_KEY}");
        }
        SecretRef::File(file) if file.as_os_str().is_empty() => {
            report.add(path, "this secret has no file", "name it: {file: PATH}");
        }
        SecretRef::Env(_) | SecretRef::File(_) => {}
    }
}

fn is_variable(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty()
        && name.bytes().all(allowed)
        && !name.starts_with(|first: char| first.is_ascii_digit())
}
