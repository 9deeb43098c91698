//! `portcullis up`: a gateway in front of a model server in one command, on loopback only.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use portcullis_filters::accounts::{Profile, generate_secret, password};
use portcullis_filters::clock::Clock;
use portcullis_filters::config::{Endpoint, UpstreamKind};
use secrecy::{ExposeSecret, SecretString};

use super::init::{self, CONFIG, Plan};
use super::key::Made;
use super::{Outcome, log, out};
use crate::upstream_probe::{self, Found};
use crate::{boot, server};

/// Exit code when no model server answers.
const NO_UPSTREAM: u8 = 3;
/// The account that is made.
const OWNER: &str = "owner";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model server: an Ollama, or one compatible with OpenAI's API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:11434")]
    upstream: String,
    /// Where to listen; loopback only
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where metrics and health are; loopback only
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

/// Makes the secrets on the first start, and the configuration on every one. Gives the API key if
/// it was made now.
fn prepare(
    dir: &Path,
    args: &Args,
    upstream: &Endpoint,
    kind: UpstreamKind,
) -> Result<Option<SecretString>, Box<dyn std::error::Error>> {
    let entry_file = dir.join("api-key.entry");
    let pepper_file = dir.join("pepper.key");
    let first = !pepper_file.exists();
    let pepper = if first {
        // Nobody knows this password: the key is the way in. `portcullis user hash` makes another.
        let hash = password::hash(&generate_secret::<24>()?, Profile::Owasp)?;
        init::secrets(dir, &hash)?
    } else {
        SecretString::from(std::fs::read_to_string(pepper_file)?.trim_end())
    };
    let made =
        (first || args.new_key || !entry_file.exists()).then(|| Made::new(&pepper)).transpose()?;
    if let Some(made) = &made {
        std::fs::write(&entry_file, entry(made))?;
    }
    let keys = std::fs::read_to_string(&entry_file)?;
    let plan = Plan {
        listen: args.listen,
        allow_plaintext: false,
        admin: args.admin,
        audit_file: Path::new("audit.jsonl"),
        upstream,
        kind,
        owner: OWNER,
        keys,
    };
    init::write_config(dir, &plan)?;
    Ok(made.map(|made| made.key))
}

fn entry(made: &Made) -> String {
    format!(
        "    - {{id: {}, name: up, user: {OWNER}, digest: {}, scopes: [\"*\"], models: [\"*\"]}}",
        made.id, made.digest
    )
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
