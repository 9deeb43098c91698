//! The audit record: what one request, or one change of the gateway, leaves behind.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::chain::Digest;
use super::text::Text;
use crate::clock::Clock;
use crate::usage::Usage;

/// Lists in a record are written up to this many entries.
const MAX_ENTRIES: usize = 64;

/// Metadata keeps up to this many values, nested ones included.
const MAX_VALUES: usize = 128;

/// One line of the audit trail.
///
/// The field names are public and stay. Every line has every field: what is absent is `null`, `[]`
/// or `{}`. `seq`, `prev` and `hash` are added when the line is [sealed](super::chain::Chain::seal).
/// Text from outside has to be made a [`Text`], which bounds and cleans it; of prompts and answers
/// there is only a keyed [`Digest`]. So no field can take a credential or a prompt as it came.
#[derive(Clone, Debug, Serialize)]
pub struct AuditRecord {
    /// First on the line, so that the file sorts and searches by time.
    #[serde(serialize_with = "rfc3339")]
    timestamp: u64,
    level: Level,
    operation: Operation,
    status: Status,
    /// The stable code of a refusal or an event ([`Reason::code`](crate::verdict::Reason::code)).
    pub reason: Option<&'static str>,
    /// The id that the answer carries in `x-request-id`.
    pub request_id: Option<Text>,
    /// The account.
    pub user_id: Option<Text>,
    /// The public id of the API key or token; never the key.
    pub key_id: Option<Text>,
    /// The address of the client, behind trusted proxies that which they name.
    pub client_ip: Option<IpAddr>,
    /// The `User-Agent` header.
    pub user_agent: Option<Text>,
    /// The path that was called, without its query ([`Text::path`]).
    pub endpoint: Option<Text>,
    /// The canonical model name or, if it was refused, the one asked for.
    pub model: Option<Text>,
    /// The configured name of the upstream that was asked.
    pub upstream: Option<Text>,
    threat_type: Option<&'static str>,
    severity: Option<Severity>,
    /// What the scanners found; the first 64 are written.
    #[serde(serialize_with = "bounded")]
    pub findings: Vec<Finding>,
    /// What was used, as it was settled.
    pub usage: Option<Usage>,
    /// From the request head to the last byte of the answer, in milliseconds.
    pub latency_ms: Option<u64>,
    /// From the request head to the first byte of the answer, in milliseconds.
    pub ttft_ms: Option<u64>,
    /// The gateway's own share of the latency, in microseconds.
    pub overhead_us: Option<u64>,
    /// How much of prompt and answer the scanners saw.
    pub scanned: Scanned,
    /// The length of the request body in bytes.
    pub input_length: Option<u64>,
    /// The HMAC of the prompt under the gateway's key.
    pub prompt_digest: Option<Digest>,
    /// Free labels; the first 64 are written.
    #[serde(serialize_with = "bounded")]
    pub tags: Vec<Text>,
    metadata: BTreeMap<&'static str, Value>,
}

impl AuditRecord {
    /// A record of something that happened now.
    #[must_use]
    pub fn new(clock: &Clock, operation: Operation, status: Status) -> Self {
        Self {
            timestamp: clock.unix_ms(),
            level: Level::of(status),
            operation,
            status,
            reason: None,
            request_id: None,
            user_id: None,
            key_id: None,
            client_ip: None,
            user_agent: None,
            endpoint: None,
            model: None,
            upstream: None,
            threat_type: None,
            severity: None,
            findings: Vec::new(),
            usage: None,
            latency_ms: None,
            ttft_ms: None,
            overhead_us: None,
            scanned: Scanned::default(),
            input_length: None,
            prompt_digest: None,
            tags: Vec::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// Names the threat, such as `prompt_injection`; a high severity raises the level to `error`.
    pub fn threat(&mut self, threat_type: &'static str, severity: Severity) {
        self.threat_type = Some(threat_type);
        self.severity = Some(severity);
        if severity >= Severity::High {
            self.level = Level::Error;
        }
    }

    /// Adds a detail. Texts in it are cleaned like any [`Text`], and the whole is bounded.
    pub fn detail(&mut self, key: &'static str, value: impl Into<Value>) {
        let mut budget = MAX_VALUES.saturating_sub(self.metadata.values().map(count).sum());
        if let Some(value) = clean(value.into(), &mut budget) {
            self.metadata.insert(key, value);
        }
    }

    /// The kind of event.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// How it ended.
    #[must_use]
    pub const fn status(&self) -> Status {
        self.status
    }

    /// The threat that was named, if any.
    #[must_use]
    pub const fn threat_type(&self) -> Option<&'static str> {
        self.threat_type
    }
}

/// The kind of event that a record tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Somebody proved who they are, or failed to.
    Authentication,
    /// A request to a model.
    Inference,
    /// Something was asked for that needs a right.
    Authorization,
    /// A rate or a quota was reached.
    RateLimit,
    /// The gateway itself was started, stopped or changed.
    Configuration,
    /// An account, key or session was changed.
    Account,
    /// An emergency measure, or an outage that the operator has to know of.
    Incident,
}

