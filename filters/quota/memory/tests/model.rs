//! The store against the same meters once more, as plainly as can be: every request is remembered,
//! and every question is answered by adding them all up.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Limits, and their rate as the model needs it: nanoseconds between requests, and burst.
type Ruled = (Limits, Option<(u64, u64)>);

/// What is held of a request, since when.
type Held = (Now, Charge);

struct Remembered {
    subjects: Vec<Subject>,
    /// What was granted at first, and what it grew by.
    held: Vec<Held>,
    paid: Option<Held>,
    /// By whom the request was forgotten, and by whom its charge.
    forgotten: Vec<(Subject, bool)>,
}

impl Remembered {
    fn reserved(&self) -> Charge {
        self.held.iter().fold(Charge::default(), |sum, (_, held)| sum.plus(*held))
    }

    /// What is held in the window of a moment.
    fn held_in(&self, window: Window, now: Now) -> Charge {
        let held = self.held.iter().filter(|(at, _)| same(window, *at, now));
        held.fold(Charge::default(), |sum, (_, held)| sum.plus(*held))
    }

    fn spent(&self, subject: Subject, window: Window, now: Now) -> Spent {
        let is_forgotten = |charge| self.forgotten.contains(&(subject, charge));
        let counts = same(window, self.held[0].0, now) && !is_forgotten(false);
        let mut spent = Spent { requests: u32::from(counts), ..Spent::default() };
        match self.paid {
            None => spent.reserved = self.held_in(window, now),
            Some((at, paid)) if same(window, at, now) && !is_forgotten(true) => {
                let elsewhere = self.reserved().over(self.held_in(window, at));
                spent.used = paid.over(elsewhere);
            }
            Some(_) => {}
        }
        spent
    }
}

fn same(window: Window, one: Now, other: Now) -> bool {
    window.index(one.unix_ms) == window.index(other.unix_ms)
}

#[derive(Default)]
struct Model {
    requests: Vec<Remembered>,
}

impl Model {
    fn of(&self, subject: Subject) -> impl Iterator<Item = &Remembered> {
        self.requests.iter().filter(move |request| request.subjects.contains(&subject))
    }

    fn spent(&self, subject: Subject, window: Window, now: Now) -> Spent {
        let one = |request: &Remembered| request.spent(subject, window, now);
        self.of(subject).map(one).fold(Spent::default(), |sum, one| Spent {
            requests: sum.requests + one.requests,
            used: sum.used.plus(one.used),
            reserved: sum.reserved.plus(one.reserved),
        })
    }

    fn in_flight(&self, subject: Subject) -> u32 {
        self.of(subject).filter(|request| request.paid.is_none()).count() as u32
    }

    /// What is left of every limit.
    fn room(&self, subject: Subject, limits: &Limits, now: Now) -> Vec<(Resource, u64)> {
        let left = |c: &Ceiling| {
            let taken = self.spent(subject, c.window, now).taken(c.resource);
            (c.resource, c.limit.saturating_sub(taken))
        };
        limits.ceilings.iter().map(left).collect()
    }

    fn reset(&mut self, subject: Subject) {
        for request in self.requests.iter_mut().filter(|r| r.subjects.contains(&subject)) {
            request.forgotten.push((subject, false));
            if request.paid.is_some() {
                request.forgotten.push((subject, true));
            }
        }
    }
}

/// The most of a wish that fits, found by trying.
fn most(wish: Charge, room: &[(Resource, u64)]) -> Charge {
    let fits = |charge: Charge, counted: &[Resource]| {
        let mut room = room.iter().filter(|(resource, _)| counted.contains(resource));
        room.all(|(resource, left)| resource.of(charge) <= *left)
    };
    let tokens = [Resource::Tokens, Resource::CompletionTokens];
    let completion = (0..=wish.completion)
        .rev()
        .find(|completion| fits(Charge { completion: *completion, ..wish }, &tokens));
    let gpu_ms = (0..=wish.gpu_ms)
        .rev()
        .find(|gpu_ms| fits(Charge { gpu_ms: *gpu_ms, ..wish }, &[Resource::GpuTime]));
    Charge { completion: completion.unwrap_or(0), gpu_ms: gpu_ms.unwrap_or(0), ..wish }
}

/// GCRA in the other form of I.371, the continuous-state leaky bucket.
#[derive(Clone, Copy, Default)]
struct Bucket {
    level_ns: u64,
    last_ns: u64,
}

impl Bucket {
    fn level_ns(self, now: Now) -> u64 {
        self.level_ns.saturating_sub(now.monotonic_ns - self.last_ns)
    }
}

/// What a property test does.
#[derive(Clone, Debug)]
enum Step {
    Reserve(Ask),
    Grow { which: usize, more: Charge },
    Settle { which: usize, charge: Charge },
    Drop { which: usize },
    Wait { ms: u64 },
    Reset { who: usize },
}

/// A request of somebody at each of three levels.
#[derive(Clone, Debug)]
struct Ask {
    who: [usize; 3],
    estimate: Charge,
    least: (u64, u64),
}

