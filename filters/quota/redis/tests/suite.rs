//! What every store does, said once and run over each of them.

use super::*;
use crate::quota::charge::Resource;
use crate::quota::demand::{Ceiling, Level, Limits};
use crate::quota::gcra::Rate;
use crate::quota::refusal::Meter;
use crate::quota::window::Window;

/// A store, and how to wait until it has settled.
pub(super) struct Stage {
    pub(super) counters: Box<dyn Counters>,
    pub(super) clock: Clock,
    pub(super) redis: Option<RedisCounters>,
    next_id: std::cell::Cell<u128>,
}

impl Stage {
    pub(super) fn memory() -> Self {
        let clock = at_the_hour();
        let counters = Box::new(MemoryCounters::new(clock.clone()));
        Self { counters, clock, redis: None, next_id: 1.into() }
    }

    pub(super) fn redis(redis: RedisCounters, clock: Clock) -> Self {
        let counters = Box::new(redis.clone());
        Self { counters, clock, redis: Some(redis), next_id: 1.into() }
    }

    async fn reserve(
        &self,
        estimate: Charge,
        levels: &[(Level, &str, &Limits)],
    ) -> Result<Reservation, Refusal> {
        self.ask(self.demand(estimate), levels).await
    }

    fn demand(&self, estimate: Charge) -> Demand {
        self.next_id.set(self.next_id.get() + 1);
        Demand::new(self.next_id.get(), estimate)
    }

    async fn ask(
        &self,
        demand: Demand,
        levels: &[(Level, &str, &Limits)],
    ) -> Result<Reservation, Refusal> {
        let demand = levels.iter().fold(demand, |demand, (level, id, limits)| {
            demand.level(*level, Subject::new(*level, id), Arc::new((*limits).clone()))
        });
        let decision = self.counters.reserve(demand).await;
        // On a cluster a refusal is undone at the other levels in the background.
        if decision.is_err() {
            self.settled().await;
        }
        decision
    }

    async fn settled(&self) {
        if let Some(redis) = &self.redis {
            assert!(redis.flush(Duration::from_secs(5)).await, "settlements hang");
        }
    }

    async fn settle(&self, reservation: Reservation, charge: Charge) -> Charge {
        let over = reservation.settle(charge);
        self.settled().await;
        over
    }

    async fn used(&self, level: Level, id: &str) -> Consumption {
        self.settled().await;
        self.counters.consumption(Subject::new(level, id)).await.unwrap()
    }
}

/// An hour has just begun, so that no window ends while a test runs.
pub(super) fn at_the_hour() -> Clock {
    let clock = Clock::system();
    let hour = 3_600_000;
    clock.advance(Duration::from_millis(hour - clock.unix_ms() % hour + 1_000));
    clock
}

pub(super) fn charge(prompt: u64, completion: u64, gpu_ms: u64) -> Charge {
    Charge { prompt, completion, gpu_ms }
}

pub(super) fn per(resource: Resource, window: Window, limit: u64) -> Limits {
    Limits { ceilings: vec![Ceiling { resource, window, limit }], ..Limits::default() }
}

/// Everything that every store does.
pub(super) async fn run(stage: &Stage) {
    all_levels_admit_or_none_is_charged(stage).await;
    a_wish_is_cut_to_the_room_but_not_below_the_least(stage).await;
    a_charge_over_its_reservation_is_paid_in_full(stage).await;
    what_is_dropped_is_given_back_and_stays_counted(stage).await;
    slots_are_freed(stage).await;
    the_pace_is_kept(stage).await;
    growth_takes_what_there_is(stage).await;
    a_reset_forgets_what_was_used_and_keeps_what_runs(stage).await;
    every_resource_has_its_own_limit(stage).await;
    requests_are_counted_by_month(stage).await;
    a_demand_without_limits_passes(stage).await;
    windows_that_end_take_their_reservations_with_them(stage).await;
}

