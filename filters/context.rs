//! What a request carries from hook to hook.
//!
//! Pingora hands every hook one `&mut Ctx`. What has been proved so far is a private `Stage`,
//! moved from room to room, so that no hook can use what an earlier one has not made.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::answer::Answer;
use crate::audit::{Coverage, Text};
use crate::authz::Grant;
use crate::body::Held;
use crate::clear::{Cleared, Sanitized};
use crate::cut::Entry;
use crate::gate::Watch;
use crate::metrics::{GaugeGuard, Room};
use crate::opinion::Given;
use crate::queue::Turn;
use crate::quota::{QuotaView, Reservation};
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::surface::{Dialect, Operation};
use crate::usage::{PromptEstimate, Tokenizer, Usage};
use crate::verdict::Denial;

/// The state of one request.
#[derive(Debug)]
pub struct Ctx {
    pub(crate) snapshot: Arc<Snapshot>,
    /// Monotonic nanoseconds at the arrival of the head.
    pub(crate) begun: u64,
    /// Monotonic nanoseconds at which the last room was left.
    lap: u64,
    /// Nanoseconds that the client took to send the body, and that its upstream or a guard kept it
    /// waiting: not the gateway's share.
    pub(crate) waited: u64,
    pub(crate) id: Uuid,
    pub(crate) operation: Option<&'static Operation>,
    pub(crate) dialect: Dialect,
    pub(crate) stage: Stage,
    pub(crate) trace: Trace,
    pub(crate) state: Arc<State>,
    /// Whether the audit record is written, or there is nothing to tell.
    pub(crate) closed: bool,
}

impl Ctx {
    pub(crate) fn new(state: &Arc<State>, id: Uuid) -> Self {
        state.open.fetch_add(1, Ordering::SeqCst);
        Self {
            snapshot: state.snapshot(),
            begun: 0,
            lap: 0,
            waited: 0,
            id,
            operation: None,
            dialect: Dialect::OpenAi,
            stage: Stage::Arrived,
            trace: Trace::default(),
            state: Arc::clone(state),
            // Until a head has come there is no request.
            closed: true,
        }
    }

    /// Leaves a room: the time since the last one was left was spent in it.
    pub(crate) fn leave(&mut self, room: Room) {
        if self.operation.is_some_and(Operation::is_probe) {
            return;
        }
        let now = self.state.clock.monotonic_ns();
        let entered = std::mem::replace(&mut self.lap, now);
        let spent = Duration::from_nanos(now.saturating_sub(entered));
        if room == Room::Body {
            self.waited = now.saturating_sub(entered);
        }
        self.state.metrics.spent(room, spent);
    }

    /// Notes a second opinion. The wait for it is not the gateway's share of the time.
    pub(crate) fn reconsidered(&mut self, given: &Given) {
        let nanos = u64::try_from(given.took.as_nanos()).unwrap_or(u64::MAX);
        self.waited = self.waited.saturating_add(nanos);
        self.lap = self.lap.saturating_add(nanos);
        self.trace.details.push(("second_opinion", given.opinion.as_str().to_owned()));
        self.state.metrics.opined(given);
    }

    /// Begins the clock anew, for a connection that waited for this request.
    pub(crate) fn begin(&mut self) {
        self.begun = self.state.clock.monotonic_ns();
        self.lap = self.begun;
    }

    /// The upstream works for this request from now on.
    pub(crate) fn hold(&mut self, turn: Turn) {
        if let Stage::Cleared(exchange) = &mut self.stage {
            exchange.turn = Some(turn);
        }
    }

    /// The id of the request: in the answer, the audit record and the upstream's log.
    #[must_use]
    pub const fn request_id(&self) -> Uuid {
        self.id
    }
}

/// How far a request has come.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Nothing is decided.
    Arrived,
    /// The gateway has answered by itself.
    Answered,
    /// Cleared, and on its way to an upstream.
    Cleared(Box<Exchange>),
    /// The upstream's answer is passing.
    Answering(Box<Exchange>, Box<Reply>),
}

