//! `portcullis key generate`: a key that is held in a configuration or in the environment.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use portcullis_filters::accounts::ApiKey;
use portcullis_filters::accounts::store::Key;
use portcullis_filters::clock::Clock;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::Rights;
use crate::cli::{Failure, Outcome, out, when};
use crate::{boot, manage};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The configuration whose `key_pepper` the entry is made under
    #[arg(short, long, value_name = "FILE", required_unless_present = "bare")]
    config: Option<PathBuf>,
    /// The user of `auth.users` who will own it
    #[arg(short, long, required_unless_present = "bare")]
    user: Option<String>,
    #[command(flatten)]
    rights: Rights,
    /// Print a key and nothing else, such as for API_KEY and `auth.environment_keys`
    #[arg(long, conflicts_with_all = ["config", "user", "json"])]
    bare: bool,
    /// As JSON: {"api_key", "entry"}
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Outcome {
    let (Some(config), Some(user)) = (&args.config, &args.user) else {
        out::line(&ApiKey::generate()?.reveal().expose_secret())?;
        return Ok(ExitCode::SUCCESS);
    };
    let (secret, key) = make(config, user, &args.rights)?;
    let (secret, entry) = (secret.expose_secret(), entry(&key));
    match args.json {
        true => out::line(&json!({ "api_key": secret, "entry": entry }))?,
        false => out::line(&format!(
            "{secret}\n\nShown once. Add to auth.api_keys, then reload:\n  - {entry}"
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn make(config: &Path, user: &str, rights: &Rights) -> Result<(SecretString, Key), Failure> {
    let clock = Clock::system();
    let (snapshot, now) = (boot::load(config, &clock)?.snapshot, clock.unix_secs());
    let name = manage::account_name(user).map_err(super::told)?;
    let owner = snapshot.declared().users.iter().find(|declared| declared.name == name);
    let owner = owner.ok_or_else(|| {
        format!("there is no user {name} in {}; for one of the store: key create", config.display())
    })?;
    let request = rights.request(&name, owner.role, &snapshot, now)?;
    super::make(request, &snapshot, now)
}

/// As it stands in `auth.api_keys`: JSON is YAML too.
fn entry(key: &Key) -> Value {
    let mut entry = json!({
        "id": key.id.to_string(), "name": key.name, "user": key.user,
        "digest": key.digest.to_string(), "scopes": key.scopes, "models": key.models,
    });
    let networks: Vec<String> = key.networks.iter().map(ToString::to_string).collect();
    let optional = [
        ("networks", (!networks.is_empty()).then(|| json!(networks))),
        ("quota", key.quota.as_ref().map(|quota| json!(quota))),
        ("expires", key.expires_at.map(|end| json!(when::shown(end)))),
    ];
    for (name, value) in optional {
        if let (Some(value), Some(entry)) = (value, entry.as_object_mut()) {
            entry.insert(name.to_owned(), value);
        }
    }
    entry
}
