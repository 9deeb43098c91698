//! `portcullis key`

use std::path::PathBuf;
use std::process::ExitCode;

use portcullis_filters::accounts::{ApiKey, Pepper};
use portcullis_filters::config;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde_json::json;

use super::{Outcome, out};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a key: prints it once, and the entry for `auth.api_keys`
    Create(Create),
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// The configuration whose `key_pepper` the key is stored under
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// The user who will own it
    #[arg(short, long)]
    user: String,
    /// What it is for
    #[arg(short, long, default_value = "")]
    name: String,
    /// What it may do
    #[arg(long, value_delimiter = ',', default_value = "llm:generate,llm:embed,models:read")]
    scopes: Vec<String>,
    /// With which models, as globs
    #[arg(long, value_delimiter = ',', default_value = "*")]
    models: Vec<String>,
    /// Until when, such as 2030-01-31T00:00:00Z
    #[arg(long)]
    expires: Option<String>,
    /// As JSON: {"api_key", "entry"}
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command) -> Outcome {
    let Command::Create(args) = command;
    let config = config::load(&args.config)?;
    if !config.auth.users.iter().any(|user| user.name == args.user) {
        return Err(format!("there is no user {} in {}", args.user, args.config.display()).into());
    }
    let base = args.config.parent().map(PathBuf::from).unwrap_or_default();
    let secrets = config.resolve_secrets(&base, &|name| std::env::var(name).ok())?;
    let pepper = secrets.key_pepper.ok_or("the configuration has no secrets.key_pepper")?;
    let made = Made::new(&pepper)?;
    let mut entry = json!({
        "id": made.id, "name": args.name, "user": args.user, "digest": made.digest,
        "scopes": args.scopes, "models": args.models,
    });
    if let (Some(expires), Some(entry)) = (&args.expires, entry.as_object_mut()) {
        entry.insert("expires".to_owned(), json!(expires));
    }
    let key = made.key.expose_secret();
    if args.json {
        out::line(&json!({ "api_key": key, "entry": entry }))?;
    } else {
        out::line(&format!(
            "{key}\n\nShown once. Add to auth.api_keys, then reload:\n  - {entry}"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A new key, and what is stored of it.
pub(super) struct Made {
    pub(super) key: SecretString,
    pub(super) id: String,
    pub(super) digest: String,
}

impl Made {
    /// Makes a key under a pepper.
    pub(super) fn new(pepper: &SecretString) -> Result<Self, Box<dyn std::error::Error>> {
        let bytes = SecretSlice::from(pepper.expose_secret().as_bytes().to_vec());
        let key = ApiKey::generate()?;
        let digest = Pepper::new(&bytes)?.digest(&key).to_string();
        Ok(Self { key: key.reveal(), id: key.id().to_string(), digest })
    }
}
