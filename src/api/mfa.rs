//! The second factor of a caller: set up, confirmed, taken away.

use portcullis_filters::own::{OwnAnswer, OwnCall};
use portcullis_filters::verdict::Denial;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::json;

use super::{actor, identified, json, no_content, read, refused};
use crate::manage;

/// `POST /auth/mfa/enable`: shows secret and backup codes once. The factor counts from when it is
/// confirmed.
pub(super) async fn enable(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let identity = identified(call)?;
    let store = call.state.directory().store();
    let issuer = call.snapshot.mfa_issuer();
    let (now, by) = (call.state.clock().unix_secs(), actor(call)?);
    let beginning = manage::begin_mfa(store.as_ref(), issuer, identity.user(), now, &by);
    let enrolment = beginning.await?;
    let codes: Vec<&str> = enrolment.codes.iter().map(ExposeSecret::expose_secret).collect();
    json(
        200,
        &json!({
            "secret": enrolment.secret.expose_secret(),
            "provisioning_uri": enrolment.uri.expose_secret(),
            "qr_svg": enrolment.qr_svg(),
            "backup_codes": codes,
        }),
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Code {
    code: String,
}

/// `POST /auth/mfa/confirm`: proves that the app shows the right codes.
pub(super) async fn confirm(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let identity = identified(call)?;
    let Code { code } = read(&call.body)?;
    let store = call.state.directory().store();
    call.state.login().confirm_mfa(store.as_ref(), identity.user(), &code, call.client).await?;
    super::take_effect(call).await;
    json(200, &json!({ "mfa_enabled": true }))
}

/// `POST /auth/mfa/disable`: with a code, so that a stolen session cannot. Whose role needs a second
/// factor can do nothing at the next login but set up another.
pub(super) async fn disable(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let identity = identified(call)?;
    let Code { code } = read(&call.body)?;
    let store = call.state.directory().store();
    call.state.login().step_up(store.as_ref(), identity.user(), Some(&code), call.client).await?;
    let now = call.state.clock().unix_secs();
    store.remove_mfa(identity.user(), now, &actor(call)?).await.map_err(refused)?;
    super::take_effect(call).await;
    Ok(no_content())
}
