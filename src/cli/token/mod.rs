//! `portcullis token`
//!
//! | file | story |
//! |---|---|
//! | this one | scoped tokens are made, tokens are revoked |
//! | `inspect` | what a token says, and whether it is accepted |

mod inspect;

use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use portcullis_filters::accounts::store::{StoreError, User};
use portcullis_filters::accounts::token::{Issued, MAX_USER_TTL, ScopedGrant};
use portcullis_filters::accounts::{TokenError, TokenService, Verified};
use portcullis_filters::authz;
use portcullis_filters::snapshot::Snapshot;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::accounts::{Accounts, Common, actor};
use super::{Failure, Outcome, out};

/// Scopes that a scoped token may carry: those of the model APIs.
const SCOPES: [&str; 3] = ["llm:generate", "llm:embed", "models:read"];
/// Characters of a `jti`: 128 bits in base64url.
const ID_LEN: usize = 22;
/// Bytes of a file that are read.
const MAX_FILE: u64 = 64 << 10;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a scoped token: for one model, some scopes, and a minute at most
    Mint(Mint),
    /// What a token says, whether it is genuine and of now, and whether it is revoked
    Inspect(inspect::Args),
    /// Revoke a token, and with the token of a login its session
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
pub(super) struct Mint {
    /// The user on whose behalf it is used
    #[arg(short, long)]
    user: String,
    /// The one model it may be used with
    #[arg(short, long)]
    model: String,
    /// The most tokens that one request may ask for; the configuration's cap bounds it
    #[arg(long, value_name = "N")]
    max_tokens: u64,
    /// What it may be used for: of llm:generate, llm:embed, models:read what the user's role holds
    #[arg(long, value_delimiter = ',', default_value = "llm:generate")]
    scopes: Vec<String>,
    /// It works for one request only
    #[arg(long)]
    single_use: bool,
    /// It works from this address only
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    /// The id of the token, its `jti`; left out, the whole token is read from standard input
    #[arg(allow_hyphen_values = true)] // one id in 64 begins with one
    jti: Option<String>,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(command: &Command) -> Outcome {
    match command {
        Command::Mint(args) => mint(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Revoke(args) => revoke(args),
    }
}

fn mint(args: &Mint) -> Outcome {
    let accounts = Accounts::open(&args.common.config)?;
    let user = accounts.user(&args.user)?;
    let snapshot = accounts.snapshot()?;
    let (issued, max_tokens) = issue(args, user, &snapshot)?;
    let token = issued.token.expose_secret();
    if !args.common.json {
        out::note(&format!("id {}, expires in {} s", issued.id, issued.expires_in));
    }
    let shown = json!({
        "token": token,
        "token_type": "bearer",
        "expires_in": issued.expires_in,
        "max_tokens": max_tokens,
        "jti": issued.id,
    });
    args.common.answer(&shown, &token)
}

/// Never more than the role of the user holds.
fn issue(args: &Mint, user: User, snapshot: &Snapshot) -> Result<(Issued, u64), Failure> {
    if user.disabled {
        return Err(format!("the user {} is disabled", user.name).into());
    }
    let layer = &snapshot.rights(user.role).layer;
    if let Some(scope) = args.scopes.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
        let scopes = SCOPES.join(", ");
        return Err(format!("--scopes: {scope} is none of a scoped token: {scopes}").into());
    }
    if let Some(scope) = args.scopes.iter().find(|scope| !layer.holds(scope)) {
        return Err(format!("--scopes: the role {} does not hold {scope}", user.role).into());
    }
    let model = authz::canonical(&args.model).ok_or("--model: this is not the name of a model")?;
    if !layer.allows(&model) {
        return Err(format!("--model: the role {} may not use {model}", user.role).into());
    }
    if args.max_tokens == 0 {
        return Err("--max-tokens: at least 1".into());
    }
    let max_tokens = args.max_tokens.min(snapshot.caps().max_tokens);
    let issued = tokens(snapshot)?.issue_scoped(ScopedGrant {
        subject: user.name,
        epoch: user.epoch,
        session: None,
        key: None,
        scopes: args.scopes.clone(),
        model: snapshot.spelling(&model).unwrap_or(model),
        max_tokens,
        address: args.address,
        once: args.single_use,
        not_after: None,
    })?;
    Ok((issued, max_tokens))
}

fn tokens(snapshot: &Snapshot) -> Result<&TokenService, Failure> {
    let missing = "the configuration has no secrets.signing_key and token_key for tokens";
    snapshot.tokens().ok_or_else(|| missing.into())
}

fn revoke(args: &Revoke) -> Outcome {
    let accounts = Accounts::open(&args.common.config)?;
    let text = match &args.jti {
        Some(id) => revoke_id(&accounts, id)?,
        None => revoke_token(&accounts, &read(None)?)?,
    };
    args.common.answer(&json!({ "status": "success" }), &text)
}

/// By its id alone: of a session if there is one, else of a token that ends soon enough.
fn revoke_id(accounts: &Accounts, id: &str) -> Result<&'static str, Failure> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if id.len() != ID_LEN || !id.bytes().all(plain) {
        return Err("the id of a token has 22 characters; a whole token is read from \
                    standard input"
            .into());
    }
    let now = accounts.now();
    let mut sessions = accounts.open_sessions()?.into_iter();
    if let Some(session) = sessions.find(|session| session.id == id) {
        accounts.wait(accounts.store.revoke_session(&session.user, id, now, &actor()))?;
        return Ok("Revoked the token and its session.");
    }
    let latest = now.saturating_add(MAX_USER_TTL.as_secs());
    accounts.wait(accounts.store.revoke_token(id, latest, &actor()))?;
    Ok("Revoked the token.")
}

/// In the manner of RFC 7009: one that is void already is no error.
fn revoke_token(accounts: &Accounts, token: &SecretString) -> Result<&'static str, Failure> {
    let snapshot = accounts.snapshot()?;
    let verified = match tokens(&snapshot)?.verify(token.expose_secret()) {
        Ok(verified) => verified,
        Err(TokenError::Expired) => return Ok("The token has expired."),
        Err(error) => return Err(format!("{error}: no gateway accepts it").into()),
    };
    let (life, now, by) = (verified.life(), accounts.now(), actor());
    let revoked = match &*verified {
        Verified::User(token) => {
            accounts.wait(accounts.store.revoke_session(&token.subject, &life.id, now, &by))
        }
        Verified::Scoped(_) => {
            accounts.wait(accounts.store.revoke_token(&life.id, life.expires_at, &by))
        }
    };
    match revoked {
        Ok(()) => Ok("Revoked the token."),
        Err(StoreError::NotFound) => Ok("The token was revoked before."),
        Err(error) => Err(error.into()),
    }
}

/// A token from a file, or from standard input.
fn read(file: Option<&Path>) -> Result<SecretString, Failure> {
    let text = match file {
        Some(path) if path.as_os_str() != "-" => {
            let mut text = String::new();
            let named = |error| format!("{}: {error}", path.display());
            let file = std::fs::File::open(path).map_err(named)?;
            file.take(MAX_FILE).read_to_string(&mut text).map_err(named)?;
            SecretString::from(text)
        }
        _ => out::all_input()?,
    };
    Ok(SecretString::from(text.expose_secret().trim()))
}
