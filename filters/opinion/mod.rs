//! The second opinion: what another model thinks of a prompt that the scanner is not sure about.
//!
//! | file | story |
//! |---|---|
//! | `settings.rs` | whom to ask, about what, at what cost, and what holds if there is no answer |
//! | `given.rs` | an opinion, or why there is none, and what becomes of the first verdict |
//! | `passage.rs` | the part of a prompt that is worth asking about |
//! | `question.rs` | a text as a request, in which it can be nothing but a text |
//! | `reply.rs` | an answer, which is believed only if it is exactly what was asked for |
//! | `line.rs` | the HTTP client: one address, no redirects, bounded in time and size |
//! | `breaker.rs`, `budget.rs` | when nobody is asked: the guard is ill, or the calls are used up |
//! | `memory.rs`, `flights.rs` | what was asked before, and what is being asked now |
//!
//! The rules and the classifier of [`crate::scan`] judge every prompt in microseconds. Only where
//! their score lies in a grey zone is it worth milliseconds to ask a guard: a classifier behind an
//! HTTP endpoint (Prompt Guard and its kin) or a model that chats (Llama Guard, or any).
//!
//! Nothing here waits longer than [`Settings::timeout`], whatever the guard does. A call that has
//! begun runs to its end although its request is gone, since others may wait for the same answer.

mod breaker;
mod budget;
mod flights;
mod given;
mod line;
mod memory;
mod passage;
mod question;
mod reply;
mod settings;

#[cfg(test)]
mod support;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::clock::Clock;
use crate::prompt::Piece;
use crate::scan::Report;

use breaker::Breaker;
use budget::Budget;
use flights::{Boarding, Flight, Flights};
use line::Line;
use memory::{Key, Memory};
use question::Writer;
use reply::Reader;

pub use given::{Failure, Given, Opinion, Ruling, Source};
pub use passage::Passage;
pub use settings::{
    Chat, Classifier, Credential, Guard, Label, LlamaGuard, OnFailure, Settings, SettingsError,
    Zone,
};

/// Calls under way or waiting, for each slot.
const WAITING: usize = 16;

/// A guard that can be asked.
pub struct Opinions {
    settings: Settings,
    clock: Clock,
    flights: Arc<Flights>,
    desk: Arc<Desk>,
}

/// What a call needs, which may outlive its request.
struct Desk {
    line: Line,
    writer: Writer,
    reader: Reader,
    memory: Memory,
    breaker: Breaker,
    budget: Budget,
    slots: Semaphore,
    timeout: Duration,
    clock: Clock,
}

impl Opinions {
    /// Takes a guard. Nothing is sent before it is asked for the first time.
    ///
    /// # Errors
    /// [`SettingsError`] says what is wrong with the settings, without a URL or a secret.
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, SettingsError> {
        settings.check()?;
        let desk = Desk {
            line: Line::new(&settings)?,
            writer: Writer::new(&settings.guard)?,
            reader: Reader::new(&settings.guard)?,
            memory: Memory::new(settings.cache_entries, settings.cache_ttl)?,
            breaker: Breaker::new(settings.breaker_failures, settings.breaker_pause),
            budget: Budget::new(settings.calls_per_minute),
            slots: Semaphore::new(settings.concurrent),
            timeout: settings.timeout,
            clock: clock.clone(),
        };
        let flights = Flights::new(settings.concurrent.saturating_mul(WAITING));
        Ok(Self { settings, clock, flights: Arc::new(flights), desk: Arc::new(desk) })
    }

    /// The scores for which this guard is asked.
    #[must_use]
    pub const fn zone(&self) -> Zone {
        self.settings.zone
    }

    /// What holds if there is no opinion.
    #[must_use]
    pub const fn on_failure(&self) -> OnFailure {
        self.settings.on_failure
    }