async fn all_levels_admit_or_none_is_charged(stage: &Stage) {
    let (small, large) =
        (per(Resource::Tokens, Window::Day, 100), per(Resource::Tokens, Window::Day, 500));
    let none = Limits { concurrent: Some(99), ..Limits::default() };
    let cases = [
        ("a1", [(Level::User, &small), (Level::Key, &large)], Level::User),
        ("a2", [(Level::User, &large), (Level::Key, &small)], Level::Key),
        ("a3", [(Level::Global, &none), (Level::Model, &small)], Level::Model),
    ];
    for (id, [(one, of_one), (other, of_other)], refuses) in cases {
        let levels = [(one, id, of_one), (other, id, of_other)];
        let first = stage.reserve(charge(10, 50, 0), &levels).await.unwrap();
        let refusal = stage.reserve(charge(10, 50, 0), &levels).await.unwrap_err();
        assert_eq!(refusal.level(), refuses, "{id}");
        assert_eq!(refusal.meter(), Meter::Held(Resource::Tokens, Window::Day), "{id}");
        for level in [one, other] {
            assert_eq!(stage.used(level, id).await.in_flight, 1, "{id} {level:?}");
        }
        let view = refusal.view().tokens.unwrap();
        assert_eq!((view.limit, view.remaining), (100, 40), "{id}");
        assert_eq!(first.view().tokens.unwrap().remaining, 40, "{id}");
        stage.settle(first, charge(10, 5, 0)).await;
        let used = stage.used(refuses, id).await.windows.day;
        assert_eq!((used.requests, used.used), (1, charge(10, 5, 0)), "{id}");
        assert!(used.reserved.is_nothing(), "{id}");
    }
}

async fn a_wish_is_cut_to_the_room_but_not_below_the_least(stage: &Stage) {
    let limits = per(Resource::Tokens, Window::Hour, 100);
    let narrow = per(Resource::GpuTime, Window::Hour, 70);
    let levels = [(Level::User, "b", &limits), (Level::Role, "b", &narrow)];
    let demand = stage.demand(charge(30, 500, 900)).at_least(20, 50);
    let first = stage.ask(demand, &levels).await.unwrap();
    assert_eq!(first.reserved(), charge(30, 70, 70));
    stage.settle(first, charge(30, 20, 10)).await;
    let demand = stage.demand(charge(40, 500, 900)).at_least(11, 0);
    assert!(stage.ask(demand, &levels).await.is_err(), "50 are left, 51 are needed");
    let demand = stage.demand(charge(40, 500, 900)).at_least(10, 60);
    let second = stage.ask(demand, &levels).await.unwrap();
    assert_eq!(second.reserved(), charge(40, 10, 60));
    let refusal = stage.reserve(charge(0, 0, 71), &levels).await.unwrap_err();
    assert_eq!((refusal.level(), refusal.retry_after()), (Level::Role, None));
    drop(second);
}

async fn a_charge_over_its_reservation_is_paid_in_full(stage: &Stage) {
    let limits = per(Resource::CompletionTokens, Window::Day, 100);
    let levels = [(Level::Address, "c", &limits)];
    let reservation = stage.reserve(charge(0, 90, 0), &levels).await.unwrap();
    let over = stage.settle(reservation, charge(0, 150, 7)).await;
    assert_eq!(over, charge(0, 60, 7));
    assert_eq!(stage.used(Level::Address, "c").await.windows.day.used, charge(0, 150, 7));
    assert!(stage.reserve(charge(0, 1, 0), &levels).await.is_err());
    let free = stage.reserve(charge(5, 0, 0), &levels).await;
    drop(free.expect("of this meter it needs nothing"));
}

