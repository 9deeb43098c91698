//! The gate: one short method for each of Pingora's hooks. Only this module knows the order of the
//! rooms; anyone's own `ProxyHttp` becomes a Portcullis by calling these methods from its hooks.

mod ceiling;
mod empty;
mod journey;
mod record;
mod relay;
mod reserve;
mod settle;
mod wait;
mod write;

pub(crate) use ceiling::Watch;
pub(crate) use settle::abandon;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use uuid::Uuid;

use crate::answer::{Expect, ModelFilter};
use crate::audit::Text;
use crate::authz;
use crate::body;
use crate::context::{Ctx, Exchange, Stage};
use crate::edge::HeadSeen;
use crate::forward::{self, Outgoing};
use crate::own::OwnApi;
use crate::peer;
use crate::state::State;
use crate::surface::{Listener, Operation, Target};

/// Connections tried for one request.
const MAX_TRIES: usize = 3;
/// A client that takes this long to take one write is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// What is read of an unread request body before the connection is closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// What a listener adds to the configuration that all listeners share.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct ListenerPolicy {
    /// Which operations it offers.
    pub listener: Listener,
    /// Bytes of a request head.
    pub max_header_bytes: usize,
    /// Bytes of a request body, where no route says otherwise.
    pub max_body_bytes: u64,
    /// Time for a whole request body.
    pub body_timeout: Duration,
    /// Whether answers carry `Strict-Transport-Security`.
    pub hsts: bool,
}

/// The filters of one listener.
pub struct Gate {
    state: Arc<State>,
    policy: ListenerPolicy,
    own: Arc<dyn OwnApi>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Gate {
    /// The filters for one listener of a gateway.
    #[must_use]
    pub fn new(state: Arc<State>, policy: ListenerPolicy, own: Arc<dyn OwnApi>) -> Self {
        Self { state, policy, own }
    }

    /// For `new_ctx`.
    #[must_use]
    pub fn new_ctx(&self) -> Ctx {
        Ctx::new(&self.state, Uuid::now_v7())
    }

    /// For `init_downstream_modules`. Pingora's default adds compression, which would hold streams
    /// back.
    pub fn init_downstream_modules(modules: &mut HttpModules) {
        modules.add_module(Box::new(empty::Builder));
    }

    /// For `on_connection_reuse`: takes note that the head has arrived, see [`Edge`](crate::edge::Edge).
    pub fn on_connection_reuse(&self, context: Box<dyn std::any::Any + Send + Sync>) {
        if let Ok(seen) = context.downcast::<HeadSeen>() {
            seen.store(true, Ordering::Relaxed);
        }
    }

    /// For `persist_connection_context`: marks a connection that has carried a request before.
    #[must_use]
    pub fn persist_connection_context(&self) -> Box<dyn std::any::Any + Send + Sync> {
        Box::new(HeadSeen::default())
    }

    /// For `early_request_filter`: bounds what Pingora leaves unlimited.
    pub fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) {
        ctx.begin();
        let request = session.req_header();
        let agent = request.headers.get(http::header::USER_AGENT);
        ctx.trace.user_agent = agent.map(|value| Text::from_bytes(value.as_bytes()));
        ctx.trace.path = Some(Text::path(request.uri.path()));
        ctx.closed = false;
        session.set_read_timeout(Some(self.policy.body_timeout));
        session.set_write_timeout(Some(WRITE_TIMEOUT));
        session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
    }

    /// For `request_filter`: the journey up to the upstream. `true` means that the answer is
    /// written.
    ///
    /// # Errors
    /// If the answer cannot be written.
    pub async fn request_filter(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
    ) -> pingora::Result<bool> {
        match self.journey(session, ctx).await {
            Ok(None) => Ok(false),
            Ok(Some(answer)) => {
                self.write_own(session, ctx, &answer).await?;
                Ok(true)
            }
            Err(denial) => {
                self.refuse(session, ctx, denial).await?;
                Ok(true)
            }
        }
    }

    /// For `upstream_peer`; called once per try.
    ///
    /// # Errors
    /// If the request was not cleared, or the upstream's name does not resolve.
    pub async fn upstream_peer(&self, ctx: &mut Ctx) -> pingora::Result<Box<HttpPeer>> {
        let Stage::Cleared(exchange) = &mut ctx.stage else { return Err(out_of_order()) };
        let upstream = Arc::clone(exchange.grant.route().upstream());
        let endpoint = upstream.endpoint(exchange.attempts).ok_or_else(out_of_order)?;
        exchange.attempts += 1;
        let elapsed = self.state.clock.monotonic_ns().saturating_sub(ctx.begun);
        ctx.trace.overhead.get_or_insert(elapsed.saturating_sub(ctx.waited));
        match peer::peer(&upstream, endpoint).await {
            Ok(peer) => Ok(Box::new(peer)),
            Err(denial) => {
                ctx.trace.denial = Some(denial);
                Error::e_explain(ErrorType::ConnectError, "name does not resolve")
            }
        }
    }

    /// For `fail_to_connect`: nothing was sent, so the next endpoint may be tried.
    #[must_use]
    pub fn fail_to_connect(&self, ctx: &Ctx, mut error: Box<Error>) -> Box<Error> {
        let again = match &ctx.stage {
            Stage::Cleared(exchange) => {
                let endpoints = exchange.grant.route().upstream().endpoints.len();
                exchange.attempts < endpoints.min(MAX_TRIES)
            }
            Stage::Arrived | Stage::Answered | Stage::Answering(..) => false,
        };
        error.set_retry(again);
        error
    }

