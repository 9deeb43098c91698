//! The gate: one short method for each of Pingora's hooks. Only this module knows the order of the
//! rooms; anyone's own `ProxyHttp` becomes a Portcullis by calling these methods from its hooks.

mod empty;
mod record;
mod relay;
mod settle;
mod write;

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
use crate::authn::{self, Identity};
use crate::authz::{self, Grant};
use crate::body::{self, Held};
use crate::clear::{self, Cleared};
use crate::context::{Ctx, Exchange, Stage};
use crate::edge::{self, Admitted, Head, HeadSeen};
use crate::forward::{self, Outgoing};
use crate::metrics::Room;
use crate::own::{OwnAnswer, OwnApi, OwnCall, OwnOutcome};
use crate::peer;
use crate::prompt::Prompt;
use crate::quota::{Charge, Demand, GpuSpeed, Reservation, estimate_prompt_tokens};
use crate::state::State;
use crate::surface::{self, Access, Dialect, Listener, Operation, OwnOp, Target};
use crate::verdict::{Denial, Reason};

/// Bodies of own endpoints are small; texts to be scanned are not.
const OWN_BODY: u64 = 64 << 10;
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

    /// For `on_connection_reuse`: takes note that the head has arrived, see [`edge::Edge`].
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

    /// The rooms in their order. Each takes what only the one before it can make.
    async fn journey(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
    ) -> Result<Option<OwnAnswer>, Denial> {
        let admitted = self.admit(session, ctx)?;
        ctx.leave(Room::Edge);
        let (operation, model) = self.recognise(session, ctx)?;
        ctx.leave(Room::Surface);
        let identity = self.identify(session, ctx, operation)?;
        if let Some(identity) = &identity {
            authz::permit(identity, operation)?;
        }
        ctx.leave(Room::Authn);
        let (bytes, held) = self.collect(session, ctx, operation).await?;
        ctx.leave(Room::Body);
        ctx.trace.input_length = Some(bytes.len() as u64);
        match (operation.target, identity) {
            (Target::Own(op), identity) => {
                self.call(ctx, op, &admitted, identity.as_ref(), bytes).await.map(Some)
            }
            (Target::Upstream(_), Some(identity)) if operation.takes_body() => {
                self.prepare(ctx, operation, &identity, &bytes, held).await.map(|()| None)
            }
            (Target::Upstream(_), Some(identity)) => {
                self.prepare_read(ctx, operation, &identity, model).await.map(|()| None)
            }
            (Target::Upstream(_), None) => Err(authn::missing()),
        }
    }

    fn admit(&self, session: &Session, ctx: &mut Ctx) -> Result<Admitted, Denial> {
        let request = session.req_header();
        ctx.dialect = Dialect::of_path(request.uri.path());
        let head = Head {
            path: request.uri.path(),
            query: request.uri.query(),
            raw_target: request.raw_path(),
            host: host(request),
            headers: &request.headers,
            http2: session.is_http2(),
            keep_alive: session.get_keepalive().is_some(),
            peer: session.client_addr().and_then(|address| address.as_inet()).copied(),
        };
        ctx.trace.client = head.peer.map(|peer| peer.ip());
        let trusted = ctx.snapshot.trusted_proxies();
        let admitted = edge::admit(&head, self.policy.max_header_bytes, trusted)?;
        ctx.trace.client = Some(admitted.client());
        Ok(admitted)
    }

    fn recognise(
        &self,
        session: &Session,
        ctx: &mut Ctx,
    ) -> Result<(&'static Operation, Option<String>), Denial> {
        let request = session.req_header();
        let (method, path) = (request.method.as_str(), request.uri.path());
        let (operation, model) = surface::recognise(self.policy.listener, method, path)?;
        ctx.operation = Some(operation);
        ctx.dialect = operation.dialect;
        edge::check_query(request.uri.query())?;
        if !operation.is_probe() {
            if self.state.is_draining() {
                return Err(Denial::new(Reason::Draining, "the gateway is shutting down")
                    .retry_after(Duration::from_secs(1))
                    .closing());
            }
            self.state.audit.admit()?;
        }
        Ok((operation, model.map(str::to_owned)))
    }

    fn identify(
        &self,
        session: &Session,
        ctx: &mut Ctx,
        operation: &Operation,
    ) -> Result<Option<Arc<Identity>>, Denial> {
        if operation.access == Access::Open {
            return Ok(None);
        }
        let now = self.state.clock.unix_secs();
        let identity = authn::identify(&ctx.snapshot, &session.req_header().headers, now)?;
        ctx.trace.user = Some(identity.user().to_owned());
        ctx.trace.key = identity.key_id().map(str::to_owned);
        Ok(Some(identity))
    }

    async fn collect(
        &self,
        session: &mut Session,
        ctx: &Ctx,
        operation: &Operation,
    ) -> Result<(Bytes, Held), Denial> {
        if !operation.takes_body() {
            if body::is_announced(session.req_header()) {
                let message = "this request must not have a body";
                return Err(Denial::new(Reason::InvalidRequest, message).closing());
            }
            return Ok((Bytes::new(), Held::default()));
        }
        edge::check_media_type(&session.req_header().headers)?;
        let default = self.policy.max_body_bytes;
        let max_bytes = match operation.target {
            Target::Own(OwnOp::Scan) => default,
            Target::Own(_) => default.min(OWN_BODY),
            Target::Upstream(_) => ctx.snapshot.routes().body_limit(operation.path, default),
        };
        let limits = body::Limits {
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            deadline: self.policy.body_timeout,
        };
        body::collect(session, limits, &self.state.budget).await
    }

    async fn call(
        &self,
        ctx: &mut Ctx,
        op: OwnOp,
        admitted: &Admitted,
        identity: Option<&Arc<Identity>>,
        body: Bytes,
    ) -> Result<OwnAnswer, Denial> {
        let reservation = match identity {
            Some(identity) => Some(self.reserve(ctx, identity, Charge::default()).await?),
            None => None,
        };
        let client = admitted.client();
        let snapshot = &ctx.snapshot;
        let call = OwnCall { op, state: &self.state, snapshot, identity, client, body };
        let OwnOutcome { user, result } = self.own.call(call).await;
        if let Some(reservation) = reservation {
            reservation.settle(Charge::default()).await;
        }
        ctx.trace.user = user.or(ctx.trace.user.take());
        result
    }

    /// A request with a prompt: parse, grant, reserve, clear.
    async fn prepare(
        &self,
        ctx: &mut Ctx,
        operation: &'static Operation,
        identity: &Arc<Identity>,
        bytes: &Bytes,
        held: Held,
    ) -> Result<(), Denial> {
        let mut prompt = parse(ctx, operation, bytes).await?;
        let grant = authz::grant(&ctx.snapshot, identity, &mut prompt)?;
        note_grant(ctx, &grant);
        check_route_limit(&grant, bytes.len())?;
        ctx.leave(Room::Authz);
        let texts = prompt.pieces().iter().map(|piece| piece.text.as_str());
        let prompt_estimate = estimate_prompt_tokens(texts);
        let estimate = estimate(&grant, &prompt, prompt_estimate);
        let reservation = self.reserve(ctx, identity, estimate).await?;
        ctx.leave(Room::Quota);
        let streams = prompt.streams();
        let strip_usage = streams && operation.reports_usage_on_request() && !prompt.wants_usage();
        if strip_usage {
            prompt.ask_for_usage();
        }
        let cleared = Some(clear(ctx, &grant, prompt).await?);
        ctx.stage = Stage::Cleared(Box::new(Exchange {
            path: operation.path.to_owned(),
            grant,
            reservation,
            cleared,
            streams,
            strip_usage,
            prompt_estimate,
            attempts: 0,
            sent: 0,
            _held: held,
            _counted: self.state.metrics.reservation_open(),
        }));
        Ok(())
    }

    /// A request without a body: a list of models, or one of them.
    async fn prepare_read(
        &self,
        ctx: &mut Ctx,
        operation: &'static Operation,
        identity: &Arc<Identity>,
        model: Option<String>,
    ) -> Result<(), Denial> {
        let grant = authz::grant_read(&ctx.snapshot, identity, operation, model.as_deref())?;
        note_grant(ctx, &grant);
        let path = operation.path.replace("{model}", grant.model());
        let reservation = self.reserve(ctx, identity, Charge::default()).await?;
        ctx.stage = Stage::Cleared(Box::new(Exchange {
            grant,
            reservation,
            cleared: None,
            path,
            streams: false,
            strip_usage: false,
            prompt_estimate: 0,
            attempts: 0,
            sent: 0,
            _held: Held::default(),
            _counted: self.state.metrics.reservation_open(),
        }));
        Ok(())
    }

    async fn reserve(
        &self,
        ctx: &mut Ctx,
        identity: &Identity,
        estimate: Charge,
    ) -> Result<Reservation, Denial> {
        let mut demand = Demand::new(ctx.id.as_u128(), estimate);
        for (level, subject, limits) in identity.meters() {
            demand = demand.level(*level, *subject, Arc::clone(limits));
        }
        match self.state.counters.reserve(demand).await {
            Ok(reservation) => {
                ctx.trace.quota = Some(reservation.view());
                Ok(reservation)
            }
            Err(refusal) => {
                self.state.metrics.quota_refused(refusal.meter().name());
                ctx.trace.quota = Some(refusal.view());
                Err(Denial::from(&refusal))
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
    pub async fn logging(&self, error: Option<&Error>, ctx: &mut Ctx) {
        let left = error.is_some_and(|error| *error.esource() == ErrorSource::Downstream);
        if let Some((reservation, charge)) = settle::due(ctx, left) {
            reservation.settle(charge).await;
        }
        record::finish(ctx);
    }

    /// What the answer to an exchange is expected to be.
    fn expect(exchange: &Exchange, operation: &Operation) -> Option<Expect> {
        let Target::Upstream(shape) = operation.target else { return None };
        let mut expect = Expect::new(shape);
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

/// `Host` on HTTP/1, the authority on HTTP/2.
fn host(request: &RequestHeader) -> Option<&[u8]> {
    let header = request.headers.get(http::header::HOST).map(http::HeaderValue::as_bytes);
    header.or_else(|| request.uri.authority().map(|authority| authority.as_str().as_bytes()))
}

/// Parses a body; a long one on a blocking thread.
async fn parse(
    ctx: &mut Ctx,
    operation: &'static Operation,
    bytes: &Bytes,
) -> Result<Prompt, Denial> {
    let (snapshot, bytes) = (Arc::clone(&ctx.snapshot), bytes.clone());
    let long = bytes.len() > clear::INLINE;
    let work = move || {
        let prompt = Prompt::parse(operation, &bytes, snapshot.caps())?;
        let digest = snapshot.digest(prompt.pieces());
        Ok::<_, Denial>((prompt, digest))
    };
    let (prompt, digest) = if long {
        tokio::task::spawn_blocking(work).await.map_err(|_| {
            Denial::new(Reason::Internal, "the body could not be parsed").detail("parser panicked")
        })??
    } else {
        work()?
    };
    ctx.trace.model = Some(prompt.model().to_owned());
    ctx.trace.prompt_digest = Some(digest);
    ctx.leave(Room::Prompt);
    Ok(prompt)
}

/// Scans a prompt by the policy of its route.
async fn clear(ctx: &mut Ctx, grant: &Grant, prompt: Prompt) -> Result<Cleared, Denial> {
    let (scanner, policy) = (ctx.snapshot.scanner(), grant.route().policy());
    let outcome = clear::clear(scanner, policy, ctx.snapshot.on_error(), prompt).await;
    ctx.trace.report = outcome.report;
    ctx.trace.input = outcome.coverage;
    ctx.leave(Room::Scan);
    outcome.result
}

fn note_grant(ctx: &mut Ctx, grant: &Grant) {
    ctx.trace.upstream = Some(grant.route().upstream().name.clone());
    if !grant.model().is_empty() {
        ctx.trace.model = Some(grant.model().to_owned());
    }
}

/// The limit of the route that was found; before, only the largest of all was known.
fn check_route_limit(grant: &Grant, length: usize) -> Result<(), Denial> {
    match grant.route().max_body_bytes() {
        Some(limit) if length as u64 > limit => Err(Denial::new(
            Reason::PayloadTooLarge,
            format!("the body is larger than {limit} bytes"),
        )),
        _ => Ok(()),
    }
}

fn estimate(grant: &Grant, prompt: &Prompt, prompt_tokens: u64) -> Charge {
    let completion = grant.max_tokens().saturating_mul(prompt.answers());
    Charge {
        tokens: prompt_tokens.saturating_add(completion),
        gpu_ms: GpuSpeed::default().estimate_gpu_ms(prompt_tokens, completion),
    }
}

/// A hook was called in another order than Pingora's: refuse rather than guess.
fn out_of_order() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "hook called out of order")
}
