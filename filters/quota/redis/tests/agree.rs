//! The scripts do what [`Account`] does, after any history.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::quota::account::Places;
use crate::quota::charge::Resource;
use crate::quota::demand::Ceiling;
use crate::quota::gcra::Rate;
use crate::quota::window::Window;

#[derive(Clone, Debug)]
enum Step {
    Reserve { user: usize, role: usize, ask: Charge, least: (u64, u64) },
    Settle { which: usize, charge: Charge },
    Grow { which: usize, more: Charge },
    Reset { user: usize },
    Wait { ms: u64 },
}

fn any_charge() -> impl Strategy<Value = Charge> {
    (0..40_u64, 0..60_u64, 0..60_u64).prop_map(|(prompt, completion, gpu_ms)| Charge {
        prompt,
        completion,
        gpu_ms,
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![0..5_000_u64, 0..90_000_u64, 0..5_000_000_u64, 0..3_000_000_000_u64];
    prop_oneof![
        6 => (0..2_usize, 0..2_usize, any_charge(), (0..30_u64, 0..30_u64))
            .prop_map(|(user, role, ask, least)| Step::Reserve { user, role, ask, least }),
        3 => (any::<usize>(), any_charge())
            .prop_map(|(which, charge)| Step::Settle { which, charge }),
        3 => (any::<usize>(), any_charge()).prop_map(|(which, more)| Step::Grow { which, more }),
        1 => (0..2_usize).prop_map(|user| Step::Reset { user }),
        2 => wait.prop_map(|ms| Step::Wait { ms }),
    ]
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let ceiling = (0..5_usize, 0..4_usize, 1..200_u64).prop_map(|(resource, window, limit)| {
        let (resource, window) = (Resource::ALL[resource], Window::ALL[window]);
        let limit = if resource == Resource::Requests { limit / 20 } else { limit };
        Ceiling { resource, window, limit }
    });
    let pace = prop::option::of((1..100_u32, 1..6_u32));
    let some = (pace, prop::option::of(1..5_u32), prop::collection::vec(ceiling, 0..4));
    some.prop_filter_map("limits nothing", |(pace, concurrent, ceilings)| {
        let pace = pace.and_then(|(per_minute, burst)| Rate::new(per_minute, burst));
        let limits = Limits { pace, concurrent, ceilings };
        (!limits.is_empty()).then_some(limits)
    })
}

/// A request in Redis, and what the model says that it holds.
struct Running {
    held: Arc<Held>,
    places: Vec<Places>,
    reserved: Charge,
}

struct World {
    store: Arc<Store>,
    clock: Clock,
    levels: Vec<Metered>,
    model: HashMap<Subject, Account>,
    running: Vec<Running>,
    next_id: u128,
    resets: u64,
}

impl World {
    fn new(store: Arc<Store>, clock: Clock, limits: Vec<Limits>) -> Self {
        let names =
            [(Level::User, "0"), (Level::User, "1"), (Level::Role, "0"), (Level::Role, "1")];
        let levels = names.into_iter().zip(limits).map(|((level, id), limits)| Metered {
            level,
            subject: Subject::new(level, id),
            limits: Arc::new(limits),
        });
        let levels = levels.collect();
        Self { store, clock, levels, model: HashMap::new(), running: vec![], next_id: 1, resets: 0 }
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Wait { ms } => self.clock.advance(Duration::from_millis(ms)),
            Step::Reserve { user, role, ask, least } => {
                self.reserve([user, 2 + role], ask, least).await
            }
            Step::Settle { which, charge } if !self.running.is_empty() => {
                let running = self.running.swap_remove(which % self.running.len());
                self.settle(&running, charge).await;
            }
            Step::Grow { which, more } if !self.running.is_empty() => {
                let which = which % self.running.len();
                self.grow(which, more).await;
            }
            Step::Reset { user } => self.reset(user).await,
            Step::Settle { .. } | Step::Grow { .. } => {}
        }
    }

    async fn reserve(&mut self, levels: [usize; 2], ask: Charge, least: (u64, u64)) {
        self.next_id += 1;
        let levels = levels.map(|level| self.levels[level].clone());
        let demand = levels
            .iter()
            .fold(Demand::new(self.next_id, ask).at_least(least.0, least.1), |demand, m| {
                demand.level(m.level, m.subject, Arc::clone(&m.limits))
            });
        let held = Arc::new(Held::new(demand.request_id, &levels, false, ask));
        let call = self.store.calls.reserve(&held, &held.groups[0], demand.least);
        let answer = self.store.call(&call).await.unwrap();
        let now = answer.now;

        let accounts = levels.each_ref().map(|m| self.advanced(m, now));
        let refused = levels
            .iter()
            .zip(&accounts)
            .any(|(m, account)| account.obstacle(&m.limits, demand.least, now).is_some());
        assert_eq!(answer.status == ADMITTED, !refused, "{ask:?} {accounts:?}");
        let clamp = |wish, (m, account): (&Metered, &Account)| account.clamp(&m.limits, wish);
        let granted = levels.iter().zip(&accounts).fold(ask, clamp);
        if !refused {
            assert_eq!(answer.granted, granted);
            let places = levels.iter().map(|m| self.account(m).admit(m, granted, now)).collect();
            held.hold(granted);
            self.running.push(Running { held, places, reserved: granted });
        }
        self.compare(&levels, &answer);
    }

    async fn settle(&mut self, running: &Running, charge: Charge) {
        let group = &running.held.groups[0];
        let call = self.store.calls.settle(running.held.id, group, Ending::Pay, charge);
        let answer = self.store.call(&call).await.unwrap();
        for (metered, places) in group.iter().zip(&running.places) {
            self.account(metered).settle(places, running.reserved, charge, answer.now);
        }
        self.compare(group, &answer);
        let again = self.store.call(&call).await.unwrap();
        assert!(again.status == 0 && again.records.is_empty(), "it was paid");
    }

    async fn grow(&mut self, which: usize, more: Charge) {
        let held = Arc::clone(&self.running[which].held);
        let group = Arc::clone(&held.groups[0]);
        let more = Charge { prompt: 0, ..more };
        let call = self.store.calls.grow(&held, &group, more);
        let answer = self.store.call(&call).await.unwrap();
        let clamp = |wish, m: &Metered| {
            self.model.get_mut(&m.subject).unwrap().roll(answer.now);
            self.model[&m.subject].clamp(&m.limits, wish)
        };
        let granted = group.iter().fold(more, clamp);
        assert_eq!(answer.granted, granted);
        let running = &mut self.running[which];
        for (metered, places) in group.iter().zip(&mut running.places) {
            self.model.get_mut(&metered.subject).unwrap().grow(places, granted);
        }
        running.reserved = running.reserved.plus(granted);
        held.hold(running.reserved);
        self.compare(&group, &answer);
        let again = self.store.call(&call).await.unwrap();
        assert!(again.granted.over(granted).is_nothing(), "asked twice, held once");
        self.compare(&group, &again);
    }

    async fn reset(&mut self, user: usize) {
        let metered = self.levels[user].clone();
        self.resets += 1;
        let answer =
            self.store.call(&self.store.calls.reset(metered.subject, self.resets)).await.unwrap();
        let account = self.account(&metered);
        account.roll(answer.now);
        account.reset();
        self.compare(&[metered], &answer);
    }

    fn account(&mut self, metered: &Metered) -> &mut Account {
        self.model.entry(metered.subject).or_default()
    }

    fn advanced(&mut self, metered: &Metered, now: Now) -> Account {
        let account = self.account(metered);
        account.advance(&metered.limits, now);
        *account
    }

    fn compare(&mut self, levels: &[Metered], answer: &Answer) {
        for (metered, found) in levels.iter().zip(answer.accounts().unwrap()) {
            let expected = *self.account(metered);
            assert_eq!(found.pacing.tat_ns, expected.pacing.tat_ns, "{metered:?}");
            assert_eq!(found.in_flight, expected.in_flight, "{metered:?}");
            for window in Window::ALL {
                let (found, expected) = (found.books.of(window), expected.books.of(window));
                assert_eq!(found.index, expected.index, "{metered:?} {window:?}");
                assert_eq!(found.spent, expected.spent, "{metered:?} {window:?}");
            }
        }
    }
}

/// Longer than any history: leases have tests of their own.
const LEASE: Duration = Duration::from_secs(10 * 365 * 86_400);

#[test]
fn the_scripts_and_the_account_agree_after_any_history() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(server) = runtime.block_on(async { Server::start(&[]) }) else { return };
    let prefix = std::cell::Cell::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(256));
    let histories = (
        prop::collection::vec(any_limits(), 4),
        prop::collection::vec(any_step(), 1..60),
        0..40_000_000_000_u64,
    );
    let result = runner.run(&histories, |(limits, steps, start_ms)| {
        prefix.set(prefix.get() + 1);
        runtime.block_on(async {
            let clock = Clock::system();
            clock.advance(Duration::from_millis(start_ms));
            let options = RedisOptions {
                prefix: format!("p{}", prefix.get()),
                lease: LEASE,
                ..options(&server.url())
            };
            let counters = connected_with(&options, Some(clock.clone())).await;
            let mut world = World::new(Arc::clone(&counters.store), clock, limits);
            for step in &steps {
                world.take(step).await;
            }
        });
        Ok(())
    });
    result.unwrap();
}