async fn what_is_dropped_is_given_back_and_stays_counted(stage: &Stage) {
    let limits = per(Resource::Requests, Window::Day, 2);
    let levels = [(Level::User, "d", &limits)];
    for _ in 0..2 {
        drop(stage.reserve(charge(1, 1, 1), &levels).await.unwrap());
    }
    let refusal = stage.reserve(charge(1, 1, 1), &levels).await.unwrap_err();
    assert_eq!(refusal.meter(), Meter::Window(Resource::Requests, Window::Day));
    let used = stage.used(Level::User, "d").await;
    assert_eq!((used.in_flight, used.windows.month.requests), (0, 2));
    assert!(used.windows.minute.used.is_nothing() && used.windows.day.reserved.is_nothing());
}

async fn slots_are_freed(stage: &Stage) {
    let limits = Limits { concurrent: Some(2), ..Limits::default() };
    let levels = [(Level::Upstream, "e", &limits)];
    let first = stage.reserve(charge(1, 1, 1), &levels).await.unwrap();
    let _second = stage.reserve(charge(1, 1, 1), &levels).await.unwrap();
    assert_eq!(stage.counters.open_reservations(), 2);
    let refusal = stage.reserve(charge(1, 1, 1), &levels).await.unwrap_err();
    assert_eq!(refusal.meter(), Meter::Concurrency);
    stage.settle(first, charge(1, 1, 1)).await;
    assert_eq!(stage.counters.open_reservations(), 1);
    assert!(stage.reserve(charge(1, 1, 1), &levels).await.is_ok());
}

async fn the_pace_is_kept(stage: &Stage) {
    let limits = Limits { pace: Rate::new(6, 3), ..Limits::default() };
    let levels = [(Level::Key, "f", &limits)];
    for remaining in [2, 1, 0] {
        let reservation = stage.reserve(charge(0, 0, 0), &levels).await.unwrap();
        assert_eq!(reservation.view().requests.unwrap().remaining, remaining);
    }
    let refusal = stage.reserve(charge(0, 0, 0), &levels).await.unwrap_err();
    let wait = refusal.retry_after().unwrap();
    assert_eq!(refusal.meter(), Meter::Pace);
    assert!(wait > Duration::from_secs(5) && wait <= Duration::from_secs(10), "{wait:?}");
    stage.clock.advance(wait + Duration::from_millis(1));
    assert!(stage.reserve(charge(0, 0, 0), &levels).await.is_ok());
    assert!(stage.reserve(charge(0, 0, 0), &levels).await.is_err());
}

async fn growth_takes_what_there_is(stage: &Stage) {
    let (limits, wide) =
        (per(Resource::Tokens, Window::Day, 100), per(Resource::Tokens, Window::Day, 900));
    let levels = [(Level::User, "g", &limits), (Level::Global, "g", &wide)];
    let reservation = stage.reserve(charge(20, 30, 0), &levels).await.unwrap();
    let extension = reservation.extension();
    for (wish, granted) in [(30, 30), (30, 20), (30, 0)] {
        assert_eq!(extension.grow(charge(9, wish, 5)).await, charge(0, granted, 5));
    }
    assert_eq!(reservation.reserved(), charge(20, 80, 15));
    for id in [Level::User, Level::Global] {
        assert_eq!(stage.used(id, "g").await.windows.day.reserved, charge(20, 80, 15), "{id:?}");
    }
    stage.settle(reservation, charge(20, 71, 1)).await;
    assert!(extension.grow(charge(0, 5, 0)).await.is_nothing(), "it has ended");
    for id in [Level::User, Level::Global] {
        let day = stage.used(id, "g").await.windows.day;
        assert_eq!((day.used, day.reserved), (charge(20, 71, 1), Charge::default()), "{id:?}");
    }
}