/// How an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It was done.
    Success,
    /// It was tried and went wrong.
    Failure,
    /// The gateway refused it.
    Denied,
    /// The client went away, or the gateway stopped it half way.
    Aborted,
}

/// The level that log viewers filter by; it follows from status and severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Info,
    Warn,
    Error,
}

impl Level {
    const fn of(status: Status) -> Self {
        match status {
            Status::Success => Self::Info,
            Status::Failure | Status::Denied | Status::Aborted => Self::Warn,
        }
    }
}

/// How bad a threat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth a look in a quiet hour.
    Low,
    /// Worth a look.
    Medium,
    /// Needs a look today; logged as an error.
    High,
    /// Needs a look now; logged as an error.
    Critical,
}

/// One finding of a scanner: which rule, where and what was done. The matched text is left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The id of the rule.
    pub rule: Text,
    /// The kind, such as `prompt_injection` or `secret`.
    pub kind: &'static str,
    /// The role of the message it was found in.
    pub role: &'static str,
    /// From 0 to 1; higher is more certain.
    #[serde(serialize_with = "rounded")]
    pub score: f64,
    /// What was done about it: `allow`, `flag`, `redact`, `pseudonymise` or `block`.
    pub action: &'static str,
    /// The exception of the configuration that let it pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exception: Option<Text>,
    /// `input` or `output`.
    pub direction: &'static str,
}

/// How much the scanners saw of each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Scanned {
    /// Of the prompt.
    pub input: Coverage,
    /// Of the answer.
    pub output: Coverage,
}

/// How much was scanned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Coverage {
    /// All of it.
    Full,
    /// Not all of it.
    Partial,
    /// Nothing.
    #[default]
    None,
}

/// RFC 3339, UTC, with milliseconds.
pub(super) fn rfc3339_text(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", at.unwrap_or(Timestamp::MAX))
}

fn rfc3339<S: Serializer>(unix_ms: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339_text(*unix_ms))
}

fn bounded<T: Serialize, S: Serializer>(list: &[T], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(list.iter().take(MAX_ENTRIES))
}

/// Four decimals, so that a score of 0.85 is written as 0.85 whatever it was computed from.
fn rounded<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((number * 10_000.0).round() / 10_000.0)
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(count).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(count).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

