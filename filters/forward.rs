//! Forward: the head that the upstream sees is built anew, from what the gateway knows.
//!
//! Nothing of the client's head is copied, so credentials, cookies, forwarding headers, method
//! overrides and whatever comes next cannot leak: there is no list of headers to strip that could
//! be incomplete.

use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::route::{Endpoint, Upstream};

/// The request id, the same in the answer, the audit record and the upstream's log.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a head is made of.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) upstream: &'a Upstream,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) request_id: &'a str,
    /// Length of the body; `None` for a request without one.
    pub(crate) body: Option<usize>,
    pub(crate) streams: bool,
}

/// The header fields of a request to an upstream.
pub(crate) fn headers(outgoing: &Outgoing<'_>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    if let Ok(host) = HeaderValue::try_from(outgoing.endpoint.authority()) {
        headers.insert(HOST, host);
    }
    headers.insert(USER_AGENT, HeaderValue::from_static("portcullis"));
    let accept = if outgoing.streams { "text/event-stream, application/json" } else { "*/*" };
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    // What cannot be read cannot be watched.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(length) = outgoing.body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(credential) = &outgoing.upstream.credential {
        headers.insert(AUTHORIZATION, credential.clone());
    }
    if let Ok(id) = HeaderValue::try_from(outgoing.request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers
}

/// The path at the upstream. The configuration refuses a base that would double what every path
/// begins with, such as `/v1`.
pub(crate) fn path(endpoint: &Endpoint, operation_path: &str) -> String {
    format!("{}{operation_path}", endpoint.base_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_path_is_prepended() {
        for (base, path_, expected) in [
            ("", "/v1/models", "/v1/models"),
            ("/openai", "/v1/models", "/openai/v1/models"),
            ("/ollama", "/api/chat", "/ollama/api/chat"),
        ] {
            let endpoint =
                Endpoint { tls: false, host: "h".into(), port: 80, base_path: base.into() };
            assert_eq!(path(&endpoint, path_), expected);
        }
    }
}
