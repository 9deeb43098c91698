//! The queue in front of an upstream: so many requests run at one time, the others wait, fairly.
//!
//! | file | what |
//! |---|---|
//! | `slots` | the slots of one upstream and who holds them; the only file with a lock |
//! | `fair` | whose turn is next, and who is pushed out: the order, as a plain value |
//! | `user`, `index` | what one user has had and who waits in its name; users in order |
//! | `pace` | how long turns take, and so what `Retry-After` says |
//! | `place` | the wait: for a turn, a refusal, or the deadline |
//! | `turn` | a slot that is held; dropped, it goes to the next |
//! | `overflow` | the refusals |
//! | `queues` | the queues of all upstreams, which outlive a reload |
//!
//! Users share the slots by the weights of their roles, whatever each of them asks for. A user that
//! asks for more waits for itself: its own requests stand in line, first come, first served, and
//! when all places are taken the newest of them makes room for somebody who has less. So a flood of
//! one costs another that keeps to its share little more than the time until a slot falls free
//! (API4:2023, LLM10:2025: unbounded consumption).
//!
//! Nothing is lost when somebody leaves: a waiter that is dropped frees its place, and a turn on its
//! way to it goes to the next one.

mod fair;
mod index;
mod overflow;
mod pace;
mod place;
mod queues;
mod slots;
mod turn;
mod user;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

pub use overflow::{Cause, Overflow};
pub use queues::Queues;
pub use turn::Turn;

use crate::clock::Clock;
use slots::{Joined, Slots};

/// What one upstream takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct QueueLimits {
    /// Requests that run at one time; `None`: all, and nobody waits.
    pub concurrent: Option<NonZeroU32>,
    /// Requests that wait.
    pub waiting: usize,
    /// Requests of one user that wait.
    pub per_user: usize,
    /// How long one waits before it is refused.
    pub deadline: Duration,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { concurrent: None, waiting: 128, per_user: 32, deadline: Duration::from_secs(30) }
    }
}

/// In whose name a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "both are known wherever one is made")]
pub struct Who {
    /// The user.
    pub user: u128,
    /// The share of its role: with twice the weight it gets twice the time. 0 counts as 1.
    pub weight: u32,
}

/// The slots of one upstream, and the queue in front of them. Clones are the same queue.
#[derive(Clone, Debug)]
pub struct Queue {
    slots: Arc<Slots>,
}

impl Queue {
    /// A queue in which nobody is.
    #[must_use]
    pub fn new(limits: QueueLimits, clock: Clock) -> Self {
        Self { slots: Arc::new(Slots::new(limits, clock)) }
    }

    /// Waits for a slot; where none is limited, that is one atomic addition. To leave, drop the
    /// future.
    ///
    /// # Errors
    /// [`Overflow`] if there is no place to wait, if somebody who has less takes it, or if no slot
    /// falls free before the deadline.
    pub async fn enter(&self, who: Who) -> Result<Turn, Overflow> {
        if let Some(turn) = self.slots.pass() {
            return Ok(turn);
        }
        match self.slots.join(who)? {
            Joined::Served(turn) => Ok(turn),
            Joined::Waiting(place) => place.wait().await,
        }
    }

    /// Changes the limits. Who waits goes on waiting, until its old deadline; who runs goes on
    /// running, so that fewer slots come to hold when turns end.
    pub fn set_limits(&self, limits: QueueLimits) {
        self.slots.set_limits(limits);
    }

    /// How many wait.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.slots.depth()
    }

    /// How many run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.slots.running()
    }
}

#[cfg(test)]
mod tests;
