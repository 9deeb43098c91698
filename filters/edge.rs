//! Admit: what a connection and a request head must look like before anything else is looked at.
//!
//! [`Edge`] wraps Pingora's proxy where it has no limits of its own: connections, the time for a
//! request head (Pingora's is per read, so a byte a second holds a connection for ever), and
//! requests that do not parse, which Pingora answers before any filter runs.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, FORWARDED, HOST, TRANSFER_ENCODING, UPGRADE};
use ipnet::IpNet;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::server::ShutdownWatch;

use crate::cut;
use crate::metrics::Metrics;
use crate::verdict::{Denial, Reason};

/// The parts of a request head that admission looks at.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    /// The target as it was sent.
    pub(crate) raw_target: &'a [u8],
    /// `Host`, or the authority of HTTP/2.
    pub(crate) host: Option<&'a [u8]>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) http2: bool,
    /// Whether the server will keep the HTTP/1 connection open after this request.
    pub(crate) keep_alive: bool,
    pub(crate) peer: Option<SocketAddr>,
}

/// A request whose head is acceptable.
#[derive(Debug)]
pub(crate) struct Admitted {
    client: IpAddr,
}

impl Admitted {
    /// The address that the request counts against.
    pub(crate) const fn client(&self) -> IpAddr {
        self.client
    }
}

/// Checks a request head.
///
/// # Errors
/// [`Reason::InvalidRequest`] for framing that another server could read differently
/// (RFC 9112 sections 3.2, 6.1 and 11.2), for a head over the limit, and for protocol switches.
pub(crate) fn admit(
    head: &Head<'_>,
    max_bytes: usize,
    trusted: &[IpNet],
) -> Result<Admitted, Denial> {
    if head_size(head) > max_bytes {
        return Err(refused("the request head is too large").closing());
    }
    framing(head)?;
    if head.headers.contains_key(UPGRADE) {
        return Err(refused("protocol upgrades are not offered"));
    }
    Ok(Admitted { client: client_address(head, trusted) })
}

/// Refuses query strings: no operation takes parameters there, and credentials do not belong into
/// one (RFC 9700 section 4.3.2).
///
/// # Errors
/// [`Reason::InvalidRequest`]
pub(crate) fn check_query(query: Option<&str>) -> Result<(), Denial> {
    match query {
        None => Ok(()),
        Some(_) => Err(refused("query parameters are not accepted; credentials go into headers")),
    }
}

/// Checks the media type and the coding of a request that has a body.
///
/// # Errors
/// [`Reason::UnsupportedMediaType`] for anything but uncompressed `application/json` in UTF-8: a
/// scanner that reads another text than the upstream is bypassed.
pub(crate) fn check_media_type(headers: &HeaderMap) -> Result<(), Denial> {
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Denial::new(
            Reason::UnsupportedMediaType,
            "compressed bodies are not accepted",
        ));
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let accepted = types.next().and_then(|v| v.to_str().ok()).is_some_and(is_json_utf8);
    if !accepted || types.next().is_some() {
        return Err(Denial::new(
            Reason::UnsupportedMediaType,
            "the body must be application/json in UTF-8",
        ));
    }
    Ok(())
}

fn is_json_utf8(value: &str) -> bool {
    let mut parts = value.split(';').map(str::trim);
    let json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    let charset = |part: &str| {
        let lower = part.to_ascii_lowercase();
        matches!(lower.as_str(), "charset=utf-8" | "charset=\"utf-8\"" | "charset=utf8")
    };
    json && parts.all(charset)
}

fn head_size(head: &Head<'_>) -> usize {
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    head.path.len() + head.query.map_or(0, str::len) + fields.sum::<usize>()
}

