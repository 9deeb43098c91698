//! Whatever comes in whatever order: no slot is lost or given twice, each user is served in order,
//! and who is refused is who has to be. A plain model says what is expected.

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Enter { user: u128 },
    Cancel(usize),
    Release(usize),
    Pass { ms: u64 },
    Reload(QueueLimits),
}

struct Waiting {
    user: u128,
    number: usize,
    until: Instant,
    entering: Entering,
}

/// The queue, and what the test knows of it.
struct Model {
    queue: Queue,
    clock: Clock,
    limits: QueueLimits,
    waiting: Vec<Waiting>,
    turns: Vec<Turn>,
    entered: usize,
}

fn limit() -> impl Strategy<Value = QueueLimits> {
    (0..5_u32, 0..7_usize, 1..5_usize, 50..400_u64).prop_map(|(slots, waiting, per_user, ms)| {
        QueueLimits { deadline: Duration::from_millis(ms), ..limits(slots, waiting, per_user) }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..5_u128).prop_map(|user| Step::Enter { user }),
        2 => any::<usize>().prop_map(Step::Cancel),
        4 => any::<usize>().prop_map(Step::Release),
        1 => (0..200_u64).prop_map(|ms| Step::Pass { ms }),
        1 => limit().prop_map(Step::Reload),
    ]
}

fn weight(user: u128) -> u32 {
    1 + user as u32 % 3
}

impl Model {
    fn new(limits: QueueLimits) -> Self {
        let clock = Clock::system();
        let queue = Queue::new(limits, clock.clone());
        Self { queue, clock, limits, waiting: vec![], turns: vec![], entered: 0 }
    }

    async fn take(&mut self, step: Step) {
        let before = self.queue.running();
        match step {
            Step::Enter { user } => self.enter(user),
            Step::Cancel(any) if !self.waiting.is_empty() => {
                drop(self.waiting.swap_remove(any % self.waiting.len()));
            }
            Step::Release(any) if !self.turns.is_empty() => {
                drop(self.turns.swap_remove(any % self.turns.len()));
            }
            Step::Cancel(_) | Step::Release(_) => {}
            Step::Pass { ms } => {
                self.clock.advance(Duration::from_millis(ms));
                tokio::time::advance(Duration::from_millis(ms)).await;
                self.settle();
            }
            Step::Reload(limits) => {
                self.limits = limits;
                self.queue.set_limits(limits);
            }
        }
        self.check_slots(before);
    }

    /// No more slots are given than there are, and none is left while somebody waits.
    fn check_slots(&self, before: usize) {
        let (running, waiting) = (self.queue.running(), self.queue.depth());
        match self.limits.concurrent.map(|slots| slots.get() as usize) {
            Some(slots) => {
                assert!(running <= slots.max(before), "{running} on {slots}, {before} before");
                assert!(waiting == 0 || running >= slots, "{waiting} wait, {running} on {slots}");
            }
            None => assert_eq!(waiting, 0),
        }
    }

    /// Gives everybody what they were told.
    fn settle(&mut self) -> Vec<(u128, usize, Cause)> {
        let (mut refused, now) = (vec![], Instant::now());
        let mut served = vec![];
        for mut waiting in std::mem::take(&mut self.waiting) {
            let (user, number) = (waiting.user, waiting.number);
            match poll(&mut waiting.entering) {
                Poll::Pending => self.waiting.push(waiting),
                Poll::Ready(Ok(turn)) => {
                    self.turns.push(turn);
                    served.push((user, number));
                }
                Poll::Ready(Err(overflow)) => {
                    assert_eq!(overflow.cause() == Cause::Late, waiting.until <= now);
                    assert!((1..=60).contains(&overflow.retry_after().as_secs()));
                    refused.push((user, number, overflow.cause()));
                }
            }
        }
        for (user, number) in served {
            let passed_over = |other: &&Waiting| other.user == user && other.number < number;
            assert!(self.waiting.iter().find(passed_over).is_none(), "out of order");
        }
        assert_eq!(self.queue.running(), self.turns.len());
        assert_eq!(self.queue.depth(), self.waiting.len());
        refused
    }

    fn enter(&mut self, user: u128) {
        self.settle();
        let expected = self.expect(user);
        let mut entering = enter(&self.queue, user, weight(user));
        let got = match poll(&mut entering) {
            Poll::Ready(Ok(turn)) => {
                self.turns.push(turn);
                Expected::Turn
            }
            Poll::Ready(Err(overflow)) => Expected::Refused(overflow.cause()),
            Poll::Pending => {
                let until = Instant::now() + self.limits.deadline;
                self.entered += 1;
                self.waiting.push(Waiting { user, number: self.entered, until, entering });
                let pushed_out = self.settle();
                Expected::Place { of: pushed_out.first().map(|(user, number, _)| (*user, *number)) }
            }
        };
        assert_eq!(got, expected);
    }

    fn expect(&self, user: u128) -> Expected {
        let slots = self.limits.concurrent.map(|slots| slots.get() as usize);
        let own = self.count(user);
        if slots.is_none_or(|slots| self.turns.len() < slots) {
            return Expected::Turn;
        }
        if own >= self.limits.per_user {
            return Expected::Refused(Cause::TooManyOfUser);
        }
        if self.waiting.len() < self.limits.waiting {
            return Expected::Place { of: None };
        }
        let share = |user, count| count as f64 / f64::from(weight(user));
        let fullest = (0..5).max_by(|a, b| {
            share(*a, self.count(*a)).total_cmp(&share(*b, self.count(*b))).then(a.cmp(b))
        });
        match fullest.filter(|full| share(*full, self.count(*full)) > share(user, own + 1)) {
            Some(full) => {
                let newest = self.waiting.iter().filter(|waiting| waiting.user == full);
                let newest = newest.map(|waiting| waiting.number).max();
                Expected::Place { of: newest.map(|number| (full, number)) }
            }
            None if own > 0 => Expected::Refused(Cause::ShareTaken),
            None => Expected::Refused(Cause::Full),
        }
    }

    fn count(&self, user: u128) -> usize {
        self.waiting.iter().filter(|waiting| waiting.user == user).count()
    }
}

#[derive(Debug, PartialEq)]
enum Expected {
    Turn,
    Place { of: Option<(u128, usize)> },
    Refused(Cause),
}

/// Takes the steps, then lets everybody leave, half of them with a turn on its way.
async fn run(limits: QueueLimits, steps: Vec<Step>) {
    let mut model = Model::new(limits);
    for step in steps {
        model.take(step).await;
    }
    while !(model.turns.is_empty() && model.waiting.is_empty()) {
        model.take(Step::Release(0)).await;
        model.take(Step::Cancel(0)).await;
        model.settle();
    }
    assert_eq!((model.queue.running(), model.queue.depth()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn nothing_is_lost_given_twice_or_out_of_order(
        limits in limit(),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(tokio::task::unconstrained(run(limits, steps)));
    }
}
