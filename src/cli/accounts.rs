//! The account store as the command line uses it: opened from a configuration, beside any gateway
//! that runs on it.
//!
//! Nobody needs a permission here: who can read the configuration and its secrets is an operator.
//! The store notes each change with the name of the operating system's user, and a gateway that runs
//! notices it within its interval of looking and records it.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use portcullis_filters::accounts::directory::Directory;
use portcullis_filters::accounts::known_name;
use portcullis_filters::accounts::store::{Actor, Session, Store, StoreError, User};
use portcullis_filters::accounts::token::MAX_USER_TTL;
use portcullis_filters::clock::Clock;
use portcullis_filters::config::{self, Config, Secrets};
use portcullis_filters::snapshot::Snapshot;
use portcullis_filters::verdict::Denial;
use secrecy::SecretString;
use serde_json::Value;
use tokio::runtime::Handle;

use super::{Failure, Outcome, out};
use crate::{boot, manage};

/// What every command on accounts takes.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// As JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Common {
    /// Prints what was done or found, for programs or for people.
    pub(super) fn answer(&self, json: &Value, text: &dyn Display) -> Outcome {
        if self.json {
            out::line(json)?
        } else {
            out::line(text)?
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What a command takes that cannot be undone.
#[derive(Debug, clap::Args)]
pub(super) struct Sure {
    /// Do not ask whether this is meant
    #[arg(short, long)]
    yes: bool,
}

impl Sure {
    /// Asks, unless it was said.
    pub(super) fn confirm(&self, what: &str) -> Result<(), Failure> {
        if self.yes { Ok(()) } else { out::confirm(what) }
    }
}

/// The accounts of a configuration.
pub(super) struct Accounts {
    pub(super) config: Config,
    pub(super) secrets: Secrets,
    pub(super) store: Arc<dyn Store>,
    /// What relative paths of the configuration start from.
    pub(super) base: PathBuf,
    clock: Clock,
    runtime: Handle,
}

impl Accounts {
    /// Opens the store that a configuration names.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let config = config::load(path)?;
        let base = path.parent().map(Path::to_owned).unwrap_or_default();
        let secrets = config.resolve_secrets(&base, &|name| std::env::var(name).ok())?;
        let (store, runtime) = boot::store(&config, &secrets, &base)?;
        Ok(Self { config, secrets, store, base, clock: Clock::system(), runtime })
    }

    /// Waits for an operation of the store.
    pub(super) fn wait<F: Future>(&self, operation: F) -> F::Output {
        self.runtime.block_on(operation)
    }

    /// Unix seconds.
    pub(super) fn now(&self) -> u64 {
        self.clock.unix_secs()
    }

    /// The configuration as a gateway has it: for what needs more than the store.
    pub(super) fn snapshot(&self) -> Result<Snapshot, Failure> {
        Ok(Snapshot::compile(&self.config, &self.secrets, &self.base, &self.clock)?)
    }

    /// The accounts as a gateway knows them.
    pub(super) fn directory(&self) -> Result<Directory, Failure> {
        let store = Arc::clone(&self.store);
        let directory = Directory::new(store, self.clock.clone(), Duration::MAX)?;
        self.wait(directory.look())?;
        Ok(directory)
    }

    /// A user who is there.
    pub(super) fn user(&self, name: &str) -> Result<User, Failure> {
        let name = known_name(name).ok_or_else(|| format!("there is no user {name}"))?;
        let found = self.wait(self.store.user(&name))?;
        found.ok_or_else(|| self.missing(&name).into())
    }

    /// Every open session. Sessions last no longer than tokens, so only those who logged in lately
    /// are asked for theirs.
    pub(super) fn open_sessions(&self) -> Result<Vec<Session>, StoreError> {
        let now = self.now();
        let since = now.saturating_sub(MAX_USER_TTL.as_secs());
        let mut open = Vec::new();
        for user in self.wait(self.store.users())? {
            if user.last_login_at.is_some_and(|login| login >= since) {
                open.extend(self.wait(self.store.sessions(&user.name, now))?);
            }
        }
        Ok(open)
    }

    fn missing(&self, name: &str) -> String {
        let declared = self.config.auth.users.iter();
        match declared.map(|user| &user.name).any(|user| user.eq_ignore_ascii_case(name)) {
            true => format!(
                "the user {name} is declared in the configuration, and in the store from when a \
                 gateway has served that"
            ),
            false => format!("there is no user {name}"),
        }
    }

    /// Asks for a new password of a user, and judges and hashes it.
    pub(super) fn new_hash(&self, user: &str, password: &SecretString) -> Result<String, Failure> {
        let profile = boot::profile(&self.config);
        Ok(manage::new_hash(user, password, profile, self.snapshot()?.blocklist())?)
    }
}

/// Who makes a change: the operating system's user, in a record that a gateway is to make.
pub(super) fn actor() -> Actor {
    let plain = |name: &String| !name.is_empty() && !name.chars().any(char::is_control);
    let name = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let name = name.filter(plain).or_else(uid).unwrap_or_else(|| "unknown".to_owned());
    Actor { name, unrecorded: true }
}

fn uid() -> Option<String> {
    let process = std::fs::metadata("/proc/self").ok()?;
    Some(format!("uid {}", process.uid()))
}

/// A refusal as an operator reads it: with the option at fault, and what callers are not told.
pub(super) fn told(denial: Denial) -> Failure {
    let option = match denial.param_name() {
        None => String::new(),
        Some("permissions") => "--scopes: ".to_owned(),
        Some("expires_in") => "--expires: ".to_owned(),
        Some("username") => "NAME: ".to_owned(),
        Some("subject") => "SUBJECT: ".to_owned(),
        Some("limits") => "KEY=LIMIT: ".to_owned(),
        Some(name) => format!("--{}: ", name.replace('_', "-")),
    };
    let detail = match denial.operator_detail() {
        "" => String::new(),
        detail => format!(": {detail}"),
    };
    format!("{option}{}{detail}", denial.message()).into()
}

#[cfg(test)]
mod tests {
    use portcullis_filters::verdict::Reason;

    use super::*;

    #[test]
    fn refusals_name_the_option_and_the_cause() {
        let denial = || Denial::new(Reason::InvalidRequest, "no");
        for (denial, expected) in [
            (denial(), "no"),
            (denial().param("permissions"), "--scopes: no"),
            (denial().param("expires_in"), "--expires: no"),
            (denial().param("username"), "NAME: no"),
            (denial().param("max_tokens").detail("why"), "--max-tokens: no: why"),
        ] {
            assert_eq!(told(denial).to_string(), expected);
        }
    }

    #[test]
    fn changes_are_to_be_recorded_under_some_name() {
        let actor = actor();
        assert!(actor.unrecorded && !actor.name.is_empty());
    }
}
