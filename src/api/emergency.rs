//! Tighter limits for everybody, for a while.

use portcullis_filters::accounts::store::EmergencyLimits;
use portcullis_filters::own::{OwnAnswer, OwnCall, OwnOutcome};
use portcullis_filters::verdict::Denial;
use serde::Deserialize;

use super::quota::standing;
use super::{actor, json, read, refused, take_effect};
use crate::emergency::{self, LimitsRequest};

/// `GET /internal/security/emergency-rate-limit`
pub(super) async fn show(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    status(call, standing(call).await?.emergency.as_ref())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    requests_per_minute: Option<u32>,
    requests_per_minute_per_address: Option<u32>,
    window_minutes: Option<u64>,
    reason: String,
}

/// `POST /internal/security/emergency-rate-limit`: in force on every gateway within its interval of
/// looking.
pub(super) async fn set(call: &OwnCall<'_>) -> OwnOutcome {
    let mut details = Vec::new();
    let result = try_set(call, &mut details).await;
    OwnOutcome { user: None, details, result }
}

async fn try_set(
    call: &OwnCall<'_>,
    details: &mut Vec<(&'static str, String)>,
) -> Result<OwnAnswer, Denial> {
    let form: Wanted = read(&call.body)?;
    let request = LimitsRequest {
        per_user: form.requests_per_minute.unwrap_or(emergency::PER_USER),
        per_address: form.requests_per_minute_per_address.unwrap_or(emergency::PER_ADDRESS),
        minutes: form.window_minutes.unwrap_or(emergency::MINUTES),
        reason: &form.reason,
    };
    let by = actor(call)?;
    let new = request.make(call.state.clock().unix_secs(), &by.name)?;
    let before = call.state.directory().store().set_emergency(&new, &by).await.map_err(refused)?;
    details.extend(before.map(|before| ("before", before.told())));
    details.extend([("after", new.told()), ("reason_given", new.reason.clone())]);
    take_effect(call).await;
    status(call, Some(&new))
}

/// `DELETE /internal/security/emergency-rate-limit`: also if there are none.
pub(super) async fn clear(call: &OwnCall<'_>) -> OwnOutcome {
    let mut details = Vec::new();
    let result = try_clear(call, &mut details).await;
    OwnOutcome { user: None, details, result }
}

async fn try_clear(
    call: &OwnCall<'_>,
    details: &mut Vec<(&'static str, String)>,
) -> Result<OwnAnswer, Denial> {
    let (by, now) = (actor(call)?, call.state.clock().unix_secs());
    let store = call.state.directory().store();
    let before = store.clear_emergency(now, &by).await.map_err(refused)?;
    details.extend(before.map(|before| ("before", before.told())));
    take_effect(call).await;
    status(call, None)
}

fn status(call: &OwnCall<'_>, limits: Option<&EmergencyLimits>) -> Result<OwnAnswer, Denial> {
    json(200, &emergency::shown_limits(limits, call.state.clock().unix_secs()))
}
