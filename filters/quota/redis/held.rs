//! What this gateway holds in Redis, until it is known to be paid.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::quota::charge::Charge;
use crate::quota::demand::{Metered, Subject};

/// One request, and where it is held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) id: u128,
    /// The levels that one call of a script is about: all of them together, but on a cluster each
    /// for itself.
    pub(super) groups: Vec<Arc<[Metered]>>,
    reserved: Mutex<Charge>,
    ended: AtomicBool,
    unpaid: AtomicUsize,
}

impl Held {
    pub(super) fn new(id: u128, levels: &[Metered], apart: bool, reserved: Charge) -> Self {
        let groups: Vec<Arc<[Metered]>> =
            if apart { levels.chunks(1).map(Arc::from).collect() } else { vec![Arc::from(levels)] };
        let unpaid = AtomicUsize::new(groups.len());
        Self { id, groups, reserved: Mutex::new(reserved), ended: AtomicBool::new(false), unpaid }
    }

    pub(super) fn reserved(&self) -> Charge {
        *self.lock()
    }

    pub(super) fn hold(&self, granted: Charge) {
        *self.lock() = granted;
    }

    /// Ends the request; whether it was not ended before.
    pub(super) fn end(&self) -> bool {
        !self.ended.swap(true, Ordering::AcqRel)
    }

    pub(super) fn runs(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
    }

    /// One group has been paid; whether it was the last.
    fn paid(&self) -> bool {
        self.unpaid.fetch_sub(1, Ordering::AcqRel) == 1
    }

    pub(super) fn levels(&self) -> impl Iterator<Item = &Metered> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    fn lock(&self) -> MutexGuard<'_, Charge> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that is held by this gateway and not known to be paid: whose leases it renews.
#[derive(Debug, Default)]
pub(super) struct Register {
    held: Mutex<HashMap<u128, Arc<Held>>>,
}

impl Register {
    pub(super) fn insert(&self, held: &Arc<Held>) {
        self.lock().insert(held.id, Arc::clone(held));
    }

    /// Strikes out a request of which all groups are paid.
    pub(super) fn paid(&self, held: &Arc<Held>) {
        if held.paid() {
            let mut all = self.lock();
            if all.get(&held.id).is_some_and(|known| Arc::ptr_eq(known, held)) {
                all.remove(&held.id);
            }
        }
    }

    /// What is held, by subject.
    pub(super) fn by_subject(&self) -> HashMap<Subject, Vec<(Arc<Held>, Metered)>> {
        let all: Vec<Arc<Held>> = self.lock().values().map(Arc::clone).collect();
        let mut by_subject: HashMap<_, Vec<_>> = HashMap::new();
        for held in &all {
            for metered in held.levels() {
                let holds = by_subject.entry(metered.subject).or_default();
                holds.push((Arc::clone(held), metered.clone()));
            }
        }
        by_subject
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
