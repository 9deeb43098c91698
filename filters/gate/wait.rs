//! The wait for an upstream that works on as many requests as it may.

use std::sync::Arc;
use std::time::Duration;

use pingora::proxy::Session;

use super::Gate;
use crate::context::{Ctx, Exchange, Stage};
use crate::queue::{Turn, Who};
use crate::verdict::{Denial, Reason};

impl Gate {
    /// Waits for the turn of a request that is cleared. Who is refused, or leaves, gives back what
    /// was reserved.
    pub(super) async fn take_turn(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
    ) -> Result<(), Denial> {
        let Stage::Cleared(exchange) = &ctx.stage else { return Ok(()) };
        let queue = self.state.queues.get(&exchange.grant.route().upstream().name);
        let (who, cut) = (who(ctx, exchange), Arc::clone(exchange.entry.cut()));
        let Some(queue) = queue else { return Ok(()) };
        let clock = &self.state.clock;
        let began = clock.monotonic_ns();
        let since = || Duration::from_nanos(clock.monotonic_ns().saturating_sub(began));
        let waiting = tokio::select! {
            biased;
            turn = queue.enter(who) => turn.map_err(|over| (Denial::from(over), over.waited())),
            () = cut.fired() => Err((cut.denial().unwrap_or_else(left), since())),
            () = gone(session) => {
                ctx.trace.aborted = true;
                Err((left(), since()))
            }
        };
        note(ctx, waiting.as_ref().map_or_else(|(_, waited)| *waited, Turn::waited));
        match waiting {
            Ok(turn) => ctx.hold(turn),
            Err((denial, _)) => {
                ctx.stage = Stage::Arrived;
                return Err(denial);
            }
        }
        Ok(())
    }
}

/// The wait is not the gateway's share of the time, but metrics and audit tell of it.
fn note(ctx: &mut Ctx, waited: Duration) {
    let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
    ctx.waited = ctx.waited.saturating_add(nanos);
    if waited > Duration::ZERO {
        ctx.trace.queued = Some(waited);
        let upstream = ctx.trace.upstream.as_deref().unwrap_or_default();
        ctx.state.metrics.queued(upstream, waited);
    }
}

fn left() -> Denial {
    Denial::new(Reason::RequestTimeout, "the client left").closing()
}

fn who(ctx: &Ctx, exchange: &Exchange) -> Who {
    let identity = exchange.grant.identity();
    let weight = ctx.snapshot.rights(identity.role()).weight;
    Who { user: identity.subject().number(), weight }
}

/// Returns once the client has gone.
async fn gone(session: &mut Session) {
    drop(session.as_downstream_mut().read_body_or_idle(true).await);
}
