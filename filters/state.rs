//! What all listeners of one gateway share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use crate::accounts::LoginDesk;
use crate::accounts::directory::Directory;
use crate::accounts::store::StoreError;
use crate::audit::AuditSink;
use crate::body::Budget;
use crate::clock::Clock;
use crate::cut::Exchanges;
use crate::metrics::Metrics;
use crate::queue::Queues;
use crate::quota::{Counters, Standing};
use crate::snapshot::Snapshot;
use crate::standing;
use crate::usage::Learned;

/// The running gateway: configuration that can be swapped, and state that survives a reload.
#[derive(Debug)]
pub struct State {
    snapshot: ArcSwap<Snapshot>,
    standing: ArcSwap<Standing>,
    /// Unix milliseconds until which the firewall is strict for all: 0 is never, [`u64::MAX`] has no end.
    tightened_until: AtomicU64,
    pub(crate) clock: Clock,
    pub(crate) counters: Arc<dyn Counters>,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) budget: Budget,
    pub(crate) login: LoginDesk,
    pub(crate) directory: Directory,
    pub(crate) exchanges: Arc<Exchanges>,
    pub(crate) queues: Queues,
    pub(crate) learned: Learned,
    pub(crate) open: Arc<AtomicUsize>,
    draining: AtomicBool,
}

/// The parts of a [`State`].
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "every part must be given")]
pub struct Parts {
    /// The configuration.
    pub snapshot: Snapshot,
    /// The time.
    pub clock: Clock,
    /// The meters.
    pub counters: Arc<dyn Counters>,
    /// Where audit records go.
    pub audit: Arc<dyn AuditSink>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Memory for request bodies.
    pub budget: Budget,
    /// Where passwords are checked.
    pub login: LoginDesk,
    /// Who exists.
    pub directory: Directory,
}

impl State {
    /// A gateway that serves.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let queues = Queues::new(parts.clock.clone());
        queues.reload(parts.snapshot.queues());
        let state = Self {
            snapshot: ArcSwap::from_pointee(parts.snapshot),
            standing: ArcSwap::default(),
            tightened_until: AtomicU64::new(0),
            clock: parts.clock,
            counters: parts.counters,
            audit: parts.audit,
            metrics: parts.metrics,
            budget: parts.budget,
            login: parts.login,
            directory: parts.directory,
            exchanges: Arc::default(),
            queues,
            learned: Learned::new(),
            open: Arc::default(),
            draining: AtomicBool::new(false),
        };
        state.take_standing();
        state
    }

    /// The configuration of now. A request keeps the one it began with.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts another configuration in force, for requests that begin from now on.
    pub fn swap(&self, snapshot: Snapshot) {
        self.queues.reload(snapshot.queues());
        self.snapshot.store(Arc::new(snapshot));
    }

    /// What operators have changed of the limits.
    #[must_use]
    pub fn standing(&self) -> Arc<Standing> {
        self.standing.load_full()
    }

    /// Whether the firewall is strict for all at this time.
    #[must_use]
    pub fn is_tightened(&self, now_ms: u64) -> bool {
        now_ms < self.tightened_until.load(Ordering::Relaxed)
    }

    /// How many requests wait for each upstream.
    #[must_use]
    pub fn queue_depths(&self) -> Vec<(Box<str>, usize)> {
        self.queues.depths()
    }

    /// The clock.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The meters.
    #[must_use]
    pub const fn counters(&self) -> &Arc<dyn Counters> {
        &self.counters
    }

    /// Where audit records go.
    #[must_use]
    pub const fn audit(&self) -> &Arc<dyn AuditSink> {
        &self.audit
    }

    /// What is counted.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Where passwords are checked.
    #[must_use]
    pub const fn login(&self) -> &LoginDesk {
        &self.login
    }

    /// Who exists.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Looks for changes of accounts, and cuts what was let in by something that is void now.
    ///
    /// # Errors
    /// If the account store does not answer; what was known before is still in force.
    pub async fn look(&self) -> Result<(), StoreError> {
        let looked = self.directory.look().await;
        self.metrics.set_degraded("accounts", looked.is_err());
        self.metrics.set_degraded("issuers", self.issuers_fail());
        if self.directory.take_changed() {
            let cut = self.exchanges.review(&self.directory);
            if cut > 0 {
                tracing::info!(cut, "open requests were cut because of a revocation");
            }
        }
        self.take_standing();
        self.take_resets().await;
        looked
    }

    fn take_standing(&self) {
        self.directory.take_standing(|rows| {
            self.standing.store(Arc::new(standing::compile(rows)));
            self.tightened_until.store(standing::tightened_until(rows), Ordering::Relaxed);
        });
    }

    /// Forgets what subjects have used whose reset was read. While the meters cannot be reached it
    /// is tried again at each look.
    ///
    async fn take_resets(&self) {
        let mut failed = Vec::new();
        for reset in self.directory.take_resets() {
            let reset_now = self.counters.reset(reset.subject.subject(), reset.revision);
            if reset_now.await.is_err() {
                failed.push(reset);
            }
        }
        self.directory.keep_resets(failed);
    }

    /// Whether the keys of an external issuer cannot be fetched.
    #[must_use]
    pub fn issuers_fail(&self) -> bool {
        let snapshot = self.snapshot.load();
        snapshot.issuers().is_some_and(|issuers| issuers.failing().next().is_some())
    }

    /// Refuses new requests from now on; those that are open go on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Whether new requests are refused.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Requests that are being served now.
    #[must_use]
    pub fn open_requests(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}
