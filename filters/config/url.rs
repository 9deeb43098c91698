//! Hosts and ports of URLs (RFC 3986), and URLs of what is trusted across a network.

use std::net::IpAddr;

use http::Uri;
use http::uri::{Authority, Scheme};
use serde::{Deserialize, Serialize};

/// The host in lower case, IPv6 without brackets, and the port if there is one.
///
/// # Errors
/// What is wrong, without a part of the URL.
pub(super) fn host_and_port(authority: &Authority) -> Result<(String, Option<u16>), &'static str> {
    let rest = authority.as_str().strip_prefix(authority.host());
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    Ok((name(host)?, port(rest)?))
}

fn name(host: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if host.is_empty() || !host.bytes().all(allowed) {
        return Err("this URL has no valid host");
    }
    Ok(host.to_ascii_lowercase())
}

/// What follows the host: nothing, or a colon and a port that is not 0.
fn port(rest: Option<&str>) -> Result<Option<u16>, &'static str> {
    let Some(rest) = rest.filter(|rest| !rest.is_empty()) else { return Ok(None) };
    let digits = rest.strip_prefix(':').filter(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
    let port = digits.and_then(|digits| digits.parse().ok()).filter(|&port| port != 0);
    port.map(Some).ok_or("the port of a URL is from 1 to 65535")
}

/// A URL whose answers are believed: https, or http to this machine. Kept as it is written, since
/// issuers are compared letter by letter (RFC 8414 section 3.3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebUrl(String);

impl WebUrl {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for WebUrl {
    type Error = String;

    /// # Errors
    /// What is wrong, and on a second line how to write it. Does not repeat the URL, which may
    /// hold a password.
    fn try_from(text: String) -> Result<Self, String> {
        match checked(&text) {
            Ok(()) => Ok(Self(text)),
            Err(wrong) => Err(format!("{wrong}\nwrite scheme and host: https://id.example.com")),
        }
    }
}

impl From<WebUrl> for String {
    fn from(url: WebUrl) -> Self {
        url.0
    }
}

fn checked(text: &str) -> Result<(), &'static str> {
    if text.contains('#') {
        return Err("this URL has a fragment, which is never sent");
    }
    let uri: Uri = text.parse().map_err(|_| "this is not a URL")?;
    let authority = uri.authority().ok_or("this URL has no host")?;
    if authority.as_str().contains('@') {
        return Err("this URL holds a user or password, which nothing here needs");
    }
    let (host, _) = host_and_port(authority)?;
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => Ok(()),
        Some(scheme) if *scheme == Scheme::HTTP && is_this_machine(&host) => Ok(()),
        Some(_) | None => Err("only https is safe here, or http to a loopback address"),
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_are_believed() {
        for (text, expected) in [
            ("https://id.example.com", Ok(())),
            ("https://id.example.com:8443/realms/one/", Ok(())),
            ("http://127.0.0.1:8080/", Ok(())),
            ("http://localhost", Ok(())),
            ("http://[::1]:9/keys?v=2", Ok(())),
            ("http://id.example.com", Err("only https")),
            ("http://localhost.example.com", Err("only https")),
            ("ftp://id.example.com", Err("only https")),
            ("https://u:pw@id.example.com", Err("user or password")),
            ("https://id.example.com#a", Err("fragment")),
            ("https://id.example.com:0", Err("1 to 65535")),
            ("https://id.example.com:x", Err("1 to 65535")),
            ("https://", Err("not a URL")),
            ("id.example.com", Err("only https")),
            ("/keys", Err("no host")),
            ("", Err("not a URL")),
        ] {
            let found = WebUrl::try_from(text.to_owned());
            match (found, expected) {
                (Ok(url), Ok(())) => {
                    assert_eq!((url.as_str(), String::from(url.clone())), (text, text.to_owned()))
                }
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
