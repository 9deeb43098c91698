//! The quota room: what a caller may use, held before the request and paid after it.
//!
//! 1. [`Counters::reserve`] checks every limit of every level (the user, the key, the role, the
//!    model, the upstream, the address, the whole gateway) in one atomic step. Either all of them
//!    have room and the request gets what it asks for, or as much of it as there is room for but
//!    not less than it needs, or nothing is charged.
//! 2. A request that turns out longer may hold more on the way ([`Extension::grow`]); where there
//!    is none it is ended, not let over the limit.
//! 3. [`Reservation::settle`] replaces what was held by what was really used, exactly once. A
//!    reservation that is dropped instead gives its tokens, GPU time and slot back; the request
//!    itself stays counted.
//!
//! So `used + reserved <= limit` holds at every moment, whatever runs at the same time. The one
//! thing that cannot be stopped is an upstream that writes more than it was told to into an answer
//! that comes in one piece: that is charged in full, and the next request is refused.

mod account;
mod answer_headers;
mod charge;
mod demand;
mod gcra;
mod memory;
mod redis;
mod refusal;
mod reservation;
mod standing;
mod window;

pub use answer_headers::{Gauge, QuotaView};
pub use charge::{Charge, Resource};
pub use demand::{Ceiling, Demand, Level, Limits, Subject};
pub use gcra::Rate;
pub use memory::MemoryCounters;
pub use redis::{InvalidOptions, OnFailure, Policy, RedisCounters, RedisOptions, Topology};
pub use refusal::{Meter, Refusal};
pub use reservation::{Extension, Limited, Reservation};
pub use standing::{Emergency, Override, Standing};
pub use window::{PerWindow, Spent, Window};

use std::fmt::{self, Debug};
use std::time::Duration;

use async_trait::async_trait;

/// A store of meters.
///
/// The methods are async for stores on the network; the store in memory never waits.
#[async_trait]
pub trait Counters: Debug + Send + Sync {
    /// Holds the demand on all of its levels, or on none.
    ///
    /// # Errors
    /// The meter that has no room, with the longest wait if there are several.
    async fn reserve(&self, demand: Demand) -> Result<Reservation, Refusal>;

    /// What a subject has used in the windows that are open now.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn consumption(&self, subject: Subject) -> Result<Consumption, Unavailable>;

    /// Forgets what a subject has used. What runs keeps its reservation. Gateways that share their
    /// meters all ask for the same reset, under the same `number`, and it is made once.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn reset(&self, subject: Subject, number: u64) -> Result<(), Unavailable>;

    /// How many reservations of this process are neither settled nor dropped.
    fn open_reservations(&self) -> usize;

    /// Waits until all that has ended is paid, at most so long; whether it is.
    async fn flush(&self, _within: Duration) -> bool {
        true
    }

    /// Whether the store does not answer, so that meters are guessed or refused.
    fn is_degraded(&self) -> bool {
        false
    }
}

/// The store of the meters does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unavailable;

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store of the meters does not answer")
    }
}

impl std::error::Error for Unavailable {}

/// What a subject has used and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Consumption {
    /// By window.
    pub windows: PerWindow<Spent>,
    /// Requests that are running.
    pub in_flight: u32,
}
