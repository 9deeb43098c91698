//! `portcullis quota`
//!
//! | file | story |
//! |---|---|
//! | this one | limits are set and taken back, use is forgotten |
//! | `view` | limits and use are shown |

mod view;

use std::path::PathBuf;
use std::sync::Arc;

use portcullis_filters::accounts::store::StoreError;
use portcullis_filters::quota::Limits;
use portcullis_filters::standing::SubjectName;
use serde_json::{Map, Value, json};

use super::accounts::{Accounts, Common, actor, told};
use super::{Failure, Outcome, when};
use crate::quotas::{self, OverrideRequest};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The limits of a subject, and what it has used of them
    Show(Show),
    /// Every limit that was set while gateways run
    List(Common),
    /// Set limits of a subject, on every gateway at once; others stay as its quota has them
    Set(Set),
    /// Take back what was set: the quota of the configuration holds again
    Unset(Unset),
    /// Forget what a subject has used, on every gateway; what runs keeps what it holds
    Reset(Reset),
}

/// Whose limits.
#[derive(Debug, clap::Args)]
pub(super) struct Whose {
    /// user/NAME, key/ID, role/ROLE, model/NAME, upstream/NAME, address/IP or global; a bare name is
    /// a user
    subject: String,
}

impl Whose {
    fn name(&self) -> Result<SubjectName, Failure> {
        let bare = self.subject != "global" && !self.subject.contains('/');
        let named = if bare { format!("user/{}", self.subject) } else { self.subject.clone() };
        quotas::subject(&named).map_err(told)
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Show {
    #[command(flatten)]
    whose: Whose,
    /// The admin listener of a gateway, which knows the use; the configuration's if left out
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// A file with the API key of an admin, to ask the gateway with, or `-` for standard input;
    /// left out, the variable `PORTCULLIS_API_KEY`
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(super) struct Set {
    #[command(flatten)]
    whose: Whose,
    /// Limits by the keys of a quota block, such as tokens_per_day=5000; `none` lifts one
    #[arg(required = true, value_name = "KEY=LIMIT")]
    limits: Vec<String>,
    /// How long, such as 2h, or until when, such as 2030-01-31T00:00:00Z; left out, until `unset`
    #[arg(long, value_name = "END")]
    until: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(super) struct Unset {
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(super) struct Reset {
    #[command(flatten)]
    whose: Whose,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(command: &Command) -> Outcome {
    match command {
        Command::Show(args) => view::show(args),
        Command::List(common) => view::list(common),
        Command::Set(args) => set(args),
        Command::Unset(args) => unset(args),
        Command::Reset(args) => reset(args),
    }
}

fn set(args: &Set) -> Outcome {
    let accounts = Accounts::open(&args.common.config)?;
    let (name, now, by) = (args.whose.name()?, accounts.now(), actor());
    let ends_at = args.until.as_deref().map(|text| when::end(text, now)).transpose();
    let ends_at = ends_at.map_err(|error| format!("--until: {error}"))?;
    let request = OverrideRequest {
        subject: name.clone(),
        limits: &limits(&args.limits)?,
        ends_at: quotas::ends_at(ends_at, None, now).map_err(told)?,
        reason: &args.reason,
    };
    let configured = configured(&accounts, &name)?;
    let new = request.make(&configured, now, &by.name).map_err(told)?;
    accounts.wait(accounts.store.set_override(&new, &by))?;
    let end = when::shown_or(ends_at, "it is taken back");
    view::answer(&accounts, &args.common, &name, &format!("Set, until {end}."))
}

/// Reads `KEY=LIMIT`.
fn limits(given: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut limits = Map::new();
    for text in given {
        let (key, limit) =
            text.split_once('=').ok_or_else(|| format!("{text}: write KEY=LIMIT"))?;
        let limit = match limit {
            "none" => Value::Null,
            limit => limit
                .parse::<u64>()
                .map_err(|_| format!("{text}: a limit is a whole number, or `none`"))?
                .into(),
        };
        if limits.insert(key.to_owned(), limit).is_some() {
            return Err(format!("{key} is there twice").into());
        }
    }
    Ok(limits)
}

/// The limits that the configuration has for a subject, which is there.
fn configured(accounts: &Accounts, name: &SubjectName) -> Result<Arc<Limits>, Failure> {
    let limits = accounts.snapshot()?.limits_of(name, &accounts.directory()?);
    limits.ok_or_else(|| format!("there is no {name}").into())
}

fn unset(args: &Unset) -> Outcome {
    let accounts = Accounts::open(&args.common.config)?;
    let name = args.whose.name()?;
    let (now, by) = (accounts.now(), actor());
    let removing = accounts.store.remove_override(&name, now, &by);
    let before = accounts.wait(removing).map_err(|error| nothing_set(&name, error))?;
    let shown = json!({ "status": "success", "before": before.shown() });
    args.common.answer(&shown, &format!("The quota of {name} holds again."))
}

fn nothing_set(name: &SubjectName, error: StoreError) -> Failure {
    if error == StoreError::NotFound {
        return format!("nothing is set for {name}").into();
    }
    error.into()
}

fn reset(args: &Reset) -> Outcome {
    let accounts = Accounts::open(&args.common.config)?;
    let name = args.whose.name()?;
    let reason = quotas::reason(&args.reason).map_err(told)?;
    configured(&accounts, &name)?;
    accounts.wait(accounts.store.reset_quota(&name, &reason, accounts.now(), &actor()))?;
    let shown = json!({ "status": "success" });
    let text = format!("What {name} has used is forgotten, by every gateway that runs.");
    args.common.answer(&shown, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_a_user() {
        for (subject, expected) in [
            ("Alice", Some("user/alice")),
            ("user/global", Some("user/global")),
            ("global", Some("global")),
            ("model/hf.co/org/name", Some("model/hf.co/org/name")),
            ("planet/earth", None),
            ("", None),
        ] {
            let name = Whose { subject: subject.to_owned() }.name();
            assert_eq!(name.ok().map(|name| name.to_string()).as_deref(), expected, "{subject}");
        }
    }

    #[test]
    fn limits_are_numbers_or_none() {
        for (given, expected) in [
            (&["a=1", "b=none"][..], Some(json!({"a": 1, "b": null}))),
            (&["a"], None),
            (&["a="], None),
            (&["a=-1"], None),
            (&["a=1.5"], None),
            (&["a=1", "a=2"], None),
        ] {
            let given: Vec<String> = given.iter().map(|&text| text.to_owned()).collect();
            assert_eq!(limits(&given).ok().map(Value::Object), expected, "{given:?}");
        }
    }
}
