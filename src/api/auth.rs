//! `/auth/*`: login, the caller's own account, scoped tokens, and the keys to check tokens with.

use std::collections::BTreeSet;

use portcullis_filters::accounts::login::{Account, Attempt};
use portcullis_filters::accounts::token::{IssueError, ScopedGrant};
use portcullis_filters::accounts::{Issued, TokenService};
use portcullis_filters::authn::Identity;
use portcullis_filters::authz;
use portcullis_filters::own::{OwnAnswer, OwnCall, OwnOutcome};
use portcullis_filters::verdict::{Denial, Reason};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{json, read};

/// Scopes that a scoped token may carry: those of the model APIs.
const SCOPED: &[&str] = &["llm:generate", "llm:embed", "models:read"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    username: String,
    password: SecretString,
}

#[derive(Serialize)]
struct Token<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
}

/// `POST /auth/login`
///
/// The record names the user only if there is one: people type passwords into the field for names.
pub(super) async fn login(call: OwnCall<'_>) -> OwnOutcome {
    let form: Login = match read(&call.body) {
        Ok(form) => form,
        Err(denial) => return Err(denial).into(),
    };
    let name = form.username.to_ascii_lowercase();
    let user = call.snapshot.user(&name);
    let result = check(&call, &name, form.password).await;
    OwnOutcome { user: user.map(|user| user.identity().user().to_owned()), result }
}

async fn check(
    call: &OwnCall<'_>,
    name: &str,
    password: SecretString,
) -> Result<OwnAnswer, Denial> {
    let user = call.snapshot.user(name);
    let account = user.map_or(Account::Unknown, |user| Account::Active(user.password()));
    let attempt = Attempt {
        username: name,
        account,
        decoy: call.snapshot.decoy(),
        password,
        client: call.client,
    };
    call.state.login().check(attempt).await?;
    let user = user.ok_or_else(|| Denial::new(Reason::Internal, "login failed"))?.identity();
    let issued = tokens(call)?.issue_user(user.user(), user.role()).map_err(not_issued)?;
    json(
        200,
        &Token {
            access_token: issued.token.expose_secret(),
            token_type: "bearer",
            expires_in: issued.expires_in,
        },
    )
}

/// `GET /auth/me`
pub(super) async fn me(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let identity = identified(call)?;
    let mut used = Vec::new();
    for (level, subject, _) in identity.meters() {
        let consumption = call.state.counters().consumption(*subject).await;
        used.push(json!({
            "level": level.name(),
            "tokens": {
                "minute": consumption.used.minute.tokens,
                "hour": consumption.used.hour.tokens,
                "day": consumption.used.day.tokens,
            },
            "gpu_seconds": {
                "minute": seconds(consumption.used.minute.gpu_ms),
                "hour": seconds(consumption.used.hour.gpu_ms),
                "day": seconds(consumption.used.day.gpu_ms),
            },
            "in_flight": consumption.in_flight,
        }));
    }
    json(
        200,
        &json!({
            "username": identity.user(),
            "role": identity.role(),
            "key_id": identity.key_id(),
            "expires_at": identity.expires_at(),
            "scopes": effective_scopes(identity),
            "used": used,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scoped {
    model: String,
    max_tokens: u64,
    scopes: Vec<String>,
}

/// `POST /auth/scoped-token`: never more than the caller holds.
pub(super) fn scoped_token(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let identity = identified(call)?;
    if !identity.may_mint() {
        return Err(Denial::new(
            Reason::InsufficientScope,
            "a scoped token cannot be used to make another",
        ));
    }
    let wanted: Scoped = read(&call.body)?;
    let scopes = granted_scopes(identity, wanted.scopes)?;
    let model = authz::resolve(call.snapshot, identity, &wanted.model)?;
    if wanted.max_tokens == 0 {
        return Err(invalid("it must be at least 1").param("max_tokens"));
    }
    let max_tokens =
        wanted.max_tokens.min(call.snapshot.caps().max_tokens).min(identity.max_tokens());
    let issued = tokens(call)?
        .issue_scoped(ScopedGrant {
            subject: identity.user().to_owned(),
            scopes,
            model,
            max_tokens,
            not_after: identity.expires_at(),
        })
        .map_err(not_issued)?;
    scoped_answer(&issued, max_tokens)
}

fn scoped_answer(issued: &Issued, max_tokens: u64) -> Result<OwnAnswer, Denial> {
    json(
        200,
        &json!({
            "token": issued.token.expose_secret(),
            "token_type": "bearer",
            "expires_in": issued.expires_in,
            "max_tokens": max_tokens,
        }),
    )
}

fn granted_scopes(identity: &Identity, scopes: Vec<String>) -> Result<Vec<String>, Denial> {
    if scopes.is_empty() {
        return Err(invalid("at least one scope is needed").param("scopes"));
    }
    for scope in &scopes {
        if !SCOPED.contains(&scope.as_str()) {
            let message = format!("a scoped token can have the scopes {}", SCOPED.join(", "));
            return Err(invalid(message).param("scopes"));
        }
        if !identity.holds(scope) {
            let message = format!("you do not hold the scope `{scope}`");
            return Err(Denial::new(Reason::InsufficientScope, message).param("scopes"));
        }
    }
    Ok(scopes)
}

/// `GET /.well-known/jwks.json` (RFC 7517)
pub(super) fn jwks(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    json(200, &tokens(call)?.jwks())
}

fn identified<'a>(call: &'a OwnCall<'_>) -> Result<&'a Identity, Denial> {
    call.identity
        .map(AsRef::as_ref)
        .ok_or_else(|| Denial::new(Reason::InvalidCredentials, "a valid credential is required"))
}

fn tokens<'a>(call: &'a OwnCall<'_>) -> Result<&'a TokenService, Denial> {
    call.snapshot
        .tokens()
        .ok_or_else(|| Denial::new(Reason::NotFound, "tokens are not configured on this gateway"))
}

fn not_issued(error: IssueError) -> Denial {
    match error {
        IssueError::Expired => {
            Denial::new(Reason::InvalidCredentials, "a valid credential is required")
                .detail("expired while a token was made")
        }
        IssueError::Claims => invalid("the token would be too large"),
        IssueError::Signing => Denial::new(Reason::Internal, "the token could not be made"),
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Denial {
    Denial::new(Reason::InvalidRequest, message)
}
