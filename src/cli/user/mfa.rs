//! `portcullis user mfa`

use std::process::ExitCode;

use serde_json::json;

use super::Named;
use crate::cli::accounts::{Accounts, Sure, actor};
use crate::cli::{Outcome, enrol, out};

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// Set up a second factor: shows its secret and backup codes once, and asks for a code
    Enable(Enable),
    /// Take the second factor away, such as one that was lost
    Reset(Reset),
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Enable {
    #[command(flatten)]
    named: Named,
    /// Ask for no code: the user confirms, with `POST /auth/mfa/confirm`
    #[arg(long)]
    no_confirm: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Reset {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    sure: Sure,
}

pub(super) fn run(command: &Command) -> Outcome {
    match command {
        Command::Enable(args) => enable(args),
        Command::Reset(args) => reset(args),
    }
}

fn enable(args: &Enable) -> Outcome {
    let Named { name, common } = &args.named;
    let accounts = Accounts::open(&common.config)?;
    let user = accounts.user(name)?;
    if user.mfa {
        let text =
            format!("{0} has a second factor; `user mfa reset {0}` takes it away", user.name);
        return Err(text.into());
    }
    let enrolment = enrol::begin(&accounts, &user.name)?;
    match common.json {
        true => out::line(&enrol::shown(&enrolment))?,
        false => enrol::show(&enrolment)?,
    }
    if args.no_confirm {
        return Ok(ExitCode::SUCCESS);
    }
    if !enrol::confirm(&accounts, &user.name, &enrolment)? {
        return Err("the second factor is not confirmed, and so counts for nothing".into());
    }
    common.answer(&json!({ "mfa_enabled": true }), &format!("{} has a second factor.", user.name))
}

fn reset(args: &Reset) -> Outcome {
    let Named { name, common } = &args.named;
    let accounts = Accounts::open(&common.config)?;
    let user = accounts.user(name)?;
    args.sure.confirm(&format!("Take the second factor of {} away", user.name))?;
    accounts.wait(accounts.store.remove_mfa(&user.name, accounts.now(), &actor()))?;
    let text = format!("{} has no second factor.", user.name);
    common.answer(&json!({ "mfa_enabled": false }), &text)
}
