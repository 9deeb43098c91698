//! What an exchange is charged, however it ends.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use super::record;
use crate::context::{Ctx, Exchange, Relay, Stage};
use crate::quota::{Charge, Reservation};
use crate::usage::Usage;

/// Ends the exchange, and says what is to be charged on which reservation. `left` is whether the
/// client went away.
///
/// An exchange that never reached the upstream, or that the upstream refused, costs nothing: its
/// reservation is dropped. One that was left is charged for what was done until then.
pub(super) fn due(ctx: &mut Ctx, left: bool) -> Option<(Reservation, Charge)> {
    let (exchange, usage) = match std::mem::replace(&mut ctx.stage, Stage::Answered) {
        Stage::Answering(exchange, reply) => {
            ctx.trace.aborted = left && reply.broken.is_none();
            let Relay::Answer(answer) = &reply.relay else { return None };
            let (wall, gpus) = cost(&exchange, ctx);
            let usage = answer.usage(exchange.prompt_estimate, wall, gpus);
            (exchange, usage)
        }
        Stage::Cleared(exchange) => {
            ctx.trace.aborted = left;
            if !left || exchange.sent == 0 {
                return None;
            }
            // The prompt was read, as far as anyone can tell.
            let (wall, gpus) = cost(&exchange, ctx);
            let usage = Usage {
                prompt_tokens: exchange.prompt_estimate,
                completion_tokens: 0,
                gpu_seconds: wall.as_secs_f64() * gpus,
                estimated: true,
            };
            (exchange, usage)
        }
        Stage::Arrived => {
            ctx.trace.aborted = ctx.trace.denial.is_none();
            return None;
        }
        Stage::Answered => return None,
    };
    ctx.trace.usage = Some(usage);
    let charge = Charge { tokens: usage.total_tokens(), gpu_ms: usage.gpu_millis() };
    Some((exchange.reservation, charge))
}

/// Ends a request that Pingora has dropped without its last hook.
pub(crate) fn abandon(ctx: &mut Ctx) {
    if let Stage::Cleared(exchange) | Stage::Answering(exchange, _) = &ctx.stage
        && let Some(denial) = exchange.entry.denial()
    {
        ctx.trace.denial = Some(denial);
    }
    if let Some((reservation, charge)) = due(ctx, true) {
        // Nobody can wait here. The store in memory settles at once; one on the network frees the
        // hold by its lease.
        let settling = pin!(reservation.settle(charge));
        let _settled = settling.poll(&mut Context::from_waker(Waker::noop())).is_ready();
    }
    record::finish(ctx);
}

fn cost(exchange: &Exchange, ctx: &Ctx) -> (Duration, f64) {
    let now = ctx.state.clock.monotonic_ns();
    let wall = Duration::from_nanos(now.saturating_sub(exchange.sent));
    (wall, exchange.grant.route().upstream().gpus)
}
