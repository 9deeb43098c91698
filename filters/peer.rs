//! Pingora's view of an upstream: address, TLS and timeouts of one try.

use std::net::SocketAddr;
use std::sync::Arc;

use pingora::protocols::ALPN;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora::utils::tls::WrappedX509;

use crate::route::{Endpoint, Upstream};
use crate::verdict::{Denial, Reason};

/// Resolves an endpoint and sets everything that Pingora leaves unlimited.
///
/// # Errors
/// [`Reason::UpstreamUnavailable`] if the name does not resolve.
pub(crate) async fn peer(upstream: &Upstream, endpoint: &Endpoint) -> Result<HttpPeer, Denial> {
    let address = resolve(upstream, endpoint).await?;
    let mut peer = HttpPeer::new(address, endpoint.tls, endpoint.host.clone());
    let options = &mut peer.options;
    options.connection_timeout = Some(upstream.timeouts.connect);
    options.total_connection_timeout = Some(upstream.timeouts.connect);
    options.read_timeout = Some(upstream.timeouts.first_byte);
    options.write_timeout = Some(upstream.timeouts.write);
    options.idle_timeout = Some(upstream.timeouts.idle);
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
    if endpoint.tls {
        options.alpn = ALPN::H2H1;
        options.ca = upstream.ca.as_deref().map(authorities);
    }
    Ok(peer)
}

async fn resolve(upstream: &Upstream, endpoint: &Endpoint) -> Result<SocketAddr, Denial> {
    if let Ok(ip) = endpoint.host.parse() {
        return Ok(SocketAddr::new(ip, endpoint.port));
    }
    let lookup = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port));
    let found = tokio::time::timeout(upstream.timeouts.connect, lookup).await;
    found.ok().and_then(Result::ok).and_then(|mut found| found.next()).ok_or_else(|| {
        Denial::new(Reason::UpstreamUnavailable, "the upstream cannot be reached")
            .detail(format!("{} does not resolve", endpoint.host))
    })
}

fn authorities(ders: &[Vec<u8>]) -> Arc<[WrappedX509]> {
    let readable = ders.iter().filter(|der| x509_parser::parse_x509_certificate(der).is_ok());
    readable.map(|der| WrappedX509::new(der.clone(), parse)).collect()
}

#[expect(clippy::expect_used, reason = "only what parsed a moment ago is passed in")]
#[expect(clippy::ptr_arg, reason = "the type that WrappedX509 asks for")]
fn parse(der: &Vec<u8>) -> x509_parser::certificate::X509Certificate<'_> {
    x509_parser::parse_x509_certificate(der).expect("checked before").1
}
