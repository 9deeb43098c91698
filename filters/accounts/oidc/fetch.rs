//! The fetching of keys: over TLS, bounded in time and size, and never led elsewhere.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Response, Url};
use rustls::crypto::{CryptoProvider, ring};

/// Longest answer that is read, in bytes.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_REDIRECTS: usize = 3;

/// Gets a document. The keys of the issuers come through this.
#[async_trait]
pub trait Fetch: Send + Sync + fmt::Debug {
    /// Gets the document at a URL.
    ///
    /// # Errors
    /// [`FetchError`] if there is no whole and good answer.
    async fn get(&self, url: &str) -> Result<Fetched, FetchError>;
}

/// A document.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "every `Fetch` makes them whole")]
pub struct Fetched {
    /// The document.
    pub body: Bytes,
    /// How long it may be kept (`max-age`, RFC 9111 section 5.2.2.1), if that was said.
    pub max_age: Option<Duration>,
}

/// Why a document was not got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchError(Cow<'static, str>);

impl FetchError {
    /// An error with a text for operators.
    #[must_use]
    pub fn new(why: impl Into<Cow<'static, str>>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FetchError {}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::new(text)
    }
}

/// Gets documents over HTTP: `https` with the roots of the machine (or `SSL_CERT_FILE`), plain
/// `http` from loopback only, in five seconds, up to 256 KiB, through no proxy, and with redirects
/// on the same origin only.
#[derive(Clone, Debug)]
pub struct HttpFetch(Client);

impl HttpFetch {
    /// Makes a client; if the process has no default provider of cryptography, ring becomes it.
    ///
    /// # Errors
    /// [`FetchError`] if the machine has no roots of trust.
    pub fn new() -> Result<Self, FetchError> {
        Self::with_timeout(TIMEOUT)
    }

    /// Idle connections are not kept: they would belong to the runtime of one caller.
    fn with_timeout(timeout: Duration) -> Result<Self, FetchError> {
        if CryptoProvider::get_default().is_none() {
            drop(ring::default_provider().install_default());
        }
        let client = Client::builder()
            .timeout(timeout)
            .redirect(Policy::custom(|attempt| match stays(&attempt) {
                true => attempt.follow(),
                false => attempt.error("a redirect to another origin, or too many"),
            }))
            .pool_max_idle_per_host(0)
            .referer(false)
            .no_proxy();
        Ok(Self(client.build()?))
    }
}

#[async_trait]
impl Fetch for HttpFetch {
    async fn get(&self, url: &str) -> Result<Fetched, FetchError> {
        if !is_safe_url(url) {
            return Err(FetchError::new("neither https nor on loopback"));
        }
        let answer = self.0.get(url).header(header::ACCEPT, "application/json").send().await?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::new(format!("status {}", answer.status().as_u16())));
        }
        let max_age = max_age(answer.headers());
        Ok(Fetched { body: read(answer).await?, max_age })
    }
}

/// Whether documents may be fetched from there: `https`, or `http` on this machine, without user
/// information.
pub(super) fn is_safe_url(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| {
        let secure = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
        secure && url.host_str().is_some() && url.username().is_empty() && url.password().is_none()
    })
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let v6 = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback())
        || v6.parse().is_ok_and(|ip: Ipv6Addr| ip.is_loopback())
}

fn stays(attempt: &Attempt<'_>) -> bool {
    let few = attempt.previous().len() <= MAX_REDIRECTS;
    let from = attempt.previous().first().map(Url::origin);
    few && from.is_some_and(|from| from == attempt.url().origin())
}

