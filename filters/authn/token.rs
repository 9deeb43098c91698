//! User tokens and scoped tokens.

use std::sync::Arc;

use super::{Caller, Identity, external, key, refused, several};
use crate::accounts::directory::{Person, Proof, unavailable};
use crate::accounts::permission::Credential;
use crate::accounts::{KeyId, ScopedToken, TokenError, UserToken, Verified};
use crate::authz::Layer;
use crate::glob::Glob;
use crate::verdict::Denial;

/// Identifies the bearer of a token of any kind.
pub(super) async fn identify(caller: &Caller<'_>, text: &str) -> Result<Identity, Denial> {
    if external::is_claimed(caller, text) {
        return external::identify(caller, text).await;
    }
    let verified = verify(caller, text)?;
    of(caller, &verified).await
}

/// Identifies the bearer of a scoped token.
pub(super) async fn identify_scoped(caller: &Caller<'_>, text: &str) -> Result<Identity, Denial> {
    let verified = verify(caller, text)?;
    match &*verified {
        Verified::Scoped(_) => of(caller, &verified).await,
        Verified::User(_) => Err(refused("a user token in the place of a scoped one")),
    }
}

/// Identifies the bearer of a scoped token who also shows the user token of its subject.
pub(super) async fn identify_pair(
    caller: &Caller<'_>,
    user: &str,
    scoped: &str,
) -> Result<Identity, Denial> {
    let (holder, token) = (verify(caller, user)?, verify(caller, scoped)?);
    match (&*holder, &*token) {
        (Verified::User(user), Verified::Scoped(_)) if user.subject == token.subject() => {
            of(caller, &holder).await?;
            of(caller, &token).await
        }
        (Verified::User(_), Verified::Scoped(_)) => {
            Err(refused("the scoped token is another user's"))
        }
        (Verified::User(_), Verified::User(_)) => {
            Err(refused("a user token in the place of a scoped one"))
        }
        (Verified::Scoped(_), _) => Err(several()),
    }
}

fn verify(caller: &Caller<'_>, text: &str) -> Result<Arc<Verified>, Denial> {
    let tokens = caller.snapshot.tokens().ok_or_else(|| refused("tokens are not configured"))?;
    tokens.verify(text).map_err(told)
}

pub(super) fn told(error: TokenError) -> Denial {
    refused(format!("token: {error}"))
}

/// The user must exist now, and has the role of now: a token outlives neither.
async fn of(caller: &Caller<'_>, verified: &Verified) -> Result<Identity, Denial> {
    let person = person(caller, verified.subject()).await?;
    let proof = Proof::of(verified).map_err(|error| refused(format!("token: {error}")))?;
    if let Some(why) = caller.state.directory().void(&proof) {
        return Err(refused(format!("token: {why}")));
    }
    match verified {
        Verified::User(token) => Ok(of_user(caller, &person, token).proved(proof)),
        Verified::Scoped(token) => Ok(of_scoped(caller, &person, token).await?.proved(proof)),
    }
}

/// Finds the user. One who is not known may have been made a moment ago, on another gateway.
async fn person(caller: &Caller<'_>, name: &str) -> Result<Arc<Person>, Denial> {
    let directory = caller.state.directory();
    let mut found = directory.person(name);
    if found.is_none() {
        directory.look_again().await;
        found = directory.person(name);
    }
    directory.check_fresh()?;
    found.ok_or_else(|| refused("token: the user is gone"))
}

fn of_user(caller: &Caller<'_>, person: &Person, token: &UserToken) -> Identity {
    let (snapshot, life) = (caller.snapshot, &token.life);
    caller.state.directory().touch_session(&life.id);
    let rights = snapshot.rights(person.role);
    Identity::new(Arc::clone(&person.name), person.role, rights, Credential::Login)
        .in_session(&life.id)
        .until(Some(life.expires_at))
        .enrolling(!token.mfa && snapshot.needs_mfa(person.role))
}

async fn of_scoped(
    caller: &Caller<'_>,
    person: &Person,
    token: &ScopedToken,
) -> Result<Identity, Denial> {
    if token.address.is_some_and(|bound| bound != caller.client) {
        return Err(refused("token: used from another address than it is bound to"));
    }
    let rights = caller.snapshot.rights(person.role);
    let layer = Layer {
        scopes: token.scopes.clone(),
        models: Some(vec![Glob::new(&token.model)]),
        max_tokens: Some(token.max_tokens),
    };
    let identity =
        Identity::new(Arc::clone(&person.name), person.role, rights, Credential::ScopedToken)
            .within(Arc::new(layer))
            .by(token.life.id.clone())
            .until(Some(token.life.expires_at));
    let identity = match &token.key {
        Some(id) => within_key(caller, person, id, identity)?,
        None => identity,
    };
    if token.once {
        use_up(caller, &token.life.id, token.life.expires_at).await?;
    }
    Ok(identity)
}

/// What the key that made a token may do bounds the token too, also where that has changed since.
fn within_key(
    caller: &Caller<'_>,
    person: &Person,
    id: &str,
    identity: Identity,
) -> Result<Identity, Denial> {
    let id: KeyId = id.parse().map_err(|_| refused("token: key id"))?;
    let entry = caller.state.directory().key(id);
    let entry = entry.ok_or_else(|| refused("token: the API key was revoked"))?;
    key::admit(caller, &entry, person)?;
    let identity = identity.within(Arc::clone(&entry.rights.layer));
    Ok(key::metered(caller.snapshot, identity, id, &entry))
}

/// Uses a single-use token up, on every gateway at once (RFC 9700 section 2.2).
async fn use_up(caller: &Caller<'_>, id: &str, expires_at: u64) -> Result<(), Denial> {
    let now = caller.state.clock().unix_secs();
    let store = caller.state.directory().store();
    match store.use_once(&format!("jti:{id}"), now, expires_at).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(refused("token: it is single-use and was used before")),
        Err(error) => Err(unavailable(error.to_string())),
    }
}
