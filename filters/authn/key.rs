//! API keys: `sk_…`.

use std::sync::Arc;

use super::{Caller, Identity, refused};
use crate::accounts::ApiKey;
use crate::accounts::ApiKeyError;
use crate::accounts::directory::{KeyEntry, Proof};
use crate::accounts::permission::Credential;
use crate::accounts::{KeyId, directory::Person};
use crate::snapshot::Snapshot;
use crate::verdict::Denial;

/// How every key begins.
pub(super) const PREFIX: &str = "sk_";

/// Whom the environment's keys belong to. No account has a name like it.
const USER: &str = ":environment";

/// Identifies the owner of a key.
pub(super) async fn identify(caller: &Caller<'_>, text: &str) -> Result<Identity, Denial> {
    let key = ApiKey::parse(text).map_err(told)?;
    if let Some(identity) = of_environment(caller.snapshot, &key) {
        let directory = caller.state.directory();
        directory.check_fresh()?;
        return match directory.void(identity.proof()) {
            Some(why) => Err(refused(format!("API key: {why}"))),
            None => Ok(identity),
        };
    }
    let entry = find(caller, &key).await?;
    let directory = caller.state.directory();
    let person = directory.person(&entry.user).ok_or_else(|| refused("API key: no user"))?;
    admit(caller, &entry, &person)?;
    directory.touch_key(key.id());
    Ok(of(caller.snapshot, &person, key.id(), &entry))
}

/// A key that is not known may have been made a moment ago, on another gateway.
async fn find(caller: &Caller<'_>, key: &ApiKey) -> Result<Arc<KeyEntry>, Denial> {
    let pepper = caller.snapshot.pepper().ok_or_else(|| told(ApiKeyError::Unknown))?;
    let directory = caller.state.directory();
    let mut found = directory.verify(pepper, key);
    if found.is_err() {
        directory.look_again().await;
        found = directory.verify(pepper, key);
    }
    directory.check_fresh()?;
    found.map_err(told)
}

/// Whether the key works now, for this caller.
pub(super) fn admit(caller: &Caller<'_>, entry: &KeyEntry, person: &Person) -> Result<(), Denial> {
    let now = caller.state.clock().unix_secs();
    if person.disabled {
        return Err(refused("API key: the user is disabled"));
    }
    if entry.expires_at().is_some_and(|end| end <= now) {
        return Err(refused("API key: expired"));
    }
    let networks = &entry.rights.networks;
    if !networks.is_empty() && !networks.iter().any(|network| network.contains(&caller.client)) {
        return Err(refused("API key: used from a network that it is not for"));
    }
    Ok(())
}

fn of(snapshot: &Snapshot, person: &Person, id: KeyId, entry: &KeyEntry) -> Identity {
    let rights = snapshot.rights(person.role);
    let proof = Proof { user: Some(Arc::clone(&person.name)), key: Some(id), ..Proof::default() };
    let identity = Identity::new(Arc::clone(&person.name), person.role, rights, Credential::Key)
        .within(Arc::clone(&entry.rights.layer))
        .by(id.to_string())
        .until(entry.expires_at())
        .proved(proof);
    metered(snapshot, identity, id, entry)
}

/// The quota of the key itself; without one it has no limits but those that operators may set. A
/// name that the configuration has no longer is the default quota: a key that was bounded never
/// becomes unbounded.
pub(super) fn metered(
    snapshot: &Snapshot,
    identity: Identity,
    id: KeyId,
    entry: &KeyEntry,
) -> Identity {
    let quota = entry.rights.quota.as_deref();
    identity.metered(&id.to_string(), quota.map(|name| snapshot.quota(name)).unwrap_or_default())
}

/// A key that the environment gave.
fn of_environment(snapshot: &Snapshot, key: &ApiKey) -> Option<Identity> {
    let environment = snapshot.environment()?;
    environment.keys.verify(snapshot.pepper()?, key).ok()?;
    let rights = snapshot.rights(environment.role);
    let identity = Identity::new(Arc::from(USER), environment.role, rights, Credential::Key);
    let proof = Proof { ids: vec![environment_id(key.id())], ..Proof::default() };
    let id = key.id().to_string();
    let identity = identity.within(Arc::clone(&environment.layer)).metered(&id, Arc::default());
    Some(identity.by(id).proved(proof))
}

/// By which id a key of the environment is revoked: it is in no table of keys.
#[must_use]
pub fn environment_id(id: KeyId) -> String {
    format!("environment:{id}")
}

pub(super) fn told(error: ApiKeyError) -> Denial {
    refused(format!("API key: {error}"))
}
