//! What happens while Redis does not answer: each kind of meter by its policy.
//!
//! What was admitted without Redis is charged there as soon as it answers again, so that nothing
//! stays unpaid.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::quota::Counters;
use crate::quota::answer_headers::QuotaView;
use crate::quota::charge::{Charge, Resource};
use crate::quota::demand::{Demand, Level, Limits, Metered};
use crate::quota::memory::MemoryCounters;
use crate::quota::refusal::{Meter, Refusal};
use crate::quota::reservation::{Extension, Hold, Reservation};

use super::Store;
use super::calls::Ending;
use super::held::Held;
use super::options::{OnFailure, Policy};

/// The meters of this gateway alone.
#[derive(Debug)]
pub(super) struct Degraded {
    pub(super) local: MemoryCounters,
    pub(super) on_failure: OnFailure,
    pub(super) gateways: u32,
}

impl Degraded {
    /// Decides without Redis. Headers would be guesses, so there are none.
    pub(super) async fn reserve(
        &self,
        store: &Arc<Store>,
        demand: &Demand,
    ) -> Result<Reservation, Refusal> {
        if let Some(level) = self.denied(demand.levels()) {
            return Err(refused(level));
        }
        let mut local = Demand::new(demand.request_id, demand.estimate);
        local.least = demand.least;
        let local = self.shares(local, demand.levels());
        let reservation = self.local.reserve(local).await.map_err(without_view)?;
        let reserved = reservation.reserved();
        let held = store.held(demand.request_id, demand.levels(), reserved);
        Ok(Reservation::new(LocalHold::boxed(store, held, reservation), reserved, QuotaView::NONE))
    }

    /// Room for a request that runs and was admitted by Redis.
    pub(super) async fn grow(&self, held: &Held, more: Charge) -> Option<Reservation> {
        let levels: Vec<Metered> = held.levels().map(of_amounts).collect();
        if self.denied(&levels).is_some() {
            return None;
        }
        let wish = Charge { prompt: 0, ..more };
        let local = self.shares(Demand::new(held.id, wish).at_least(0, 0), &levels);
        self.local.reserve(local).await.ok()
    }

    /// The level that has a limit which must not be guessed.
    fn denied(&self, levels: &[Metered]) -> Option<Level> {
        let denied =
            |metered: &&Metered| !self.with_policy(&metered.limits, Policy::Deny).is_empty();
        levels.iter().find(denied).map(|metered| metered.level)
    }

    /// This gateway's share of the limits that it counts by itself.
    fn shares(&self, demand: Demand, levels: &[Metered]) -> Demand {
        levels.iter().fold(demand, |demand, metered| {
            let limits = self.with_policy(&metered.limits, Policy::Local);
            let share = Arc::new(limits.divided_by(self.gateways));
            demand.level(metered.level, metered.subject, share)
        })
    }

    fn with_policy(&self, limits: &Limits, policy: Policy) -> Limits {
        let OnFailure { requests, concurrent, .. } = self.on_failure;
        let ceilings = limits.ceilings.iter().copied();
        Limits {
            pace: limits.pace.filter(|_| requests == policy),
            concurrent: limits.concurrent.filter(|_| concurrent == policy),
            ceilings: ceilings.filter(|c| self.on_failure.of(c.resource) == policy).collect(),
        }
    }
}

/// Only the limits that a running request can still meet.
fn of_amounts(metered: &Metered) -> Metered {
    let ceilings = metered.limits.ceilings.iter().copied();
    let ceilings = ceilings.filter(|c| c.resource != Resource::Requests).collect();
    let limits = Limits { pace: None, concurrent: None, ceilings };
    Metered { limits: Arc::new(limits), ..metered.clone() }
}

pub(super) const fn refused(level: Level) -> Refusal {
    Refusal { meter: Meter::Store, level, wait: Some(RETRY_AFTER), view: QuotaView::NONE }
}

fn without_view(refusal: Refusal) -> Refusal {
    Refusal { view: QuotaView::NONE, ..refusal }
}

/// A request that was admitted without Redis.
#[derive(Debug)]
struct LocalHold {
    store: Arc<Store>,
    held: Arc<Held>,
    extension: Extension,
    reservation: Mutex<Option<Reservation>>,
}

impl LocalHold {
    fn boxed(store: &Arc<Store>, held: Arc<Held>, reservation: Reservation) -> Box<dyn Hold> {
        let extension = reservation.extension();
        let reservation = Mutex::new(Some(reservation));
        Box::new(Self { store: Arc::clone(store), held, extension, reservation })
    }
}

#[async_trait]
impl Hold for LocalHold {
    fn settle(&self, charge: Charge) {
        let taken = self.reservation.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reservation) = taken {
            reservation.settle(charge);
            self.store.end(&self.held, Ending::Add, charge);
        }
    }

    async fn grow(&self, more: Charge) -> Charge {
        self.extension.grow(more).await
    }
}

/// It is back within two seconds of being there again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
