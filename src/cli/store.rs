//! `portcullis store`

use std::path::Path;

use portcullis_filters::accounts::store::SCHEMA_VERSION;
use secrecy::ExposeSecret;
use serde_json::json;

use super::accounts::{Accounts, Common};
use super::{Outcome, table};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Where the account store is and what is in it; fails if it cannot be used
    Status(Common),
}

pub(super) fn run(command: &Command) -> Outcome {
    let Command::Status(common) = command;
    // Opening brings the schema up to date and seals anew what the previous key sealed, or fails.
    let accounts = Accounts::open(&common.config)?;
    let url = accounts.secrets.store.url();
    let url = shown(url.expose_secret(), &accounts.base);
    let revision = accounts.wait(accounts.store.revision())?;
    let users = accounts.wait(accounts.store.users())?;
    let keys = accounts.wait(accounts.store.keys(None))?;
    let live = keys.iter().filter(|key| key.revoked_at.is_none()).count();
    let factors = users.iter().filter(|user| user.mfa).count();
    let sessions = accounts.open_sessions()?.len();
    let sealed = accounts.secrets.store_key.is_some();
    let answer = json!({
        "url": url,
        "schema_version": SCHEMA_VERSION,
        "revision": revision,
        "users": users.len(),
        "users_with_mfa": factors,
        "api_keys": live,
        "open_sessions": sessions,
        "sealed_with_current_key": sealed,
    });
    let seal = if sealed { "with the current store_key" } else { "no store_key: nothing is kept" };
    let pairs = [
        ("url", url),
        ("schema", SCHEMA_VERSION.to_string()),
        ("changes", revision.to_string()),
        ("users", format!("{}, {factors} with a second factor", users.len())),
        ("API keys", format!("{live}, {} revoked", keys.len().saturating_sub(live))),
        ("open sessions", sessions.to_string()),
        ("sealed", seal.to_owned()),
    ];
    common.answer(&answer, &table::pairs(&pairs))
}

/// The URL, of a file with its folder; without a password, and without parameters, which may hold one.
fn shown(url: &str, base: &Path) -> String {
    let Some(file) = url.strip_prefix("sqlite:") else { return without_secrets(url) };
    match file.strip_prefix("//").unwrap_or(file) {
        ":memory:" => "sqlite::memory:".to_owned(),
        file => format!("sqlite:{}", base.join(file).display()),
    }
}

fn without_secrets(url: &str) -> String {
    let url = url.split_once('?').map_or(url, |(url, _)| url);
    let Some((scheme, rest)) = url.split_once("://") else { return String::new() };
    let (user, host) = rest.rsplit_once('@').unwrap_or(("", rest));
    match user.split_once(':').map_or(user, |(user, _)| user) {
        "" => format!("{scheme}://{host}"),
        user => format!("{scheme}://{user}@{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (url, expected) in [
            ("sqlite::memory:", "sqlite::memory:"),
            ("sqlite://:memory:", "sqlite::memory:"),
            ("sqlite:a b.db", "sqlite:/srv/a b.db"),
            ("sqlite:///a/b.db", "sqlite:/a/b.db"),
            ("postgres://h/d", "postgres://h/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://u:hunter2@h:1/d", "postgres://u@h:1/d"),
            ("postgres://:hunter2@h/d", "postgres://h/d"),
            ("postgres:///d?host=/s&password=hunter2", "postgres:///d"),
        ] {
            assert_eq!(shown(url, Path::new("/srv")), expected, "{url}");
        }
    }
}
