//! `portcullis init`: a folder with a configuration, keys and the first owner account.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use portcullis_filters::accounts::{Profile, generate_secret, generate_signing_key_pem, password};
use portcullis_filters::config::{Endpoint, UpstreamKind};
use secrecy::{ExposeSecret, SecretString};

use super::{Outcome, out};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder; it is made if it is not there
    #[arg(long, value_name = "DIR", default_value = "portcullis")]
    dir: PathBuf,
    /// The model server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:11434")]
    upstream: String,
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Serve that address without TLS although it is not loopback: behind a TLS edge, or in a
    /// container whose port is published on loopback only
    #[arg(long)]
    allow_plaintext: bool,
    /// The audit trail; a relative path starts from the folder
    #[arg(long, value_name = "FILE", default_value = "audit.jsonl")]
    audit_file: PathBuf,
    /// What the model server speaks
    #[arg(long, value_enum, default_value = "ollama")]
    kind: KindName,
    /// Name of the first owner; the password is asked for, or read from standard input
    #[arg(long, default_value = "owner")]
    owner: String,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum KindName {
    /// Ollama
    Ollama,
    /// A server compatible with OpenAI's API
    Openai,
}

/// What a new configuration is filled in with.
pub(super) struct Plan<'a> {
    pub(super) listen: SocketAddr,
    pub(super) allow_plaintext: bool,
    pub(super) admin: SocketAddr,
    pub(super) audit_file: &'a Path,
    pub(super) upstream: &'a Endpoint,
    pub(super) kind: UpstreamKind,
    pub(super) owner: &'a str,
    /// Entries of `auth.api_keys`, as YAML.
    pub(super) keys: String,
}

/// The file that is written.
pub(super) const CONFIG: &str = "portcullis.yaml";

pub(super) fn run(args: &Args) -> Outcome {
    let upstream = Endpoint::try_from(args.upstream.clone())?;
    let password = out::new_password()?;
    let hash = password::hash(&password, Profile::Owasp)?;
    let plan = Plan {
        listen: args.listen,
        allow_plaintext: args.allow_plaintext,
        admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
        audit_file: &args.audit_file,
        upstream: &upstream,
        kind: match args.kind {
            KindName::Ollama => UpstreamKind::Ollama,
            KindName::Openai => UpstreamKind::Openai,
        },
        owner: &args.owner,
        keys: String::new(),
    };
    if args.dir.join(CONFIG).exists() {
        return Err(format!("{} is there already", args.dir.join(CONFIG).display()).into());
    }
    secrets(&args.dir, &hash)?;
    write_config(&args.dir, &plan)?;
    let config = args.dir.join(CONFIG);
    out::line(&format!("Wrote {}. Next:\n  portcullis serve -c {0}", config.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the keys and the owner's password hash, and gives the pepper.
pub(super) fn secrets(dir: &Path, hash: &str) -> Result<SecretString, Box<dyn std::error::Error>> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let pepper = generate_secret::<48>()?;
    write(&dir.join("signing.pem"), generate_signing_key_pem()?.expose_secret())?;
    write(&dir.join("token.key"), generate_secret::<48>()?.expose_secret())?;
    write(&dir.join("pepper.key"), pepper.expose_secret())?;
    write(&dir.join("owner.hash"), hash)?;
    Ok(pepper)
}

/// Writes the configuration; an old one is replaced.
pub(super) fn write_config(dir: &Path, plan: &Plan<'_>) -> io::Result<()> {
    let path = dir.join(CONFIG);
    if path.exists() {
        fs::remove_file(&path)?;
    }
    write(&path, &text(plan))
}

/// A new file that only its owner can read; one that is there is not touched.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let named = |error: io::Error| io::Error::other(format!("{}: {error}", path.display()));
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(named)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(named)
}

fn text(plan: &Plan<'_>) -> String {
    let Plan { listen, allow_plaintext, admin, audit_file, upstream, kind, owner, keys } = plan;
    let audit_file = audit_file.display();
    let kind = match kind {
        UpstreamKind::Ollama => "ollama",
        UpstreamKind::Openai => "openai",
    };
    let keys = if keys.is_empty() { " []".to_owned() } else { format!("\n{keys}") };
    format!(
        "\
# Portcullis. Every key with its default: `portcullis config default`. Check a change before it is
# used: `portcullis check -c FILE`; put it in force: `kill -HUP` the gateway.
version: 1

listeners:
  - name: public
    address: \"{listen}\"     # for other machines: 0.0.0.0:8443, and tls below
    allow_plaintext: {allow_plaintext}
    # tls: {{cert_file: fullchain.pem, key_file: key.pem}}

admin:
  address: \"{admin}\"

secrets:
  signing_key: {{file: signing.pem}}
  token_key: {{file: token.key}}
  key_pepper: {{file: pepper.key}}

upstreams:
  local:
    kind: {kind}
    url: {upstream}

auth:
  users:
    - {{name: {owner}, role: owner, password_hash: {{file: owner.hash}}}}
    # Another: `portcullis user hash` makes the hash of a password.
  # `portcullis key create -c {CONFIG} --user {owner}` makes a key and its entry.
  api_keys:{keys}

audit:
  file: {audit_file}
"
    )
}
