//! The account store: where it is, and how it is asked.

use std::fmt;
use std::time::Duration;

use http::uri::Authority;
use secrecy::SecretString;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::secret::{RefVisitor, SecretRef};
use super::units;
use super::url::host_and_port;

/// The account store.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// SQLite in a file, or Postgres.
    pub url: StoreUrl,
    /// Time for each operation, the wait for a connection included.
    #[serde(with = "units::word")]
    pub timeout: Duration,
    /// How often changes are looked for.
    #[serde(with = "units::word")]
    pub refresh: Duration,
    /// How long identities that are known so far serve while the store cannot be reached.
    #[serde(with = "units::word")]
    pub max_stale: Duration,
    /// Open connections at one time.
    pub connections: u32,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            url: StoreUrl::Plain("sqlite:portcullis.db".to_owned()),
            timeout: Duration::from_secs(2),
            refresh: Duration::from_millis(250),
            max_stale: Duration::from_secs(60),
            connections: 4,
        }
    }
}

/// The URL of the store: written out, if no password is in it, or kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum StoreUrl {
    /// A URL that [`StorePlace`] can read, without a password.
    Plain(String),
    /// Where the URL is.
    Place(SecretRef),
}

impl StoreUrl {
    /// Where the URL is, if it is not written out.
    #[must_use]
    pub const fn place(&self) -> Option<&SecretRef> {
        match self {
            Self::Plain(_) => None,
            Self::Place(place) => Some(place),
        }
    }
}

impl<'de> Deserialize<'de> for StoreUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UrlVisitor)
    }
}

/// Never repeats what it finds: there may be a password in it.
struct UrlVisitor;

impl<'de> Visitor<'de> for UrlVisitor {
    type Value = StoreUrl;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sqlite:FILE, sqlite::memory:, {file: PATH} or {env: NAME}")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<StoreUrl, E> {
        if has_password(text) {
            return Err(E::custom(
                "this URL holds a password, which is never written into the config itself\n\
                 put the URL into a file and write {file: PATH}, or into the environment and \
                 write {env: NAME}",
            ));
        }
        StorePlace::parse(text).map_err(|wrong| E::custom(format!("{wrong}\n{FORMS}")))?;
        Ok(StoreUrl::Plain(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StoreUrl, A::Error> {
        RefVisitor.visit_map(map).map(StoreUrl::Place)
    }
}

/// How a URL of the store is written.
pub(super) const FORMS: &str = "write sqlite:FILE or sqlite::memory:, or {file: PATH} or \
     {env: NAME} of what holds postgres://USER:PASSWORD@HOST/DATABASE";

/// Whether there is a password, also in a URL that is broken otherwise.
fn has_password(url: &str) -> bool {
    let Some(rest) = postgres(url) else { return false };
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':') || rest.to_ascii_lowercase().contains("password=")
}

fn postgres(url: &str) -> Option<&str> {
    url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"))
}

/// A URL that a store can be opened with. `Debug` does not show it.
#[derive(Clone, Debug)]
pub struct StorePlace(SecretString);

impl StorePlace {
    /// Reads `sqlite:FILE`, `sqlite::memory:` or a URL of Postgres.
    ///
    /// # Errors
    /// What is wrong, without a part of the URL.
    pub(super) fn parse(url: &str) -> Result<Self, &'static str> {
        match postgres(url) {
            Some(rest) => server(rest)?,
            None => file(url)?,
        }
        Ok(Self(SecretString::from(url)))
    }

    /// The URL as it was given: the path of a file may be relative to the folder of the config,
    /// and is not percent-encoded.
    #[must_use]
    pub fn url(&self) -> SecretString {
        self.0.clone()
    }
}

/// In memory, so that nothing is left behind where no store is named.
impl Default for StorePlace {
    fn default() -> Self {
        Self(SecretString::from("sqlite::memory:"))
    }
}

