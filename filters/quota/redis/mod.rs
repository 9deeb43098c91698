//! The store that several gateways share: meters in Redis or Valkey.
//!
//! A request takes one round trip before and one, in the background, after: scripts reserve on all
//! levels and settle on all levels at once. On Redis Cluster, where no script reaches two subjects,
//! the levels are asked at the same time, and what one of them granted is undone if another
//! refuses: that can refuse somebody for a moment, but never lets anybody over a limit.
//!
//! The scripts only admit or not, and reply with the records of the subjects; which meter refuses,
//! until when, and what the headers say is found here by the code of the store in memory
//! ([`Account`]).
//!
//! Time is that of the Redis server, so that gateways need not agree on it. What a gateway holds is
//! leased: if it dies, it is given back when the lease ends.

mod answer;
mod calls;
mod connect;
mod degraded;
mod held;
mod link;
mod options;
mod settler;

pub use options::{InvalidOptions, OnFailure, Policy, RedisOptions, Topology};

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::clock::Clock;

use super::account::{Account, Now};
use super::answer_headers::QuotaView;
use super::charge::Charge;
use super::demand::{Demand, Metered, Subject};
use super::memory::MemoryCounters;
use super::refusal::Refusal;
use super::reservation::{Hold, Reservation};
use super::{Consumption, Counters, Unavailable};

use answer::Answer;
use calls::{Call, Calls, Ending};
use connect::Connector;
use degraded::Degraded;
use held::{Held, Register};
use link::{Failure, Link};
use settler::{Job, Queue, Task};

/// Meters in Redis. Clones share them.
#[derive(Clone, Debug)]
pub struct RedisCounters {
    store: Arc<Store>,
}

impl RedisCounters {
    /// Begins to connect in the background, on a runtime that must live as long as the gateway,
    /// and goes by the policy until it has connected.
    ///
    /// # Errors
    /// If a URL or a certificate cannot be read. Not if Redis does not answer.
    pub fn start(
        options: &RedisOptions,
        clock: Clock,
        runtime: &Handle,
    ) -> Result<Self, InvalidOptions> {
        Self::start_with(options, clock, runtime, None)
    }

    /// The time is the server's, but in tests.
    fn start_with(
        options: &RedisOptions,
        clock: Clock,
        runtime: &Handle,
        time: Option<Clock>,
    ) -> Result<Self, InvalidOptions> {
        let store = Arc::new(Store::new(options, clock, time)?);
        let link = Arc::clone(&store.link);
        let renew_every = Duration::from_millis(options.lease_ms() / 3);
        let (weak, queue) = (Arc::downgrade(&store), Arc::clone(&store.queue));
        let settler = settler::run(weak, Arc::clone(&link), queue, renew_every);
        let tasks = [
            runtime.spawn(async move { link.keep().await }).abort_handle(),
            runtime.spawn(settler).abort_handle(),
        ];
        store.tasks.get_or_init(|| tasks);
        Ok(Self { store })
    }

    /// Waits for the first connection; whether there is one.
    pub async fn ready(&self, within: Duration) -> bool {
        timeout(within, self.store.link.closed()).await.is_ok()
    }

    /// Settlements that Redis has not confirmed yet.
    #[cfg(test)]
    fn pending_settlements(&self) -> usize {
        self.store.queue.pending()
    }

    /// Settlements that were given up.
    #[cfg(test)]
    fn lost_settlements(&self) -> u64 {
        self.store.queue.lost()
    }
}

#[async_trait]
impl Counters for RedisCounters {
    async fn reserve(&self, demand: Demand) -> Result<Reservation, Refusal> {
        let store = &self.store;
        if demand.levels().is_empty() {
            return store.degraded.local.reserve(demand).await;
        }
        match store.reserve(&demand).await {
            Ok(decision) => decision,
            Err(Unavailable) => store.degraded.reserve(store, &demand).await,
        }
    }

    async fn consumption(&self, subject: Subject) -> Result<Consumption, Unavailable> {
        let answer = self.store.ask(self.store.calls.read(subject)).await?;
        let account = answer.accounts().and_then(|accounts| accounts.first().copied());
        Ok(account.ok_or(Unavailable)?.consumption(answer.now))
    }

    async fn reset(&self, subject: Subject, number: u64) -> Result<(), Unavailable> {
        self.store.degraded.local.reset(subject, number).await?;
        self.store.ask(self.store.calls.reset(subject, number)).await.map(drop)
    }

    fn open_reservations(&self) -> usize {
        self.store.open.load(Ordering::Relaxed) + self.store.degraded.local.open_reservations()
    }

    async fn flush(&self, within: Duration) -> bool {
        timeout(within, self.store.queue.emptied()).await.is_ok()
    }

    fn is_degraded(&self) -> bool {
        self.store.link.is_open()
    }
}

