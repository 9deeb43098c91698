//! Users, for those who manage them; and the end of everything, for an owner.

use portcullis_filters::accounts::known_name;
use portcullis_filters::accounts::permission::{Permission, StepUp, may_act_on, may_grant};
use portcullis_filters::accounts::store::{NewUser, Source, User, UserChange};
use portcullis_filters::own::{OwnAnswer, OwnCall, OwnOutcome};
use portcullis_filters::verdict::{Denial, Reason};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::auth::role;
use super::{actor, identified, invalid, json, named, no_content, read, refused, step_up};
use crate::{manage, quotas};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Register {
    username: String,
    password: SecretString,
    role: Option<String>,
    email: Option<SecretString>,
}

/// `POST /auth/register`
pub(super) async fn register(call: &OwnCall<'_>) -> OwnOutcome {
    let form: Register = match read(&call.body) {
        Ok(form) => form,
        Err(denial) => return Err(denial).into(),
    };
    let target = manage::account_name(&form.username).ok();
    let result = create(call, form).await;
    OwnOutcome {
        user: None,
        details: target.map(|name| ("target", name)).into_iter().collect(),
        result,
    }
}

async fn create(call: &OwnCall<'_>, form: Register) -> Result<OwnAnswer, Denial> {
    let identity = identified(call)?;
    let role = role(form.role.as_deref().unwrap_or("user"))?;
    if !may_grant(identity.role(), role) {
        return Err(above(identity.role().as_str()));
    }
    let name = manage::account_name(&form.username)?;
    let hash = super::hash_new(call, &name, form.password).await?;
    let user = NewUser {
        name,
        role,
        password_hash: Some(hash),
        email: form.email.map(manage::email).transpose()?,
        source: Source::Store,
    };
    let (store, now) = (call.state.directory().store(), call.state.clock().unix_secs());
    let user = store.create_user(user, now, &actor(call)?).await.map_err(refused)?;
    super::take_effect(call).await;
    json(201, &manage::shown_user(&user))
}

/// `GET /auth/users`
pub(super) async fn list(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let users = call.state.directory().store().users().await.map_err(refused)?;
    let list: Vec<Value> = users.iter().map(manage::shown_user).collect();
    json(200, &json!({ "users": list }))
}

/// `GET /auth/users/{name}`
pub(super) async fn show(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let user = find(call).await?;
    let mut shown = manage::shown_user(&user);
    let email = call.state.directory().store().email(&user.name).await.map_err(refused)?;
    if let (Some(email), Some(shown)) = (email, shown.as_object_mut()) {
        shown.insert("email".to_owned(), email.expose_secret().into());
    }
    json(200, &shown)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    disabled: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    email: Option<Option<SecretString>>,
}

