//! Identify: credentials → [`Identity`].
//!
//! | credential | file |
//! |---|---|
//! | `X-LLM-Token: <scoped token>` | `token.rs` |
//! | `Authorization: Bearer <user token \| scoped token>` | `token.rs` |
//! | `Authorization: Bearer <token of an external issuer>` | `external.rs` |
//! | `Authorization: Bearer sk_…`, `X-API-Key: sk_…` | `key.rs` |
//! | `X-Portcullis-Service` and its signature, or a client certificate | `service.rs` |
//! | none, in development mode, on loopback | `development.rs` |
//!
//! A request has exactly one. Two that could both count are refused, since another reader might
//! take the other one. There is one pair that is one credential: a scoped token in `X-LLM-Token`
//! beside the user token of the same user, who so proves to be its holder; both are verified, and
//! the scoped token alone says what is allowed.

mod development;
mod external;
mod identity;
mod key;
mod service;
mod token;

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;

pub use identity::Identity;
pub use key::environment_id;

use crate::accounts::service::Asserted;
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::verdict::{Denial, Reason};

/// What a caller is identified by, and what it is identified with.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "handed over whole")]
pub struct Caller<'a> {
    /// The gateway.
    pub state: &'a State,
    /// The configuration that the request began with.
    pub snapshot: &'a Snapshot,
    /// All of the request's.
    pub headers: &'a HeaderMap,
    /// As it was sent.
    pub method: &'a str,
    /// Without a query: no operation has one.
    pub path: &'a str,
    /// `Host`, or the authority of HTTP/2.
    pub host: Option<&'a [u8]>,
    /// The address that the request counts against.
    pub client: IpAddr,
    /// SHA-256 of the client's certificate, if it showed one that was verified.
    pub certificate: Option<[u8; 32]>,
}

/// A caller who is identified, unless the body turns out not to be the one that was signed.
#[derive(Debug)]
pub struct Identified {
    identity: Arc<Identity>,
    /// The word of a service, which may cover the body.
    asserted: Option<Asserted>,
}

impl Identified {
    fn whatever_the_body(identity: Identity) -> Self {
        Self { identity: Arc::new(identity), asserted: None }
    }

    /// Who it seems to be.
    #[must_use]
    pub const fn claimed(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Who it is, now that the body is known.
    ///
    /// # Errors
    /// [`Reason::InvalidCredentials`] if the body is not the one that was signed.
    pub fn with_body(self, body: &[u8]) -> Result<Arc<Identity>, Denial> {
        match self.asserted {
            Some(asserted) if !asserted.matches_body(body) => {
                Err(refused("service: the body is not the one that was signed"))
            }
            _ => Ok(self.identity),
        }
    }
}

/// What was presented, by where it stood.
#[derive(Default)]
struct Presented<'a> {
    /// A token in `Authorization`.
    bearer: Option<&'a str>,
    /// A key in `Authorization` or `X-API-Key`.
    keys: Vec<&'a str>,
    /// A token in `X-LLM-Token`.
    llm: Option<&'a str>,
    /// A key that is not of ours, in `X-API-Key`.
    foreign_key: bool,
}

impl Presented<'_> {
    const fn is_nothing(&self) -> bool {
        self.keys.is_empty() && self.bearer.is_none() && self.llm.is_none() && !self.foreign_key
    }
}

/// Finds out who is calling.
///
/// # Errors
/// [`Reason::InvalidRequest`] for more than one credential; [`Reason::InvalidCredentials`] for
/// none, or one that does not verify, with the same text for every cause; [`Reason::Overloaded`]
/// while accounts cannot be checked.
pub async fn identify(caller: &Caller<'_>) -> Result<Identified, Denial> {
    let presented = present(caller.headers)?;
    if service::is_claimed(caller) {
        return if presented.is_nothing() {
            service::identify(caller).await
        } else {
            Err(several())
        };
    }
    if presented.is_nothing() && caller.snapshot.is_development() {
        return development::identify(caller).map(Identified::whatever_the_body);
    }
    let identity = match (presented.keys.as_slice(), presented.bearer, presented.llm) {
        ([], None, None) if presented.foreign_key => Err(refused("X-API-Key is not one of ours")),
        ([], None, None) => Err(missing()),
        ([text], None, None) => key::identify(caller, text).await,
        ([], Some(text), None) => token::identify(caller, text).await,
        ([], None, Some(text)) => token::identify_scoped(caller, text).await,
        ([], Some(user), Some(scoped)) => token::identify_pair(caller, user, scoped).await,
        _ => Err(several()),
    }?;
    Ok(Identified::whatever_the_body(identity))
}

