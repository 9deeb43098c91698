//! Health: whether the process runs, whether it can serve, and which parts work.

use portcullis_filters::own::{OwnAnswer, OwnCall};
use portcullis_filters::verdict::{Denial, Reason};
use serde::Serialize;
use serde_json::json;
use std::time::Duration;

#[derive(Serialize)]
pub(super) struct Live {
    status: &'static str,
}

impl Default for Live {
    fn default() -> Self {
        Self { status: "ok" }
    }
}

/// `GET /readyz`: not while draining, and not while requests would be refused for want of an audit
/// trail or of accounts.
pub(super) fn ready(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    if call.state.is_draining() {
        return Err(Denial::new(Reason::Draining, "the gateway is shutting down")
            .retry_after(Duration::from_secs(1)));
    }
    call.state.audit().admit()?;
    call.state.directory().check_fresh()?;
    super::json(200, &Live::default())
}

/// `GET /system/health`
pub(super) fn health(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let audit = call.state.audit().is_writable();
    let accounts = call.state.directory().is_current();
    let issuers = !call.state.issuers_fail();
    let counters = !call.state.counters().is_degraded();
    let draining = call.state.is_draining();
    let status = match (draining, audit && accounts && issuers && counters) {
        (true, _) => "draining",
        (false, true) => "ok",
        (false, false) => "degraded",
    };
    let word = |fine| if fine { "ok" } else { "degraded" };
    super::json(
        200,
        &json!({
            "status": status,
            "version": env!("CARGO_PKG_VERSION"),
            "components": { "audit": word(audit), "accounts": word(accounts), "issuers": word(issuers), "counters": word(counters) },
            "mode": if call.snapshot.is_development() { "development" } else { "required" },
            "open_requests": call.state.open_requests(),
        }),
    )
}

/// `GET /metrics`
pub(super) fn metrics(call: &OwnCall<'_>) -> String {
    call.state.metrics().set_degraded("audit", !call.state.audit().is_writable());
    let metrics = call.state.metrics();
    metrics.set_degraded("counters", call.state.counters().is_degraded());
    let is_paused = call.snapshot.guard().is_some_and(|guard| guard.is_paused());
    metrics.set_degraded("second_opinion", is_paused);
    for (upstream, waiting) in call.state.queue_depths() {
        metrics.set_queue_depth(&upstream, waiting);
    }
    metrics.encode()
}
