//! What an exchange is charged, however it ends.

use std::time::Duration;

use super::{ceiling, record};
use crate::context::{Ctx, Exchange, Relay, Stage};
use crate::quota::{Charge, Reservation};
use crate::usage::{Metered, Spent, Unanswered};
use crate::verdict::{Denial, Reason};

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
            let metered = answer.metered(&spent(&exchange, ctx));
            learn(&exchange, &metered, ctx);
            (exchange, metered.usage)
        }
        Stage::Cleared(exchange) => {
            ctx.trace.aborted = left;
            let usage = unanswered(&exchange, ctx, left).usage(&spent(&exchange, ctx))?;
            (exchange, usage)
        }
        Stage::Arrived => {
            ctx.trace.aborted = ctx.trace.denial.is_none();
            return None;
        }
        Stage::Answered => return None,
    };
    ctx.trace.usage = Some(usage);
    let charge = Charge {
        prompt: usage.prompt_tokens,
        completion: usage.completion_tokens,
        gpu_ms: usage.gpu_millis(),
    };
    let charge = ceiling::bounded(&exchange, charge);
    Some((exchange.reservation, charge))
}

/// How a request ended of which no answer has begun.
fn unanswered(exchange: &Exchange, ctx: &Ctx, left: bool) -> Unanswered {
    let reason = ctx.trace.denial.as_ref().map(Denial::reason);
    match reason {
        _ if exchange.sent == 0 => Unanswered::NotSent,
        _ if left || exchange.entry.denial().is_some() => Unanswered::Left,
        Some(Reason::UpstreamTimeout) => Unanswered::TimedOut,
        Some(_) | None => Unanswered::Failed,
    }
}

/// What the next requests for the model are estimated by; the rest of it is for the record.
fn learn(exchange: &Exchange, metered: &Metered, ctx: &mut Ctx) {
    let (grant, upstream) = (&exchange.grant, exchange.grant.route().upstream());
    let learned = &ctx.state.learned;
    learned.observe(&upstream.name, grant.model(), exchange.prompt_estimate, metered);
    let counts =
        [("cached_tokens", metered.cached_tokens), ("reasoning_tokens", metered.reasoning_tokens)];
    let counts = counts.into_iter().filter_map(|(name, n)| Some((name, n?.to_string())));
    ctx.trace.details.extend(counts);
}

/// Ends a request that Pingora has dropped without its last hook.
pub(crate) fn abandon(ctx: &mut Ctx) {
    if let Stage::Cleared(exchange) | Stage::Answering(exchange, _) = &ctx.stage
        && let Some(denial) = exchange.entry.denial()
    {
        ctx.trace.denial = Some(denial);
    }
    if let Some((reservation, charge)) = due(ctx, true) {
        reservation.settle(charge);
    }
    record::finish(ctx);
}

fn spent(exchange: &Exchange, ctx: &Ctx) -> Spent {
    let now = exchange.ended.unwrap_or_else(|| ctx.state.clock.monotonic_ns());
    let upstream = exchange.grant.route().upstream();
    Spent {
        prompt: exchange.prompt_estimate,
        wall: Duration::from_nanos(now.saturating_sub(exchange.sent)),
        gpus: upstream.gpus,
        count_load: upstream.count_load,
    }
}
