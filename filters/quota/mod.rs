//! The quota room: what a caller may use, held before the request and paid after it.
//!
//! 1. [`Counters::reserve`] checks every limit of every level (the user, the key) in one atomic
//!    step. Either all of them have room and the estimate is held on all, or nothing is charged.
//! 2. [`Reservation::settle`] replaces the estimate by what was really used, exactly once. A
//!    reservation that is dropped instead gives its tokens, GPU time and slot back; the request
//!    itself stays counted.
//!
//! So `used + reserved <= limit` holds at every admission, whatever runs at the same time. Only an
//! answer that costs more than its estimate can go over a limit: it is charged in full, and the
//! next request is refused.

mod account;
mod answer_headers;
mod demand;
mod estimate;
mod gcra;
mod memory;
mod refusal;
mod reservation;
mod window;

pub use answer_headers::{Gauge, QuotaView};
pub use demand::{Charge, Demand, Level, Limits, Subject};
pub use estimate::{GpuSpeed, estimate_prompt_tokens};
pub use gcra::Rate;
pub use memory::MemoryCounters;
pub use refusal::{Meter, Refusal};
pub use reservation::Reservation;
pub use window::{PerWindow, Window};

use std::fmt::Debug;

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
    async fn consumption(&self, subject: Subject) -> Consumption;

    /// How many reservations of this process are neither settled nor dropped.
    fn open_reservations(&self) -> usize;
}

/// What a subject has used and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consumption {
    /// Settled charges, by window.
    pub used: PerWindow<Charge>,
    /// Held by requests that are still running, by the window that admitted them.
    pub reserved: PerWindow<Charge>,
    /// Requests that are running.
    pub in_flight: u32,
}
