//! `portcullis serve`

use std::path::PathBuf;
use std::process::ExitCode;

use portcullis_filters::clock::Clock;

use super::{Outcome, log};
use crate::{boot, server};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: PathBuf,
}

pub(super) fn run(args: &Args) -> Outcome {
    let clock = Clock::system();
    let loaded = boot::load(&args.config, &clock)?;
    log::start(&loaded.config.telemetry.log);
    server::serve(&args.config, loaded, clock)?;
    Ok(ExitCode::SUCCESS)
}