/// The value with its texts cleaned, without the parts for which the budget has no room.
fn clean(value: Value, budget: &mut usize) -> Option<Value> {
    *budget = budget.checked_sub(1)?;
    Some(match value {
        Value::String(text) => Value::String(Text::new(&text).as_str().to_owned()),
        Value::Array(list) => list.into_iter().map_while(|item| clean(item, budget)).collect(),
        Value::Object(map) => map
            .into_iter()
            .map_while(|(key, item)| Some((Text::new(&key).to_string(), clean(item, budget)?)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(record: &AuditRecord) -> String {
        serde_json::to_string(record).unwrap()
    }

    #[test]
    fn every_field_stands_in_its_place() {
        let record = AuditRecord::new(&Clock::system(), Operation::Authentication, Status::Failure);
        let text = line(&record);
        assert!(text.starts_with("{\"timestamp\":\"20"), "{text}");
        let order = "timestamp level operation status reason request_id user_id key_id client_ip \
                     user_agent endpoint model upstream threat_type severity findings usage \
                     latency_ms ttft_ms overhead_us scanned input_length prompt_digest tags metadata";
        let mut rest = text.as_str();
        for field in order.split(' ') {
            rest = rest.split_once(&format!("\"{field}\":")).expect(field).1;
        }
    }

    #[test]
    fn names_are_those_of_the_contract() {
        let mut record = AuditRecord::new(&Clock::system(), Operation::RateLimit, Status::Denied);
        record.threat("prompt_injection", Severity::Critical);
        record.client_ip = Some([127, 0, 0, 1].into());
        record.usage = Some(Usage {
            prompt_tokens: 3,
            completion_tokens: 5,
            gpu_seconds: 0.1 + 0.2,
            estimated: true,
        });
        record.scanned = Scanned { input: Coverage::Full, output: Coverage::Partial };
        record.findings.push(Finding {
            rule: Text::new("INJ-001"),
            kind: "prompt_injection",
            role: "user",
            score: f64::from(0.85_f32),
            action: "block",
            exception: None,
            direction: "input",
        });
        record.prompt_digest = Some(Digest::from([0xab; 32]));
        let got: Value = serde_json::from_str(&line(&record)).unwrap();
        for (field, expected) in [
            ("operation", json!("rate_limit")),
            ("status", json!("denied")),
            ("level", json!("error")),
            ("severity", json!("critical")),
            ("threat_type", json!("prompt_injection")),
            ("client_ip", json!("127.0.0.1")),
            ("scanned", json!({"input": "full", "output": "partial"})),
            ("prompt_digest", json!("ab".repeat(32))),
            ("user_id", Value::Null),
            (
                "usage",
                json!({"prompt_tokens": 3, "completion_tokens": 5, "gpu_seconds": 0.3, "estimated": true}),
            ),
            (
                "findings",
                json!([{"rule": "INJ-001", "kind": "prompt_injection", "role": "user",
                        "score": 0.85, "action": "block", "direction": "input"}]),
            ),
        ] {
            assert_eq!(got[field], expected, "{field}");
        }
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        let mut record = AuditRecord::new(&Clock::system(), Operation::Inference, Status::Success);
        let evil = "\n{\"event\":\"forged\"}\r\n\x1b[31m<script>";
        record.user_agent = Some(Text::from_bytes(evil.as_bytes()));
        record.detail("note", evil);
        let text = line(&record);
        assert!(!text.bytes().any(|byte| byte < b' ' || byte == 0x7f), "{text}");
        let got: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&got["user_agent"], &got["event"]), (&json!(evil), &Value::Null));
    }

    #[test]
    fn metadata_is_cleaned_and_bounded() {
        let mut record = AuditRecord::new(&Clock::system(), Operation::Account, Status::Success);
        record.detail("nested", json!({"key": ["sk_live_abcdefgh_0123456789", 7, null]}));
        record.detail("long", vec!["x".repeat(10_000); 10_000]);
        record.detail("late", 1);
        assert_eq!(record.metadata["nested"], json!({"key": ["[redacted]", 7, null]}));
        assert_eq!(record.metadata["long"].as_array().map(Vec::len), Some(MAX_VALUES - 6));
        assert!(!record.metadata.contains_key("late"));
    }

    #[test]
    fn lists_are_bounded() {
        let mut record = AuditRecord::new(&Clock::system(), Operation::Account, Status::Success);
        record.tags = vec![Text::new("tag"); 1000];
        let got: Value = serde_json::from_str(&line(&record)).unwrap();
        assert_eq!(got["tags"].as_array().map(Vec::len), Some(MAX_ENTRIES));
    }

    #[test]
    fn time_is_rfc_3339_with_milliseconds() {
        for (unix_ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_700_000_000_120, "2023-11-14T22:13:20.120Z"),
            (u64::MAX, "9999-12-30T22:00:00.999Z"),
        ] {
            assert_eq!(rfc3339_text(unix_ms), expected);
        }
    }
}