fn framing(head: &Head<'_>) -> Result<(), Denial> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if head.http2 || !chunked || codings.next().is_some() {
            return Err(refused("this transfer coding is not accepted").closing());
        }
        // Pingora drops Content-Length beside Transfer-Encoding before any filter runs, and turns
        // keep-alive off: that is what is left to see of the pair.
        if !head.keep_alive && !asks_to_close(head.headers) {
            return Err(refused("both Content-Length and Transfer-Encoding").closing());
        }
    }
    if !head.http2 && head.headers.get_all(HOST).iter().count() != 1 {
        return Err(refused("exactly one Host header is needed").closing());
    }
    if !head.host.is_some_and(is_host) {
        return Err(refused("the Host is not a host name").closing());
    }
    target(head)
}

/// A target that Pingora could not read stands as `/` in the parsed head: only one that is what was
/// sent is looked at.
fn target(head: &Head<'_>) -> Result<(), Denial> {
    let parsed = head.path.len() + head.query.map_or(0, |query| query.len() + 1);
    let absolute =
        head.raw_target.starts_with(b"http://") || head.raw_target.starts_with(b"https://");
    if head.raw_target.len() == parsed || absolute {
        return Ok(());
    }
    Err(refused("the request target is not a path").closing())
}

/// A host name or address, and perhaps a port (RFC 3986 section 3.2.2, without what nobody uses).
fn is_host(host: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(b);
    !host.is_empty() && host.iter().all(plain)
}

fn asks_to_close(headers: &HeaderMap) -> bool {
    headers.get_all(http::header::CONNECTION).iter().any(|value| {
        let value = value.as_bytes();
        value.split(|b| *b == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
    })
}

/// The peer's address or, behind trusted proxies, the last one in `X-Forwarded-For` that no trusted
/// proxy reported of itself. What an untrusted peer sends is ignored.
fn client_address(head: &Head<'_>, trusted: &[IpNet]) -> IpAddr {
    let peer = head.peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip().to_canonical());
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
    if !is_trusted(&peer) || head.headers.contains_key(FORWARDED) {
        return peer;
    }
    let forwarded = head.headers.get_all("x-forwarded-for").iter();
    let mut hops: Vec<&str> =
        forwarded.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).collect();
    while let Some(hop) = hops.pop() {
        match hop.trim().parse::<IpAddr>() {
            Ok(ip) if !is_trusted(&ip.to_canonical()) => return ip.to_canonical(),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    peer
}

fn refused(message: &'static str) -> Denial {
    Denial::new(Reason::InvalidRequest, message)
}

/// Limits of a listener's connections.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct ConnectionLimits {
    /// Open connections; over it new ones are closed at once.
    pub max_connections: usize,
    /// Time to send a complete head; also how long an idle connection is kept.
    pub header_timeout: Duration,
}

/// Set once the head of a connection's request has been parsed; see [`Edge`].
pub type HeadSeen = Arc<AtomicBool>;

/// A Pingora HTTP application with a connection cap and a deadline for request heads.
#[derive(Debug)]
pub struct Edge<A> {
    inner: Arc<A>,
    limits: ConnectionLimits,
    live: AtomicUsize,
    options: HttpServerOptions,
    metrics: Arc<Metrics>,
}

impl<A> Edge<A> {
    /// Wraps an application, usually Pingora's `HttpProxy`.
    pub fn new(inner: Arc<A>, limits: ConnectionLimits, metrics: Arc<Metrics>) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(limits.header_timeout);
        Self { inner, limits, live: AtomicUsize::new(0), options, metrics }
    }
}

