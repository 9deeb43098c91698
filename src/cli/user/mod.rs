//! `portcullis user`
//!
//! | file | story |
//! |---|---|
//! | this one | users are made, changed, removed |
//! | `view` | users and their sessions are shown |
//! | `mfa` | the second factor of a user |

mod mfa;
mod view;

use std::process::ExitCode;

use portcullis_filters::accounts::store::{NewUser, Source, StoreError, User, UserChange};
use portcullis_filters::accounts::{AccountRole, Profile, password};
use secrecy::SecretString;
use serde_json::json;

use super::accounts::{Accounts, Common, Sure, actor, told};
use super::{Failure, Outcome, out};
use crate::manage;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a user; the password is asked for, or read from standard input
    Add(Add),
    /// Every user
    List(Common),
    /// One user
    Show(Named),
    /// Set a password, asked for or read from standard input; ends every session of the user
    Passwd(Named),
    /// Change the role; one with less rights ends every session of the user
    Role(NewRole),
    /// Refuse everything of a user, from now on and on open streams
    Disable(Named),
    /// Let a disabled user in again
    Enable(Named),
    /// Remove a user, with keys, sessions and second factor
    Delete(Delete),
    /// The open sessions of a user
    Sessions(Named),
    /// End the sessions of a user, and with them their tokens; API keys stay
    Revoke(Revoke),
    /// The second factor of a user
    #[command(subcommand)]
    Mfa(mfa::Command),
    /// Hash a password for `auth.users`; it is asked for, or read from standard input
    Hash {
        /// How much work a guess costs
        #[arg(long, value_enum, default_value = "owasp")]
        profile: ProfileName,
    },
}

/// A command on one user that needs nothing else.
#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// The user
    name: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    #[command(flatten)]
    named: Named,
    /// owner, admin, user or read_only
    #[arg(long, default_value = "user")]
    role: AccountRole,
    /// Ask for an e-mail address too, after the password; it is sealed in the store
    #[arg(long)]
    email: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct NewRole {
    /// The user
    name: String,
    /// owner, admin, user or read_only
    role: AccountRole,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(super) struct Delete {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    sure: Sure,
}

#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    named: Named,
    /// This session only
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    session: Option<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum ProfileName {
    /// 19 MiB, two passes (OWASP)
    Owasp,
    /// 128 MiB, three passes, eight lanes
    Strong,
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Owasp => Self::Owasp,
            ProfileName::Strong => Self::Strong,
        }
    }
}

pub(super) fn run(command: &Command) -> Outcome {
    match command {
        Command::Add(args) => add(args),
        Command::List(common) => view::list(common),
        Command::Show(args) => view::show(args),
        Command::Passwd(args) => passwd(args),
        Command::Role(args) => role(args),
        Command::Disable(args) => set_disabled(args, true),
        Command::Enable(args) => set_disabled(args, false),
        Command::Delete(args) => delete(args),
        Command::Sessions(args) => view::sessions(args),
        Command::Revoke(args) => revoke(args),
        Command::Mfa(command) => mfa::run(command),
        Command::Hash { profile } => hash(*profile),
    }
}

fn hash(profile: ProfileName) -> Outcome {
    out::line(&password::hash(&out::new_password()?, profile.into())?)?;
    Ok(ExitCode::SUCCESS)
}

fn add(args: &Add) -> Outcome {
    let Named { name, common } = &args.named;
    let accounts = Accounts::open(&common.config)?;
    let name = manage::account_name(name).map_err(told)?;
    if accounts.wait(accounts.store.user(&name))?.is_some() {
        return Err(format!("there is a user {name} already").into());
    }
    let user = NewUser {
        password_hash: Some(accounts.new_hash(&name, &out::new_password()?)?),
        email: args.email.then(email).transpose()?,
        name,
        role: args.role,
        source: Source::Store,
    };
    let user = accounts.wait(accounts.store.create_user(user, accounts.now(), &actor()))?;
    let text = format!("Made the user {}, role {}.", user.name, user.role);
    common.answer(&manage::shown_user(&user), &text)
}

fn email() -> Result<SecretString, Failure> {
    manage::email(SecretString::from(out::ask("E-mail address")?)).map_err(told)
}

fn passwd(args: &Named) -> Outcome {
    let accounts = Accounts::open(&args.common.config)?;
    let user = accounts.user(&args.name)?;
    if user.source == Source::Config {
        return Err(StoreError::Declared.into());
    }
    let hash = accounts.new_hash(&user.name, &out::new_password()?)?;
    let change = UserChange { password_hash: Some(hash), ..UserChange::default() };
    let user = update(&accounts, &user, change)?;
    let text = format!("Set the password of {}; every session has ended.", user.name);
    args.common.answer(&manage::shown_user(&user), &text)
}

fn role(args: &NewRole) -> Outcome {
    let accounts = Accounts::open(&args.common.config)?;
    let user = accounts.user(&args.name)?;
    let change = UserChange { role: Some(args.role), ..UserChange::default() };
    let user = update(&accounts, &user, change)?;
    let text = format!("{} has the role {}.", user.name, user.role);
    args.common.answer(&manage::shown_user(&user), &text)
}

fn set_disabled(args: &Named, disabled: bool) -> Outcome {
    let accounts = Accounts::open(&args.common.config)?;
    let user = accounts.user(&args.name)?;
    let change = UserChange { disabled: Some(disabled), ..UserChange::default() };
    let user = update(&accounts, &user, change)?;
    let text = format!("{} is {}.", user.name, if disabled { "disabled" } else { "enabled" });
    args.common.answer(&manage::shown_user(&user), &text)
}

fn update(accounts: &Accounts, user: &User, change: UserChange) -> Result<User, StoreError> {
    accounts.wait(accounts.store.update_user(&user.name, change, accounts.now(), &actor()))
}

fn delete(args: &Delete) -> Outcome {
    let Named { name, common } = &args.named;
    let accounts = Accounts::open(&common.config)?;
    let user = accounts.user(name)?;
    args.sure.confirm(&format!("Remove {} with all keys and sessions", user.name))?;
    let gone = accounts.wait(accounts.store.delete_user(&user.name, accounts.now(), &actor()))?;
    let shown = json!({
        "status": "success", "revoked_keys": gone.keys, "revoked_sessions": gone.sessions,
    });
    let (keys, sessions) = (gone.keys, gone.sessions);
    common.answer(&shown, &format!("Removed {}, keys: {keys}, sessions: {sessions}", user.name))
}

fn revoke(args: &Revoke) -> Outcome {
    let Named { name, common } = &args.named;
    let accounts = Accounts::open(&common.config)?;
    let user = accounts.user(name)?;
    let (store, now) = (&accounts.store, accounts.now());
    let sessions = match &args.session {
        Some(id) => {
            let ended = accounts.wait(store.revoke_session(&user.name, id, now, &actor()));
            ended.map(|()| 1).map_err(|error| no_session(&user, error))?
        }
        None => accounts.wait(store.revoke_user(&user.name, now, &actor()))?.sessions,
    };
    let shown = json!({ "status": "success", "revoked_sessions": sessions });
    common.answer(&shown, &format!("Ended sessions of {}: {sessions}", user.name))
}

fn no_session(user: &User, error: StoreError) -> Failure {
    if error == StoreError::NotFound {
        return format!("{} has no such session", user.name).into();
    }
    error.into()
}
