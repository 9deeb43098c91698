//! Limits as operators see and change them, through the endpoints and on the command line alike:
//! overrides are made and judged here, whoever asks.

use std::borrow::Cow;
use std::sync::Arc;

use portcullis_filters::accounts::store::{EmergencyLimits, QuotaOverride, Standing};
use portcullis_filters::config::{self, Quota};
use portcullis_filters::quota::{Charge, Consumption, Limits, Meter, Resource, Spent, Window};
use portcullis_filters::standing::{self, SubjectName};
use portcullis_filters::verdict::{Denial, Reason};
use serde_json::{Map, Value, json};

/// Characters of a reason.
const MAX_REASON: usize = 500;
/// The most of a limit, as in the configuration.
const MAX_LIMIT: u64 = 1_000_000_000_000;

/// The subject of a name such as `user/alice`.
pub(crate) fn subject(text: &str) -> Result<SubjectName, Denial> {
    SubjectName::parse(text).ok_or_else(|| {
        let forms = "user/NAME, key/ID, role/ROLE, model/NAME, upstream/NAME, address/IP or global";
        invalid(format!("name a subject as {forms}")).param("subject")
    })
}

/// Why something is done, as it is recorded.
pub(crate) fn reason(text: &str) -> Result<String, Denial> {
    let text = text.trim();
    match text.chars().count() {
        1..=MAX_REASON if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err(invalid("say why, in 1 to 500 characters of one line").param("reason")),
    }
}

/// The end that is asked for, as a time or as a duration from now.
pub(crate) fn ends_at(
    until: Option<u64>,
    lasts: Option<&str>,
    now: u64,
) -> Result<Option<u64>, Denial> {
    let end = match (until, lasts) {
        (Some(_), Some(_)) => return Err(invalid("give one of `until` and `for`").param("until")),
        (None, None) => return Ok(None),
        (Some(until), None) => until,
        (None, Some(lasts)) => {
            let lasts = config::duration(lasts).map_err(|why| invalid(why).param("for"))?;
            now.saturating_add(lasts.as_secs())
        }
    };
    if end <= now {
        return Err(invalid("it must be in the future").param("until"));
    }
    Ok(Some(end))
}

/// What is asked of an override.
#[derive(Debug)]
pub(crate) struct OverrideRequest<'a> {
    pub(crate) subject: SubjectName,
    /// By the keys of a quota block; null lifts a limit.
    pub(crate) limits: &'a Map<String, Value>,
    pub(crate) ends_at: Option<u64>,
    pub(crate) reason: &'a str,
}

impl OverrideRequest<'_> {
    /// The override. Limits that it does not name stay as `configured` has them, so that who tightens
    /// one loosens no other.
    pub(crate) fn make(
        self,
        configured: &Limits,
        now: u64,
        by: &str,
    ) -> Result<QuotaOverride, Denial> {
        Ok(QuotaOverride {
            quota: merged(configured, self.limits)?,
            subject: self.subject,
            ends_at: self.ends_at,
            reason: reason(self.reason)?,
            set_by: by.to_owned(),
            set_at: now,
        })
    }
}

fn merged(configured: &Limits, changes: &Map<String, Value>) -> Result<Quota, Denial> {
    let wrong = |message: String| invalid(message).param("limits");
    if changes.is_empty() {
        return Err(wrong("name at least one limit".to_owned()));
    }
    let mut merged = members(configured, |ms| (ms / 1000).into());
    for (key, value) in changes {
        merged.insert(key.clone(), value.clone());
    }
    fit_burst(&mut merged, changes.contains_key(BURST));
    merged.retain(|_, value| !value.is_null());
    if let Some((key, _)) = merged.iter().find(|(_, value)| !is_limit(value)) {
        let message = format!("`{}` is a whole number from 1 to 10^12", key.escape_debug());
        return Err(wrong(message));
    }
    serde_json::from_value(Value::Object(merged))
        .map_err(|_| wrong("a limit is not a key of a quota block, or too large".to_owned()))
}

const PACE: &str = "requests_per_minute";
const BURST: &str = "burst";

/// A burst belongs to a pace, and one that nobody asked for is not more than comes in a minute.
fn fit_burst(merged: &mut Map<String, Value>, asked: bool) {
    let Some(pace) = merged.get(PACE).filter(|pace| !pace.is_null()).cloned() else {
        merged.remove(BURST);
        return;
    };
    if !asked {
        let usual = u64::from(Quota::default().burst);
        let burst = merged.get(BURST).and_then(Value::as_u64).unwrap_or(usual);
        let burst = pace.as_u64().map_or(burst, |pace| pace.min(burst));
        merged.insert(BURST.to_owned(), burst.into());
    }
}

