//! What is still to be told to Redis: endings of requests, and holds that are too large.
//!
//! Requests do not wait for this. One task takes it from a bounded queue, many at a time, and asks
//! again until Redis has answered, however long it is gone; the scripts see to it that asking
//! again changes nothing. The same task renews the leases, so that no lease is renewed of a
//! request whose ending is on its way.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::quota::charge::Charge;

use super::Store;
use super::calls::{Call, Ending, MARK_MS};
use super::held::Held;
use super::link::{Failure, Link};

/// One thing to tell, about one group of levels.
#[derive(Debug)]
pub(super) struct Job {
    /// Keeps the store alive until all is told.
    pub(super) store: Arc<Store>,
    pub(super) held: Arc<Held>,
    pub(super) group: usize,
    pub(super) task: Task,
    /// When it was first sent without an answer.
    pub(super) unanswered: Option<Instant>,
    pub(super) rejections: u8,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    End(Ending, Charge),
    /// Of a level that was found to hold more than all levels grant.
    Trim {
        found: Charge,
        most: Charge,
    },
}

impl Job {
    async fn attempt(&self) -> Result<(), Failure> {
        match self.call() {
            Some(call) => self.store.call(&call).await.map(drop),
            None => Err(Failure::TooOld),
        }
    }

    fn call(&self) -> Option<Call> {
        let group = self.held.groups.get(self.group)?;
        let calls = &self.store.calls;
        match self.task {
            Task::End(how, charge) => {
                Some(calls.settle(self.held.id, group, self.today(how)?, charge))
            }
            Task::Trim { found, most } => {
                Some(calls.trim(self.held.id, group.first()?.subject, found, most))
            }
        }
    }

    /// After so long Redis may have forgotten that it did it. Then it is better not paid for than
    /// paid for twice.
    fn today(&self, how: Ending) -> Option<Ending> {
        if self.unanswered.is_none_or(|since| since.elapsed() < KNOWN_FOR) {
            return Some(how);
        }
        match how {
            Ending::Pay | Ending::Finish => Some(Ending::Finish),
            Ending::Undo => Some(Ending::Undo),
            Ending::Add => None,
        }
    }

    /// It is told, or never will be.
    fn finish(self) {
        if let Task::End(how, _) = self.task
            && how != Ending::Add
        {
            self.store.register.paid(&self.held);
        }
    }

    fn failed(mut self, failure: Failure) -> Option<Self> {
        match failure {
            Failure::NotSent => {}
            Failure::Lost => self.unanswered = self.unanswered.or_else(|| Some(Instant::now())),
            Failure::Rejected => self.rejections += 1,
            Failure::TooOld => self.rejections = MOST_REJECTIONS,
        }
        if self.rejections < MOST_REJECTIONS {
            return Some(self);
        }
        self.finish();
        None
    }
}

/// What waits to be told.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    pending: AtomicUsize,
    lost: AtomicU64,
    filled: Notify,
    emptied: Notify,
}

impl Queue {
    /// Beyond the bound a job is lost: what it would have given back is given back by its lease.
    pub(super) fn push(&self, job: Job) {
        let mut jobs = self.lock();
        if jobs.len() >= CAPACITY {
            drop(jobs);
            self.lose();
            return job.finish();
        }
        self.pending.fetch_add(1, Ordering::AcqRel);
        jobs.push_back(job);
        drop(jobs);
        self.filled.notify_one();
    }

    /// What is not told yet.
    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// Counts one that will never be told; the log hears of the first, the second, the fourth, ….
    fn lose(&self) {
        let lost = self.lost.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if lost.is_power_of_two() {
            tracing::error!(lost, "settlements of the meters in Redis were given up");
        }
    }