/// A request that may leave.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) grant: Grant,
    pub(crate) reservation: Reservation,
    /// The body; `None` for a request without one.
    pub(crate) cleared: Option<Cleared>,
    pub(crate) path: String,
    pub(crate) streams: bool,
    pub(crate) strip_usage: bool,
    /// How many answers to the one prompt.
    pub(crate) answers: u64,
    /// Whether each of them begins with the prompt.
    pub(crate) echoes: bool,
    pub(crate) prompt_estimate: PromptEstimate,
    /// Connections tried so far.
    pub(crate) attempts: usize,
    /// Monotonic nanoseconds at which the request went out.
    pub(crate) sent: u64,
    /// Ends it at the ceiling of its GPU time.
    pub(crate) watch: Option<Watch>,
    /// Its slot at the upstream.
    pub(crate) turn: Option<Turn>,
    /// Monotonic nanoseconds at which the upstream had no more to send; the client may take longer.
    pub(crate) ended: Option<u64>,
    /// What counts tokens that the upstream does not report.
    pub(crate) tokenizer: Tokenizer,
    pub(crate) _held: Held,
    pub(crate) _counted: GaugeGuard,
    /// Its place among those that a revocation ends.
    pub(crate) entry: Entry,
}

impl Exchange {
    /// The upstream is free for others, and costs no more: what is left is between the gateway and the
    /// client.
    pub(crate) fn upstream_ended(&mut self, now: u64) {
        self.ended.get_or_insert(now);
        (self.turn, self.watch) = (None, None);
    }
}

/// An answer that passes.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) relay: Relay,
    /// Body bytes handed to Pingora for the client.
    pub(crate) produced: usize,
    /// The last of them: what Pingora may have thrown away with a failed batch.
    pub(crate) tail: Vec<Bytes>,
    /// Why the answer must not go on.
    pub(crate) broken: Option<Denial>,
    pub(crate) _streaming: Option<GaugeGuard>,
}

/// What is done with the body of an answer.
pub(crate) enum Relay {
    /// It is watched and passed on.
    Answer(Box<Answer>),
    /// It is an error of the upstream: collected, and told in the gateway's own words.
    Error { denial: Denial, collected: Vec<u8> },
    /// There is none.
    Nothing,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Answer(_) => "answer",
            Self::Error { .. } => "error",
            Self::Nothing => "nothing",
        })
    }
}

/// What the audit record will tell.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) status: u16,
    pub(crate) denial: Option<Denial>,
    pub(crate) aborted: bool,
    pub(crate) client: Option<std::net::IpAddr>,
    pub(crate) user_agent: Option<Text>,
    pub(crate) path: Option<Text>,
    pub(crate) user: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) upstream: Option<String>,
    pub(crate) usage: Option<Usage>,
    /// The firewall policy by which the prompt was judged.
    pub(crate) policy: Option<Arc<str>>,
    /// What was taken out of its texts.
    pub(crate) sanitized: Vec<Sanitized>,
    pub(crate) report: crate::scan::Report,
    pub(crate) input: Coverage,
    pub(crate) input_length: Option<u64>,
    pub(crate) prompt_digest: Option<crate::audit::chain::Digest>,
    /// Monotonic nanoseconds
    pub(crate) first_text: Option<u64>,
    /// Nanoseconds from the head to the upstream.
    pub(crate) overhead: Option<u64>,
    pub(crate) quota: Option<QuotaView>,
    /// How long it waited for its upstream.
    pub(crate) queued: Option<Duration>,
    /// What an own endpoint, or a second opinion, adds to the record.
    pub(crate) details: Vec<(&'static str, String)>,
}

/// Every request that was begun ends here. One that Pingora has dropped without its last hook, because
/// the process stops or a filter panicked, is settled and recorded now.
impl Drop for Ctx {
    fn drop(&mut self) {
        if !self.closed {
            if std::thread::panicking() {
                self.state.metrics.panicked();
            }
            crate::gate::abandon(self);
        }
        self.state.open.fetch_sub(1, Ordering::SeqCst);
    }
}