/// `sqlite:PATH`, and `:memory:` is a path too.
fn file(url: &str) -> Result<(), &'static str> {
    let path = url.strip_prefix("sqlite:").ok_or("this is not the URL of a store")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.ends_with('/') {
        return Err("this URL names no file");
    }
    if path.contains('?') || path.contains(char::is_control) {
        return Err("a SQLite store is a file, without parameters");
    }
    Ok(())
}

/// `USER:PASSWORD@HOST:PORT/DATABASE?PARAMETERS`; without a host the parameter `host` names the
/// folder of a socket. Stray characters of a password would end one of the parts too early.
fn server(rest: &str) -> Result<(), &'static str> {
    if !rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err("in this URL some characters must be percent-encoded, as %23 for `#`");
    }
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = place.split_once('/').unwrap_or((place, ""));
    if database.is_empty() {
        return Err("this URL names no database");
    }
    if database.contains(['/', '@']) || parameters.contains('@') {
        return Err("in the password `/`, `?` and `@` must be written as %2F, %3F and %40");
    }
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.is_empty() && parameters.split('&').any(|pair| pair.starts_with("host=")) {
        return Ok(());
    }
    let host: Authority = host.parse().map_err(|_| "this URL has no valid host")?;
    host_and_port(&host).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    fn check(url: &str, expected: Result<(), &str>) {
        match (StorePlace::parse(url), expected) {
            (Ok(found), Ok(())) => assert_eq!(found.url().expose_secret(), url),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{url}: {found}"),
            (found, _) => panic!("{url}: {found:?}"),
        }
    }

    #[test]
    fn places() {
        for (url, expected) in [
            ("sqlite:portcullis.db", Ok(())),
            ("sqlite:/var/x.db", Ok(())),
            ("sqlite:///var/x.db", Ok(())),
            ("sqlite:a b%3F#ä.db", Ok(())),
            ("sqlite::memory:", Ok(())),
            ("sqlite:", Err("names no file")),
            ("sqlite:data/", Err("names no file")),
            ("sqlite:x.db?mode=ro", Err("without parameters")),
            ("sqlite:x\0.db", Err("without parameters")),
            ("x.db", Err("not the URL of a store")),
            ("mysql://h/d", Err("not the URL of a store")),
            ("postgres://h/d", Ok(())),
            ("postgresql://u@h:5432/d", Ok(())),
            ("postgres://u:p%40@[::1]/d?sslmode=require", Ok(())),
            ("postgres:///d?host=/run/postgresql", Ok(())),
            ("postgres:///d", Err("no valid host")),
            ("postgres://h", Err("names no database")),
            ("postgres://h/", Err("names no database")),
            ("postgres://h:0/d", Err("1 to 65535")),
            ("postgres://u:a/b@h/d", Err("%2F, %3F")),
            ("postgres://u:1?b@h/d", Err("names no database")),
            ("postgres://u:a#b@h/d", Err("percent-encoded")),
            ("postgres://u:a b@h/d", Err("percent-encoded")),
            ("postgres://h/d?application_name=a@b", Err("%40")),
        ] {
            check(url, expected);
        }
        check(StorePlace::default().url().expose_secret(), Ok(()));
    }

    #[test]
    fn passwords_are_seen_in_every_url() {
        for (url, expected) in [
            ("postgres://u:p@h/d", true),
            ("postgresql://u:p@h/d", true),
            ("postgres://u:a/b@h/d", true),
            ("postgres://u:a?b@h", true),
            ("postgres://u@h/d?PassWord=p", true),
            ("postgres://u@h/d?sslpassword=p", true),
            ("postgres://u@h:1/d", false),
            ("postgres://[::1]/d", false),
            ("sqlite:a:b@c", false),
        ] {
            assert_eq!(has_password(url), expected, "{url}");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let place = StorePlace::parse("postgres://u:hunter2@h/d").unwrap();
        assert!(!format!("{place:?}").contains("hunter2"));
    }
}
