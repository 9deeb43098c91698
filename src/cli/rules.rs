//! `portcullis rules`

use std::path::PathBuf;
use std::process::ExitCode;

use portcullis_filters::scan::Scanner;
use serde_json::json;

use super::{Outcome, out};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Every rule, built-in ones first
    List {
        /// More rule files
        files: Vec<PathBuf>,
        /// As JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Try every rule on its own examples
    Test {
        /// More rule files
        files: Vec<PathBuf>,
    },
}

pub(super) fn run(command: &Command) -> Outcome {
    match command {
        Command::List { files, json } => list(&load(files)?, *json),
        Command::Test { files } => test(&load(files)?),
    }
}

/// The built-in rules and those of more files.
pub(super) fn load(files: &[PathBuf]) -> Result<Scanner, Box<dyn std::error::Error>> {
    let mut read = Vec::new();
    for path in files {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        read.push((name, text));
    }
    Scanner::with_files(&read).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        lines.join("\n").into()
    })
}

fn list(scanner: &Scanner, as_json: bool) -> Outcome {
    for rule in scanner.rules() {
        if as_json {
            out::line(&json!({
                "id": &**rule.id(), "kind": rule.kind().as_str(), "type": &**rule.type_name(),
                "severity": (f64::from(rule.severity()) * 1000.0).round() / 1000.0, "languages": rule.languages(), "why": rule.why(),
            }))?;
        } else {
            let (id, kind) = (rule.id(), rule.kind().as_str());
            out::line(&format!("{id:40} {kind:18} {:.2}  {}", rule.severity(), rule.why()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn test(scanner: &Scanner) -> Outcome {
    let broken = scanner.self_test();
    for error in &broken {
        out::line(error)?;
    }
    out::line(&format!("{} rules, {} broken promises", scanner.rules().count(), broken.len()))?;
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