    /// What never will be.
    #[cfg(test)]
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until all is told.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.pending() == 0 {
                return;
            }
            emptied.await;
        }
    }

    async fn filled(&self) {
        loop {
            let filled = self.filled.notified();
            if !self.lock().is_empty() {
                return;
            }
            filled.await;
        }
    }

    fn take(&self) -> Vec<Job> {
        let mut jobs = self.lock();
        let count = jobs.len().min(BATCH);
        jobs.drain(..count).collect()
    }

    fn told(&self) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.emptied.notify_waiters();
        }
    }

    fn again(&self, job: Job, failure: Failure) {
        match job.failed(failure) {
            Some(job) => self.lock().push_front(job),
            None => {
                self.lose();
                self.told();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells what is in the queue and renews the leases, as long as there is a store.
pub(super) async fn run(
    store: Weak<Store>,
    link: Arc<Link>,
    queue: Arc<Queue>,
    renew_every: Duration,
) {
    let mut renewal = interval(renew_every);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = renewal.tick() => match store.upgrade() {
                Some(store) => renew(&store).await,
                None => return,
            },
            () = link.back() => match store.upgrade() {
                // What expired meanwhile is taken up again before others are let in.
                Some(store) => renew(&store).await,
                None => return,
            },
            () = queue.filled() => tell(&queue).await,
        }
    }
}

/// Tells a batch, once Redis is within reach. Calls that run at the same time share packets.
async fn tell(queue: &Queue) {
    let batch = queue.take();
    if let Some(first) = batch.first() {
        first.store.link.closed().await;
    }
    let mut running = JoinSet::new();
    for job in batch {
        running.spawn(async move {
            let result = job.attempt().await;
            (job, result)
        });
    }
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok((job, Ok(()))) => {
                job.finish();
                queue.told();
            }
            Ok((job, Err(failure))) => queue.again(job, failure),
            Err(error) => {
                tracing::error!(%error, "a settlement of the meters broke off");
                queue.lose();
                queue.told();
            }
        }
    }
}

/// Renews the leases of all that is held, of each subject in calls of a bounded size.
async fn renew(store: &Arc<Store>) {
    let mut running = JoinSet::new();
    for (subject, holds) in store.register.by_subject() {
        for some in holds.chunks(RENEWALS) {
            let requests = some.iter().map(|(held, metered)| (&**held, metered));
            let (store, call) = (Arc::clone(store), store.calls.extend(subject, requests));
            running.spawn(async move { store.call(&call).await.map(drop) });
            if running.len() >= BATCH {
                running.join_next().await;
            }
        }
    }
    running.join_all().await;
}

const CAPACITY: usize = 100_000;
const BATCH: usize = 64;
const RENEWALS: usize = 100;
const MOST_REJECTIONS: u8 = 5;
/// A minute less than the mark is kept, for clocks that do not run alike.
const KNOWN_FOR: Duration = Duration::from_millis(MARK_MS - 60_000);

#[cfg(test)]
mod tests {
    use super::super::tests::unreachable;
    use super::*;

    fn job(store: &Arc<Store>, task: Task, unanswered: Option<Instant>) -> Job {
        let held = Arc::new(Held::new(1, &[], false, Charge::default()));
        Job { store: Arc::clone(store), held, group: 0, task, unanswered, rejections: 0 }
    }

    #[tokio::test]
    async fn what_redis_may_have_forgotten_is_not_charged_again() {
        let store = unreachable();
        let long_ago = Instant::now().checked_sub(KNOWN_FOR);
        let cases = [
            (Ending::Pay, None, Some(Ending::Pay)),
            (Ending::Pay, Some(Instant::now()), Some(Ending::Pay)),
            (Ending::Pay, long_ago, Some(Ending::Finish)),
            (Ending::Undo, long_ago, Some(Ending::Undo)),
            (Ending::Add, Some(Instant::now()), Some(Ending::Add)),
            (Ending::Add, long_ago, None),
        ];
        for (how, unanswered, expected) in cases {
            let job = job(&store, Task::End(how, Charge::default()), unanswered);
            assert_eq!(job.today(how), expected, "{how:?} {unanswered:?}");
        }
    }

    fn trim() -> Task {
        Task::Trim { found: Charge::default(), most: Charge::default() }
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_counts_what_it_loses() {
        let store = unreachable();
        let queue = Queue::default();
        for _ in 0..CAPACITY + 7 {
            queue.push(job(&store, trim(), None));
        }
        assert_eq!((queue.pending(), queue.lost()), (CAPACITY, 7));
    }

    #[tokio::test]
    async fn what_redis_rejects_again_and_again_is_given_up() {
        let (store, queue) = (unreachable(), Queue::default());
        queue.push(job(&store, trim(), None));
        for _ in 0..MOST_REJECTIONS {
            assert_eq!((queue.pending(), queue.lost()), (1, 0));
            queue.take().into_iter().for_each(|job| queue.again(job, Failure::Rejected));
        }
        assert_eq!((queue.pending(), queue.lost()), (0, 1));
    }
}
