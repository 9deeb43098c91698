//! The gateway's own endpoints.

mod auth;
mod emergency;
mod health;
mod keys;
mod mfa;
mod quota;
mod sanitization;
pub(crate) mod scan;
mod tokens;
mod users;

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use portcullis_filters::accounts::TokenService;
use portcullis_filters::accounts::permission::StepUp;
use portcullis_filters::accounts::store::Actor;
use portcullis_filters::audit::{AuditRecord, Operation, Status};
use portcullis_filters::authn::Identity;
use portcullis_filters::own::{OwnAnswer, OwnApi, OwnCall, OwnOutcome};
use portcullis_filters::surface::OwnOp;
use portcullis_filters::verdict::{Denial, Reason};
use portcullis_filters::{State, json::Json};
use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::boot::BootError;
pub(crate) use crate::manage::refused;

/// The description of the own endpoints (OpenAPI 3.1).
pub const OPENAPI: &str = include_str!("../../docs/openapi.json");

/// Serves every own endpoint.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Api;

#[async_trait]
impl OwnApi for Api {
    async fn call(&self, call: OwnCall<'_>) -> OwnOutcome {
        let target = call.named.map(|named| ("target", named.to_owned()));
        let mut outcome = serve(&call).await;
        outcome.details.extend(target);
        outcome
    }
}

#[rustfmt::skip] // a table: one endpoint a row
async fn serve(call: &OwnCall<'_>) -> OwnOutcome {
    match call.op {
        OwnOp::Login => auth::login(call).await,
        OwnOp::Logout => auth::logout(call).await.into(),
        OwnOp::Me => auth::me(call).await.into(),
        OwnOp::Password => auth::password(call).await.into(),
        OwnOp::Sessions => auth::sessions(call).await.into(),
        OwnOp::SessionRevoke => auth::revoke_session(call).await.into(),
        OwnOp::ScopedToken => tokens::scoped_token(call).into(),
        OwnOp::TokenRevoke => tokens::revoke(call).await.into(),
        OwnOp::MfaEnable => mfa::enable(call).await.into(),
        OwnOp::MfaConfirm => mfa::confirm(call).await.into(),
        OwnOp::MfaDisable => mfa::disable(call).await.into(),
        OwnOp::Keys => keys::list_own(call).await.into(),
        OwnOp::KeyCreate => keys::create_own(call).await.into(),
        OwnOp::KeyRevoke => keys::revoke(call).await.into(),
        OwnOp::KeyRotate => keys::rotate(call).await.into(),
        OwnOp::Register => users::register(call).await,
        OwnOp::Users => users::list(call).await.into(),
        OwnOp::UserShow => users::show(call).await.into(),
        OwnOp::UserChange => users::change(call).await.into(),
        OwnOp::UserDelete => users::delete(call).await.into(),
        OwnOp::UserRole => users::set_role(call).await.into(),
        OwnOp::UserPassword => users::set_password(call).await.into(),
        OwnOp::UserRevoke => users::revoke(call).await.into(),
        OwnOp::UserMfaReset => users::reset_mfa(call).await.into(),
        OwnOp::UserSessions => users::sessions(call).await.into(),
        OwnOp::UserKeys => keys::list_of(call).await.into(),
        OwnOp::UserKeyCreate => keys::create_for(call).await.into(),
        OwnOp::EmergencyRevoke => users::emergency_revoke(call).await,
        OwnOp::Quotas => quota::list(call).await.into(),
        OwnOp::QuotaShow => quota::show(call).await.into(),
        OwnOp::QuotaSet => quota::set(call).await,
        OwnOp::QuotaUnset => quota::unset(call).await,
        OwnOp::QuotaReset => quota::reset(call).await,
        OwnOp::EmergencyLimits => emergency::show(call).await.into(),
        OwnOp::EmergencyLimitsSet => emergency::set(call).await,
        OwnOp::EmergencyLimitsClear => emergency::clear(call).await,
        OwnOp::Sanitization => sanitization::show(call).await.into(),
        OwnOp::SanitizationSet => sanitization::set(call).await,
        OwnOp::SanitizationClear => sanitization::clear(call).await,
        OwnOp::Scan => scan::scan(call).await.into(),
        OwnOp::Jwks => tokens::jwks(call).into(),
        OwnOp::OpenApi => Ok(answer("application/json", OPENAPI.as_bytes().to_vec())).into(),
        OwnOp::Live => json(200, &health::Live::default()).into(),
        OwnOp::Ready => health::ready(call).into(),
        OwnOp::Health => health::health(call).into(),
        OwnOp::Metrics => Ok(answer("text/plain; version=0.0.4", health::metrics(call).into_bytes())).into(),
    }
}

