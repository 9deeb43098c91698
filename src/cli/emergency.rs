//! `portcullis emergency`

mod rate_limit;
mod sanitization;

use portcullis_filters::accounts::{ApiKey, KeyId};
use secrecy::ExposeSecret;
use serde_json::json;

use super::Outcome;
use super::accounts::{Accounts, Common, Sure, actor, told};
use crate::{manage, quotas};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Revoke every session, token and API key of everyone, on every gateway and on open streams
    RevokeAll(RevokeAll),
    /// Tighter limits for everybody, for a while
    #[command(subcommand)]
    RateLimit(rate_limit::Command),
    /// A strict firewall for everybody
    #[command(subcommand)]
    Sanitization(sanitization::Command),
}

#[derive(Debug, clap::Args)]
pub(super) struct RevokeAll {
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    sure: Sure,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(command: &Command) -> Outcome {
    match command {
        Command::RevokeAll(args) => revoke_all(args),
        Command::RateLimit(command) => rate_limit::run(command),
        Command::Sanitization(command) => sanitization::run(command),
    }
}

fn revoke_all(args: &RevokeAll) -> Outcome {
    let reason = &quotas::reason(&args.reason).map_err(told)?;
    let accounts = Accounts::open(&args.common.config)?;
    args.sure.confirm("Revoke every session, token and API key of everyone")?;
    let keys = accounts.secrets.environment_keys.iter();
    let ids = keys.filter_map(|key| Some(ApiKey::parse(key.expose_secret()).ok()?.id()));
    let ids: Vec<KeyId> = ids.collect();
    let (store, now, by) = (accounts.store.as_ref(), accounts.now(), actor());
    let revoking = manage::revoke_everything(store, ids.into_iter(), reason, now, &by);
    let revoked = accounts.wait(revoking)?;
    let shown = json!({
        "status": "success",
        "reason": reason,
        "revoked_keys": revoked.keys,
        "revoked_tokens": revoked.sessions,
        "revoked_users": revoked.users,
    });
    let text = format!(
        "Revoked API keys: {}, sessions: {}, users whose tokens are void: {}",
        revoked.keys, revoked.sessions, revoked.users
    );
    args.common.answer(&shown, &text)
}
