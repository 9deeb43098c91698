//! The proof that a request was admitted, and the duty to pay for it.

use std::fmt::Debug;

use async_trait::async_trait;

use super::answer_headers::QuotaView;
use super::demand::Charge;

/// What a store keeps of a reservation: one that is consumed cannot be paid twice.
#[async_trait]
pub(super) trait Hold: Debug + Send + Sync {
    /// Replaces the estimate by the real charge.
    async fn settle(self: Box<Self>, charge: Charge);

    /// Gives everything back but the request itself. Runs in `Drop`: it must not block.
    fn release(self: Box<Self>);
}

/// A request that was admitted by every meter.
///
/// Only [`Counters::reserve`](super::Counters::reserve) makes one. It ends either in
/// [`settle`](Self::settle), which consumes it, or in being dropped, on whatever path, which gives
/// the estimate and the slot back.
#[derive(Debug)]
#[must_use = "a reservation that is dropped is not paid for: keep it and settle it"]
pub struct Reservation {
    hold: Option<Box<dyn Hold>>,
    reserved: Charge,
    view: QuotaView,
}

impl Reservation {
    pub(super) fn new(hold: Box<dyn Hold>, reserved: Charge, view: QuotaView) -> Self {
        Self { hold: Some(hold), reserved, view }
    }

    /// Charges what was really used, all of it, and frees the slot.
    ///
    /// Gives back by how much that is over the reservation. It was charged too; the caller records
    /// it, because such a request can take a subject over its limit.
    pub async fn settle(mut self, charge: Charge) -> Charge {
        if let Some(hold) = self.hold.take() {
            hold.settle(charge).await;
        }
        charge.over(self.reserved)
    }

    /// What is held.
    #[must_use]
    pub const fn reserved(&self) -> Charge {
        self.reserved
    }

    /// For the headers: what is left after this request.
    #[must_use]
    pub const fn view(&self) -> QuotaView {
        self.view
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            hold.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Writes down how it ended.
    #[derive(Debug)]
    struct Witness(Arc<Mutex<Vec<Option<Charge>>>>);

    #[async_trait]
    impl Hold for Witness {
        async fn settle(self: Box<Self>, charge: Charge) {
            self.0.lock().unwrap().push(Some(charge));
        }

        fn release(self: Box<Self>) {
            self.0.lock().unwrap().push(None);
        }
    }

    const ESTIMATE: Charge = Charge { tokens: 100, gpu_ms: 10 };

    fn witnessed() -> (Reservation, Arc<Mutex<Vec<Option<Charge>>>>) {
        let ends = Arc::default();
        let hold = Box::new(Witness(Arc::clone(&ends)));
        (Reservation::new(hold, ESTIMATE, QuotaView::default()), ends)
    }

    #[tokio::test]
    async fn a_settled_reservation_is_not_released_as_well() {
        let (reservation, ends) = witnessed();
        let charge = Charge { tokens: 120, gpu_ms: 3 };
        assert_eq!(reservation.settle(charge).await, Charge { tokens: 20, gpu_ms: 0 });
        assert_eq!(*ends.lock().unwrap(), [Some(charge)]);
    }

    #[tokio::test]
    async fn a_reservation_ends_once_however_it_ends() {
        let (dropped, ends) = witnessed();
        drop(dropped);
        assert_eq!(*ends.lock().unwrap(), [None]);

        let (abandoned, ends) = witnessed();
        drop(abandoned.settle(ESTIMATE)); // the future is never polled
        assert_eq!(*ends.lock().unwrap(), [None]);
    }

    #[tokio::test]
    async fn a_panic_on_the_way_gives_the_reservation_back() {
        let (reservation, ends) = witnessed();
        let task = tokio::spawn(async move {
            assert_ne!(reservation.reserved(), ESTIMATE, "always fails, holding the reservation");
        });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(*ends.lock().unwrap(), [None]);
    }
}
