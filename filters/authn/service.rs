//! Trusted services, which say who their own user is: see [`crate::accounts::service`].

use std::sync::Arc;

use super::{Caller, Identified, Identity, refused};
use crate::accounts::directory::{Proof, unavailable};
use crate::accounts::permission::Credential;
use crate::accounts::service::{Asserted, Assertion, AssertionError, SERVICE, SIGNATURE};
use crate::verdict::{Denial, Reason};

/// Whether a service speaks. Headers that only name a user are nobody's word: they are ignored, and
/// like all headers of the caller they never reach an upstream.
pub(super) fn is_claimed(caller: &Caller<'_>) -> bool {
    caller.headers.contains_key(SERVICE) || caller.headers.contains_key(SIGNATURE)
}

/// Identifies the user for whom a service asks.
pub(super) async fn identify(caller: &Caller<'_>) -> Result<Identified, Denial> {
    let now = caller.state.clock().unix_secs();
    let assertion = Assertion::read(caller.headers).map_err(told)?;
    let assertion = assertion.ok_or_else(|| refused("service: no assertion"))?;
    let asserted = assertion
        .verify(caller.snapshot.services(), caller.method, caller.path, now, caller.certificate)
        .map_err(told)?;
    use_up(caller, &asserted, now).await?;
    let user = format!("{}:{}", asserted.service, asserted.user);
    let rights = caller.snapshot.rights(asserted.role);
    let identity = Identity::new(Arc::from(user), asserted.role, rights, Credential::Service)
        .proved(Proof::default());
    Ok(Identified { identity: Arc::new(identity), asserted: Some(asserted) })
}

/// A signature counts once, on all gateways.
async fn use_up(caller: &Caller<'_>, asserted: &Asserted, now: u64) -> Result<(), Denial> {
    let Some(once) = &asserted.once else { return Ok(()) };
    match caller.state.directory().store().use_once(&once.id, now, once.expires_at).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(refused("service: the nonce was used before")),
        Err(error) => Err(unavailable(error.to_string())),
    }
}

/// Everything about a credential is told alike; what is merely not of its form is told as it is.
pub(super) fn told(error: AssertionError) -> Denial {
    match error {
        AssertionError::Malformed(what) => Denial::new(Reason::InvalidRequest, what),
        AssertionError::Unknown
        | AssertionError::Signature
        | AssertionError::Skew
        | AssertionError::Certificate => refused(format!("service: {error}")),
    }
}
