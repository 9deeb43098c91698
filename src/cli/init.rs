//! `portcullis init`: a folder with a configuration, keys, and the first owner in the account store.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use portcullis_filters::accounts::store::{NewUser, Source};
use portcullis_filters::accounts::{
    AccountRole, Blocklist, Profile, generate_secret, generate_signing_key_pem,
};
use portcullis_filters::config::{Endpoint, UpstreamKind};
use secrecy::ExposeSecret;

use super::accounts::{Accounts, actor, told};
use super::{Failure, Outcome, enrol, out};
use crate::manage;

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
    /// Ask for no second factor: of the owner now, and of owners and admins at logins
    #[arg(long)]
    no_mfa: bool,
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
    /// Whether owners and admins need a second factor.
    pub(super) mfa: bool,
}

/// The file that is written.
pub(super) const CONFIG: &str = "portcullis.yaml";

/// The secrets beside it.
const SECRETS: [&str; 4] = ["signing.pem", "token.key", "pepper.key", "store.key"];

pub(super) fn run(args: &Args) -> Outcome {
    let upstream = Endpoint::try_from(args.upstream.clone())?;
    let config = args.dir.join(CONFIG);
    if config.exists() {
        return Err(format!("{} is there already", config.display()).into());
    }
    let owner = owner(&args.owner)?;
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
        mfa: !args.no_mfa,
    };
    secrets(&args.dir)?;
    write_config(&args.dir, &plan)?;
    let accounts = Accounts::open(&config)?;
    let owner = accounts.wait(accounts.store.create_user(owner, accounts.now(), &actor()))?;
    if !args.no_mfa {
        second_factor(&accounts, &owner.name)?;
    }
    out::line(&format!("Wrote {}. Next:\n  portcullis serve -c {0}", config.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// The first account. Its password is judged before anything is written.
fn owner(name: &str) -> Result<NewUser, Failure> {
    let name = manage::account_name(name).map_err(told)?;
    let password = out::new_password()?;
    let hash = manage::new_hash(&name, &password, Profile::Owasp, &Blocklist::default())?;
    Ok(NewUser {
        name,
        role: AccountRole::Owner,
        password_hash: Some(hash),
        email: None,
        source: Source::Store,
    })
}

/// Where nobody can be asked for a code, the factor is confirmed after the first login: until then
/// the owner may do nothing else.
fn second_factor(accounts: &Accounts, owner: &str) -> Result<(), Failure> {
    let enrolment = enrol::begin(accounts, owner)?;
    enrol::show(&enrolment)?;
    let confirmed = out::is_interactive() && enrol::confirm(accounts, owner, &enrolment)?;
    if !confirmed {
        out::line(
            &"The second factor is not confirmed: log in, then POST /auth/mfa/confirm with a code.",
        )?;
    }
    Ok(())
}

/// Makes the secrets that are not there. One that is there is not touched.
pub(super) fn secrets(dir: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for name in SECRETS {
        let path = dir.join(name);
        if path.exists() {
            continue;
        }
        let secret = match name {
            "signing.pem" => generate_signing_key_pem()?,
            _ => generate_secret::<48>()?,
        };
        write(&path, secret.expose_secret())?;
    }
    Ok(())
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
    let Plan { listen, allow_plaintext, admin, audit_file, upstream, kind, mfa } = plan;
    let audit_file = audit_file.display();
    let kind = match kind {
        UpstreamKind::Ollama => "ollama",
        UpstreamKind::Openai => "openai",
    };
    let required_for = if *mfa { "[owner, admin]" } else { "[]" };
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
  store_key: {{file: store.key}}

# Users, API keys and sessions; a Postgres for several gateways. More of them:
# `portcullis user add NAME -c {CONFIG}`, `portcullis key create --user NAME -c {CONFIG}`.
store:
  url: \"sqlite:portcullis.db\"

upstreams:
  local:
    kind: {kind}
    url: {upstream}

auth:
  mfa:
    required_for: {required_for}     # roles that may do nothing before they have a second factor

audit:
  file: {audit_file}
"
    )
}
