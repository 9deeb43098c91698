//! The queues of all upstreams, by name. They outlive a reload: who waits keeps its place.

use std::collections::HashMap;

use arc_swap::ArcSwap;

use super::{Queue, QueueLimits};
use crate::clock::Clock;

type ByName = HashMap<Box<str>, Queue>;

/// The queue of each upstream.
#[derive(Debug)]
pub struct Queues {
    clock: Clock,
    by_name: ArcSwap<ByName>,
}

impl Queues {
    /// No queues yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, by_name: ArcSwap::default() }
    }

    /// Makes the queues those of these upstreams. One that is there already gets its new limits; one
    /// that is gone serves those that are in it.
    pub fn reload<'a>(&self, upstreams: impl IntoIterator<Item = (&'a str, QueueLimits)>) {
        let old = self.by_name.load();
        let queue = |(name, limits): (&'a str, QueueLimits)| {
            let queue = old.get(name).cloned();
            let queue = queue.unwrap_or_else(|| Queue::new(limits, self.clock.clone()));
            queue.set_limits(limits);
            (name.into(), queue)
        };
        let new: ByName = upstreams.into_iter().map(queue).collect();
        self.by_name.store(new.into());
    }

    /// The queue of an upstream.
    #[must_use]
    pub fn get(&self, upstream: &str) -> Option<Queue> {
        self.by_name.load().get(upstream).cloned()
    }

    /// How many wait for each upstream, for the metrics.
    #[must_use]
    pub fn depths(&self) -> Vec<(Box<str>, usize)> {
        let queues = self.by_name.load();
        queues.iter().map(|(name, queue)| (name.clone(), queue.depth())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Who;

    #[tokio::test]
    async fn a_queue_outlives_a_reload() {
        let limits = |n| QueueLimits { concurrent: n, ..QueueLimits::default() };
        let queues = Queues::new(Clock::system());
        queues.reload([("a", limits(None)), ("b", limits(None))]);
        let turn = queues.get("a").unwrap().enter(Who { user: 1, weight: 1 }).await.unwrap();
        queues.reload([("a", limits(std::num::NonZeroU32::new(1))), ("c", limits(None))]);
        let queue = queues.get("a").unwrap();
        assert_eq!((queue.running(), turn.waited().as_nanos()), (1, 0));
        assert!(queues.get("b").is_none() && queues.get("c").is_some());
        let second = queue.enter(Who { user: 2, weight: 1 });
        let mut second = Box::pin(second);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(second.as_mut().poll(&mut context).is_pending(), "the limit is kept");
        let mut depths = queues.depths();
        depths.sort();
        assert_eq!(depths, [("a".into(), 1), ("c".into(), 0)]);
        drop(turn);
        assert!(second.await.is_ok());
    }
}
