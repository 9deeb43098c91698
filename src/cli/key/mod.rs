//! `portcullis key`
//!
//! | file | story |
//! |---|---|
//! | this one | the keys of the account store |
//! | `generate` | keys that a configuration or the environment holds |

mod generate;

use portcullis_filters::accounts::store::Key;
use portcullis_filters::accounts::{AccountRole, KeyId};
use portcullis_filters::snapshot::Snapshot;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::accounts::{Accounts, Common, Sure, actor, told};
use super::{Failure, Outcome, table, when};
use crate::manage::{self, KeyRequest};

/// The longest that a key goes on beside its successor, in seconds.
const MAX_GRACE: u64 = 30 * 24 * 60 * 60;
/// What keys may do where nothing is said, as far as the user's role holds it.
const USUAL_SCOPES: [&str; 3] = ["llm:generate", "llm:embed", "models:read"];

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a key in the account store; it is printed once
    Create(Create),
    /// Every key, or those of a user
    List(List),
    /// Make a key in the place of another, which goes on for a while
    Rotate(Rotate),
    /// Refuse a key from now on, also on open streams
    Revoke(Revoke),
    /// Make a key for a configuration: prints it once, with its entry for `auth.api_keys`
    Generate(generate::Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// The user who will own it
    #[arg(short, long)]
    user: String,
    #[command(flatten)]
    rights: Rights,
    #[command(flatten)]
    common: Common,
}