/// No credential at all.
pub(crate) fn missing() -> Denial {
    refused("no credential")
}

fn present(headers: &HeaderMap) -> Result<Presented<'_>, Denial> {
    let mut presented = Presented::default();
    if let Some(value) = single(headers, AUTHORIZATION.as_str())? {
        let token = bearer(value).ok_or_else(|| refused("Authorization is not a Bearer token"))?;
        if token.starts_with(key::PREFIX) {
            presented.keys.push(token);
        } else {
            presented.bearer = Some(token);
        }
    }
    presented.llm = single(headers, "x-llm-token")?;
    // Clients send keys of other systems in this header too: one that is not ours is not a
    // credential, and no upstream sees it either.
    if let Some(text) = single(headers, "x-api-key")? {
        match text.starts_with(key::PREFIX) {
            true => presented.keys.push(text),
            false => presented.foreign_key = presented.is_nothing(),
        }
    }
    Ok(presented)
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Denial> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(several());
    }
    value.to_str().map(Some).map_err(|_| refused("credential is not ASCII"))
}

/// RFC 6750 section 2.1; the scheme is matched without case (RFC 9110 section 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn several() -> Denial {
    Denial::new(Reason::InvalidRequest, "a request must carry exactly one credential")
}

/// The caller is told the same whatever is wrong.
fn refused(detail: impl Into<std::borrow::Cow<'static, str>>) -> Denial {
    Denial::new(Reason::InvalidCredentials, "a valid credential is required").detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::service::AssertionError;
    use crate::accounts::{ApiKeyError, TokenError};

    /// What the caller reads is the same of all; what the operator reads differs.
    fn check(denials: &[Denial]) {
        let details: std::collections::HashSet<_> =
            denials.iter().map(Denial::operator_detail).collect();
        assert_eq!(details.len(), denials.len());
        let alike = refused("");
        for denial in denials {
            assert_eq!(denial.clone().detail(""), alike, "{denial:?}");
        }
    }

    #[test]
    fn callers_are_not_told_which_check_of_a_token_failed() {
        use TokenError::*;
        let errors = [
            TooLong,
            NotCompact,
            Header,
            Type,
            Issuer,
            Algorithm,
            KeyId,
            Signature,
            Claims("claim sub is wrong"),
            NotYetValid,
            Expired,
        ];
        check(&errors.map(token::told));
        check(&errors.map(external::told));
        assert_eq!(token::told(Expired).operator_detail(), "token: token has expired");
    }

    #[test]
    fn a_lost_issuer_is_a_fault_of_the_gateway() {
        let denial = external::told(TokenError::NoKeys);
        assert_eq!((denial.reason(), denial.status()), (Reason::Overloaded, 503));
        assert_eq!(denial.operator_detail(), "the keys of the token's issuer cannot be fetched");
    }

    #[test]
    fn callers_are_not_told_which_check_of_a_key_failed() {
        let errors = [ApiKeyError::Malformed, ApiKeyError::Unknown, ApiKeyError::Mismatch];
        check(&errors.map(key::told));
    }

    #[test]
    fn services_are_told_the_form_and_nothing_else() {
        use AssertionError::{Certificate, Malformed, Signature, Skew, Unknown};
        check(&[Unknown, Signature, Skew, Certificate].map(service::told));
        let malformed = service::told(Malformed("the nonce"));
        assert_eq!((malformed.status(), malformed.message()), (400, "the nonce"));
    }
}
