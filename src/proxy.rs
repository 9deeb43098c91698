//! Pingora's hooks, handed to the gate one by one. Nothing is decided here.

use std::any::Any;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};
use portcullis_filters::{Ctx, Gate};
use std::time::Duration;

/// A proxy that does what its gate says.
#[derive(Debug)]
pub struct Proxy {
    gate: Gate,
}

impl Proxy {
    /// A proxy behind this gate.
    #[must_use]
    pub const fn new(gate: Gate) -> Self {
        Self { gate }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        self.gate.new_ctx()
    }

    fn init_downstream_modules(&self, modules: &mut HttpModules) {
        Gate::init_downstream_modules(modules);
    }

    fn on_connection_reuse(
        &self,
        _: &mut Session,
        _: &mut Ctx,
        context: Box<dyn Any + Send + Sync>,
    ) {
        self.gate.on_connection_reuse(context);
    }

    fn persist_connection_context(
        &self,
        _: &Session,
        _: &Ctx,
    ) -> Option<Box<dyn Any + Send + Sync>> {
        Some(self.gate.persist_connection_context())
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        self.gate.early_request_filter(session, ctx);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        self.gate.request_filter(session, ctx).await
    }

    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        self.gate.upstream_peer(ctx).await
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        ctx: &mut Ctx,
        error: Box<Error>,
    ) -> Box<Error> {
        self.gate.fail_to_connect(ctx, error)
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        self.gate.upstream_request_filter(request, ctx)
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        chunk: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        self.gate.request_body_filter(chunk, end, ctx);
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        self.gate.response_filter(session, response, ctx)
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        chunk: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        self.gate.response_body_filter(chunk, end, ctx).map(|()| None)
    }

    async fn response_trailer_filter(
        &self,
        _: &mut Session,
        _: &mut http::HeaderMap,
        ctx: &mut Ctx,
    ) -> Result<Option<Bytes>> {
        self.gate.response_trailer_filter(ctx)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        _: &mut Session,
        error: Box<Error>,
        ctx: &mut Ctx,
        client_reused: bool,
    ) -> Box<Error> {
        self.gate.error_while_proxy(ctx, error, client_reused)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Ctx,
    ) -> FailToProxy {
        self.gate.fail_to_proxy(session, error, ctx).await
    }

    async fn logging(&self, _: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        self.gate.logging(error, ctx);
    }

    /// What Pingora's own log lines say of a request: no path, which may hold what a caller typed.
    fn request_summary(&self, _: &Session, ctx: &Ctx) -> String {
        format!("request {}", ctx.request_id())
    }
}
