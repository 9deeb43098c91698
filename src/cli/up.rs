//! `portcullis up`: a gateway in front of a model server in one command, on loopback only.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use portcullis_filters::accounts::store::{NewUser, Source, StoreError};
use portcullis_filters::accounts::{AccountRole, KeyId};
use portcullis_filters::clock::Clock;
use portcullis_filters::config::{Endpoint, UpstreamKind};
use secrecy::{ExposeSecret, SecretString};

use super::accounts::{Accounts, actor};
use super::init::{self, CONFIG, Plan};
use super::{Failure, Outcome, key, log, out};
use crate::manage::KeyRequest;
use crate::upstream_probe::{self, Found};
use crate::{boot, server};

/// Exit code when no model server answers.
const NO_UPSTREAM: u8 = 3;
/// The account that is made, and the name of its key.
const OWNER: &str = "owner";
const KEY: &str = "up";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model server: an Ollama, or one compatible with OpenAI's API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:11434")]
    upstream: String,
    /// Where to listen; loopback only
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where metrics, health and /internal/* are; loopback only
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    admin: SocketAddr,
    /// Where keys, accounts and the audit trail are kept
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Make the API key anew; the old one is void
    #[arg(long)]
    new_key: bool,
}

pub(super) fn run(args: Args) -> Outcome {
    if !args.listen.ip().is_loopback() || !args.admin.ip().is_loopback() {
        return Err("`up` listens on loopback only; for other machines use `portcullis init`, \
                    then `tls` in the configuration, then `portcullis serve`"
            .into());
    }
    let upstream = Endpoint::try_from(args.upstream.clone())?;
    let Some(found) = ask(&upstream)? else {
        out::error(&format!(
            "no model server answers at {upstream}; start it, name another with --upstream URL, \
             or let `./run --with-model` install and start a small one"
        ));
        return Ok(ExitCode::from(NO_UPSTREAM));
    };
    let dir = args.state_dir.clone().map_or_else(default_dir, Ok)?;
    let key = prepare(&dir, &args, &upstream, found.kind)?;
    let path = dir.join(CONFIG);
    let clock = Clock::system();
    let loaded = boot::load(&path, &clock)?;
    log::start(&loaded.config.telemetry.log);
    greet(&args, &upstream, &found, key.as_ref(), &dir)?;
    server::serve(&path, loaded, clock)?;
    Ok(ExitCode::SUCCESS)
}

fn ask(upstream: &Endpoint) -> std::io::Result<Option<Found>> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    Ok(runtime.block_on(upstream_probe::ask(upstream)))
}

fn default_dir() -> Result<PathBuf, String> {
    let named = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = named("XDG_STATE_HOME").or_else(|| Some(named("HOME")?.join(".local/state")));
    state
        .map(|dir| dir.join("portcullis"))
        .ok_or_else(|| "give --state-dir: HOME is not set".to_owned())
}

/// Makes what is missing of secrets, owner and key, and the configuration on every start. Gives the
/// API key if it was made now.
fn prepare(
    dir: &Path,
    args: &Args,
    upstream: &Endpoint,
    kind: UpstreamKind,
) -> Result<Option<SecretString>, Failure> {
    let plan = Plan {
        listen: args.listen,
        allow_plaintext: false,
        admin: args.admin,
        audit_file: Path::new("audit.jsonl"),
        upstream,
        kind,
        mfa: false,
    };
    init::secrets(dir)?;
    init::write_config(dir, &plan)?;
    let accounts = Accounts::open(&dir.join(CONFIG))?;
    make_owner(&accounts)?;
    let keys = keys(&accounts)?;
    if !keys.is_empty() && !args.new_key {
        return Ok(None);
    }
    let new = make_key(&accounts)?;
    for old in keys {
        accounts.wait(accounts.store.revoke_key(old, accounts.now(), &actor()))?;
    }
    Ok(Some(new))
}

/// Without a password: the key is the way in. `portcullis user passwd` sets one.
fn make_owner(accounts: &Accounts) -> Result<(), StoreError> {
    if accounts.wait(accounts.store.user(OWNER))?.is_some() {
        return Ok(());
    }
    let owner = NewUser {
        name: OWNER.to_owned(),
        role: AccountRole::Owner,
        password_hash: None,
        email: None,
        source: Source::Store,
    };
    accounts.wait(accounts.store.create_user(owner, accounts.now(), &actor())).map(drop)
}
/// The keys that were made here and are not revoked.
fn keys(accounts: &Accounts) -> Result<Vec<KeyId>, StoreError> {
    let keys = accounts.wait(accounts.store.keys(Some(OWNER)))?;
    let ours = keys.iter().filter(|key| key.name == KEY && key.revoked_at.is_none());
    Ok(ours.map(|key| key.id).collect())
}

fn make_key(accounts: &Accounts) -> Result<SecretString, Failure> {
    let request = KeyRequest {
        user: OWNER.to_owned(),
        name: KEY.to_owned(),
        scopes: vec!["*".to_owned()],
        models: vec!["*".to_owned()],
        networks: Vec::new(),
        quota: None,
        expires_at: None,
    };
    let (secret, key) = key::make(request, &accounts.snapshot()?, accounts.now())?;
    accounts.wait(accounts.store.create_key(&key, &actor()))?;
    Ok(secret)
}

fn greet(
    args: &Args,
    upstream: &Endpoint,
    found: &Found,
    key: Option<&SecretString>,
    dir: &Path,
) -> std::io::Result<()> {
    let kind = match found.kind {
        UpstreamKind::Ollama => "Ollama",
        UpstreamKind::Openai => "OpenAI-compatible",
    };
    let model = found.models.first().map_or("MODEL", String::as_str);
    let shown = key.map_or("$PORTCULLIS_KEY", |key| key.expose_secret());
    out::line(&format!("\n  upstream  {upstream}  {kind}, {} models", found.models.len()))?;
    out::line(&format!("  gateway   http://{}", args.listen))?;
    out::line(&format!("  metrics   http://{}/metrics", args.admin))?;
    out::line(&format!("  audit     {}", dir.join("audit.jsonl").display()))?;
    match key {
        Some(_) => out::line(&format!("  your key  {shown}   (shown once)"))?,
        None => out::line(&"  your key  as shown on the first start; a new one: --new-key")?,
    }
    out::line(&format!(
        "\n  Loopback only, without TLS. Try it:\n\n\
         curl http://{}/v1/chat/completions -H 'Authorization: Bearer {shown}' \
         -H 'Content-Type: application/json' \
         -d '{{\"model\": \"{model}\", \"max_tokens\": 60, \"messages\": [{{\"role\": \"user\", \
         \"content\": \"What is the capital of France?\"}}]}}'\n",
        args.listen
    ))
}
