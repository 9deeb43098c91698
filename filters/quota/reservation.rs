//! The proof that a request was admitted, and the duty to pay for it.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::answer_headers::QuotaView;
use super::charge::Charge;

/// What a store has to give back. It ends once; ending it again changes nothing.
#[async_trait]
pub(super) trait Hold: Debug + Send + Sync {
    /// Replaces what is held by the real charge. A store on the network does so in the background,
    /// as often as it takes.
    fn settle(&self, charge: Charge);

    /// Holds more, as much of it as there is room for, and says how much that is: nothing if the
    /// hold has ended or the store does not answer in time.
    async fn grow(&self, more: Charge) -> Charge;
}

/// Tokens, GPU time and a slot, held until they are paid or given back.
#[derive(Debug)]
#[must_use = "a reservation that is dropped is not paid for: keep it and settle it"]
pub struct Reservation {
    shared: Arc<Shared>,
    view: QuotaView,
    limited: Limited,
    settled: bool,
}

/// Which of what a request produces is limited on some level, so that it must not run past what it
/// holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain facts")]
pub struct Limited {
    /// Its tokens.
    pub completion: bool,
    /// Its GPU time.
    pub gpu: bool,
}

#[derive(Debug)]
struct Shared {
    hold: Box<dyn Hold>,
    reserved: Mutex<Charge>,
}

impl Shared {
    fn reserved(&self) -> MutexGuard<'_, Charge> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    pub(super) fn new(hold: Box<dyn Hold>, reserved: Charge, view: QuotaView) -> Self {
        let shared = Shared { hold, reserved: Mutex::new(reserved) };
        Self { shared: Arc::new(shared), view, limited: Limited::default(), settled: false }
    }

    /// With what was limited by the demand: the store may have to do without its limits.
    pub const fn limited_by(mut self, limited: Limited) -> Self {
        self.limited = limited;
        self
    }

    /// What is limited.
    #[must_use]
    pub const fn limited(&self) -> Limited {
        self.limited
    }

    /// Pays what the request has really cost, and gives the rest back. Returns what it cost beyond
    /// what was reserved, which a meter may now be over its limit by.
    pub fn settle(mut self, charge: Charge) -> Charge {
        self.settled = true;
        self.shared.hold.settle(charge);
        charge.over(*self.shared.reserved())
    }

    /// What is held.
    #[must_use]
    pub fn reserved(&self) -> Charge {
        *self.shared.reserved()
    }

    /// The state of the caller's meters when the request was admitted.
    #[must_use]
    pub const fn view(&self) -> QuotaView {
        self.view
    }

    /// A way to hold more while the request runs.
    #[must_use]
    pub fn extension(&self) -> Extension {
        Extension { shared: Arc::clone(&self.shared) }
    }
}

/// Makes a reservation larger while its request runs.
#[derive(Clone, Debug)]
pub struct Extension {
    shared: Arc<Shared>,
}

impl Extension {
    /// Holds more, as much as there is room for, and says how much that is: nothing if the request
    /// has ended.
    pub async fn grow(&self, more: Charge) -> Charge {
        let granted = self.shared.hold.grow(more).await;
        let mut reserved = self.shared.reserved();
        *reserved = reserved.plus(granted);
        granted
    }
}

/// A request that ends without a charge, or with its task, gives everything back.
impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.settled {
            self.shared.hold.settle(Charge::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Witness(Arc<Mutex<Vec<Charge>>>);

    #[async_trait]
    impl Hold for Witness {
        fn settle(&self, charge: Charge) {
            self.0.lock().unwrap().push(charge);
        }

        async fn grow(&self, more: Charge) -> Charge {
            Charge { completion: more.completion / 2, ..Charge::default() }
        }
    }

    const ESTIMATE: Charge = Charge { prompt: 60, completion: 40, gpu_ms: 10 };

    fn witnessed() -> (Reservation, Arc<Mutex<Vec<Charge>>>) {
        let ends = Arc::default();
        let hold = Box::new(Witness(Arc::clone(&ends)));
        (Reservation::new(hold, ESTIMATE, QuotaView::default()), ends)
    }

    #[test]
    fn a_settled_reservation_is_not_given_back_as_well() {
        let (reservation, ends) = witnessed();
        let charge = Charge { prompt: 60, completion: 60, gpu_ms: 3 };
        let over = reservation.settle(charge);
        assert_eq!(over, Charge { completion: 20, ..Charge::default() });
        assert_eq!(*ends.lock().unwrap(), [charge]);
    }

    #[test]
    fn a_dropped_reservation_is_given_back_once() {
        let (dropped, ends) = witnessed();
        let extension = dropped.extension();
        drop(dropped);
        drop(extension);
        assert_eq!(*ends.lock().unwrap(), [Charge::default()]);
    }

    #[tokio::test]
    async fn growth_counts_as_reserved() {
        let (reservation, _ends) = witnessed();
        let more = Charge { completion: 100, ..ESTIMATE };
        assert_eq!(reservation.extension().grow(more).await.completion, 50);
        assert_eq!(reservation.reserved(), Charge { completion: 90, ..ESTIMATE });
        let over = reservation.settle(Charge { completion: 91, ..ESTIMATE });
        assert_eq!(over, Charge { completion: 1, ..Charge::default() });
    }

    #[tokio::test]
    async fn a_panic_on_the_way_gives_the_reservation_back() {
        let (reservation, ends) = witnessed();
        let task = tokio::spawn(async move {
            assert_ne!(reservation.reserved(), ESTIMATE, "always fails, holding the reservation");
        });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(*ends.lock().unwrap(), [Charge::default()]);
    }
}
