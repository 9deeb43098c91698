//! A strict firewall for everybody, for a while or until it is taken back.

use portcullis_filters::accounts::store::StrictFirewall;
use portcullis_filters::own::{OwnAnswer, OwnCall, OwnOutcome};
use portcullis_filters::verdict::Denial;
use serde::Deserialize;

use super::quota::standing;
use super::{actor, invalid, json, read, refused, take_effect};
use crate::emergency::{self, FirewallRequest};
use crate::quotas;

/// What the audit record of a change tells.
type Details = Vec<(&'static str, String)>;

/// `GET /internal/security/enhance-sanitization`
pub(super) async fn show(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    status(call, standing(call).await?.firewall.as_ref())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    level: Level,
    window_minutes: Option<u64>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Strict,
    Off,
}

/// `POST /internal/security/enhance-sanitization`: in force on every gateway within its interval of
/// looking.
pub(super) async fn set(call: &OwnCall<'_>) -> OwnOutcome {
    let mut details = Details::new();
    let result = try_set(call, &mut details).await;
    OwnOutcome { user: None, details, result }
}

async fn try_set(call: &OwnCall<'_>, details: &mut Details) -> Result<OwnAnswer, Denial> {
    let form: Wanted = read(&call.body)?;
    match (form.level, form.window_minutes) {
        (Level::Strict, minutes) => {
            tighten(call, FirewallRequest { minutes, reason: &form.reason }, details).await
        }
        (Level::Off, None) => {
            let reason = quotas::reason(&form.reason)?;
            take_back(call, Some(reason), details).await
        }
        (Level::Off, Some(_)) => Err(invalid("what is off has no end").param("window_minutes")),
    }
}

async fn tighten(
    call: &OwnCall<'_>,
    request: FirewallRequest<'_>,
    details: &mut Details,
) -> Result<OwnAnswer, Denial> {
    let by = actor(call)?;
    let new = request.make(call.state.clock().unix_secs(), &by.name)?;
    let store = call.state.directory().store();
    let before = store.set_strict_firewall(&new, &by).await.map_err(refused)?;
    details.extend(before.map(|before| ("before", before.told())));
    details.extend([("after", new.told()), ("reason_given", new.reason.clone())]);
    take_effect(call).await;
    status(call, Some(&new))
}

/// `DELETE /internal/security/enhance-sanitization`: also if it is off.
pub(super) async fn clear(call: &OwnCall<'_>) -> OwnOutcome {
    let mut details = Details::new();
    let result = take_back(call, None, &mut details).await;
    OwnOutcome { user: None, details, result }
}

async fn take_back(
    call: &OwnCall<'_>,
    reason: Option<String>,
    details: &mut Details,
) -> Result<OwnAnswer, Denial> {
    let (by, now) = (actor(call)?, call.state.clock().unix_secs());
    let store = call.state.directory().store();
    let clearing = store.clear_strict_firewall(reason.as_deref(), now, &by);
    let before = clearing.await.map_err(refused)?;
    details.extend(before.map(|before| ("before", before.told())));
    details.extend(reason.map(|reason| ("reason_given", reason)));
    take_effect(call).await;
    status(call, None)
}

fn status(call: &OwnCall<'_>, firewall: Option<&StrictFirewall>) -> Result<OwnAnswer, Denial> {
    json(200, &emergency::shown_firewall(firewall, call.state.clock().unix_secs()))
}
