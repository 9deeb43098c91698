//! `portcullis check` and `portcullis config`

use std::path::PathBuf;
use std::process::ExitCode;

use portcullis_filters::clock::Clock;
use portcullis_filters::config;
use serde_json::json;

use super::{Outcome, out};
use crate::boot::{self, BootError};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// As JSON: an array of {file, line, column, message, help}
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum ConfigCommand {
    /// The configuration with its defaults filled in, as JSON; secrets stay references
    Show {
        /// The configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Every key with its default and what it means, as YAML
    Default,
}

pub(super) fn run(args: &Args) -> Outcome {
    let result = boot::load(&args.config, &Clock::system());
    let code = if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    match result {
        Ok(_) if args.json => out::line(&"[]")?,
        Ok(_) => out::line(&format!("{}: ok", args.config.display()))?,
        Err(BootError::Config(problems)) if args.json => {
            out::line(&serde_json::to_string_pretty(&problems)?)?;
        }
        Err(BootError::Other(what)) if args.json => {
            let file = args.config.display().to_string();
            let problem =
                json!([{ "file": file, "line": 0, "column": 0, "message": what, "help": "" }]);
            out::line(&serde_json::to_string_pretty(&problem)?)?;
        }
        Err(error) => out::line(&error)?,
    }
    Ok(code)
}

pub(super) fn config(command: &ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Show { config } => {
            let config = config::load(config)?;
            out::line(&serde_json::to_string_pretty(&config)?)?;
        }
        ConfigCommand::Default => {
            out::line(&include_str!("../../conf/portcullis.yaml").trim_end())?
        }
    }
    Ok(ExitCode::SUCCESS)
}
