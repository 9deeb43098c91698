//! User tokens and scoped tokens.

use std::sync::Arc;

use super::{Caller, Identity, external, key, refused, several};
use crate::accounts::Verified;
use crate::accounts::directory::{Person, Proof, unavailable};
use crate::accounts::permission::Credential;
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
        Verified::Scoped { .. } => of(caller, &verified).await,
        Verified::User { .. } => Err(refused("a user token in the place of a scoped one")),
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
        (Verified::User { subject, .. }, Verified::Scoped { .. }) if subject == token.subject() => {
            of(caller, &holder).await?;
            of(caller, &token).await
        }
        (Verified::User { .. }, Verified::Scoped { .. }) => {
            Err(refused("the scoped token is another user's"))
        }
        (Verified::User { .. }, Verified::User { .. }) => {
            Err(refused("a user token in the place of a scoped one"))
        }
        (Verified::Scoped { .. }, _) => Err(several()),
    }
}

fn verify(caller: &Caller<'_>, text: &str) -> Result<Arc<Verified>, Denial> {
    let tokens = caller.snapshot.tokens().ok_or_else(|| refused("tokens are not configured"))?;
    tokens.verify(text).map_err(|error| refused(format!("token: {error}")))
}

/// The user must exist now, and has the role of now: a token outlives neither.
async fn of(caller: &Caller<'_>, verified: &Verified) -> Result<Identity, Denial> {
    let person = person(caller, verified.subject()).await?;
    match verified {
        Verified::User { .. } => of_user(caller, &person, verified),
        Verified::Scoped { .. } => of_scoped(caller, &person, verified).await,
    }
}

/// Finds the user. One who is not known may have been made a moment ago, on another gateway.
pub(super) async fn person(caller: &Caller<'_>, name: &str) -> Result<Arc<Person>, Denial> {
    let directory = caller.state.directory();
    let mut found = directory.person(name);
    if found.is_none() {
        directory.look_again().await;
        found = directory.person(name);
    }
    directory.check_fresh()?;
    found.ok_or_else(|| refused("token: the user is gone"))
}

fn of_user(caller: &Caller<'_>, person: &Person, verified: &Verified) -> Result<Identity, Denial> {
    let Verified::User { epoch, mfa, life, .. } = verified else { return Err(several()) };
    let proof = Proof {
        user: Some(Arc::clone(&person.name)),
        epoch: Some(*epoch),
        ids: vec![life.id.clone()],
        key: None,
    };
    check(caller, &proof)?;
    caller.state.directory().touch_session(&life.id);
    let snapshot = caller.snapshot;
    let rights = snapshot.rights(person.role);
    Ok(Identity::new(Arc::clone(&person.name), person.role, rights, Credential::Login)
        .in_session(&life.id)
        .until(Some(life.expires_at))
        .enrolling(!mfa && snapshot.needs_mfa(person.role))
        .proved(proof))
}

async fn of_scoped(
    caller: &Caller<'_>,
    person: &Person,
    verified: &Verified,
) -> Result<Identity, Denial> {
    let Verified::Scoped {
        epoch,
        session,
        key,
        scopes,
        model,
        max_tokens,
        address,
        once,
        life,
        ..
    } = verified
    else {
        return Err(several());
    };
    if address.is_some_and(|bound| bound != caller.client) {
        return Err(refused("token: used from another address than it is bound to"));
    }
    let key = key.as_deref().map(str::parse).transpose().map_err(|_| refused("token: key id"))?;
    let proof = Proof {
        user: Some(Arc::clone(&person.name)),
        epoch: Some(*epoch),
        ids: session.iter().cloned().chain([life.id.clone()]).collect(),
        key,
    };
    check(caller, &proof)?;
    let rights = caller.snapshot.rights(person.role);
    let layer = Layer {
        scopes: scopes.clone(),
        models: Some(vec![Glob::new(model)]),
        max_tokens: Some(*max_tokens),
    };
    let mut identity =
        Identity::new(Arc::clone(&person.name), person.role, rights, Credential::ScopedToken)
            .within(Arc::new(layer))
            .by(life.id.clone())
            .until(Some(life.expires_at))
            .proved(proof);
    // What the key that minted it may do bounds it too, also where that has changed since.
    if let Some((id, entry)) = key.and_then(|id| Some((id, caller.state.directory().key(id)?))) {
        key::admit(caller, &entry, person)?;
        identity = identity.within(Arc::clone(&entry.rights.layer));
        identity = key::metered(caller.snapshot, identity, id, &entry);
    }
    if *once {
        use_up(caller, &life.id, life.expires_at).await?;
    }
    Ok(identity)
}

fn check(caller: &Caller<'_>, proof: &Proof) -> Result<(), Denial> {
    match caller.state.directory().void(proof) {
        Some(why) => Err(refused(format!("token: {why}"))),
        None => Ok(()),
    }
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
