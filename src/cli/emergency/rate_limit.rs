//! `portcullis emergency rate-limit`

use portcullis_filters::accounts::store::EmergencyLimits;

use crate::cli::accounts::{Accounts, Common, actor, told};
use crate::cli::{Outcome, when};
use crate::emergency::{self, LimitsRequest};

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// Tighten all limits: tenfold, half for addresses
    On(On),
    /// Take it back
    Off(Common),
    /// Whether it is on, since when and why
    Status(Common),
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct On {
    /// Requests of a user, or with a key, at most
    #[arg(long, value_name = "N", default_value_t = emergency::PER_USER)]
    requests_per_minute: u32,
    /// Requests from an address at most
    #[arg(long, value_name = "N", default_value_t = emergency::PER_ADDRESS)]
    requests_per_minute_per_address: u32,
    /// For how long, at most 1440
    #[arg(long, value_name = "MINUTES", default_value_t = emergency::MINUTES)]
    window_minutes: u64,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(command: &Command) -> Outcome {
    match command {
        Command::On(args) => on(args),
        Command::Off(common) => off(common),
        Command::Status(common) => status(common),
    }
}

fn on(args: &On) -> Outcome {
    let request = LimitsRequest {
        per_user: args.requests_per_minute,
        per_address: args.requests_per_minute_per_address,
        minutes: args.window_minutes,
        reason: &args.reason,
    };
    let accounts = Accounts::open(&args.common.config)?;
    let by = actor();
    let new = request.make(accounts.now(), &by.name).map_err(told)?;
    accounts.wait(accounts.store.set_emergency(&new, &by))?;
    answer(&accounts, &args.common, Some(&new))
}

fn off(common: &Common) -> Outcome {
    let accounts = Accounts::open(&common.config)?;
    accounts.wait(accounts.store.clear_emergency(accounts.now(), &actor()))?;
    answer(&accounts, common, None)
}

fn status(common: &Common) -> Outcome {
    let accounts = Accounts::open(&common.config)?;
    let emergency = accounts.wait(accounts.store.standing())?.emergency;
    answer(&accounts, common, emergency.as_ref())
}

fn answer(accounts: &Accounts, common: &Common, limits: Option<&EmergencyLimits>) -> Outcome {
    let now = accounts.now();
    let text = match limits.filter(|limits| limits.is_in_force(now)) {
        None => "Emergency limits are off.".to_owned(),
        Some(limits) => format!(
            "Emergency limits are on until {}, by {}: {}\nRequests a minute: {} of a user, {} \
             from an address; other limits are a tenth, of addresses half.",
            when::shown(limits.ends_at),
            limits.set_by,
            limits.reason,
            limits.per_user,
            limits.per_address,
        ),
    };
    common.answer(&emergency::shown_limits(limits, now), &text)
}