/// What clones, reservations and settlements share.
#[derive(Debug)]
struct Store {
    link: Arc<Link>,
    calls: Calls,
    register: Register,
    queue: Arc<Queue>,
    degraded: Degraded,
    open: AtomicUsize,
    tasks: OnceLock<[AbortHandle; 2]>,
}

impl Store {
    fn new(
        options: &RedisOptions,
        clock: Clock,
        time: Option<Clock>,
    ) -> Result<Self, InvalidOptions> {
        let connector = Connector::new(options)?;
        Ok(Self {
            link: Arc::new(Link::new(connector, &options.prefix, options.call_timeout())),
            calls: Calls::new(options.prefix.clone(), options.lease_ms(), time),
            register: Register::default(),
            queue: Arc::default(),
            degraded: Degraded {
                local: MemoryCounters::new(clock),
                on_failure: options.on_failure,
                gateways: options.gateways,
            },
            open: AtomicUsize::new(0),
            tasks: OnceLock::new(),
        })
    }

    fn held(&self, id: u128, levels: &[Metered], reserved: Charge) -> Arc<Held> {
        Arc::new(Held::new(id, levels, self.link.is_cluster(), reserved))
    }

    async fn reserve(
        self: &Arc<Self>,
        demand: &Demand,
    ) -> Result<Result<Reservation, Refusal>, Unavailable> {
        if self.link.is_open() {
            return Err(Unavailable);
        }
        let held = self.held(demand.request_id, demand.levels(), demand.estimate);
        let mut attempt = Attempt { store: self, held: &held, decided: false };
        let reserve = |group: &Arc<[Metered]>| self.calls.reserve(&held, group, demand.least);
        let answers = self.ask_all(held.groups.iter().map(reserve).collect()).await?;
        let seen = seen(&held, &answers).ok_or(Unavailable)?;
        attempt.decided = true;
        if answers.iter().all(|answer| answer.status == ADMITTED) {
            return Ok(Ok(self.admit(&held, &answers, &seen)));
        }
        self.undo_granted(&held, &answers);
        Ok(Err(worst(demand, &seen)))
    }

    fn admit(
        self: &Arc<Self>,
        held: &Arc<Held>,
        answers: &[Answer],
        seen: &[Seen<'_>],
    ) -> Reservation {
        let granted = least_of(answers.iter().map(|answer| answer.granted));
        held.hold(granted);
        self.register.insert(held);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.trim(held, answers.iter().map(|answer| answer.granted), granted);
        let hold =
            RedisHold { store: Arc::clone(self), held: Arc::clone(held), local: Mutex::default() };
        Reservation::new(Box::new(hold), granted, view(seen))
    }

    /// Holds more in Redis, as much as all levels have room for.
    async fn grow(self: &Arc<Self>, held: &Arc<Held>, more: Charge) -> Result<Charge, Unavailable> {
        let had = held.reserved();
        let grow = |group: &Arc<[Metered]>| self.calls.grow(held, group, more);
        let answers = self.ask_all(held.groups.iter().map(grow).collect()).await?;
        let granted = least_of(answers.iter().map(|answer| answer.granted));
        held.hold(had.plus(granted));
        let held_by_each = answers.iter().map(|answer| had.plus(answer.granted));
        self.trim(held, held_by_each, had.plus(granted));
        Ok(granted)
    }

    /// Tells Redis, in the background, that a request has ended.
    fn end(self: &Arc<Self>, held: &Arc<Held>, how: Ending, charge: Charge) {
        for group in 0..held.groups.len() {
            self.tell(held, group, Task::End(how, charge));
        }
    }

    fn undo_granted(self: &Arc<Self>, held: &Arc<Held>, answers: &[Answer]) {
        for (group, answer) in answers.iter().enumerate() {
            if answer.status == ADMITTED {
                self.tell(held, group, Task::End(Ending::Undo, Charge::default()));
            }
        }
    }

    /// Where one level holds more than all of them grant.
    fn trim(
        self: &Arc<Self>,
        held: &Arc<Held>,
        by_group: impl Iterator<Item = Charge>,
        granted: Charge,
    ) {
        for (group, holds) in by_group.enumerate() {
            if holds != granted {
                self.tell(held, group, Task::Trim { found: holds, most: granted });
            }
        }
    }

    fn tell(self: &Arc<Self>, held: &Arc<Held>, group: usize, task: Task) {
        let (store, held) = (Arc::clone(self), Arc::clone(held));
        self.queue.push(Job { store, held, group, task, unanswered: None, rejections: 0 });
    }

    /// The answers, in the order of the calls, or none if one is missing.
    async fn ask_all(self: &Arc<Self>, mut calls: Vec<Call>) -> Result<Vec<Answer>, Unavailable> {
        if calls.len() == 1
            && let Some(call) = calls.pop()
        {
            return Ok(vec![self.ask(call).await?]);
        }
        let mut running = JoinSet::new();
        for (number, call) in calls.into_iter().enumerate() {
            let store = Arc::clone(self);
            running.spawn(async move { (number, store.ask(call).await) });
        }
        let mut answers = running.join_all().await;
        answers.sort_unstable_by_key(|(number, _)| *number);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    async fn ask(&self, call: Call) -> Result<Answer, Unavailable> {
        self.call(&call).await.map_err(|_| Unavailable)
    }

    async fn call(&self, call: &Call) -> Result<Answer, Failure> {
        let answer = self.link.call(call).await?;
        self.calls.remember(call, &answer);
        Ok(answer)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.tasks.get().into_iter().flatten().for_each(AbortHandle::abort);
    }
}

/// A question on its way. If nobody waits for the answer any more, or it does not come, what it may
/// have held is given back.
struct Attempt<'a> {
    store: &'a Arc<Store>,
    held: &'a Arc<Held>,
    decided: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.decided {
            self.store.end(self.held, Ending::Undo, Charge::default());
        }
    }
}

