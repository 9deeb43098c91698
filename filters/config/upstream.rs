//! The inference servers, and which request goes to which.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use serde::{Deserialize, Serialize};

use super::quota;
use super::secret::SecretRef;
use super::units;
use super::url;

/// An inference server, or several that are alike.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// The API it speaks.
    pub kind: UpstreamKind,
    /// Where it is.
    pub url: Option<Endpoint>,
    /// Instead of `url`, several places: a connection that fails is tried on the next.
    pub urls: Vec<Endpoint>,
    /// Sent to it as `Authorization: Bearer`.
    pub api_key: Option<SecretRef>,
    /// PEM of the CA that signed its certificate, instead of the public roots.
    pub ca_file: Option<PathBuf>,
    /// The parameter by which it obeys a cap on generated tokens in chat completions:
    /// `max_tokens` or `max_completion_tokens`.
    pub max_tokens_param: String,
    /// Exact spellings of its model names; needed only for names with capitals.
    pub models: Vec<String>,
    /// Time to connect, TLS included.
    #[serde(with = "units::word")]
    pub connect_timeout: Duration,
    /// Time until the answer starts, and between any two reads of it.
    #[serde(with = "units::word")]
    pub first_byte_timeout: Duration,
    /// Time for each write of the request.
    #[serde(with = "units::word")]
    pub write_timeout: Duration,
    /// How long a pooled connection stays open.
    #[serde(with = "units::word")]
    pub idle_timeout: Duration,
    /// GPU-seconds charged per second of wall time, where it reports no durations.
    pub gpus: f64,
    /// A `tokenizer.json` that counts the tokens of its models where it does not report them.
    pub tokenizer: Option<PathBuf>,
    /// Whether the time that Ollama takes to load a model is charged as GPU time.
    pub count_load: bool,
    /// Requests that it works on at one time; the others wait in `queue`. None is no limit.
    pub concurrent: Option<u32>,
    /// Who waits for it, and for how long.
    pub queue: Queue,
}

impl Upstream {
    /// Where it is, in the order in which the places are tried.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.url.iter().chain(&self.urls)
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            kind: UpstreamKind::Ollama,
            url: None,
            urls: Vec::new(),
            api_key: None,
            ca_file: None,
            max_tokens_param: "max_tokens".to_owned(),
            models: Vec::new(),
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(120),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            gpus: 1.0,
            tokenizer: None,
            count_load: false,
            concurrent: None,
            queue: Queue::default(),
        }
    }
}

/// Who waits for an upstream that works on as many requests as it may. Users take turns, by the
/// weights of their roles.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Requests that wait at one time.
    pub waiting: usize,
    /// Of these, requests of one user.
    pub per_user: usize,
    /// How long a request waits before it is refused.
    #[serde(with = "units::word")]
    pub deadline: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self { waiting: 128, per_user: 32, deadline: Duration::from_secs(30) }
    }
}

/// The API that an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamKind {
    /// Ollama: `/api/…`, and `/v1/…` as OpenAI does.
    Ollama,
    /// OpenAI or compatible: `/v1/…`.
    Openai,
}

/// The place of an upstream: a URL without credentials, which are the gateway's to set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    /// Whether to connect with TLS.
    pub tls: bool,
    /// A host name or an IP address; IPv6 without brackets.
    pub host: String,
    /// The port; never 0.
    pub port: u16,
    /// What stands before the path of each request, without a last slash; usually nothing.
    pub base_path: String,
}

impl TryFrom<String> for Endpoint {
    type Error = String;

    /// # Errors
    /// What is wrong, and on a second line how to write it. Does not repeat the URL, which may
    /// hold a password.
    fn try_from(text: String) -> Result<Self, String> {
        endpoint(&text).map_err(|wrong| {
            format!("{wrong}\nwrite scheme, host and port: http://127.0.0.1:11434")
        })
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tls, host, port, base_path } = self;
        let scheme = if *tls { "https" } else { "http" };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}{base_path}")
        } else {
            write!(f, "{scheme}://{host}:{port}{base_path}")
        }
    }
}

/// Refuses every part of a URL (RFC 3986 section 3) that has no meaning here.
fn endpoint(text: &str) -> Result<Endpoint, &'static str> {
    if text.contains('#') {
        return Err("the URL of an upstream has no fragment");
    }
    let uri: Uri = text.parse().map_err(|_| "this is not a URL")?;
    let tls = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => false,
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(_) | None => return Err("the URL of an upstream starts with http:// or https://"),
    };
    let authority = uri.authority().ok_or("this URL has no host")?;
    if authority.as_str().contains('@') {
        return Err("the URL of an upstream holds no user or password; its key is `api_key`");
    }
    if uri.query().is_some() {
        return Err("the URL of an upstream has no query");
    }
    let (host, port) = url::host_and_port(authority)?;
    let port = port.unwrap_or(if tls { 443 } else { 80 });
    Ok(Endpoint { tls, host, port, base_path: base_path(uri.path())? })
}

/// Every request keeps its own path, so one that is in the URL too would be there twice.
fn base_path(path: &str) -> Result<String, &'static str> {
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.ends_with("/v1") || path.ends_with("/api") {
        return Err("each request keeps its own /v1 or /api, the URL of an upstream has none");
    }
    let plain = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
            && part.bytes().any(|byte| byte != b'.')
    };
    if path.split('/').skip(1).all(plain) {
        Ok(path.to_owned())
    } else {
        Err("the path of this URL is not plain")
    }
}

/// Sends matching requests to an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Which requests.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// The name of the upstream.
    pub upstream: String,
    /// The name of the firewall policy.
    #[serde(default = "quota::default_name")]
    pub policy: String,
    /// Bytes of a request body, instead of the listener's limit.
    #[serde(default, with = "units::optional")]
    pub max_body_bytes: Option<u64>,
}

/// Which requests a route takes; all that is given must match.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// What the path starts with.
    pub path: String,
    /// Pattern of the model, see [`crate::glob`]; none takes every request, with or without one.
    pub model: Option<String>,
}

impl Default for Match {
    fn default() -> Self {
        Self { path: "/".to_owned(), model: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (text, expected) in [
            ("http://127.0.0.1:11434", Ok("http://127.0.0.1:11434")),
            ("https://api.openai.com/", Ok("https://api.openai.com:443")),
            ("HTTP://Ollama", Ok("http://ollama:80")),
            ("http://[::1]:80", Ok("http://[::1]:80")),
            ("ftp://host", Err("starts with http:// or https://")),
            ("localhost:11434", Err("starts with http:// or https://")),
            ("/path", Err("starts with http:// or https://")),
            ("http://", Err("not a URL")),
            ("http://:80", Err("no valid host")),
            ("http://host:0", Err("from 1 to 65535")),
            ("http://host:65536", Err("from 1 to 65535")),
            ("http://host:", Err("from 1 to 65535")),
            ("http://host:+80", Err("from 1 to 65535")),
            ("http://user:pw@host", Err("no user or password")),
            ("http://host/gpu/a/", Ok("http://host:80/gpu/a")),
            ("https://api.openai.com/v1", Err("keeps its own /v1 or /api")),
            ("http://host/x/api/", Err("keeps its own /v1 or /api")),
            ("http://host/a/../b", Err("not plain")),
            ("http://host//", Err("not plain")),
            ("http://host/%2e", Err("not plain")),
            ("http://host/?a=b", Err("no query")),
            ("http://host#top", Err("no fragment")),
            ("http://ho st", Err("not a URL")),
            ("", Err("not a URL")),
        ] {
            let found = Endpoint::try_from(text.to_owned()).map(String::from);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