fn any_charge() -> impl Strategy<Value = Charge> {
    (0..30_u64, 0..60_u64, 0..60_u64).prop_map(|(prompt, completion, gpu_ms)| Charge {
        prompt,
        completion,
        gpu_ms,
    })
}

fn any_ask() -> impl Strategy<Value = Ask> {
    let who = [0..2_usize, 2..4_usize, 4..6_usize];
    (who, any_charge(), (0..40_u64, 0..40_u64)).prop_map(|(who, estimate, least)| Ask {
        who,
        estimate,
        least,
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![0..5_000_u64, 0..90_000_u64, 0..100_000_000_u64, 0..4_000_000_000_u64];
    let paid = (any::<usize>(), any_charge());
    let more = (any::<usize>(), any_charge());
    prop_oneof![
        12 => any_ask().prop_map(Step::Reserve),
        5 => more.prop_map(|(which, more)| Step::Grow { which, more }),
        6 => paid.prop_map(|(which, charge)| Step::Settle { which, charge }),
        2 => any::<usize>().prop_map(|which| Step::Drop { which }),
        4 => wait.prop_map(|ms| Step::Wait { ms }),
        1 => (0..6_usize).prop_map(|who| Step::Reset { who }),
    ]
}

fn any_ceiling() -> impl Strategy<Value = Ceiling> {
    let resource = prop::sample::select(Resource::ALL.to_vec());
    let window = prop::sample::select(Window::ALL.to_vec());
    (resource, window, 0..200_u64).prop_map(|(resource, window, limit)| {
        let limit = if resource == Resource::Requests { limit / 20 } else { limit };
        Ceiling { resource, window, limit }
    })
}

fn any_limits() -> impl Strategy<Value = Ruled> {
    let pace = prop::option::of((1..100_u32, 1..6_u32));
    let ceilings = prop::collection::vec(any_ceiling(), 0..4);
    (pace, ceilings, prop::option::of(1..5_u32)).prop_map(|(pace, ceilings, concurrent)| {
        let interval = |(per_minute, burst): (u32, u32)| {
            (60_000_000_000_u64.div_ceil(per_minute.into()), burst.into())
        };
        let rate = pace.and_then(|(per_minute, burst)| Rate::new(per_minute, burst));
        (Limits { pace: rate, concurrent, ceilings }, pace.map(interval))
    })
}

struct World {
    books: Books,
    model: Model,
    /// Two users, two keys, two addresses.
    subjects: Vec<(Level, Subject)>,
    limits: HashMap<Subject, Ruled>,
    buckets: HashMap<Subject, Bucket>,
    open: Vec<(usize, Claim)>,
    now: Now,
    /// Whether no charge is more than what was reserved for it.
    honest: bool,
}

impl World {
    fn new(limits: Vec<Ruled>, honest: bool) -> Self {
        let levels = [Level::User, Level::Key, Level::Address];
        let pair = |level| ["0", "1"].map(|id| (level, Subject::new(level, id)));
        let subjects: Vec<(Level, Subject)> = levels.into_iter().flat_map(pair).collect();
        Self {
            books: books(9),
            model: Model::default(),
            limits: subjects.iter().map(|(_, subject)| *subject).zip(limits).collect(),
            subjects,
            buckets: HashMap::new(),
            open: Vec::new(),
            now: EDGE,
            honest,
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Wait { ms } => self.now = later(self.now, ms),
            Step::Reserve(ref ask) => self.reserve(ask),
            Step::Grow { which, more } => self.grow(which, more),
            Step::Settle { which, charge } => self.pay(which, charge),
            Step::Drop { which } => self.pay(which, Charge::default()),
            Step::Reset { who } => self.reset(who),
        }
        self.compare();
    }

    fn pay(&mut self, which: usize, charge: Charge) {
        if self.open.is_empty() {
            return;
        }
        let (number, claim) = self.open.swap_remove(which % self.open.len());
        let within = charge.over(charge.over(claim.reserved));
        let charge = if self.honest { within } else { charge };
        self.books.settle(&claim, charge, self.now);
        self.model.requests[number].paid = Some((self.now, charge));
    }

    fn grow(&mut self, which: usize, more: Charge) {
        if self.open.is_empty() {
            return;
        }
        let which = which % self.open.len();
        let number = self.open[which].0;
        let room: Vec<_> = self.model.requests[number]
            .subjects
            .iter()
            .flat_map(|s| self.model.room(*s, &self.limits[s].0, self.now))
            .collect();
        let expected = most(Charge { prompt: 0, ..more }, &room);
        let granted = self.books.grow(&mut self.open[which].1, more, self.now);
        assert_eq!(granted, expected, "{more:?} of {room:?}");
        self.model.requests[number].held.push((self.now, granted));
    }

    fn reset(&mut self, who: usize) {
        let (_, subject) = self.subjects[who];
        self.books.shards.with_account(subject, Account::reset);
        self.model.reset(subject);
        self.buckets.remove(&subject);
    }

    fn reserve(&mut self, ask: &Ask) {
        if let Some(refusal) = self.attempt(ask)
            && let Some(wait) = refusal.retry_after()
            && !is_held(&refusal)
        {
            self.prove_honest(ask, wait);
        }
    }

    /// A millisecond before the wait is over the request is refused; after it, only what others
    /// hold can still be in the way.
    fn prove_honest(&mut self, ask: &Ask, wait: Duration) {
        let ms = wait.as_nanos().div_ceil(1_000_000) as u64;
        self.now = later(self.now, ms - 1);
        assert!(self.attempt(ask).is_some(), "{wait:?} is too long");
        self.now = later(self.now, 1);
        let again = self.attempt(ask);
        let only_held = again.as_ref().is_none_or(is_held);
        assert!(only_held, "{wait:?} is too short: {again:?}");
    }

    fn attempt(&mut self, ask: &Ask) -> Option<Refusal> {
        let demand = self.demand(ask);
        let expected = self.expected(&demand);
        match self.books.reserve(demand, self.now) {
            Ok((claim, _)) => {
                assert_eq!(Some(claim.reserved), expected, "{ask:?} at {:?}", self.now);
                self.remember(claim);
                None
            }
            Err(refusal) => {
                assert_eq!(None, expected, "{ask:?} at {:?}: {refusal:?}", self.now);
                Some(refusal)
            }
        }
    }

    fn demand(&self, ask: &Ask) -> Demand {
        let (completion, gpu_ms) = ask.least;
        let demand = Demand::new(1, ask.estimate).at_least(completion, gpu_ms);
        ask.who.iter().map(|who| self.subjects[*who]).fold(demand, |demand, (level, subject)| {
            demand.level(level, subject, Arc::new(self.limits[&subject].0.clone()))
        })
    }

    /// What the model grants.
    fn expected(&self, demand: &Demand) -> Option<Charge> {
        let subjects = || demand.levels().iter().map(|metered| metered.subject);
        let room: Vec<_> =
            subjects().flat_map(|s| self.model.room(s, &self.limits[&s].0, self.now)).collect();
        let fits = room.iter().all(|(resource, left)| resource.of(demand.least) <= *left);
        let free = fits && subjects().all(|subject| self.is_free(subject));
        free.then(|| most(demand.estimate, &room))
    }

    fn is_free(&self, subject: Subject) -> bool {
        let (limits, pace) = &self.limits[&subject];
        let bucket = self.buckets.get(&subject).copied().unwrap_or_default();
        let paced = pace.is_none_or(|(interval_ns, burst)| {
            bucket.level_ns(self.now) <= (burst - 1) * interval_ns
        });
        paced && limits.concurrent.is_none_or(|limit| self.model.in_flight(subject) < limit)
    }

    fn remember(&mut self, claim: Claim) {
        let subjects: Vec<_> = claim.levels.iter().map(|metered| metered.subject).collect();
        for subject in &subjects {
            let bucket = self.buckets.entry(*subject).or_default();
            let interval_ns = self.limits[subject].1.map_or(0, |(interval_ns, _)| interval_ns);
            let level_ns = bucket.level_ns(self.now) + interval_ns;
            *bucket = Bucket { level_ns, last_ns: self.now.monotonic_ns };
        }
        let held = vec![(self.now, claim.reserved)];
        self.open.push((self.model.requests.len(), claim));
        let forgotten = Vec::new();
        self.model.requests.push(Remembered { subjects, held, paid: None, forgotten });
    }

    fn compare(&self) {
        assert_eq!(self.books.open.load(Ordering::Relaxed), self.open.len());
        for (level, subject) in &self.subjects {
            let found = self.books.consumption(*subject, self.now);
            assert_eq!(found.in_flight, self.model.in_flight(*subject));
            let ceilings = &self.limits[subject].0.ceilings;
            for window in Window::ALL {
                // Of addresses only the windows with a limit are kept.
                if *level != Level::Address || ceilings.iter().any(|c| c.window == window) {
                    let spent = self.model.spent(*subject, window, self.now);
                    assert_eq!(*found.windows.of(window), spent, "{level:?} {window:?}");
                }
            }
            let taken = |c: &Ceiling| found.windows.of(c.window).taken(c.resource);
            let within = ceilings.iter().all(|c| taken(c) <= c.limit);
            assert!(within || !self.honest, "used + reserved <= limit: {found:?} {ceilings:?}");
        }
    }
}

/// Whether others have what is missing, for nobody knows how long.
fn is_held(refusal: &Refusal) -> bool {
    matches!(refusal.meter(), Meter::Concurrency | Meter::Held(..))
}

proptest! {
    /// The store says what the model says after any history, every wait that it tells is exact,
    /// and if nobody uses more than was reserved nothing is ever over its limit.
    #[test]
    fn any_history_is_counted_as_by_the_model(
        limits in prop::collection::vec(any_limits(), 6),
        steps in prop::collection::vec(any_step(), 1..80),
        honest: bool,
    ) {
        let mut world = World::new(limits, honest);
        steps.iter().for_each(|step| world.take(step));
    }
}
