//! A second factor on the terminal: shown once, and confirmed by a code of it.

use std::io::{self, IsTerminal};

use portcullis_filters::accounts::totp;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::accounts::{Accounts, actor, told};
use super::{Failure, out};
use crate::manage::{self, Enrolment};

/// How often a code may be mistyped.
const TRIES: usize = 3;

/// Begins a second factor; it counts from when it is confirmed.
pub(super) fn begin(accounts: &Accounts, user: &str) -> Result<Enrolment, Failure> {
    let issuer = &accounts.config.auth.mfa.issuer;
    let (store, now, by) = (accounts.store.as_ref(), accounts.now(), actor());
    accounts.wait(manage::begin_mfa(store, issuer, user, now, &by)).map_err(told)
}

/// Shows it to people; the QR code on a terminal only.
pub(super) fn show(enrolment: &Enrolment) -> io::Result<()> {
    if io::stdout().is_terminal()
        && let Some(code) = totp::qr_terminal(&enrolment.uri)
    {
        out::line(&format!("For an authenticator app:\n\n{code}\n"))?;
    }
    out::line(&format!("secret   {}", enrolment.secret.expose_secret()))?;
    out::line(&format!("address  {}\n", enrolment.uri.expose_secret()))?;
    out::line(&"Backup codes, shown once. Each logs in once, without the app:")?;
    for code in &enrolment.codes {
        out::line(&format!("  {}", code.expose_secret()))?;
    }
    out::line(&"")
}

/// Shows it to programs.
pub(super) fn shown(enrolment: &Enrolment) -> Value {
    let codes: Vec<&str> = enrolment.codes.iter().map(ExposeSecret::expose_secret).collect();
    json!({
        "secret": enrolment.secret.expose_secret(),
        "provisioning_uri": enrolment.uri.expose_secret(),
        "backup_codes": codes,
    })
}

/// Asks for a code and confirms the factor with it; on a terminal more than once.
pub(super) fn confirm(
    accounts: &Accounts,
    user: &str,
    enrolment: &Enrolment,
) -> Result<bool, Failure> {
    let tries = if out::is_interactive() { TRIES } else { 1 };
    for _ in 0..tries {
        let code = out::ask("Code of the app, to confirm")?;
        let now = accounts.now();
        if let Some(step) = totp::matching_step(&enrolment.secret, code.trim(), now)
            && accounts.wait(accounts.store.use_totp(user, step, now))?
        {
            return Ok(true);
        }
        out::note(&"this is not the code of now");
    }
    Ok(false)
}
