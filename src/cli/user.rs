//! `portcullis user`

use std::process::ExitCode;

use portcullis_filters::accounts::{Profile, password};

use super::{Outcome, out};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Hash a password for `auth.users`; it is asked for, or read from standard input
    Hash {
        /// How much work a guess costs
        #[arg(long, value_enum, default_value = "owasp")]
        profile: ProfileName,
    },
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
    let Command::Hash { profile } = command;
    let hash = password::hash(&out::new_password()?, (*profile).into())?;
    out::line(&hash)?;
    Ok(ExitCode::SUCCESS)
}
