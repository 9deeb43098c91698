//! Asks a server what it is and which models it has, before a gateway is put in front of it.

use std::time::Duration;

use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use portcullis_filters::config::{Endpoint, UpstreamKind};
use serde_json::Value;

/// A server that is not up answers within this time or not at all.
const PATIENCE: Duration = Duration::from_secs(3);
/// What is read of a list of models.
const MAX_BODY: usize = 4 << 20;

/// A server that answered.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) kind: UpstreamKind,
    pub(crate) models: Vec<String>,
}

/// Asks an endpoint; `None` if nothing that is known answers.
pub(crate) async fn ask(endpoint: &Endpoint) -> Option<Found> {
    if let Some(tags) = get(endpoint, "/api/tags").await {
        return Some(Found { kind: UpstreamKind::Ollama, models: names(&tags, "models", "name") });
    }
    let list = get(endpoint, "/v1/models").await?;
    Some(Found { kind: UpstreamKind::Openai, models: names(&list, "data", "id") })
}

fn names(value: &Value, list: &str, key: &str) -> Vec<String> {
    let entries = value.get(list).and_then(Value::as_array).into_iter().flatten();
    entries.filter_map(|entry| entry.get(key)?.as_str().map(str::to_owned)).collect()
}

async fn get(endpoint: &Endpoint, path: &str) -> Option<Value> {
    tokio::time::timeout(PATIENCE, fetch(endpoint, path)).await.ok().flatten()
}

async fn fetch(endpoint: &Endpoint, path: &str) -> Option<Value> {
    let mut found = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await.ok()?;
    let mut peer = HttpPeer::new(found.next()?, endpoint.tls, endpoint.host.clone());
    peer.options.connection_timeout = Some(PATIENCE);
    peer.options.read_timeout = Some(PATIENCE);
    let (mut session, _) = Connector::new(None).get_http_session(&peer).await.ok()?;
    let mut request = RequestHeader::build("GET", path.as_bytes(), None).ok()?;
    request.insert_header("host", format!("{}:{}", endpoint.host, endpoint.port)).ok()?;
    session.write_request_header(Box::new(request)).await.ok()?;
    session.finish_request_body().await.ok()?;
    session.read_response_header().await.ok()?;
    if session.response_header()?.status != 200 {
        return None;
    }
    let mut body = Vec::new();
    while let Some(chunk) = session.read_response_body().await.ok()? {
        if body.len() + chunk.len() > MAX_BODY {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).ok()
}
