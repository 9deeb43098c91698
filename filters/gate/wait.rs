//! The wait for an upstream that works on as many requests as it may.

use std::time::Duration;

use pingora::proxy::Session;

use super::Gate;
use crate::context::{Ctx, Exchange, Stage};
use crate::queue::{Overflow, Turn, Who};
use crate::quota::{Level, Subject};
use crate::verdict::{Denial, Reason};

impl Gate {
    /// Waits for the turn of a request that is cleared. Who is refused, or leaves, gives back what
    /// was reserved.
    pub(super) async fn take_turn(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
    ) -> Result<(), Denial> {
        let stage = std::mem::replace(&mut ctx.stage, Stage::Arrived);
        let Stage::Cleared(mut exchange) = stage else {
            ctx.stage = stage;
            return Ok(());
        };
        let Some(queue) = self.state.queues.get(&exchange.grant.route().upstream().name) else {
            ctx.stage = Stage::Cleared(exchange);
            return Ok(());
        };
        let who = who(ctx, &exchange);
        let waiting = tokio::select! {
            biased;
            turn = queue.enter(who) => turn,
            () = gone(session) => {
                ctx.trace.aborted = true;
                return Err(Denial::new(Reason::RequestTimeout, "the client left").closing());
            }
        };
        note(ctx, &exchange, &waiting);
        exchange.turn = Some(waiting?);
        ctx.stage = Stage::Cleared(exchange);
        Ok(())
    }
}

fn who(ctx: &Ctx, exchange: &Exchange) -> Who {
    let identity = exchange.grant.identity();
    let user = Subject::new(Level::User, identity.user()).number();
    Who { user, weight: ctx.snapshot.rights(identity.role()).weight }
}

/// The wait is not the gateway's share of the time, but the client's metrics and the audit tell it.
fn note(ctx: &mut Ctx, exchange: &Exchange, waiting: &Result<Turn, Overflow>) {
    let waited = match waiting {
        Ok(turn) => turn.waited(),
        Err(overflow) => overflow.waited(),
    };
    let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
    ctx.waited = ctx.waited.saturating_add(nanos);
    if waited > Duration::ZERO {
        ctx.trace.queued = Some(waited);
        let upstream = &exchange.grant.route().upstream().name;
        ctx.state.metrics.queued(upstream, waited);
    }
}

/// Returns once the client has gone.
async fn gone(session: &mut Session) {
    drop(session.as_downstream_mut().read_body_or_idle(true).await);
}
