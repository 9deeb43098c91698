//! Calls under way: whoever asks about a text that is being asked about waits for the same answer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::memory::Key;
use super::{Failure, Opinion};

type Landing = watch::Receiver<Option<Opinion>>;

/// The calls under way, by the text that they are about.
pub(super) struct Flights {
    flying: Mutex<HashMap<Key, Landing>>,
    most: usize,
}

/// What somebody finds who wants to ask.
pub(super) enum Boarding {
    /// Nobody asks yet: it is theirs to do.
    First(Flight, Seat),
    /// The answer is on its way.
    Joined(Seat),
    /// So many others ask or wait to ask that there is no hope of an answer in time.
    Full,
}

/// A call under way; it is over when this is dropped.
pub(super) struct Flight {
    key: Key,
    flights: Arc<Flights>,
    landing: watch::Sender<Option<Opinion>>,
}

/// A place from which the answer is waited for.
pub(super) struct Seat(Landing);

impl Flights {
    /// No more than `most` calls at one time, those included that wait for a slot. Their requests may
    /// be gone, so nothing else bounds the texts that they hold.
    pub(super) fn new(most: usize) -> Self {
        Self { flying: Mutex::default(), most }
    }

    pub(super) fn board(self: &Arc<Self>, key: Key) -> Boarding {
        let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = flying.len() >= self.most;
        match flying.entry(key) {
            Entry::Occupied(flight) => Boarding::Joined(Seat(flight.get().clone())),
            Entry::Vacant(_) if is_full => Boarding::Full,
            Entry::Vacant(place) => {
                let (landing, seat) = watch::channel(None);
                place.insert(seat.clone());
                let flight = Flight { key, flights: Arc::clone(self), landing };
                Boarding::First(flight, Seat(seat))
            }
        }
    }
}

impl Flight {
    pub(super) const fn key(&self) -> &Key {
        &self.key
    }

    pub(super) fn land(self, opinion: Opinion) {
        self.landing.send_replace(Some(opinion));
    }
}

/// Also where a call ends without an answer, so that the next one to ask is the first again.
impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.flying.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl Seat {
    pub(super) async fn wait(mut self) -> Opinion {
        let landed = self.0.wait_for(Option::is_some).await;
        let opinion = landed.ok().and_then(|opinion| *opinion);
        opinion.unwrap_or(Opinion::Unavailable(Failure::Internal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTACK: Opinion = Opinion::Attack { score: 1.0 };

    fn first(flights: &Arc<Flights>, key: Key) -> (Flight, Seat) {
        match flights.board(key) {
            Boarding::First(flight, seat) => (flight, seat),
            Boarding::Joined(_) | Boarding::Full => panic!("somebody was first"),
        }
    }

    fn joined(flights: &Arc<Flights>, key: Key) -> Seat {
        match flights.board(key) {
            Boarding::Joined(seat) => seat,
            Boarding::First(..) | Boarding::Full => panic!("nobody was first"),
        }
    }

    #[tokio::test]
    async fn all_on_one_flight_hear_the_same() {
        let flights = Arc::new(Flights::new(2));
        let (flight, seat) = first(&flights, [1; 32]);
        let (second, third) = (joined(&flights, [1; 32]), joined(&flights, [1; 32]));
        let (_other, _) = first(&flights, [2; 32]);
        assert!(matches!(flights.board([3; 32]), Boarding::Full));
        flight.land(ATTACK);
        assert_eq!(seat.wait().await, ATTACK);
        assert_eq!(second.wait().await, ATTACK);
        assert_eq!(third.wait().await, ATTACK);
        assert_eq!(flights.flying.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_flight_that_is_lost_holds_nobody() {
        let flights = Arc::new(Flights::new(1));
        let (flight, seat) = first(&flights, [1; 32]);
        drop(flight);
        assert_eq!(seat.wait().await, Opinion::Unavailable(Failure::Internal));
        let (_flight, _) = first(&flights, [1; 32]);
    }
}