async fn a_reset_forgets_what_was_used_and_keeps_what_runs(stage: &Stage) {
    let limits = Limits { pace: Rate::new(1, 1), ..per(Resource::Tokens, Window::Month, 100) };
    let levels = [(Level::User, "h", &limits)];
    let first = stage.reserve(charge(0, 60, 0), &levels).await.unwrap();
    stage.settle(first, charge(0, 60, 0)).await;
    let subject = Subject::new(Level::User, "h");
    stage.counters.reset(subject, 1).await.unwrap();
    assert!(stage.used(Level::User, "h").await.windows.month.used.is_nothing());
    let runs = stage.reserve(charge(0, 80, 0), &levels).await.unwrap();
    stage.counters.reset(subject, 2).await.unwrap();
    let refusal = stage.reserve(charge(0, 30, 0), &levels).await.unwrap_err();
    assert_eq!(refusal.meter(), Meter::Held(Resource::Tokens, Window::Month));
    stage.settle(runs, charge(0, 10, 0)).await;
    let used = stage.used(Level::User, "h").await;
    assert_eq!((used.in_flight, used.windows.month.used), (0, charge(0, 10, 0)));
}

async fn every_resource_has_its_own_limit(stage: &Stage) {
    use Resource::{CompletionTokens, GpuTime, PromptTokens, Requests, Tokens};
    for (i, resource) in
        [Requests, Tokens, PromptTokens, CompletionTokens, GpuTime].into_iter().enumerate()
    {
        for window in Window::ALL {
            let (id, limits) = (format!("i{i}{}", window.name()), per(resource, window, 30));
            let levels = [(Level::Model, id.as_str(), &limits)];
            let ask = charge(10, 10, 20);
            let mut admitted = Vec::new();
            while let Ok(reservation) = stage.reserve(ask, &levels).await {
                admitted.push(reservation);
            }
            let expected = 30 / resource.of(ask);
            assert_eq!(admitted.len() as u64, expected, "{resource:?} {window:?}");
        }
    }
    stage.settled().await;
}

async fn requests_are_counted_by_month(stage: &Stage) {
    let limits = per(Resource::Requests, Window::Month, 1);
    let levels = [(Level::Global, "j", &limits)];
    let first = stage.reserve(charge(0, 0, 0), &levels).await.unwrap();
    stage.settle(first, charge(0, 0, 0)).await;
    let wait = stage.reserve(charge(0, 0, 0), &levels).await.unwrap_err().retry_after().unwrap();
    assert!(wait <= Duration::from_secs(31 * 86_400), "{wait:?}");
    assert!(wait > Duration::ZERO);
}

async fn a_demand_without_limits_passes(stage: &Stage) {
    let none = Limits::default();
    let reservation = stage.reserve(charge(1, 2, 3), &[(Level::User, "k", &none)]).await.unwrap();
    assert_eq!(reservation.view(), QuotaView::default());
    assert_eq!(stage.counters.open_reservations(), 1);
    assert!(stage.settle(reservation, charge(1, 2, 4)).await == charge(0, 0, 1));
    assert_eq!(stage.counters.open_reservations(), 0);
    let used = stage.used(Level::User, "k").await;
    assert_eq!(used.in_flight, 0);
}

async fn windows_that_end_take_their_reservations_with_them(stage: &Stage) {
    let limits = per(Resource::Tokens, Window::Hour, 100);
    let levels = [(Level::Address, "l", &limits)];
    let runs = stage.reserve(charge(0, 80, 0), &levels).await.unwrap();
    assert!(stage.reserve(charge(0, 21, 0), &levels).await.is_err());
    stage.clock.advance(Duration::from_secs(3_600));
    let next = stage.reserve(charge(0, 70, 0), &levels).await.unwrap();
    assert_eq!(next.view().tokens.unwrap().remaining, 30);
    stage.settle(runs, charge(0, 95, 0)).await;
    let hour = stage.used(Level::Address, "l").await.windows.hour;
    assert_eq!((hour.used, hour.reserved), (charge(0, 15, 0), charge(0, 70, 0)));
    stage.settle(next, charge(0, 70, 0)).await;
    assert_eq!(stage.used(Level::Address, "l").await.windows.hour.used, charge(0, 85, 0));
}