struct Open<'a>(&'a AtomicUsize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Edge<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let open = self.live.fetch_add(1, Ordering::Relaxed) + 1;
        let _open = Open(&self.live);
        if open > self.limits.max_connections {
            self.metrics.connection_refused();
            return None;
        }
        // On HTTP/2 this is one stream, and its head is complete.
        if session.is_http2() {
            return cut::serve(self.inner.process_new_http(session, shutdown)).await;
        }
        let used_before = session.take_connection_user_context().is_some();
        let seen = HeadSeen::default();
        session.set_connection_user_context(Some(Box::new(Arc::clone(&seen))));
        let handled = cut::serve(self.inner.process_new_http(session, shutdown));
        tokio::pin!(handled);
        let reused = tokio::select! {
            reused = &mut handled => reused,
            () = tokio::time::sleep(self.limits.header_timeout) => {
                if !seen.load(Ordering::Relaxed) {
                    return None;
                }
                handled.await
            }
        };
        if !used_before && !seen.load(Ordering::Relaxed) {
            // Closed before a head was complete, or answered by Pingora because it did not parse. A
            // connection that was used before may just have ended.
            self.metrics.request_unparsed();
        }
        reused
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.inner.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    async fn http_cleanup(&self) {
        self.inner.http_cleanup().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&str, &str)], keep_alive: bool, expected: Option<u16>) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        let head = Head {
            path: "/v1/chat/completions",
            query: None,
            raw_target: b"/v1/chat/completions",
            host: headers.get(HOST).map(|value| value.as_bytes()),
            headers: &headers,
            http2: false,
            keep_alive,
            peer: None,
        };
        let status = admit(&head, 1024, &[]).err().map(|denial| denial.status());
        assert_eq!(status, expected, "{pairs:?}");
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        let te = ("transfer-encoding", "chunked");
        check(&[("host", "x")], true, None);
        check(&[("host", "x"), te], true, None);
        check(&[("host", "x"), te, ("connection", "close")], false, None);
        check(&[("host", "x"), te], false, Some(400));
        check(&[("host", "x"), te, te], true, Some(400));
        check(&[("host", "x"), ("transfer-encoding", "gzip, chunked")], true, Some(400));
        check(&[], true, Some(400));
        check(&[("host", "x"), ("host", "y")], true, Some(400));
        check(&[("host", "x"), ("upgrade", "websocket")], true, Some(400));
        check(&[("host", "x"), ("x", &"a".repeat(2000))], true, Some(400));
        for host in ["", "a/../b", "u@h", "a b", "a?b", "a#b", "é"] {
            check(&[("host", host)], true, Some(400));
        }
        for host in ["localhost", "127.0.0.1:8080", "[::1]:80", "my_host.example"] {
            check(&[("host", host)], true, None);
        }
    }

    #[test]
    fn only_plain_json_is_a_media_type() {
        for (value, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json;charset=\"utf-8\"", true),
            ("text/plain", false),
            ("application/json; charset=utf-7", false),
            ("application/json, text/plain", false),
            ("application/jsonp", false),
            ("", false),
            ("application/json; x=y", false),
        ] {
            assert_eq!(is_json_utf8(value), expected, "{value}");
        }
    }

    #[test]
    fn forwarded_addresses_are_believed_only_of_trusted_peers() {
        for (peer, forwarded, trusted, expected) in [
            ("192.0.2.9:1", "203.0.113.5", "", "192.0.2.9"),
            ("10.0.0.1:1", "203.0.113.5", "10.0.0.0/8", "203.0.113.5"),
            ("10.0.0.1:1", "198.51.100.1, 203.0.113.5, 10.0.0.7", "10.0.0.0/8", "203.0.113.5"),
            ("10.0.0.1:1", "garbage", "10.0.0.0/8", "10.0.0.1"),
            ("[::ffff:10.0.0.1]:1", "203.0.113.5", "10.0.0.0/8", "203.0.113.5"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", forwarded.parse().unwrap());
            let head = Head {
                path: "/",
                query: None,
                raw_target: b"/",
                host: None,
                headers: &headers,
                http2: true,
                keep_alive: true,
                peer: peer.parse().ok(),
            };
            let nets: Vec<IpNet> = trusted.parse().into_iter().collect();
            assert_eq!(client_address(&head, &nets).to_string(), expected, "{peer} {forwarded}");
        }
    }
}