    /// For `upstream_request_filter`: the head that the upstream sees.
    ///
    /// # Errors
    /// If the request was not cleared.
    pub fn upstream_request_filter(
        &self,
        request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> pingora::Result<()> {
        let id = ctx.id.to_string();
        let Stage::Cleared(exchange) = &mut ctx.stage else { return Err(out_of_order()) };
        exchange.sent = self.state.clock.monotonic_ns();
        if exchange.watch.is_none() {
            exchange.watch = ceiling::watch(exchange, &self.state.metrics);
        }
        let upstream = exchange.grant.route().upstream();
        let attempt = exchange.attempts.saturating_sub(1);
        let endpoint = upstream.endpoint(attempt).ok_or_else(out_of_order)?;
        let outgoing = Outgoing {
            upstream,
            endpoint,
            request_id: &id,
            body: exchange.cleared.as_ref().map(|cleared| cleared.body().len()),
            streams: exchange.streams,
        };
        write::replace_head(request, &forward::path(endpoint, &exchange.path), &outgoing)
    }

    /// For `request_body_filter`: the cleared body, and nothing else.
    pub fn request_body_filter(&self, chunk: &mut Option<Bytes>, end: bool, ctx: &Ctx) {
        match &ctx.stage {
            Stage::Cleared(exchange) | Stage::Answering(exchange, _) => {
                if let Some(cleared) = &exchange.cleared {
                    body::inject(cleared.body(), chunk, end);
                }
            }
            Stage::Arrived | Stage::Answered => *chunk = None,
        }
    }

    /// For `response_filter`: decides how the answer is watched, and what head the client gets.
    ///
    /// # Errors
    /// If the answer is not one that can be watched; [`Self::fail_to_proxy`] tells the client.
    pub fn response_filter(
        &self,
        session: &Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> pingora::Result<()> {
        if response.status.is_informational() {
            return Ok(());
        }
        let Stage::Cleared(exchange) = std::mem::replace(&mut ctx.stage, Stage::Answered) else {
            return Err(out_of_order());
        };
        let head_only = session.req_header().method == http::Method::HEAD;
        relay::begin(self, exchange, response, head_only, ctx)
    }

    /// For `response_body_filter`: what may go on now.
    ///
    /// # Errors
    /// If the answer must end here; [`Self::fail_to_proxy`] ends it.
    pub fn response_body_filter(
        &self,
        chunk: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> pingora::Result<()> {
        relay::pass(self, chunk, end, ctx)
    }

    /// For `response_trailer_filter`: HTTP/2 answers that end in trailers have no last chunk, so
    /// what was held back comes out here.
    /// An answer that breaks off here ends in an error all the same.
    ///
    /// # Errors
    /// None so far; Pingora drops errors of this hook.
    pub fn response_trailer_filter(&self, ctx: &mut Ctx) -> pingora::Result<Option<Bytes>> {
        Ok(relay::pass_trailers(self, ctx))
    }

    /// For `error_while_proxy`: whether the exchange may be tried again.
    ///
    /// Once an answer has begun it may not. Before that the same body can go to another connection
    /// if the upstream closed a pooled one, or broke off without a word; not after a timeout, since
    /// then it is working on the request.
    #[must_use]
    pub fn error_while_proxy(&self, ctx: &Ctx, mut error: Box<Error>, reused: bool) -> Box<Error> {
        let fresh = match &ctx.stage {
            Stage::Cleared(exchange) => exchange.attempts < MAX_TRIES,
            Stage::Arrived | Stage::Answered | Stage::Answering(..) => false,
        };
        let upstream = *error.esource() == ErrorSource::Upstream;
        let silent = matches!(
            error.etype(),
            ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
        );
        let others = match &ctx.stage {
            Stage::Cleared(exchange) => {
                exchange.attempts < exchange.grant.route().upstream().endpoints.len()
            }
            Stage::Arrived | Stage::Answered | Stage::Answering(..) => false,
        };
        error.set_retry(fresh && upstream && silent && (reused || others));
        error
    }

    /// For `fail_to_proxy`: ends what cannot go on, in the words of the dialect.
    pub async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Ctx,
    ) -> FailToProxy {
        relay::fail(self, session, error, ctx).await
    }

    /// For `logging`: settles the reservation and writes the one audit record.
    pub fn logging(&self, error: Option<&Error>, ctx: &mut Ctx) {
        let left = error.is_some_and(|error| *error.esource() == ErrorSource::Downstream);
        if let Some((reservation, charge)) = settle::due(ctx, left) {
            reservation.settle(charge);
        }
        record::finish(ctx);
    }

    /// What the answer to an exchange is expected to be.
    fn expect(exchange: &Exchange, operation: &Operation) -> Option<Expect> {
        let Target::Upstream(shape) = operation.target else { return None };
        let mut expect = Expect::new(shape);
        expect.tokenizer = exchange.tokenizer.clone();
        expect.max_completion = Some(exchange.grant.max_tokens().saturating_mul(exchange.answers));
        expect.strip_usage = exchange.strip_usage;
        if shape.lists_models() {
            let identity = Arc::clone(exchange.grant.identity());
            let allow: ModelFilter = Arc::new(move |name: &str| {
                authz::canonical(name).is_some_and(|name| identity.allows(&name))
            });
            expect.allow_model = Some(allow);
        }
        Some(expect)
    }
}

/// A hook was called in another order than Pingora's: refuse rather than guess.
fn out_of_order() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "hook called out of order")
}
