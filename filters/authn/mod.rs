//! Identify: credentials → [`Identity`].
//!
//! | credential | file |
//! |---|---|
//! | `X-LLM-Token: <scoped token>` | `token.rs` |
//! | `Authorization: Bearer <user token \| scoped token>` | `token.rs` |
//! | `Authorization: Bearer sk_…`, `X-API-Key: sk_…` | `key.rs` |
//!
//! A request has exactly one. Two that could both count are refused, since another reader might
//! take the other one. There is one pair that is one credential: a scoped token in `X-LLM-Token`
//! beside the user token of the same user, who so proves to be its holder; both are verified, and
//! the scoped token alone says what is allowed.

mod identity;
mod key;
mod token;

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;

pub use identity::Identity;

use crate::snapshot::Snapshot;
use crate::verdict::{Denial, Reason};

/// What was presented, by where it stood.
#[derive(Default)]
struct Presented<'a> {
    /// A token in `Authorization`.
    bearer: Option<&'a str>,
    /// A key in `Authorization` or `X-API-Key`.
    keys: Vec<&'a str>,
    /// A token in `X-LLM-Token`.
    llm: Option<&'a str>,
}

/// Finds out who is calling.
///
/// # Errors
/// [`Reason::InvalidRequest`] for more than one credential; [`Reason::InvalidCredentials`] for
/// none, or one that does not verify, with the same text for every cause.
pub(crate) fn identify(
    snapshot: &Snapshot,
    headers: &HeaderMap,
    now: u64,
) -> Result<Arc<Identity>, Denial> {
    let presented = present(headers)?;
    match (presented.keys.as_slice(), presented.bearer, presented.llm) {
        ([], None, None) => Err(missing()),
        ([text], None, None) => key::identify(snapshot, text, now),
        ([], Some(text), None) => token::identify(snapshot, text),
        ([], None, Some(text)) => token::identify_scoped(snapshot, text),
        ([], Some(user), Some(scoped)) => token::identify_pair(snapshot, user, scoped),
        _ => Err(several()),
    }
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
    let key = single(headers, "x-api-key")?;
    presented.keys.extend(key.filter(|key| key.starts_with(key::PREFIX)));
    if key.is_some()
        && presented.keys.is_empty()
        && presented.llm.is_none()
        && presented.bearer.is_none()
    {
        return Err(refused("X-API-Key is not one of our keys"));
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
