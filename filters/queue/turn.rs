//! A turn: a slot of the upstream that is held.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::fair::Lease;
use super::slots::Slots;

/// A slot. Dropped, it goes to whoever is next; so it is kept for as long as the upstream works.
#[must_use = "a turn that is dropped is over"]
pub struct Turn {
    slots: Arc<Slots>,
    held: Held,
    waited: Duration,
}

/// What is given back.
#[derive(Clone, Copy)]
pub(super) enum Held {
    /// A turn from a time without a limit.
    Unlimited,
    /// A slot, and the monotonic nanosecond from which it is held.
    Slot { lease: Lease, began: u64 },
}

impl Turn {
    pub(super) const fn new(slots: Arc<Slots>, held: Held, waited: Duration) -> Self {
        Self { slots, held, waited }
    }

    /// How long the request stood in the queue.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.slots.release(self.held);
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "turn after {:?}", self.waited)
    }
}