fn is_limit(value: &Value) -> bool {
    value.as_u64().is_some_and(|limit| (1..=MAX_LIMIT).contains(&limit))
}

/// A subject with its limits, and what it has used of them. The use is null where it is not known.
pub(crate) fn shown(
    name: &SubjectName,
    configured: &Arc<Limits>,
    rows: &Standing,
    now_ms: u64,
    consumption: Option<Consumption>,
) -> Value {
    let compiled = standing::compile(rows);
    let limits = compiled.limits(name.level(), name.subject(), configured, now_ms);
    let own = rows.overrides.iter().find(|row| row.subject == *name);
    let own = own.filter(|row| row.is_in_force(now_ms / 1000));
    json!({
        "level": name.level().name(),
        "id": name.id(),
        "limits": shown_limits(&limits),
        "configured": shown_limits(configured),
        "override": own.map(QuotaOverride::shown),
        "emergency": shown_emergency(rows, now_ms / 1000),
        "used": consumption.map(|consumption| shown_use(&consumption)),
        "in_flight": consumption.map(|consumption| consumption.in_flight),
    })
}

/// All overrides that hold, and the emergency limits.
pub(crate) fn shown_all(rows: &Standing, now: u64) -> Value {
    let in_force = rows.overrides.iter().filter(|row| row.is_in_force(now));
    let overrides: Vec<Value> = in_force.map(shown_override).collect();
    json!({ "overrides": overrides, "emergency": shown_emergency(rows, now) })
}

fn shown_override(row: &QuotaOverride) -> Value {
    let mut shown = row.shown();
    if let Some(shown) = shown.as_object_mut() {
        shown.insert("level".to_owned(), row.subject.level().name().into());
        shown.insert("id".to_owned(), row.subject.id().into());
    }
    shown
}

fn shown_emergency(rows: &Standing, now: u64) -> Value {
    let emergency = rows.emergency.as_ref().filter(|emergency| emergency.is_in_force(now));
    emergency.map_or(Value::Null, EmergencyLimits::shown)
}

/// Limits by the keys of the configuration.
pub(crate) fn shown_limits(limits: &Limits) -> Map<String, Value> {
    members(limits, seconds)
}

fn members(limits: &Limits, gpu: fn(u64) -> Value) -> Map<String, Value> {
    let mut shown = Map::new();
    if let Some(rate) = limits.pace {
        shown.insert(Meter::Pace.name().to_owned(), rate.per_minute().into());
        shown.insert(BURST.to_owned(), rate.burst().into());
    }
    if let Some(limit) = limits.concurrent {
        shown.insert(Meter::Concurrency.name().to_owned(), limit.into());
    }
    for ceiling in &limits.ceilings {
        let limit = match ceiling.resource {
            Resource::GpuTime => gpu(ceiling.limit),
            Resource::Requests
            | Resource::Tokens
            | Resource::PromptTokens
            | Resource::CompletionTokens => ceiling.limit.into(),
        };
        let meter = Meter::Window(ceiling.resource, ceiling.window);
        shown.insert(meter.name().to_owned(), limit);
    }
    shown
}

/// By window: what is settled, and apart from it what running requests hold.
pub(crate) fn shown_use(consumption: &Consumption) -> Map<String, Value> {
    let of = |window: Window| {
        let Spent { requests, used, reserved, .. } = *consumption.windows.of(window);
        let mut shown = shown_charge(used);
        shown.insert("requests".to_owned(), requests.into());
        shown.insert("reserved".to_owned(), shown_charge(reserved).into());
        (window.name().to_owned(), shown.into())
    };
    Window::ALL.into_iter().map(of).collect()
}

fn shown_charge(charge: Charge) -> Map<String, Value> {
    let shown = [
        ("prompt_tokens", charge.prompt.into()),
        ("completion_tokens", charge.completion.into()),
        ("tokens", charge.tokens().into()),
        ("gpu_seconds", seconds(charge.gpu_ms)),
    ];
    shown.into_iter().map(|(name, value): (&str, Value)| (name.to_owned(), value)).collect()
}

