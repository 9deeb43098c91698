//! Watches the account store: changes are noticed several times a second, uses are written down,
//! what is over is forgotten, and what the command line changed is recorded.

use std::sync::{Arc, Weak};
use std::time::Duration;

use portcullis_filters::State;
use portcullis_filters::accounts::store::{Event, StoreError};
use portcullis_filters::audit::{AuditRecord, Operation, Status, Text};
use tokio::runtime::Handle;
use tokio::time::{Interval, MissedTickBehavior};

/// How often upkeep is thought of.
const UPKEEP: Duration = Duration::from_secs(1);
/// How often uses of keys and sessions are written down, and events looked for.
const NOTES: Duration = Duration::from_secs(5);
/// How often the store is rid of what is over.
const PRUNING: Duration = Duration::from_secs(60);

/// Watches for as long as the state lives. The runtime is the store's own: it outlives every
/// listener. Looking and upkeep are apart, for a store that cannot be written at this time may keep
/// upkeep waiting, and revocations must come through meanwhile.
pub(crate) fn start(state: &Arc<State>, runtime: &Handle, refresh: Duration) {
    runtime.spawn(look(Arc::downgrade(state), refresh));
    runtime.spawn(keep_up(Arc::downgrade(state)));
}

async fn look(state: Weak<State>, refresh: Duration) {
    let mut ticks = every(refresh);
    let mut reachable = true;
    loop {
        ticks.tick().await;
        let Some(state) = state.upgrade() else { return };
        let looked = state.look().await;
        match &looked {
            Err(error) if reachable => {
                tracing::error!(%error, "what is known of accounts serves until it is too old");
            }
            Ok(()) if !reachable => tracing::info!("the account store answers again"),
            Ok(()) | Err(_) => {}
        }
        reachable = looked.is_ok();
    }
}

async fn keep_up(state: Weak<State>) {
    let mut ticks = every(UPKEEP);
    let (mut noted, mut pruned) = (0, 0);
    loop {
        ticks.tick().await;
        let Some(state) = state.upgrade() else { return };
        if !state.directory().is_current() {
            continue;
        }
        if is_due(&state, &mut noted, NOTES) {
            take_notes(&state).await;
        }
        if is_due(&state, &mut pruned, PRUNING) {
            prune(&state).await;
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Whether so much time has passed since it was last due; then it is due the next time after that.
fn is_due(state: &State, last: &mut u64, period: Duration) -> bool {
    let now = state.clock().monotonic_ns();
    let due = Duration::from_nanos(now.saturating_sub(*last)) >= period;
    if due {
        *last = now;
    }
    due
}

/// A store that can be read but not written lets everybody in who is known, and nobody log in: this
/// is what tells of it.
async fn prune(state: &State) {
    let pruned = state.directory().store().prune(state.clock().unix_secs()).await;
    state.metrics().set_degraded("accounts_writes", pruned.is_err());
    warn(pruned, "what is over could not be removed");
}

async fn take_notes(state: &State) {
    warn(state.directory().write_touches().await, "the last uses could not be written");
    // Not while they could not be recorded: taken, they are gone from the store.
    if !state.audit().is_writable() {
        return;
    }
    match state.directory().store().take_events().await {
        Ok(events) => events.iter().for_each(|event| record(state, event)),
        Err(error) => tracing::warn!(%error, "changes by the command line could not be read"),
    }
}

/// Leaves the record that the command line, which has no audit trail, could not leave.
fn record(state: &State, event: &Event) {
    let mut record = AuditRecord::new(state.clock(), operation(event), Status::Success);
    record.user_id = Some(Text::new(&event.actor));
    record.detail("action", event.action.as_str());
    record.detail("target", event.target.as_str());
    record.detail("via", "command line");
    record.detail("at", event.at);
    let told = &event.told;
    let told = [("before", &told.before), ("after", &told.after), ("reason_given", &told.reason)];
    for (name, value) in told {
        if let Some(value) = value {
            record.detail(name, value.as_str());
        }
    }
    state.audit().record(record);
}

/// As the endpoint that does the same is recorded.
fn operation(event: &Event) -> Operation {
    match event.action.split_once('.') {
        Some(("quota", _)) => Operation::Configuration,
        Some(("emergency", _)) => Operation::Incident,
        _ => Operation::Account,
    }
}

fn warn(result: Result<(), StoreError>, what: &'static str) {
    if let Err(error) = result {
        tracing::warn!(%error, "{what}");
    }
}
