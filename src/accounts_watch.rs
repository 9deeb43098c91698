//! Watches the account store: changes are noticed several times a second, uses are written down,
//! what is over is forgotten, and what the command line changed is recorded.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use portcullis_filters::State;
use portcullis_filters::accounts::store::{Event, StoreError};
use portcullis_filters::audit::{AuditRecord, Operation, Status, Text};
use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval};

/// How often uses of keys and sessions are written down, and events looked for.
const NOTES: Duration = Duration::from_secs(5);
/// How often the store is rid of what is over.
const PRUNING: Duration = Duration::from_secs(60);

/// Watches for as long as the state lives. The runtime is the store's own: it outlives every
/// listener.
pub(crate) fn start(state: &Arc<State>, runtime: &Handle, refresh: Duration) {
    runtime.spawn(watch(Arc::downgrade(state), refresh));
}

async fn watch(state: Weak<State>, refresh: Duration) {
    let mut ticks = interval(refresh);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut noted, mut pruned) = (Instant::now(), Instant::now());
    let mut reachable = true;
    loop {
        ticks.tick().await;
        let Some(state) = state.upgrade() else { return };
        let looked = state.look().await;
        if let Err(error) = &looked
            && reachable
        {
            tracing::error!(%error, "what is known of accounts serves until it is too old");
        }
        if looked.is_ok() && !reachable {
            tracing::info!("the account store answers again");
        }
        reachable = looked.is_ok();
        if reachable && noted.elapsed() >= NOTES {
            noted = Instant::now();
            take_notes(&state).await;
        }
        if reachable && pruned.elapsed() >= PRUNING {
            pruned = Instant::now();
            let now = state.clock().unix_secs();
            let pruned = state.directory().store().prune(now).await;
            warn(&state, pruned, "what is over could not be removed");
        }
    }
}

async fn take_notes(state: &State) {
    let written = state.directory().write_touches().await;
    warn(state, written, "the last uses could not be written");
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
    let mut record = AuditRecord::new(state.clock(), Operation::Account, Status::Success);
    record.user_id = Some(Text::new(&event.actor));
    record.detail("action", event.action.as_str());
    record.detail("target", event.target.as_str());
    record.detail("via", "command line");
    record.detail("at", event.at);
    state.audit().record(record);
}

/// A store that can be read but not written lets everybody in who is known, and nobody log in.
fn warn(state: &State, result: Result<(), StoreError>, what: &'static str) {
    state.metrics().set_degraded("accounts_writes", result.is_err());
    if let Err(error) = result {
        tracing::warn!(%error, "{what}");
    }
}