    /// Whether the guard failed so often that it is left alone now.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.desk.breaker.is_open(self.clock.monotonic_ns())
    }

    /// The part of a prompt to ask about: the messages in which an injection was suspected, and of
    /// long ones the head, the tail and what is around the findings. What the report redacts is not in
    /// it.
    #[must_use]
    pub fn passage(&self, pieces: &[Piece], report: &Report) -> Passage {
        Passage::of(pieces, &report.findings, &report.edits, self.settings.max_bytes)
    }

    /// Asks about a passage. Ends within the timeout; needs a Tokio runtime with time and IO.
    pub async fn ask(&self, passage: Passage) -> Given {
        let began_ns = self.clock.monotonic_ns();
        let Passage { text, is_whole } = passage;
        let (opinion, source) = self.look_or_ask(text).await;
        let took_ns = self.clock.monotonic_ns().saturating_sub(began_ns);
        Given { opinion, source, is_whole, took: Duration::from_nanos(took_ns) }
    }

    /// A call remembers its opinion before it ends, so whoever is first after that finds it.
    async fn look_or_ask(&self, text: String) -> (Opinion, Source) {
        let key = self.desk.memory.key(&text);
        if let Some(opinion) = self.desk.recall(&key) {
            return (opinion, Source::Cache);
        }
        match self.flights.board(key) {
            Boarding::Joined(seat) => (seat.wait().await, Source::Shared),
            Boarding::Full => (Opinion::Unavailable(Failure::Busy), Source::Guard),
            Boarding::First(flight, seat) => {
                if let Some(opinion) = self.desk.recall(&key) {
                    flight.land(opinion);
                    return (opinion, Source::Cache);
                }
                tokio::spawn(Arc::clone(&self.desk).fly(flight, text));
                (seat.wait().await, Source::Guard)
            }
        }
    }
}

impl Desk {
    fn recall(&self, key: &Key) -> Option<Opinion> {
        self.memory.get(key, self.clock.monotonic_ns())
    }

    async fn fly(self: Arc<Self>, flight: Flight, text: String) {
        let opinion = match self.call(&text).await {
            Ok(opinion) => {
                self.memory.keep(*flight.key(), opinion, self.clock.monotonic_ns());
                opinion
            }
            Err(failure) => Opinion::Unavailable(failure),
        };
        flight.land(opinion);
    }

    /// The wait for a slot and the call have one time limit together.
    async fn call(&self, text: &str) -> Result<Opinion, Failure> {
        if self.breaker.is_open(self.clock.monotonic_ns()) {
            return Err(Failure::Paused);
        }
        let end = Instant::now() + self.timeout;
        let slot = timeout_at(end, self.slots.acquire()).await.map_err(|_| Failure::Busy)?;
        let _slot = slot.map_err(|_| Failure::Internal)?;
        let body = self.writer.write(text)?;
        let now_ns = self.clock.monotonic_ns();
        self.budget.take(now_ns)?;
        self.breaker.admit(now_ns)?;
        let answered = timeout_at(end, self.line.post(body)).await;
        let answer = answered.unwrap_or(Err(Failure::Timeout));
        let read = answer.and_then(|bytes| self.reader.read(&bytes));
        self.note(read.as_ref().err().copied());
        read
    }

    /// An unclear answer is one of a guard that works.
    fn note(&self, failure: Option<Failure>) {
        let now_ns = self.clock.monotonic_ns();
        let host = self.line.host();
        match failure.filter(|failure| failure.is_of_the_guard()) {
            Some(failure) if self.breaker.failed(now_ns) => {
                tracing::warn!(host, ?failure, "the guard of second opinions is left alone");
            }
            None if self.breaker.succeeded() => {
                tracing::info!(host, "the guard of second opinions answers again");
            }
            Some(_) | None => {}
        }
    }
}

impl fmt::Debug for Opinions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opinions")
            .field("host", &self.desk.line.host())
            .field("zone", &self.settings.zone)
            .finish_non_exhaustive()
    }
}