/// A request that is held in Redis.
#[derive(Debug)]
struct RedisHold {
    store: Arc<Store>,
    held: Arc<Held>,
    /// What it holds beyond that in the memory of this gateway, since Redis did not answer.
    local: Mutex<Option<Reservation>>,
}

#[async_trait]
impl Hold for RedisHold {
    fn settle(&self, charge: Charge) {
        if !self.held.end() {
            return;
        }
        self.store.open.fetch_sub(1, Ordering::Relaxed);
        self.store.end(&self.held, Ending::Pay, charge);
        if let Some(reservation) = self.local().take() {
            let used = reservation.reserved();
            reservation.settle(used);
        }
    }

    async fn grow(&self, more: Charge) -> Charge {
        if !self.held.runs() {
            return Charge::default();
        }
        let more = Charge { prompt: 0, ..more };
        if let Ok(granted) = self.store.grow(&self.held, more).await {
            return granted;
        }
        let known = self.local().as_ref().map(Reservation::extension);
        if let Some(local) = known {
            return local.grow(more).await;
        }
        let Some(local) = self.store.degraded.grow(&self.held, more).await else {
            return Charge::default();
        };
        let granted = local.reserved();
        // One that has ended meanwhile pays for itself.
        if self.held.runs() {
            *self.local() = Some(local);
        }
        granted
    }
}

impl RedisHold {
    fn local(&self) -> MutexGuard<'_, Option<Reservation>> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One level, as its script left it.
struct Seen<'a> {
    metered: &'a Metered,
    account: Account,
    now: Now,
    refused: bool,
}

fn seen<'a>(held: &'a Held, answers: &[Answer]) -> Option<Vec<Seen<'a>>> {
    let mut seen = Vec::new();
    for (group, answer) in held.groups.iter().zip(answers) {
        let refused = answer.status == REFUSED;
        for (metered, mut account) in group.iter().zip(answer.accounts()?) {
            account.advance(&metered.limits, answer.now);
            seen.push(Seen { metered, account, now: answer.now, refused });
        }
    }
    Some(seen)
}

/// The refusal that lasts longest; of the store itself for a request that has ended already.
fn worst(demand: &Demand, seen: &[Seen<'_>]) -> Refusal {
    let refusals = seen.iter().filter(|seen| seen.refused).filter_map(|seen| {
        let Seen { metered, account, now, .. } = seen;
        let (meter, wait) = account.obstacle(&metered.limits, demand.least, *now)?;
        Some(Refusal { meter, wait, level: metered.level, view: view(&[]) })
    });
    let worst = refusals.max_by_key(|refusal| refusal.wait.unwrap_or(Duration::MAX));
    let level = || demand.levels().first().map_or(super::Level::Global, |metered| metered.level);
    Refusal { view: view(seen), ..worst.unwrap_or_else(|| degraded::refused(level())) }
}

/// The tightest meters of all levels.
fn view(seen: &[Seen<'_>]) -> QuotaView {
    let mut view = QuotaView::default();
    seen.iter().for_each(|s| s.account.show(&s.metered.limits, s.now, &mut view));
    view
}

/// What all of them grant.
fn least_of(granted: impl Iterator<Item = Charge>) -> Charge {
    let least = |a: Charge, b: Charge| Charge {
        prompt: a.prompt.min(b.prompt),
        completion: a.completion.min(b.completion),
        gpu_ms: a.gpu_ms.min(b.gpu_ms),
    };
    granted.reduce(least).unwrap_or_default()
}

const ADMITTED: i64 = 1;
const REFUSED: i64 = 0;

#[cfg(test)]
mod tests;
