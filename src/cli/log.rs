//! The operator's log, on standard error.

use std::io::IsTerminal;

use portcullis_filters::config::{Log, LogFormat, LogLevel};
use tracing_subscriber::EnvFilter;

/// Starts logging. `RUST_LOG` overrides the level of the configuration.
pub(super) fn start(log: &Log) {
    let level = match log.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    };
    // Pingora tells of every broken connection as an error; the audit record has it already.
    let quiet = format!(
        "{level},pingora_core=warn,pingora_core::services::listening=off,pingora_proxy=off"
    );
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match log.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    drop(started);
}
