use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;

mod fairness;
mod interleavings;
mod threads;

type Entering = Pin<Box<dyn Future<Output = Result<Turn, Overflow>> + Send>>;

fn limits(concurrent: u32, waiting: usize, per_user: usize) -> QueueLimits {
    let deadline = Duration::from_secs(30);
    QueueLimits { concurrent: NonZeroU32::new(concurrent), waiting, per_user, deadline }
}

fn enter(queue: &Queue, user: u128, weight: u32) -> Entering {
    let queue = queue.clone();
    Box::pin(async move { queue.enter(Who { user, weight }).await })
}

fn poll(entering: &mut Entering) -> Poll<Result<Turn, Overflow>> {
    entering.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Enters and waits in line.
fn line_up(queue: &Queue, user: u128) -> Entering {
    let mut entering = enter(queue, user, 1);
    assert!(poll(&mut entering).is_pending());
    entering
}

fn refusal(polled: Poll<Result<Turn, Overflow>>) -> Option<Cause> {
    match polled {
        Poll::Ready(Err(overflow)) => Some(overflow.cause()),
        Poll::Ready(Ok(_)) | Poll::Pending => None,
    }
}

#[tokio::test]
async fn without_a_limit_nobody_waits() {
    let queue = Queue::new(QueueLimits::default(), Clock::system());
    let mut turns = vec![];
    for user in 0..1000 {
        turns.push(queue.enter(Who { user, weight: 1 }).await.unwrap());
    }
    assert_eq!((queue.running(), queue.depth()), (1000, 0));
    assert_eq!(format!("{queue:?}"), "Queue { slots: 1000 running, 0 waiting }");
    drop(turns);
    assert_eq!(queue.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_turn_knows_how_long_it_waited() {
    let clock = Clock::system();
    let queue = Queue::new(limits(1, 8, 8), clock.clone());
    let first = enter(&queue, 1, 1).await.unwrap();
    assert_eq!(format!("{first:?}"), "turn after 0ns");
    let second = line_up(&queue, 1);
    clock.advance(Duration::from_secs(7));
    drop(first);
    clock.advance(Duration::from_secs(7));
    let waited = second.await.unwrap().waited();
    assert!((7..14).contains(&waited.as_secs()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn who_is_not_served_in_time_is_told_so_and_when_to_come_back() {
    let clock = Clock::system();
    let queue = Queue::new(limits(2, 8, 8), clock.clone());
    let _held = [enter(&queue, 1, 1).await.unwrap(), enter(&queue, 1, 1).await.unwrap()];
    let (mut early, _other) = (line_up(&queue, 2), line_up(&queue, 3));
    clock.advance(Duration::from_secs(24));
    tokio::time::advance(Duration::from_millis(29_999)).await;
    assert!(poll(&mut early).is_pending());
    tokio::time::advance(Duration::from_millis(1)).await;
    let overflow = early.await.unwrap_err();
    assert_eq!((overflow.cause(), overflow.waited().as_secs()), (Cause::Late, 24));
    // Two turns run for 24 s each, two are to come, on two slots.
    assert_eq!(overflow.retry_after().as_secs(), 24);
    assert_eq!(queue.depth(), 1);
}

#[tokio::test]
async fn a_user_has_so_many_waiters_and_a_crowd_makes_room() {
    let queue = Queue::new(limits(1, 3, 2), Clock::system());
    let turn = enter(&queue, 1, 1).await.unwrap();
    let (mut oldest, mut newest) = (line_up(&queue, 1), line_up(&queue, 1));
    assert_eq!(refusal(poll(&mut enter(&queue, 1, 1))), Some(Cause::TooManyOfUser));
    let _second = line_up(&queue, 2);
    let mut third = line_up(&queue, 3);
    assert_eq!(refusal(poll(&mut newest)), Some(Cause::PushedOut));
    assert_eq!(refusal(poll(&mut enter(&queue, 2, 1))), Some(Cause::ShareTaken));
    assert_eq!(refusal(poll(&mut enter(&queue, 4, 1))), Some(Cause::Full));
    assert!(poll(&mut oldest).is_pending() && poll(&mut third).is_pending());
    assert_eq!(queue.depth(), 3);
    drop(turn);
}

#[tokio::test]
async fn a_turn_for_a_waiter_that_left_goes_to_the_next() {
    let queue = Queue::new(limits(1, 8, 8), Clock::system());
    let turn = enter(&queue, 1, 1).await.unwrap();
    let (gone, left, mut next) = (line_up(&queue, 2), line_up(&queue, 2), line_up(&queue, 2));
    drop(gone);
    assert_eq!(queue.depth(), 2);
    drop(turn);
    assert_eq!((queue.running(), queue.depth()), (1, 1), "on its way to the one that leaves now");
    drop(left);
    assert_eq!((queue.running(), queue.depth()), (1, 0));
    let Poll::Ready(Ok(turn)) = poll(&mut next) else { panic!("no turn") };
    drop(turn);
    assert_eq!(queue.running(), 0);
}

#[tokio::test]
async fn a_reload_grows_shrinks_opens_and_closes() {
    let queue = Queue::new(limits(1, 8, 8), Clock::system());
    let first = enter(&queue, 1, 1).await.unwrap();
    let mut line: Vec<_> = (2..8).map(|user| line_up(&queue, user)).collect();
    let state = || (queue.running(), queue.depth());
    queue.set_limits(limits(3, 8, 8));
    assert_eq!(state(), (3, 4));
    queue.set_limits(limits(2, 1, 1));
    assert_eq!(state(), (3, 4), "who is in stays in");
    drop(first);
    assert_eq!(state(), (2, 4));
    queue.set_limits(QueueLimits::default());
    assert_eq!(state(), (6, 0));
    let free = enter(&queue, 9, 1).await.unwrap();
    queue.set_limits(limits(7, 8, 8));
    line.push(line_up(&queue, 1));
    assert_eq!(state(), (7, 1), "a turn from the time without a limit counts");
    drop(free);
    assert_eq!(state(), (7, 0));
    drop(line);
    assert_eq!(state(), (0, 0));
}
