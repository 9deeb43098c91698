//! `portcullis emergency`

use portcullis_filters::accounts::{ApiKey, KeyId};
use secrecy::ExposeSecret;
use serde_json::json;

use super::accounts::{Accounts, Common, Sure, actor};
use super::{Failure, Outcome};
use crate::manage;

/// Characters of a reason.
const MAX_REASON: usize = 500;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Revoke every session, token and API key of everyone, on every gateway and on open streams
    RevokeAll(RevokeAll),
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
    let Command::RevokeAll(args) = command;
    let reason = reason(&args.reason)?;
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

fn reason(text: &str) -> Result<&str, Failure> {
    let text = text.trim();
    match text.chars().count() {
        1..=MAX_REASON if !text.chars().any(char::is_control) => Ok(text),
        _ => Err("--reason: say why, in 1 to 500 characters".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_a_line_of_text() {
        for (text, expected) in [
            (" a key leaked ", Some("a key leaked")),
            (&*"x".repeat(500), Some(&*"x".repeat(500))),
            (&"x".repeat(501), None),
            ("a\nb", None),
            ("  ", None),
            ("", None),
        ] {
            assert_eq!(reason(text).ok(), expected, "{text}");
        }
    }
}