/// Tells `null` from a member that is not there.
fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<SecretString>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// `PATCH /auth/users/{name}`: disabling takes effect on every gateway at once.
pub(super) async fn change(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let form: Change = read(&call.body)?;
    let user = find_below(call).await?;
    if form.disabled == Some(true) {
        refuse_own(call, &user, "you cannot disable yourself")?;
    }
    let email = match form.email {
        Some(Some(email)) => Some(Some(manage::email(email)?)),
        other => other,
    };
    let change = UserChange { disabled: form.disabled, email, ..UserChange::default() };
    update(call, &user.name, change).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRole {
    role: String,
}

/// `POST /auth/users/{name}/role`, with a step-up.
pub(super) async fn set_role(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let form: NewRole = read(&call.body)?;
    let role = role(&form.role)?;
    let identity = identified(call)?;
    if !may_grant(identity.role(), role) {
        return Err(above(identity.role().as_str()));
    }
    let user = find_below(call).await?;
    step_up(call, Permission::ChangeRoles.rule().step_up).await?;
    update(call, &user.name, UserChange { role: Some(role), ..UserChange::default() }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    password: SecretString,
}

/// `POST /auth/users/{name}/password`: ends every session of the user.
pub(super) async fn set_password(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let form: NewPassword = read(&call.body)?;
    let user = find_below(call).await?;
    refuse_own(call, &user, "change your own password with the old one: POST /auth/password")?;
    let hash = super::hash_new(call, &user.name, form.password).await?;
    let change = UserChange { password_hash: Some(hash), ..UserChange::default() };
    update(call, &user.name, change).await
}

async fn update(call: &OwnCall<'_>, name: &str, change: UserChange) -> Result<OwnAnswer, Denial> {
    let (store, now) = (call.state.directory().store(), call.state.clock().unix_secs());
    let user = store.update_user(name, change, now, &actor(call)?).await.map_err(refused)?;
    super::take_effect(call).await;
    json(200, &manage::shown_user(&user))
}

/// `DELETE /auth/users/{name}`
pub(super) async fn delete(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let user = find_below(call).await?;
    refuse_own(call, &user, "you cannot remove yourself")?;
    let (store, now) = (call.state.directory().store(), call.state.clock().unix_secs());
    store.delete_user(&user.name, now, &actor(call)?).await.map_err(refused)?;
    super::take_effect(call).await;
    Ok(no_content())
}

/// `POST /auth/users/{name}/revoke`: every session and token; keys stay.
pub(super) async fn revoke(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let user = find_below(call).await?;
    let (store, now) = (call.state.directory().store(), call.state.clock().unix_secs());
    let revoked = store.revoke_user(&user.name, now, &actor(call)?).await.map_err(refused)?;
    super::take_effect(call).await;
    json(200, &json!({ "status": "success", "revoked_sessions": revoked.sessions }))
}

/// `GET /auth/users/{name}/sessions`
pub(super) async fn sessions(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    super::auth::sessions_of(call, &find(call).await?.name, None).await
}

/// `POST /auth/users/{name}/mfa/reset`
pub(super) async fn reset_mfa(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let user = find_below(call).await?;
    refuse_own(call, &user, "take your own factor away with a code: POST /auth/mfa/disable")?;
    let (store, now) = (call.state.directory().store(), call.state.clock().unix_secs());
    store.remove_mfa(&user.name, now, &actor(call)?).await.map_err(refused)?;
    super::take_effect(call).await;
    Ok(no_content())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Emergency {
    reason: String,
    revoke_all: bool,
}

/// `POST /auth/emergency-revoke`: every session, token and key, of everyone.
pub(super) async fn emergency_revoke(call: &OwnCall<'_>) -> OwnOutcome {
    let form: Emergency = match read(&call.body) {
        Ok(form) => form,
        Err(denial) => return Err(denial).into(),
    };
    let reason = match quotas::reason(&form.reason) {
        Ok(reason) => reason,
        Err(denial) => return Err(denial).into(),
    };
    let result = revoke_everything(call, form.revoke_all, &reason).await;
    OwnOutcome { user: None, details: vec![("reason_given", reason)], result }
}

async fn revoke_everything(
    call: &OwnCall<'_>,
    revoke_all: bool,
    reason: &str,
) -> Result<OwnAnswer, Denial> {
    if !revoke_all {
        return Err(invalid("it must be true: this call revokes everything").param("revoke_all"));
    }
    step_up(call, StepUp::Always).await?;
    let (store, now) = (call.state.directory().store(), call.state.clock().unix_secs());
    let environment = call.snapshot.environment_ids();
    let by = actor(call)?;
    let revoking = manage::revoke_everything(store.as_ref(), environment, reason, now, &by);
    let revoked = revoking.await.map_err(refused)?;
    super::take_effect(call).await;
    json(
        200,
        &json!({
            "status": "success",
            "revoked_keys": revoked.keys,
            "revoked_tokens": revoked.sessions,
            "revoked_users": revoked.users,
        }),
    )
}

/// The user that the path names.
pub(super) async fn find(call: &OwnCall<'_>) -> Result<User, Denial> {
    let name = known_name(named(call)?).ok_or_else(no_such_user)?;
    let user = call.state.directory().store().user(&name).await.map_err(refused)?;
    user.ok_or_else(no_such_user)
}

/// The same, if the caller may act on them.
pub(super) async fn find_below(call: &OwnCall<'_>) -> Result<User, Denial> {
    let identity = identified(call)?;
    let user = find(call).await?;
    if !may_act_on(identity.role(), user.role) {
        let message = "only an owner changes users of your role or above";
        return Err(Denial::new(Reason::InsufficientScope, message));
    }
    Ok(user)
}

/// Owners may act on everyone. On themselves they show what a stolen session does not have.
fn refuse_own(call: &OwnCall<'_>, user: &User, message: &'static str) -> Result<(), Denial> {
    match user.name == identified(call)?.user() {
        true => Err(Denial::new(Reason::Conflict, message)),
        false => Ok(()),
    }
}

fn above(role: &str) -> Denial {
    let message = format!("a role above your own (`{role}`) cannot be given");
    Denial::new(Reason::InsufficientScope, message).param("role")
}

fn no_such_user() -> Denial {
    Denial::new(Reason::NotFound, "there is no such user")
}
