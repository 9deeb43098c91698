//! Limits and use, shown.
//!
//! Limits are in the account store, the use is where requests are counted: in the memory of a gateway,
//! which is asked on its admin listener.

use std::env;
use std::path::Path;

use portcullis_filters::accounts::store::QuotaOverride;
use portcullis_filters::standing::SubjectName;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::{Show, configured};
use crate::cli::accounts::{Accounts, Common};
use crate::cli::{Failure, Outcome, ask, out, table, when};
use crate::quotas;

/// The variable that holds an API key.
const KEY: &str = "PORTCULLIS_API_KEY";

pub(super) fn list(common: &Common) -> Outcome {
    let accounts = Accounts::open(&common.config)?;
    let (rows, now) = (accounts.wait(accounts.store.standing())?, accounts.now());
    let head = ["SUBJECT", "LIMITS", "UNTIL", "BY", "REASON"];
    let in_force = rows.overrides.iter().filter(|row| row.is_in_force(now));
    let lines: Vec<_> = in_force.map(line).collect();
    common.answer(&quotas::shown_all(&rows, now), &table::columns(head, &lines))
}

fn line(row: &QuotaOverride) -> [String; 5] {
    let shown = row.shown();
    [
        row.subject.to_string(),
        shown.get("limits").map(pairs).unwrap_or_default(),
        when::shown_or(row.ends_at, "unset"),
        row.set_by.clone(),
        row.reason.clone(),
    ]
}

fn pairs(limits: &Value) -> String {
    let pairs = limits.as_object().into_iter().flatten();
    let pairs: Vec<String> = pairs.map(|(key, limit)| format!("{key}={limit}")).collect();
    pairs.join(" ")
}

pub(super) fn show(args: &Show) -> Outcome {
    let accounts = Accounts::open(&args.common.config)?;
    let name = args.whose.name()?;
    let Some(key) = credential(args.key_file.as_deref())? else {
        let why = format!(
            "What is used is not shown: the gateway that counts tells it to admins only. \
             Give the API key of one with --key-file or in {KEY}."
        );
        return answer(&accounts, &args.common, &name, &why);
    };
    let gateway = args.gateway.clone();
    let gateway = gateway.unwrap_or_else(|| format!("http://{}", accounts.config.admin.address));
    let shown = ask::get(&gateway, &format!("/internal/quota/{name}"), &key)?;
    args.common.answer(&shown, &text(&name, &shown))
}

/// The key of an admin: from a file, standard input or the environment.
fn credential(file: Option<&Path>) -> Result<Option<SecretString>, Failure> {
    let text = match file {
        None => env::var(KEY).ok().map(SecretString::from),
        Some(path) if path.as_os_str() == "-" => Some(out::all_input()?),
        Some(path) => Some(SecretString::from(
            std::fs::read_to_string(path).map_err(|why| format!("{}: {why}", path.display()))?,
        )),
    };
    let trimmed = text.map(|text| SecretString::from(text.expose_secret().trim()));
    Ok(trimmed.filter(|key| !key.expose_secret().is_empty()))
}

/// What the store knows of a subject, and a remark.
pub(super) fn answer(
    accounts: &Accounts,
    common: &Common,
    name: &SubjectName,
    remark: &str,
) -> Outcome {
    let limits = configured(accounts, name)?;
    let rows = accounts.wait(accounts.store.standing())?;
    let shown = quotas::shown(name, &limits, &rows, accounts.now().saturating_mul(1000), None);
    if common.json {
        out::note(&remark);
    }
    common.answer(&shown, &format!("{}\n\n{remark}", text(name, &shown)))
}

fn text(name: &SubjectName, shown: &Value) -> String {
    let member = |name: &str| shown.get(name).unwrap_or(&Value::Null);
    let about = [
        ("subject", name.to_string()),
        ("set", set(member("override"))),
        ("emergency", set(member("emergency"))),
        ("running", shown_number(member("in_flight"))),
    ];
    let (limits, configured) = (member("limits"), member("configured"));
    let mut keys: Vec<&String> = members(limits).chain(members(configured)).collect();
    keys.sort_unstable();
    keys.dedup();
    let row = |key: &String| {
        let of = |limits: &Value| limits.get(key).map(Value::to_string).unwrap_or_default();
        [key.clone(), of(limits), of(configured), used(member("used"), key)]
    };
    let rows: Vec<_> = keys.into_iter().map(row).collect();
    let head = ["LIMIT", "IN FORCE", "CONFIGURED", "USED"];
    format!("{}\n\n{}", table::pairs(&about), table::columns(head, &rows))
}

fn members(limits: &Value) -> impl Iterator<Item = &String> {
    limits.as_object().into_iter().flat_map(Map::keys)
}

/// Since when, by whom and why.
fn set(shown: &Value) -> String {
    let text = |name: &str| shown.get(name).and_then(Value::as_str).unwrap_or_default();
    let time = |name: &str| shown.get(name).and_then(Value::as_u64);
    if !shown.is_object() {
        return "no".to_owned();
    }
    let until = when::shown_or(time("until"), "it is taken back");
    format!("by {} until {until}: {}", text("set_by"), text("reason"))
}

/// What is used and held of a limit such as `tokens_per_day`.
fn used(shown: &Value, key: &str) -> String {
    let Some((resource, window)) = key.split_once("_per_") else { return String::new() };
    let Some(window) = shown.get(window) else { return String::new() };
    let number = |of: &Value| of.get(resource).and_then(Value::as_f64).unwrap_or(0.0);
    let held = window.get("reserved").map(number).unwrap_or_default();
    let held = if held > 0.0 { format!(" and {held} held") } else { String::new() };
    format!("{}{held}", number(window))
}

fn shown_number(value: &Value) -> String {
    value.as_u64().map(|number| number.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn people_see_limits_beside_what_is_used() {
        let shown = json!({
            "limits": {"requests_per_minute": 7, "gpu_seconds_per_hour": 0.5},
            "configured": {"requests_per_minute": 100, "tokens_per_day": 5000},
            "override": {"set_by": "root", "until": 0, "reason": "too \u{1b}many"},
            "emergency": null,
            "used": {
                "minute": {"requests": 3, "reserved": {}},
                "hour": {"gpu_seconds": 0.25, "reserved": {"gpu_seconds": 1.5}},
                "day": {"tokens": 42, "reserved": {"tokens": 0}},
            },
            "in_flight": 2,
        });
        let text = text(&SubjectName::parse("user/ada").unwrap(), &shown);
        let lines: Vec<&str> = text.lines().collect();
        let expected = [
            "subject    user/ada",
            "set        by root until 1970-01-01T00:00:00Z: too \u{fffd}many",
            "emergency  no",
            "running    2",
            "",
            "LIMIT                 IN FORCE  CONFIGURED  USED",
            "gpu_seconds_per_hour  0.5       -           0.25 and 1.5 held",
            "requests_per_minute   7         100         3",
            "tokens_per_day        -         5000        42",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        assert_eq!(used(&Value::Null, "tokens_per_day"), "");
        assert_eq!(used(&json!({"day": {}}), "concurrent"), "");
    }
}
