//! API keys: of the caller, and of others for those who manage them.

use portcullis_filters::accounts::KeyId;
use portcullis_filters::accounts::permission::{Permission, may_act_on};
use portcullis_filters::accounts::store::Key;
use portcullis_filters::authz;
use portcullis_filters::own::{OwnAnswer, OwnCall};
use portcullis_filters::verdict::{Denial, Reason};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{actor, identified, invalid, json, named, no_content, read, refused, users};
use crate::manage::{self, KeyRequest};

/// How long an old key goes on beside its successor, if the caller does not say.
const GRACE: u64 = 24 * 60 * 60;
/// The longest that it can.
const MAX_GRACE: u64 = 30 * 24 * 60 * 60;

/// `GET /auth/api-keys`
pub(super) async fn list_own(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    list(call, identified(call)?.user()).await
}

/// `GET /auth/users/{name}/api-keys`
pub(super) async fn list_of(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    list(call, &users::find(call).await?.name).await
}

async fn list(call: &OwnCall<'_>, user: &str) -> Result<OwnAnswer, Denial> {
    let store = call.state.directory().store();
    // So that "last used" is up to date for whoever looks.
    drop(call.state.directory().write_touches().await);
    let keys = store.keys(Some(user)).await.map_err(refused)?;
    let list: Vec<Value> = keys.iter().map(manage::shown_key).collect();
    json(200, &json!({ "api_keys": list }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    #[serde(default)]
    name: String,
    permissions: Vec<String>,
    #[serde(default = "every_model")]
    models: Vec<String>,
    #[serde(default)]
    networks: Vec<String>,
    quota: Option<String>,
    /// Seconds
    expires_in: Option<u64>,
}

fn every_model() -> Vec<String> {
    vec!["*".to_owned()]
}

/// `POST /auth/api-keys`: the key is shown once.
pub(super) async fn create_own(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    create(call, identified(call)?.user()).await
}

/// `POST /auth/users/{name}/api-keys`, with a step-up.
pub(super) async fn create_for(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let user = users::find_below(call).await?;
    super::step_up(call, Permission::ManageKeys.rule().step_up).await?;
    create(call, &user.name).await
}

async fn create(call: &OwnCall<'_>, user: &str) -> Result<OwnAnswer, Denial> {
    let identity = identified(call)?;
    let wanted: NewKey = read(&call.body)?;
    let person = call.state.directory().person(user).ok_or_else(no_such_user)?;
    let rights = call.snapshot.rights(person.role);
    for scope in &wanted.permissions {
        let known = rights.layer.scopes.iter().any(|held| authz::covers(held, scope));
        if !known || (user == identity.user() && !identity.holds(scope)) {
            let message = format!("the role `{}` does not hold the scope `{scope}`", person.role);
            return Err(Denial::new(Reason::InsufficientScope, message).param("permissions"));
        }
    }
    let now = call.state.clock().unix_secs();
    let request = KeyRequest {
        user: user.to_owned(),
        name: wanted.name,
        scopes: wanted.permissions,
        models: wanted.models,
        networks: wanted.networks,
        quota: wanted.quota,
        expires_at: wanted.expires_in.map(|seconds| now.saturating_add(seconds)),
    };
    let by = actor(call)?;
    let store = call.state.directory().store();
    let pepper = call.snapshot.pepper().ok_or_else(no_pepper)?;
    let quotas = |name: &str| call.snapshot.has_quota(name);
    let (secret, key) = manage::make_key(request, pepper, &quotas, now, &by.name)?;
    store.create_key(&key, &by).await.map_err(refused)?;
    super::take_effect(call).await;
    json(201, &json!({ "id": key.id.to_string(), "api_key": secret.expose_secret() }))
}

/// `DELETE /auth/api-keys/{id}`
pub(super) async fn revoke(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let (key, _) = find(call).await?;
    let (store, now) = (call.state.directory().store(), call.state.clock().unix_secs());
    store.revoke_key(key.id, now, &actor(call)?).await.map_err(refused)?;
    super::take_effect(call).await;
    Ok(no_content())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rotation {
    /// Seconds that the old key goes on.
    grace: u64,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { grace: GRACE }
    }
}

/// `POST /auth/api-keys/{id}/rotate`: another key with the same rights; the old one goes on for a
/// while.
pub(super) async fn rotate(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let rotation: Rotation =
        if call.body.is_empty() { Rotation::default() } else { read(&call.body)? };
    if rotation.grace > MAX_GRACE {
        return Err(invalid("it is at most 30 days, in seconds").param("grace"));
    }
    let (old, foreign) = find(call).await?;
    if foreign {
        super::step_up(call, Permission::ManageKeys.rule().step_up).await?;
    }
    let now = call.state.clock().unix_secs();
    let by = actor(call)?;
    let pepper = call.snapshot.pepper().ok_or_else(no_pepper)?;
    let (secret, new) = manage::successor(&old, pepper, now, &by.name)?;
    let until = now.saturating_add(rotation.grace);
    let store = call.state.directory().store();
    store.rotate_key(old.id, until, &new, &by).await.map_err(refused)?;
    super::take_effect(call).await;
    json(
        201,
        &json!({
            "id": new.id.to_string(),
            "api_key": secret.expose_secret(),
            "old_expires_at": until.min(old.expires_at.unwrap_or(u64::MAX)),
        }),
    )
}

/// The key that the path names, and whether it is another user's. One that the caller may not
/// manage does not exist for the caller.
async fn find(call: &OwnCall<'_>) -> Result<(Key, bool), Denial> {
    let identity = identified(call)?;
    let id: KeyId = named(call)?.parse().map_err(|_| no_such_key())?;
    let directory = call.state.directory();
    let owner = directory.key(id).and_then(|entry| directory.person(&entry.user));
    let owner = owner.ok_or_else(no_such_key)?;
    let foreign = *owner.name != *identity.user();
    let manages = || authz::permit_account(identity, Permission::ManageKeys).is_ok();
    if foreign && !(manages() && may_act_on(identity.role(), owner.role)) {
        return Err(no_such_key());
    }
    let keys = directory.store().keys(Some(&owner.name)).await.map_err(refused)?;
    let key = keys.into_iter().find(|key| key.id == id && key.revoked_at.is_none());
    Ok((key.ok_or_else(no_such_key)?, foreign))
}

fn no_such_key() -> Denial {
    Denial::new(Reason::NotFound, "there is no such API key")
}

fn no_such_user() -> Denial {
    Denial::new(Reason::NotFound, "there is no such user")
}

fn no_pepper() -> Denial {
    Denial::new(Reason::NotFound, "API keys are not configured on this gateway: secrets.key_pepper")
}