/// Who calls. The journey has identified whoever calls an endpoint that is not open.
fn identified<'a>(call: &'a OwnCall<'_>) -> Result<&'a Identity, Denial> {
    call.identity
        .map(AsRef::as_ref)
        .ok_or_else(|| Denial::new(Reason::InvalidCredentials, "a valid credential is required"))
}

/// The user or id that the path names.
fn named<'a>(call: &'a OwnCall<'_>) -> Result<&'a str, Denial> {
    call.named.ok_or_else(|| Denial::new(Reason::NotFound, "there is no such endpoint"))
}

/// Who makes a change. The audit record of the call tells of it.
fn actor(call: &OwnCall<'_>) -> Result<Actor, Denial> {
    Ok(Actor { name: identified(call)?.user().to_owned(), unrecorded: false })
}

fn tokens<'a>(call: &'a OwnCall<'_>) -> Result<&'a TokenService, Denial> {
    call.snapshot
        .tokens()
        .ok_or_else(|| Denial::new(Reason::NotFound, "tokens are not configured on this gateway"))
}

/// Asks for a fresh code of the second factor (`X-MFA-Code`), where the table says so.
async fn step_up(call: &OwnCall<'_>, needed: StepUp) -> Result<(), Denial> {
    match needed {
        StepUp::No => Ok(()),
        StepUp::Always => {
            let (user, store) = (identified(call)?.user(), call.state.directory().store());
            call.state.login().step_up(store.as_ref(), user, call.mfa_code, call.client).await
        }
    }
}

/// Judges and hashes a new password, in the queue of the logins.
async fn hash_new(
    call: &OwnCall<'_>,
    user: &str,
    password: SecretString,
) -> Result<String, Denial> {
    let blocklist = Arc::clone(call.snapshot.blocklist());
    call.state.login().hash_new(user, password, blocklist).await
}

/// A change is in force on this gateway before it is answered, and on the others within their
/// interval of looking. It is in the store: a look that fails now succeeds later.
async fn take_effect(call: &OwnCall<'_>) {
    if let Err(error) = call.state.look().await {
        tracing::warn!(%error, "a change of accounts is stored, but not in force yet");
    }
}

const fn no_content() -> OwnAnswer {
    OwnAnswer { status: 204, content_type: "application/json", body: Vec::new() }
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Denial {
    Denial::new(Reason::InvalidRequest, message)
}

/// Leaves a record of a reload, as of any change of the configuration.
pub fn record_reload(state: &State, error: Option<&BootError>) {
    let status = if error.is_some() { Status::Failure } else { Status::Success };
    let mut record = AuditRecord::new(state.clock(), Operation::Configuration, status);
    record.reason = Some("config_reload");
    if let Some(error) = error {
        record.detail("error", error.to_string());
    }
    state.audit().record(record);
}

fn answer(content_type: &'static str, body: Vec<u8>) -> OwnAnswer {
    OwnAnswer { status: 200, content_type, body }
}

fn json(status: u16, value: &impl Serialize) -> Result<OwnAnswer, Denial> {
    let body = serde_json::to_vec(value)
        .map_err(|error| Denial::new(Reason::Internal, "no answer").detail(error.to_string()))?;
    Ok(OwnAnswer { status, content_type: "application/json", body })
}

/// Reads a body: strictly, like any other, and then into a type that knows all its members.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Denial> {
    let strict = Json::parse(body)?.to_bytes();
    serde_json::from_slice(&strict).map_err(|error| {
        // Serde's text names members and types of ours, and may quote a value: only its kind is
        // told.
        let message = match error.classify() {
            serde_json::error::Category::Data => {
                "a member is missing, unknown or of the wrong type"
            }
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => "the body is not acceptable JSON",
        };
        Denial::new(Reason::InvalidRequest, message)
    })
}