fn seconds(ms: u64) -> Value {
    (ms as f64 / 1000.0).into()
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Denial {
    Denial::new(Reason::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use portcullis_filters::quota::{Ceiling, Rate};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn configured() -> Limits {
        let ceiling = |resource, limit| Ceiling { resource, window: Window::Day, limit };
        Limits {
            pace: Rate::new(100, 20),
            concurrent: Some(16),
            ceilings: vec![ceiling(Resource::Tokens, 5_000), ceiling(Resource::GpuTime, 60_000)],
        }
    }

    /// The limits of an override, as they are shown; the parameter of the refusal.
    fn limits_of(changes: Value) -> Result<Value, Option<String>> {
        let request = OverrideRequest {
            subject: SubjectName::parse("user/ada").unwrap(),
            limits: changes.as_object().unwrap(),
            ends_at: None,
            reason: "test",
        };
        let made = request.make(&configured(), NOW, "root");
        made.map(|made| made.shown()["limits"].clone())
            .map_err(|denial| denial.param_name().map(str::to_owned))
    }

    #[test]
    fn an_override_changes_what_it_names_and_nothing_else() {
        let quota = |rate, burst, concurrent, tokens| {
            json!({
                "requests_per_minute": rate, "burst": burst, "concurrent": concurrent,
                "tokens_per_day": tokens, "gpu_seconds_per_day": 60,
            })
        };
        for (changes, expected) in [
            (json!({"tokens_per_day": 9}), quota(100, 20, 16, 9)),
            (json!({"requests_per_minute": 7}), quota(7, 7, 16, 5000)),
            (json!({"requests_per_minute": 7, "burst": 9}), quota(7, 9, 16, 5000)),
            (json!({"requests_per_minute": 500}), quota(500, 20, 16, 5000)),
            (
                json!({"requests_per_minute": null, "concurrent": null, "gpu_seconds_per_day": null}),
                json!({"tokens_per_day": 5000}),
            ),
        ] {
            assert_eq!(limits_of(changes.clone()), Ok(expected), "{changes}");
        }
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for changes in [
            json!({}),
            json!({"tokens_per_day": 0}),
            json!({"tokens_per_day": -1}),
            json!({"tokens_per_day": 1.5}),
            json!({"tokens_per_day": "9"}),
            json!({"tokens_per_day": 1_000_000_000_001_u64}),
            json!({"concurrent": 5_000_000_000_u64}),
            json!({"tokens_per_week": 9}),
        ] {
            assert_eq!(limits_of(changes.clone()), Err(Some("limits".to_owned())), "{changes}");
        }
    }

    #[test]
    fn ends_are_in_the_future() {
        for (until, lasts, expected) in [
            (None, None, Ok(None)),
            (Some(NOW + 1), None, Ok(Some(NOW + 1))),
            (None, Some("15m"), Ok(Some(NOW + 900))),
            (Some(NOW), None, Err(())),
            (None, Some("0"), Err(())),
            (None, Some("15"), Err(())),
            (Some(NOW + 1), Some("15m"), Err(())),
        ] {
            assert_eq!(ends_at(until, lasts, NOW).map_err(drop), expected, "{until:?} {lasts:?}");
        }
    }

    #[test]
    fn a_reason_is_a_line_of_text() {
        for (text, expected) in [
            (" a key leaked ", Some("a key leaked")),
            (&*"x".repeat(500), Some(&*"x".repeat(500))),
            (&"x".repeat(501), None),
            ("a\nb", None),
            ("  ", None),
            ("", None),
        ] {
            assert_eq!(reason(text).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_over_is_not_shown() {
        let name = SubjectName::parse("user/ada").unwrap();
        let own = QuotaOverride {
            subject: name.clone(),
            quota: Quota { concurrent: Some(1), ..Quota::default() },
            ends_at: Some(NOW),
            reason: "test".to_owned(),
            set_by: "root".to_owned(),
            set_at: NOW - 60,
        };
        let emergency = EmergencyLimits {
            per_user: 10,
            per_address: 50,
            ends_at: NOW,
            reason: "test".to_owned(),
            set_by: "root".to_owned(),
            set_at: NOW - 60,
        };
        let rows =
            Standing { overrides: vec![own], emergency: Some(emergency), ..Standing::default() };
        let configured = Arc::new(configured());
        for (now, holds) in [(NOW - 1, true), (NOW, false)] {
            let one = shown(&name, &configured, &rows, now * 1000, None);
            let all = shown_all(&rows, now);
            assert_eq!(one["override"].is_object(), holds, "{one}");
            assert_eq!(one["emergency"].is_object(), holds, "{one}");
            assert_eq!(one["limits"]["concurrent"], if holds { 1 } else { 16 }, "{one}");
            assert_eq!(one["configured"]["concurrent"], 16, "{one}");
            assert_eq!(all["overrides"].as_array().unwrap().len(), usize::from(holds), "{all}");
        }
    }
}
