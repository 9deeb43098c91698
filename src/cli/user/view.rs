//! Users and their sessions, shown.

use portcullis_filters::accounts::store::{Session, StoreError, User};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::Named;
use crate::cli::accounts::{Accounts, Common};
use crate::cli::{Outcome, table, when};
use crate::manage;

pub(super) fn list(common: &Common) -> Outcome {
    let accounts = Accounts::open(&common.config)?;
    let users = accounts.wait(accounts.store.users())?;
    let shown: Vec<Value> = users.iter().map(manage::shown_user).collect();
    let head = ["NAME", "ROLE", "STATE", "MFA", "FROM", "CREATED", "LAST LOGIN"];
    let rows: Vec<_> = users.iter().map(row).collect();
    common.answer(&json!({ "users": shown }), &table::columns(head, &rows))
}

fn row(user: &User) -> [String; 7] {
    [
        user.name.clone(),
        user.role.to_string(),
        state(user).to_owned(),
        if user.mfa { "yes" } else { "no" }.to_owned(),
        user.source.as_str().to_owned(),
        when::shown(user.created_at),
        when::shown_or(user.last_login_at, "never"),
    ]
}

const fn state(user: &User) -> &'static str {
    if user.disabled { "disabled" } else { "enabled" }
}

pub(super) fn show(args: &Named) -> Outcome {
    let accounts = Accounts::open(&args.common.config)?;
    let user = accounts.user(&args.name)?;
    let store = &accounts.store;
    let email = match accounts.wait(store.email(&user.name)) {
        Ok(email) => email.map(|email| email.expose_secret().to_owned()),
        Err(StoreError::Seal) => Some("sealed with another store_key".to_owned()),
        Err(other) => return Err(other.into()),
    };
    let codes = accounts.wait(store.backup_codes(&user.name))?;
    let sessions = accounts.wait(store.sessions(&user.name, accounts.now()))?.len();
    let mut shown = manage::shown_user(&user);
    if let Some(shown) = shown.as_object_mut() {
        shown.insert("email".to_owned(), json!(email));
        shown.insert("backup_codes_left".to_owned(), json!(codes));
        shown.insert("sessions".to_owned(), json!(sessions));
    }
    let factor = match user.mfa {
        true => format!("yes, {codes} backup codes left"),
        false => "no".to_owned(),
    };
    let pairs = [
        ("name", user.name.clone()),
        ("role", user.role.to_string()),
        ("state", state(&user).to_owned()),
        ("second factor", factor),
        ("e-mail", email.unwrap_or_default()),
        ("from", user.source.as_str().to_owned()),
        ("created", format!("{} by {}", when::shown(user.created_at), user.created_by)),
        ("last login", when::shown_or(user.last_login_at, "never")),
        ("open sessions", sessions.to_string()),
    ];
    args.common.answer(&shown, &table::pairs(&pairs))
}

pub(super) fn sessions(args: &Named) -> Outcome {
    let accounts = Accounts::open(&args.common.config)?;
    let user = accounts.user(&args.name)?;
    let sessions = accounts.wait(accounts.store.sessions(&user.name, accounts.now()))?;
    let shown: Vec<Value> = sessions.iter().map(manage::shown_session).collect();
    let head = ["ID", "CREATED", "LAST SEEN", "EXPIRES", "MFA", "ADDRESS", "DEVICE"];
    let rows: Vec<_> = sessions.iter().map(session_row).collect();
    args.common.answer(&json!({ "sessions": shown }), &table::columns(head, &rows))
}

fn session_row(session: &Session) -> [String; 7] {
    [
        session.id.clone(),
        when::shown(session.created_at),
        when::shown(session.last_seen_at),
        when::shown(session.expires_at),
        if session.mfa { "yes" } else { "no" }.to_owned(),
        session.address.to_string(),
        session.device.clone(),
    ]
}
