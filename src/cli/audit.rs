//! `portcullis audit`

use std::path::PathBuf;
use std::process::ExitCode;

use portcullis_filters::audit::chain;

use super::{Outcome, out};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Check the hash chain of a trail; names the first bad line and exits with 1
    Verify {
        /// The trail, `audit.jsonl`
        file: PathBuf,
    },
}

pub(super) fn run(command: &Command) -> Outcome {
    let Command::Verify { file } = command;
    match chain::verify_file(file) {
        Ok(summary) => {
            out::line(&format!("{}: {} records, whole", file.display(), summary.records))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(bad) => {
            out::line(&format!("{}: {bad}", file.display()))?;
            Ok(ExitCode::FAILURE)
        }
    }
}
