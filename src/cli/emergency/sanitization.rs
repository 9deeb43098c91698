//! `portcullis emergency sanitization`

use portcullis_filters::accounts::store::StrictFirewall;

use crate::cli::accounts::{Accounts, Common, actor, told};
use crate::cli::{Outcome, when};
use crate::emergency::{self, FirewallRequest};
use crate::quotas;

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// Judge all prompts strictly, whatever their policy; no policy only watches
    On(On),
    /// Take it back
    Off(Off),
    /// Whether it is on, since when and why
    Status(Common),
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct On {
    /// For how long, at most 1440; without it until it is taken back
    #[arg(long, value_name = "MINUTES")]
    window_minutes: Option<u64>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Off {
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(command: &Command) -> Outcome {
    match command {
        Command::On(args) => on(args),
        Command::Off(args) => off(args),
        Command::Status(common) => status(common),
    }
}

fn on(args: &On) -> Outcome {
    let request = FirewallRequest { minutes: args.window_minutes, reason: &args.reason };
    let accounts = Accounts::open(&args.common.config)?;
    let by = actor();
    let new = request.make(accounts.now(), &by.name).map_err(told)?;
    accounts.wait(accounts.store.set_strict_firewall(&new, &by))?;
    answer(&accounts, &args.common, Some(&new))
}

fn off(args: &Off) -> Outcome {
    let reason = quotas::reason(&args.reason).map_err(told)?;
    let accounts = Accounts::open(&args.common.config)?;
    let (store, now) = (&accounts.store, accounts.now());
    accounts.wait(store.clear_strict_firewall(Some(&reason), now, &actor()))?;
    answer(&accounts, &args.common, None)
}

fn status(common: &Common) -> Outcome {
    let accounts = Accounts::open(&common.config)?;
    let firewall = accounts.wait(accounts.store.standing())?.firewall;
    answer(&accounts, common, firewall.as_ref())
}

fn answer(accounts: &Accounts, common: &Common, firewall: Option<&StrictFirewall>) -> Outcome {
    let now = accounts.now();
    let text = match firewall.filter(|firewall| firewall.is_in_force(now)) {
        None => "The firewall is as it is configured.".to_owned(),
        Some(strict) => format!(
            "The firewall is strict for everybody until {}, by {}: {}",
            when::shown_or(strict.ends_at, "it is taken back"),
            strict.set_by,
            strict.reason,
        ),
    };
    common.answer(&emergency::shown_firewall(firewall, now), &text)
}
