//! Portcullis in somebody's own Pingora proxy: `cargo run --example embed -- portcullis.yaml`. Each
//! hook calls the gate's method of the same name; what is yours goes before, after, or instead.

use std::{error::Error, path::Path, sync::Arc};

use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::prelude::{HttpPeer, ProxyHttp, Result, Server, Session, http_proxy_service};
use pingora::proxy::FailToProxy;
use portcullis::{api::Api, boot};
use portcullis_filters::{Ctx, Gate, ListenerPolicy, clock::Clock, surface::Listener};

struct MyProxy(Gate);

type Failure = Box<pingora::Error>;

#[rustfmt::skip] // a table: one hook a row
#[async_trait::async_trait]
impl ProxyHttp for MyProxy {
    type CTX = Ctx;
    fn new_ctx(&self) -> Ctx { self.0.new_ctx() }
    fn init_downstream_modules(&self, modules: &mut HttpModules) { Gate::init_downstream_modules(modules); }
    async fn early_request_filter(&self, s: &mut Session, c: &mut Ctx) -> Result<()> { self.0.early_request_filter(s, c); Ok(()) }
    async fn request_filter(&self, s: &mut Session, c: &mut Ctx) -> Result<bool> { self.0.request_filter(s, c).await }
    async fn upstream_peer(&self, _: &mut Session, c: &mut Ctx) -> Result<Box<HttpPeer>> { self.0.upstream_peer(c).await }
    fn fail_to_connect(&self, _: &mut Session, _: &HttpPeer, c: &mut Ctx, e: Failure) -> Failure { self.0.fail_to_connect(c, e) }
    async fn upstream_request_filter(&self, _: &mut Session, r: &mut RequestHeader, c: &mut Ctx) -> Result<()> { self.0.upstream_request_filter(r, c) }
    async fn request_body_filter(&self, _: &mut Session, b: &mut Option<Bytes>, end: bool, c: &mut Ctx) -> Result<()> { self.0.request_body_filter(b, end, c); Ok(()) }
    async fn response_filter(&self, s: &mut Session, r: &mut ResponseHeader, c: &mut Ctx) -> Result<()> { self.0.response_filter(s, r, c)?; r.insert_header("via", "1.1 my-proxy") }
    fn response_body_filter(&self, _: &mut Session, b: &mut Option<Bytes>, end: bool, c: &mut Ctx) -> Result<Option<std::time::Duration>> { self.0.response_body_filter(b, end, c)?; Ok(None) }
    async fn response_trailer_filter(&self, _: &mut Session, _: &mut http::HeaderMap, c: &mut Ctx) -> Result<Option<Bytes>> { self.0.response_trailer_filter(c) }
    fn error_while_proxy(&self, _: &HttpPeer, _: &mut Session, e: Failure, c: &mut Ctx, reused: bool) -> Failure { self.0.error_while_proxy(c, e, reused) }
    async fn fail_to_proxy(&self, s: &mut Session, e: &pingora::Error, c: &mut Ctx) -> FailToProxy { self.0.fail_to_proxy(s, e, c).await }
    async fn logging(&self, _: &mut Session, e: Option<&pingora::Error>, c: &mut Ctx) { self.0.logging(e, c); }
}

/// The proxy on the first address of a configuration.
pub(crate) fn server(config: &Path) -> Result<Server, Box<dyn Error>> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let clock = Clock::system();
    let loaded = boot::load(config, &clock)?;
    let mine = loaded.config.listeners.first().ok_or("there is no listener")?.clone();
    let max_header_bytes = usize::try_from(mine.limits.max_header_bytes)?;
    let (max_body_bytes, body_timeout) = (mine.limits.max_body_bytes, mine.limits.body_timeout);
    let (listener, hsts) = (Listener::Public, false);
    let policy = ListenerPolicy { listener, max_header_bytes, max_body_bytes, body_timeout, hsts };
    let gate = Gate::new(boot::state(loaded, clock)?, policy, Arc::new(Api::default()));
    let mut server = Server::new(None)?;
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, MyProxy(gate));
    service.add_tcp(&mine.address.to_string());
    server.add_service(service);
    Ok(server)
}

fn main() -> Result<(), Box<dyn Error>> {
    server(std::env::args().nth(1).ok_or("usage: embed CONFIG")?.as_ref())?.run_forever()
}
