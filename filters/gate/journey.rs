//! The journey up to the upstream: the rooms in their order, each taking what only the one before it
//! can make.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::Gate;
use super::reserve::{Wish, fit};
use crate::authn::{self, Caller, Identified, Identity};
use crate::authz::{self, Grant};
use crate::body::{self, Held};
use crate::clear::{self, Cleared, Judge};
use crate::context::{Ctx, Exchange, Stage};
use crate::edge::{self, Admitted, Head};
use crate::metrics::Room;
use crate::own::{OwnAnswer, OwnCall, OwnOutcome};
use crate::prompt::Prompt;
use crate::surface::{self, Access, Dialect, Listener, Operation, OwnOp, Target};
use crate::usage::{PromptEstimate, Tokenizer, estimate_prompt_tokens};
use crate::verdict::{Denial, Reason};

/// Bodies of own endpoints are small; texts to be scanned are not.
const OWN_BODY: u64 = 64 << 10;
/// What an own endpoint is asked.
struct Asked<'a> {
    op: OwnOp,
    named: Option<&'a str>,
    bytes: Bytes,
}

impl Gate {
    /// The rooms in their order. Each takes what only the one before it can make.
    pub(super) async fn journey(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
    ) -> Result<Option<OwnAnswer>, Denial> {
        let admitted = self.admit(session, ctx)?;
        ctx.leave(Room::Edge);
        let (operation, named) = self.recognise(session, ctx)?;
        ctx.leave(Room::Surface);
        let identified = self.identify(session, ctx, operation, &admitted).await?;
        if let Some(identified) = &identified {
            authz::permit(identified.claimed(), operation)?;
        }
        ctx.leave(Room::Authn);
        let (bytes, held) = self.collect(session, ctx, operation).await?;
        let identity = identified.map(|identified| identified.with_body(&bytes)).transpose()?;
        ctx.leave(Room::Body);
        ctx.trace.input_length = Some(bytes.len() as u64);
        let address = admitted.client();
        match (operation.target, identity) {
            (Target::Own(op), identity) => {
                let asked = Asked { op, named: named.as_deref(), bytes };
                self.call(session, ctx, asked, &admitted, identity.as_ref()).await.map(Some)
            }
            (Target::Upstream(_), Some(identity)) if operation.takes_body() => {
                self.prepare(ctx, operation, &identity, address, &bytes, held).await?;
                if operation.computes() {
                    self.take_turn(session, ctx).await?;
                }
                Ok(None)
            }
            (Target::Upstream(_), Some(identity)) => {
                self.prepare_read(ctx, operation, &identity, address, named).await.map(|()| None)
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
        let (operation, named) = surface::recognise(self.policy.listener, method, path)?;
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
        Ok((operation, named.map(str::to_owned)))
    }

    async fn identify(
        &self,
        session: &Session,
        ctx: &mut Ctx,
        operation: &Operation,
        admitted: &Admitted,
    ) -> Result<Option<Identified>, Denial> {
        if operation.access == Access::Open {
            return Ok(None);
        }
        let request = session.req_header();
        let caller = Caller {
            state: &self.state,
            snapshot: &ctx.snapshot,
            headers: &request.headers,
            method: request.method.as_str(),
            path: request.uri.path(),
            host: host(request),
            client: admitted.client(),
            certificate: certificate(session),
        };
        let identified = authn::identify(&caller).await?;
        let identity = identified.claimed();
        ctx.trace.user = Some(identity.user().to_owned());
        ctx.trace.key = identity.key_id().map(str::to_owned);
        Ok(Some(identified))
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
        if matches!(operation.target, Target::Own(_)) && !body::is_announced(session.req_header()) {
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
        session: &Session,
        ctx: &mut Ctx,
        asked: Asked<'_>,
        admitted: &Admitted,
        identity: Option<&Arc<Identity>>,
    ) -> Result<OwnAnswer, Denial> {
        // Operators are not limited where they can set the limits: or one could lock them out.
        let counted = self.policy.listener == Listener::Public;
        let reservation = match identity.filter(|_| counted) {
            Some(identity) => {
                let address = admitted.client();
                Some(self.reserve(ctx, identity, address, Wish::NOTHING).await?)
            }
            None => None,
        };
        let headers = &session.req_header().headers;
        let text =
            |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        let call = OwnCall {
            op: asked.op,
            state: &self.state,
            snapshot: &ctx.snapshot,
            identity,
            client: admitted.client(),
            named: asked.named,
            mfa_code: text("x-mfa-code"),
            user_agent: text("user-agent").unwrap_or_default(),
            body: asked.bytes,
        };
        let OwnOutcome { user, details, result } = self.own.call(call).await;
        ctx.trace.details = details;
        drop(reservation);
        ctx.trace.user = user.or(ctx.trace.user.take());
        result
    }

    /// A request with a prompt: parse, grant, reserve, clear.
    async fn prepare(
        &self,
        ctx: &mut Ctx,
        operation: &'static Operation,
        identity: &Arc<Identity>,
        address: IpAddr,
        bytes: &Bytes,
        held: Held,
    ) -> Result<(), Denial> {
        let mut prompt = parse(ctx, operation, bytes).await?;
        let mut grant = authz::grant(&ctx.snapshot, identity, &mut prompt)?;
        note_grant(ctx, &grant);
        check_route_limit(&grant, bytes.len())?;
        ctx.leave(Room::Authz);
        let judge = self.judge(ctx, &grant);
        let texts = prompt.pieces().iter().map(|piece| piece.text.as_str());
        let raw = estimate_prompt_tokens(texts.chain(judge.policy.handling.added()));
        let estimate = self.state.learned.prompt(grant.model(), raw);
        let opaque = prompt.has_opaque_content();
        let prompt_estimate = if opaque { estimate.opaque() } else { estimate };
        let wish = if operation.computes() {
            Wish::of(&grant, &prompt, prompt_estimate.upper, &self.state.learned)
        } else {
            Wish::read(&grant)
        };
        let reservation = self.reserve(ctx, identity, address, wish).await?;
        fit(&mut grant, &mut prompt, &reservation, ctx);
        let given = grant.route().upstream().tokenizer.clone();
        let tokenizer = given.unwrap_or_else(|| self.state.learned.tokenizer(grant.model()));
        if operation.generates() {
            tokenizer.warm();
        }
        ctx.leave(Room::Quota);
        let streams = prompt.streams();
        let strip_usage = streams && operation.reports_usage_on_request() && !prompt.wants_usage();
        if strip_usage {
            prompt.ask_for_usage();
        }
        let (answers, echoes) = (prompt.answers(), prompt.echoes());
        let cleared = Some(clear(ctx, judge, prompt).await?);
        let entry = self.state.exchanges.enter(identity.proof(), &self.state.directory)?;
        ctx.stage = Stage::Cleared(Box::new(Exchange {
            path: operation.path.to_owned(),
            grant,
            reservation,
            cleared,
            streams,
            strip_usage,
            answers,
            echoes,
            prompt_estimate,
            attempts: 0,
            sent: 0,
            watch: None,
            turn: None,
            ended: None,
            tokenizer,
            _held: held,
            _counted: self.state.metrics.reservation_open(),
            entry,
        }));
        Ok(())
    }

    /// By what a prompt is judged: strictly, while operators say so.
    fn judge(&self, ctx: &Ctx, grant: &Grant) -> Judge {
        let clock = self.state.clock();
        let tightened = self.state.is_tightened(clock.unix_ms());
        ctx.snapshot.judge(grant.identity(), grant.route(), tightened, clock.unix_secs())
    }

    /// A request without a body: a list of models, or one of them.
    async fn prepare_read(
        &self,
        ctx: &mut Ctx,
        operation: &'static Operation,
        identity: &Arc<Identity>,
        address: IpAddr,
        model: Option<String>,
    ) -> Result<(), Denial> {
        let grant = authz::grant_read(&ctx.snapshot, identity, operation, model.as_deref())?;
        note_grant(ctx, &grant);
        let path = operation.path.replace("{model}", grant.model());
        let reservation = self.reserve(ctx, identity, address, Wish::read(&grant)).await?;
        let entry = self.state.exchanges.enter(identity.proof(), &self.state.directory)?;
        ctx.stage = Stage::Cleared(Box::new(Exchange {
            grant,
            reservation,
            cleared: None,
            path,
            streams: false,
            strip_usage: false,
            answers: 0,
            echoes: false,
            prompt_estimate: PromptEstimate::default(),
            attempts: 0,
            sent: 0,
            watch: None,
            turn: None,
            ended: None,
            tokenizer: Tokenizer::default(),
            _held: Held::default(),
            _counted: self.state.metrics.reservation_open(),
            entry,
        }));
        Ok(())
    }
}

/// `Host` on HTTP/1, the authority on HTTP/2.
fn host(request: &RequestHeader) -> Option<&[u8]> {
    let header = request.headers.get(http::header::HOST).map(http::HeaderValue::as_bytes);
    header.or_else(|| request.uri.authority().map(|authority| authority.as_str().as_bytes()))
}

/// SHA-256 of the client's certificate. The listener has verified the chain of one that is shown.
fn certificate(session: &Session) -> Option<[u8; 32]> {
    let tls = session.as_downstream().digest()?.ssl_digest.as_ref()?;
    tls.cert_digest.as_slice().try_into().ok()
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

/// Scans a prompt by the policy of its caller and route.
async fn clear(ctx: &mut Ctx, judge: Judge, prompt: Prompt) -> Result<Cleared, Denial> {
    ctx.trace.policy = Some(Arc::clone(&judge.policy.name));
    let outcome = clear::clear(judge, prompt).await;
    if let Some(given) = &outcome.given {
        ctx.reconsidered(given);
    }
    ctx.trace.sanitized = outcome.sanitized;
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
