//! Many threads at once. Bounded by counts: a lost wake-up shows as a waiter that runs into its
//! deadline, which is far away.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::{JoinSet, yield_now};

use super::*;

const TASKS: u64 = 16;
const ROUNDS: u64 = 400;

/// One client: it enters, often leaves while it waits, and else holds its turn for a while.
async fn client(queue: Queue, task: u64, running: Arc<AtomicUsize>, most: usize) -> u64 {
    let (mut random, mut served) = (task, 0);
    for _ in 0..ROUNDS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(task | 1);
        let (patience, hold) = ((random >> 33) % 8, (random >> 40) % 4);
        let who = Who { user: u128::from(task % 5), weight: 1 + task as u32 % 3 };
        let entered = tokio::select! {
            biased;
            entered = queue.enter(who) => entered,
            () = yields(if patience > 4 { u64::MAX } else { patience }) => continue,
        };
        match entered {
            Ok(turn) => {
                assert!(running.fetch_add(1, Ordering::SeqCst) < most, "a slot was given twice");
                yields(hold).await;
                running.fetch_sub(1, Ordering::SeqCst);
                drop(turn);
                served += 1;
            }
            Err(overflow) => assert_ne!(overflow.cause(), Cause::Late, "a wake-up was lost"),
        }
    }
    served
}

async fn yields(times: u64) {
    for _ in 0..times {
        yield_now().await;
    }
}

async fn stress(queue: &Queue, most: usize, reloads: &[QueueLimits]) {
    let running = Arc::default();
    let mut clients: JoinSet<_> =
        (0..TASKS).map(|task| client(queue.clone(), task, Arc::clone(&running), most)).collect();
    for limits in reloads.iter().cycle().take(reloads.len() * 200) {
        queue.set_limits(*limits);
        yield_now().await;
    }
    let mut served = 0;
    while let Some(client) = clients.join_next().await {
        served += client.unwrap();
    }
    assert!(served > TASKS * ROUNDS / 10, "{served} were served");
    assert_eq!((queue.running(), queue.depth()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slots_are_neither_lost_nor_given_twice() {
    let queue = Queue::new(limits(3, 8, 4), Clock::system());
    stress(&queue, 3, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn reloads_lose_nobody() {
    let reloads = [limits(1, 8, 4), limits(0, 8, 4), limits(2, 4, 4), limits(0, 0, 1)];
    let queue = Queue::new(reloads[0], Clock::system());
    stress(&queue, usize::MAX, &reloads).await;
}
