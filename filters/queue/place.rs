//! A place in the queue: the wait for a turn, a refusal, or the deadline.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Who;
use super::overflow::{Cause, Overflow};
use super::slots::Slots;
use super::turn::Turn;

/// What a waiter is told.
pub(super) type Told = Result<Turn, Overflow>;

/// A place in the queue. Dropped, it is free, and a turn that was on its way goes to the next.
pub(super) struct Place {
    slots: Arc<Slots>,
    who: Who,
    ticket: u64,
    told: oneshot::Receiver<Told>,
    deadline: Duration,
}

impl Place {
    pub(super) const fn new(
        slots: Arc<Slots>,
        who: Who,
        ticket: u64,
        told: oneshot::Receiver<Told>,
        deadline: Duration,
    ) -> Self {
        Self { slots, who, ticket, told, deadline }
    }

    /// Waits until something is told, or for as long as one waits.
    pub(super) async fn wait(mut self) -> Told {
        if let Ok(told) = timeout(self.deadline, &mut self.told).await {
            return told.unwrap_or_else(|_| Err(UNTOLD));
        }
        match self.slots.expire(self.who, self.ticket) {
            Some(overflow) => Err(overflow),
            // Somebody took this waiter out just now, and is about to tell it why.
            None => (&mut self.told).await.unwrap_or_else(|_| Err(UNTOLD)),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.slots.leave(self.who, self.ticket);
    }
}

/// For a waiter that will not be told anything, as the thread that had to panicked.
const UNTOLD: Overflow =
    Overflow { cause: Cause::Late, retry_after: Duration::from_secs(1), waited: Duration::ZERO };
