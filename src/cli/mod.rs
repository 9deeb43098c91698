//! The command line. Each subcommand is a file or a folder; secrets come from a prompt, a file or
//! standard input, never from an argument.
//!
//! A command exits with 0 when it did what was asked, with 1 when it refused or failed, and with 2
//! when it was not called rightly.

mod accounts;
mod ask;
mod audit;
mod check;
mod emergency;
mod enrol;
mod health;
mod init;
mod key;
mod log;
mod out;
mod quota;
mod rules;
mod scan;
mod serve;
mod store;
mod table;
mod token;
mod up;
mod user;
mod when;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// A security gateway for LLM inference.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start on loopback with no configuration, in front of a model server
    Up(up::Args),
    /// Write a configuration, keys and the first owner account
    Init(init::Args),
    /// Serve a configuration; SIGHUP reloads it, SIGTERM drains
    Serve(serve::Args),
    /// Check a configuration and everything it names, without serving
    Check(check::Args),
    /// Show the effective or the default configuration
    #[command(subcommand)]
    Config(check::ConfigCommand),
    /// Accounts
    #[command(subcommand)]
    User(user::Command),
    /// API keys
    #[command(subcommand)]
    Key(key::Command),
    /// Tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Limits that are changed while gateways run, and what is used
    #[command(subcommand)]
    Quota(quota::Command),
    /// What tightens or ends everything at once
    #[command(subcommand)]
    Emergency(emergency::Command),
    /// The account store
    #[command(subcommand)]
    Store(store::Command),
    /// Scan a text, or JSON lines of texts
    Scan(scan::Args),
    /// Scanner rules
    #[command(subcommand)]
    Rules(rules::Command),
    /// The audit trail
    #[command(subcommand)]
    Audit(audit::Command),
    /// Ask a running gateway whether it lives; for container health checks
    Health(health::Args),
    /// Write completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Show the version
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Why a command did not do what it was asked, to be shown.
type Failure = Box<dyn std::error::Error>;

/// What a command returns: its exit code, or what went wrong.
type Outcome = Result<ExitCode, Failure>;

/// Runs the command of this process.
#[must_use]
pub fn main() -> ExitCode {
    // Before anything makes a TLS configuration: there is one provider in this process.
    drop(rustls::crypto::ring::default_provider().install_default());
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            out::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Up(args) => up::run(args),
        Command::Init(args) => init::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Config(command) => check::config(&command),
        Command::User(command) => user::run(&command),
        Command::Key(command) => key::run(&command),
        Command::Token(command) => token::run(&command),
        Command::Quota(command) => quota::run(&command),
        Command::Emergency(command) => emergency::run(&command),
        Command::Store(command) => store::run(&command),
        Command::Scan(args) => scan::run(&args),
        Command::Rules(command) => rules::run(&command),
        Command::Audit(command) => audit::run(&command),
        Command::Health(args) => health::run(&args),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "portcullis",
                &mut std::io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::Version { json } => version(json),
    }
}

fn version(json: bool) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        out::line(&serde_json::json!({ "version": version }))?;
    } else {
        out::line(&format!("portcullis {version}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ids_that_begin_with_a_hyphen_are_no_options() {
        let id = "-2nmPRDX1Fz9TOodogc2tQ";
        for args in [
            &["token", "revoke", id, "-c", "f", "--json"][..],
            &["token", "revoke", "-c", "f", "--json", id],
            &["token", "revoke", "-c", "f", "--json"],
            &["user", "revoke", "bob", "--session", id, "-c", "f"],
        ] {
            let parsed = Cli::try_parse_from([&["portcullis"], args].concat());
            let shown = format!("{parsed:?}");
            assert!(parsed.is_ok(), "{args:?}: {shown}");
            assert_eq!(shown.contains(id), args.contains(&id), "{shown}");
            assert!(shown.contains("config: \"f\""), "{shown}");
        }
    }
}
