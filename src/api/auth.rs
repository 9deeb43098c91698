//! Login and logout, and what callers see and end of their own: account, password, sessions.

use std::collections::BTreeSet;

use portcullis_filters::accounts::AccountRole;
use portcullis_filters::accounts::login::{Attempt, Rehash};
use portcullis_filters::accounts::store::{Session, User, UserChange};
use portcullis_filters::accounts::token::{Issued, UserGrant};
use portcullis_filters::authn::Identity;
use portcullis_filters::authz;
use portcullis_filters::own::{OwnAnswer, OwnCall, OwnOutcome};
use portcullis_filters::verdict::{Denial, Reason};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{actor, identified, json, named, no_content, read, refused, tokens};
use crate::manage;

/// Bytes of a `User-Agent` that are kept of a login.
const DEVICE: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    username: String,
    password: SecretString,
    mfa_code: Option<String>,
}

#[derive(Serialize)]
struct Token<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    mfa_enrolment_required: bool,
}

/// `POST /auth/login`
///
/// The record names the user only if there is one: people type passwords into the field for names.
pub(super) async fn login(call: &OwnCall<'_>) -> OwnOutcome {
    let form: Login = match read(&call.body) {
        Ok(form) => form,
        Err(denial) => return Err(denial).into(),
    };
    let name = form.username.to_ascii_lowercase();
    let known = call.state.directory().person(&name).map(|person| person.name.to_string());
    let result = check(call, &name, form).await;
    let user = known.or_else(|| result.is_ok().then_some(name));
    OwnOutcome { user, details: Vec::new(), result }
}

async fn check(call: &OwnCall<'_>, name: &str, form: Login) -> Result<OwnAnswer, Denial> {
    let attempt = Attempt {
        username: name,
        password: form.password,
        mfa_code: form.mfa_code.as_deref(),
        client: call.client,
    };
    let store = call.state.directory().store();
    let entered = call.state.login().login(store.as_ref(), attempt).await?;
    if let Rehash::Failed(why) = &entered.rehash {
        tracing::warn!(why, "a password hash that is weaker than new ones could not be replaced");
    }
    let user = entered.user;
    let grant = UserGrant {
        subject: user.name.clone(),
        role: user.role,
        epoch: user.epoch,
        mfa: entered.mfa,
    };
    let issued = tokens(call)?.issue_user(grant)?;
    let session = session(call, &user, &issued, entered.mfa);
    store.open_session(&session).await.map_err(refused)?;
    json(
        200,
        &Token {
            access_token: issued.token.expose_secret(),
            token_type: "bearer",
            expires_in: issued.expires_in,
            mfa_enrolment_required: !entered.mfa && call.snapshot.needs_mfa(user.role),
        },
    )
}

fn session(call: &OwnCall<'_>, user: &User, issued: &Issued, mfa: bool) -> Session {
    let mut device = call.user_agent.to_owned();
    device.truncate(device.floor_char_boundary(DEVICE));
    Session {
        id: issued.id.clone(),
        user: user.name.clone(),
        created_at: issued.issued_at,
        last_seen_at: issued.issued_at,
        expires_at: issued.expires_at,
        address: call.client,
        device,
        mfa,
    }
}

/// `POST /auth/logout`
pub(super) async fn logout(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let identity = identified(call)?;
    let session = identity.session().ok_or_else(no_session)?;
    end_session(call, identity.user(), session).await
}

fn no_session() -> Denial {
    Denial::new(Reason::InvalidRequest, "the login is not of this gateway: end it where it began")
}

/// `DELETE /auth/sessions/{id}`
pub(super) async fn revoke_session(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    end_session(call, identified(call)?.user(), named(call)?).await
}

async fn end_session(call: &OwnCall<'_>, user: &str, id: &str) -> Result<OwnAnswer, Denial> {
    let (store, now) = (call.state.directory().store(), call.state.clock().unix_secs());
    store.revoke_session(user, id, now, &actor(call)?).await.map_err(refused)?;
    super::take_effect(call).await;
    Ok(no_content())
}

/// `GET /auth/sessions`
pub(super) async fn sessions(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let identity = identified(call)?;
    sessions_of(call, identity.user(), identity.session()).await
}

/// The sessions of a user; `current` is the one that asks.
pub(super) async fn sessions_of(
    call: &OwnCall<'_>,
    user: &str,
    current: Option<&str>,
) -> Result<OwnAnswer, Denial> {
    let (store, now) = (call.state.directory().store(), call.state.clock().unix_secs());
    // So that "last seen" is up to date for whoever looks.
    drop(call.state.directory().write_touches().await);
    let sessions = store.sessions(user, now).await.map_err(refused)?;
    let shown = |session: &Session| {
        let mut shown = manage::shown_session(session);
        if let Some(members) = shown.as_object_mut() {
            let is_current = current == Some(session.id.as_str());
            members.insert("current".to_owned(), is_current.into());
        }
        shown
    };
    let list: Vec<Value> = sessions.iter().map(shown).collect();
    json(200, &json!({ "sessions": list }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    old_password: SecretString,
    new_password: SecretString,
    mfa_code: Option<String>,
}

/// `POST /auth/password`: ends every session of the caller, this one too.
pub(super) async fn password(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let identity = identified(call)?;
    let form: NewPassword = read(&call.body)?;
    let attempt = Attempt {
        username: identity.user(),
        password: form.old_password,
        mfa_code: form.mfa_code.as_deref(),
        client: call.client,
    };
    let store = call.state.directory().store();
    call.state.login().login(store.as_ref(), attempt).await?;
    let hash = super::hash_new(call, identity.user(), form.new_password).await?;
    let change = UserChange { password_hash: Some(hash), ..UserChange::default() };
    let now = call.state.clock().unix_secs();
    let changed = store.update_user(identity.user(), change, now, &actor(call)?).await;
    changed.map_err(refused)?;
    super::take_effect(call).await;
    Ok(no_content())
}

/// `GET /auth/me`
pub(super) async fn me(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let identity = identified(call)?;
    let mfa = call.state.directory().person(identity.user()).is_some_and(|person| person.mfa);
    json(
        200,
        &json!({
            "username": identity.user(),
            "role": identity.role(),
            "key_id": identity.key_id(),
            "session_id": identity.session(),
            "expires_at": identity.expires_at(),
            "scopes": effective_scopes(identity),
            "mfa_enabled": mfa,
            "mfa_enrolment_required": identity.must_enrol(),
            "quotas": super::quota::of_caller(call).await,
        }),
    )
}

/// What the role, and the key or token, both allow.
fn effective_scopes(identity: &Identity) -> BTreeSet<&str> {
    let held_by_all = |scope: &str| {
        identity.scopes().all(|layer| layer.iter().any(|held| authz::covers(held, scope)))
    };
    identity.scopes().flatten().map(String::as_str).filter(|scope| held_by_all(scope)).collect()
}

/// A role by its name in a request.
pub(super) fn role(name: &str) -> Result<AccountRole, Denial> {
    name.parse().map_err(|_| {
        Denial::new(Reason::InvalidRequest, "the role is one of owner, admin, user, read_only")
            .param("role")
    })
}
