//! Tokens of external issuers: a login that somebody else vouches for.

use std::sync::Arc;

use super::{Caller, Identity, refused};
use crate::accounts::TokenError;
use crate::accounts::directory::{Person, Proof, unavailable};
use crate::accounts::oidc::External;
use crate::accounts::permission::Credential;
use crate::accounts::store::{Actor, NewUser, Source, StoreError, UserChange};
use crate::verdict::Denial;

/// Whether one of the configured issuers is named by the token.
pub(super) fn is_claimed(caller: &Caller<'_>, text: &str) -> bool {
    caller.snapshot.issuers().is_some_and(|issuers| issuers.recognises(text))
}

/// Identifies the user whom an issuer vouches for. The issuer says the role; what it has given out
/// before a revocation here is void.
pub(super) async fn identify(caller: &Caller<'_>, text: &str) -> Result<Identity, Denial> {
    let issuers = caller.snapshot.issuers().ok_or_else(|| refused("no external issuers"))?;
    let external = issuers.verify(text).await.map_err(told)?;
    let person = person(caller, &external).await?;
    let proof = proof(&person, &external)?;
    if let Some(why) = caller.state.directory().void(&proof) {
        return Err(refused(format!("external token: {why}")));
    }
    let rights = caller.snapshot.rights(external.role);
    Ok(Identity::new(Arc::clone(&person.name), external.role, rights, Credential::Login)
        .until(Some(external.expires_at))
        .proved(proof))
}

/// The user's row in the store, by which the user can be disabled and revoked here; it is made when
/// the user comes for the first time.
async fn person(caller: &Caller<'_>, external: &External) -> Result<Arc<Person>, Denial> {
    let directory = caller.state.directory();
    directory.check_fresh()?;
    match directory.person(&external.subject) {
        Some(person) if person.role == external.role => return Ok(person),
        Some(_) => follow(caller, external).await?,
        None => make(caller, external).await?,
    }
    directory.look().await.map_err(|error| unavailable(error.to_string()))?;
    directory.person(&external.subject).ok_or_else(|| refused("external token: no user"))
}

/// The role changed at the issuer: the user's API keys have the new one too.
async fn follow(caller: &Caller<'_>, external: &External) -> Result<(), Denial> {
    let change = UserChange { role: Some(external.role), ..UserChange::default() };
    let (store, now) = (caller.state.directory().store(), caller.state.clock().unix_secs());
    let changed = store.update_user(&external.subject, change, now, &by(external)).await;
    changed.map(drop).map_err(|error| unavailable(error.to_string()))
}

async fn make(caller: &Caller<'_>, external: &External) -> Result<(), Denial> {
    let user = NewUser {
        name: external.subject.clone(),
        role: external.role,
        password_hash: None,
        email: None,
        source: Source::Issuer,
    };
    let (store, now) = (caller.state.directory().store(), caller.state.clock().unix_secs());
    match store.create_user(user, now, &by(external)).await {
        Ok(_) | Err(StoreError::Exists) => Ok(()),
        Err(error) => Err(unavailable(error.to_string())),
    }
}

fn by(external: &External) -> Actor {
    Actor { name: external.issuer.clone(), unrecorded: false }
}

/// An issuer knows no epochs. A token is of the present one if it was issued after that began, or if
/// the user's first is still going on. Epochs are times in milliseconds: the first begins with the
/// second in which the user was made.
fn proof(person: &Person, external: &External) -> Result<Proof, Denial> {
    let first = person.epoch <= person.created_at.saturating_mul(1000);
    if !first && external.issued_at <= person.epoch / 1000 {
        return Err(refused("external token: the user's tokens were revoked"));
    }
    Ok(Proof {
        user: Some(Arc::clone(&person.name)),
        epoch: Some(person.epoch),
        ids: vec![external.id.clone()],
        key: None,
    })
}

/// An issuer that cannot be asked for its keys says nothing about the token.
pub(super) fn told(error: TokenError) -> Denial {
    match error == TokenError::NoKeys {
        true => unavailable(error.to_string()),
        false => refused(format!("external token: {error}")),
    }
}
