//! Scoped tokens, and the keys to check tokens with.

use portcullis_filters::accounts::Verified;
use portcullis_filters::accounts::permission::Credential;
use portcullis_filters::accounts::store::StoreError;
use portcullis_filters::accounts::token::{Issued, ScopedGrant};
use portcullis_filters::authn::Identity;
use portcullis_filters::authz;
use portcullis_filters::own::{OwnAnswer, OwnCall};
use portcullis_filters::verdict::{Denial, Reason};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use super::{actor, identified, invalid, json, no_content, read, refused, tokens};

/// Scopes that a scoped token may carry: those of the model APIs.
const SCOPED: &[&str] = &["llm:generate", "llm:embed", "models:read"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scoped {
    model: String,
    max_tokens: u64,
    scopes: Vec<String>,
    /// Works once.
    #[serde(default)]
    single_use: bool,
    /// Works from the caller's address only.
    #[serde(default)]
    bind_address: bool,
}

/// `POST /auth/scoped-token`: never more than the caller holds.
pub(super) fn scoped_token(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let identity = identified(call)?;
    let wanted: Scoped = read(&call.body)?;
    let proof = identity.proof();
    let (Some(user), Credential::Login | Credential::Key) = (&proof.user, identity.credential())
    else {
        let message = "scoped tokens are made by users and API keys of this gateway";
        return Err(Denial::new(Reason::InsufficientScope, message));
    };
    let person = call.state.directory().person(user);
    let epoch = proof.epoch.or(person.map(|person| person.epoch)).unwrap_or_default();
    let scopes = granted_scopes(identity, wanted.scopes)?;
    let model = authz::resolve(call.snapshot, identity, &wanted.model)?;
    if wanted.max_tokens == 0 {
        return Err(invalid("it must be at least 1").param("max_tokens"));
    }
    let max_tokens =
        wanted.max_tokens.min(call.snapshot.caps().max_tokens).min(identity.max_tokens());
    let issued = tokens(call)?.issue_scoped(ScopedGrant {
        subject: identity.user().to_owned(),
        epoch,
        session: identity.session().map(str::to_owned),
        key: proof.key.map(|id| id.to_string()),
        scopes,
        model,
        max_tokens,
        address: wanted.bind_address.then_some(call.client),
        once: wanted.single_use,
        not_after: identity.expires_at(),
    })?;
    answer(&issued, max_tokens)
}

fn answer(issued: &Issued, max_tokens: u64) -> Result<OwnAnswer, Denial> {
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    token: SecretString,
}

/// `POST /auth/revoke`: ends a token of one's own (in the manner of RFC 7009: one that is void
/// already is no error).
pub(super) async fn revoke(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let identity = identified(call)?;
    let held: Held = read(&call.body)?;
    let (store, by) = (call.state.directory().store(), actor(call)?);
    let revoked = match of_this_user(call, identity.user(), held.token.expose_secret()).await {
        None => return Ok(no_content()),
        Some(Void::Session(id)) => {
            let now = call.state.clock().unix_secs();
            store.revoke_session(identity.user(), &id, now, &by).await
        }
        Some(Void::Token(id, until)) => store.revoke_token(&id, until, &by).await,
    };
    match revoked {
        Ok(()) | Err(StoreError::NotFound) => {}
        Err(error) => return Err(refused(error)),
    }
    super::take_effect(call).await;
    Ok(no_content())
}

/// What a token ends with.
enum Void {
    /// The session, and all that was made in it.
    Session(String),
    /// The token alone, which expires then.
    Token(String, u64),
}

/// What is to be revoked, if the token is genuine and this user's.
async fn of_this_user(call: &OwnCall<'_>, user: &str, token: &str) -> Option<Void> {
    if let Some(issuers) = call.snapshot.issuers().filter(|issuers| issuers.recognises(token)) {
        let external = issuers.verify(token).await.ok()?;
        let until = external.expires_at;
        return (external.subject == user).then(|| Void::Token(external.id.clone(), until));
    }
    let verified = call.snapshot.tokens()?.verify(token).ok()?;
    let life = verified.life();
    let void = match &*verified {
        Verified::User(_) => Void::Session(life.id.clone()),
        Verified::Scoped(_) => Void::Token(life.id.clone(), life.expires_at),
    };
    (verified.subject() == user).then_some(void)
}

/// `GET /.well-known/jwks.json` (RFC 7517)
pub(super) fn jwks(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    json(200, &tokens(call)?.jwks())
}
