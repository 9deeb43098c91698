//! The line to a guard: one address that the operator gave, no redirects, no proxy, bounded in time
//! and size.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, Url};
use rustls::crypto::{CryptoProvider, ring};
use secrecy::ExposeSecret;

use super::settings::{Settings, SettingsError};
use super::{Credential, Failure};

/// Longest answer that is read, in bytes.
pub(super) const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Shorter than what servers grant (uvicorn 5 s): a connection that is being closed costs an answer.
const IDLE: Duration = Duration::from_secs(4);

const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) struct Line {
    client: Client,
    url: Url,
    headers: HeaderMap,
}

impl Line {
    /// If the process has no default provider of cryptography, ring becomes it.
    pub(super) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let url = url(settings)?;
        let headers = headers(settings.credential.as_ref())?;
        if CryptoProvider::get_default().is_none() {
            drop(ring::default_provider().install_default());
        }
        let mut client = Client::builder()
            .timeout(settings.timeout)
            .redirect(Policy::none())
            .referer(false)
            .no_proxy()
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(settings.concurrent);
        if !settings.authorities.is_empty() {
            let made = settings.authorities.iter().map(|der| Certificate::from_der(der));
            let made: Result<Vec<_>, _> = made.collect();
            client = client.tls_certs_only(made.map_err(|_| bad_authority())?);
        }
        let client = client.build().map_err(|_| bad_authority())?;
        Ok(Self { client, url, headers })
    }

    /// For logs. The rest of the URL may hold a secret.
    pub(super) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// Sends a JSON body, and gives the body of a good answer.
    pub(super) async fn post(&self, body: Vec<u8>) -> Result<Bytes, Failure> {
        let request = self.client.post(self.url.clone()).headers(self.headers.clone()).body(body);
        let answer = request.send().await.map_err(|error| self.failed(error))?;
        match answer.status() {
            StatusCode::OK => self.read(answer).await,
            other => Err(Failure::Status(other.as_u16())),
        }
    }

    async fn read(&self, mut answer: Response) -> Result<Bytes, Failure> {
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.failed(error))? {
            if body.len().saturating_add(chunk.len()) > MAX_ANSWER_BYTES {
                return Err(Failure::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn failed(&self, error: reqwest::Error) -> Failure {
        let error = error.without_url();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        tracing::debug!(host = self.host(), %error, cause, "a guard of second opinions failed");
        if error.is_timeout() { Failure::Timeout } else { Failure::Unreachable }
    }
}

fn bad_authority() -> SettingsError {
    SettingsError::new(
        "the CA certificates of the guard, or the roots of the machine, are not usable",
    )
}

fn headers(credential: Option<&Credential>) -> Result<HeaderMap, SettingsError> {
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON), (ACCEPT, JSON)]);
    if let Some(Credential { header, value }) = credential {
        let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|_| {
            SettingsError::new("the key of the guard holds characters that no header may hold")
        })?;
        value.set_sensitive(true);
        headers.insert(header.clone(), value);
    }
    Ok(headers)
}

fn url(settings: &Settings) -> Result<Url, SettingsError> {
    let url = Url::parse(&settings.url)
        .map_err(|_| SettingsError::new("the address of the guard is not a URL"))?;
    let plain = url.scheme() == "http";
    for (good, wrong) in [
        (
            (plain || url.scheme() == "https") && url.host_str().is_some(),
            "the address of the guard starts with https:// or http://",
        ),
        (
            url.username().is_empty() && url.password().is_none(),
            "the address of the guard holds a user or password; its key is `api_key`",
        ),
        (url.fragment().is_none(), "the address of the guard has a fragment, which is never sent"),
        (
            !plain || settings.allow_plaintext || is_this_machine(&url),
            "texts leave this machine by https only, unless `allow_plaintext` says otherwise",
        ),
    ] {
        if !good {
            return Err(SettingsError::new(wrong));
        }
    }
    Ok(url)
}

fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let v6 = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback())
        || v6.parse().is_ok_and(|ip: Ipv6Addr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use secrecy::SecretString;

    use super::super::{Classifier, Guard};
    use super::*;

    fn settings(url: &str) -> Settings {
        Settings::new(url, Guard::Classifier(Classifier::default()))
    }

    #[test]
    fn texts_leave_by_https_or_stay_here() {
        for (address, strict, lenient) in [
            ("https://guard.example.com/v1/classify?v=2", true, true),
            ("http://127.0.0.1:8001/predict", true, true),
            ("http://[::1]:8001/", true, true),
            ("http://localhost:8001/", true, true),
            ("http://guard:8001/predict", false, true),
            ("http://localhost.example.com/", false, true),
            ("http://10.0.0.1/", false, true),
            ("https://u:pw@guard.example.com/", false, false),
            ("https://guard.example.com/#a", false, false),
            ("ftp://127.0.0.1/", false, false),
            ("file:///etc/passwd", false, false),
            ("guard:8001", false, false),
            ("", false, false),
        ] {
            let mut settings = settings(address);
            assert_eq!(url(&settings).is_ok(), strict, "{address}");
            settings.allow_plaintext = true;
            assert_eq!(url(&settings).is_ok(), lenient, "{address}");
        }
    }

    #[test]
    fn keys_and_authorities_are_checked_at_the_start() {
        let mut bad_key = settings("https://guard.example.com/");
        let key = SecretString::from("hunter2\n");
        bad_key.credential = Some(Credential::header(HeaderName::from_static("x-api-key"), key));
        let error = Line::new(&bad_key).err().unwrap().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        let mut bad_authority = settings("https://guard.example.com/");
        bad_authority.authorities = vec![b"not a certificate".to_vec()];
        assert!(Line::new(&bad_authority).is_err());
    }

    #[test]
    fn a_key_is_sensitive() {
        let credential = Credential::bearer(&SecretString::from("hunter2"));
        let headers = headers(Some(&credential)).unwrap();
        assert_eq!(headers["authorization"], "Bearer hunter2");
        assert!(!format!("{headers:?} {credential:?}").contains("hunter2"));
    }
}
