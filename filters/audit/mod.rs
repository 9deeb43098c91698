//! Room 12, audit: one record for each request and each change of the gateway, kept so that nobody
//! can quietly change it afterwards.
//!
//! A record is a value ([`AuditRecord`]) until it is handed to an [`AuditSink`]. The sink that is
//! always there is [`AuditLog`]: a file of JSON lines in a [hash chain](chain).

pub mod chain;
mod disk;
mod file;
mod record;
mod text;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use self::file::{AuditLog, Fsync, OnFailure, Policy};
pub use self::record::{AuditRecord, Coverage, Finding, Operation, Scanned, Severity, Status};
pub use self::text::{MAX_CHARS, Text};
use crate::clock::Clock;
use crate::verdict::Denial;

/// The sinks by the configuration key that names their target. A new sink is a file and a line here.
pub const SINKS: &[(&str, Opener)] =
    &[("file", |path, clock, policy| Ok(Arc::new(AuditLog::open(path, clock, policy)?)))];

/// Opens a sink.
pub type Opener = fn(&Path, Clock, Policy) -> Result<Arc<dyn AuditSink>, AuditError>;

/// Where audit records go.
pub trait AuditSink: fmt::Debug + Send + Sync {
    /// Hands a record over. Never blocks; a record that cannot be kept is counted.
    fn record(&self, record: AuditRecord);

    /// Whether records reach their place just now.
    fn is_writable(&self) -> bool;

    /// Whether a request may be served, to be asked before it reaches the upstream.
    ///
    /// # Errors
    /// If records cannot be written and the policy is [`OnFailure::Deny`].
    fn admit(&self) -> Result<(), Denial>;

    /// Waits until every record handed over so far is durable; false if that takes too long.
    ///
    /// Blocks the thread: for the end of the process, not for requests.
    fn flush(&self, within: Duration) -> bool;

    /// What the sink counts, for the metrics.
    fn counters(&self) -> AuditCounters;
}

/// What a sink counts: records written, and failures. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct AuditCounters {
    records: Arc<AtomicU64>,
    failures: Arc<AtomicU64>,
}

impl AuditCounters {
    /// Records that were written.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Attempts to write that failed, and records that were lost.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Counts records as written.
    pub fn write(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    /// Counts failures.
    pub fn fail(&self, failures: u64) {
        self.failures.fetch_add(failures, Ordering::Relaxed);
    }
}

/// Why an audit trail cannot be opened.
#[derive(Debug)]
pub struct AuditError {
    path: PathBuf,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Io(io::Error),
    Locked,
    Foreign,
}

impl AuditError {
    fn new(path: &Path, cause: Cause) -> Self {
        Self { path: path.to_owned(), cause }
    }
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.cause {
            Cause::Io(error) => write!(f, "audit file {path}: {error}"),
            Cause::Locked => write!(
                f,
                "audit file {path} is open in another process; give each gateway its own file"
            ),
            Cause::Foreign => {
                write!(f, "audit file {path} is not an audit trail; move it away or name another")
            }
        }
    }
}

impl std::error::Error for AuditError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Io(error) => Some(error),
            Cause::Locked | Cause::Foreign => None,
        }
    }
}