async fn read(mut answer: Response) -> Result<Bytes, FetchError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len().saturating_add(chunk.len()) > MAX_BODY_BYTES {
            return Err(FetchError::new("the answer is too long"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// `no-store` and `no-cache` say no time at all.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok());
    let directives = values.flat_map(|value| value.split(',')).map(str::trim);
    directives.filter_map(age).min()
}

fn age(directive: &str) -> Option<Duration> {
    let directive = directive.to_ascii_lowercase();
    match directive.split_once('=') {
        Some(("max-age", seconds)) => {
            seconds.trim_matches('"').parse().ok().map(Duration::from_secs)
        }
        None if directive == "no-store" || directive == "no-cache" => Some(Duration::ZERO),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Serves `answer` for every path but those that a case names, and says where.
    async fn server(answer: impl Fn(&str) -> String + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let len = stream.read(&mut request).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&request[..len]).into_owned();
                let path = text.split(' ').nth(1).unwrap_or_default();
                drop(stream.write_all(answer(path).as_bytes()).await);
            }
        });
        base
    }

    fn http(status: &str, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n{body}")
    }

    async fn get(url: &str) -> Result<Fetched, String> {
        let fetch = HttpFetch::with_timeout(Duration::from_millis(500)).unwrap();
        fetch.get(url).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_document_is_got_with_its_age() {
        let base =
            server(|path| http("200 OK", "cache-control: public, max-age=77\r\n", path)).await;
        let fetched = get(&format!("{base}/keys")).await.unwrap();
        assert_eq!(fetched.body, "/keys");
        assert_eq!(fetched.max_age, Some(Duration::from_secs(77)));
        assert!(HttpFetch::new().unwrap().get(&base).await.is_ok());
    }

    #[tokio::test]
    async fn answers_that_are_not_whole_and_good_are_errors() {
        let base = server(|path| match path {
            "/404" => http("404 Not Found", "", "{}"),
            "/204" => http("204 No Content", "", ""),
            "/cut" => http("200 OK", "content-length: 100\r\n", "{}"),
            "/huge" => http("200 OK", "", &"x".repeat(MAX_BODY_BYTES + 1)),
            "/fits" => http("200 OK", "", &"x".repeat(MAX_BODY_BYTES)),
            _ => String::new(),
        })
        .await;
        for (path, good) in [
            ("/404", false),
            ("/204", false),
            ("/cut", false),
            ("/huge", false),
            ("/fits", true),
            ("/", false),
        ] {
            assert_eq!(get(&format!("{base}{path}")).await.is_ok(), good, "{path}");
        }
    }

    #[tokio::test]
    async fn redirects_stay_on_one_origin() {
        let other = server(|_| http("200 OK", "", "other")).await;
        let to_other = other.clone();
        let base = server(move |path| match path {
            "/same" => http("302 Found", "location: /keys\r\n", ""),
            "/other" => http("302 Found", &format!("location: {to_other}/keys\r\n"), ""),
            "/loop" => http("302 Found", "location: /loop\r\n", ""),
            _ => http("200 OK", "", "here"),
        })
        .await;
        assert_eq!(get(&format!("{base}/same")).await.unwrap().body, "here");
        for path in ["/other", "/loop"] {
            let error = get(&format!("{base}{path}")).await.unwrap_err();
            assert!(error.contains("another origin, or too many"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_silent_server_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let error = get(&url).await.unwrap_err();
        assert!(error.contains("timed out"), "{error}");
    }

    #[tokio::test]
    async fn unsafe_urls_are_not_asked() {
        for url in ["http://example.com/", "ftp://127.0.0.1/", "file:///etc/passwd", "x"] {
            assert_eq!(get(url).await.unwrap_err(), "neither https nor on loopback");
        }
    }

    #[test]
    fn safe_urls_are_secure_or_on_this_machine() {
        for (url, safe) in [
            ("https://login.example.com/keys", true),
            ("HTTPS://login.example.com/keys", true),
            ("http://127.0.0.1:8090/keys", true),
            ("http://127.9.9.9/", true),
            ("http://[::1]:8090/", true),
            ("http://localhost/", true),
            ("http://localhost.example.com/", false),
            ("http://127.0.0.1.example.com/", false),
            ("http://10.0.0.1/", false),
            ("http://[::2]/", false),
            ("https://user@example.com/", false),
            ("https://:pass@example.com/", false),
            ("data:application/json,{}", false),
            ("//example.com", false),
            ("", false),
        ] {
            assert_eq!(is_safe_url(url), safe, "{url}");
        }
    }

    #[test]
    fn ages_are_read_from_cache_control() {
        let secs = |n| Some(Duration::from_secs(n));
        for (value, expected) in [
            ("max-age=60", secs(60)),
            ("public, MAX-AGE=60, must-revalidate", secs(60)),
            ("max-age=\"60\"", secs(60)),
            ("max-age=60, no-cache", secs(0)),
            ("no-store", secs(0)),
            ("max-age=60, max-age=30", secs(30)),
            ("max-age=-1", None),
            ("max-age=", None),
            ("s-maxage=60", None),
            ("public", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, value.parse().unwrap());
            assert_eq!(max_age(&headers), expected, "{value}");
        }
        assert_eq!(max_age(&HeaderMap::new()), None);
    }
}
