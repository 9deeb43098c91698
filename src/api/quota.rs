//! Quotas: the caller's own, and on the admin listener those of everybody, which operators change
//! while the gateway runs.

use portcullis_filters::accounts::permission::may_act_on;
use portcullis_filters::accounts::store::{QuotaOverride, Standing};
use portcullis_filters::own::{OwnAnswer, OwnCall, OwnOutcome};
use portcullis_filters::quota::{Level, Limits};
use portcullis_filters::standing::SubjectName;
use portcullis_filters::verdict::{Denial, Reason};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{actor, identified, json, named, no_content, read, refused, take_effect};
use crate::quotas::{self, OverrideRequest};

/// The quotas of the caller: of the user and, if it is limited, of the key. `used` is null while the
/// counters cannot be reached.
pub(super) async fn of_caller(call: &OwnCall<'_>) -> Vec<Value> {
    let mut shown = Vec::new();
    for (level, subject, limits) in call.identity.into_iter().flat_map(|i| i.meters()) {
        let now_ms = call.state.clock().unix_ms();
        let limits = call.state.standing().limits(*level, *subject, limits, now_ms);
        if *level == Level::User || !limits.is_empty() {
            let consumption = call.state.counters().consumption(*subject).await.ok();
            shown.push(json!({
                "level": level.name(),
                "limits": quotas::shown_limits(&limits),
                "used": consumption.map(|consumption| quotas::shown_use(&consumption)),
                "in_flight": consumption.map(|consumption| consumption.in_flight),
            }));
        }
    }
    shown
}

/// `GET /internal/quota`
pub(super) async fn list(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    json(200, &quotas::shown_all(&standing(call).await?, call.state.clock().unix_secs()))
}

/// `GET /internal/quota/{subject}`
pub(super) async fn show(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    view(call, &subject(call)?).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    limits: Map<String, Value>,
    until: Option<u64>,
    #[serde(rename = "for")]
    lasts: Option<String>,
    reason: String,
}

/// `PUT /internal/quota/{subject}`: in force on every gateway within its interval of looking.
pub(super) async fn set(call: &OwnCall<'_>) -> OwnOutcome {
    let mut details = Vec::new();
    let result = try_set(call, &mut details).await;
    OwnOutcome { user: None, details, result }
}

/// What the audit record tells beside the target.
type Details = Vec<(&'static str, String)>;

async fn try_set(call: &OwnCall<'_>, details: &mut Details) -> Result<OwnAnswer, Denial> {
    let form: Change = read(&call.body)?;
    let (name, by, now) = (subject(call)?, actor(call)?, call.state.clock().unix_secs());
    let configured = configured(call, &name)?;
    check_below(call, &name)?;
    let request = OverrideRequest {
        subject: name.clone(),
        limits: &form.limits,
        ends_at: quotas::ends_at(form.until, form.lasts.as_deref(), now)?,
        reason: &form.reason,
    };
    let new = request.make(&configured, now, &by.name)?;
    let before = call.state.directory().store().set_override(&new, &by).await.map_err(refused)?;
    details.extend(before.as_ref().map(|before| ("before", before.told())));
    details.extend([("after", new.told()), ("reason_given", new.reason)]);
    take_effect(call).await;
    shown_or_nothing(call, &name).await
}

/// The change is made: that it cannot be shown is no failure of it.
async fn shown_or_nothing(call: &OwnCall<'_>, name: &SubjectName) -> Result<OwnAnswer, Denial> {
    Ok(view(call, name).await.unwrap_or_else(|_| no_content()))
}

/// `DELETE /internal/quota/{subject}`
pub(super) async fn unset(call: &OwnCall<'_>) -> OwnOutcome {
    let removed = try_unset(call).await;
    let details = removed.as_ref().ok().map(|before| ("before", before.told()));
    OwnOutcome {
        user: None,
        details: details.into_iter().collect(),
        result: removed.map(|_| no_content()),
    }
}

async fn try_unset(call: &OwnCall<'_>) -> Result<QuotaOverride, Denial> {
    let (name, by, now) = (subject(call)?, actor(call)?, call.state.clock().unix_secs());
    check_below(call, &name)?;
    let store = call.state.directory().store();
    let before = store.remove_override(&name, now, &by).await.map_err(refused)?;
    take_effect(call).await;
    Ok(before)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    reason: String,
}

/// `POST /internal/quota/{subject}/reset`: what the subject has used is forgotten, on every gateway;
/// what runs keeps what it holds.
pub(super) async fn reset(call: &OwnCall<'_>) -> OwnOutcome {
    let mut details = Vec::new();
    let result = try_reset(call, &mut details).await;
    OwnOutcome { user: None, details, result }
}

async fn try_reset(call: &OwnCall<'_>, details: &mut Details) -> Result<OwnAnswer, Denial> {
    let form: Reset = read(&call.body)?;
    let (name, by, now) = (subject(call)?, actor(call)?, call.state.clock().unix_secs());
    let reason = quotas::reason(&form.reason)?;
    configured(call, &name)?;
    check_below(call, &name)?;
    let store = call.state.directory().store();
    store.reset_quota(&name, &reason, now, &by).await.map_err(refused)?;
    details.push(("reason_given", reason));
    take_effect(call).await;
    shown_or_nothing(call, &name).await
}

async fn view(call: &OwnCall<'_>, name: &SubjectName) -> Result<OwnAnswer, Denial> {
    let configured = configured(call, name)?;
    let rows = standing(call).await?;
    let consumption = call.state.counters().consumption(name.subject()).await.ok();
    let now_ms = call.state.clock().unix_ms();
    json(200, &quotas::shown(name, &configured, &rows, now_ms, consumption))
}

pub(super) async fn standing(call: &OwnCall<'_>) -> Result<Standing, Denial> {
    call.state.directory().store().standing().await.map_err(refused)
}

fn subject(call: &OwnCall<'_>) -> Result<SubjectName, Denial> {
    quotas::subject(named(call)?)
}

fn configured(call: &OwnCall<'_>, name: &SubjectName) -> Result<std::sync::Arc<Limits>, Denial> {
    let limits = call.snapshot.limits_of(name, call.state.directory());
    limits.ok_or_else(|| Denial::new(Reason::NotFound, "there is no such subject"))
}

/// Limits of users, and of their keys, are changed by those who may change the users: nobody but an
/// owner changes their own.
fn check_below(call: &OwnCall<'_>, name: &SubjectName) -> Result<(), Denial> {
    let own = identified(call)?.role();
    let role = call.snapshot.role_of(name, call.state.directory());
    if role.is_some_and(|role| !may_act_on(own, role)) {
        let message = "only an owner changes limits of users of your role or above";
        return Err(Denial::new(Reason::InsufficientScope, message));
    }
    Ok(())
}