/// What a new key may do.
#[derive(Debug, clap::Args)]
struct Rights {
    /// What it is for
    #[arg(short, long, default_value = "")]
    name: String,
    /// What it may do; left out, what its user's role holds of llm:generate, llm:embed, models:read
    #[arg(long, value_delimiter = ',')]
    scopes: Vec<String>,
    /// With which models, as globs
    #[arg(long, value_delimiter = ',', default_value = "*")]
    models: Vec<String>,
    /// From which networks or addresses; left out, from everywhere
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    networks: Vec<String>,
    /// The quota that bounds it beside its user's
    #[arg(long)]
    quota: Option<String>,
    /// How long, such as 90d, or until when, such as 2030-01-31T00:00:00Z
    #[arg(long, value_name = "END")]
    expires: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Of this user only
    #[arg(short, long)]
    user: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(super) struct Rotate {
    /// The id of the key: what stands between `sk_` and the next `_`
    id: String,
    /// How long the old key goes on, at most 30d; 0 ends it now
    #[arg(long, default_value = "24h")]
    grace: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    /// The id of the key: what stands between `sk_` and the next `_`
    id: String,
    #[command(flatten)]
    sure: Sure,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(command: &Command) -> Outcome {
    match command {
        Command::Create(args) => create(args),
        Command::List(args) => list(args),
        Command::Rotate(args) => rotate(args),
        Command::Revoke(args) => revoke(args),
        Command::Generate(args) => generate::run(args),
    }
}

impl Rights {
    /// What is asked of a new key, if the role of its user holds it.
    fn request(
        &self,
        user: &str,
        role: AccountRole,
        snapshot: &Snapshot,
        now: u64,
    ) -> Result<KeyRequest, Failure> {
        let layer = &snapshot.rights(role).layer;
        let usual = || USUAL_SCOPES.into_iter().filter(|scope| layer.holds(scope));
        let scopes = match self.scopes.as_slice() {
            [] => usual().map(str::to_owned).collect(),
            given => given.to_vec(),
        };
        if let Some(scope) = scopes.iter().find(|scope| !layer.holds(scope)) {
            return Err(format!("--scopes: the role {role} does not hold {scope}").into());
        }
        Ok(KeyRequest {
            user: user.to_owned(),
            name: self.name.clone(),
            scopes,
            models: self.models.clone(),
            networks: self.networks.clone(),
            quota: self.quota.clone(),
            expires_at: self.expires.as_deref().map(|text| expiry(text, now)).transpose()?,
        })
    }
}

fn expiry(text: &str, now: u64) -> Result<u64, String> {
    when::end(text, now).map_err(|error| format!("--expires: {error}"))
}

/// Makes a key under the pepper of a configuration.
pub(super) fn make(
    request: KeyRequest,
    snapshot: &Snapshot,
    now: u64,
) -> Result<(SecretString, Key), Failure> {
    let pepper = snapshot.pepper().ok_or_else(no_pepper)?;
    let is_quota = |name: &str| snapshot.has_quota(name);
    manage::make_key(request, pepper, &is_quota, now, &actor().name).map_err(told)
}

fn no_pepper() -> Failure {
    "the configuration has no secrets.key_pepper".into()
}

fn create(args: &Create) -> Outcome {
    let accounts = Accounts::open(&args.common.config)?;
    let user = accounts.user(&args.user)?;
    let (snapshot, now) = (accounts.snapshot()?, accounts.now());
    let request = args.rights.request(&user.name, user.role, &snapshot, now)?;
    let (secret, key) = make(request, &snapshot, now)?;
    accounts.wait(accounts.store.create_key(&key, &actor()))?;
    let secret = secret.expose_secret();
    let shown = json!({ "id": key.id.to_string(), "api_key": secret });
    args.common.answer(&shown, &format!("{secret}\n\nShown once."))
}

fn list(args: &List) -> Outcome {
    let accounts = Accounts::open(&args.common.config)?;
    let user = args.user.as_deref().map(|name| accounts.user(name)).transpose()?;
    let keys = accounts.wait(accounts.store.keys(user.as_ref().map(|user| &*user.name)))?;
    let shown: Vec<Value> = keys.iter().map(manage::shown_key).collect();
    let head = [
        "ID",
        "USER",
        "NAME",
        "STATE",
        "SCOPES",
        "MODELS",
        "CREATED",
        "BY",
        "LAST USED",
        "EXPIRES",
    ];
    let rows: Vec<_> = keys.iter().map(|key| row(key, accounts.now())).collect();
    args.common.answer(&json!({ "api_keys": shown }), &table::columns(head, &rows))
}

fn row(key: &Key, now: u64) -> [String; 10] {
    [
        key.id.to_string(),
        key.user.clone(),
        key.name.clone(),
        state(key, now).to_owned(),
        key.scopes.join(","),
        key.models.join(","),
        when::shown(key.created_at),
        key.created_by.clone(),
        when::shown_or(key.last_used_at, "never"),
        when::shown_or(key.expires_at, "never"),
    ]
}

fn state(key: &Key, now: u64) -> &'static str {
    match (key.revoked_at, key.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now => "expired",
        (None, _) => "active",
    }
}

fn rotate(args: &Rotate) -> Outcome {
    let grace = when::span(&args.grace).map_err(|error| format!("--grace: {error}"))?;
    if grace > MAX_GRACE {
        return Err("--grace: at most 30d".into());
    }
    let accounts = Accounts::open(&args.common.config)?;
    let old = find(&accounts, &args.id)?;
    let now = accounts.now();
    if state(&old, now) != "active" {
        return Err(format!("the key is {}: make another", state(&old, now)).into());
    }
    let snapshot = accounts.snapshot()?;
    let pepper = snapshot.pepper().ok_or_else(no_pepper)?;
    let (secret, new) = manage::successor(&old, pepper, now, &actor().name).map_err(told)?;
    let until = now.saturating_add(grace).min(old.expires_at.unwrap_or(u64::MAX));
    accounts.wait(accounts.store.rotate_key(old.id, until, &new, &actor()))?;
    let secret = secret.expose_secret();
    let shown = json!({
        "id": new.id.to_string(), "api_key": secret, "old_expires_at": until,
    });
    let text = format!("{secret}\n\nShown once. The old key ends at {}.", when::shown(until));
    args.common.answer(&shown, &text)
}

fn revoke(args: &Revoke) -> Outcome {
    let accounts = Accounts::open(&args.common.config)?;
    let key = find(&accounts, &args.id)?;
    args.sure.confirm(&format!("Revoke the key {} of {}", key.id, key.user))?;
    let was_active = accounts.wait(accounts.store.revoke_key(key.id, accounts.now(), &actor()))?;
    let text = if was_active { "Revoked" } else { "It was revoked before:" };
    let shown = json!({ "status": "success", "id": key.id.to_string() });
    args.common.answer(&shown, &format!("{text} the key {} of {}.", key.id, key.user))
}

/// A key of the store by its id. What is given may be a whole key, and is not repeated.
fn find(accounts: &Accounts, id: &str) -> Result<Key, Failure> {
    let plain = id.strip_prefix("sk_").unwrap_or(id);
    let id: KeyId = plain.parse().map_err(|_| "the id of a key has 12 letters and digits")?;
    let keys = accounts.wait(accounts.store.keys(None))?;
    let key = keys.into_iter().find(|key| key.id == id);
    key.ok_or_else(|| format!("there is no key {id}").into())
}
