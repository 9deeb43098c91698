//! What a request asks of the meters, and on which of them it counts.

use std::net::IpAddr;

use super::Gate;
use crate::authn::Identity;
use crate::authz::Grant;
use crate::context::Ctx;
use crate::prompt::Prompt;
use crate::quota::{Charge, Demand, Reservation};
use crate::snapshot::Sharer;
use crate::usage::Learned;
use crate::verdict::Denial;

/// The shortest answer that is worth its prompt, in tokens. Where there is room for less the
/// request is refused.
const SHORTEST_ANSWER: u64 = 16;

/// What one request wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    /// Canonical; empty for none.
    pub(super) model: &'a str,
    /// Empty for none.
    pub(super) upstream: &'a str,
    /// What it will cost at most.
    pub(super) most: Charge,
    /// What it must have at least.
    pub(super) least: Charge,
}

impl Wish<'_> {
    /// To be counted as a request, and nothing else.
    pub(super) const NOTHING: Self = Self {
        model: "",
        upstream: "",
        most: Charge { prompt: 0, completion: 0, gpu_ms: 0 },
        least: Charge { prompt: 0, completion: 0, gpu_ms: 0 },
    };
}

impl<'a> Wish<'a> {
    /// A request of an upstream that computes nothing.
    pub(super) fn read(grant: &'a Grant) -> Self {
        Self { model: grant.model(), upstream: &grant.route().upstream().name, ..Wish::NOTHING }
    }

    /// A request with a prompt of so many tokens.
    pub(super) fn of(
        grant: &'a Grant,
        prompt: &Prompt,
        prompt_tokens: u64,
        learned: &Learned,
    ) -> Self {
        let read = Self::read(grant);
        let gpu_ms = learned.gpu_time(read.upstream, read.model);
        let most = grant.max_tokens().saturating_mul(prompt.answers());
        let least = most.min(SHORTEST_ANSWER.saturating_mul(prompt.answers()));
        let charge = |completion| Charge {
            prompt: prompt_tokens,
            completion,
            gpu_ms: gpu_ms(prompt_tokens, completion),
        };
        Self { most: charge(most), least: charge(least), ..read }
    }
}

impl Gate {
    /// Holds what a request wants on the meters of its caller, and on those that all share.
    pub(super) async fn reserve(
        &self,
        ctx: &mut Ctx,
        identity: &Identity,
        address: IpAddr,
        wish: Wish<'_>,
    ) -> Result<Reservation, Denial> {
        let Wish { model, upstream, most, least } = wish;
        let sharer = Sharer { role: identity.role(), address, model, upstream };
        let (standing, now_ms) = (self.state.standing(), self.state.clock.unix_ms());
        let shared = ctx.snapshot.shared().meters(sharer, standing.is_changed());
        let mut demand =
            Demand::new(ctx.id.as_u128(), most).at_least(least.completion, least.gpu_ms);
        for (level, subject, limits) in identity.meters().iter().chain(&shared) {
            let limits = standing.limits(*level, *subject, limits, now_ms);
            demand = demand.level(*level, *subject, limits);
        }
        let limited = demand.limited();
        match self.state.counters.reserve(demand).await {
            Ok(reservation) => {
                ctx.trace.quota = Some(reservation.view());
                Ok(reservation.limited_by(limited))
            }
            Err(refusal) => {
                self.state.metrics.quota_refused(refusal.meter().name());
                ctx.trace.quota = Some(refusal.view());
                Err(Denial::from(&refusal))
            }
        }
    }
}

/// Tells the upstream to write no more than there is room for, where that is less than was asked.
pub(super) fn fit(grant: &mut Grant, prompt: &mut Prompt, reservation: &Reservation, ctx: &Ctx) {
    let each = reservation.reserved().completion / prompt.answers().max(1);
    if each < grant.max_tokens() {
        grant.lower_max_tokens(each);
        prompt.bound(each, grant.route().upstream().tokens_param(), ctx.snapshot.caps());
    }
}
